//! Random state: what is written is read, byte for byte where it is cut, changed or newer it is refused, and sections that
//! are not known are skipped.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::IpAddr;

use fabnic_saved::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = Name> {
    "[a-z0-9/é]{0,12}".prop_map(|text| Name::new(&text).unwrap())
}

fn tuple() -> impl Strategy<Value = Tuple> {
    any::<([u8; 16], [u8; 16], u16, u16)>().prop_map(|(src, dst, src_port, dst_port)| Tuple {
        src,
        dst,
        src_port,
        dst_port,
    })
}

fn tcp() -> impl Strategy<Value = Tcp> {
    let side = any::<([u32; 4], u8, u8)>().prop_map(|([end, max_end, max_window, max_ack], scale, flags)| {
        TcpSide { end, max_end, max_window, max_ack, scale, flags }
    });
    let last = any::<([u32; 4], [u8; 4], bool)>().prop_map(
        |([seq, ack, end, window], [kind, scale, flags, repeated], reply)| TcpLast {
            seq,
            ack,
            end,
            window,
            kind,
            reply,
            scale,
            flags,
            repeated,
        },
    );
    (any::<u8>(), [side.clone(), side], last).prop_map(|(state, sides, last)| Tcp { state, sides, last })
}

fn connection() -> impl Strategy<Value = Connection> {
    let numbers = any::<(u16, u32, u8, bool, u8, u32, u32, u32)>();
    (numbers, tuple(), tuple(), any::<([u64; 2], [u64; 2])>(), of(tcp())).prop_map(
        |((zone, port, protocol, v6, bits, mark, age_s, left_s), original, reply, (packets, bytes), tcp)| {
            Connection {
                zone,
                port,
                protocol,
                v6,
                original,
                reply,
                bits,
                mark,
                age_s,
                left_s,
                packets,
                bytes,
                tcp,
            }
        },
    )
}

fn question() -> impl Strategy<Value = Question> {
    (any::<(u8, u64)>(), vec(any::<IpAddr>(), 0..3)).prop_map(|((left, next_in_ms), sources)| Question {
        left,
        next_in_ms,
        sources,
    })
}

fn listener() -> impl Strategy<Value = Listener> {
    let source = any::<(IpAddr, Option<u64>)>().prop_map(|(address, left_ms)| Source { address, left_ms });
    let numbers = any::<(u16, IpAddr, u32, bool, u64, u64, u64)>();
    (numbers, vec(source, 0..5), question(), question()).prop_map(
        |(
            (vlan, group, port, excludes, left_ms, v1_left_ms, v2_left_ms),
            sources,
            group_question,
            source_question,
        )| {
            Listener {
                vlan,
                group,
                port,
                excludes,
                left_ms,
                sources,
                v1_left_ms,
                v2_left_ms,
                group_question,
                source_question,
            }
        },
    )
}

fn side() -> impl Strategy<Value = MulticastSide> {
    let router = any::<(u32, u64)>().prop_map(|(port, left_ms)| Router { port, left_ms });
    let other = any::<(IpAddr, u32, u64, u8, u32, u32)>().prop_map(
        |(address, port, left_ms, robustness, interval_s, max_response_ms)| OtherQuerier {
            address,
            port,
            left_ms,
            robustness,
            interval_s,
            max_response_ms,
        },
    );
    (vec(router, 0..3), of(other), any::<(u64, u8, Option<u64>)>()).prop_map(
        |(routers, other, (next_in_ms, startup, known_in_ms))| MulticastSide {
            routers,
            other,
            next_in_ms,
            startup,
            known_in_ms,
        },
    )
}

fn counters() -> impl Strategy<Value = PortCounters> {
    let queue = any::<[u64; 5]>().prop_map(|[frames, bytes, bursts, calls, kicks]| QueueCounters {
        frames,
        bytes,
        bursts,
        calls,
        kicks,
    });
    let reasons = || vec((name(), any::<u64>()), 0..3);
    let queues = vec(queue, 0..3);
    let reasons = (reasons(), reasons(), reasons());
    (any::<(u32, [u64; 7], u64, u64)>(), queues.clone(), queues, reasons).prop_map(
        |((port, answers, fdb_refused, connections_refused), rx, tx, (rx_drops, tx_drops, fdb_refusals))| {
            PortCounters {
                port,
                rx,
                tx,
                rx_drops,
                tx_drops,
                answers,
                fdb_refused,
                fdb_refusals,
                connections_refused,
            }
        },
    )
}

fn meter() -> impl Strategy<Value = Meter> {
    let place = prop_oneof![
        name().prop_map(MeterPlace::Named),
        (name(), any::<u8>()).prop_map(|(name, nth)| MeterPlace::Rule(name, nth)),
        any::<u32>().prop_map(MeterPlace::Tenant),
        any::<u32>().prop_map(MeterPlace::Ingress),
        any::<u32>().prop_map(MeterPlace::Egress),
        any::<(u32, u8)>().prop_map(|(port, kind)| MeterPlace::Storm(port, kind)),
        any::<u32>().prop_map(MeterPlace::Held),
        any::<u32>().prop_map(MeterPlace::Guaranteed),
        any::<u32>().prop_map(MeterPlace::TenantHeld),
    ];
    let bucket = any::<(i64, u64)>().prop_map(|(tokens, remainder)| Bucket { tokens, remainder });
    (place, of([bucket.clone(), bucket]), any::<(u8, bool, [(u64, u64); 4])>()).prop_map(
        |(place, buckets, (algorithm, is_waiting, counts))| Meter {
            place,
            algorithm,
            buckets,
            is_waiting,
            counts,
        },
    )
}

