//! pcap and pcapng: replay, capture files and streams.
