//! Rules, in four places ([`crate::rules`]): infrastructure and tenant on the way in, tenant and infrastructure on the way
//! out.
//!
//! ```text
//!   ... guard --> infra_in --> tenant_in --> learn, answer, forward --> tenant_out --> infra_out
//!                 everybody's   of the port                             of the port    everybody's
//!                               it came from                            it goes to
//! ```
//!
//! The order is fixed: what infrastructure drops on the way in no tenant sees, and whatever a tenant does infrastructure has
//! the last word. A domain's rules begin in group 0 with the lowest priority number; the first that matches says what is
//! done. A frame that no rule matches goes on.
//!
//! The rules on the way out are part of the decision of a frame that goes to one port. A flooded frame is asked for each
//! copy ([`FloodedCopy`]), because they differ from port to port.

use std::sync::Arc;

use fabnic_port::{DropReason, PortId};
use fabnic_wire::{Fields, Vid};

use super::{Step, Walk};
use crate::cache::Target;
use crate::meter::{Charge, Color, Marking};
use crate::mirror::Mirror;
use crate::plan::Op;
use crate::rules::{Connection, Direction, Do, Domain, Input, Key, Rewrite, RuleSet};
use crate::topology::{Member, Topology};

/// The most rules that decide on one frame in one domain and direction. A frame that would need more is dropped, because what
/// the rules behind these would have said is not known.
const MOST_MATCHES: usize = 256;

pub(super) fn infra_in(walk: &mut Walk<'_>) -> Step {
    ask(walk, Domain::Infrastructure, Direction::In)
}

pub(super) fn tenant_in(walk: &mut Walk<'_>) -> Step {
    match walk.ingress.settings.tenant {
        Some(tenant) => ask(walk, Domain::Tenant(tenant), Direction::In),
        None => Step::Next,
    }
}

pub(super) fn tenant_out(walk: &mut Walk<'_>) -> Step {
    match egress(walk).and_then(|member| member.settings.tenant) {
        Some(tenant) => ask(walk, Domain::Tenant(tenant), Direction::Out),
        None => Step::Next,
    }
}

pub(super) fn infra_out(walk: &mut Walk<'_>) -> Step {
    match egress(walk) {
        Some(_) => ask(walk, Domain::Infrastructure, Direction::Out),
        None => Step::Next,
    }
}

/// The port that the frame is to leave by, where it is one.
fn egress<'a>(walk: &Walk<'a>) -> Option<&'a Member> {
    match walk.target {
        Some(Target::Port(index)) => walk.topology.member(index),
        _ => None,
    }
}

fn mirror<'a>(topology: &'a Topology, name: &str) -> Option<&'a Arc<Mirror>> {
    topology.mirrors.all.iter().find(|mirror| mirror.settings.name == name)
}

fn refused(domain: Domain) -> DropReason {
    match domain {
        Domain::Infrastructure => DropReason::RuleInfrastructure,
        Domain::Tenant(_) => DropReason::RuleTenant,
    }
}

/// Asks the rules of a domain.
fn ask(walk: &mut Walk<'_>, domain: Domain, direction: Direction) -> Step {
    let before = walk.target;
    let step = decide(walk, domain, direction);
    let is_next = matches!(step, Step::Next);
    if direction == Direction::Out && (!is_next || walk.target != before) {
        // Which port these rules were asked about is not told by the decision.
        walk.push(Op::Unjudged);
    }
    step
}

