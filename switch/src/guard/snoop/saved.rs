//! Open transactions, taken out and put in again.

use fabnic_port::PortId;
use fabnic_saved as records;
use fabnic_wire::MacAddr;

use super::{MAX_OPEN, Name, PATIENCE, Snooper, Transaction};
use crate::fdb::Tick;
use crate::saved::Lost;

impl Snooper {
    /// Those of one port, or of all.
    pub(crate) fn save(&self, of: Option<PortId>, now: Tick) -> Vec<records::Transaction> {
        let open = self.open.lock();
        let wanted = open.transactions.iter().filter(|(_, it)| of.is_none_or(|port| port == it.port));
        let record = |(name, it): (&Name, &Transaction)| {
            let (vlan, name) = match *name {
                Name::V4 { vlan, xid, client } => {
                    (vlan, records::TransactionName::Dhcp(xid, client.octets()))
                }
                Name::V6 { vlan, xid, client } => (vlan, records::TransactionName::Dhcp6(xid, client)),
            };
            let Transaction { port, mac, limit, asked, until } = *it;
            let left_s = until.saturating_sub(now);
            records::Transaction { vlan, name, port: port.0, mac: mac.octets(), asked, limit, left_s }
        };
        wanted.map(record).filter(|it| it.left_s > 0).collect()
    }

    /// Opens one again, until then.
    pub(crate) fn restore(
        &self,
        saved: &records::Transaction,
        port: PortId,
        until: Tick,
    ) -> Result<(), Lost> {
        if saved.left_s > PATIENCE {
            return Err(Lost::Malformed);
        }
        let vlan = saved.vlan;
        let name = match saved.name {
            records::TransactionName::Dhcp(xid, client) => {
                Name::V4 { vlan, xid, client: MacAddr::new(client) }
            }
            records::TransactionName::Dhcp6(xid, client) => Name::V6 { vlan, xid, client },
        };
        let mut open = self.open.lock();
        if open.transactions.contains_key(&name) {
            return Err(Lost::Taken);
        }
        let count = open.by_port.entry(port).or_default();
        if *count >= MAX_OPEN {
            return Err(Lost::Limit);
        }
        *count += 1;
        let (mac, limit) = (MacAddr::new(saved.mac), saved.limit);
        open.transactions.insert(name, Transaction { port, mac, limit, asked: saved.asked, until });
        // The queue is in the order of ends.
        let place = open.queue.partition_point(|(other, _)| *other <= until);
        open.queue.insert(place, (until, name));
        Ok(())
    }
}
