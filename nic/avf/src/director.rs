//! Flow director: rules that say to which queue packets of a flow go, whether they are dropped, and how they are marked.
//!
//! A rule compares a packet's headers with its own under a mask. Both are laid out as one key of fixed length, so that a
//! rule is a few comparisons of words; there are at most [`MAX_RULES`], and they are tried in the order in which they
//! were added.

use fabnic_avf_spec::virtchnl::{Action, FdirAdd, Stack, fdir, field, header};
use fabnic_wire::layers::{Fragment, Network};
use fabnic_wire::{IpProtocol, Layers};

/// Rules of a function: what Linux allows itself, too.
pub(crate) const MAX_RULES: usize = 128;

/// Bytes of a key: kind of network and of transport, Ethernet, addresses, type of service, time to live, protocol,
/// ports.
const KEY: usize = 56;

/// Where what is in a key.
mod at {
    pub(super) const NETWORK: usize = 0;
    pub(super) const TRANSPORT: usize = 1;
    pub(super) const TOS: usize = 2;
    pub(super) const TTL: usize = 3;
    pub(super) const ETH: usize = 4;
    pub(super) const SOURCE: usize = 18;
    pub(super) const DESTINATION: usize = 34;
    pub(super) const PROTOCOL: usize = 50;
    pub(super) const PORTS: usize = 52;
}

/// A packet's headers, or a rule's, or a mask over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key([u8; KEY]);

impl Key {
    const ZERO: Key = Key([0; KEY]);

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// That of a packet.
    pub(crate) fn of(head: &[u8], layers: &Layers) -> Key {
        let mut key = Key::ZERO;
        key.put(at::ETH, head.get(..12).unwrap_or(&[]));
        key.put(at::ETH + 12, &layers.ethertype.0.to_be_bytes());
        let Some(ip) = layers.ip else { return key };
        let l3 = usize::from(layers.l3);
        let byte = |at: usize| head.get(at).copied().unwrap_or(0);
        match ip.network {
            Network::V4 => {
                key.put(at::NETWORK, &[4]);
                key.put(at::TOS, &[byte(l3 + 1), byte(l3 + 8)]);
                key.put(at::SOURCE, head.get(l3 + 12..l3 + 16).unwrap_or(&[]));
                key.put(at::DESTINATION, head.get(l3 + 16..l3 + 20).unwrap_or(&[]));
            }
            Network::V6 => {
                key.put(at::NETWORK, &[6]);
                key.put(at::TOS, &[byte(l3) << 4 | byte(l3 + 1) >> 4, byte(l3 + 7)]);
                key.put(at::SOURCE, head.get(l3 + 8..l3 + 24).unwrap_or(&[]));
                key.put(at::DESTINATION, head.get(l3 + 24..l3 + 40).unwrap_or(&[]));
            }
        }
        key.put(at::PROTOCOL, &[ip.protocol.0]);
        let has_ports = matches!(ip.protocol, IpProtocol::TCP | IpProtocol::UDP | IpProtocol::SCTP);
        if ip.fragment == Fragment::No && has_ports {
            key.put(at::TRANSPORT, &[ip.protocol.0]);
            let l4 = usize::from(ip.l4);
            key.put(at::PORTS, head.get(l4..l4 + 4).unwrap_or(&[]));
        }
        key
    }

    /// Key and mask of a stack. `None` if it has headers or fields that are not looked at.
    fn of_stack(stack: &Stack) -> Option<(Key, Key)> {
        let (mut key, mut mask) = (Key::ZERO, Key::ZERO);
        if stack.tunnel_level != 0 || stack.headers.is_empty() {
            return None;
        }
        // From outside inwards: Ethernet, network, transport, each at most once.
        let mut depth = 0;
        for one in &stack.headers {
            let level = match one.kind {
                header::ETH => 1,
                header::IPV4 | header::IPV6 => 2,
                header::TCP | header::UDP | header::SCTP => 3,
                _ => return None,
            };
            if level <= depth || (level == 3 && depth != 2) {
                return None;
            }
            depth = level;
            let mut take = |bit: u32, at: usize, from: usize, len: usize| {
                if one.fields & bit != 0 {
                    key.put(at, one.bytes.get(from..from + len).unwrap_or(&[]));
                    mask.put(at, [0xff; 16].get(..len).unwrap_or(&[]));
                }
            };
            let known = match one.kind {
                header::ETH => {
                    take(field::SOURCE, at::ETH + 6, 6, 6);
                    take(field::DESTINATION, at::ETH, 0, 6);
                    take(field::TYPE, at::ETH + 12, 12, 2);
                    field::SOURCE | field::DESTINATION | field::TYPE
                }
                header::IPV4 => {
                    take(field::SOURCE, at::SOURCE, 12, 4);
                    take(field::DESTINATION, at::DESTINATION, 16, 4);
                    take(field::TYPE, at::TOS, 1, 1);
                    take(field::TTL, at::TTL, 8, 1);
                    take(field::PROTOCOL, at::PROTOCOL, 9, 1);
                    key.put(at::NETWORK, &[4]);
                    mask.put(at::NETWORK, &[0xff]);
                    field::SOURCE | field::DESTINATION | field::TYPE | field::TTL | field::PROTOCOL
                }
                header::IPV6 => {
                    take(field::SOURCE, at::SOURCE, 8, 16);
                    take(field::DESTINATION, at::DESTINATION, 24, 16);
                    take(field::TTL, at::TTL, 7, 1);
                    take(field::PROTOCOL, at::PROTOCOL, 6, 1);
                    if one.fields & field::TYPE != 0 {
                        let [first, second, ..] = one.bytes;
                        key.put(at::TOS, &[first << 4 | second >> 4]);
                        mask.put(at::TOS, &[0xff]);
                    }
                    key.put(at::NETWORK, &[6]);
                    mask.put(at::NETWORK, &[0xff]);
                    field::SOURCE | field::DESTINATION | field::TYPE | field::TTL | field::PROTOCOL
                }
                kind => {
                    take(field::SOURCE, at::PORTS, 0, 2);
                    take(field::DESTINATION, at::PORTS + 2, 2, 2);
                    let protocol = match kind {
                        header::TCP => IpProtocol::TCP,
                        header::UDP => IpProtocol::UDP,
                        _ => IpProtocol::SCTP,
                    };
                    key.put(at::TRANSPORT, &[protocol.0]);
                    mask.put(at::TRANSPORT, &[0xff]);
                    field::SOURCE | field::DESTINATION
                }
            };
            if one.fields & !known != 0 {
                return None;
            }
        }
        Some((key, mask))
    }

