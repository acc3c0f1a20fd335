//! Answers for people: tables without lines, a header in capitals, so that `grep` and `awk` get on with them too.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};
use fabnic_api::{
    Applied, AuditEntry, BURST_SIZES, BindingStatus, CaptureDirection, Counters, DropCounts, FdbKind,
    FdbPage, FdbStatus, FlowStatus, Forgotten, GroupStatus, Health, LinkState, LldpStatus, MirrorStatus,
    PciStatus, PortStats, PortStatus, RecentDrop, RingFormat, RuleStatus, Stats, TenantStatus, TraceReport,
    TraceStep, VlanMembership, WorkerStatus,
};

/// A table of these columns; those named in `right` are numbers.
pub(crate) fn table(header: &[&str], right: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    for (index, name) in header.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if right.contains(name) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

pub(crate) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |t| t.to_string())
}

/// `1 entry`, `2 entries`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    match noun.strip_suffix('y') {
        _ if n == 1 => format!("1 {noun}"),
        Some(stem) => format!("{n} {stem}ies"),
        None => format!("{n} {noun}s"),
    }
}

pub(crate) fn seconds(total: u64) -> String {
    let (days, hours, minutes) = (total / 86_400, total / 3600 % 24, total / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{total}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", total % 60),
        (0, ..) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

pub(crate) const fn link(state: LinkState) -> &'static str {
    match state {
        LinkState::Up => "up",
        LinkState::Down => "down",
    }
}

pub(crate) fn health(health: &Health) -> String {
    let state = if health.healthy { "healthy" } else { "NOT HEALTHY" };
    let reason = health.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
    format!(
        "{state}{reason}\nfabnicd {}, pid {}, up {}, {} of {} ports up, {}\n",
        health.version,
        health.pid,
        seconds(health.uptime_seconds),
        health.ports_up,
        health.ports,
        count(health.workers as u64, "worker"),
    )
}

fn peer(port: &PortStatus) -> String {
    if let Some(reason) = &port.reason {
        return format!("stopped: {reason}");
    }
    let Some(peer) = &port.peer else { return "-".into() };
    let state = if peer.connected { "connected" } else { "waiting" };
    match peer.ring {
        Some(ring) if peer.connected => format!("{} {state} {}", peer.role.as_str(), ring_format(ring)),
        _ => format!("{} {state}", peer.role.as_str()),
    }
}

const fn ring_format(ring: RingFormat) -> &'static str {
    match ring {
        RingFormat::Split => "split",
        RingFormat::Packed => "packed",
    }
}

pub(crate) fn ports(ports: &[PortStatus]) -> String {
    let rows = ports.iter().map(|p| {
        vec![
            p.name.clone(),
            p.kind.clone(),
            link(p.link).to_owned(),
            p.state.as_str().to_owned(),
            or_dash(p.mac),
            p.vlan.to_string(),
            p.mtu.to_string(),
            format!("{}/{}", p.queues.ready, p.queues.configured),
            peer(p),
        ]
    });
    table(
        &["NAME", "KIND", "LINK", "STATE", "MAC", "VLAN", "MTU", "QUEUES", "PEER"],
        &["MTU", "QUEUES"],
        rows,
    )
}

/// One port with all that is known of it.
pub(crate) fn port(port: &PortStatus, stats: Option<&PortStats>) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{key:<10} {value}");
    };
    line("port", format!("{} ({}, id {})", port.name, port.kind, port.id));
    if let Some(tenant) = &port.tenant {
        line("tenant", tenant.clone());
    }
    line("link", format!("{}, state {}", link(port.link), port.state.as_str()));
    if let Some(reason) = &port.reason {
        line("stopped", reason.clone());
    }
    if let Some(mac) = port.mac {
        line("mac", mac.to_string());
    }
    line("mtu", port.mtu.to_string());
    line("vlan", port.vlan.to_string());
    let learning = if port.learning { "on" } else { "off" };
    let (learned, most) = (port.fdb_learned, port.fdb_limit);
    line(
        "learning",
        format!("{learning}, {learned} of at most {most} addresses, {} refused", port.fdb_refused),
    );
    line("queues", format!("{} of {} pairs ready", port.queues.ready, port.queues.configured));
    if let Some(peer) = &port.peer {
        let state = if peer.connected { "connected" } else { "not connected" };
        line(
            "peer",
            format!(
                "{} {}, {state}, connected {} so far",
                peer.role.as_str(),
                peer.socket,
                count(peer.connections, "time")
            ),
        );
        if let Some(ring) = peer.ring {
            line("rings", ring_format(ring).to_owned());
        }
        if !peer.features.is_empty() {
            line("features", peer.features.join(" "));
        }
        if let Some(pci) = peer.pci.as_ref().filter(|_| peer.connected) {
            line("pci", pci_status(pci));
        }
    }
    if let Some(stats) = stats {
        counters(&mut line, "", &stats.counters);
        for queue in &stats.queues {
            counters(&mut line, &format!("q{} ", queue.queue), &queue.counters);
        }
    }
    text
}

