//! A port that writes what is delivered to it into a pcapng file.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use fabnic_port::{Burst, Direction, DropReason, Egress, Fault, Frame, MAX_FRAME, Tally};
use parking_lot::Mutex;

use crate::capture::{CaptureOptions, CaptureTap, Chunk, start_with};

/// Bytes that wait for the disk. What comes while it is full is dropped, as by a full ring.
const BUFFER: usize = 16 << 20;
/// How long the writing thread waits at a time.
const PATIENCE: Duration = Duration::from_millis(200);

/// Writes frames into a file, by a thread of its own: a slow disk costs frames, not the worker's time.
///
/// Dropping it waits until everything that was taken is in the file.
#[derive(Debug)]
pub struct RecordEgress {
    path: String,
    /// Taken out when dropped: that ends the thread.
    tap: Option<CaptureTap>,
    failed: Arc<Mutex<Option<String>>>,
    writer: Option<JoinHandle<()>>,
}

impl RecordEgress {
    /// Makes the file, or replaces what was in it, and writes on behalf of the port of this name.
    ///
    /// # Errors
    /// The file cannot be made, or the thread not be started.
    pub fn create(path: &Path, port: &str) -> io::Result<RecordEgress> {
        let file = File::create(path)?;
        let options = CaptureOptions { snaplen: MAX_FRAME, ..CaptureOptions::default() };
        let (tap, mut stream) = start_with(options, port, BUFFER);
        let failed = Arc::new(Mutex::new(None));
        let writer = std::thread::Builder::new().name("fabnic-pcap".to_owned()).spawn({
            let failed = Arc::clone(&failed);
            let mut file = file;
            move || loop {
                match stream.next_chunk(PATIENCE) {
                    Chunk::Idle => {}
                    Chunk::End => break,
                    Chunk::Blocks(bytes) => {
                        if let Err(error) = file.write_all(&bytes) {
                            *failed.lock() = Some(error.to_string());
                            break;
                        }
                    }
                }
            }
        })?;
        Ok(RecordEgress { path: path.display().to_string(), tap: Some(tap), failed, writer: Some(writer) })
    }
}

impl Egress for RecordEgress {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        if let Some(problem) = self.failed.lock().as_ref() {
            tally.drop(DropReason::Stopped, picks.len());
            return Err(Fault(format!("{}: {problem}, expected to write captured frames there", self.path)));
        }
        for pick in picks {
            let index = usize::from(*pick);
            let Some(len) = burst.frames().get(index).map(Frame::len) else {
                tally.drop(DropReason::Refused, 1);
                continue;
            };
            let taken = self.tap.as_ref().is_some_and(|tap| tap.take(burst, index, Direction::Out, ""));
            if taken {
                tally.deliver(len);
            } else {
                tally.drop(DropReason::RingFull, 1);
            }
        }
        Ok(())
    }
}

impl Drop for RecordEgress {
    fn drop(&mut self) {
        self.tap = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            *self.failed.lock() = Some("the writing thread panicked".to_owned());
        }
    }
}
