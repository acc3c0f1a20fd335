//! Rules as they are given, and as they are held.
//!
//! A [`RuleSpec`] is what configuration says: where the rule stands (domain, direction, group, priority), what it matches,
//! and what is done. It is held as one [`Rule`] for each of its matches, which share an [`Identity`] with name and
//! statistics; that outlives a replacement of the rule, so that its counters go on.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;

use fabnic_port::PortId;
use fabnic_wire::{MacAddr, Vid};

use super::compile::Compiled;
use super::rewrite::Rewrite;
use super::terms::Match;
use crate::conntrack::Nat;
use crate::meter::{Meter, MeterError, MeterSettings};

/// The highest group.
pub const MAX_GROUP: u8 = 31;

/// Whose rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Domain {
    /// Whoever runs the switch: first on the way in, last on the way out.
    Infrastructure,
    /// The tenant with this number, which is not 0: its rules see only frames from and to its own ports.
    Tenant(u32),
}

impl core::fmt::Display for Domain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Domain::Infrastructure => f.write_str("infrastructure"),
            Domain::Tenant(number) => write!(f, "tenant {number}"),
        }
    }
}

/// At which side of forwarding a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Before it: the frame has just come in.
    In,
    /// Behind it: the port that the frame is to leave by is known.
    Out,
}

/// Which rule, within its domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u64);

/// A field to be set. What the frame does not have is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Set {
    /// Destination address. On the way in, it decides where the frame goes.
    DstMac(MacAddr),
    /// Source address. On the way in, it is the one that is learned.
    SrcMac(MacAddr),
    /// The VLAN; on the way in only, because it decides where the frame goes.
    Vlan(Vid),
    /// The priority code point, 0 to 7, of the tag that the frame leaves with, where it leaves with one.
    Pcp(u8),
    /// IPv4 source.
    SrcIp4([u8; 4]),
    /// IPv4 destination.
    DstIp4([u8; 4]),
    /// IPv6 source.
    SrcIp6([u8; 16]),
    /// IPv6 destination.
    DstIp6([u8; 16]),
    /// Bits of type of service or traffic class; DSCP is mask 0xfc.
    Tos {
        /// The bits.
        value: u8,
        /// Which are set.
        mask: u8,
    },
    /// TTL or hop limit.
    Ttl(u8),
    /// TTL or hop limit, one less. A frame that has 1 or 0 is dropped instead.
    DecTtl,
    /// Source port of TCP or UDP.
    SrcPort(u16),
    /// Destination port of TCP or UDP.
    DstPort(u16),
}

/// Something to be done. What ends a list must be its last; a list without it ends as with [`Action::Pass`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Ends: the frame is dropped.
    Drop,
    /// Ends: no further rule of this domain and direction is asked.
    Pass,
    /// Ends: the frame goes to this port, whatever is behind its destination address.
    Redirect(PortId),
    /// Ends: goes on with the first rule that matches in a group with a higher number.
    Goto(u8),
    /// Ends: goes on with the next rule that matches in the same group; what a rule that only counts or marks does.
    Continue,
    /// Sends a copy of the frame, as it is now, to the mirror of this name. While there is none, nothing is done.
    Mirror(String),
    /// The same for one frame of so many.
    Sample {
        /// The mirror.
        mirror: String,
        /// 0 and 1: each frame.
        every: u32,
    },
    /// Charges the frame to the meter of this name, which may drop it or set its DSCP. While there is none, nothing is done.
    Meter(String),
    /// Charges the frame to a meter of the rule's own. It goes on when the rule is replaced, as long as its settings stay.
    Police(MeterSettings),
    /// Connection tracking, as the rule says; of direction in only.
    Ct(CtAction),
    /// Sets these bits of the mark, which rules behind this one can match.
    Mark {
        /// The bits.
        value: u32,
        /// Which are set.
        mask: u32,
    },
    /// Sets a field of the frame.
    Set(Set),
}

/// What a rule says of the connection that a packet opens or belongs to, in the zone of its sender.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CtAction {
    /// The zone that the packet is looked up in; unless said, that of the port, or 0 where that is not tracked. Rules behind
    /// this one see the packet as it is there, and what was found before is nothing any more.
    pub zone: Option<u16>,
    /// A packet that is `new` makes a connection if it is let through. In the port's own zone it does in any case.
    pub commit: bool,
    /// The mark that the connection gets, new or not.
    pub mark: Option<u32>,
    /// How the connection is translated if it is made; unless said, as the port says where the zone is the port's.
    pub nat: Option<Nat>,
}

/// A rule, as configuration gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSpec {
    /// Its number, which it keeps.
    pub id: RuleId,
    /// Whose it is.
    pub domain: Domain,
    /// At which side of forwarding.
    pub direction: Direction,
    /// Its group; 0 is where frames come in, the others are reached by [`Action::Goto`].
    pub group: u8,
    /// The lowest is asked first; among equals the one with the lowest id.
    pub priority: u32,
    /// For people.
    pub name: String,
    /// It matches what one of these matches.
    pub matches: Vec<Match>,
    /// What is done, in order.
    pub actions: Vec<Action>,
}

