//! The running state, and how it becomes another.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fabnic_api::{ApplyError, SwitchTotals};
use fabnic_model::{Change, Config, Effect, Mac, Vid, diff};
use fabnic_port::{Port, PortId};
use fabnic_switch::{Switch, SwitchConfig};
use parking_lot::{Mutex, RwLock};

use crate::attachment::{Attachment, Claim, Failed};
use crate::reactors::Reactors;
use crate::settings::{self, mac, vid};
use crate::state::StateFile;
use crate::stats;

/// Changes what is logged.
pub type SetLog = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What the agent is given by the daemon.
#[derive(Default)]
pub struct AgentOptions {
    /// Where changes are kept, if they are.
    pub state: Option<StateFile>,
    /// Called with `[daemon] log` when it changes.
    pub set_log: Option<SetLog>,
}

impl std::fmt::Debug for AgentOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentOptions").field("state", &self.state).finish_non_exhaustive()
    }
}

/// A port that runs.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) port: Arc<Port>,
    /// What is on its other side; taken out when the port goes.
    pub(crate) attachment: Mutex<Option<Attachment>>,
}

/// A port of one moment: as it was configured then, and the port itself.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) config: Arc<fabnic_model::Port>,
    pub(crate) live: Arc<Live>,
}

/// The state of one moment. Never changes; the next change makes another.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) config: Config,
    /// In the order of their numbers.
    pub(crate) ports: Vec<Entry>,
    by_name: HashMap<String, usize>,
    /// What was counted on ports that are gone.
    pub(crate) gone: SwitchTotals,
}

impl Running {
    fn new(config: Config, mut ports: Vec<Entry>, gone: SwitchTotals) -> Running {
        ports.sort_by_key(|entry| entry.live.port.id);
        let by_name = ports.iter().enumerate().map(|(i, entry)| (entry.config.name.clone(), i)).collect();
        Running { config, ports, by_name, gone }
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Entry> {
        self.ports.get(*self.by_name.get(name)?)
    }

    /// Where each static entry points.
    fn static_entries(&self) -> HashMap<(Vid, Mac), PortId> {
        let target = |e: &fabnic_model::StaticFdb| Some(((e.vlan, e.mac), self.find(&e.port)?.live.port.id));
        self.config.fdb.iter().filter_map(target).collect()
    }
}

/// What only the one who changes may touch.
#[derive(Debug)]
struct Writer {
    next_id: u32,
    state: Option<StateFile>,
}

/// The running daemon.
pub struct Agent {
    pub(crate) switch: Switch,
    reactors: Reactors,
    running: RwLock<Arc<Running>>,
    writer: Mutex<Writer>,
    set_log: Option<SetLog>,
    pub(crate) started: Instant,
    pub(crate) health: crate::backend::Pulse,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").field("ports", &self.running().ports.len()).finish_non_exhaustive()
    }
}

/// Ports that go, change and come.
#[derive(Default)]
struct Plan {
    leaving: HashSet<String>,
    joining: Vec<fabnic_model::Port>,
    changing: HashMap<String, Arc<fabnic_model::Port>>,
}

impl Plan {
    fn of(changes: &[Change]) -> Plan {
        let mut plan = Plan::default();
        for change in changes {
            match change {
                Change::PortDel { name } => {
                    plan.leaving.insert(name.clone());
                }
                Change::PortAdd { port } => plan.joining.push((**port).clone()),
                Change::PortSet { name, effect: Effect::Live, port, .. } => {
                    plan.changing.insert(name.clone(), Arc::new((**port).clone()));
                }
                Change::PortSet { name, port, .. } => {
                    plan.leaving.insert(name.clone());
                    plan.joining.push((**port).clone());
                }
                Change::DaemonSet { .. } | Change::FdbDel { .. } | Change::FdbAdd { .. } => {}
            }
        }
        plan
    }
}

/// New ports while they can still be undone. Dropped, their sockets, devices and files are let go, and what was taken
/// away to make room is brought back.
struct Prepared<'a> {
    reactors: &'a Reactors,
    joined: Vec<Entry>,
    /// Ports whose other side was taken away because a new port needs the same socket, device or file.
    displaced: Vec<Entry>,
    committed: bool,
}

