//! Any bytes as a pcap or pcapng file.

use std::io::Read;

use fabnic_pcap::{Format, MAX_PACKET, Reader};

/// Gives one byte at a time, as a slow pipe does.
struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let n = to.len().min(1);
        self.0.read(&mut to[..n])
    }
}

/// Packets, with the error that ended the file if there was one.
type Outcome = (Option<Format>, Vec<(u64, u32, Vec<u8>)>, Option<String>);

fn read(from: impl Read) -> Outcome {
    let mut packets = Vec::new();
    let mut reader = match Reader::new(from) {
        Ok(reader) => reader,
        Err(error) => return (None, packets, Some(error.to_string())),
    };
    let format = Some(reader.format());
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) => packets.push((packet.time, packet.original_len, packet.bytes.to_vec())),
            Ok(None) => return (format, packets, None),
            Err(error) => return (format, packets, Some(error.to_string())),
        }
    }
}

pub(crate) fn run(data: &[u8]) {
    let outcome = read(data);
    let (format, packets, error) = &outcome;
    let total: usize = packets.iter().map(|packet| packet.2.len()).sum();
    assert!(total <= data.len(), "more bytes than the file has");
    assert!(packets.iter().all(|packet| packet.2.len() <= MAX_PACKET as usize));
    if let Some(error) = error {
        assert!(error.starts_with("at byte "), "{error}");
    }
    assert_eq!(read(Drip(data)), outcome, "read in pieces");

    // Where another reader finds no fault, it finds the same packets.
    if *format == Some(Format::Pcap)
        && error.is_none()
        && let Ok(mut other) = pcap_file::pcap::PcapReader::new(data)
    {
        for (time, original_len, bytes) in packets {
            let Some(Ok(packet)) = other.next_packet() else { return };
            assert_eq!((packet.orig_len, &packet.data[..]), (*original_len, &bytes[..]));
            // A fraction beyond its second is carried by us, and refused or kept by others.
            if time % 1_000_000_000 == u64::from(packet.timestamp.subsec_nanos()) {
                assert_eq!(time / 1_000_000_000, packet.timestamp.as_secs());
            }
        }
    }
}
