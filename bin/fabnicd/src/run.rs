//! The daemon's life, from the configuration to the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use caps::Capability;
use fabnic_agent::{Agent, AgentOptions, Found, StateFile};
use fabnic_api::{Audit, Backend as _, Who, server::Options};
use fabnic_model::{Config, Uplink};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::files::{self, Needs};
use crate::journal::Journal;
use crate::{Arguments, SandboxPart, api_socket, capabilities, system_calls};

/// How often it is said how many messages were held back.
const REPORT: Duration = Duration::from_secs(10);

/// Reads and checks a configuration, also against the CPUs of this host. Gives its text too.
fn read(file: &Path) -> Result<(Config, String)> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let refused = |refused: fabnic_model::Refused| {
        let lines = refused.to_string().replace('\n', "\n  ");
        anyhow::anyhow!("{} is refused:\n  {lines}", file.display())
    };
    let config = fabnic_model::parse(&text).map_err(refused)?;
    config.check_cpus(&fabnic_agent::usable_cpus()).map_err(refused)?;
    Ok((config, text))
}

/// `--check`: says whether the daemon would take the configuration.
pub(crate) fn check(arguments: &Arguments) -> Result<()> {
    let (config, _) = read(&arguments.config)?;
    let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    println!(
        "{}: correct, {}, {}, {}",
        arguments.config.display(),
        count(config.port.len(), "port", "ports"),
        count(config.fdb.len(), "static FDB entry", "static FDB entries"),
        count(config.daemon.workers.len().max(1), "worker", "workers"),
    );
    Ok(())
}

/// The state file: as the command line says, or where systemd keeps it.
fn state_path(arguments: &Arguments) -> Option<PathBuf> {
    arguments.state.clone().or_else(|| {
        let directories = std::env::var_os("STATE_DIRECTORY")?;
        // A list with colons; the first one is ours.
        let first = std::env::split_paths(&directories).next().filter(|p| !p.as_os_str().is_empty())?;
        Some(first.join("state.toml"))
    })
}

/// The file of saved state: as the configuration says, or beside the state file.
fn saved_path(config: &Config, state: Option<&Path>) -> Option<PathBuf> {
    let configured = config.daemon.saved_state.as_ref().map(PathBuf::from);
    configured.or_else(|| Some(state?.with_file_name("switch.state")))
}

/// Decides between the configuration file and what an earlier daemon left.
fn take_up_state(state: &mut StateFile, configured: Config) -> Result<Config> {
    let path = state.path().display().to_string();
    match state.find().with_context(|| format!("cannot read the state file {path}"))? {
        Found::Nothing => Ok(configured),
        Found::Current { config, problem } => {
            if let Some(problem) = problem {
                tracing::error!(state = %path, problem, "part of the state could not be read");
            }
            let changes = fabnic_model::diff(&configured, &config).len();
            tracing::info!(state = %path, changes, "going on from the state that an earlier daemon left");
            config.check_cpus(&fabnic_agent::usable_cpus()).with_context(|| {
                format!(
                    "the state file {path} does not fit this host; remove it to start from the configuration"
                )
            })?;
            Ok(*config)
        }
        Found::Outdated { kept } => {
            tracing::warn!(
                kept = %kept.display(),
                "the configuration file was changed since the state was saved: starting from the file"
            );
            Ok(configured)
        }
        Found::Unreadable { kept, problem } => {
            tracing::error!(kept = %kept.display(), problem, "the state file is damaged: starting from the configuration");
            Ok(configured)
        }
    }
}

