//! What each command asks and how its answer is shown.

use std::{
    io::{IsTerminal as _, Read as _},
    time::Duration,
};

use anyhow::Context as _;
use clap::CommandFactory as _;
use fabnic_api::{
    Applied, FdbFilter, FdbPage, FdbStatus, Forgotten, Health, PortStats, PortStatus, Stats as AllStats,
    VlanMembership, WorkerStatus,
};
use fabnic_model::Config as Desired;
use hyper::Method;
use indicatif::ProgressBar;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    args::{Apply, Args, Binding, Command, Config, Fdb, Flow, Lldp, Port, Stats, Vlan, Worker},
    capture,
    client::{Client, Content, Failure, decode, escape, query},
    generate, policy, saved, show, state, top, words,
};

/// One run of the program.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let out = Out { client: Client::new(&args.api, args.token), json: args.json };
    match args.command {
        Command::Status => out.get("/v1/health", show::health as fn(&Health) -> String).await,
        Command::Port(command) => port(&out, command).await,
        Command::Fdb(command) => fdb(&out, command).await,
        Command::Vlan(Vlan::Show { words }) => {
            let FdbFilter { port, vlan, mac: None, kind: None, .. } = words::fdb(&words)? else {
                return Err(Failure::Usage("a port's VLANs are found by `port` and `vlan` only".into()));
            };
            let query = query([("port", port), ("vlan", vlan.map(|v| v.to_string()))]);
            out.get(&format!("/v1/vlans{query}"), |list: &Vec<VlanMembership>| show::vlans(list)).await
        }
        Command::Stats(Stats::Show { port, queues, watch }) => stats(&out, port, queues, watch).await,
        Command::Worker(Worker::Show) => {
            out.get("/v1/workers", |list: &Vec<WorkerStatus>| show::workers(list)).await
        }
        Command::Config(Config::Show) => {
            let config: Desired = if out.json {
                return out.get("/v1/config", |_: &Value| String::new()).await;
            } else {
                out.client.get("/v1/config").await?
            };
            print(&config.to_toml()?);
            Ok(())
        }
        Command::Rule(command) => policy::rule(&out, command).await,
        Command::Group(command) => policy::group(&out, command).await,
        Command::Mirror(command) => policy::mirror(&out, command).await,
        Command::Tenant(command) => policy::tenant(&out, command).await,
        Command::Binding(Binding::Show { words }) => {
            let path = binding_path(&words)?;
            out.get(&path, |list: &Vec<fabnic_api::BindingStatus>| show::bindings(list)).await
        }
        Command::Binding(Binding::Del { words }) => {
            let answer = out.client.text(Method::DELETE, &binding_path(&words)?, Content::Nothing).await?;
            out.say(&answer, |gone: &Forgotten| show::bindings_forgotten(*gone))
        }
        Command::Lldp(Lldp::Show) => {
            out.get("/v1/lldp", |list: &Vec<fabnic_api::LldpStatus>| show::lldp(list)).await
        }
        Command::Conn(command) => state::conn(&out, command).await,
        Command::Meter(command) => state::meter(&out, command).await,
        Command::Mdb(command) => state::mdb(&out, command).await,
        Command::State(command) => saved::state(&out, command).await,
        Command::Flow(Flow::Show { port, limit }) => {
            let path = format!("/v1/flows{}", query([("port", port), ("limit", Some(limit.to_string()))]));
            out.get(&path, |list: &Vec<fabnic_api::FlowStatus>| show::flows(list)).await
        }
        Command::Trace(wanted) => policy::trace(&out, wanted).await,
        Command::Why { port } => {
            let path = format!("/v1/why{}", query([("port", Some(port))]));
            out.get(&path, |list: &Vec<fabnic_api::RecentDrop>| show::why(list)).await
        }
        Command::Events => policy::events(&out).await,
        Command::Audit { limit } => {
            let path = format!("/v1/audit{}", query([("limit", Some(limit.to_string()))]));
            out.get(&path, |list: &Vec<fabnic_api::AuditEntry>| show::audit(list)).await
        }
        Command::Capture(wanted) => capture::run(&out.client, wanted).await,
        Command::Apply(wanted) => apply(&out, wanted).await,
        Command::Top { interval } => top::run(&out.client, Duration::from_secs_f64(interval)).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "fabnic", &mut std::io::stdout());
            Ok(())
        }
        Command::Man { dir } => generate::man(&dir).map_err(Failure::Other),
        Command::Gen { dir } => generate::docs(&dir).map_err(Failure::Other),
    }
}