fn pci_status(pci: &PciStatus) -> String {
    let master = if pci.bus_master { "on" } else { "off" };
    let mut text = format!("bus master {master}, {} MiB", pci.memory_bytes >> 20);
    // Writing to a string does not fail.
    if pci.vectors > 0 {
        let _ = write!(text, ", {} of {} vectors", pci.vectors_in_use, pci.vectors);
    }
    if pci.mmap {
        text.push_str(", doorbells mapped");
    }
    let _ = write!(text, ", {}", count(pci.faults, "fault"));
    let _ = write!(text, ", traps: {} reads, {} writes", pci.register_reads, pci.register_writes);
    if pci.lost_interrupts > 0 {
        let _ = write!(text, ", {}", count(pci.lost_interrupts, "lost interrupt"));
    }
    if let Some(last) = &pci.last_refusal {
        let _ = write!(text, ", {} refused, the last: {last}", count(pci.refused, "request"));
    }
    text
}

fn counters(line: &mut impl FnMut(&str, String), prefix: &str, c: &Counters) {
    line(
        &format!("{prefix}rx"),
        format!("{} frames, {} bytes, dropped {}", c.rx_frames, c.rx_bytes, drops(&c.rx_drops)),
    );
    line(
        &format!("{prefix}tx"),
        format!("{} frames, {} bytes, dropped {}", c.tx_frames, c.tx_bytes, drops(&c.tx_drops)),
    );
    line(&format!("{prefix}events"), format!("{} bursts, {} calls, {} kicks", c.bursts, c.calls, c.kicks));
}

/// `12 (ring_full 10, not_ready 2)`.
fn drops(drops: &DropCounts) -> String {
    let mut reasons: Vec<_> = drops.iter().filter(|(_, n)| **n > 0).collect();
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let total = sum(drops);
    if reasons.is_empty() {
        return total.to_string();
    }
    let reasons: Vec<String> = reasons.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    format!("{total} ({})", reasons.join(", "))
}

pub(crate) fn sum(drops: &DropCounts) -> u64 {
    drops.values().fold(0, |sum, n| sum.saturating_add(*n))
}

pub(crate) fn fdb(page: &FdbPage) -> String {
    let rows = page.entries.iter().map(|e| {
        let (kind, age) = match e.kind {
            FdbKind::Learned => ("learned", seconds(e.age_seconds)),
            FdbKind::Static => ("static", "-".to_owned()),
        };
        vec![e.vlan.to_string(), e.mac.to_string(), e.port.clone(), kind.to_owned(), age, e.moves.to_string()]
    });
    let mut text = table(&["VLAN", "MAC", "PORT", "KIND", "AGE", "MOVES"], &["VLAN", "AGE", "MOVES"], rows);
    if page.total > page.entries.len() as u64 {
        let _ = writeln!(text, "{} of {} entries: say more with --limit", page.entries.len(), page.total);
    }
    text
}

pub(crate) fn fdb_stats(status: &FdbStatus) -> String {
    let mut text = String::new();
    if let Some(table) = &status.table {
        let _ = writeln!(
            text,
            "{} of at most {} entries; {} learned, {} moves, {} held, {} aged out",
            table.entries, table.limit, table.learned, table.moves, table.freezes, table.aged
        );
    }
    let all = status
        .table
        .iter()
        .map(|table| ("all ports", table.entries.to_string(), String::new(), &table.refused));
    let ports = status
        .ports
        .iter()
        .map(|port| (port.port.as_str(), port.learned.to_string(), port.limit.to_string(), &port.refused));
    let rows = all.chain(ports).map(|(name, learned, limit, refused)| {
        let causes = refused.by_cause().map(|(_, count)| count.to_string());
        [name.to_owned(), learned, limit].into_iter().chain(causes).collect()
    });
    let header = [
        "PORT",
        "LEARNED",
        "AT MOST",
        "PORT LIMIT",
        "TENANT LIMIT",
        "TABLE FULL",
        "STICKY",
        "HELD",
        "STATIC",
    ];
    text.push_str("not learned, by cause:\n");
    text.push_str(&table(&header, header.get(1..).unwrap_or_default(), rows));
    text
}