    fn words(&self) -> impl Iterator<Item = u64> + '_ {
        let (words, _) = self.0.as_chunks::<8>();
        words.iter().map(|word| u64::from_ne_bytes(*word))
    }
}

/// Where a rule sends packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Drop,
    PassThrough,
    Queue(u16),
    Region { first: u16, width: u8 },
}

#[derive(Clone, Debug)]
struct Rule {
    flow: u32,
    key: Key,
    mask: Key,
    destination: Destination,
    mark: Option<u32>,
}

impl Rule {
    #[inline]
    fn matches(&self, key: &Key) -> bool {
        key.words().zip(self.key.words()).zip(self.mask.words()).all(|((a, b), mask)| (a ^ b) & mask == 0)
    }
}

/// All rules of a function.
#[derive(Clone, Debug, Default)]
pub(crate) struct Director {
    rules: Vec<Rule>,
    /// Ids are not used twice while a session lasts.
    last: u32,
}

impl Director {
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the first rule that matches says.
    pub(crate) fn look(&self, head: &[u8], layers: &Layers) -> Option<(Destination, Option<u32>)> {
        let key = Key::of(head, layers);
        self.rules.iter().find(|rule| rule.matches(&key)).map(|rule| (rule.destination, rule.mark))
    }

    /// Adds a rule; gives its id and a status.
    pub(crate) fn add(&mut self, message: &FdirAdd, queues: u16) -> (u32, i32) {
        let parts = message.stack.as_ref().and_then(Key::of_stack);
        let actions = message.actions.as_deref().and_then(|actions| actions_of(actions, queues));
        let (Some((key, mask)), Some((destination, mark))) = (parts, actions) else {
            return (0, fdir::INVALID);
        };
        if let Some(rule) = self.rules.iter().find(|rule| rule.key == key && rule.mask == mask) {
            let same = rule.destination == destination && rule.mark == mark;
            return (0, if same { fdir::EXISTS } else { fdir::CONFLICT });
        }
        if self.rules.len() >= MAX_RULES {
            return (0, fdir::NO_RESOURCE);
        }
        if message.validate_only {
            return (0, fdir::SUCCESS);
        }
        self.last = self.last.wrapping_add(1);
        self.rules.push(Rule { flow: self.last, key, mask, destination, mark });
        (self.last, fdir::SUCCESS)
    }

    /// Removes a rule; gives a status.
    pub(crate) fn remove(&mut self, flow: u32) -> i32 {
        let before = self.rules.len();
        self.rules.retain(|rule| rule.flow != flow);
        if self.rules.len() < before { fdir::SUCCESS } else { fdir::NOT_FOUND }
    }
}

/// Exactly one destination, at most one mark, and counters that nobody can read.
fn actions_of(actions: &[Action], queues: u16) -> Option<(Destination, Option<u32>)> {
    let (mut destination, mut mark) = (None, None);
    for action in actions {
        let to = match *action {
            Action::Count => continue,
            Action::Mark(_) if mark.is_some() => return None,
            Action::Mark(value) => {
                mark = Some(value);
                continue;
            }
            Action::Drop => Destination::Drop,
            Action::PassThrough => Destination::PassThrough,
            Action::Queue(queue) if queue < queues => Destination::Queue(queue),
            Action::Region { first, width }
                if width < 5 && u32::from(first) + (1 << width) <= u32::from(queues) =>
            {
                Destination::Region { first, width }
            }
            Action::Queue(_) | Action::Region { .. } => return None,
        };
        if destination.replace(to).is_some() {
            return None;
        }
    }
    Some((destination?, mark))
}