/// Prints without falling over a reader that went (`fabnic fdb show | head`).
pub(crate) fn print(text: &str) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Where answers come from and how they are shown.
pub(crate) struct Out {
    pub(crate) client: Client,
    pub(crate) json: bool,
}

impl Out {
    /// Prints an answer: as it came, or for people.
    pub(crate) fn say<T: DeserializeOwned>(
        &self,
        answer: &[u8],
        human: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            let value: Value = decode(answer)?;
            self.say_json(&value)
        } else {
            print(&human(&decode(answer)?));
            Ok(())
        }
    }

    pub(crate) fn say_json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        print(&text);
        Ok(())
    }

    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        human: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let answer = self.client.text(Method::GET, path, Content::Nothing).await?;
        self.say(&answer, human)
    }

    pub(crate) async fn change(&self, method: Method, path: &str, content: Content) -> Result<(), Failure> {
        let answer = self.client.text(method, path, content).await?;
        self.say(&answer, |applied: &Applied| show::applied(applied))
    }
}

pub(crate) fn dry(dry_run: bool) -> Option<String> {
    dry_run.then(|| "true".to_owned())
}

async fn port(out: &Out, command: Port) -> Result<(), Failure> {
    match command {
        Port::Show { name: None } => out.get("/v1/ports", |list: &Vec<PortStatus>| show::ports(list)).await,
        Port::Show { name: Some(name) } => {
            let path = format!("/v1/ports/{}", escape(&name));
            let answer = out.client.text(Method::GET, &path, Content::Nothing).await?;
            if out.json {
                return out.say(&answer, |_: &Value| String::new());
            }
            let status: PortStatus = decode(&answer)?;
            let counters = one_port(out, &name).await?;
            print(&show::port(&status, counters.as_ref()));
            Ok(())
        }
        Port::Add(wanted) => {
            let mut keys = words::port(&wanted.words)?;
            keys.retain(|_, value| !value.is_null());
            keys.insert("name".into(), json!(wanted.name));
            let path = format!("/v1/ports{}", query([("dry_run", dry(wanted.dry_run))]));
            out.change(Method::POST, &path, Content::Json(Value::Object(keys))).await
        }
        Port::Set(wanted) => {
            let keys = words::port(&wanted.words)?;
            let path =
                format!("/v1/ports/{}{}", escape(&wanted.name), query([("dry_run", dry(wanted.dry_run))]));
            out.change(Method::PATCH, &path, Content::Json(Value::Object(keys))).await
        }
        Port::Del { name, dry_run } => {
            let path = format!("/v1/ports/{}{}", escape(&name), query([("dry_run", dry(dry_run))]));
            out.change(Method::DELETE, &path, Content::Nothing).await
        }
    }
}

async fn one_port(out: &Out, name: &str) -> Result<Option<PortStats>, Failure> {
    let path =
        format!("/v1/stats{}", query([("port", Some(name.to_owned())), ("queues", Some("true".into()))]));
    let stats: AllStats = out.client.get(&path).await?;
    Ok(stats.ports.into_iter().next())
}

fn binding_path(words: &[String]) -> Result<String, Failure> {
    let filter = words::binding(words)?;
    let query = query([
        ("port", filter.port),
        ("vlan", filter.vlan.map(|v| v.to_string())),
        ("address", filter.address.map(|a| a.to_string())),
    ]);
    Ok(format!("/v1/bindings{query}"))
}

