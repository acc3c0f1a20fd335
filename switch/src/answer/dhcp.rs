//! DHCP answered for a port from its configuration (RFC 2131 section 4.3): one address for one client, always the same,
//! so that there is no state.
//!
//! ```text
//!   DISCOVER             -> OFFER, or with rapid commit ACK (RFC 4039)
//!   REQUEST of ours      -> ACK
//!   REQUEST of another   -> NAK; nothing if the client chose another server
//!   INFORM               -> ACK without address
//!   RELEASE, DECLINE     -> nothing
//! ```

use std::net::Ipv4Addr;

use fabnic_wire::MacAddr;
use fabnic_wire::build::{self, Link, Route, Writer};
use fabnic_wire::dhcp::{self, DhcpHeader, DhcpMessage, DhcpType, OptionWriter, option};

use super::Question;
use super::settings::DhcpSettings;
use crate::guard::datagram;

/// Answers a client's message. `false`: there is no answer.
pub(super) fn answer(question: &Question<'_>, settings: &DhcpSettings, to: &mut Writer<'_>) -> bool {
    let payload = datagram::udp_payload(question.frame, question.fields);
    let Some(message) = payload.and_then(DhcpMessage::parse) else { return false };
    let header = message.header;
    // A relay's client is behind another link, which the port's address does not belong to.
    if header.op != DhcpHeader::REQUEST || header.giaddr != [0; 4] || header.chaddr != question.fields.src {
        return false;
    }
    let server = settings.server.1;
    let ciaddr = Ipv4Addr::from(header.ciaddr);
    let chosen = message.address(option::SERVER);
    if chosen.is_some_and(|chosen| chosen != server) {
        return false;
    }
    let wanted = message.address(option::REQUESTED_ADDRESS).unwrap_or(ciaddr);
    let rapid = message.option(option::RAPID_COMMIT).is_some();
    let (kind, address) = match message.message_type() {
        Some(DhcpType::DISCOVER) if rapid => (DhcpType::ACK, settings.address),
        Some(DhcpType::DISCOVER) => (DhcpType::OFFER, settings.address),
        Some(DhcpType::REQUEST) if wanted == settings.address => (DhcpType::ACK, settings.address),
        Some(DhcpType::REQUEST) => (DhcpType::NAK, Ipv4Addr::UNSPECIFIED),
        Some(DhcpType::INFORM) => (DhcpType::ACK, Ipv4Addr::UNSPECIFIED),
        _ => return false,
    };
    let broadcasts = header.flags.get() & DhcpHeader::BROADCAST != 0;
    // RFC 2131 section 4.1: to the address the client has, else as it wants it; a NAK always to everybody.
    let (dst, dst_mac) = match (kind, ciaddr.is_unspecified()) {
        (DhcpType::NAK, _) => (Ipv4Addr::BROADCAST, MacAddr::BROADCAST),
        (_, false) => (ciaddr, header.chaddr),
        (_, true) if broadcasts => (Ipv4Addr::BROADCAST, MacAddr::BROADCAST),
        (_, true) => (address, header.chaddr),
    };
    let link = Link { dst: dst_mac, src: settings.server.0, tag: None };
    let route = Route { src: server, dst, ttl: 64 };
    let is_rapid = rapid && message.message_type() == Some(DhcpType::DISCOVER);
    build::udp_v4(to, &link, &route, (dhcp::SERVER_PORT, dhcp::CLIENT_PORT), |to| {
        dhcp::reply(to, &message, kind, address, server, |options| {
            if is_rapid {
                options.put(option::RAPID_COMMIT, &[]);
            }
            if kind != DhcpType::NAK {
                parameters(settings, !address.is_unspecified(), options);
            }
        });
    });
    true
}

fn parameters(settings: &DhcpSettings, with_lease: bool, options: &mut OptionWriter<'_, '_>) {
    if with_lease {
        options.number(option::LEASE_TIME, settings.lease);
    }
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(settings.prefix_len.into())).unwrap_or(0);
    options.number(option::MASK, mask);
    options.addresses(option::ROUTERS, settings.gateway.as_slice());
    options.addresses(option::DNS, &settings.dns);
    if let Some(name) = &settings.host_name {
        options.put(option::HOST_NAME, name.as_bytes());
    }
    if let Some(domain) = &settings.domain {
        options.put(option::DOMAIN, domain.as_bytes());
    }
    if let Some(mtu) = settings.mtu {
        options.put(option::MTU, &mtu.to_be_bytes());
    }
    if !settings.routes.is_empty() {
        // Who reads these routes ignores the routers (RFC 3442): the default route must be among them.
        let default = settings.gateway.map(|router| (Ipv4Addr::UNSPECIFIED, 0, router));
        let mut routes = [(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::UNSPECIFIED); dhcp::MAX_ROUTES];
        let mut count = 0;
        for (place, route) in
            routes.iter_mut().zip(default.into_iter().chain(settings.routes.iter().copied()))
        {
            *place = route;
            count += 1;
        }
        options.routes(routes.get(..count).unwrap_or(&[]));
    }
}
