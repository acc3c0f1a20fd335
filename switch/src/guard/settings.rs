//! What configuration says of a port's guards.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use fabnic_port::PortId;
use fabnic_wire::{MacAddr, Vid};

use super::bindings::{Binding, BindingOrigin};
use crate::needs::Needs;

/// An address, or all of a prefix, that a port may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BoundAddress {
    /// The address, or any of the prefix.
    pub address: IpAddr,
    /// Length of the prefix in bits: 32 or 128 for one address, anything shorter for a port with a network behind it.
    pub prefix_len: u8,
    /// The MAC address it must come with; any that the port may have if there is none.
    pub mac: Option<MacAddr>,
    /// The VLAN; any of the port's if there is none.
    pub vlan: Option<Vid>,
}

impl BoundAddress {
    /// One address with any of the port's MAC addresses, in any of its VLANs.
    pub fn one(address: IpAddr) -> BoundAddress {
        BoundAddress { address, prefix_len: bits(address), mac: None, vlan: None }
    }

    /// Whether it is one address and not a prefix.
    pub fn is_single(&self) -> bool {
        self.prefix_len >= bits(self.address)
    }

    /// Whether the address may be used with this MAC address in this VLAN.
    pub fn allows(&self, vlan: Vid, mac: MacAddr, address: IpAddr) -> bool {
        self.vlan.is_none_or(|own| own == vlan)
            && self.mac.is_none_or(|own| own == mac)
            && in_prefix(address, self.address, self.prefix_len)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether the first `len` bits of two addresses of the same kind are equal.
pub(crate) fn in_prefix(address: IpAddr, prefix: IpAddr, len: u8) -> bool {
    match (address, prefix) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32_u32.saturating_sub(len.into());
            (u64::from(a.to_bits()) >> shift) == (u64::from(b.to_bits()) >> shift)
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let differs = a.to_bits() ^ b.to_bits();
            // Shifting out all 128 bits would be one too many.
            differs.checked_shr(128_u32.saturating_sub(len.into())).is_none_or(|rest| rest == 0)
        }
        _ => false,
    }
}

/// What is done with a spanning tree message (IEEE 802.1D, and Cisco's per-VLAN kind) from the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BpduGuard {
    /// Nothing of its own: 01:80:c2:00:00:00 is dropped as every reserved destination is.
    #[default]
    Off,
    /// It is dropped and counted as `bpdu_guard`.
    Drop,
    /// The same, and the port is stopped, with the reason, until its other side is reset.
    Stop,
}

/// What a port's traffic is checked for. The default checks nothing.
///
/// Every check is counted by a drop reason of its own name. None of them concerns frames *to* the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardSettings {
    /// Servers, routers and bridges are behind the port: nothing that it sends is checked, and what its DHCP servers say
    /// is believed.
    pub trusted: bool,
    /// The MAC addresses of the port, for `mac` and for `addresses` without one.
    pub macs: Arc<[MacAddr]>,
    /// `spoofchk`: the source MAC address must be one of `macs`; if there are none, nothing passes.
    pub mac: bool,
    /// An access port may send no VLAN tag (but one with VLAN 0), and no port one behind another. On a port with service tags
    /// (802.1ad) customers' tags are what it carries, one of them.
    pub vlan: bool,
    /// The source of an IPv4 packet must be bound to the port, with the frame's source MAC address.
    pub ipv4: bool,
    /// The same for IPv6.
    pub ipv6: bool,
    /// The sender in an ARP or RARP packet must be the frame's source, and bound to the port.
    pub arp: bool,
    /// Neighbour solicitations and advertisements must be well formed, name the frame's source, and claim only what is
    /// bound to the port.
    pub nd: bool,
    /// The port may not speak as a DHCP server.
    pub dhcp_server: bool,
    /// The port may not speak as a DHCPv6 server (RFC 7610).
    pub dhcp6_server: bool,
    /// The port may send neither router advertisements nor redirects (RFC 6105, RFC 7113).
    pub ra: bool,
    /// Spanning tree messages.
    pub bpdu: BpduGuard,
    /// What is bound to the port by configuration.
    pub addresses: Arc<[BoundAddress]>,
    /// Addresses that trusted DHCP servers give to clients behind the port are bound to it (RFC 7513).
    pub learn_dhcp: bool,
    /// The same with DHCPv6.
    pub learn_dhcp6: bool,
    /// First come, first served (RFC 6620): the port may claim link-local addresses and those in these prefixes that
    /// nobody else has. `None`: it may not.
    pub slaac: Option<Arc<[(Ipv6Addr, u8)]>>,
    /// The most addresses that may be learned on the port.
    pub max_bindings: u32,
}

impl Default for GuardSettings {
    fn default() -> GuardSettings {
        GuardSettings {
            trusted: false,
            macs: Arc::default(),
            mac: false,
            vlan: false,
            ipv4: false,
            ipv6: false,
            arp: false,
            nd: false,
            dhcp_server: false,
            dhcp6_server: false,
            ra: false,
            bpdu: BpduGuard::Off,
            addresses: Arc::default(),
            learn_dhcp: false,
            learn_dhcp6: false,
            slaac: None,
            max_bindings: 64,
        }
    }
}

