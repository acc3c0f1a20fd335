//! ICMP and ICMPv6 echo for addresses that the switch has itself (RFC 792, RFC 4443 section 4.2).
//!
//! The answer carries the same identifier, number and data; its checksum is computed anew, so the caller must not ask for
//! an answer to a message whose checksum is wrong.

use std::net::IpAddr;

use fabnic_wire::build::{self, Link, Route, Writer};
use fabnic_wire::transport::IcmpHeader;

use super::Question;
use crate::guard::check::{destination, source};
use crate::guard::datagram;

/// The address that an echo request is for.
pub(super) fn target(question: &Question<'_>) -> Option<IpAddr> {
    let icmp = datagram::icmp_message(question.frame, question.fields)?;
    let address = destination(question.fields)?;
    let wanted = if address.is_ipv4() { IcmpHeader::ECHO_REQUEST } else { IcmpHeader::ECHO_REQUEST_V6 };
    let (header, _) = IcmpHeader::split(icmp)?;
    ((header.kind, header.code) == (wanted, 0)).then_some(address)
}

/// Answers an echo request. `false`: there is no answer to it.
pub(super) fn answer(question: &Question<'_>, to: &mut Writer<'_>) -> bool {
    let fields = question.fields;
    let data = datagram::icmp_message(question.frame, fields).and_then(|icmp| icmp.get(4..));
    let (Some(data), Some(from), Some(own)) = (data, source(fields), destination(fields)) else {
        return false;
    };
    if from.is_unspecified() || from.is_multicast() {
        return false;
    }
    let link = Link { dst: fields.src, src: fields.dst, tag: None };
    match (own, from) {
        (IpAddr::V4(own), IpAddr::V4(from)) => {
            let route = Route { src: own, dst: from, ttl: 64 };
            build::icmp(to, &link, &route, (IcmpHeader::ECHO_REPLY, 0), |to| to.put(data));
        }
        (IpAddr::V6(own), IpAddr::V6(from)) => {
            let route = Route { src: own, dst: from, ttl: 64 };
            build::icmp_v6(to, &link, &route, (IcmpHeader::ECHO_REPLY_V6, 0), |to| to.put(data));
        }
        _ => return false,
    }
    true
}