/// Why a rule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The domain has another with this id.
    #[error("there is a rule with this id already")]
    Exists,
    /// The domain has none with this id.
    #[error("there is no rule with this id")]
    Unknown,
    /// Tenants are numbered from 1.
    #[error("tenant 0 does not exist: tenants are numbered from 1")]
    NoTenant,
    /// Nothing to match by; a match without terms matches everything.
    #[error("the rule has no match; one without terms would match every frame")]
    NoMatch,
    /// More matches than a rule may have.
    #[error("the rule has {0} matches, at most {MAX_MATCHES} are allowed")]
    ManyMatches(usize),
    /// Two terms cannot both hold of any frame.
    #[error("two terms contradict each other: no frame could match")]
    Contradiction,
    /// A range, or what several ranges have in common, is empty.
    #[error("the range {min} to {max} is empty")]
    EmptyRange {
        /// Its least.
        min: u16,
        /// Its most.
        max: u16,
    },
    /// A number does not fit its field.
    #[error("{what} {value} is too large: at most {max}")]
    TooLarge {
        /// The field.
        what: &'static str,
        /// As given.
        value: u16,
        /// The most there can be.
        max: u16,
    },
    /// Where a frame leaves is not known before forwarding.
    #[error("a rule of direction in cannot match the port that a frame leaves by")]
    EgressInDirectionIn,
    /// The VLAN decides where a frame goes, so it cannot be set behind that.
    #[error("a rule of direction out cannot set the VLAN")]
    VlanInDirectionOut,
    /// Connections are made by what comes in.
    #[error("a rule of direction out cannot say anything of the packet's connection")]
    CtInDirectionOut,
    /// A meter that makes no sense.
    #[error("{0}")]
    Meter(MeterError),
    /// Behind what ends the list nothing can be done.
    #[error("action {0} of the list ends it, but there are more behind it")]
    BehindTheEnd(usize),
    /// More actions than a rule may have.
    #[error("the rule has {0} actions, at most {MAX_ACTIONS} are allowed")]
    ManyActions(usize),
    /// Groups are numbered up to [`MAX_GROUP`].
    #[error("group {0} is too high: at most {MAX_GROUP}")]
    Group(u8),
    /// Goto only leads to higher groups, so that there are no loops.
    #[error("goto leads from group {from} to {to}, which is not higher")]
    GotoBack {
        /// The rule's group.
        from: u8,
        /// Where it leads.
        to: u8,
    },
    /// The domain may have no more rules.
    #[error("{domain} has as many matches as it may have: {limit}")]
    Quota {
        /// Whose.
        domain: Domain,
        /// How many.
        limit: u32,
    },
    /// A look-up would take more steps than it may.
    #[error(
        "the rules of the group are too irregular: with this one a look-up could take {steps} steps, at most {limit} are allowed"
    )]
    Irregular {
        /// How many.
        steps: u32,
        /// The most.
        limit: u32,
    },
}

/// The most matches of one rule.
pub const MAX_MATCHES: usize = 4096;
/// The most actions of one rule.
pub const MAX_ACTIONS: usize = 64;

/// What a rule has seen.
#[derive(Debug)]
pub(crate) struct RuleStats {
    packets: AtomicU64,
    bytes: AtomicU64,
    last_used: AtomicU32,
}

/// What a rule had seen at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCounts {
    /// Frames that it matched.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The second since the switch's start at which it last matched; `None` if it never did.
    pub last_used: Option<u32>,
}

impl Default for RuleStats {
    fn default() -> RuleStats {
        RuleStats {
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            last_used: AtomicU32::new(u32::MAX),
        }
    }
}

