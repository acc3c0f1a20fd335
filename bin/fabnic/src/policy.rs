//! Commands about rules, groups, mirrors, tenants and traces.

use std::{io::Read, path::Path};

use fabnic_api::{GroupStatus, MirrorStatus, RuleStatus, TenantStatus, TraceReport, TraceRequest};
use fabnic_model::{Rule as ModelRule, WordError, rule::Match};
use fabnic_pcap::{MAX_PACKET, Reader};
use http_body_util::BodyExt as _;
use hyper::Method;
use serde_json::{Map, Value, json};

use crate::{
    args::{Group, Mirror, Rule, RuleWords, Tenant, Trace},
    client::{Client, Content, Failure, escape, query},
    commands::{Out, dry, print},
    show, words,
};

fn wrong(error: &WordError) -> Failure {
    Failure::Usage(error.to_string())
}

/// The rule of these words; a name with a slash says whose it is.
fn read(wanted: &RuleWords) -> Result<ModelRule, Failure> {
    let (tenant, name) = match wanted.name.split_once('/') {
        Some((tenant, name)) => (Some(tenant), name),
        None => (None, wanted.name.as_str()),
    };
    let list: Vec<&str> = wanted.words.iter().map(String::as_str).collect();
    let mut rule = ModelRule::of_words(name, &list).map_err(|error| wrong(&error))?;
    if let Some(tenant) = tenant
        && rule.tenant.replace(tenant.to_owned()).is_some_and(|other| other != tenant)
    {
        return Err(Failure::Usage(format!(
            "the rule is of tenant {tenant} by its name, and of another by `tenant`"
        )));
    }
    Ok(rule)
}

pub(crate) async fn rule(out: &Out, command: Rule) -> Result<(), Failure> {
    match command {
        Rule::Show { name: None } => out.get("/v1/rules", |list: &Vec<RuleStatus>| show::rules(list)).await,
        Rule::Show { name: Some(name) } => {
            let path = format!("/v1/rules/{}", escape(&name));
            out.get(&path, |rule: &RuleStatus| show::rules(std::slice::from_ref(rule))).await
        }
        Rule::Add(wanted) => {
            let rule = read(&wanted)?;
            let path = format!("/v1/rules{}", query([("dry_run", dry(wanted.dry_run))]));
            out.change(Method::POST, &path, Content::Json(serde_json::to_value(&rule)?)).await
        }
        Rule::Set(wanted) => {
            let rule = serde_json::to_value(read(&wanted)?)?;
            // What the words do not say goes back to its default.
            let mut patch = Map::new();
            for key in ["port", "direction", "group", "priority", "match", "action"] {
                patch.insert(key.into(), rule.get(key).cloned().unwrap_or(Value::Null));
            }
            let path =
                format!("/v1/rules/{}{}", escape(&wanted.name), query([("dry_run", dry(wanted.dry_run))]));
            out.change(Method::PATCH, &path, Content::Json(Value::Object(patch))).await
        }
        Rule::Del { names, dry_run } => {
            let query = query([("dry_run", dry(dry_run))]);
            if let [name] = names.as_slice() {
                let path = format!("/v1/rules/{}{query}", escape(name));
                return out.change(Method::DELETE, &path, Content::Nothing).await;
            }
            let edits: Vec<Value> = names.iter().map(|name| json!({ "op": "del", "name": name })).collect();
            out.change(Method::POST, &format!("/v1/rules/batch{query}"), Content::Json(edits.into())).await
        }
    }
}

pub(crate) async fn group(out: &Out, command: Group) -> Result<(), Failure> {
    match command {
        Group::Show { name } => {
            let list: Vec<GroupStatus> = out.client.get("/v1/groups").await?;
            let Some(name) = name else {
                if out.json {
                    return out.say_json(&list);
                }
                print(&show::groups(&list));
                return Ok(());
            };
            let found = list.iter().find(|group| group.id == name || group.group.name == name);
            let found = found.ok_or_else(|| Failure::Other(anyhow::anyhow!("there is no group `{name}`")))?;
            if out.json {
                return out.say_json(found);
            }
            print(&show::group(found));
            Ok(())
        }
        Group::Add { name, addresses, dry_run } => {
            let mut group = json!({ "name": name, "addresses": addresses });
            if let Some((tenant, name)) = name.split_once('/') {
                group = json!({ "name": name, "tenant": tenant, "addresses": addresses });
            }
            let path = format!("/v1/groups{}", query([("dry_run", dry(dry_run))]));
            out.change(Method::POST, &path, Content::Json(group)).await
        }
        Group::Set { name, changes } => {
            let (mut add, mut del) = (Vec::new(), Vec::new());
            for change in &changes {
                match change.split_at_checked(1) {
                    Some(("+", address)) => add.push(address),
                    Some(("-", address)) => del.push(address),
                    _ => {
                        return Err(Failure::Usage(format!(
                            "`{change}` neither comes nor goes: write + or - before it"
                        )));
                    }
                }
            }
            let path = format!("/v1/groups/{}/members", escape(&name));
            out.change(Method::POST, &path, Content::Json(json!({ "add": add, "del": del }))).await
        }
        Group::Del { name, dry_run } => {
            let path = format!("/v1/groups/{}{}", escape(&name), query([("dry_run", dry(dry_run))]));
            out.change(Method::DELETE, &path, Content::Nothing).await
        }
    }
}