fn section() -> impl Strategy<Value = Section> {
    let some = 0..6_usize;
    let binding = any::<(u16, IpAddr, u32, [u8; 6], u8, Option<u32>)>().prop_map(
        |(vlan, address, port, mac, origin, left_s)| {
            let origin =
                [BindingOrigin::Slaac, BindingOrigin::Dhcp, BindingOrigin::Dhcp6][usize::from(origin % 3)];
            Binding { vlan, address, port, mac, origin, left_s }
        },
    );
    let entry = any::<(u16, [u8; 6], u32, u32, bool, u32, Option<u32>, u32, u32)>().prop_map(
        |(vlan, mac, port, age_s, sticky, moves, left_s, lately, window_age_s)| FdbEntry {
            vlan,
            mac,
            port,
            age_s,
            sticky,
            moves,
            freeze: Freeze { left_s, moves: lately, window_age_s },
        },
    );
    let transaction =
        any::<(u16, bool, u32, [u8; 6], std::net::Ipv6Addr, u32, Option<std::net::Ipv4Addr>, u32, u32)>()
            .prop_map(|(vlan, v6, xid, mac, from, port, asked, limit, left_s)| {
                let name =
                    if v6 { TransactionName::Dhcp6(xid, from) } else { TransactionName::Dhcp(xid, mac) };
                Transaction { vlan, name, port, mac, asked, limit, left_s }
            });
    let reasons = || vec((name(), any::<u64>()), 0..3);
    let totals = (any::<([u64; 5], [u64; 4])>(), reasons(), reasons()).prop_map(
        |(
            ([replicated, received, delivered, connections_refused, connections_exhausted], fdb),
            drops,
            refused,
        )| {
            let [learned, moves, freezes, aged] = fdb;
            Totals {
                replicated,
                gone: Gone { received, delivered, drops },
                fdb: FdbTotals { learned, moves, freezes, aged, refused },
                connections_refused,
                connections_exhausted,
            }
        },
    );
    let vlan = (any::<u16>(), [side(), side()], vec(any::<u64>(), 0..16))
        .prop_map(|(vlan, sides, counts)| MulticastVlan { vlan, sides, counts });
    let zone = any::<(u16, [u64; 4])>().prop_map(|(zone, [created, expired, refused, invalid])| ZoneCounts {
        zone,
        created,
        expired,
        refused,
        invalid,
    });
    let rule = (any::<(Option<u32>, u64, u64, u64, Option<u32>)>(), name()).prop_map(
        |((tenant, number, packets, bytes, used_age_s), name)| RuleCounts {
            tenant,
            number,
            name,
            packets,
            bytes,
            used_age_s,
        },
    );
    prop_oneof![
        vec(
            (any::<u32>(), name(), of(name())).prop_map(|(number, name, tenant)| PortName {
                number,
                name,
                tenant
            }),
            some.clone()
        )
        .prop_map(Section::Ports),
        vec((any::<u32>(), name()).prop_map(|(number, name)| TenantName { number, name }), some.clone())
            .prop_map(Section::Tenants),
        totals.prop_map(Section::Totals),
        vec(counters(), some.clone()).prop_map(Section::PortCounters),
        vec(entry, some.clone()).prop_map(Section::Fdb),
        vec(binding, some.clone()).prop_map(Section::Bindings),
        vec(transaction, some.clone()).prop_map(Section::Transactions),
        vec(vlan, some.clone()).prop_map(Section::Multicast),
        vec(listener(), some.clone()).prop_map(Section::Listeners),
        vec(zone, some.clone()).prop_map(Section::Zones),
        vec(connection(), some.clone()).prop_map(Section::Connections),
        vec(meter(), some.clone()).prop_map(Section::Meters),
        vec(rule, some.clone()).prop_map(Section::Rules),
        vec(
            (name(), any::<(u64, u64)>()).prop_map(|(name, (seen, copied))| MirrorCounts {
                name,
                seen,
                copied
            }),
            some
        )
        .prop_map(Section::Mirrors),
    ]
}

fn head() -> Head {
    let at = Moment { wall_ms: 1_700_000_000_123, boot: [7; 16], since_boot_ms: 99 };
    Head { scope: Scope::Switch, written_by: Name::new("a test").unwrap(), at, is_still: true }
}

fn write(sections: &[Section]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    writer.put(&Section::Head(head())).unwrap();
    sections.iter().for_each(|section| writer.put(section).unwrap());
    writer.finish().unwrap().0
}