impl RuleStats {
    /// Adds what matched until second `now`.
    pub(crate) fn add(&self, packets: u64, bytes: u64, now: u32) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.last_used.store(now, Ordering::Relaxed);
    }

    /// What it has seen so far.
    pub(crate) fn read(&self) -> RuleCounts {
        let last_used = self.last_used.load(Ordering::Relaxed);
        RuleCounts {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            last_used: (last_used != u32::MAX).then_some(last_used),
        }
    }

    /// Goes on from what an earlier rule of the name has seen.
    pub(crate) fn go_on(&self, packets: u64, bytes: u64, used: Option<u32>) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(used) = used {
            // What it has seen here is newer.
            let _ = self.last_used.compare_exchange(u32::MAX, used, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn take_over(&self, old: &RuleStats) {
        self.packets.store(old.packets.load(Ordering::Relaxed), Ordering::Relaxed);
        self.bytes.store(old.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.last_used.store(old.last_used.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// What all matches of a rule share, and what outlives a replacement.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: RuleId,
    pub(crate) domain: Domain,
    pub(crate) name: Box<str>,
    pub(crate) stats: RuleStats,
}

impl Identity {
    /// The identity of a rule that takes the place of `old`, if any: the same where its name is.
    pub(crate) fn of(spec: &RuleSpec, old: Option<&Arc<Identity>>) -> Arc<Identity> {
        if let Some(old) = old
            && *old.name == *spec.name
        {
            return Arc::clone(old);
        }
        let new = Identity {
            id: spec.id,
            domain: spec.domain,
            name: spec.name.as_str().into(),
            stats: RuleStats::default(),
        };
        if let Some(old) = old {
            new.stats.take_over(&old.stats);
        }
        Arc::new(new)
    }
}

/// One frame of so many, counted.
#[derive(Debug)]
pub(crate) struct Sampler {
    pub(crate) mirror: String,
    pub(crate) every: u32,
    pub(crate) seen: AtomicU64,
}

impl Sampler {
    /// Whether the next frame is one of those that are taken.
    pub(crate) fn takes(&self) -> bool {
        self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(u64::from(self.every))
    }
}

/// One thing to be done, ready to be used. Rules with the same list share it.
#[derive(Clone, Debug)]
pub(crate) enum Do {
    Drop,
    Pass,
    Redirect(PortId),
    Goto(u8),
    Continue,
    Mirror(Box<str>),
    Sample(Arc<Sampler>),
    Meter(Box<str>),
    Police(Arc<Meter>),
    Ct(Arc<CtAction>),
    Mark { value: u32, mask: u32 },
    Rewrite(Arc<Rewrite>),
}

/// One match of a rule, as the classifier holds it.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) compiled: Compiled,
    pub(crate) actions: Arc<[Do]>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) priority: u32,
    pub(crate) direction: Direction,
    pub(crate) group: u8,
}

/// What orders rules: the lowest is asked first.
pub(crate) type Rank = (u32, u64);

impl Rule {
    #[inline(always)]
    pub(crate) fn rank(&self) -> Rank {
        (self.priority, self.identity.id.0)
    }
}

/// The meters of a rule's own in a list of actions.
pub(crate) fn policers(actions: &[Do]) -> impl Iterator<Item = &Arc<Meter>> {
    actions.iter().filter_map(|action| match action {
        Do::Police(meter) => Some(meter),
        _ => None,
    })
}

/// Checks a list of actions and makes it ready. `old` is the list of the rule that this one replaces.
pub(crate) fn prepare(spec: &RuleSpec, old: &[Do]) -> Result<Arc<[Do]>, RuleError> {
    let mut policers = policers(old).cloned();
    if spec.actions.len() > MAX_ACTIONS {
        return Err(RuleError::ManyActions(spec.actions.len()));
    }
    let mut list = Vec::new();
    let mut rewrite = Rewrite::default();
    for (index, action) in spec.actions.iter().enumerate() {
        let ends = matches!(
            action,
            Action::Drop | Action::Pass | Action::Redirect(_) | Action::Goto(_) | Action::Continue
        );
        if ends && index + 1 < spec.actions.len() {
            return Err(RuleError::BehindTheEnd(index + 1));
        }
        if let Action::Set(set) = action {
            if matches!(set, Set::Vlan(_)) && spec.direction == Direction::Out {
                return Err(RuleError::VlanInDirectionOut);
            }
            rewrite.set(*set);
            continue;
        }
        if rewrite != Rewrite::default() {
            list.push(Do::Rewrite(Arc::new(core::mem::take(&mut rewrite))));
        }
        list.push(match action {
            Action::Set(_) => continue,
            Action::Drop => Do::Drop,
            Action::Pass => Do::Pass,
            Action::Redirect(port) => Do::Redirect(*port),
            Action::Goto(group) if *group > MAX_GROUP => return Err(RuleError::Group(*group)),
            Action::Goto(group) if *group <= spec.group => {
                return Err(RuleError::GotoBack { from: spec.group, to: *group });
            }
            Action::Goto(group) => Do::Goto(*group),
            Action::Continue => Do::Continue,
            Action::Mirror(name) => Do::Mirror(name.as_str().into()),
            Action::Meter(name) => Do::Meter(name.as_str().into()),
            Action::Police(settings) => match policers.next().filter(|old| old.settings() == *settings) {
                Some(same) => Do::Police(same),
                None => Do::Police(Arc::new(Meter::new(*settings).map_err(RuleError::Meter)?)),
            },
            Action::Ct(_) if spec.direction == Direction::Out => return Err(RuleError::CtInDirectionOut),
            Action::Ct(ct) => Do::Ct(Arc::new(ct.clone())),
            Action::Sample { mirror, every } => Do::Sample(Arc::new(Sampler {
                mirror: mirror.clone(),
                every: (*every).max(1),
                seen: AtomicU64::new(0),
            })),
            Action::Mark { value, mask } => Do::Mark { value: value & mask, mask: *mask },
        });
    }
    if rewrite != Rewrite::default() {
        list.push(Do::Rewrite(Arc::new(rewrite)));
    }
    Ok(list.into())
}
