//! Whether rules that changed can concern a flow, without looking at the rules.
//!
//! When tens of thousands of rules change in a second, a cached decision meets a new epoch each time it is hit. That none of
//! those rules is about its flow has to be seen in a few loads. So each change of a rule is counted in one *cell*, chosen by
//! what the rule tells packets apart by, and a decision holds the sum of the cells of its flow:
//!
//! ```text
//!   a rule of         counts in                            a flow adds up
//!   dst 10.1.2.0/24   cell of 10.1.2 among destinations    cell of its destination's first 24 bits
//!   src 10.1.0.0/16   cells of 10.1.0 to 10.1.255          ... of its source's
//!   port vm7          cell of the port                     ... of the ports it comes and leaves by
//!   dst_port 80       cell of 80                           ... of its destination port
//!   nothing of these  cell of its domain and direction     ... of infrastructure, and of both ports' tenants
//! ```
//!
//! Cells only grow, so the sum is the same if and only if all of them are. If it differs, the rules themselves are asked
//! ([`super::changed`]): another rule may count in the same cell.
//!
//! # Invariants
//! * A rule counts in a cell that every flow adds up whose frames it can match. What a rewrite changes, or a connection's
//!   translation, is not seen here: such decisions have no sum.
//! * Cells are counted behind the flip to the new rules and before the new epoch: whoever sees the epoch sees the cells.
//! * A sum that was taken behind a look-up is good if no change had begun by then ([`Concerns::begun`]).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use fabnic_port::PortId;

use super::key::{WORDS, flag};
use super::rule::{Direction, Domain, Rule};
use crate::deep_key::About;

/// Cells of destinations, and as many of sources.
const ADDRESSES: usize = 1 << 16;
/// Cells of destination ports, of ports that frames come by, of those that they leave by, and of tenants in and out.
const NUMBERS: usize = 1 << 12;

/// The cells of a flow, by what they are about: destination, source, destination port, the ports that it comes and leaves by,
/// their tenants, everything. Where there is none, `u32::MAX`.
pub(crate) type Cells = [u32; 8];

/// The cells that a rule counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which of [`Cells`] they are.
    about: u8,
    first: u32,
    /// 1, or as many /24 as an IPv4 prefix has.
    count: u32,
}

impl Place {
    const fn one(about: u8, cell: usize) -> Place {
        Place { about, first: cell as u32, count: 1 }
    }

    /// Whether a flow adds one of them up.
    #[inline(always)]
    pub(crate) fn is_of(&self, cells: &Cells) -> bool {
        let cell = cells.get(usize::from(self.about)).copied().unwrap_or(u32::MAX);
        // Addresses go round in their own part, which begins at a multiple of its length.
        let behind = cell.wrapping_sub(self.first);
        behind < self.count || (self.count > 1 && behind & (ADDRESSES as u32 - 1) < self.count)
    }
}

const SOURCES: usize = ADDRESSES;
const L4: usize = 2 * ADDRESSES;
const INGRESS: usize = L4 + NUMBERS;
const EGRESS: usize = INGRESS + NUMBERS;
const TENANT_IN: usize = EGRESS + NUMBERS;
const TENANT_OUT: usize = TENANT_IN + NUMBERS;
const ALL: usize = TENANT_OUT + NUMBERS;

/// More rules than this in one transaction concern everybody.
const MANY: usize = 1 << 12;

/// Changes, counted: see the page.
#[derive(Debug)]
pub(crate) struct Concerns {
    /// The epoch of the transaction that was begun last.
    begun: AtomicU64,
    cells: Box<[AtomicU32]>,
    secret: [u64; 2],
}

impl Concerns {
    pub(crate) fn new(secret: [u64; 2]) -> Concerns {
        let cells = (0..=ALL).map(|_| AtomicU32::new(0)).collect();
        Concerns { begun: AtomicU64::new(1), cells, secret }
    }

    #[inline(always)]
    fn cell(&self, index: usize) -> u32 {
        self.cells.get(index).map_or(0, |cell| cell.load(Ordering::Acquire))
    }

    /// The cell of the first 24 bits of an IPv4 address, which is the upper half of the word, or of the first 64 of an IPv6
    /// address. Cells of one /16 are neighbours.
    #[inline(always)]
    fn address(&self, word: u64) -> usize {
        let network = word >> 48 | word << 32;
        let product = u128::from(network ^ self.secret[0]) * u128::from(self.secret[1]);
        let hash = (product >> 64) as u64 ^ product as u64;
        (hash as usize).wrapping_add((word >> 40 & 0xff) as usize) % ADDRESSES
    }

