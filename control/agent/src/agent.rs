//! The running state, and how it becomes another.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fabnic_api::{ApplyError, EventBus, EventKind, SwitchTotals, TenantDoor};
use fabnic_model::{Change, Config, Desired, Domain, Edit, EditError, Effect, Mac, Object as _, Vid, diff};
use fabnic_port::{Port, PortId};
use fabnic_switch::{Switch, SwitchConfig};
use parking_lot::{Mutex, RwLock};

use crate::attachment::{Attachment, Claim, Failed};
use crate::doors::Doors;
use crate::reactors::Reactors;
use crate::saved::Saver;
use crate::settings::{self, mac, vid};
use crate::state::StateFile;
use crate::{rules, stats, upkeep};

/// Changes what is logged.
pub type SetLog = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What the agent is given by the daemon.
#[derive(Default)]
pub struct AgentOptions {
    /// Where changes are kept, if they are.
    pub state: Option<StateFile>,
    /// Called with `[daemon] log` when it changes.
    pub set_log: Option<SetLog>,
    /// Where what the switch has learned and what runs in it is kept, if it is.
    pub saved: Option<PathBuf>,
    /// Which boot of the host this is ([`crate::boot_id`]); zeros: not known.
    pub boot: [u8; 16],
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
    /// In the order of their numbers.
    pub(crate) ports: Vec<Entry>,
    by_name: HashMap<String, usize>,
    /// The numbers by which the switch knows tenants: from 1, never used again.
    pub(crate) tenants: Arc<HashMap<String, u32>>,
    /// What was counted on ports that are gone.
    pub(crate) gone: SwitchTotals,
}

impl Running {
    fn new(mut ports: Vec<Entry>, gone: SwitchTotals, tenants: Arc<HashMap<String, u32>>) -> Running {
        ports.sort_by_key(|entry| entry.live.port.id);
        let by_name = ports.iter().enumerate().map(|(i, entry)| (entry.config.name.clone(), i)).collect();
        Running { ports, by_name, gone, tenants }
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Entry> {
        self.ports.get(*self.by_name.get(name)?)
    }

    /// Where each static entry points.
    fn static_entries(&self, config: &Config) -> HashMap<(Vid, Mac), PortId> {
        let target = |e: &fabnic_model::StaticFdb| Some(((e.vlan, e.mac), self.find(&e.port)?.live.port.id));
        config.fdb.iter().filter_map(target).collect()
    }

    /// The number of the port with this name.
    pub(crate) fn port_id(&self, name: &str) -> Option<PortId> {
        self.find(name).map(|entry| entry.live.port.id)
    }

    /// The port with this number.
    pub(crate) fn by_id(&self, id: PortId) -> Option<&Entry> {
        let place = self.ports.binary_search_by_key(&id, |entry| entry.live.port.id).ok()?;
        self.ports.get(place)
    }
}

/// What only the one who changes may touch.
#[derive(Debug)]
pub(crate) struct Writer {
    next_id: u32,
    pub(crate) state: Option<StateFile>,
    /// Sockets of tenants that are open.
    doors: Doors,
}

/// The running daemon.
pub struct Agent {
    pub(crate) switch: Switch,
    reactors: Reactors,
    running: RwLock<Arc<Running>>,
    /// What runs, as it was asked for. Changed by who holds the writer only.
    pub(crate) desired: RwLock<Desired>,
    pub(crate) writer: Mutex<Writer>,
    set_log: Option<SetLog>,
    pub(crate) events: EventBus,
    upkeep: Mutex<Option<upkeep::Handle>>,
    pub(crate) started: Instant,
    pub(crate) health: crate::backend::Pulse,
    pub(crate) saver: Saver,
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
                _ => {}
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
    pub fn start(desired: Config, options: AgentOptions) -> Result<Arc<Agent>, ApplyError> {
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
            damping: daemon.mac_damping.map(|damping| fabnic_switch::MoveDamping {
                moves: damping.moves,
                window: damping.window,
                hold: damping.hold,
            }),
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
            running: RwLock::new(Arc::new(Running::new(Vec::new(), SwitchTotals::default(), Arc::default()))),
            desired: RwLock::new(Desired::new(empty)),
            writer: Mutex::new(Writer { next_id: 1, state: None, doors: Doors::default() }),
            set_log: options.set_log,
            events: EventBus::default(),
            upkeep: Mutex::default(),
            started: begun,
            health: crate::backend::Pulse::default(),
            saver: Saver::new(options.saved, options.boot),
        };
        let agent = Arc::new(agent);
        agent.saver.find();
        if let Err(error) = agent.apply(desired, false) {
            agent.stop();
            return Err(error);
        }
        if agent.saver.is_pending() {
            // There was nothing to publish: no port, to which anything could come back but sums.
            let running = agent.running();
            let gone = agent.restore_pending(&running);
            let next = Running::new(Vec::new(), gone, Arc::clone(&running.tenants));
            *agent.running.write() = Arc::new(next);
        }
        agent.writer.lock().state = options.state;
        agent.saver.open();
        *agent.upkeep.lock() = Some(
            upkeep::Handle::start(&agent)
                .map_err(|e| failed("daemon", e.to_string(), "threads to be had"))?,
        );
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
        self.apply_for(&Domain::Infrastructure, desired, dry_run)
    }

