//! Any bytes as saved state: read, and restored into a switch that then forwards, lives on and is saved again.
//!
//! The first byte says how: as a file, or, so that a fuzzer need not find out how files are framed, as the payload of one
//! section of some kind and version in a file around it.

use core::time::Duration;
use std::sync::{Arc, Mutex, OnceLock};

use fabnic_port::{Port, PortId, PortKind};
use fabnic_saved::{Item, Kind, MAGIC, Reader, Section, VERSION, Writer, verify};
use fabnic_switch::{
    Arrival, GuardSettings, InlineSwitch, Policy, PortSettings, PortTracking, QuerierSettings, Rate,
    Restored, SwitchConfig, VlanSnooping,
};
use fabnic_wire::{MacAddr, Vid};

/// Records that the state of one input may become: what a table takes is bounded.
const MOST: u32 = 64;

fn switch() -> InlineSwitch {
    let config = SwitchConfig {
        fdb_max: MOST,
        bindings_max: MOST,
        connections_max: MOST,
        flow_cache_max: 64,
        ..SwitchConfig::default()
    };
    let mut switch = InlineSwitch::new(&config);
    switch.tick(100);
    let own = QuerierSettings {
        mac: MacAddr::new([2, 0, 0, 0, 9, 9]),
        v4: Some([10, 0, 0, 100].into()),
        v6: Some("fe80::99".parse().unwrap_or(core::net::Ipv6Addr::LOCALHOST)),
        igmp_version: 3,
        mld_version: 2,
    };
    let snooping = VlanSnooping { max_entries: MOST, ..VlanSnooping::new(Vid::DEFAULT) };
    let policy =
        Policy { multicast: vec![VlanSnooping { querier: Some(own), ..snooping }], ..Policy::default() };
    let settings = PortSettings {
        tracking: Some(PortTracking::default()),
        max_tx_rate: Some(Rate::bits(1_000_000)),
        police_ingress: Some(fabnic_switch::MeterSettings::policer(fabnic_switch::Unit::Bits, 1_000, 1_000)),
        guard: GuardSettings { learn_dhcp: true, learn_dhcp6: true, ..GuardSettings::default() },
        ..PortSettings::default()
    };
    let port = |id: u32| {
        let port = Arc::new(Port::new(PortId(id), &format!("p{id}"), PortKind::Loopback, 1));
        (port, settings.clone())
    };
    switch.configure((0..3).map(port).collect(), policy);
    switch
}

/// One switch for all inputs: making one takes longer than all else, and what is in it gives later ones more to meet.
fn shared() -> &'static Mutex<(InlineSwitch, u32, u32)> {
    static SWITCH: OnceLock<Mutex<(InlineSwitch, u32, u32)>> = OnceLock::new();
    SWITCH.get_or_init(|| Mutex::new((switch(), 100, 0)))
}

fn framed(kind: u8, version: u8, payload: &[u8]) -> Vec<u8> {
    let head = |kind: u16, len: usize| {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        [&kind.to_le_bytes()[..], &u16::from(version).to_le_bytes(), &len.to_le_bytes()].concat()
    };
    // Any head: an empty name, zeros.
    let first = [&1_u16.to_le_bytes()[..], &1_u16.to_le_bytes(), &21_u32.to_le_bytes(), &[0; 21]].concat();
    [&MAGIC[..], &VERSION.to_le_bytes(), &first, &head(kind.into(), payload.len()), payload].concat()
}

pub(crate) fn run(data: &[u8]) {
    let Some((how, data)) = data.split_first() else { return };
    let bytes = match *how {
        0 => data.to_vec(),
        kind => framed(kind % 18, 1 + kind / 128, data),
    };
    // Both ways of reading agree on whether there is an end.
    let verified = verify(&bytes[..]);
    let Ok(mut reader) = Reader::new(&bytes[..]) else { return };
    // Where a test panicked, the next one begins with what it left.
    let mut place = shared().lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (switch, now, inputs) = &mut *place;
    *inputs += 1;
    if *inputs % 256 == 0 {
        (*switch, *now) = (self::switch(), 100);
    }
    let mut report = Restored::default();
    let arrival = Arrival {
        port: &|number| (number < 4).then_some(PortId(number)),
        tenant: &Some,
        passed: Duration::from_secs(1),
        is_still: *inputs % 2 == 0,
        counters: false,
    };
    let mut records = 0;
    loop {
        match reader.next_item() {
            Ok(Item::Section(section)) => {
                // A record takes at least a byte.
                assert!(section.len() <= bytes.len());
                if !matches!(section.kind(), Kind::Head | Kind::Ports | Kind::Tenants) {
                    records += section.len() as u64;
                }
                written_again(&section);
                switch.restore(&section, &arrival, &mut report);
            }
            Ok(Item::Unknown(_)) => {}
            Ok(Item::End) => break assert!(verified.is_ok()),
            Err(_) => break assert!(verified.is_err()),
        }
    }
    let noted: u64 = report.restored.values().chain(report.lost.values()).sum();
    assert!(noted <= records, "each record is noted once: {report:?}");
    assert!(switch.fdb().len() <= MOST as usize && switch.conntrack().len() <= MOST as usize);
    *now += 1;
    switch.tick(*now);
    let mut writer = Writer::new(Vec::new()).expect("a vector takes all");
    let saved = switch.save(None, &mut |section| {
        writer.put(&section).expect("what was restored can be written");
        Ok(())
    });
    assert!(saved.is_ok());
    assert!(switch.totals().balance());
}

/// What was read is written, and read again as the same.
fn written_again(section: &Section) {
    let mut writer = Writer::new(Vec::new()).expect("a vector takes all");
    // What took few bytes in a hostile form may take more in ours: then it is refused.
    if writer.put(section).is_err() || section.kind() != Kind::Head {
        return;
    }
    let (bytes, _) = writer.finish().expect("a vector takes all");
    let mut reader = Reader::new(&bytes[..]).expect("what was written");
    assert_eq!(reader.next_item().ok().as_ref(), Some(&Item::Section(section.clone())));
}