impl Prepared<'_> {
    fn add(&mut self, config: fabnic_model::Port, id: PortId) -> Result<(), Failed> {
        let kind = config.kind().map_err(Failed::from_refused)?;
        let port = Arc::new(Attachment::make_port(&kind, &config.name, id));
        let attachment = Attachment::prepare(self.reactors, &kind, &config, &port)?;
        let live = Live { port, attachment: Mutex::new(Some(attachment)) };
        self.joined.push(Entry { config: Arc::new(config), live: Arc::new(live) });
        Ok(())
    }

    /// Takes the other side away from a port that will go.
    fn displace(&mut self, entry: &Entry) {
        let attachment = entry.live.attachment.lock().take();
        if let Some(attachment) = attachment {
            attachment.detach(&entry.live.port);
            self.displaced.push(entry.clone());
        }
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        for entry in &self.joined {
            if let Some(attachment) = entry.live.attachment.lock().take() {
                attachment.detach(&entry.live.port);
            }
        }
        for entry in &self.displaced {
            let (name, port) = (&entry.config.name, &entry.live.port);
            let back = entry.config.kind().map_err(Failed::from_refused);
            match back.and_then(|kind| Attachment::prepare(self.reactors, &kind, &entry.config, port)) {
                Ok(attachment) => *entry.live.attachment.lock() = Some(attachment),
                Err(failed) => {
                    let problem =
                        format!("it was to be changed, which failed, and could not be restored: {failed}");
                    tracing::error!(port = %name, "{problem}");
                    port.stop(fabnic_port::Fault(problem));
                }
            }
        }
    }
}

impl Agent {
    /// Starts the switch and makes `desired` run.
    ///
    /// # Errors
    /// When workers cannot be started, or a port cannot be made; then nothing is left behind.
    pub fn start(desired: Config, options: AgentOptions) -> Result<Agent, ApplyError> {
        let begun = Instant::now();
        desired.check()?;
        desired.check_cpus(&crate::usable_cpus())?;
        let daemon = desired.daemon.clone();
        let failed = |key: &str, problem: String, expected: &str| ApplyError::Failed {
            key: key.into(),
            problem,
            expected: expected.into(),
        };
        let switch = Switch::start(SwitchConfig {
            workers: daemon.workers.iter().filter_map(|&cpu| usize::try_from(cpu).ok()).collect(),
            fdb_max: daemon.fdb_entries,
            flow_cache_max: usize::try_from(daemon.flow_entries).unwrap_or(usize::MAX),
            ageing: ageing(&daemon),
            ..SwitchConfig::default()
        })
        .map_err(|e| failed("daemon.workers", e.to_string(), "CPUs that threads can be pinned to"))?;
        let reactors = Reactors::spawn()
            .map_err(|e| failed("daemon", e.to_string(), "threads and file descriptors to be had"))?;
        // Beside the API's socket: it may be written to, and lies on a tmpfs.
        if let Some(directory) = Path::new(&daemon.api).parent() {
            reactors.vhost.keep_positions_in(directory.to_owned());
        }
        let empty = Config { daemon, ..Config::default() };
        let agent = Agent {
            switch,
            reactors,
            running: RwLock::new(Arc::new(Running::new(empty, Vec::new(), SwitchTotals::default()))),
            writer: Mutex::new(Writer { next_id: 1, state: None }),
            set_log: options.set_log,
            started: begun,
            health: crate::backend::Pulse::default(),
        };
        if let Err(error) = agent.apply(desired, false) {
            agent.stop();
            return Err(error);
        }
        agent.writer.lock().state = options.state;
        tracing::info!(
            ports = agent.running().ports.len(),
            milliseconds = begun.elapsed().as_millis(),
            "the configuration runs"
        );
        Ok(agent)
    }

    /// The state of this moment.
    pub(crate) fn running(&self) -> Arc<Running> {
        Arc::clone(&self.running.read())
    }