impl GuardSettings {
    /// Everything that a VM's port is usually held to, with these MAC addresses; addresses by DHCP, DHCPv6 and SLAAC of
    /// link-local addresses.
    pub fn strict(macs: impl IntoIterator<Item = MacAddr>) -> GuardSettings {
        GuardSettings {
            macs: macs.into_iter().collect(),
            mac: true,
            vlan: true,
            ipv4: true,
            ipv6: true,
            arp: true,
            nd: true,
            dhcp_server: true,
            dhcp6_server: true,
            ra: true,
            bpdu: BpduGuard::Drop,
            learn_dhcp: true,
            learn_dhcp6: true,
            slaac: Some(Arc::default()),
            ..GuardSettings::default()
        }
    }

    /// Whether anything is read that lies behind the addresses and the first tag: what the plain key of a flow does not
    /// hold.
    pub(crate) fn reads_packets(&self) -> bool {
        self.trusted
            || self.learn_dhcp
            || self.learn_dhcp6
            || self.vlan
            || self.ipv4
            || self.ipv6
            || self.arp
            || self.nd
            || self.dhcp_server
            || self.dhcp6_server
            || self.ra
    }

    /// What of a frame is read.
    pub(crate) fn needs(&self) -> Needs {
        let packets =
            if self.reads_packets() { Needs::TYPE | Needs::IP | Needs::PORTS } else { Needs::empty() };
        // A port that comes back after it was stopped is to be stopped again: not by a decision that is remembered.
        let stops = if self.bpdu == BpduGuard::Stop { Needs::TYPE } else { Needs::empty() };
        packets | stops
    }

    /// Whether a configured address allows this.
    pub(crate) fn is_configured(&self, vlan: Vid, mac: MacAddr, address: IpAddr) -> bool {
        let is_own = self.macs.is_empty() || self.macs.contains(&mac);
        self.addresses.iter().any(|bound| bound.allows(vlan, mac, address) && (bound.mac.is_some() || is_own))
    }

    /// The bindings that follow from the configured addresses. Those without a MAC address have the port's first; those
    /// without a VLAN are in the one of its untagged frames.
    pub(crate) fn bindings(&self, port: PortId, untagged: Option<Vid>) -> impl Iterator<Item = Binding> + '_ {
        let first = self.macs.first().copied();
        self.addresses.iter().filter(|bound| bound.is_single()).filter_map(move |bound| {
            Some(Binding {
                vlan: bound.vlan.or(untagged)?,
                address: bound.address,
                port,
                mac: bound.mac.or(first)?,
                origin: BindingOrigin::Static,
                expires: None,
            })
        })
    }

    /// Whether the port may claim the address by being first.
    pub(crate) fn may_claim(&self, address: Ipv6Addr) -> bool {
        let Some(prefixes) = &self.slaac else { return false };
        let is_in = |(prefix, len): &(Ipv6Addr, u8)| in_prefix(address.into(), (*prefix).into(), *len);
        !address.is_multicast()
            && !address.is_unspecified()
            && !address.is_loopback()
            && (address.is_unicast_link_local() || prefixes.iter().any(is_in))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bit(address: IpAddr, n: u8) -> bool {
        match address {
            IpAddr::V4(a) => a.octets()[usize::from(n / 8)] & (0x80 >> (n % 8)) != 0,
            IpAddr::V6(a) => a.octets()[usize::from(n / 8)] & (0x80 >> (n % 8)) != 0,
        }
    }

    proptest! {
        #[test]
        fn prefixes_are_bits(a: [u8; 16], flip in prop::option::of(0..128_u8), len in 0..=128_u8) {
            let mut b = a;
            if let Some(flip) = flip {
                b[usize::from(flip / 8)] ^= 0x80 >> (flip % 8);
            }
            let (a, b) = (Ipv6Addr::from(a), Ipv6Addr::from(b));
            let equal = (0..len).all(|n| bit(a.into(), n) == bit(b.into(), n));
            prop_assert_eq!(in_prefix(a.into(), b.into(), len), equal);
            let v4 = |address: Ipv6Addr| std::net::Ipv4Addr::from_bits((address.to_bits() >> 96) as u32);
            let (a, b) = (v4(a), v4(b));
            let equal = (0..len.min(32)).all(|n| bit(a.into(), n) == bit(b.into(), n));
            prop_assert_eq!(in_prefix(a.into(), b.into(), len), equal);
        }
    }

    #[test]
    fn what_may_be_claimed() {
        let prefix: Ipv6Addr = "2001:db8:1::".parse().unwrap();
        let settings = GuardSettings { slaac: Some([(prefix, 64)].into()), ..GuardSettings::default() };
        for (address, claimed) in [
            ("fe80::1", true),
            ("2001:db8:1::9", true),
            ("2001:db8:2::9", false),
            ("ff02::1", false),
            ("::", false),
            ("::1", false),
        ] {
            assert_eq!(settings.may_claim(address.parse().unwrap()), claimed, "{address}");
            assert!(!GuardSettings::default().may_claim(address.parse().unwrap()));
        }
    }
}
