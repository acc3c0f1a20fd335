//! Feature bits, as numbers a test can combine.

/// virtio feature bits (virtio 1.x, sections 5.1.3 and 6), and the one of vhost-user.
pub mod virtio {
    /// The device handles packets with partial checksum.
    pub const CSUM: u64 = 1 << 0;
    /// The driver handles packets with partial checksum.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// Maximum MTU is known.
    pub const MTU: u64 = 1 << 3;
    /// The device has a MAC address.
    pub const MAC: u64 = 1 << 5;
    /// The driver receives TSOv4.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The driver receives TSOv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The driver receives TSO with ECN.
    pub const GUEST_ECN: u64 = 1 << 9;
    /// The device receives TSOv4.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The device receives TSOv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// The device receives TSO with ECN.
    pub const HOST_ECN: u64 = 1 << 13;
    /// The driver merges receive buffers.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The status field of the configuration is there.
    pub const STATUS: u64 = 1 << 16;
    /// There is a control queue.
    pub const CTRL_VQ: u64 = 1 << 17;
    /// The driver announces itself.
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    /// Several queue pairs.
    pub const MQ: u64 = 1 << 22;
    /// vhost: the front end wants writes logged.
    pub const LOG_ALL: u64 = 1 << 26;
    /// Indirect descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// used_event and avail_event.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// vhost-user: protocol features can be negotiated. Never shown to a guest.
    pub const PROTOCOL_FEATURES: u64 = 1 << 30;
    /// virtio 1.0 and later.
    pub const VERSION_1: u64 = 1 << 32;
    /// Addresses go through an IOMMU.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    /// Packed rings.
    pub const RING_PACKED: u64 = 1 << 34;
    /// Buffers are used in the order in which they were made available.
    pub const IN_ORDER: u64 = 1 << 35;
    /// Notifications carry data.
    pub const NOTIFICATION_DATA: u64 = 1 << 38;
    /// The driver receives USOv4.
    pub const GUEST_USO4: u64 = 1 << 54;
    /// The driver receives USOv6.
    pub const GUEST_USO6: u64 = 1 << 55;
    /// The device receives USO.
    pub const HOST_USO: u64 = 1 << 56;
}

/// vhost-user protocol feature bits (vhost-user, "Protocol features").
pub mod protocol {
    /// Several queue pairs.
    pub const MQ: u64 = 1 << 0;
    /// The dirty log is a file descriptor.
    pub const LOG_SHMFD: u64 = 1 << 1;
    /// SEND_RARP.
    pub const RARP: u64 = 1 << 2;
    /// Any message can ask for an answer.
    pub const REPLY_ACK: u64 = 1 << 3;
    /// NET_SET_MTU.
    pub const NET_MTU: u64 = 1 << 4;
    /// A second channel, from back end to front end.
    pub const BACKEND_REQ: u64 = 1 << 5;
    /// GET_CONFIG and SET_CONFIG.
    pub const CONFIG: u64 = 1 << 9;
    /// The in-flight region.
    pub const INFLIGHT_SHMFD: u64 = 1 << 12;
    /// RESET_DEVICE.
    pub const RESET_DEVICE: u64 = 1 << 13;
    /// ADD_MEM_REG, REM_MEM_REG and GET_MAX_MEM_SLOTS.
    pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
    /// SET_STATUS and GET_STATUS.
    pub const STATUS: u64 = 1 << 16;
}

/// Device status bits (virtio 1.x, section 2.1).
pub mod status {
    /// The guest has noticed the device.
    pub const ACKNOWLEDGE: u64 = 1;
    /// It has a driver.
    pub const DRIVER: u64 = 2;
    /// The driver is ready.
    pub const DRIVER_OK: u64 = 4;
    /// Features are agreed.
    pub const FEATURES_OK: u64 = 8;
    /// The device has failed and wants to be reset.
    pub const NEEDS_RESET: u64 = 64;
}
