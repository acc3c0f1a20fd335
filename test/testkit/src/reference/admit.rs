//! What rules and connections say of a frame in the reference switch: rules of both ways, and whether the packet is let
//! through, makes a connection and is translated (the rules of [`super::rules`] and [`super::connections`]).

use super::connections::{Nat, State, Tracking};
use super::meters::dscp_of;
use super::rules::{Aside, Asked, Charged, Seen, Verdict};
use super::{PortConfig, Switch};

/// A charge that is due when all is decided: to what, bytes, DSCP.
pub(super) type Due = (Charged, usize, Option<u8>);

impl Switch {
    /// Asks the rules of a tenant and a way; what they charge is due later.
    pub(super) fn ask_later(
        &mut self,
        asked: &mut Asked,
        whose: (u32, bool),
        frame: &[u8],
        charges: &mut Vec<Due>,
    ) -> Verdict {
        let connections = &self.connections;
        let mut aside = Aside {
            look: &|zone| connections.look(zone, frame).seen(zone),
            charge: &mut |charged, now| {
                charges.push((charged, now.len(), dscp_of(now)));
                true
            },
        };
        asked.ask(&self.config.rules, whose, &mut self.hits, &mut aside)
    }

    /// Charges what is due, up to the first meter that refuses; gives why the frame ends, if so.
    pub(super) fn settle(&mut self, charges: &mut Vec<Due>) -> Option<&'static str> {
        let meters = &mut self.meters;
        let goes_on =
            charges.drain(..).all(|(charged, bytes, dscp)| Switch::charge(meters, charged, bytes, dscp));
        if goes_on { None } else { Some("metered") }
    }

    /// Asks the rules of the way out about a copy of a flooded frame.
    pub(super) fn ask_now(
        &mut self,
        asked: &mut Asked,
        (from, mut target, tenant): (usize, usize, Option<u32>),
        vlan: u16,
    ) -> Result<usize, &'static str> {
        for tenant in [tenant, Some(0)].into_iter().flatten() {
            let meters = &mut self.meters;
            let mut aside = Aside {
                look: &|_| Seen::default(),
                charge: &mut |charged, now| Switch::charge(meters, charged, now.len(), dscp_of(now)),
            };
            match asked.ask(&self.config.rules, (tenant, true), &mut self.hits, &mut aside) {
                Verdict::Pass => {}
                Verdict::Drop(why) => return Err(why),
                Verdict::Redirect(to) => {
                    target = self.redirected(tenant, from, to, vlan)?;
                    asked.egress = Some(target);
                }
            }
        }
        Ok(target)
    }

    /// What is decided on a frame that is to go to one port: where it goes then.
    pub(super) fn decide_out(
        &mut self,
        (port, ingress, frame): (usize, &PortConfig, &[u8]),
        asked: &mut Asked,
        mut target: usize,
        charges: &mut Vec<Due>,
        now: u64,
    ) -> Result<usize, &'static str> {
        let (vlan, of_sender) = (asked.vlan, asked.seen);
        let Some(tenant) = self.config.ports.get(target).map(|port| port.tenant) else {
            return Err("no_member");
        };
        for tenant in [tenant, Some(0)].into_iter().flatten() {
            (asked.egress, asked.seen) = (Some(target), self.seen_at(target, asked.zone, of_sender, frame));
            match self.ask_later(asked, (tenant, true), frame, charges) {
                Verdict::Pass => {}
                Verdict::Drop(why) => return Err(why),
                Verdict::Redirect(to) => {
                    target = self.redirected(tenant, port, to, vlan)?;
                }
            }
        }
        let receiver = self.config.ports.get(target).and_then(|port| port.tracking.clone());
        self.admit((port, ingress, frame), asked, receiver.map(|tracking| (target, tracking)), now)?;
        Ok(target)
    }

    /// What rules of the way out see: the packet in the zone of its receiver, as its sender's has translated it; or, if the
    /// receiver has no other zone or it is no matter of that, as its sender's sees it.
    fn seen_at(&self, target: usize, zone: Option<u16>, of_sender: Seen, frame: &[u8]) -> Seen {
        let tracking = self.config.ports.get(target).and_then(|port| port.tracking.as_ref());
        let Some(tracking) = tracking.filter(|it| zone != Some(it.zone)) else { return of_sender };
        let there = self.translated(zone, frame);
        let seen = self.connections.look(tracking.zone, &there).seen(tracking.zone);
        if seen.bits == 0 { of_sender } else { seen }
    }

    /// A frame as the connection that it is of in a zone translates it.
    fn translated(&self, zone: Option<u16>, frame: &[u8]) -> Vec<u8> {
        let mut there = Asked::new(frame, 0, 0);
        if let Some((src, dst)) = zone.and_then(|zone| self.connections.leaves(zone, frame)) {
            there.readdress(src, dst);
        }
        there.frame
    }

    /// The connections of a packet that has come this far: they are made, and count it, or it is refused. The frame is
    /// translated. `receiver`: where it is to go, if that is one port and tracks.
    pub(super) fn admit(
        &mut self,
        (port, ingress, frame): (usize, &PortConfig, &[u8]),
        asked: &mut Asked,
        receiver: Option<(usize, Tracking)>,
        now: u64,
    ) -> Result<(), &'static str> {
        let own = ingress.tracking.as_ref();
        let mut in_between = frame.to_vec();
        if let Some(zone) = asked.zone {
            let found = self.connections.look(zone, frame);
            let same = receiver.as_ref().filter(|(_, tracking)| tracking.zone == zone);
            if let Some((_, tracking)) = same
                && !tracking.takes(found.state, frame)
            {
                return Err("ct_unsolicited");
            }
            let said = asked.commit;
            if let Some(mark) = said.and_then(|said| said.mark).filter(|_| found.is_known()) {
                self.connections.mark(&found, mark);
            }
            if said.is_some() || !asked.other_zone {
                let of_port = || {
                    let opened = own.filter(|_| !asked.other_zone).map(|own| own.opened(&found));
                    let opened_to = same.map(|(_, receiver)| receiver.opened_to(&found));
                    Nat {
                        source: opened.unwrap_or_default().source,
                        destination: opened_to.unwrap_or_default().destination,
                    }
                };
                let nat = said.and_then(|said| said.nat).unwrap_or_else(of_port);
                let mark = said.and_then(|said| said.mark).unwrap_or(0);
                // It counts on its port, whatever zone it is in.
                let anywhere = Tracking {
                    zone,
                    limit: usize::MAX,
                    tenant: None,
                    answers_only: false,
                    drop_invalid: false,
                    nat: None,
                };
                let counted = own.unwrap_or(&anywhere);
                self.connections.make(zone, (port, counted), &found, (nat, mark), now)?;
            }
            in_between = self.translated(Some(zone), frame);
            if let Some((src, dst)) = self.connections.leaves(zone, frame) {
                asked.readdress(src, dst);
            }
        }
        let receiver = receiver.filter(|(_, tracking)| Some(tracking.zone) != asked.zone);
        if let Some((owner, tracking)) = &receiver {
            let found = self.connections.look(tracking.zone, &in_between);
            if found.state == State::Invalid && tracking.drop_invalid {
                return Err("ct_invalid");
            }
            if !tracking.takes(found.state, &in_between) {
                return Err("ct_unsolicited");
            }
            let nat = tracking.opened_to(&found);
            self.connections.make(tracking.zone, (*owner, tracking), &found, (nat, 0), now)?;
            if let Some((src, dst)) = self.connections.leaves(tracking.zone, &in_between) {
                asked.readdress(src, dst);
            }
        }
        if let Some(zone) = asked.zone {
            self.connections.count(zone, frame, now);
        }
        if let Some((_, tracking)) = &receiver {
            self.connections.count(tracking.zone, &in_between, now);
        }
        Ok(())
    }
}
