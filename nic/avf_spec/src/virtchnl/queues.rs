//! Queues: where their rings are, which vectors they interrupt on, when they run.

use crate::bytes::{elements, put, u8_at, u16_at, u32_at, u64_at};

/// Flag of [`ReceiveQueue::flags`]: time stamps are wanted.
pub const RECEIVE_PTP: u8 = 1;

/// A transmit queue of CONFIG_VSI_QUEUES.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransmitQueue {
    /// VSI.
    pub vsi: u16,
    /// Number.
    pub id: u16,
    /// Descriptors; 0 if the queue is not used.
    pub ring_len: u16,
    /// Write the head back instead of descriptors: must be 0.
    pub head_write_back: u16,
    /// Bus address of the ring.
    pub ring: u64,
}

/// A receive queue of CONFIG_VSI_QUEUES.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveQueue {
    /// VSI.
    pub vsi: u16,
    /// Number.
    pub id: u16,
    /// Descriptors; 0 if the queue is not used.
    pub ring_len: u32,
    /// Split headers: never granted.
    pub split: u16,
    /// Bytes of each buffer.
    pub buffer_len: u32,
    /// Longest frame to be received.
    pub max_frame: u32,
    /// Keep the frame check sequence.
    pub keep_crc: bool,
    /// Format of descriptors, see [`crate::receive::rxdid`].
    pub format: u8,
    /// See [`RECEIVE_PTP`].
    pub flags: u8,
    /// Bus address of the ring.
    pub ring: u64,
}

/// A pair of queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueuePair {
    /// What the driver transmits on.
    pub transmit: TransmitQueue,
    /// What it receives on.
    pub receive: ReceiveQueue,
}

const PAIR: usize = 64;

impl QueuePair {
    fn parse(bytes: &[u8]) -> Option<QueuePair> {
        let receive = bytes.get(24..)?;
        Some(QueuePair {
            transmit: TransmitQueue {
                vsi: u16_at(bytes, 0)?,
                id: u16_at(bytes, 2)?,
                ring_len: u16_at(bytes, 4)?,
                head_write_back: u16_at(bytes, 6)?,
                ring: u64_at(bytes, 8)?,
            },
            receive: ReceiveQueue {
                vsi: u16_at(receive, 0)?,
                id: u16_at(receive, 2)?,
                ring_len: u32_at(receive, 4)?,
                split: u16_at(receive, 10)?,
                buffer_len: u32_at(receive, 12)?,
                max_frame: u32_at(receive, 16)?,
                keep_crc: u8_at(receive, 20)? != 0,
                format: u8_at(receive, 21)?,
                flags: u8_at(receive, 22)?,
                ring: u64_at(receive, 24)?,
            },
        })
    }

    fn encode(&self) -> [u8; PAIR] {
        let mut bytes = [0; PAIR];
        let TransmitQueue { vsi, id, ring_len, head_write_back, ring } = self.transmit;
        put(&mut bytes, 0, &vsi.to_le_bytes());
        put(&mut bytes, 2, &id.to_le_bytes());
        put(&mut bytes, 4, &ring_len.to_le_bytes());
        put(&mut bytes, 6, &head_write_back.to_le_bytes());
        put(&mut bytes, 8, &ring.to_le_bytes());
        let receive = &self.receive;
        put(&mut bytes, 24, &receive.vsi.to_le_bytes());
        put(&mut bytes, 26, &receive.id.to_le_bytes());
        put(&mut bytes, 28, &receive.ring_len.to_le_bytes());
        put(&mut bytes, 34, &receive.split.to_le_bytes());
        put(&mut bytes, 36, &receive.buffer_len.to_le_bytes());
        put(&mut bytes, 40, &receive.max_frame.to_le_bytes());
        put(&mut bytes, 44, &[u8::from(receive.keep_crc), receive.format, receive.flags]);
        put(&mut bytes, 48, &receive.ring.to_le_bytes());
        bytes
    }
}

/// CONFIG_VSI_QUEUES.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigQueues {
    /// VSI.
    pub vsi: u16,
    /// The pairs.
    pub pairs: Vec<QueuePair>,
}

impl ConfigQueues {
    /// Reads the message: VSI and pairs.
    pub fn parse(bytes: &[u8]) -> Option<(u16, impl Iterator<Item = QueuePair> + Clone)> {
        let pairs = elements(bytes, 8, u16_at(bytes, 2)?, PAIR)?;
        Some((u16_at(bytes, 0)?, pairs.filter_map(QueuePair::parse)))
    }

    /// The message, in its historical length.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        put(&mut bytes, 0, &self.vsi.to_le_bytes());
        put(&mut bytes, 2, &u16::try_from(self.pairs.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.pairs.iter().for_each(|pair| bytes.extend(pair.encode()));
        bytes.extend([0; PAIR]);
        bytes
    }
}

/// One vector of CONFIG_IRQ_MAP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IrqMapEntry {
    /// VSI.
    pub vsi: u16,
    /// Vector.
    pub vector: u16,
    /// Receive queues, one a bit.
    pub receive: u16,
    /// Transmit queues, one a bit.
    pub transmit: u16,
    /// Which interval the receive queues use.
    pub receive_itr: u16,
    /// Which interval the transmit queues use.
    pub transmit_itr: u16,
}

/// CONFIG_IRQ_MAP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IrqMap(pub Vec<IrqMapEntry>);

const IRQ: usize = 12;

impl IrqMap {
    /// Reads the message.
    pub fn parse(bytes: &[u8]) -> Option<impl Iterator<Item = IrqMapEntry> + Clone> {
        let entries = elements(bytes, 2, u16_at(bytes, 0)?, IRQ)?;
        Some(entries.filter_map(|entry| {
            Some(IrqMapEntry {
                vsi: u16_at(entry, 0)?,
                vector: u16_at(entry, 2)?,
                receive: u16_at(entry, 4)?,
                transmit: u16_at(entry, 6)?,
                receive_itr: u16_at(entry, 8)?,
                transmit_itr: u16_at(entry, 10)?,
            })
        }))
    }

    /// The message, in its historical length.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = u16::try_from(self.0.len()).unwrap_or(u16::MAX).to_le_bytes().to_vec();
        for entry in &self.0 {
            let IrqMapEntry { vsi, vector, receive, transmit, receive_itr, transmit_itr } = *entry;
            for field in [vsi, vector, receive, transmit, receive_itr, transmit_itr] {
                bytes.extend(field.to_le_bytes());
            }
        }
        bytes.extend([0; IRQ]);
        bytes
    }
}

/// ENABLE_QUEUES, DISABLE_QUEUES, GET_STATS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSelect {
    /// VSI.
    pub vsi: u16,
    /// Receive queues, one a bit.
    pub receive: u32,
    /// Transmit queues, one a bit.
    pub transmit: u32,
}

impl QueueSelect {
    /// Reads the message.
    pub fn parse(bytes: &[u8]) -> Option<QueueSelect> {
        Some(QueueSelect { vsi: u16_at(bytes, 0)?, receive: u32_at(bytes, 4)?, transmit: u32_at(bytes, 8)? })
    }

    /// The message.
    pub fn encode(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        put(&mut bytes, 0, &self.vsi.to_le_bytes());
        put(&mut bytes, 4, &self.receive.to_le_bytes());
        put(&mut bytes, 8, &self.transmit.to_le_bytes());
        bytes
    }
}
