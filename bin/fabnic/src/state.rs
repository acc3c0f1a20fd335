//! Commands about what the switch holds by itself: connections, meters' tokens, members of multicast groups.

use std::fmt::Write as _;

use fabnic_api::{
    ConnectionFilter, ConnectionPage, ConnectionSide, ConntrackStatus, Forgotten, MdbKind, MdbMode, MdbSide,
    MdbVlan, MeterStatus, MulticastStatus, TokenBucket,
};
use hyper::Method;
use serde_json::{Value, json};

use crate::{
    args::{Conn, Mdb, Meter},
    client::{Content, Failure, escape, query},
    commands::{Out, dry},
    policy::named,
    show::{count, or_dash, seconds, si, table},
    words,
};

fn connections_path(filter: ConnectionFilter) -> String {
    let text = |n: Option<u64>| n.map(|n| n.to_string());
    let query = query([
        ("port", filter.port),
        ("zone", text(filter.zone.map(u64::from))),
        ("address", filter.address.map(|address| address.to_string())),
        ("ip_proto", filter.ip_proto.map(|protocol| protocol.to_string())),
        ("limit", text(filter.limit.and_then(|limit| u64::try_from(limit).ok()))),
        ("from", text(filter.from.map(u64::from))),
    ]);
    format!("/v1/connections{query}")
}

pub(crate) async fn conn(out: &Out, command: Conn) -> Result<(), Failure> {
    match command {
        Conn::Show { words, limit, from } => {
            let filter = ConnectionFilter { limit: Some(limit), from, ..words::connection(&words)? };
            out.get(&connections_path(filter), connections).await
        }
        Conn::Flush { words } => {
            let filter = match words.as_slice() {
                [all] if all == "all" => ConnectionFilter::default(),
                words => words::connection(words)?,
            };
            let answer = out.client.text(Method::DELETE, &connections_path(filter), Content::Nothing).await?;
            let text = |gone: &Forgotten| format!("{} forgotten\n", count(gone.forgotten, "connection"));
            out.say(&answer, text)
        }
        Conn::Stats => out.get("/v1/conntrack", conntrack).await,
    }
}

/// `10.0.0.1:40000 > 10.0.0.2:443`.
fn direction(side: &ConnectionSide) -> String {
    let end = |ip: std::net::IpAddr, port: Option<u16>| match port {
        Some(port) => std::net::SocketAddr::new(ip, port).to_string(),
        None => ip.to_string(),
    };
    let id = side.icmp_id.map(|id| format!(" id {id}")).unwrap_or_default();
    format!("{} > {}{id}", end(side.src_ip, side.src_port), end(side.dst_ip, side.dst_port))
}

fn connections(page: &ConnectionPage) -> String {
    let rows = page.entries.iter().map(|c| {
        vec![
            c.zone.to_string(),
            c.port.clone(),
            c.ip_proto.clone(),
            c.tcp.clone().unwrap_or_else(|| c.state.clone()),
            direction(&c.original),
            direction(&c.reply),
            c.mark.to_string(),
            format!("{}/{}", c.original.passed.frames, c.reply.passed.frames),
            seconds(c.expires_seconds.into()),
        ]
    });
    let header = ["ZONE", "PORT", "PROTO", "STATE", "ORIGINAL", "REPLY", "MARK", "FRAMES", "ENDS IN"];
    let mut text = table(&header, &["ZONE", "MARK", "FRAMES", "ENDS IN"], rows);
    if let Some(next) = page.next {
        // Writing to a string does not fail.
        let _ = writeln!(text, "there are more: go on with --from {next}");
    }
    text
}

fn conntrack(status: &ConntrackStatus) -> String {
    let rows = status.zones.iter().map(|zone| {
        let numbers = [zone.connections, zone.created, zone.expired, zone.refused, zone.invalid];
        std::iter::once(u64::from(zone.zone)).chain(numbers).map(|n| n.to_string()).collect()
    });
    let header = ["ZONE", "CONNECTIONS", "MADE", "EXPIRED", "REFUSED", "INVALID"];
    format!(
        "{} (at most {} at once so far), {} refused, {} that nothing was left to translate to\n\n{}",
        count(status.connections, "connection"),
        status.peak,
        status.refused,
        status.exhausted,
        table(&header, &header, rows),
    )
}