fn fdb_path(filter: FdbFilter) -> String {
    let kind = filter.kind.map(|kind| match kind {
        fabnic_api::FdbKind::Learned => "learned".to_owned(),
        fabnic_api::FdbKind::Static => "static".to_owned(),
    });
    let query = query([
        ("port", filter.port),
        ("vlan", filter.vlan.map(|v| v.to_string())),
        ("mac", filter.mac.map(|m| m.to_string())),
        ("kind", kind),
        ("limit", filter.limit.map(|l| l.to_string())),
    ]);
    format!("/v1/fdb{query}")
}

async fn fdb(out: &Out, command: Fdb) -> Result<(), Failure> {
    match command {
        Fdb::Show { words, limit } => {
            let filter = FdbFilter { limit: Some(limit), ..words::fdb(&words)? };
            out.get(&fdb_path(filter), |page: &FdbPage| show::fdb(page)).await
        }
        Fdb::Stats => out.get("/v1/fdb/stats", |status: &FdbStatus| show::fdb_stats(status)).await,
        Fdb::Add { words, dry_run } => {
            let filter = words::fdb(&words)?;
            let (Some(mac), Some(vlan), Some(port)) = (filter.mac, filter.vlan, filter.port) else {
                return Err(Failure::Usage("an entry needs all of: MAC port NAME vlan N".into()));
            };
            if filter.kind == Some(fabnic_api::FdbKind::Learned) {
                return Err(Failure::Usage("only static entries can be added".into()));
            }
            let path = format!("/v1/fdb{}", query([("dry_run", dry(dry_run))]));
            let entry = json!({ "mac": mac, "vlan": vlan, "port": port });
            out.change(Method::POST, &path, Content::Json(entry)).await
        }
        Fdb::Del { words } => {
            let path = fdb_path(words::fdb(&words)?);
            let answer = out.client.text(Method::DELETE, &path, Content::Nothing).await?;
            out.say(&answer, |gone: &Forgotten| show::forgotten(*gone))
        }
    }
}

async fn stats(out: &Out, port: Option<String>, queues: bool, watch: Option<f64>) -> Result<(), Failure> {
    let path = format!("/v1/stats{}", query([("port", port), ("queues", queues.then(|| "true".to_owned()))]));
    let Some(seconds) = watch else {
        return out.get(&path, |stats: &AllStats| show::stats(stats)).await;
    };
    let mut before: Option<(tokio::time::Instant, AllStats)> = None;
    let mut tick = tokio::time::interval(Duration::from_secs_f64(seconds));
    loop {
        tick.tick().await;
        let answer = match out.client.text(Method::GET, &path, Content::Nothing).await {
            Ok(answer) => answer,
            // A daemon that is started again is worth waiting for, once it was there.
            Err(failure @ Failure::Unreachable(..)) if before.is_some() => {
                eprintln!("fabnic: {failure}");
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let now = tokio::time::Instant::now();
        if out.json {
            // One line a look, for programs.
            let value: Value = decode(&answer)?;
            print(&format!("{value}\n"));
            before.get_or_insert((now, AllStats::default()));
            continue;
        }
        let stats: AllStats = decode(&answer)?;
        if let Some((then, before)) = &before {
            print(&show::rates(before, &stats, (now - *then).as_secs_f64()));
        }
        before = Some((now, stats));
    }
}

async fn apply(out: &Out, wanted: Apply) -> Result<(), Failure> {
    let name = wanted.file.display().to_string();
    let text = if name == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input").map_err(Failure::Other)?;
        text
    } else {
        std::fs::read_to_string(&wanted.file).with_context(|| name.clone()).map_err(Failure::Other)?
    };
    let path = format!("/v1/config{}", query([("dry_run", dry(wanted.dry_run))]));
    let waiting = spinner("waiting for the daemon");
    let answer = out.client.text(Method::PUT, &path, Content::Toml(text)).await;
    waiting.finish_and_clear();
    let answer = answer.map_err(|failure| match failure {
        Failure::Refused(body) => {
            Failure::RefusedFile(if name == "-" { "standard input".to_owned() } else { name }, Box::new(body))
        }
        other => other,
    })?;
    out.say(&answer, |applied: &Applied| show::applied(applied))
}

/// Says on a terminal that something takes its time.
fn spinner(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(Duration::from_millis(250));
    spinner
}
