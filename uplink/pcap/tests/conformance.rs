//! The port's conformance suite, for replay and recording.
#![allow(clippy::unwrap_used)] // Test code outside of #[test] functions.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fabnic_memory::Map;
use fabnic_pcap::{Pace, RecordEgress, Recording, ReplayIngress};
use fabnic_port::conformance::{Endpoint, Outside, check};
use fabnic_port::{Burst, Fault, Ingress, MAX_FRAME};
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionBlock;

/// Frames that wait to be written into the next file.
type Sent = Arc<Mutex<Vec<Vec<u8>>>>;

/// Replays one file after the other, each with what was sent in the meantime.
struct Files {
    sent: Sent,
    replay: Option<ReplayIngress>,
    path: PathBuf,
    /// For bursts without a file.
    none: Arc<Map>,
}

impl Files {
    fn next_file(&mut self) {
        if self.replay.as_ref().is_some_and(|replay| !replay.is_over()) {
            return;
        }
        let frames = std::mem::take(&mut *self.sent.lock().unwrap());
        if frames.is_empty() {
            return;
        }
        let mut writer = PcapNgWriter::new(File::create(&self.path).unwrap()).unwrap();
        writer.write_pcapng_block(InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0)).unwrap();
        for frame in &frames {
            let packet = EnhancedPacketBlock {
                interface_id: 0,
                timestamp: Duration::ZERO,
                original_len: frame.len() as u32,
                data: Cow::Borrowed(frame),
                options: Vec::new(),
            };
            writer.write_pcapng_block(packet).unwrap();
        }
        let recording = Recording::load(&self.path).unwrap();
        assert_eq!(recording.packets(), frames.len());
        self.replay = Some(ReplayIngress::new(recording, Pace::Fastest, false).unwrap());
    }
}

impl Ingress for Files {
    fn backlog(&mut self) -> usize {
        self.next_file();
        self.replay.as_mut().map_or(0, Ingress::backlog)
    }
    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        self.next_file();
        burst.begin(&self.none);
        self.replay.as_mut().map_or(Ok(()), |replay| replay.receive(burst))
    }
    fn complete(&mut self, burst: &Burst) -> u32 {
        self.replay.as_mut().map_or(0, |replay| replay.complete(burst))
    }
    fn arm(&mut self) -> bool {
        self.next_file();
        self.replay.as_mut().is_some_and(Ingress::arm)
    }
    fn disarm(&mut self) {}
    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Reads the blocks of a file while it grows, without any of our code.
struct Growing {
    sent: Sent,
    file: File,
    bytes: Vec<u8>,
    found: VecDeque<Vec<u8>>,
    /// Keeps the files.
    _directory: tempfile::TempDir,
}

impl Outside for Growing {
    fn send(&mut self, frame: &[u8]) {
        self.sent.lock().unwrap().push(frame.to_vec());
    }

    fn receive(&mut self) -> Option<Vec<u8>> {
        let begun = Instant::now();
        loop {
            if let Some(frame) = self.found.pop_front() {
                return Some(frame);
            }
            if self.file.read_to_end(&mut self.bytes).unwrap() == 0 {
                // The writing thread naps for 10 ms at most, and the machine may be busy.
                if begun.elapsed() > Duration::from_millis(500) {
                    return None;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let mut at = 0;
            while self.bytes.len() >= at + 8 && self.bytes.len() >= at + word(&self.bytes, at + 4) as usize {
                let block = &self.bytes[at..];
                if word(block, 0) == 6 {
                    let len = word(block, 20) as usize;
                    assert_eq!(word(block, 24) as usize, len);
                    self.found.push_back(block[28..28 + len].to_vec());
                }
                at += word(block, 4) as usize;
            }
            self.bytes.drain(..at);
        }
    }
}

#[test]
fn replay_and_recording_conform() {
    check(|| {
        let directory = tempfile::tempdir().unwrap();
        let sent = Sent::default();
        let (none, _) = Map::anonymous(4096).unwrap();
        let path = directory.path().join("in.pcapng");
        let ingress = Files { sent: Arc::clone(&sent), replay: None, path, none };
        let path = directory.path().join("out.pcapng");
        let egress = RecordEgress::create(&path, "files").unwrap();
        let file = File::open(&path).unwrap();
        let outside =
            Growing { sent, file, bytes: Vec::new(), found: VecDeque::new(), _directory: directory };
        Endpoint {
            ingress: Some(Box::new(ingress)),
            egress: Some(Box::new(egress)),
            outside: Box::new(outside),
            lengths: 14..=MAX_FRAME as usize,
            depth: 200,
            wakes: false,
        }
    });
}
