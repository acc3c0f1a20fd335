//! Router advertisements for a port from its configuration (RFC 4861 section 6.2).

use std::net::Ipv6Addr;

use fabnic_wire::MacAddr;
use fabnic_wire::build::{self, Link, Route, Writer};
use fabnic_wire::nd::{self, NdMessage, NdOption, RouterAdvertisement};

use super::Question;
use super::settings::RouterSettings;
use crate::guard::datagram;

/// Whether the question is a good router solicitation.
pub(super) fn is_solicited(question: &Question<'_>) -> bool {
    let message = datagram::icmp_message(question.frame, question.fields).and_then(NdMessage::parse);
    let Some((NdMessage::RouterSolicitation, options)) = message else { return false };
    let is_unspecified = Ipv6Addr::from_octets(question.fields.flow.src).is_unspecified();
    question.fields.ttl == 255
        && options.clone().link_is(question.fields.src)
        && !(is_unspecified && options.has_source_link())
}

/// Writes an advertisement to one host, or to all of the link.
pub(super) fn advertise(settings: &RouterSettings, (dst_mac, dst): (MacAddr, Ipv6Addr), to: &mut Writer<'_>) {
    let link = Link { dst: dst_mac, src: settings.mac, tag: None };
    let route = Route { src: nd::link_local(settings.mac), dst, ttl: 255 };
    let advertisement = RouterAdvertisement {
        hop_limit: settings.hop_limit,
        managed: settings.managed,
        other: settings.other,
        lifetime: settings.lifetime,
        reachable_ms: 0,
        retransmit_ms: 0,
    };
    build::icmp_v6(to, &link, &route, (nd::kind::ROUTER_ADVERTISEMENT, 0), |to| {
        nd::put_router_advertisement(to, &advertisement);
        nd::put_option(to, &NdOption::SourceLink(settings.mac));
        if let Some(mtu) = settings.mtu {
            nd::put_option(to, &NdOption::Mtu(mtu));
        }
        for prefix in settings.prefixes.iter().take(8) {
            nd::put_option(to, &NdOption::Prefix(*prefix));
        }
        // RFC 8106 section 5.1: three times the interval, at least as long as the router itself.
        let lifetime = u32::from(settings.lifetime).max(u32::from(settings.interval).saturating_mul(3));
        nd::put_rdnss(to, lifetime, &settings.dns);
    });
}

/// An advertisement to all of the link.
pub(crate) fn unsolicited(settings: &RouterSettings, out: &mut [u8]) -> Option<usize> {
    let mut to = Writer::new(out);
    advertise(settings, (nd::group_mac(nd::ALL_NODES), nd::ALL_NODES), &mut to);
    to.finish()
}