pub(crate) fn forgotten(gone: Forgotten) -> String {
    let (removed, forgotten) = (count(gone.removed, "static entry"), count(gone.forgotten, "learned entry"));
    format!("{removed} removed, {forgotten} forgotten\n")
}

pub(crate) fn vlans(memberships: &[VlanMembership]) -> String {
    let rows = memberships.iter().map(|m| {
        let tagged = if m.tagged.is_empty() { "-".to_owned() } else { m.tagged.to_string() };
        vec![m.port.clone(), or_dash(m.pvid), tagged]
    });
    table(&["PORT", "PVID UNTAGGED", "TAGGED"], &[], rows)
}

fn totals(stats: &Stats) -> String {
    let t = &stats.totals;
    let reasons = if t.dropped == 0 { String::new() } else { format!("\ndrops: {}", drops(&t.drops)) };
    format!(
        "received {} + replicated {} = delivered {} + dropped {}{}{reasons}\n",
        t.received,
        t.replicated,
        t.delivered,
        t.dropped,
        match t.in_flight() {
            0 => String::new(),
            n => format!(" + {n} on their way"),
        },
    )
}

pub(crate) fn stats(stats: &Stats) -> String {
    let row = |name: String, c: &Counters| {
        vec![
            name,
            c.rx_frames.to_string(),
            c.rx_bytes.to_string(),
            drops(&c.rx_drops),
            c.tx_frames.to_string(),
            c.tx_bytes.to_string(),
            drops(&c.tx_drops),
            c.calls.to_string(),
            c.kicks.to_string(),
        ]
    };
    let rows = stats.ports.iter().flat_map(|p| {
        std::iter::once(row(p.name.clone(), &p.counters))
            .chain(p.queues.iter().map(move |q| row(format!("  queue {}", q.queue), &q.counters)))
    });
    let header =
        ["PORT", "RX FRAMES", "RX BYTES", "RX DROPS", "TX FRAMES", "TX BYTES", "TX DROPS", "CALLS", "KICKS"];
    let right = ["RX FRAMES", "RX BYTES", "TX FRAMES", "TX BYTES", "CALLS", "KICKS"];
    format!("{}\n{}", totals(stats), table(&header, &right, rows))
}

/// How much a counter grew a second. A port that was made again counts from zero.
pub(crate) fn rate(before: u64, now: u64, seconds: f64) -> f64 {
    if seconds <= 0.0 { 0.0 } else { now.checked_sub(before).unwrap_or(now) as f64 / seconds }
}

/// `12.3M`.
pub(crate) fn si(value: f64) -> String {
    for (limit, suffix) in [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= limit {
            let scaled = value / limit;
            let digits = if scaled >= 100.0 { 0 } else { 1 };
            return format!("{scaled:.digits$}{suffix}");
        }
    }
    format!("{value:.0}")
}

/// What a port did between two looks.
pub(crate) struct PortRate {
    pub(crate) name: String,
    pub(crate) rx_frames: f64,
    pub(crate) rx_bits: f64,
    pub(crate) rx_drops: f64,
    pub(crate) tx_frames: f64,
    pub(crate) tx_bits: f64,
    pub(crate) tx_drops: f64,
}

/// What ports did between two looks, in the order of the later one.
pub(crate) fn port_rates(before: &Stats, now: &Stats, seconds: f64) -> Vec<PortRate> {
    let old: std::collections::HashMap<(&str, u32), &PortStats> =
        before.ports.iter().map(|p| ((p.name.as_str(), p.id), p)).collect();
    let zero = Counters::default();
    now.ports
        .iter()
        .map(|port| {
            let new = &port.counters;
            // A port that was made again has another number, and counts from zero.
            let old = old.get(&(port.name.as_str(), port.id)).map_or(&zero, |p| &p.counters);
            let per_second = |read: fn(&Counters) -> u64| rate(read(old), read(new), seconds);
            PortRate {
                name: port.name.clone(),
                rx_frames: per_second(|c| c.rx_frames),
                rx_bits: per_second(|c| c.rx_bytes) * 8.0,
                rx_drops: per_second(|c| sum(&c.rx_drops)),
                tx_frames: per_second(|c| c.tx_frames),
                tx_bits: per_second(|c| c.tx_bytes) * 8.0,
                tx_drops: per_second(|c| sum(&c.tx_drops)),
            }
        })
        .collect()
}