/// As many descriptors as the host lets us have: a port needs some ten for each queue pair that is in use.
fn raise_descriptor_limit() {
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) };
    let most = Rlimit { current: now.maximum, maximum: now.maximum };
    if now.maximum.is_some_and(|maximum| maximum < 1 << 20) && setrlimit(Resource::Nofile, wanted).is_ok() {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn check_descriptor_limit(ports: usize) {
    // A listener each, and a connection with memory, log and a pair's eventfds for some of them.
    let needed = u64::try_from(ports).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(256);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit < needed {
        tracing::warn!(
            limit,
            ports,
            "few files may be open for so many ports: raise LimitNOFILE of the service"
        );
    }
}

/// Tells the service manager, if there is one.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// Starts, serves, and ends when told to.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (configured, text) = read(&arguments.config)?;
    let journal = Journal::open(&configured.daemon.log)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        config = %arguments.config.display(),
        "fabnicd starts"
    );
    let state_path = state_path(arguments);
    let mut state = state_path.as_ref().map(|path| StateFile::new(path, &arguments.config, &text));
    // Before anything of an earlier daemon is touched: it may be alive.
    let (api_socket, listener) = api_socket::bind(Path::new(&configured.daemon.api))?;
    let config = match &mut state {
        Some(state) => take_up_state(state, configured)?,
        None => {
            tracing::info!(
                "changes at run time end with the daemon: neither --state nor STATE_DIRECTORY is given"
            );
            configured
        }
    };
    // Before files are restricted: nothing else of it is needed.
    let audit = Arc::new(Audit::to_file(open_audit(config.daemon.audit.as_deref())?));
    raise_descriptor_limit();
    check_descriptor_limit(config.port.len());
    let tap = config.port.iter().any(|port| port.uplink == Some(Uplink::Tap));
    let saved = saved_path(&config, state_path.as_deref());
    let boot = fabnic_agent::boot_id();
    restrict_this_thread(arguments, &config, [state_path.as_deref(), saved.as_deref()], tap)?;

    let log = journal.clone();
    let options = AgentOptions {
        state,
        set_log: Some(Box::new(move |filter| log.set_filter(filter).map_err(|e| format!("{e:#}")))),
        saved,
        boot,
    };
    let (ports, workers) = (config.port.len(), config.daemon.workers.len().max(1));
    let agent = Agent::start(config, options)?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        // Threads that may block are started when first needed; all of them inherit the filter.
        if arguments.wants(SandboxPart::Syscalls) {
            system_calls::restrict()?;
            tracing::info!("sandbox: system calls outside of the list are refused (seccomp)");
        } else {
            tracing::warn!("sandbox: system calls are not restricted, as asked for");
        }
        let listener = UnixListener::from_std(listener).context("cannot take up the API socket")?;
        let ready = format!("{ports} ports, {workers} workers");
        serve(arguments, &agent, &journal, listener, &audit, &ready).await
    });
    // Requests that still block have two seconds.
    runtime.shutdown_timeout(Duration::from_secs(2));
    agent.stop();
    drop(api_socket);
    journal.report();
    tracing::info!("fabnicd ended");
    result
}

/// The file that gets who changed what.
fn open_audit(path: Option<&str>) -> Result<Option<std::fs::File>> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let Some(path) = path else { return Ok(None) };
    let file = std::fs::File::options().append(true).create(true).mode(0o600).open(path);
    file.map(Some).with_context(|| format!("cannot open the audit log {path}"))
}

/// Gives up files and capabilities, while there is one thread.
fn restrict_this_thread(
    arguments: &Arguments,
    config: &Config,
    kept: [Option<&Path>; 2],
    tap: bool,
) -> Result<()> {
    if arguments.wants(SandboxPart::Files) {
        let needs = Needs::of(config, &arguments.config, kept, &arguments.allow_dir);
        let status = files::restrict_to(&needs)?;
        tracing::info!(writable = needs.writable(), "sandbox: files are restricted (landlock), {status}");
    } else {
        tracing::warn!("sandbox: files are not restricted, as asked for");
    }
    if arguments.wants(SandboxPart::Capabilities) {
        let mut keep = arguments.keep_capability.clone();
        if tap {
            keep.push(Capability::CAP_NET_ADMIN);
        }
        let left = capabilities::drop_all_but(&keep)?;
        let left: Vec<_> = left.iter().map(ToString::to_string).collect();
        let left = if left.is_empty() { "none".to_owned() } else { left.join(" ") };
        tracing::info!(left, "sandbox: capabilities are dropped");
    } else {
        tracing::warn!("sandbox: capabilities are kept, as asked for");
    }
    Ok(())
}

/// Signals, each taken up before the daemon says that it is ready.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        let take = |kind| signal(kind).context("cannot take up a signal");
        Ok(Signals {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }
}