fn read(bytes: &[u8]) -> Result<(Vec<Section>, Vec<Unknown>), Malformed> {
    let mut reader = Reader::new(bytes)?;
    let (mut sections, mut unknown) = (Vec::new(), Vec::new());
    loop {
        match reader.next_item()? {
            Item::Section(section) => sections.push(section),
            Item::Unknown(other) => unknown.push(other),
            Item::End => return Ok((sections, unknown)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(sections in vec(section(), 0..12)) {
        let bytes = write(&sections);
        let (mut found, unknown) = read(&bytes).unwrap();
        prop_assert_eq!(found.remove(0), Section::Head(head()));
        prop_assert_eq!(&found, &sections);
        prop_assert_eq!(unknown, Vec::new());
        let verified = verify(&bytes[..]).unwrap();
        prop_assert_eq!(verified.bytes, bytes.len() as u64);
        let records: u64 = verified.records.values().sum();
        prop_assert_eq!(records, 1 + sections.iter().map(|section| section.len() as u64).sum::<u64>());
    }

    #[test]
    fn what_was_cut_or_changed_is_refused(
        sections in vec(section(), 1..4),
        cut in any::<prop::sample::Index>(),
        flip in any::<(prop::sample::Index, u8)>(),
    ) {
        let bytes = write(&sections);
        let len = cut.index(bytes.len());
        prop_assert!(verify(&bytes[..len]).is_err(), "cut to {} of {}", len, bytes.len());
        let mut changed = bytes.clone();
        let at = flip.0.index(bytes.len());
        changed[at] ^= flip.1 | 1;
        prop_assert!(verify(&changed[..]).is_err(), "byte {} changed", at);
        let mut longer = bytes;
        longer.push(0);
        prop_assert!(matches!(verify(&longer[..]), Err(Malformed::Trailing)));
    }

    #[test]
    fn bytes_are_no_state(bytes in vec(any::<u8>(), 0..200), behind in any::<bool>()) {
        let bytes = if behind { [&MAGIC[..], &VERSION.to_le_bytes(), &bytes].concat() } else { bytes };
        prop_assert!(verify(&bytes[..]).is_err());
    }
}

/// A file of these sections, given as kind, version and payload, with the right digest.
fn raw(version: u32, sections: &[(u16, u16, &[u8])]) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let mut bytes = [&MAGIC[..], &version.to_le_bytes()].concat();
    let head = |(kind, version): (u16, u16), len: usize| {
        [&kind.to_le_bytes()[..], &version.to_le_bytes(), &(len as u32).to_le_bytes()].concat()
    };
    for (kind, version, payload) in sections {
        bytes.extend(head((*kind, *version), payload.len()));
        bytes.extend(*payload);
    }
    let digest = Sha256::digest(&bytes);
    bytes.extend(head((0xffff, 1), digest.len()));
    bytes.extend(digest);
    bytes
}

#[test]
fn newer_formats_are_refused_and_newer_sections_skipped() {
    let newer = verify(&raw(2, &[])[..]).unwrap_err().to_string();
    assert!(newer.contains("of format 2, which a newer version wrote (this one reads format 1)"), "{newer}");
    let first = write(&[]);
    // The head's payload, as this build writes it.
    let head = &first[12 + 8..first.len() - 40];
    let (sections, unknown) =
        read(&raw(1, &[(1, 1, head), (6, 2, &[1, 2, 3]), (900, 1, &[]), (6, 1, &[0])])).unwrap();
    assert_eq!(sections.len(), 2);
    assert_eq!(unknown, [Unknown { kind: 6, version: 2 }, Unknown { kind: 900, version: 1 }]);
    let refused = |sections: &[(u16, u16, &[u8])]| verify(&raw(1, sections)[..]).unwrap_err().to_string();
    assert_eq!(refused(&[(6, 1, &[0])]), "the first section is not the head");
    assert_eq!(refused(&[]), "the digest does not fit: bytes were changed or lost");
    assert!(refused(&[(1, 1, head), (6, 1, &[0, 0])]).contains("section `fdb`"));
    let huge = [
        &raw(1, &[(1, 1, head)])[..12 + 8 + head.len()],
        &6_u16.to_le_bytes(),
        &1_u16.to_le_bytes(),
        &[0xff; 4],
    ]
    .concat();
    assert!(verify(&huge[..]).unwrap_err().to_string().contains("says that it is 4294967295 bytes long"));
    // A list that says it is long is no reason to make room for it.
    let long = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert!(refused(&[(1, 1, head), (12, 1, &long)]).contains("section `connections`"));
}

#[test]
fn what_is_too_long_is_not_written() {
    let entry = MirrorCounts { name: Name::new(&"x".repeat(255)).unwrap(), seen: 0, copied: 0 };
    let mut writer = Writer::new(Vec::new()).unwrap();
    let refused = writer.put(&Section::Mirrors(vec![entry; 5_000])).unwrap_err().to_string();
    assert!(refused.starts_with("a section `mirrors` of 1295002 bytes"), "{refused}");
    assert_eq!(Name::new(&"x".repeat(256)), Err(NameTooLong(256)));
}