/// The headers of [`PortRate`]'s columns.
pub(crate) const RATES: [&str; 7] =
    ["PORT", "RX PPS", "RX BIT/S", "RX DROP/S", "TX PPS", "TX BIT/S", "TX DROP/S"];

impl PortRate {
    /// The columns, for people.
    pub(crate) fn cells(&self) -> [String; 7] {
        [
            self.name.clone(),
            si(self.rx_frames),
            si(self.rx_bits),
            si(self.rx_drops),
            si(self.tx_frames),
            si(self.tx_bits),
            si(self.tx_drops),
        ]
    }
}

pub(crate) fn rates(before: &Stats, now: &Stats, seconds: f64) -> String {
    let rows = port_rates(before, now, seconds).into_iter().map(|r| r.cells().to_vec());
    let (old, new) = (&before.totals, &now.totals);
    format!(
        "received {}/s, replicated {}/s, delivered {}/s, dropped {}/s\n{}\n",
        si(rate(old.received, new.received, seconds)),
        si(rate(old.replicated, new.replicated, seconds)),
        si(rate(old.delivered, new.delivered, seconds)),
        si(rate(old.dropped, new.dropped, seconds)),
        table(&RATES, &RATES[1..], rows),
    )
}

/// Part of a whole, in percent.
pub(crate) fn percent(part: u64, other: u64) -> f64 {
    let whole = part as f64 + other as f64;
    if whole == 0.0 { 0.0 } else { part as f64 / whole * 100.0 }
}

pub(crate) fn workers(workers: &[WorkerStatus]) -> String {
    let rows = workers.iter().map(|w| {
        let mean = if w.bursts == 0 { 0.0 } else { w.packets as f64 / w.bursts as f64 };
        vec![
            w.id.to_string(),
            or_dash(w.cpu),
            format!("{:.1}%", percent(w.busy_cycles, w.idle_cycles)),
            w.packets.to_string(),
            format!("{:.1}", w.cycles_per_packet),
            w.bursts.to_string(),
            format!("{mean:.1}"),
            w.queues.to_string(),
            format!("{:.1}%", percent(w.flow_cache.hits, w.flow_cache.misses)),
            format!("{}/{}", w.flow_cache.entries, w.flow_cache.capacity),
            w.sleeps.to_string(),
            w.wakeups.to_string(),
        ]
    });
    let header = [
        "WORKER",
        "CPU",
        "BUSY",
        "PACKETS",
        "CYCLES/PACKET",
        "BURSTS",
        "MEAN BURST",
        "QUEUES",
        "FLOW HITS",
        "FLOWS",
        "SLEEPS",
        "WAKEUPS",
    ];
    let mut text = table(&header, &header, rows);
    let sizes: Vec<&str> = std::iter::once("BURSTS OF").chain(BURST_SIZES).collect();
    let rows = workers.iter().map(|w| {
        std::iter::once(format!("worker {}", w.id)).chain(w.burst_sizes.iter().map(u64::to_string)).collect()
    });
    text.push('\n');
    text.push_str(&table(&sizes, &BURST_SIZES, rows));
    text
}

pub(crate) fn applied(applied: &Applied) -> String {
    if applied.changes.is_empty() {
        return "nothing to change\n".into();
    }
    let mut text = String::new();
    for change in &applied.changes {
        let _ = writeln!(text, "{change}");
    }
    let restart = applied.changes.iter().any(|c| c.effect() == fabnic_model::Effect::Restart);
    let changes = count(applied.changes.len() as u64, "change");
    let _ = if applied.dry_run {
        writeln!(text, "{changes} to make (dry run: nothing was done)")
    } else {
        writeln!(text, "{changes} made")
    };
    if restart {
        text.push_str("keys marked (restart) take effect when fabnicd is started again\n");
    }
    text
}

pub(crate) fn rules(rules: &[RuleStatus]) -> String {
    let rows = rules.iter().map(|rule| {
        let used = rule.last_used_seconds.map(|s| format!("{} ago", seconds(s)));
        vec![
            rule.id.clone(),
            rule.frames.to_string(),
            rule.bytes.to_string(),
            used.unwrap_or_else(|| "never".into()),
            rule.text.clone(),
        ]
    });
    table(&["RULE", "FRAMES", "BYTES", "USED", "WORDS"], &["FRAMES", "BYTES"], rows)
}