    /// Makes `desired` run, as a whole or not at all, and says what changed. With `dry_run`, only says what would.
    ///
    /// # Errors
    /// When it cannot be; then what ran goes on.
    pub fn apply(&self, desired: Config, dry_run: bool) -> Result<Vec<Change>, ApplyError> {
        let mut writer = self.writer.lock();
        let running = self.running();
        let changes = self.compare(&running, &desired)?;
        if !dry_run && !changes.is_empty() {
            self.change(&mut writer, &running, desired, &changes)?;
        }
        Ok(changes)
    }

    /// [`Agent::apply`] of a configuration file that was read again: the saved state grows from `text` from now on.
    ///
    /// # Errors
    /// When it cannot be; then what ran goes on, and the saved state is as it was.
    pub fn reload(&self, desired: Config, file: &Path, text: &str) -> Result<Vec<Change>, ApplyError> {
        let mut writer = self.writer.lock();
        let running = self.running();
        let changes = self.compare(&running, &desired)?;
        let before = writer.state.clone();
        if let Some(state) = &mut writer.state {
            state.rebase(file, text);
        }
        let result = self.change(&mut writer, &running, desired, &changes);
        if result.is_err() {
            writer.state = before;
        }
        result.map(|()| changes)
    }

    /// What differs, if it is possible at all.
    fn compare(&self, running: &Running, desired: &Config) -> Result<Vec<Change>, ApplyError> {
        desired.check()?;
        desired.check_cpus(&crate::usable_cpus())?;
        let room = usize::try_from(running.config.daemon.fdb_entries).unwrap_or(usize::MAX);
        if desired.fdb.len() > room {
            return Err(ApplyError::Failed {
                key: "fdb".into(),
                problem: format!("{} static entries are given", desired.fdb.len()),
                expected: format!("at most {room}, the size of the table since the daemon was started"),
            });
        }
        Ok(diff(&running.config, desired))
    }

    fn change(
        &self,
        writer: &mut Writer,
        running: &Running,
        desired: Config,
        changes: &[Change],
    ) -> Result<(), ApplyError> {
        let plan = Plan::of(changes);
        let (prepared, next_id) = self.prepare(running, plan.joining, &plan.leaving, writer.next_id)?;
        if desired.daemon.log != running.config.daemon.log
            && let Some(set_log) = &self.set_log
        {
            set_log(&desired.daemon.log).map_err(|problem| ApplyError::Failed {
                key: "daemon.log".into(),
                problem,
                expected: "a log filter".into(),
            })?;
        }
        let state = match &writer.state {
            Some(state) => Some(state.prepare(&desired).map_err(|e| ApplyError::Failed {
                key: "daemon".into(),
                problem: format!("the state file {} cannot be written: {e}", state.path().display()),
                expected: "room and rights to keep the change".into(),
            })?),
            None => None,
        };
        // Nothing below fails.
        writer.next_id = next_id;
        self.publish(running, desired, prepared, &plan.leaving, &plan.changing);
        if let Some(Err(error)) = state.map(crate::Prepared::commit) {
            tracing::error!(%error, "the change is in force but not saved: it will be missing after a restart");
        }
        for change in changes {
            tracing::debug!("{change}");
            if change.effect() == Effect::Restart {
                tracing::warn!("{change}: takes effect when the daemon is started again");
            }
        }
        Ok(())
    }

    /// Makes all new ports, those last that need what a leaving port holds.
    fn prepare(
        &self,
        running: &Running,
        joining: Vec<fabnic_model::Port>,
        leaving: &HashSet<String>,
        mut next_id: u32,
    ) -> Result<(Prepared<'_>, u32), ApplyError> {
        let mut held: HashMap<Claim, &Entry> = HashMap::new();
        for entry in leaving.iter().filter_map(|name| running.find(name)) {
            held.extend(Claim::of(&entry.config).into_iter().map(|claim| (claim, entry)));
        }
        let collides =
            |port: &fabnic_model::Port| Claim::of(port).iter().any(|claim| held.contains_key(claim));
        let (last, first): (Vec<_>, Vec<_>) = joining.into_iter().partition(collides);
        let count = first.len() + last.len();
        let mut prepared = Prepared {
            reactors: &self.reactors,
            joined: Vec::with_capacity(count),
            displaced: Vec::new(),
            committed: false,
        };
        for config in first.into_iter().chain(last) {
            for entry in Claim::of(&config).iter().filter_map(|claim| held.get(claim)) {
                prepared.displace(entry);
            }
            let id = PortId(next_id);
            next_id = next_id.checked_add(1).ok_or_else(|| ApplyError::Failed {
                key: format!("port[{}]", config.name),
                problem: "all 4294967295 port numbers were used".into(),
                expected: "a restart of the daemon".into(),
            })?;
            prepared.add(config, id)?;
        }
        Ok((prepared, next_id))
    }

