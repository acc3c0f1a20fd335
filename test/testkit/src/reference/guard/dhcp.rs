//! Reading DHCP and DHCPv6 messages for the reference guards, byte by byte.

use std::net::Ipv6Addr;

use super::{be16, v6};

pub(super) fn is_dhcp(message: &[u8]) -> bool {
    message.len() >= 240 && message[1..3] == [1, 6] && message[236..240] == [0x63, 0x82, 0x53, 0x63]
}

fn dhcp_area(area: &[u8], into: &mut Vec<(u8, Vec<u8>)>) {
    let mut at = 0;
    while at < area.len() && area[at] != 255 && into.len() < 96 {
        if area[at] == 0 {
            at += 1;
            continue;
        }
        let Some(len) = area.get(at + 1).map(|len| usize::from(*len)) else { return };
        let Some(value) = area.get(at + 2..at + 2 + len) else { return };
        into.push((area[at], value.to_vec()));
        at += 2 + len;
    }
}

pub(super) fn dhcp_options(message: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut options = Vec::new();
    dhcp_area(&message[240..], &mut options);
    let overload = options.iter().find(|(code, _)| *code == 52).and_then(|(_, value)| value.first().copied());
    if overload.unwrap_or(0) & 1 != 0 {
        dhcp_area(&message[108..236], &mut options);
    }
    if overload.unwrap_or(0) & 2 != 0 {
        dhcp_area(&message[44..108], &mut options);
    }
    options
}

pub(super) struct Associated {
    pub(super) address: Ipv6Addr,
    pub(super) valid: u32,
    pub(super) is_good: bool,
}

fn dhcp6_options(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut options = Vec::new();
    while let (Some(code), Some(len)) = (be16(bytes, 0), be16(bytes, 2)) {
        let end = 4 + usize::from(len);
        let Some(value) = bytes.get(4..end) else { break };
        if options.len() == 64 {
            break;
        }
        options.push((code, value));
        bytes = &bytes[end..];
    }
    options
}

fn is_success(options: &[(u16, &[u8])]) -> bool {
    let status = options.iter().find(|(code, _)| *code == 13);
    status.is_none_or(|(_, value)| be16(value, 0).unwrap_or(0) == 0)
}

/// The addresses in the associations of a message, at most 64 of them.
pub(super) fn associated(message: &[u8]) -> Vec<Associated> {
    let mut all = Vec::new();
    for (code, value) in dhcp6_options(&message[4..]) {
        let inner = match code {
            3 => value.get(12..),
            4 => value.get(4..),
            _ => None,
        };
        let Some(inner) = inner.map(dhcp6_options) else { continue };
        let is_good = is_success(&inner);
        for (_, value) in inner.iter().filter(|(code, value)| *code == 5 && value.len() >= 24) {
            let (Some(address), Some(valid)) = (v6(value, 0), value[20..24].try_into().ok()) else {
                continue;
            };
            let valid = u32::from_be_bytes(valid);
            let is_good = is_good && is_success(&dhcp6_options(&value[24..]));
            all.push(Associated { address, valid, is_good });
        }
    }
    all.truncate(64);
    all
}
