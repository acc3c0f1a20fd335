//! Saved state of the switch: everything that it has learned and that runs in it, as records of `fabnic-saved`, and back.
//!
//! ```text
//!   save     tables --a few records at a time, each lock for a moment--> sections --> a file, or an answer
//!   restore  sections --> still configured? a member of the VLAN? time left? room? --> tables, versions raised
//!                                  '-- no: counted by reason ([`Restored`])
//! ```
//!
//! # Life cycle
//!
//! Both go on while workers forward. A switch that starts is restored between the moment when its ports are known and the
//! first frame from them ([`crate::Switch::configure_then`]): a frame in the middle of a connection must find it. One
//! port's state, taken out of one switch, is restored into another in the same way, at any time.
//!
//! # What wins
//!
//! What is there. A static entry, a binding that was configured, an address that was learned since: none gives way to what
//! was saved. Otherwise a restart is not to be noticed: what was learned is as it was, also where settings have changed since,
//! as it would be in a switch that went on; but for limits, which it must pass again.
//!
//! # Time
//!
//! The second in which a running switch starts is [`FIRST_TICK`], so that what was seen before it has a place.
//!
//! # Invariants
//! * Records are hostile: each is checked as if a guest had sent it, and what the table's own way in checks (quotas, limits)
//!   is checked by it.
//! * What was saved, restored and saved again without a pause is the same, but for the order.

mod connections;
mod counters;
mod meters;
mod multicast;
mod tables;

use core::time::Duration;
use std::collections::BTreeMap;
use std::io;

use fabnic_port::PortId;
use fabnic_saved::{Kind, Section};

use crate::fdb::Tick;
use crate::switch::Shared;
use crate::topology::{Member, Topology};

/// The second with which a running switch begins to count: seconds before it are those of earlier daemons, 48 days.
pub const FIRST_TICK: u32 = 1 << 22;

/// Takes sections as they are made.
pub type Put<'a> = dyn FnMut(Section) -> io::Result<()> + 'a;

/// Why a record was not restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lost {
    /// What it is about is not configured: the port, the VLAN, the meter, the rule.
    Unconfigured,
    /// The port is no member of the VLAN any more.
    NoMember,
    /// Its time was over.
    Expired,
    /// There is something in its place.
    Taken,
    /// A limit of now was reached.
    Limit,
    /// A TCP connection that was being opened: what became of it meanwhile is not known.
    Stale,
    /// It contradicts itself.
    Malformed,
}

impl Lost {
    /// All reasons.
    pub const ALL: [Lost; 7] = [
        Lost::Unconfigured,
        Lost::NoMember,
        Lost::Expired,
        Lost::Taken,
        Lost::Limit,
        Lost::Stale,
        Lost::Malformed,
    ];

    /// Its name in output.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Lost::Unconfigured => "unconfigured",
            Lost::NoMember => "no_member",
            Lost::Expired => "expired",
            Lost::Taken => "taken",
            Lost::Limit => "limit",
            Lost::Stale => "stale",
            Lost::Malformed => "malformed",
        }
    }
}

/// What became of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Restored, by kind.
    pub restored: BTreeMap<Kind, u64>,
    /// Not restored, by kind and reason.
    pub lost: BTreeMap<(Kind, Lost), u64>,
}

impl Restored {
    pub(crate) fn note(&mut self, kind: Kind, outcome: Result<(), Lost>) {
        match outcome {
            Ok(()) => *self.restored.entry(kind).or_default() += 1,
            Err(why) => *self.lost.entry((kind, why)).or_default() += 1,
        }
    }
}

/// How records are to be read in this switch.
#[derive(Clone, Copy)]
pub struct Arrival<'a> {
    /// The port that has this number in the records, if it is here.
    pub port: &'a dyn Fn(u32) -> Option<PortId>,
    /// The number here of the tenant with this number in the records.
    pub tenant: &'a dyn Fn(u32) -> Option<u32>,
    /// How long ago they were saved.
    pub passed: Duration,
    /// Nothing moved after that. Otherwise a TCP connection's windows may have gone on, which nobody knows any more: they are
    /// not checked, as those of a connection that is picked up in the middle.
    pub is_still: bool,
    /// Whether counters of ports, rules, zones and the switch go on from where they were. Not so where only one port comes:
    /// what it moved was moved by another switch, and received + replicated = delivered + dropped holds for each.
    pub counters: bool,
}

impl core::fmt::Debug for Arrival<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Arrival").field("passed", &self.passed).finish_non_exhaustive()
    }
}

impl Arrival<'_> {
    /// Whole seconds gone by.
    fn seconds(&self) -> u32 {
        u32::try_from(self.passed.as_secs()).unwrap_or(u32::MAX)
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.passed.as_millis()).unwrap_or(u64::MAX)
    }

    fn nanoseconds(&self) -> u64 {
        u64::try_from(self.passed.as_nanos()).unwrap_or(u64::MAX)
    }

    fn port(&self, number: u32) -> Result<PortId, Lost> {
        (self.port)(number).ok_or(Lost::Unconfigured)
    }
}