    /// What a flow adds up of its addresses and ports.
    #[inline(always)]
    pub(crate) fn of_flow(&self, flow: &About) -> u32 {
        let destination = self.cell(self.address(flow.dst));
        let source = self.cell(SOURCES + self.address(flow.src));
        let port = self.cell(L4 + usize::from(flow.dst_port) % NUMBERS);
        destination.wrapping_add(source).wrapping_add(port)
    }

    /// What all flows add up that come by a port.
    pub(crate) fn of_ingress(&self, port: PortId, tenant: Option<u32>) -> u32 {
        let tenant = tenant.map_or(0, |tenant| self.cell(TENANT_IN + tenant as usize % NUMBERS));
        self.cell(ALL).wrapping_add(self.cell(INGRESS + port.0 as usize % NUMBERS)).wrapping_add(tenant)
    }

    /// The cells that all flows add up that leave by a port.
    pub(crate) fn egress_cells(port: PortId, tenant: Option<u32>) -> [u32; 2] {
        // Without a tenant the port's cell counts twice, for which the sum is as good.
        let port = EGRESS + port.0 as usize % NUMBERS;
        let tenant = tenant.map_or(port, |tenant| TENANT_OUT + tenant as usize % NUMBERS);
        [port as u32, tenant as u32]
    }

    /// The sum of these.
    #[inline(always)]
    pub(crate) fn of_egress(&self, [port, tenant]: [u32; 2]) -> u32 {
        self.cell(port as usize).wrapping_add(self.cell(tenant as usize))
    }

    /// The epoch of the transaction that was begun last.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// A transaction begins: before its rules can be seen.
    pub(crate) fn begin(&self, epoch: u64) {
        self.begun.store(epoch, Ordering::SeqCst);
    }

    /// These rules came or went.
    pub(crate) fn count(&self, places: impl Iterator<Item = Place> + Clone) {
        if places.clone().nth(MANY).is_some() {
            self.raise(ALL);
            return;
        }
        for Place { first, count, .. } in places {
            let part = first as usize & !(ADDRESSES - 1);
            for offset in 0..count as usize {
                match count {
                    1 => self.raise(first as usize),
                    _ => self.raise(part + (first as usize + offset) % ADDRESSES),
                }
            }
        }
    }

    fn raise(&self, index: usize) {
        if let Some(cell) = self.cells.get(index) {
            cell.fetch_add(1, Ordering::Release);
        }
    }

    /// The cells of a flow.
    pub(crate) fn of(
        &self,
        flow: &About,
        (ingress, tenant_in): (PortId, Option<u32>),
        egress: Option<(PortId, Option<u32>)>,
    ) -> Cells {
        let number = |part: usize, number: Option<u32>| {
            number.map_or(u32::MAX, |number| (part + number as usize % NUMBERS) as u32)
        };
        [
            self.address(flow.dst) as u32,
            (SOURCES + self.address(flow.src)) as u32,
            (L4 + usize::from(flow.dst_port) % NUMBERS) as u32,
            number(INGRESS, Some(ingress.0)),
            number(EGRESS, egress.map(|(port, _)| port.0)),
            number(TENANT_IN, tenant_in),
            number(TENANT_OUT, egress.and_then(|(_, tenant)| tenant)),
            ALL as u32,
        ]
    }

    /// The cells that a rule counts in.
    pub(crate) fn place(&self, rule: &Rule) -> Place {
        let (key, mask) = (rule.compiled.key().0, rule.compiled.shape().spread());
        let place = |at: usize, about: u8, part: usize| {
            let (cell, count) = self.network(&key, &mask, at)?;
            Some(Place { about, first: (part + cell) as u32, count })
        };
        let addresses = [place(5, 0, 0), place(3, 1, SOURCES)];
        if let Some(place) = addresses.into_iter().flatten().min_by_key(|place| place.count) {
            return place;
        }
        let [_, _, ports, .., l4, _, _, _, _] = key;
        let [_, _, ports_mask, .., l4_mask, _, _, _, _] = mask;
        if ports_mask >> 32 == 0xffff_ffff {
            return Place::one(3, INGRESS + (ports >> 32) as usize % NUMBERS);
        }
        if ports_mask & 0xffff_ffff == 0xffff_ffff {
            return Place::one(4, EGRESS + (ports & 0xffff_ffff) as usize % NUMBERS);
        }
        if l4_mask >> 32 & 0xffff == 0xffff {
            return Place::one(2, L4 + (l4 >> 32 & 0xffff) as usize % NUMBERS);
        }
        match (rule.identity.domain, rule.direction) {
            (Domain::Infrastructure, _) => Place::one(7, ALL),
            (Domain::Tenant(number), Direction::In) => Place::one(5, TENANT_IN + number as usize % NUMBERS),
            (Domain::Tenant(number), Direction::Out) => Place::one(6, TENANT_OUT + number as usize % NUMBERS),
        }
    }

