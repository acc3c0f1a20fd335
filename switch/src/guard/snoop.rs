//! DHCP and DHCPv6 snooping (RFC 7513): what servers say to clients becomes bindings.
//!
//! ```text
//!   client's port                                    trusted port
//!   DISCOVER, REQUEST  -- a transaction is noted -->
//!                      <-- OFFER ---------------------- server
//!                      <-- ACK: a binding, for the lease --
//!   RELEASE, DECLINE   -- the binding ends -->
//! ```
//!
//! A server's message makes a binding only if the client it is for asked: same VLAN, transaction and client. The client is
//! known by its MAC address (DHCP) or by the address it sent from (DHCPv6).
//!
//! # Invariants
//! * A port has at most [`MAX_OPEN`] transactions open; one ends with its answer or after [`PATIENCE`] seconds.
//! * A client speaks for itself only: its `chaddr` is the frame's source, it is no relay, and what it gives back is its
//!   own.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fabnic_port::{DropReason, PortId};
use fabnic_wire::dhcp::{DhcpHeader, DhcpMessage, DhcpType, option};
use fabnic_wire::dhcp6::{self, Dhcp6Message, Dhcp6Type, status};
use fabnic_wire::{Fields, MacAddr, Vid};
use foldhash::quality::RandomState;
use parking_lot::Mutex;

use super::bindings::{Binding, BindingError, BindingOrigin, Bindings};
use super::check::Sender;
use super::datagram;
use crate::fdb::Tick;

mod saved;

/// Transactions that a port may have open.
pub(crate) const MAX_OPEN: u32 = 64;
/// Seconds after which a transaction is given up (RFC 7513 section 6.1: 120 for an answer, which no client waits for).
pub(crate) const PATIENCE: Tick = 60;
/// A relay's information about a circuit (RFC 3046); none of a client's.
const RELAY_INFORMATION: u8 = 82;

/// What tells a transaction from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Name {
    V4 { vlan: u16, xid: u32, client: MacAddr },
    V6 { vlan: u16, xid: u32, client: Ipv6Addr },
}

#[derive(Clone, Copy, Debug)]
struct Transaction {
    port: PortId,
    mac: MacAddr,
    /// The port's limit of bindings when it asked.
    limit: u32,
    /// What the client asked for or had.
    asked: Option<Ipv4Addr>,
    until: Tick,
}

#[derive(Debug, Default)]
struct Open {
    transactions: HashMap<Name, Transaction, RandomState>,
    by_port: HashMap<PortId, u32>,
    /// In the order in which they are given up. Those that were answered or repeated since are still in it.
    queue: VecDeque<(Tick, Name)>,
}

impl Open {
    fn end(&mut self, name: &Name) -> Option<Transaction> {
        let ended = self.transactions.remove(name)?;
        if let Some(count) = self.by_port.get_mut(&ended.port) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_port.remove(&ended.port);
            }
        }
        Some(ended)
    }

    /// Forgets what in the queue means nothing any more, when that is the larger part.
    fn tidy(&mut self) {
        if self.queue.len() > 2 * self.transactions.len() + 64 {
            let transactions = &self.transactions;
            self.queue
                .retain(|(until, name)| transactions.get(name).is_some_and(|open| open.until == *until));
        }
    }

    fn give_up(&mut self, now: Tick) {
        while let Some((until, name)) = self.queue.front().copied() {
            if until > now {
                break;
            }
            self.queue.pop_front();
            if self.transactions.get(&name).is_some_and(|open| open.until <= now) {
                self.end(&name);
            }
        }
    }
}

/// The transactions that are open.
#[derive(Debug, Default)]
pub(crate) struct Snooper {
    open: Mutex<Open>,
}

fn ends(now: Tick, lease: u32) -> Option<Tick> {
    (lease != u32::MAX).then(|| now.saturating_add(lease))
}