fn decide(walk: &mut Walk<'_>, domain: Domain, direction: Direction) -> Step {
    let tables = walk.tables;
    let rules = &tables.rules;
    // A transaction in between makes the decision stale at once: the epoch that it is remembered under was read before.
    let side = rules.read();
    if !side.has(domain, direction) {
        return Step::Next;
    }
    if (rules.reads_arp() && walk.fields.arp.is_some())
        || (rules.reads_nd() && walk.fields.neighbour.is_some())
    {
        walk.do_not_remember();
    }
    let (mut group, mut after) = (0, None);
    for _ in 0..MOST_MATCHES {
        let input = Input {
            fields: &walk.current,
            ingress: walk.ingress.port.id,
            egress: egress(walk).map(|member| member.port.id),
            vlan: walk.vlan,
            mark: walk.mark,
            connection: walk.connection(direction),
        };
        let Some(rule) = side.find(domain, direction, group, &Key::of(&input), after) else {
            return Step::Next;
        };
        let identity = &rule.identity;
        walk.note(|| format!("rule {} of {domain} matches", identity.name));
        walk.push(Op::Count(Arc::clone(identity)));
        after = Some(rule.rank());
        let mut goes_on = false;
        for action in rule.actions.iter() {
            match action {
                Do::Drop => return Step::drop(refused(domain)),
                Do::Pass => return Step::Next,
                Do::Redirect(port) => return redirect(walk, domain, direction, *port),
                Do::Goto(to) => (group, after, goes_on) = (*to, None, true),
                Do::Continue => goes_on = true,
                Do::Mark { value, mask } => walk.mark = walk.mark & !mask | value,
                Do::Mirror(name) => {
                    if let Some(mirror) = mirror(walk.topology, name) {
                        walk.push(Op::Mirror(Arc::clone(mirror)));
                    }
                }
                Do::Sample(sampler) => {
                    if let Some(mirror) = mirror(walk.topology, &sampler.mirror) {
                        walk.push(Op::Sample(Arc::clone(sampler), Arc::clone(mirror)));
                    }
                }
                Do::Meter(name) => {
                    if let Some(meter) = walk.topology.meters.named(name) {
                        walk.push(Op::Chain(Arc::clone(meter)));
                    }
                }
                Do::Police(meter) => walk.push(Op::Meter(Arc::clone(meter), DropReason::Metered)),
                Do::Ct(ct) => walk.track_as(ct),
                Do::Rewrite(rewrite) => {
                    if !set_fields(walk, rewrite) {
                        return Step::drop(DropReason::TtlExceeded);
                    }
                }
            }
        }
        if !goes_on {
            return Step::Next;
        }
    }
    Step::drop(refused(domain))
}

/// `false` if the frame's TTL is used up.
fn set_fields(walk: &mut Walk<'_>, rewrite: &Arc<Rewrite>) -> bool {
    if !rewrite.apply_to(&mut walk.current) {
        return false;
    }
    (walk.dst, walk.src) = (walk.current.dst, walk.current.src);
    if let Some(vlan) = rewrite.vlan() {
        walk.vlan = vlan;
    }
    walk.push(Op::Rewrite(Arc::clone(rewrite)));
    true
}

/// Sends the frame to a port, whatever is behind its address.
fn redirect(walk: &mut Walk<'_>, domain: Domain, direction: Direction, port: PortId) -> Step {
    let index = walk.topology.index_of(port);
    let target = index.zip(redirected(walk.topology, domain, port, walk.vlan));
    let Some((index, member)) = target else { return Step::drop(DropReason::RuleTarget) };
    if index == walk.ingress_index {
        return Step::drop(DropReason::SamePort);
    }
    walk.note(|| format!("redirected to {}", member.port.name));
    match direction {
        // What infrastructure said before stands.
        Direction::In => walk.redirect = walk.redirect.or(Some(index)),
        Direction::Out => {
            walk.target = Some(Target::Port(index));
            return super::track::run_out(walk);
        }
    }
    Step::Next
}

/// The port that a rule of this domain sends a frame to, if it may. A tenant sends only to its own ports, and only what is in
/// their VLANs.
fn redirected(topology: &Topology, domain: Domain, port: PortId, vlan: Vid) -> Option<&Member> {
    let member = topology.member(topology.index_of(port)?)?;
    let allowed = match domain {
        Domain::Infrastructure => true,
        Domain::Tenant(tenant) => {
            member.settings.tenant == Some(tenant) && member.settings.vlan.is_member(vlan)
        }
    };
    allowed.then_some(member)
}

/// What rules on the way out say of one copy of a flooded frame.
#[derive(Debug, Default)]
pub(crate) struct FloodedCopy {
    /// It is dropped.
    pub(crate) refused: Option<DropReason>,
    /// It goes to another port.
    pub(crate) redirect: Option<u32>,
    /// Fields to be set.
    pub(crate) rewrites: Vec<Arc<Rewrite>>,
    /// Copies to be made.
    pub(crate) mirrors: Vec<Arc<Mirror>>,
}

/// The color that the DSCP of a frame stands for.
fn color(fields: &Fields) -> Color {
    Color::of_tos(fields.flow.network().map(|_| fields.flow.tos))
}

