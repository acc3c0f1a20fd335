//! What a function receives, and what it received.

use crate::bytes::{array, elements, put, u8_at, u16_at};

/// One address of ADD_ETH_ADDR and DEL_ETH_ADDR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EthAddr {
    /// The address.
    pub addr: [u8; 6],
    /// 0 not said, 1 the function's own, 2 another one.
    pub kind: u8,
}

impl EthAddr {
    /// The function's own address.
    pub const PRIMARY: u8 = 1;
    /// Another address.
    pub const EXTRA: u8 = 2;
}

/// ADD_ETH_ADDR and DEL_ETH_ADDR.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EthAddrs {
    /// VSI.
    pub vsi: u16,
    /// The addresses.
    pub list: Vec<EthAddr>,
}

const ADDR: usize = 8;

impl EthAddrs {
    /// Reads the message: VSI and addresses.
    pub fn parse(bytes: &[u8]) -> Option<(u16, impl Iterator<Item = EthAddr> + Clone)> {
        let list = elements(bytes, 4, u16_at(bytes, 2)?, ADDR)?;
        let addr = |entry: &[u8]| Some(EthAddr { addr: array(entry, 0)?, kind: u8_at(entry, 6)? });
        Some((u16_at(bytes, 0)?, list.filter_map(addr)))
    }

    /// The message, in its historical length.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.vsi.to_le_bytes().to_vec();
        bytes.extend(u16::try_from(self.list.len()).unwrap_or(u16::MAX).to_le_bytes());
        for entry in &self.list {
            bytes.extend(entry.addr);
            bytes.extend([entry.kind, 0]);
        }
        bytes.extend([0; ADDR]);
        bytes
    }
}

/// ADD_VLAN and DEL_VLAN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VlanIds {
    /// VSI.
    pub vsi: u16,
    /// VLAN ids.
    pub list: Vec<u16>,
}

impl VlanIds {
    /// Reads the message: VSI and ids.
    pub fn parse(bytes: &[u8]) -> Option<(u16, impl Iterator<Item = u16> + Clone)> {
        let list = elements(bytes, 4, u16_at(bytes, 2)?, 2)?;
        Some((u16_at(bytes, 0)?, list.filter_map(|id| u16_at(id, 0))))
    }

    /// The message, in its historical length.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.vsi.to_le_bytes().to_vec();
        bytes.extend(u16::try_from(self.list.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.list.iter().for_each(|id| bytes.extend(id.to_le_bytes()));
        bytes.extend([0; 2]);
        bytes
    }
}

/// CONFIG_PROMISCUOUS_MODE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promiscuous {
    /// VSI.
    pub vsi: u16,
    /// All unicast addresses.
    pub unicast: bool,
    /// All multicast addresses.
    pub multicast: bool,
}

impl Promiscuous {
    /// Reads the message.
    pub fn parse(bytes: &[u8]) -> Option<Promiscuous> {
        let flags = u16_at(bytes, 2)?;
        Some(Promiscuous { vsi: u16_at(bytes, 0)?, unicast: flags & 1 != 0, multicast: flags & 2 != 0 })
    }

    /// The message.
    pub fn encode(&self) -> [u8; 4] {
        let mut bytes = [0; 4];
        put(&mut bytes, 0, &self.vsi.to_le_bytes());
        put(&mut bytes, 2, &(u16::from(self.unicast) | u16::from(self.multicast) << 1).to_le_bytes());
        bytes
    }
}

/// The reply to GET_STATS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames received: to one, to groups, to all.
    pub rx_casts: [u64; 3],
    /// Frames for which there was no buffer.
    pub rx_discards: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames sent: to one, to groups, to all.
    pub tx_casts: [u64; 3],
    /// Frames that were not sent because they were not allowed.
    pub tx_discards: u64,
    /// Frames that were not sent because they were malformed.
    pub tx_errors: u64,
}

impl Stats {
    /// Bytes of the message.
    pub const LEN: usize = 96;

    /// Reads the message.
    pub fn parse(bytes: &[u8]) -> Option<Stats> {
        let at = |n: usize| Some(u64::from_le_bytes(array(bytes, n * 8)?));
        Some(Stats {
            rx_bytes: at(0)?,
            rx_casts: [at(1)?, at(2)?, at(3)?],
            rx_discards: at(4)?,
            tx_bytes: at(6)?,
            tx_casts: [at(7)?, at(8)?, at(9)?],
            tx_discards: at(10)?,
            tx_errors: at(11)?,
        })
    }

    /// The message.
    pub fn encode(&self) -> [u8; Stats::LEN] {
        let [ru, rm, rb] = self.rx_casts;
        let [tu, tm, tb] = self.tx_casts;
        let fields = [
            self.rx_bytes,
            ru,
            rm,
            rb,
            self.rx_discards,
            0,
            self.tx_bytes,
            tu,
            tm,
            tb,
            self.tx_discards,
            self.tx_errors,
        ];
        let mut bytes = [0; Stats::LEN];
        for (n, field) in fields.iter().enumerate() {
            put(&mut bytes, n * 8, &field.to_le_bytes());
        }
        bytes
    }
}
