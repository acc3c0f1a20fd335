//! DHCPv6 answered for a port from its configuration (RFC 8415 section 18.3): one address for one client, always the
//! same, so that there is no state.
//!
//! ```text
//!   SOLICIT                       -> ADVERTISE, or with rapid commit REPLY
//!   REQUEST, RENEW, REBIND        -> REPLY; other addresses that the client names get the lifetime 0
//!   CONFIRM                       -> REPLY: on the link or not
//!   RELEASE, DECLINE              -> REPLY
//!   INFORMATION-REQUEST           -> REPLY with configuration only
//! ```
//!
//! The first association for addresses gets the address; further ones, and those for temporary addresses, get none.

use std::net::Ipv6Addr;

use fabnic_wire::build::{self, Link, Route, Writer};
use fabnic_wire::dhcp6::{self, Association, Dhcp6Message, Dhcp6Type, option, status};
use fabnic_wire::nd;

use super::Question;
use super::settings::Dhcp6Settings;
use crate::guard::datagram;

/// Associations of one message that are answered.
const MAX_ASSOCIATIONS: usize = 4;
/// Addresses of one association that are answered.
const MAX_ADDRESSES: usize = 8;

/// Answers a client's message. `false`: there is no answer.
pub(super) fn answer(question: &Question<'_>, settings: &Dhcp6Settings, to: &mut Writer<'_>) -> bool {
    let payload = datagram::udp_payload(question.frame, question.fields);
    let Some(message) = payload.and_then(Dhcp6Message::parse) else { return false };
    let client = message.option(option::CLIENT_ID);
    let own = dhcp6::duid(settings.server_mac);
    let server = message.option(option::SERVER_ID);
    let is_ours = server.is_some_and(|id| id == own);
    // RFC 8415 section 16: which messages name a server, and which must not.
    let is_good = match message.kind {
        Dhcp6Type::SOLICIT | Dhcp6Type::CONFIRM | Dhcp6Type::REBIND => client.is_some() && server.is_none(),
        Dhcp6Type::REQUEST | Dhcp6Type::RENEW | Dhcp6Type::RELEASE | Dhcp6Type::DECLINE => {
            client.is_some() && is_ours
        }
        Dhcp6Type::INFORMATION_REQUEST => server.is_none() || is_ours,
        _ => false,
    };
    let addresses = || message.associations().flat_map(|one| one.addresses()).take(dhcp6::MAX_OPTIONS);
    if !is_good || (message.kind == Dhcp6Type::CONFIRM && addresses().next().is_none()) {
        return false;
    }
    let is_rapid = message.kind == Dhcp6Type::SOLICIT && message.option(option::RAPID_COMMIT).is_some();
    let kind = match message.kind {
        Dhcp6Type::SOLICIT if !is_rapid => Dhcp6Type::ADVERTISE,
        _ => Dhcp6Type::REPLY,
    };
    let link = Link { dst: question.fields.src, src: settings.server_mac, tag: None };
    let asker = Ipv6Addr::from_octets(question.fields.flow.src);
    let route = Route { src: nd::link_local(settings.server_mac), dst: asker, ttl: 64 };
    build::udp_v6(to, &link, &route, (dhcp6::SERVER_PORT, dhcp6::CLIENT_PORT), |to| {
        dhcp6::begin(to, kind, message.transaction);
        if let Some(client) = client {
            dhcp6::put(to, option::CLIENT_ID, |to| to.put(client));
        }
        dhcp6::put(to, option::SERVER_ID, |to| to.put(&own));
        if is_rapid {
            dhcp6::put(to, option::RAPID_COMMIT, |_| ());
        }
        match message.kind {
            Dhcp6Type::SOLICIT | Dhcp6Type::REQUEST | Dhcp6Type::RENEW | Dhcp6Type::REBIND => {
                if kind == Dhcp6Type::ADVERTISE {
                    dhcp6::put(to, option::PREFERENCE, |to| to.put8(255));
                }
                associations(&message, settings, to);
            }
            Dhcp6Type::CONFIRM => {
                let on_link = addresses().all(|one| Some(one.address) == settings.address);
                dhcp6::put_status(to, if on_link { status::SUCCESS } else { status::NOT_ON_LINK });
            }
            Dhcp6Type::RELEASE | Dhcp6Type::DECLINE => dhcp6::put_status(to, status::SUCCESS),
            _ => {}
        }
        if !settings.dns.is_empty() {
            dhcp6::put(to, option::DNS, |to| {
                settings.dns.iter().take(8).for_each(|dns| to.put(&dns.octets()))
            });
        }
    });
    true
}

fn associations(message: &Dhcp6Message<'_>, settings: &Dhcp6Settings, to: &mut Writer<'_>) {
    let mut free = settings.address;
    for association in message.associations().take(MAX_ASSOCIATIONS) {
        if association.code != option::IA_NA {
            dhcp6::put(to, association.code, |to| {
                to.put32(association.id);
                dhcp6::put_status(to, status::NO_ADDRESSES);
            });
            continue;
        }
        let Some(address) = free.take() else {
            dhcp6::put_ia_na(to, association.id, 0, |to| dhcp6::put_status(to, status::NO_ADDRESSES));
            continue;
        };
        dhcp6::put_ia_na(to, association.id, settings.preferred, |to| {
            dhcp6::put_address(to, address, settings.preferred.min(settings.valid), settings.valid);
            if message.kind != Dhcp6Type::SOLICIT {
                withdraw(&association, address, to);
            }
        });
    }
}

/// Addresses that the client has and must not use.
fn withdraw(association: &Association<'_>, given: Ipv6Addr, to: &mut Writer<'_>) {
    let others = association.addresses().map(|one| one.address).filter(|address| *address != given);
    others.take(MAX_ADDRESSES).for_each(|address| dhcp6::put_address(to, address, 0, 0));
}