    /// The cells of an address that a rule matches, in words `at` and the next, if it is one of IP with a prefix of at least
    /// 16 bits of IPv4 or 64 of IPv6.
    fn network(&self, key: &[u64; WORDS], mask: &[u64; WORDS], at: usize) -> Option<(usize, u32)> {
        let [.., flags, _, _, _] = *key;
        let flags = (flags >> 48) as u16;
        if flags & (flag::ARP | flag::ND) != 0 {
            return None;
        }
        let (value, mask) = (*key.get(at)?, *mask.get(at)?);
        if mask == u64::MAX {
            return Some((self.address(value), 1));
        }
        let len = mask.leading_ones();
        if flags & flag::V4 == 0 || len < 16 {
            return None;
        }
        Some((self.address(value), 1 << 24_u32.saturating_sub(len)))
    }
}

#[cfg(test)]
mod tests {
    use fabnic_memory::Map;
    use fabnic_port::Burst;
    use fabnic_testkit::packets::{Packet, tcp};
    use fabnic_wire::{Fields, IpProtocol, Vid};
    use proptest::prelude::*;

    use super::*;
    use crate::deep_key::{DeepKey, KeyMask};
    use crate::needs::Needs;
    use crate::rules::{
        Action, Change, Connection, Input, Key, Match, RuleId, RuleSet, RuleSpec, Term, prefix4, prefix6,
    };

    const IN: PortId = PortId(3);
    const OUT: PortId = PortId(4);