/// An object to be added: its keys, and its name, before which that of its tenant may stand (`tenant/name`).
pub(crate) fn named(name: &str, mut keys: Map<String, Value>) -> Value {
    keys.retain(|_, value| !value.is_null());
    let name = match name.split_once('/') {
        Some((tenant, name)) => {
            keys.insert("tenant".into(), json!(tenant));
            name
        }
        None => name,
    };
    keys.insert("name".into(), json!(name));
    Value::Object(keys)
}

pub(crate) async fn mirror(out: &Out, command: Mirror) -> Result<(), Failure> {
    match command {
        Mirror::Show => out.get("/v1/mirrors", |list: &Vec<MirrorStatus>| show::mirrors(list)).await,
        Mirror::Add(wanted) => {
            let body = named(&wanted.name, words::mirror(&wanted.words)?);
            let path = format!("/v1/mirrors{}", query([("dry_run", dry(wanted.dry_run))]));
            out.change(Method::POST, &path, Content::Json(body)).await
        }
        Mirror::Set(wanted) => {
            let keys = words::mirror(&wanted.words)?;
            let path =
                format!("/v1/mirrors/{}{}", escape(&wanted.name), query([("dry_run", dry(wanted.dry_run))]));
            out.change(Method::PATCH, &path, Content::Json(Value::Object(keys))).await
        }
        Mirror::Del { name, dry_run } => {
            let path = format!("/v1/mirrors/{}{}", escape(&name), query([("dry_run", dry(dry_run))]));
            out.change(Method::DELETE, &path, Content::Nothing).await
        }
    }
}

pub(crate) async fn tenant(out: &Out, command: Tenant) -> Result<(), Failure> {
    match command {
        Tenant::Show => out.get("/v1/tenants", |list: &Vec<TenantStatus>| show::tenants(list)).await,
        Tenant::Token => {
            let token = token()?;
            let hash = fabnic_api::hash_of_token(&token);
            if out.json {
                return out.say_json(&json!({ "token": token, "hash": hash }));
            }
            print(&format!("{token}\n\n# in the tenant's [[tenant]]:\ntoken = \"{hash}\"\n"));
            Ok(())
        }
    }
}

/// 256 bits that nobody can guess, as hexadecimal digits.
fn token() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The `nth` frame of a capture file, as hexadecimal digits. Of the file no more is read than that.
fn frame_of(file: &Path, nth: u64) -> Result<String, Failure> {
    let about =
        |error: &dyn std::fmt::Display| Failure::Other(anyhow::anyhow!("{}: {error}", file.display()));
    let input: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin().lock()),
        _ => Box::new(std::io::BufReader::new(std::fs::File::open(file).map_err(|e| about(&e))?)),
    };
    let mut frames = Reader::new(input).map_err(|e| about(&e))?;
    for before in 0..nth {
        let Some(frame) = frames.next_packet().map_err(|e| about(&e))? else {
            return Err(about(&format!(
                "the file has {}, and number {nth} is asked for",
                show::count(before, "frame")
            )));
        };
        if before + 1 == nth {
            // What the capture left out does not matter to the stages, but the length does.
            let len = frame.bytes.len().max(frame.original_len.min(MAX_PACKET) as usize);
            let rest = std::iter::repeat_n(&0, len - frame.bytes.len());
            return Ok(frame.bytes.iter().chain(rest).map(|byte| format!("{byte:02x}")).collect());
        }
    }
    Err(about(&"frames are counted from 1"))
}

pub(crate) async fn trace(out: &Out, wanted: Trace) -> Result<(), Failure> {
    let hex = match &wanted.pcap {
        Some(file) => Some(frame_of(file, wanted.nth)?),
        None => wanted.hex,
    };
    let packet = if hex.is_none() {
        let list: Vec<&str> = wanted.words.iter().map(String::as_str).collect();
        Some(Match::of_words(&list).map_err(|error| wrong(&error))?)
    } else {
        None
    };
    let request = TraceRequest { port: wanted.port, packet, hex };
    let content = Content::Json(serde_json::to_value(&request)?);
    let answer = out.client.text(Method::POST, "/v1/trace", content).await?;
    out.say(&answer, |report: &TraceReport| show::trace(report))
}

/// Prints events until the daemon or the reader goes.
pub(crate) async fn events(out: &Out) -> Result<(), Failure> {
    let client: &Client = &out.client;
    let mut body = client.send(Method::GET, "/v1/events", Content::Nothing).await?.into_body();
    while let Some(frame) = body.frame().await {
        if let Ok(lines) = frame?.into_data() {
            print(&String::from_utf8_lossy(&lines));
        }
    }
    Ok(())
}