impl Snooper {
    /// Transactions that are open.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().transactions.len()
    }

    /// Gives up what nobody answered.
    pub(crate) fn expire(&self, now: Tick) {
        self.open.lock().give_up(now);
    }

    /// Looks at a frame that passed the checks. `frame` is all of it if it is DHCP.
    ///
    /// # Errors
    /// Why the frame must not go on.
    pub(crate) fn look(&self, sender: &Sender<'_>, fields: &Fields, frame: &[u8]) -> Result<(), DropReason> {
        let settings = sender.settings;
        if settings.trusted {
            if datagram::is_from_dhcp_server(fields) {
                return self.server(sender, fields, frame);
            }
            if datagram::is_from_dhcp6_server(fields) {
                return self.server6(sender, fields, frame);
            }
            return Ok(());
        }
        if settings.learn_dhcp && datagram::is_to_dhcp_server(fields) {
            return self.client(sender, fields, frame);
        }
        if settings.learn_dhcp6 && datagram::is_to_dhcp6_server(fields) {
            return self.client6(sender, fields, frame);
        }
        Ok(())
    }

    fn note(
        &self,
        sender: &Sender<'_>,
        name: Name,
        mac: MacAddr,
        asked: Option<Ipv4Addr>,
    ) -> Result<(), DropReason> {
        let mut open = self.open.lock();
        open.give_up(sender.now);
        let count = open.by_port.get(&sender.port).copied().unwrap_or(0);
        match open.transactions.get(&name) {
            // Its own again: the client repeats itself, and has the whole time again.
            Some(held) if held.port == sender.port => {}
            // Another port's client has the same address and number: one of the two lies.
            Some(_) => return Err(DropReason::DhcpSpoof),
            None if count >= MAX_OPEN => return Err(DropReason::GuardLimit),
            None => {}
        }
        if sender.dry {
            return Ok(());
        }
        open.end(&name);
        let until = sender.now.saturating_add(PATIENCE);
        let limit = sender.settings.max_bindings;
        open.transactions.insert(name, Transaction { port: sender.port, mac, limit, asked, until });
        open.queue.push_back((until, name));
        *open.by_port.entry(sender.port).or_default() += 1;
        open.tidy();
        Ok(())
    }

    fn client(&self, sender: &Sender<'_>, fields: &Fields, frame: &[u8]) -> Result<(), DropReason> {
        let wrong = DropReason::DhcpSpoof;
        let message = datagram::udp_payload(frame, fields).and_then(DhcpMessage::parse).ok_or(wrong)?;
        let header = message.header;
        let is_relayed =
            header.hops != 0 || header.giaddr != [0; 4] || message.option(RELAY_INFORMATION).is_some();
        if header.op != DhcpHeader::REQUEST || header.chaddr != fields.src || is_relayed {
            return Err(wrong);
        }
        let own = Some(Ipv4Addr::from(header.ciaddr)).filter(|address| !address.is_unspecified());
        let asked = message.address(option::REQUESTED_ADDRESS).or(own);
        match message.message_type() {
            Some(DhcpType::DISCOVER | DhcpType::REQUEST) => {
                let name = Name::V4 { vlan: sender.vlan.get(), xid: header.xid.get(), client: header.chaddr };
                self.note(sender, name, header.chaddr, asked)
            }
            Some(DhcpType::RELEASE | DhcpType::DECLINE) => {
                asked.map_or(Ok(()), |address| give_back(sender, header.chaddr, address.into()))
            }
            Some(DhcpType::INFORM) => Ok(()),
            _ => Err(wrong),
        }
    }

    fn server(&self, sender: &Sender<'_>, fields: &Fields, frame: &[u8]) -> Result<(), DropReason> {
        let message = datagram::udp_payload(frame, fields).and_then(DhcpMessage::parse);
        let Some(message) = message.filter(|message| message.header.op == DhcpHeader::REPLY) else {
            return Ok(());
        };
        let kind = message.message_type();
        if sender.dry || !matches!(kind, Some(DhcpType::ACK | DhcpType::NAK)) {
            return Ok(());
        }
        let header = message.header;
        let name = Name::V4 { vlan: sender.vlan.get(), xid: header.xid.get(), client: header.chaddr };
        let mut open = self.open.lock();
        open.give_up(sender.now);
        let Some(transaction) = open.end(&name) else { return Ok(()) };
        drop(open);
        let given = Ipv4Addr::from(header.yiaddr);
        if kind == Some(DhcpType::NAK) {
            if let Some(asked) = transaction.asked {
                sender.bindings.give_back(sender.vlan, asked.into(), transaction.port, transaction.mac);
            }
            return Ok(());
        }
        match message.lease_time() {
            Some(lease) if !given.is_unspecified() => bind(
                sender.bindings,
                sender.vlan,
                given.into(),
                &transaction,
                BindingOrigin::Dhcp,
                ends(sender.now, lease),
            ),
            // The answer to an INFORM: no address was given.
            _ => Ok(()),
        }
    }

    fn client6(&self, sender: &Sender<'_>, fields: &Fields, frame: &[u8]) -> Result<(), DropReason> {
        let wrong = DropReason::DhcpSpoof;
        let message = datagram::udp_payload(frame, fields).and_then(Dhcp6Message::parse).ok_or(wrong)?;
        match message.kind {
            Dhcp6Type::SOLICIT | Dhcp6Type::REQUEST | Dhcp6Type::RENEW | Dhcp6Type::REBIND => {
                let client = Ipv6Addr::from_octets(fields.flow.src);
                let name = Name::V6 { vlan: sender.vlan.get(), xid: message.transaction, client };
                self.note(sender, name, fields.src, None)
            }
            Dhcp6Type::RELEASE | Dhcp6Type::DECLINE => {
                let addresses = || message.associations().flat_map(|association| association.addresses());
                // All or nothing: first whether all are its own.
                let is_others = |address: Ipv6Addr| {
                    let held = sender.bindings.lookup(sender.vlan, address.into());
                    held.is_some_and(|held| (held.port, held.mac) != (sender.port, fields.src))
                };
                if addresses().take(dhcp6::MAX_OPTIONS).any(|associated| is_others(associated.address)) {
                    return Err(wrong);
                }
                addresses()
                    .take(dhcp6::MAX_OPTIONS)
                    .try_for_each(|associated| give_back(sender, fields.src, associated.address.into()))
            }
            Dhcp6Type::CONFIRM | Dhcp6Type::INFORMATION_REQUEST => Ok(()),
            _ => Err(wrong),
        }
    }

    fn server6(&self, sender: &Sender<'_>, fields: &Fields, frame: &[u8]) -> Result<(), DropReason> {
        let message = datagram::udp_payload(frame, fields).and_then(Dhcp6Message::parse);
        let Some(message) = message.filter(|message| message.kind == Dhcp6Type::REPLY && !sender.dry) else {
            return Ok(());
        };
        let client = Ipv6Addr::from_octets(fields.flow.dst);
        let name = Name::V6 { vlan: sender.vlan.get(), xid: message.transaction, client };
        let mut open = self.open.lock();
        open.give_up(sender.now);
        let Some(transaction) = open.end(&name) else { return Ok(()) };
        drop(open);
        let good = message.associations().filter(|one| one.options.clone().status() == status::SUCCESS);
        for associated in good.flat_map(|one| one.addresses()).take(dhcp6::MAX_OPTIONS) {
            let address = IpAddr::V6(associated.address);
            if associated.status != status::SUCCESS {
                continue;
            }
            if associated.valid == 0 {
                sender.bindings.give_back(sender.vlan, address, transaction.port, transaction.mac);
                continue;
            }
            let ends = ends(sender.now, associated.valid);
            bind(sender.bindings, sender.vlan, address, &transaction, BindingOrigin::Dhcp6, ends)?;
        }
        Ok(())
    }
}

fn bind(
    bindings: &Bindings,
    vlan: Vid,
    address: IpAddr,
    transaction: &Transaction,
    origin: BindingOrigin,
    expires: Option<Tick>,
) -> Result<(), DropReason> {
    let binding = Binding { vlan, address, port: transaction.port, mac: transaction.mac, origin, expires };
    match bindings.learn(binding, transaction.limit) {
        Ok(()) => Ok(()),
        // The server gives away what is configured for another: the client must not believe that it has it.
        Err(BindingError::Taken) => Err(DropReason::DhcpSpoof),
        Err(BindingError::PortFull | BindingError::TableFull) => Err(DropReason::GuardLimit),
    }
}

/// A client gives an address back: its own, or one that nobody is known to have.
fn give_back(sender: &Sender<'_>, mac: MacAddr, address: IpAddr) -> Result<(), DropReason> {
    match sender.bindings.lookup(sender.vlan, address) {
        Some(held) if (held.port, held.mac) != (sender.port, mac) => Err(DropReason::DhcpSpoof),
        Some(_) if !sender.dry => {
            sender.bindings.give_back(sender.vlan, address, sender.port, mac);
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
