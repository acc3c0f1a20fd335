//! Files as a port: replay in, capture out.

use std::io;
use std::path::PathBuf;

use fabnic_port::Port;

use crate::record::RecordEgress;
use crate::replay::{LoadError, Pace, Recording, ReplayIngress};

/// What a port of files does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcapConfig {
    /// File whose frames are fed into the switch.
    pub replay: Option<PathBuf>,
    /// How fast.
    pub pace: Pace,
    /// Whether replay starts over at the end.
    pub repeat: bool,
    /// File into which is written what is delivered to the port; what was in it is replaced.
    pub capture: Option<PathBuf>,
}

/// Why a port of files cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// The file to replay.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The file to write.
    #[error("{path}: {source}")]
    Create {
        /// The file.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Files, opened and read, ready to become the queues of a port.
#[derive(Debug)]
pub struct PcapPort {
    ingress: Option<ReplayIngress>,
    egress: Option<RecordEgress>,
}

impl PcapPort {
    /// Reads the file to replay and makes the one to write, for the port of this name.
    ///
    /// # Errors
    /// See [`PcapError`].
    pub fn open(config: &PcapConfig, port: &str) -> Result<PcapPort, PcapError> {
        let ingress = match &config.replay {
            Some(path) => Some(ReplayIngress::new(Recording::load(path)?, config.pace, config.repeat)?),
            None => None,
        };
        let egress = match &config.capture {
            Some(path) => Some(
                RecordEgress::create(path, port)
                    .map_err(|source| PcapError::Create { path: path.display().to_string(), source })?,
            ),
            None => None,
        };
        Ok(PcapPort { ingress, egress })
    }

    /// Installs the queues in the first pair of the port's cells. A port that only replays has no egress queue: frames
    /// to it are counted as `NotReady`.
    pub fn attach(self, port: &Port) {
        if let (Some(egress), Some(cell)) = (self.egress, port.egress().first()) {
            cell.install(Box::new(egress));
        }
        if let (Some(ingress), Some(cell)) = (self.ingress, port.ingress().first()) {
            cell.install(Box::new(ingress));
        }
        port.refresh_egress();
    }
}