    /// [`Agent::apply`], if the domain may make all of the changes.
    pub(crate) fn apply_for(
        &self,
        domain: &Domain,
        desired: Config,
        dry_run: bool,
    ) -> Result<Vec<Change>, ApplyError> {
        let mut writer = self.writer.lock();
        let running = self.running();
        let changes = self.compare(&desired)?;
        self.permit(domain, &changes)?;
        if !dry_run && !changes.is_empty() {
            self.change(&mut writer, &running, desired, &changes)?;
        }
        Ok(changes)
    }

    /// Whether the domain may make these changes.
    fn permit(&self, domain: &Domain, changes: &[Change]) -> Result<(), ApplyError> {
        let desired = self.desired.read();
        for change in changes {
            domain.permits(change, &desired.before(change)).map_err(EditError::Forbidden)?;
        }
        Ok(())
    }

    /// Makes edits, all of them or none, and says what changed. Of what only rules and groups are about, the cost does not
    /// depend on how much else there is.
    ///
    /// # Errors
    /// When one of them cannot be made; then what ran goes on.
    pub fn edit(&self, domain: &Domain, edits: &[Edit], dry_run: bool) -> Result<Vec<Change>, ApplyError> {
        let mut writer = self.writer.lock();
        let mut changes = Vec::new();
        let mut undo = Vec::new();
        let mut touched = rules::Touched::default();
        let mut planned = Ok(());
        let mut whole = None;
        {
            let mut desired = self.desired.write();
            for (place, edit) in edits.iter().enumerate() {
                match desired.plan(domain, edit) {
                    Ok(None) => {}
                    Ok(Some(change)) => {
                        if !Desired::is_local(&change) {
                            whole = Some(place);
                            break;
                        }
                        undo.extend(desired.reverse(&change));
                        match &change {
                            Change::RuleDel { name } => touched.rule(&desired, name),
                            Change::GroupSet { group, .. } => touched.users_of(&desired, group),
                            _ => {}
                        }
                        desired.carry_out(&change);
                        match &change {
                            Change::RuleAdd { rule } => touched.rule(&desired, &rule.qualified()),
                            Change::RuleSet { name, .. } => touched.rule(&desired, name),
                            _ => {}
                        }
                        changes.push(change);
                    }
                    Err(error) => {
                        planned = Err(error);
                        break;
                    }
                }
            }
            // Nothing is done before all of it is known to be right; planning went from one edit to the next, though.
            if planned.is_err() || whole.is_some() || dry_run {
                std::mem::take(&mut undo).into_iter().rev().for_each(|change| desired.undo(change));
            }
        }
        planned?;
        if whole.is_some() {
            return self.edit_whole(&mut writer, domain, edits, dry_run);
        }
        if dry_run || changes.is_empty() {
            return Ok(changes);
        }
        let result = self.change_rules(&touched).and_then(|()| self.save(&mut writer, &changes));
        if let Err(error) = result {
            {
                let mut desired = self.desired.write();
                undo.into_iter().rev().for_each(|change| desired.undo(change));
            }
            // As they were before, which the switch took.
            if let Err(error) = self.change_rules(&touched) {
                tracing::error!(%error, "a change of rules failed and could not be undone");
            }
            return Err(error);
        }
        self.tell(&changes);
        Ok(changes)
    }

    /// Edits that others in the configuration may speak of: the whole of it is checked.
    fn edit_whole(
        &self,
        writer: &mut Writer,
        domain: &Domain,
        edits: &[Edit],
        dry_run: bool,
    ) -> Result<Vec<Change>, ApplyError> {
        let mut desired = self.desired.read().clone();
        for edit in edits {
            if let Some(change) = desired.plan(domain, edit)? {
                desired.carry_out(&change);
            }
        }
        let desired = desired.config().clone();
        let changes = self.compare(&desired)?;
        self.permit(domain, &changes)?;
        if !dry_run && !changes.is_empty() {
            let running = self.running();
            self.change(writer, &running, desired, &changes)?;
        }
        Ok(changes)
    }