pub(crate) fn groups(groups: &[GroupStatus]) -> String {
    let rows = groups.iter().map(|group| {
        let shown: Vec<_> = group.group.addresses.iter().take(4).map(ToString::to_string).collect();
        let more = group.group.addresses.len().saturating_sub(shown.len());
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        vec![group.id.clone(), group.group.addresses.len().to_string(), format!("{}{more}", shown.join(" "))]
    });
    table(&["GROUP", "SIZE", "ADDRESSES"], &["SIZE"], rows)
}

pub(crate) fn group(group: &GroupStatus) -> String {
    group.group.addresses.iter().fold(String::new(), |mut text, address| {
        let _ = writeln!(text, "{address}");
        text
    })
}

pub(crate) fn mirrors(mirrors: &[MirrorStatus]) -> String {
    let rows = mirrors.iter().map(|mirror| {
        let m = &mirror.mirror;
        let of = match (m.port.is_empty(), m.vlan.is_empty()) {
            (true, true) => "rules only".to_owned(),
            (false, true) => format!("port {} {}", m.port, m.direction.as_str()),
            (true, false) => format!("vlan {}", m.vlan),
            (false, false) => format!("port {} {}, vlan {}", m.port, m.direction.as_str(), m.vlan),
        };
        vec![
            mirror.id.clone(),
            m.to.clone(),
            of,
            or_dash(m.snaplen),
            m.sample.map_or_else(|| "each".into(), |n| format!("1 in {n}")),
            mirror.seen.to_string(),
            mirror.copied.to_string(),
        ]
    });
    table(
        &["MIRROR", "TO", "OF", "SNAPLEN", "FRAMES", "SEEN", "COPIED"],
        &["SNAPLEN", "SEEN", "COPIED"],
        rows,
    )
}

pub(crate) fn tenants(tenants: &[TenantStatus]) -> String {
    let rows = tenants.iter().map(|t| {
        let of = |used: u32, most: u32| format!("{used}/{most}");
        let uids: Vec<_> = t.uids.iter().map(u32::to_string).collect();
        vec![
            t.name.clone(),
            or_dash(t.socket.clone()),
            if uids.is_empty() { "-".into() } else { uids.join(",") },
            if t.has_token { "yes" } else { "no" }.to_owned(),
            of(t.used.rules, t.quota.rules),
            of(t.used.groups, t.quota.groups),
            of(t.used.addresses, t.quota.addresses),
            of(t.used.meters, t.quota.meters),
            of(t.used.mirrors, t.quota.mirrors),
            of(t.used.connections, t.quota.connections),
            of(t.used.fdb_entries, t.quota.fdb_entries),
            format!("{}/{}", t.refused.connections, t.refused.fdb_entries),
            if t.ports.is_empty() { "-".into() } else { t.ports.join(",") },
        ]
    });
    let header = [
        "TENANT",
        "SOCKET",
        "UIDS",
        "TOKEN",
        "RULES",
        "GROUPS",
        "ADDRESSES",
        "METERS",
        "MIRRORS",
        "CONNECTIONS",
        "FDB",
        "REFUSED",
        "PORTS",
    ];
    table(&header, &header[4..12], rows)
}

pub(crate) fn bindings(bindings: &[BindingStatus]) -> String {
    let rows = bindings.iter().map(|b| {
        vec![
            b.vlan.to_string(),
            b.address.clone(),
            b.mac.to_string(),
            b.port.clone(),
            b.origin.clone(),
            b.expires_seconds.map_or_else(|| "-".into(), seconds),
        ]
    });
    table(&["VLAN", "ADDRESS", "MAC", "PORT", "ORIGIN", "ENDS IN"], &["VLAN", "ENDS IN"], rows)
}

pub(crate) fn bindings_forgotten(gone: Forgotten) -> String {
    format!("{} forgotten\n", count(gone.forgotten, "learned binding"))
}

pub(crate) fn lldp(neighbours: &[LldpStatus]) -> String {
    let rows = neighbours.iter().map(|n| {
        vec![
            n.port.clone(),
            n.name.clone(),
            n.chassis.clone(),
            n.port_id.clone(),
            n.port_description.clone(),
            n.description.clone(),
        ]
    });
    table(&["PORT", "NEIGHBOUR", "CHASSIS", "ITS PORT", "DESCRIPTION", "WHAT IT IS"], &[], rows)
}

