//! Messages between a virtual function's driver and whoever plays its physical function (virtchnl 1.1).
//!
//! One request has one reply, with the same opcode and a status. Each message is a type with `parse` for the side that
//! gets it and `encode` for the side that sends it.

mod features;
mod queues;
mod session;
mod stacks;
mod traffic;

pub use features::{
    Event, LinkSpeed, RSS_KEY_LEN, RSS_LUT_LEN, RssBytes, RssHash, VlanCaps, VlanFilter, VlanFilters,
    VlanSetting, vlan,
};
pub use queues::{
    ConfigQueues, IrqMap, IrqMapEntry, QueuePair, QueueSelect, RECEIVE_PTP, ReceiveQueue, TransmitQueue,
};
pub use session::{Resources, VSI_ID, VSI_SRIOV, Version};
pub use stacks::{
    Action, FdirAdd, FdirDelete, Header, MAX_ACTIONS, MAX_HEADERS, RssConfig, Stack, fdir, field, header,
};
pub use traffic::{EthAddr, EthAddrs, Promiscuous, Stats, VlanIds};

/// Numbers of messages.
pub mod opcode {
    #![allow(missing_docs, reason = "the names are the specification's")]
    pub const VERSION: u32 = 1;
    pub const RESET_VF: u32 = 2;
    pub const GET_VF_RESOURCES: u32 = 3;
    pub const CONFIG_VSI_QUEUES: u32 = 6;
    pub const CONFIG_IRQ_MAP: u32 = 7;
    pub const ENABLE_QUEUES: u32 = 8;
    pub const DISABLE_QUEUES: u32 = 9;
    pub const ADD_ETH_ADDR: u32 = 10;
    pub const DEL_ETH_ADDR: u32 = 11;
    pub const ADD_VLAN: u32 = 12;
    pub const DEL_VLAN: u32 = 13;
    pub const CONFIG_PROMISCUOUS_MODE: u32 = 14;
    pub const GET_STATS: u32 = 15;
    pub const EVENT: u32 = 17;
    pub const CONFIG_RSS_HFUNC: u32 = 18;
    pub const CONFIG_RSS_KEY: u32 = 23;
    pub const CONFIG_RSS_LUT: u32 = 24;
    pub const GET_RSS_HENA_CAPS: u32 = 25;
    pub const SET_RSS_HENA: u32 = 26;
    pub const ENABLE_VLAN_STRIPPING: u32 = 27;
    pub const DISABLE_VLAN_STRIPPING: u32 = 28;
    pub const REQUEST_QUEUES: u32 = 29;
    pub const GET_SUPPORTED_RXDIDS: u32 = 44;
    pub const ADD_RSS_CFG: u32 = 45;
    pub const DEL_RSS_CFG: u32 = 46;
    pub const ADD_FDIR_FILTER: u32 = 47;
    pub const DEL_FDIR_FILTER: u32 = 48;
    pub const GET_OFFLOAD_VLAN_V2_CAPS: u32 = 51;
    pub const ADD_VLAN_V2: u32 = 52;
    pub const DEL_VLAN_V2: u32 = 53;
    pub const ENABLE_VLAN_STRIPPING_V2: u32 = 54;
    pub const DISABLE_VLAN_STRIPPING_V2: u32 = 55;
    pub const ENABLE_VLAN_INSERTION_V2: u32 = 56;
    pub const DISABLE_VLAN_INSERTION_V2: u32 = 57;
    pub const ENABLE_VLAN_FILTERING_V2: u32 = 58;
    pub const DISABLE_VLAN_FILTERING_V2: u32 = 59;
    pub const GET_QOS_CAPS: u32 = 66;
    pub const CONFIG_QUEUE_BW: u32 = 112;
    pub const CONFIG_QUANTA: u32 = 113;
}

/// What a reply says of its request (`enum virtchnl_status_code`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Done.
    Success = 0,
    /// A parameter is not possible.
    Param = -5,
    /// No room for that.
    NoMemory = -18,
    /// The message is not as long as its opcode demands.
    OpcodeMismatch = -38,
    /// The request failed.
    CqpCompletion = -39,
    /// The function does not exist.
    InvalidVfId = -40,
    /// The administrator does not allow it.
    AdminQueue = -53,
    /// Not granted or not known.
    NotSupported = -64,
}

impl Status {
    /// The status with this number.
    pub const fn of(number: i32) -> Option<Status> {
        Some(match number {
            0 => Status::Success,
            -5 => Status::Param,
            -18 => Status::NoMemory,
            -38 => Status::OpcodeMismatch,
            -39 => Status::CqpCompletion,
            -40 => Status::InvalidVfId,
            -53 => Status::AdminQueue,
            -64 => Status::NotSupported,
            _ => return None,
        })
    }
}

bitflags::bitflags! {
    /// What a driver asks for and a device grants (`VIRTCHNL_VF_OFFLOAD_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Caps: u32 {
        /// MAC filters and promiscuous modes: the base.
        const L2 = 1;
        /// Remote direct memory access.
        const RDMA = 1 << 1;
        /// RSS by admin queue commands.
        const RSS_AQ = 1 << 3;
        /// RSS by registers.
        const RSS_REG = 1 << 4;
        /// Write back without interrupting.
        const WB_ON_ITR = 1 << 5;
        /// Another number of queues may be asked for.
        const REQ_QUEUES = 1 << 6;
        /// Link speed in Mbit/s.
        const ADV_LINK_SPEED = 1 << 7;
        /// More than 16 queue pairs.
        const LARGE_NUM_QPAIRS = 1 << 9;
        /// The frame check sequence may be kept.
        const CRC = 1 << 10;
        /// VLAN filters and offloads, with positions of tags negotiated.
        const VLAN_V2 = 1 << 15;
        /// VLAN filters and offloads.
        const VLAN = 1 << 16;
        /// Queues may be polled.
        const RX_POLLING = 1 << 17;
        /// More packet types for RSS.
        const RSS_PCTYPE_V2 = 1 << 18;
        /// RSS by messages.
        const RSS_PF = 1 << 19;
        /// Offloads of packets in tunnels.
        const ENCAP = 1 << 20;
        /// Outer checksums of those.
        const ENCAP_CSUM = 1 << 21;
        /// The same, received.
        const RX_ENCAP_CSUM = 1 << 22;
        /// Queues of traffic classes.
        const ADQ = 1 << 23;
        /// UDP segmentation.
        const USO = 1 << 25;
        /// Flexible receive descriptors.
        const RX_FLEX_DESC = 1 << 26;
        /// RSS by header stacks.
        const ADV_RSS_PF = 1 << 27;
        /// Flow director rules.
        const FDIR_PF = 1 << 28;
        /// Traffic classes, bandwidth and quanta of queues.
        const QOS = 1 << 29;
        /// Device configuration function: the host's own.
        const DCF = 1 << 30;
        /// Precision time protocol.
        const PTP = 1 << 31;

        /// What every generation offers (`VF_BASE_MODE_OFFLOADS`): also what a driver of version 1.0 is given.
        const BASE = Self::L2.bits() | Self::VLAN.bits() | Self::RSS_PF.bits();
    }
}
