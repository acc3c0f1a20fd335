use std::net::Ipv4Addr;

use fabnic_memory::Map;
use fabnic_port::Burst;
use fabnic_wire::Fields;
use proptest::prelude::*;

use super::*;

/// Bytes of a frame that nearly always has a short key, now and then differs in one thing.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop::collection::vec(prop::bool::weighted(0.9), 4);
    (prop::collection::vec(any::<u8>(), 38..70), plain).prop_map(|(mut bytes, plain)| {
        if plain[0] {
            bytes[12..14].copy_from_slice(&[8, 0]);
        }
        if plain[1] {
            bytes[14] = 0x45;
        }
        if plain[2] {
            bytes[20] &= 0xc0;
            bytes[21] = 0;
        }
        if plain[3] {
            bytes[23] = if bytes[23] & 1 == 0 { 6 } else { 17 };
        }
        bytes
    })
}

fn read(bytes: &[u8], needs: Needs) -> Option<DeepKey> {
    let (map, _) = Map::anonymous(4096).unwrap();
    let mut burst = Burst::new();
    burst.begin(&map);
    let frame = burst.push_bytes(bytes).unwrap();
    DeepKey::read(frame, (7, [0x81, 0]), &KeyMask::of(needs)).map(|read| read.key)
}

/// All that a configuration with these needs may look at.
fn looked_at(bytes: &[u8], needs: Needs) -> Vec<u64> {
    let fields = Fields::of(bytes).unwrap();
    let mut all = Vec::new();
    let mut see = |need: Needs, values: &[u64]| {
        if needs.contains(need) {
            all.extend_from_slice(values);
        }
    };
    let address = |bytes: [u8; 6]| {
        u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], 0, 0])
    };
    see(Needs::empty(), &[address(fields.dst.0), address(fields.src.0)]);
    see(Needs::TYPE, &[fields.ethertype.0.into()]);
    let flow = fields.flow;
    let ip = |bytes: [u8; 16]| u128::from_ne_bytes(bytes);
    if flow.flags.has(FlowFlags::IP) && !flow.flags.has(FlowFlags::V6) {
        see(Needs::IP, &[ip(flow.src) as u64, ip(flow.dst) as u64, flow.protocol_number.into()]);
        see(Needs::TOS, &[flow.tos.into()]);
        see(Needs::TTL, &[fields.ttl.into()]);
        if flow.protocol() == IpProtocol::TCP {
            see(Needs::TCP_FLAGS, &[fields.tcp_flags.0.into()]);
        }
    }
    see(Needs::PORTS, &[flow.src_port.into(), flow.dst_port.into()]);
    see(Needs::IP, &[flow.flags.0.into()]);
    all
}

fn needs() -> impl Strategy<Value = Needs> {
    // Ports and TCP flags are read only where the protocol is.
    any::<u16>().prop_map(|bits| {
        let needs = Needs::from_bits_truncate(bits);
        if needs.intersects(Needs::PORTS | Needs::TCP_FLAGS) { needs | Needs::IP } else { needs }
    })
}

proptest! {
    #[test]
    fn frames_with_one_key_look_the_same(
        one in bytes(),
        at in 0_usize..70,
        value in any::<u8>(),
        needs in needs(),
    ) {
        let mut other = one.clone();
        if let Some(byte) = other.get_mut(at) {
            *byte = value;
        }
        if read(&one, needs) == read(&other, needs) {
            prop_assert_eq!(looked_at(&one, needs), looked_at(&other, needs));
        }
    }

    #[test]
    fn what_is_not_read_does_not_tell_short_keys_apart(
        one in bytes(),
        at in prop_oneof![Just(16_usize), 18_usize..20, 24_usize..26, Just(15), Just(22), 26_usize..38, 47_usize..48],
        value in any::<u8>(),
        needs in needs(),
    ) {
        let mut other = one.clone();
        if let Some(byte) = other.get_mut(at) {
            *byte = value;
        }
        let (one_key, other_key) = (read(&one, needs).unwrap(), read(&other, needs).unwrap());
        if !one_key.is_wide() && !other_key.is_wide() && looked_at(&one, needs) == looked_at(&other, needs) {
            prop_assert_eq!(one_key, other_key);
        }
    }

    #[test]
    fn a_short_key_is_found_where_the_long_way_puts_it(
        bytes in bytes(),
        needs in needs(),
        secret in any::<[u64; 8]>(),
    ) {
        let first = bytes.first_chunk::<PLAIN>().unwrap();
        let mask = KeyMask::of(needs);
        let short = ShortKey::of(first, mask.tcp_flags.then_some(&bytes), 7 << 32, &mask);
        let long = read(&bytes, needs).unwrap();
        prop_assert_eq!(short.is_some(), !long.is_wide());
        if let Some(short) = short {
            prop_assert_eq!(DeepKey::from(short), long);
            prop_assert!(short.is_at(&long));
            prop_assert_eq!(short.hash(&secret), long.hash(&secret));
        }
    }

    #[test]
    fn a_short_key_says_what_the_frame_says(bytes in bytes()) {
        let needs = Needs::all();
        let key = read(&bytes, needs).unwrap();
        prop_assume!(!key.is_wide());
        let said = key.fields(needs);
        let fields = Fields::of(&bytes).unwrap();
        prop_assert_eq!((said.dst, said.src, said.ingress), (fields.dst, fields.src, 7));
        let v4 = |at: usize| IpAddr::V4(Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]));
        prop_assert_eq!(said.addresses, Some((v4(26), v4(30))));
        prop_assert_eq!(said.protocol, Some(IpProtocol(bytes[23])));
        let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        prop_assert_eq!(said.ports, Some((port(34), port(36))));
    }
}
