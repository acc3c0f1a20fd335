//! What a rule sees of connections in a packet: `ct_state`, with the names and meanings of Open vSwitch and `tc flower`.

use bitflags::bitflags;

bitflags! {
    /// Bits of `ct_state`. None at all: the packet has not been through connection tracking.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct CtState: u8 {
        /// `new`: it opens a connection, or belongs to one that has not been answered.
        const NEW = 0x01;
        /// `est`: it belongs to a connection that has been answered.
        const ESTABLISHED = 0x02;
        /// `rel`: an ICMP error about a packet of a connection.
        const RELATED = 0x04;
        /// `rpl`: it goes the way of the answers.
        const REPLY = 0x08;
        /// `inv`: it belongs to no connection and opens none, or contradicts its connection.
        const INVALID = 0x10;
        /// `trk`: it has been through connection tracking.
        const TRACKED = 0x20;
        /// `snat`: its connection's source is translated.
        const SNAT = 0x40;
        /// `dnat`: its connection's destination is translated.
        const DNAT = 0x80;
    }
}

impl core::fmt::Display for CtState {
    /// As rules write it: `+trk+est+rpl`; `-trk` for none.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        const NAMES: [(CtState, &str); 8] = [
            (CtState::TRACKED, "trk"),
            (CtState::NEW, "new"),
            (CtState::ESTABLISHED, "est"),
            (CtState::RELATED, "rel"),
            (CtState::REPLY, "rpl"),
            (CtState::INVALID, "inv"),
            (CtState::SNAT, "snat"),
            (CtState::DNAT, "dnat"),
        ];
        if self.is_empty() {
            return f.write_str("-trk");
        }
        NAMES.iter().filter(|(bit, _)| self.contains(*bit)).try_for_each(|(_, name)| write!(f, "+{name}"))
    }
}