    /// Makes the touched rules of the switch as they are desired.
    fn change_rules(&self, touched: &rules::Touched) -> Result<(), ApplyError> {
        let running = self.running();
        let desired = self.desired.read();
        let ports = |name: &str| running.port_id(name).into_iter().collect();
        let scene = rules::Scene { desired: &desired, ports: &ports, tenants: &running.tenants };
        let changes = rules::changes(&scene, &self.switch, touched)?;
        drop(desired);
        rules::tell(&self.switch, &changes)
    }

    /// Keeps changes that the desired state has already.
    fn save(&self, writer: &mut Writer, changes: &[Change]) -> Result<(), ApplyError> {
        let Some(state) = &mut writer.state else { return Ok(()) };
        let saved = if state.takes_changes() {
            state.append(changes)
        } else {
            let prepared = state.prepare(self.desired.read().config());
            prepared.and_then(|prepared| state.commit(prepared))
        };
        saved.map_err(|e| unsaved(state, &e))
    }

    /// Tells who listens what changed.
    fn tell(&self, changes: &[Change]) {
        for change in changes {
            tracing::debug!("{change}");
        }
        self.events.send(EventKind::Applied {
            changes: u64::try_from(changes.len()).unwrap_or(u64::MAX),
            first: changes.iter().take(8).map(ToString::to_string).collect(),
        });
    }

    /// The door of each tenant that has a socket, now and whenever one comes or goes. Once.
    pub fn tenant_doors(&self) -> Option<tokio::sync::mpsc::UnboundedReceiver<TenantDoor>> {
        self.writer.lock().doors.take_receiver()
    }

    /// [`Agent::apply`] of a configuration file that was read again: the saved state grows from `text` from now on.
    ///
    /// # Errors
    /// When it cannot be; then what ran goes on, and the saved state is as it was.
    pub fn reload(&self, desired: Config, file: &Path, text: &str) -> Result<Vec<Change>, ApplyError> {
        let mut writer = self.writer.lock();
        let running = self.running();
        let changes = self.compare(&desired)?;
        let before = writer.state.as_mut().map(|state| state.rebase(file, text));
        let result = self.change(&mut writer, &running, desired, &changes);
        if result.is_err()
            && let (Some(state), Some(before)) = (&mut writer.state, before)
        {
            state.restore(before);
        }
        result.map(|()| changes)
    }

    /// What differs, if it is possible at all.
    fn compare(&self, desired: &Config) -> Result<Vec<Change>, ApplyError> {
        desired.check()?;
        desired.check_cpus(&crate::usable_cpus())?;
        let running = self.desired.read();
        let running = running.config();
        let room = usize::try_from(running.daemon.fdb_entries).unwrap_or(usize::MAX);
        if desired.fdb.len() > room {
            return Err(ApplyError::Failed {
                key: "fdb".into(),
                problem: format!("{} static entries are given", desired.fdb.len()),
                expected: format!("at most {room}, the size of the table since the daemon was started"),
            });
        }
        Ok(diff(running, desired))
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
        let doors = writer.doors.prepare(&desired.tenant)?;
        if desired.daemon.log != self.desired.read().config().daemon.log
            && let Some(set_log) = &self.set_log
        {
            set_log(&desired.daemon.log).map_err(|problem| ApplyError::Failed {
                key: "daemon.log".into(),
                problem,
                expected: "a log filter".into(),
            })?;
        }
        let next = self.desired.read().next(desired);
        let tenants = tenant_numbers(&running.tenants, next.config());
        let state = match &writer.state {
            Some(state) => Some(state.prepare(next.config()).map_err(|e| unsaved(state, &e))?),
            None => None,
        };
        self.follow_rules(running, &next, &prepared, &plan.leaving, &tenants)?;
        // Nothing below fails.
        writer.next_id = next_id;
        self.publish(running, next, prepared, tenants, &plan.leaving, &plan.changing);
        writer.doors.open(doors);
        if let (Some(state), Some(prepared)) = (&mut writer.state, state)
            && let Err(error) = state.commit(prepared)
        {
            tracing::error!(%error, "the change is in force but not saved: it will be missing after a restart");
        }
        for change in changes {
            if change.effect() == Effect::Restart {
                tracing::warn!("{change}: takes effect when the daemon is started again");
            }
        }
        self.tell(changes);
        Ok(())
    }

