//! The life of a switch goes on in another one: its state is saved as bytes, and restored from them.
#![allow(dead_code, reason = "each test uses a part of it")]

use core::time::Duration;

use fabnic_port::PortId;
use fabnic_saved::{Head, Item, Kind, Moment, Name, Reader, Scope, Section, Writer, verify};
use fabnic_switch::{Arrival, InlineSwitch, Restored};

/// All state of a switch, or of one port, as a daemon writes it.
pub(crate) fn save(switch: &mut InlineSwitch, of: Option<PortId>) -> Vec<u8> {
    let scope = if of.is_none() { Scope::Switch } else { Scope::Port };
    let mut writer = Writer::new(Vec::new()).unwrap();
    let (written_by, at) = (Name::new("a test").unwrap(), Moment::default());
    let head = Head { scope, written_by, at, is_still: true };
    writer.put(&Section::Head(head)).unwrap();
    switch
        .save(of, &mut |section| {
            writer.put(&section).unwrap();
            Ok(())
        })
        .unwrap();
    let (bytes, len) = writer.finish().unwrap();
    assert_eq!(bytes.len() as u64, len);
    verify(&bytes[..]).unwrap();
    bytes
}

pub(crate) fn sections(bytes: &[u8]) -> Vec<Section> {
    let mut reader = Reader::new(bytes).unwrap();
    let mut sections = Vec::new();
    loop {
        match reader.next_item().unwrap() {
            Item::Section(section) => sections.push(section),
            Item::Unknown(unknown) => panic!("{unknown:?}"),
            Item::End => return sections,
        }
    }
}

/// Restores all of it, so long after it was saved; ports and tenants have the numbers that they had, unless `port` says
/// otherwise.
pub(crate) fn restore(
    switch: &InlineSwitch,
    bytes: &[u8],
    passed: Duration,
    counters: bool,
    port: &dyn Fn(u32) -> Option<PortId>,
) -> Restored {
    let mut report = Restored::default();
    let arrival = Arrival { port, tenant: &|number| Some(number), passed, is_still: true, counters };
    for section in sections(bytes) {
        switch.restore(&section, &arrival, &mut report);
    }
    report
}

/// The records of a kind, each as text, in an order that does not depend on where they lay.
pub(crate) fn records(bytes: &[u8]) -> Vec<(Kind, String)> {
    let mut all = Vec::new();
    macro_rules! each {
        ($kind:expr, $list:expr) => {
            all.extend($list.iter().map(|record| ($kind, format!("{record:?}"))))
        };
    }
    for section in sections(bytes) {
        let kind = section.kind();
        match section {
            Section::Head(_) => {}
            Section::Totals(it) => all.push((kind, format!("{it:?}"))),
            Section::Ports(list) => each!(kind, list),
            Section::Tenants(list) => each!(kind, list),
            Section::PortCounters(list) => each!(kind, list),
            Section::Fdb(list) => each!(kind, list),
            Section::Bindings(list) => each!(kind, list),
            Section::Transactions(list) => each!(kind, list),
            Section::Multicast(list) => each!(kind, list),
            Section::Listeners(list) => each!(kind, list),
            Section::Zones(list) => each!(kind, list),
            Section::Connections(list) => each!(kind, list),
            Section::Meters(list) => each!(kind, list),
            Section::Rules(list) => each!(kind, list),
            Section::Mirrors(list) => each!(kind, list),
        }
    }
    all.sort();
    all
}