pub(crate) async fn meter(out: &Out, command: Meter) -> Result<(), Failure> {
    let path =
        |name: &str, dry_run| format!("/v1/meters/{}{}", escape(name), query([("dry_run", dry(dry_run))]));
    match command {
        Meter::Show { port } => {
            let path = format!("/v1/meters{}", query([("port", port)]));
            out.get(&path, |list: &Vec<MeterStatus>| meters(list)).await
        }
        Meter::Add(wanted) => {
            let body = named(&wanted.name, words::meter(&wanted.words)?);
            let path = format!("/v1/meters{}", query([("dry_run", dry(wanted.dry_run))]));
            out.change(Method::POST, &path, Content::Json(body)).await
        }
        Meter::Set(wanted) => {
            let keys = Value::Object(words::meter(&wanted.words)?);
            out.change(Method::PATCH, &path(&wanted.name, wanted.dry_run), Content::Json(keys)).await
        }
        Meter::Del { name, dry_run } => {
            out.change(Method::DELETE, &path(&name, dry_run), Content::Nothing).await
        }
    }
}

fn meters(meters: &[MeterStatus]) -> String {
    let rows = meters.iter().map(|m| {
        let rate = |rate: u64| format!("{}{}", si(rate as f64), if m.packets { "pps" } else { "bit/s" });
        let other = m.peak.or(m.excess);
        let tokens = |bucket: TokenBucket| format!("{}/{}", bucket.tokens, bucket.burst);
        vec![
            m.id.clone(),
            m.place.as_str().to_owned(),
            or_dash(m.committed.rate.map(rate)),
            tokens(m.committed),
            or_dash(other.and_then(|other| other.rate).map(rate)),
            or_dash(other.map(tokens)),
            m.green.frames.to_string(),
            m.yellow.frames.to_string(),
            m.red.frames.to_string(),
            m.refused_by_other.frames.to_string(),
        ]
    });
    let header = [
        "METER",
        "PLACE",
        "RATE",
        "TOKENS",
        "SECOND RATE",
        "SECOND TOKENS",
        "GREEN",
        "YELLOW",
        "RED",
        "OTHERS'",
    ];
    table(&header, header.get(2..).unwrap_or_default(), rows)
}

pub(crate) async fn mdb(out: &Out, command: Mdb) -> Result<(), Failure> {
    match command {
        Mdb::Show { words, limit } => {
            let filter = words::mdb(&words)?;
            let query = query([
                ("port", filter.port),
                ("vlan", filter.vlan.map(|vlan| vlan.to_string())),
                ("group", filter.group.map(|group| group.to_string())),
                ("limit", Some(limit.to_string())),
            ]);
            out.get(&format!("/v1/mdb{query}"), |list: &Vec<MdbVlan>| members(list)).await
        }
        Mdb::Stats => out.get("/v1/multicast", |list: &Vec<MulticastStatus>| multicast(list)).await,
        Mdb::Add { words, dry_run } => {
            let filter = words::mdb(&words)?;
            let (Some(port), Some(vlan), Some(group)) = (filter.port, filter.vlan, filter.group) else {
                return Err(Failure::Usage("a member is: GROUP port NAME vlan N".into()));
            };
            let member = json!({ "vlan": vlan, "group": group, "port": port });
            let path = format!("/v1/mdb{}", query([("dry_run", dry(dry_run))]));
            out.change(Method::POST, &path, Content::Json(member)).await
        }
        Mdb::Del { words } => {
            let filter = words::mdb(&words)?;
            let query = query([
                ("port", filter.port),
                ("vlan", filter.vlan.map(|vlan| vlan.to_string())),
                ("group", filter.group.map(|group| group.to_string())),
            ]);
            out.change(Method::DELETE, &format!("/v1/mdb{query}"), Content::Nothing).await
        }
    }
}