/// A flow in few words: `10.0.0.1:40000 > 10.0.0.2:443 tcp`.
pub(crate) fn flow(flow: &FlowStatus) -> String {
    let side = |ip: &Option<String>, mac: fabnic_model::Mac, port: Option<u16>| {
        let address = ip.clone().unwrap_or_else(|| mac.to_string());
        match port {
            Some(port) if address.contains(':') && ip.is_some() => format!("[{address}]:{port}"),
            Some(port) => format!("{address}:{port}"),
            None => address,
        }
    };
    let kind = flow.ip_proto.as_ref().unwrap_or(&flow.protocol);
    let src = side(&flow.src_ip, flow.src_mac, flow.src_port);
    format!("{src} > {} {kind}", side(&flow.dst_ip, flow.dst_mac, flow.dst_port))
}

pub(crate) fn flows(flows: &[FlowStatus]) -> String {
    let rows = flows.iter().map(|f| {
        vec![
            f.port.clone(),
            f.vlan.to_string(),
            flow(f),
            f.to.clone(),
            f.frames.to_string(),
            f.bytes.to_string(),
        ]
    });
    table(&["PORT", "VLAN", "FLOW", "TO", "FRAMES", "BYTES"], &["VLAN", "FRAMES", "BYTES"], rows)
}

fn step(text: &mut String, step: &TraceStep) {
    let outcome = step.outcome.as_ref().map(|outcome| format!(" -> {outcome}")).unwrap_or_default();
    let _ = writeln!(text, "  {}{outcome}", step.stage);
    for note in &step.notes {
        let _ = writeln!(text, "      {note}");
    }
}

pub(crate) fn trace(report: &TraceReport) -> String {
    let mut text = format!("{}\n", report.frame);
    for one in &report.steps {
        step(&mut text, one);
    }
    if !report.operations.is_empty() {
        text.push_str("would be done with it:\n");
        for operation in &report.operations {
            let _ = writeln!(text, "  {operation}");
        }
    }
    match &report.dropped {
        Some(dropped) => {
            let _ = writeln!(text, "dropped, {}: {}", dropped.reason, dropped.explanation);
        }
        None => {
            for target in &report.to {
                let _ = match &target.dropped {
                    None => writeln!(text, "to port {}, in VLAN {}", target.port, report.vlan),
                    Some(dropped) => {
                        writeln!(
                            text,
                            "to port {}, and dropped there, {}: {}",
                            target.port, dropped.reason, dropped.explanation
                        )
                    }
                };
            }
        }
    }
    text
}

pub(crate) fn why(drops: &[RecentDrop]) -> String {
    if drops.is_empty() {
        return "no frame was dropped lately\n".into();
    }
    let mut text = String::new();
    for drop in drops {
        let way = match drop.direction {
            CaptureDirection::Tx => "to the port",
            _ => "from the port",
        };
        let _ = writeln!(
            text,
            "{} ago, {way}, {}: {}",
            seconds(drop.seconds_ago),
            drop.dropped.reason,
            drop.dropped.explanation
        );
        let _ = writeln!(text, "    {}", drop.frame);
        if let Some(stage) = &drop.stage {
            let notes =
                if stage.notes.is_empty() { String::new() } else { format!(": {}", stage.notes.join(", ")) };
            let _ = writeln!(text, "    by stage {}{notes}", stage.stage);
        }
    }
    text
}

/// `2026-11-28 03:12:01`, of milliseconds since 1970 (UTC).
fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil from days (Howard Hinnant's algorithm), with March as the first month.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

pub(crate) fn audit(entries: &[AuditEntry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let who =
            entry.who.tenant.as_ref().map_or_else(|| "infrastructure".to_owned(), |t| format!("tenant {t}"));
        let uid = entry.who.uid.map(|uid| format!(" uid {uid}")).unwrap_or_default();
        let pid = entry.who.pid.map(|pid| format!(" pid {pid}")).unwrap_or_default();
        let token = if entry.who.by_token { " by token" } else { "" };
        let _ = write!(text, "{} {who}{uid}{pid}{token}: {}", time(entry.time_ms), entry.request);
        match &entry.refused {
            Some(reason) => {
                let _ = writeln!(text, ": refused, {reason}");
            }
            None => {
                let _ = writeln!(text, ": {}", count(entry.changes, "change"));
                for change in &entry.first {
                    let _ = writeln!(text, "    {change}");
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn times_are_civil() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399_000, "2000-02-28 23:59:59"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_795_835_521_999, "2026-11-28 03:12:01"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(time(ms), text);
        }
    }
}