/// A flooded frame that is about to be copied to a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied<'a> {
    pub(crate) fields: &'a Fields,
    pub(crate) ingress: PortId,
    pub(crate) vlan: Vid,
    pub(crate) mark: u32,
    /// What it is in the zone of the port.
    pub(crate) connection: Connection,
    pub(crate) len: u32,
    /// What meters charge for it.
    pub(crate) charge: Charge,
    /// Second since the start.
    pub(crate) now: u32,
    /// Nanoseconds since some moment before the start.
    pub(crate) now_ns: u64,
}

impl FloodedCopy {
    /// Asks the rules about the copy of a frame that goes to this port.
    pub(crate) fn ask(rules: &RuleSet, topology: &Topology, to: &Member, frame: &Copied<'_>) -> FloodedCopy {
        let mut answer = FloodedCopy::default();
        let side = rules.read();
        let domains = [to.settings.tenant.map(Domain::Tenant), Some(Domain::Infrastructure)];
        let (mut fields, mut mark, mut egress) = (*frame.fields, frame.mark, to.port.id);
        'domains: for domain in domains.into_iter().flatten() {
            if !side.has(domain, Direction::Out) {
                continue;
            }
            let (mut group, mut after) = (0, None);
            for _ in 0..MOST_MATCHES {
                let input = Input {
                    fields: &fields,
                    ingress: frame.ingress,
                    egress: Some(egress),
                    vlan: frame.vlan,
                    mark,
                    connection: frame.connection,
                };
                let key = Key::of(&input);
                let Some(rule) = side.find(domain, Direction::Out, group, &key, after) else {
                    continue 'domains;
                };
                rule.identity.stats.add(1, frame.len.into(), frame.now);
                after = Some(rule.rank());
                let mut goes_on = false;
                for action in rule.actions.iter() {
                    match action {
                        Do::Drop => {
                            answer.refused = Some(refused(domain));
                            return answer;
                        }
                        Do::Pass => continue 'domains,
                        // The other port has its own copy, if it is to have one. Infrastructure still has its say.
                        Do::Redirect(port) => {
                            let Some(member) = redirected(topology, domain, *port, frame.vlan) else {
                                answer.refused = Some(DropReason::RuleTarget);
                                return answer;
                            };
                            if *port == frame.ingress {
                                answer.refused = Some(DropReason::SamePort);
                                return answer;
                            }
                            answer.redirect = topology.index_of(*port);
                            egress = member.port.id;
                            continue 'domains;
                        }
                        Do::Goto(to) => (group, after, goes_on) = (*to, None, true),
                        Do::Continue => goes_on = true,
                        Do::Mark { value, mask } => mark = mark & !mask | value,
                        Do::Mirror(name) => answer.mirrors.extend(mirror(topology, name).cloned()),
                        Do::Sample(sampler) if sampler.takes() => {
                            answer.mirrors.extend(mirror(topology, &sampler.mirror).cloned());
                        }
                        Do::Sample(_) => {}
                        Do::Meter(name) => {
                            let mut marking = Marking { came_as: color(&fields), ..Marking::default() };
                            if let Some(meter) = topology.meters.named(name) {
                                let marking = core::slice::from_mut(&mut marking);
                                meter.charge_run(frame.now_ns, &[frame.charge], marking);
                            }
                            if marking.is_dropped {
                                answer.refused = Some(DropReason::Metered);
                                return answer;
                            }
                        }
                        Do::Police(meter) => {
                            let mut marking = Marking { came_as: color(&fields), ..Marking::default() };
                            meter.charge(frame.now_ns, frame.charge, &mut marking);
                            if marking.is_dropped {
                                answer.refused = Some(DropReason::Metered);
                                return answer;
                            }
                        }
                        // Of direction in only.
                        Do::Ct(_) => {}
                        Do::Rewrite(rewrite) => {
                            if !rewrite.apply_to(&mut fields) {
                                answer.refused = Some(DropReason::TtlExceeded);
                                return answer;
                            }
                            answer.rewrites.push(Arc::clone(rewrite));
                        }
                    }
                }
                if !goes_on {
                    continue 'domains;
                }
            }
            answer.refused = Some(refused(domain));
            return answer;
        }
        answer
    }
}