    /// A packet and what a rule may ask of it such that it matches.
    fn packet(numbers: [u8; 6], is_v6: bool) -> (Vec<u8>, [u8; 16], [u8; 16], u16) {
        let [a, b, c, d, e, f] = numbers;
        let port = u16::from(e) << 4;
        let ethernet = Packet::ethernet([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
        let (mut src, mut dst) = ([0; 16], [0; 16]);
        let packet = if is_v6 {
            src = [0x20, 1, 0xd, 0xb8, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, f];
            dst = [0x20, 1, 0xd, 0xb8, d, c, b, a, 0, 0, 0, 0, 0, 0, 0, e];
            ethernet.ipv6(src, dst)
        } else {
            src[..4].copy_from_slice(&[a, b, c, d]);
            dst[..4].copy_from_slice(&[d, c, e, f]);
            ethernet.ipv4([a, b, c, d], [d, c, e, f])
        };
        (packet.tcp(9, port, 1, 1, tcp::ACK).build(), src, dst, port)
    }

    proptest! {
        /// However a rule asks for a packet: that it comes is seen in the sum of the packet's flow.
        #[test]
        fn a_change_that_matters_is_in_the_sum(
            numbers in any::<[u8; 6]>(),
            (is_v6, is_out, is_tenants) in any::<(bool, bool, bool)>(),
            asked in 0_u8..64,
            lengths in (0_u8..=128, 0_u8..=128),
        ) {
            let (bytes, src, dst, port) = packet(numbers, is_v6);
            let fields = Fields::of(&bytes).unwrap();
            let first4 = |address: [u8; 16]| *address.first_chunk::<4>().unwrap();
            let masked4 = |address, len: u8| {
                let mask = prefix4(len % 33);
                (core::array::from_fn(|i| first4(address)[i] & mask[i]), mask)
            };
            let masked6 = |address: [u8; 16], len: u8| {
                let mask = prefix6(len);
                (core::array::from_fn(|i| address[i] & mask[i]), mask)
            };
            let mut terms = Vec::new();
            if asked & 1 != 0 {
                terms.push(if is_v6 {
                    let (value, mask) = masked6(src, lengths.0);
                    Term::SrcIp6 { value, mask }
                } else {
                    let (value, mask) = masked4(src, lengths.0);
                    Term::SrcIp4 { value, mask }
                });
            }
            if asked & 2 != 0 {
                terms.push(if is_v6 {
                    let (value, mask) = masked6(dst, lengths.1);
                    Term::DstIp6 { value, mask }
                } else {
                    let (value, mask) = masked4(dst, lengths.1);
                    Term::DstIp4 { value, mask }
                });
            }
            if asked & 4 != 0 { terms.push(Term::Ingress(IN)); }
            if asked & 8 != 0 && is_out { terms.push(Term::Egress(OUT)); }
            if asked & 16 != 0 { terms.push(Term::DstPort { min: port, max: port }); }
            if asked & 32 != 0 { terms.push(Term::Protocol(IpProtocol::TCP)); }
            let domain = if is_tenants { Domain::Tenant(1) } else { Domain::Infrastructure };
            let direction = if is_out { Direction::Out } else { Direction::In };
            let spec = RuleSpec {
                id: RuleId(1),
                domain,
                direction,
                group: 0,
                priority: 1,
                name: "one".into(),
                matches: vec![Match::new(terms)],
                actions: vec![Action::Drop],
            };
            let (map, _) = Map::anonymous(4096).unwrap();
            let mut burst = Burst::new();
            burst.begin(&map);
            let frame = burst.push_bytes(&bytes).unwrap();
            let flow = DeepKey::read(frame, (0, [0x81, 0]), &KeyMask::of(Needs::all())).unwrap().key.about();
            let set = RuleSet::new([7, 9]);
            let sum = || {
                let concerns = set.concerns();
                concerns
                    .of_ingress(IN, Some(1))
                    .wrapping_add(concerns.of_flow(&flow))
                    .wrapping_add(concerns.of_egress(Concerns::egress_cells(OUT, Some(1))))
            };
            let before = sum();
            if set.apply(&[Change::Add(spec)], |_| {}).is_err() {
                // A rule that asks for what cannot be.
                return Ok(());
            }
            let input = Input {
                fields: &fields,
                ingress: IN,
                egress: is_out.then_some(OUT),
                vlan: Vid::DEFAULT,
                mark: 0,
                connection: Connection::default(),
            };
            let matched = set.read().find(domain, direction, 0, &Key::of(&input), None).is_some();
            prop_assert!(matched, "the rule was made for the packet");
            prop_assert_ne!(sum(), before);
            let cells = set.concerns().of(&flow, (IN, Some(1)), Some((OUT, Some(1))));
            let side = set.read();
            let rule = side.find(domain, direction, 0, &Key::of(&input), None).unwrap();
            prop_assert!(set.concerns().place(rule).is_of(&cells));
            prop_assert_eq!(set.concerns().begun(), set.epoch());
        }
    }

    #[test]
    fn what_is_about_others_is_not_in_the_sum() {
        let (bytes, ..) = packet([10, 1, 2, 3, 4, 5], false);
        let (map, _) = Map::anonymous(4096).unwrap();
        let mut burst = Burst::new();
        burst.begin(&map);
        let frame = burst.push_bytes(&bytes).unwrap();
        let flow = DeepKey::read(frame, (0, [0x81, 0]), &KeyMask::of(Needs::all())).unwrap().key.about();
        let concerns = |set: &RuleSet| {
            set.concerns().of_flow(&flow).wrapping_add(set.concerns().of_ingress(IN, Some(1)))
        };
        let set = RuleSet::new([7, 9]);
        let before = concerns(&set);
        for (id, terms) in [
            vec![Term::dst_net4([99, 0, 0, 0], 16)],
            vec![Term::src_net4([10, 1, 3, 0], 24)],
            vec![Term::Ingress(PortId(99))],
            vec![Term::DstPort { min: 99, max: 99 }],
            vec![],
        ]
        .into_iter()
        .enumerate()
        {
            let spec = RuleSpec {
                id: RuleId(id as u64),
                // Another tenant's.
                domain: Domain::Tenant(2),
                direction: Direction::In,
                group: 0,
                priority: 1,
                name: "one".into(),
                matches: vec![Match::new(terms)],
                actions: vec![Action::Drop],
            };
            set.apply(&[Change::Add(spec)], |_| {}).unwrap();
        }
        assert_eq!(concerns(&set), before);
    }
}
