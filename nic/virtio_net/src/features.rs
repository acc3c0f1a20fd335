//! Feature bits (virtio 1.x, sections 5.1.3 and 6), as far as they fit the 64 bits that vhost-user carries.

use fabnic_wire::Offload;
use fabnic_wire::offload::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};

bitflags::bitflags! {
    /// A set of virtio-net features: offered by the device, or negotiated.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Features: u64 {
        /// The device takes frames with partial checksums.
        const CSUM = 1 << 0;
        /// The driver takes frames with partial checksums.
        const GUEST_CSUM = 1 << 1;
        /// The device tells its MTU.
        const MTU = 1 << 3;
        /// The device tells its MAC address.
        const MAC = 1 << 5;
        /// The driver takes large TCP frames over IPv4.
        const GUEST_TSO4 = 1 << 7;
        /// The driver takes large TCP frames over IPv6.
        const GUEST_TSO6 = 1 << 8;
        /// The driver takes large TCP frames with CWR set.
        const GUEST_ECN = 1 << 9;
        /// The device takes large TCP frames over IPv4.
        const HOST_TSO4 = 1 << 11;
        /// The device takes large TCP frames over IPv6.
        const HOST_TSO6 = 1 << 12;
        /// The device takes large TCP frames with CWR set.
        const HOST_ECN = 1 << 13;
        /// A frame may lie in several receive buffers.
        const MRG_RXBUF = 1 << 15;
        /// The device tells its link state.
        const STATUS = 1 << 16;
        /// There is a control queue (which ends in the VMM).
        const CTRL_VQ = 1 << 17;
        /// The driver sends announcements when asked to.
        const GUEST_ANNOUNCE = 1 << 21;
        /// There are several queue pairs.
        const MQ = 1 << 22;
        /// vhost: everything written to guest memory is logged.
        const LOG_ALL = 1 << 26;
        /// Descriptors may refer to tables of descriptors.
        const RING_INDIRECT_DESC = 1 << 28;
        /// Notifications are asked for by ring position.
        const RING_EVENT_IDX = 1 << 29;
        /// vhost-user: there are protocol features. Never shown to the guest.
        const PROTOCOL_FEATURES = 1 << 30;
        /// virtio 1.0 or later.
        const VERSION_1 = 1 << 32;
        /// The packed ring layout.
        const RING_PACKED = 1 << 34;
        /// Buffers are used in the order in which they were made available.
        const IN_ORDER = 1 << 35;
        /// Kicks carry the ring's position.
        const NOTIFICATION_DATA = 1 << 38;
        /// The driver takes large UDP frames over IPv4.
        const GUEST_USO4 = 1 << 54;
        /// The driver takes large UDP frames over IPv6.
        const GUEST_USO6 = 1 << 55;
        /// The device takes large UDP frames.
        const HOST_USO = 1 << 56;
        // Bits without a name here are kept: a front end may have its own.
        const _ = !0;
    }
}

impl Features {
    /// Whether a driver that negotiated these may send a frame with this offload header.
    #[inline]
    pub fn may_send(self, offload: &Offload) -> bool {
        let mut need = Features::empty();
        need.set(Features::CSUM, offload.needs_csum());
        match offload.gso_kind() {
            GSO_TCPV4 => need |= Features::HOST_TSO4,
            GSO_TCPV6 => need |= Features::HOST_TSO6,
            GSO_UDP_L4 => need |= Features::HOST_USO,
            _ => {}
        }
        need.set(Features::HOST_ECN, offload.gso_type & GSO_ECN != 0);
        self.contains(need)
    }
}
