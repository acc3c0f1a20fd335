//! What has to be done now and then: journals brought to the disk and made short, and those told who listen to events.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use fabnic_api::{EventKind, LinkState};
use fabnic_port::{LinkState as PortLink, PortId};
use parking_lot::{Condvar, Mutex};

use crate::agent::Agent;
use crate::stats;

/// How often: also the most that a host which loses its power forgets of small changes.
const PERIOD: Duration = Duration::from_millis(500);
/// Rounds from one summary of drops to the next.
const DROPS: u32 = 10;

/// The thread. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Handle {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    pub(crate) fn start(agent: &Arc<Agent>) -> std::io::Result<Handle> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (for_thread, agent) = (Arc::clone(&stop), Arc::downgrade(agent));
        let thread = std::thread::Builder::new().name("upkeep".to_owned()).spawn(move || {
            let mut seen = Seen::default();
            loop {
                {
                    let mut stopped = for_thread.0.lock();
                    if !*stopped {
                        for_thread.1.wait_for(&mut stopped, PERIOD);
                    }
                    if *stopped {
                        return;
                    }
                }
                if !round(&agent, &mut seen) {
                    return;
                }
            }
        })?;
        Ok(Handle { stop, thread: Some(thread) })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        // The agent itself may be dropped by this thread, which cannot wait for itself.
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

/// What was seen of the ports when somebody listened last.
#[derive(Debug, Default)]
struct Seen {
    links: HashMap<PortId, (LinkState, Option<String>)>,
    drops: HashMap<String, u64>,
    /// Addresses that were held, each with its VLAN and the second.
    held: HashSet<(u16, [u8; 6], u32)>,
    rounds: u32,
    is_listening: bool,
}

/// Does what is due. False when the agent is gone.
fn round(agent: &Weak<Agent>, seen: &mut Seen) -> bool {
    let Some(agent) = agent.upgrade() else { return false };
    keep(&agent);
    agent.save_when_due();
    if agent.events.is_heard() {
        look(&agent, seen);
    } else {
        *seen = Seen::default();
    }
    true
}

/// Brings the journal to the disk, and makes a long one short.
fn keep(agent: &Agent) {
    let (handle, compaction) = {
        let mut writer = agent.writer.lock();
        let Some(state) = &mut writer.state else { return };
        let handle = state.handle();
        let draft = state.begin_compaction();
        // Taken while nothing can change: what comes now is in the next journal.
        (handle, draft.map(|draft| (draft, agent.desired.read().config().clone())))
    };
    if let Some(file) = handle
        && let Err(error) = file.sync_data()
    {
        tracing::error!(%error, "changes are in force and written, but not on the disk");
    }
    let Some((draft, config)) = compaction else { return };
    let written = draft.write(&config);
    let mut writer = agent.writer.lock();
    let Some(state) = &mut writer.state else { return };
    if let Err(error) = written.and_then(|prepared| state.commit(prepared)) {
        tracing::error!(%error, "the state file cannot be written anew: its journals go on growing");
    }
}

/// Tells what changed of the ports.
fn look(agent: &Agent, seen: &mut Seen) {
    let running = agent.running();
    let first = !std::mem::replace(&mut seen.is_listening, true);
    let mut links = HashMap::with_capacity(running.ports.len());
    for entry in &running.ports {
        let port = &entry.live.port;
        let up = port.link() == PortLink::Up && entry.config.state != fabnic_model::AdminState::Disable;
        let link = if up { LinkState::Up } else { LinkState::Down };
        let reason = port.stopped().map(|stopped| stopped.reason.0);
        let now = (link, reason);
        if !first && seen.links.get(&port.id) != Some(&now) {
            agent.events.send_of(
                entry.config.tenant.as_deref(),
                EventKind::Link { port: entry.config.name.clone(), link: now.0, reason: now.1.clone() },
            );
        }
        links.insert(port.id, now);
    }
    seen.links = links;
    held(agent, seen, first);
    seen.rounds += 1;
    if first || seen.rounds.is_multiple_of(DROPS) {
        drops(agent, seen, first);
    }
}

/// Tells which addresses are held because they kept moving.
fn held(agent: &Agent, seen: &mut Seen, first: bool) {
    let running = agent.running();
    let name = |id: PortId| running.by_id(id).map(|entry| entry.config.name.clone()).unwrap_or_default();
    let mut held = HashSet::new();
    for freeze in agent.switch.fdb().freezes() {
        let key = (freeze.vlan.get(), freeze.mac.octets(), freeze.at);
        let is_new = !seen.held.contains(&key);
        held.insert(key);
        if first || !is_new {
            continue;
        }
        let tenant = running.by_id(freeze.port).and_then(|entry| entry.config.tenant.clone());
        agent.events.send_of(
            tenant.as_deref(),
            EventKind::MacHeld {
                mac: crate::settings::model_mac(freeze.mac),
                vlan: freeze.vlan.get(),
                port: name(freeze.port),
                seen_on: name(freeze.wanted),
                seconds: freeze.until.saturating_sub(freeze.at).into(),
            },
        );
    }
    // As many as the switch keeps, which are few.
    seen.held = held;
}

/// Tells which ports dropped frames since the last time, and why.
fn drops(agent: &Agent, seen: &mut Seen, first: bool) {
    let running = agent.running();
    let mut totals = HashMap::new();
    for entry in &running.ports {
        let counters = stats::of_port(&entry.live.port).counters;
        let mut reasons = std::collections::BTreeMap::new();
        for (reason, count) in counters.rx_drops.iter().chain(&counters.tx_drops) {
            *reasons.entry(reason.clone()).or_insert(0_u64) += count;
        }
        for (reason, count) in &mut reasons {
            let key = format!("{}/{reason}", entry.live.port.id.0);
            let before = seen.drops.get(&key).copied().unwrap_or(0);
            totals.insert(key, *count);
            *count = count.saturating_sub(before);
        }
        reasons.retain(|_, count| *count > 0);
        if !first && !reasons.is_empty() {
            agent.events.send_of(
                entry.config.tenant.as_deref(),
                EventKind::Drops { port: entry.config.name.clone(), drops: reasons },
            );
        }
    }
    seen.drops = totals;
}