/// Serves the API and looks after the daemon until a signal ends it.
async fn serve(
    arguments: &Arguments,
    agent: &Arc<Agent>,
    journal: &Journal,
    listener: UnixListener,
    audit: &Arc<Audit>,
    ready: &str,
) -> Result<()> {
    let mut signals = Signals::new()?;
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let served = Options { doors: agent.tenant_doors(), audit: Arc::clone(audit) };
    let api = fabnic_api::serve(listener, Arc::clone(agent) as Arc<dyn fabnic_api::Backend>, served, async {
        // An error means that the sender is gone: the daemon ends too.
        let _ = ended.await;
    });
    let mut api = tokio::spawn(api);
    let mut report = tokio::time::interval(REPORT);
    report.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Twice as often as asked for, as sd_watchdog_enabled(3) recommends.
    let period = sd_notify::watchdog_enabled().map(|timeout| timeout / 2);
    let mut watchdog = period.map(tokio::time::interval);
    // One after the other, beside everything else: thousands of ports take their time.
    let mut reload = tokio::task::JoinSet::new();
    let mut reload_again = false;

    notify(&[NotifyState::Ready, NotifyState::Status(ready)]);
    tracing::info!("ready: {ready}");
    let why = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break "SIGTERM",
            _ = signals.interrupt.recv() => break "SIGINT",
            _ = signals.hang_up.recv() => {
                reload_again = !reload.is_empty();
                if reload.is_empty() {
                    reload.spawn(reread(arguments.config.clone(), Arc::clone(agent), Arc::clone(audit)));
                }
            }
            Some(_) = reload.join_next() => {
                if std::mem::take(&mut reload_again) {
                    reload.spawn(reread(arguments.config.clone(), Arc::clone(agent), Arc::clone(audit)));
                }
            }
            _ = report.tick() => journal.report(),
            () = tick(&mut watchdog) => feed(agent).await,
            result = &mut api => {
                let problem = match result {
                    Ok(Ok(())) => "it returned".to_owned(),
                    Ok(Err(e)) => e.to_string(),
                    Err(e) => e.to_string(),
                };
                notify(&[NotifyState::Stopping]);
                bail!("the API ended by itself: {problem}");
            }
        }
    };
    tracing::info!("{why}: fabnicd ends");
    notify(&[NotifyState::Stopping, NotifyState::Status("ending")]);
    // The API gives requests in flight their time.
    let _ = end.send(());
    match api.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(e).context("the API ended with an error"),
        Err(e) => Err(e).context("the API panicked"),
    }
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// Tells the service manager that all is well, if it is.
async fn feed(agent: &Arc<Agent>) {
    let agent = Arc::clone(agent);
    match tokio::task::spawn_blocking(move || agent.health()).await {
        Ok(health) if health.healthy => notify(&[NotifyState::Watchdog]),
        Ok(health) => {
            let reason = health.reason.unwrap_or_default();
            tracing::error!(reason, "the watchdog is not fed: the daemon is not well");
        }
        Err(error) => tracing::error!(%error, "the watchdog is not fed: the daemon's health is unknown"),
    }
}

/// SIGHUP: makes the running state equal to the configuration file.
async fn reread(file: PathBuf, agent: Arc<Agent>, audit: Arc<Audit>) {
    let reloading = NotifyState::monotonic_usec_now()
        .map_or_else(|_| vec![NotifyState::Reloading], |now| vec![NotifyState::Reloading, now]);
    notify(&reloading);
    let result = tokio::task::spawn_blocking(move || -> Result<usize> {
        let reloaded = read(&file).and_then(|(config, text)| Ok(agent.reload(config, &file, &text)?));
        match &reloaded {
            Ok(changes) => audit.note(&Who::default(), "SIGHUP", Ok(changes)),
            Err(error) => audit.note(&Who::default(), "SIGHUP", Err(&format!("{error:#}"))),
        }
        let changes = reloaded?;
        for change in &changes {
            tracing::info!("SIGHUP: {change}");
        }
        Ok(changes.len())
    })
    .await;
    match result {
        Ok(Ok(changes)) => tracing::info!(changes, "SIGHUP: the configuration file is in force"),
        Ok(Err(error)) => tracing::error!("SIGHUP: nothing has changed: {error:#}"),
        Err(error) => tracing::error!(%error, "SIGHUP: the configuration was not read"),
    }
    notify(&[NotifyState::Ready]);
}