    /// Tells the switch the rules of the next configuration, before its ports: a port that comes is never without its
    /// rules, and one that is made again has them under both of its numbers until it is.
    fn follow_rules(
        &self,
        running: &Running,
        next: &Desired,
        prepared: &Prepared<'_>,
        leaving: &HashSet<String>,
        tenants: &HashMap<String, u32>,
    ) -> Result<(), ApplyError> {
        let desired = self.desired.read();
        if desired.config().rule.is_empty() && next.config().rule.is_empty() {
            return Ok(());
        }
        let joined: HashMap<&str, PortId> =
            prepared.joined.iter().map(|entry| (entry.config.name.as_str(), entry.live.port.id)).collect();
        let moving: HashSet<&str> =
            leaving.iter().map(String::as_str).chain(joined.keys().copied()).collect();
        let touched = rules::Touched::between(&desired, next, &moving);
        drop(desired);
        let ports = |name: &str| running.port_id(name).into_iter().chain(joined.get(name).copied()).collect();
        let scene = rules::Scene { desired: next, ports: &ports, tenants };
        for tenant in &next.config().tenant {
            if let Some(&number) = tenants.get(&tenant.name) {
                // One for each port and each address of a group; what is there stays.
                let limit = tenant.quota.rules.saturating_mul(MATCHES_OF_A_RULE);
                self.switch.rules().set_limit(fabnic_switch::Domain::Tenant(number), limit);
            }
        }
        rules::tell(&self.switch, &rules::changes(&scene, &self.switch, &touched)?)
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
        next_desired: Desired,
        mut prepared: Prepared<'_>,
        tenants: HashMap<String, u32>,
        leaving: &HashSet<String>,
        changing: &HashMap<String, Arc<fabnic_model::Port>>,
    ) {
        let desired = next_desired.config();
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
        let settings_of = |config: &fabnic_model::Port| {
            let tenant = config.tenant.as_ref().and_then(|tenant| tenants.get(tenant).copied());
            settings::of_port(config, tenant)
        };
        let next_ports = stays.iter().map(|e| (Arc::clone(&e.live.port), settings_of(&e.config))).collect();
        let mut next = Running::new(stays, running.gone.clone(), Arc::new(tenants));
        let policy = settings::of_switch(desired, &next);

        let before = self.desired.read();
        let (static_before, static_after) =
            (running.static_entries(before.config()), next.static_entries(desired));
        let ageing_before = before.config().daemon.fdb_ageing;
        drop(before);
        for (&(vlan, address), port) in &static_before {
            if static_after.get(&(vlan, address)) != Some(port) {
                self.switch.fdb().remove(vid(vlan), mac(address));
            }
        }
        // When this returns, no worker holds a port that goes: its counters are final.
        let mut restored = SwitchTotals::default();
        self.switch.configure_then(next_ports, policy, || restored = self.restore_pending(&next));
        stats::add_totals(&mut next.gone, &restored);
        for (&(vlan, address), &port) in &static_after {
            if static_before.get(&(vlan, address)) != Some(&port) {
                self.add_static(vlan, address, port);
            }
        }
        if desired.daemon.fdb_ageing != ageing_before {
            self.switch.set_ageing(ageing(&desired.daemon));
        }
        for entry in &goes {
            stats::add_port(&mut next.gone, &stats::of_port(&entry.live.port));
        }
        *self.running.write() = Arc::new(next);
        // Taking an old configuration of many rules apart takes its time: not under the lock.
        let old = std::mem::replace(&mut *self.desired.write(), next_desired);
        drop(old);

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
        let upkeep = self.upkeep.lock().take();
        drop(upkeep);
        let writer = self.writer.lock();
        let running = self.running();
        for entry in &running.ports {
            let attachment = entry.live.attachment.lock().take();
            if let Some(attachment) = attachment {
                attachment.detach(&entry.live.port);
            }
        }
        self.save_at_end();
        self.switch.set_ports(Vec::new());
        drop(writer);
    }
}

fn ageing(daemon: &fabnic_model::Daemon) -> Duration {
    Duration::from_secs(daemon.fdb_ageing.into())
}

/// Matches that a tenant's rules may come to, on average.
const MATCHES_OF_A_RULE: u32 = 16;

/// The numbers of tenants: those that there were keep theirs, also when they went, so that none is used again.
fn tenant_numbers(before: &HashMap<String, u32>, config: &Config) -> HashMap<String, u32> {
    let mut numbers = before.clone();
    let mut last = before.values().copied().max().unwrap_or(0);
    for tenant in &config.tenant {
        numbers.entry(tenant.name.clone()).or_insert_with(|| {
            last = last.saturating_add(1);
            last
        });
    }
    numbers
}

fn unsaved(state: &StateFile, error: &std::io::Error) -> ApplyError {
    ApplyError::Failed {
        key: "daemon".into(),
        problem: format!("the state file {} cannot be written: {error}", state.path().display()),
        expected: "room and rights to keep the change".into(),
    }
}