    /// Makes everything that was prepared the state that runs.
    fn publish(
        &self,
        running: &Running,
        desired: Config,
        mut prepared: Prepared<'_>,
        leaving: &HashSet<String>,
        changing: &HashMap<String, Arc<fabnic_model::Port>>,
    ) {
        prepared.committed = true;
        let joined = std::mem::take(&mut prepared.joined);
        let mut stays = Vec::with_capacity(running.ports.len() + joined.len());
        let mut goes = Vec::new();
        for entry in &running.ports {
            if leaving.contains(&entry.config.name) {
                goes.push(entry.clone());
            } else {
                let config = changing.get(&entry.config.name).unwrap_or(&entry.config);
                stays.push(Entry { config: Arc::clone(config), live: Arc::clone(&entry.live) });
            }
        }
        stays.extend(joined);
        let next_ports =
            stays.iter().map(|e| (Arc::clone(&e.live.port), settings::of_port(&e.config))).collect();
        let mut next = Running::new(desired, stays, running.gone.clone());

        let (static_before, static_after) = (running.static_entries(), next.static_entries());
        for (&(vlan, address), port) in &static_before {
            if static_after.get(&(vlan, address)) != Some(port) {
                self.switch.fdb().remove(vid(vlan), mac(address));
            }
        }
        // When this returns, no worker holds a port that goes: its counters are final.
        self.switch.set_ports(next_ports);
        for (&(vlan, address), &port) in &static_after {
            if static_before.get(&(vlan, address)) != Some(&port) {
                self.add_static(vlan, address, port);
            }
        }
        if next.config.daemon.fdb_ageing != running.config.daemon.fdb_ageing {
            self.switch.set_ageing(ageing(&next.config.daemon));
        }
        for entry in &goes {
            stats::add_port(&mut next.gone, &stats::of_port(&entry.live.port));
        }
        *self.running.write() = Arc::new(next);

        for entry in goes {
            let attachment = entry.live.attachment.lock().take();
            if let Some(attachment) = attachment {
                attachment.detach(&entry.live.port);
            }
            tracing::info!(port = %entry.config.name, id = entry.live.port.id.0, "the port is gone");
        }
        let now = self.running();
        for entry in &now.ports {
            if changing.contains_key(&entry.config.name)
                && let Some(attachment) = &*entry.live.attachment.lock()
            {
                attachment.update(&entry.config);
            }
        }
    }

    /// A static entry always finds room: learned ones give way.
    fn add_static(&self, vlan: Vid, address: Mac, port: PortId) {
        let fdb = self.switch.fdb();
        while let Err(error) = fdb.add_static(vid(vlan), mac(address), port) {
            let mut given_way = false;
            let removed = fdb.remove_where(|entry| {
                entry.kind != fabnic_switch::FdbKind::Static && !std::mem::replace(&mut given_way, true)
            });
            if removed == 0 {
                // There are not more static entries than places, and addresses were checked.
                tracing::error!(mac = %address, vlan = %vlan, %error, "a static FDB entry was not made");
                return;
            }
        }
    }

    /// Ends everything: VMs see their connection close, and find the socket again when the next daemon runs.
    pub fn stop(&self) {
        let writer = self.writer.lock();
        let running = self.running();
        for entry in &running.ports {
            let attachment = entry.live.attachment.lock().take();
            if let Some(attachment) = attachment {
                attachment.detach(&entry.live.port);
            }
        }
        self.switch.set_ports(Vec::new());
        drop(writer);
    }
}

fn ageing(daemon: &fabnic_model::Daemon) -> Duration {
    Duration::from_secs(daemon.fdb_ageing.into())
}