fn multicast(list: &[MulticastStatus]) -> String {
    let rows = list.iter().flat_map(|of| {
        [("igmp", &of.igmp), ("mld", &of.mld)].map(|(protocol, count)| {
            let (asks, restricts) = (count.asks, count.restricts);
            vec![
                of.vlan.to_string(),
                protocol.to_owned(),
                count.groups.to_string(),
                count.members.to_string(),
                count.routers.to_string(),
                if asks { "the switch" } else { "-" }.to_owned(),
                if restricts { "listeners" } else { "the whole VLAN" }.to_owned(),
            ]
        })
    });
    let header = ["VLAN", "PROTOCOL", "GROUPS", "MEMBERS", "ROUTERS", "ASKS", "GROUPS GO TO"];
    let mut text = table(&header, &["VLAN", "GROUPS", "MEMBERS", "ROUTERS"], rows);
    let rows = list.iter().map(|of| {
        let c = &of.counters;
        let numbers =
            [c.queries, c.queries_sent, c.reports, c.leaves, c.routers, c.other, c.refused, c.malformed];
        let numbers = numbers.iter().map(u64::to_string);
        core::iter::once(of.vlan.to_string()).chain(numbers).collect()
    });
    let header =
        ["VLAN", "QUERIES", "SENT", "REPORTS", "LEAVES", "ROUTERS", "OTHER", "OVER A LIMIT", "NOT BELIEVED"];
    text.push('\n');
    text.push_str(&table(&header, &header, rows));
    text
}

fn side(name: &str, side: &MdbSide) -> String {
    let querier = match &side.querier {
        None => "no querier, groups go to the whole VLAN".to_owned(),
        Some(querier) => {
            let place = match (&querier.port, querier.expires_seconds) {
                (Some(port), Some(left)) => format!(" behind {port}, for {} more", seconds(left)),
                (None, Some(left)) => format!(", for {} more", seconds(left)),
                (_, None) => " (the switch itself)".to_owned(),
            };
            let waits = if side.restricts { "" } else { ", hosts have their time to answer" };
            format!("querier {}{place}{waits}", querier.address)
        }
    };
    let routers: Vec<_> = side.routers.iter().map(|router| router.port.as_str()).collect();
    let routers =
        if routers.is_empty() { String::new() } else { format!("; routers behind {}", routers.join(", ")) };
    format!("  {name}: {querier}{routers}\n")
}

fn members(vlans: &[MdbVlan]) -> String {
    if vlans.is_empty() {
        return "the switch snoops in no such VLAN\n".into();
    }
    let mut text = String::new();
    for vlan in vlans {
        let _ = writeln!(text, "VLAN {}", vlan.vlan);
        text.push_str(&side("igmp", &vlan.igmp));
        text.push_str(&side("mld", &vlan.mld));
        let rows = vlan.entries.iter().map(|entry| {
            let kind = match entry.kind {
                MdbKind::Static => "static",
                MdbKind::Snooped => "snooped",
            };
            let sources: Vec<_> = entry.sources.iter().map(|source| source.address.to_string()).collect();
            let sources = match (entry.mode, sources.is_empty()) {
                (MdbMode::Exclude, true) => "any".to_owned(),
                (MdbMode::Exclude, false) => format!("all but {}", sources.join(" ")),
                (MdbMode::Include, _) => sources.join(" "),
            };
            let ends = entry.expires_seconds.filter(|_| entry.kind == MdbKind::Snooped);
            vec![
                entry.group.to_string(),
                entry.port.clone(),
                kind.to_owned(),
                entry.version.to_string(),
                sources,
                ends.map_or_else(|| "-".into(), seconds),
            ]
        });
        let header = ["GROUP", "PORT", "KIND", "VERSION", "SOURCES", "ENDS IN"];
        text.push_str(&table(&header, &["VERSION", "ENDS IN"], rows));
        if vlan.total > vlan.entries.len() as u64 {
            let shown = vlan.entries.len();
            let _ = writeln!(text, "{shown} of {}: say more with --limit", count(vlan.total, "member"));
        }
    }
    text
}