/// Gathers records of one kind, and hands them on by sections.
struct Chunks<'a, 'p, T> {
    list: Vec<T>,
    most: usize,
    make: fn(Vec<T>) -> Section,
    put: &'a mut Put<'p>,
}

impl<'a, 'p, T> Chunks<'a, 'p, T> {
    /// Sections of at most so many records: such that the longest fit into [`fabnic_saved::MAX_SECTION`].
    fn new(most: usize, make: fn(Vec<T>) -> Section, put: &'a mut Put<'p>) -> Chunks<'a, 'p, T> {
        Chunks { list: Vec::new(), most, make, put }
    }

    fn push(&mut self, record: T) -> io::Result<()> {
        self.list.push(record);
        if self.list.len() < self.most {
            return Ok(());
        }
        let list = core::mem::replace(&mut self.list, Vec::with_capacity(self.most));
        (self.put)((self.make)(list))
    }

    fn extend(&mut self, records: impl IntoIterator<Item = T>) -> io::Result<()> {
        records.into_iter().try_for_each(|record| self.push(record))
    }

    fn finish(self) -> io::Result<()> {
        if self.list.is_empty() { Ok(()) } else { (self.put)((self.make)(self.list)) }
    }
}

/// A port with what the topology knows of it.
fn member(topology: &Topology, port: PortId) -> Result<&Member, Lost> {
    topology.index_of(port).and_then(|index| topology.member(index)).ok_or(Lost::Unconfigured)
}

impl Shared {
    /// Hands all state to `put`, or that of one port, section by section. What runs goes on: the sections are not of one
    /// moment, but each record is.
    pub(crate) fn save(
        &self,
        of: Option<PortId>,
        now: Tick,
        now_ns: u64,
        put: &mut Put<'_>,
    ) -> io::Result<()> {
        let topology = self.topology.load_full();
        if of.is_none() {
            put(Section::Totals(self.saved_totals()))?;
            self.save_zones(put)?;
            self.save_rules(now, put)?;
            self.save_mirrors(&topology, put)?;
        }
        self.save_port_counters(&topology, of, put)?;
        self.save_fdb(of, now, put)?;
        self.save_bindings(of, now, put)?;
        self.save_transactions(of, now, put)?;
        self.save_multicast(of, put)?;
        self.save_meters(&topology, of, now_ns, put)?;
        self.save_connections(&topology, of, now, put)
    }

    /// Restores the records of a section, as far as they fit what is configured now.
    pub(crate) fn restore(
        &self,
        section: &Section,
        arrival: &Arrival<'_>,
        (now, now_ns): (Tick, u64),
        report: &mut Restored,
    ) {
        let topology = self.topology.load_full();
        let kind = section.kind();
        let mut note = |outcome| report.note(kind, outcome);
        match section {
            // Names: of whoever gives `arrival`.
            Section::Head(_) | Section::Ports(_) | Section::Tenants(_) => {}
            Section::Fdb(list) => {
                list.iter().for_each(|it| note(self.restore_address(&topology, it, arrival, now)));
            }
            Section::Bindings(list) => {
                list.iter().for_each(|it| note(self.restore_binding(&topology, it, arrival, now)));
            }
            Section::Transactions(list) => {
                list.iter().for_each(|it| note(self.restore_transaction(&topology, it, arrival, now)));
            }
            Section::Multicast(list) => {
                list.iter().for_each(|it| note(self.restore_vlan(&topology, it, arrival)));
            }
            Section::Listeners(list) => {
                list.iter().for_each(|it| note(self.restore_listener(&topology, it, arrival)));
            }
            Section::Connections(list) => {
                list.iter().for_each(|it| note(self.restore_connection(&topology, it, arrival, now)));
            }
            Section::Meters(list) => {
                let places = self.meter_places(&topology);
                list.iter().for_each(|it| note(places.restore(it, arrival, now_ns)));
            }
            Section::Totals(_)
            | Section::PortCounters(_)
            | Section::Zones(_)
            | Section::Rules(_)
            | Section::Mirrors(_)
                if !arrival.counters => {}
            Section::Totals(totals) => note(self.restore_totals(totals)),
            Section::PortCounters(list) => {
                list.iter().for_each(|it| note(self.restore_port_counters(&topology, it, arrival)));
            }
            Section::Zones(list) => list.iter().for_each(|it| note(self.restore_zone(it))),
            Section::Rules(list) => self.restore_rules(list, arrival, now, &mut note),
            Section::Mirrors(list) => list.iter().for_each(|it| note(restore_mirror(&topology, it))),
        }
    }
}

/// A mirror's counters go on.
fn restore_mirror(topology: &Topology, saved: &fabnic_saved::MirrorCounts) -> Result<(), Lost> {
    let is_it = |mirror: &&std::sync::Arc<crate::Mirror>| mirror.settings.name == saved.name.as_str();
    let mirror = topology.mirrors.all.iter().find(is_it).ok_or(Lost::Unconfigured)?;
    mirror.go_on(saved.seen, saved.copied);
    Ok(())
}
