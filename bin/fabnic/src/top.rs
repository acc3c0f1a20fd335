//! `fabnic top`: ports and workers live, as rates between two looks at the daemon.
//!
//! [`Look`] is what was read, [`View`] what is shown of two of them, [`draw`] how: only [`run`] knows terminal and
//! socket, so the screen is tested without either.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use fabnic_api::{FlowStatus, Health, PortStatus, Stats, WorkerStatus};
use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Paragraph, Row, Table},
};

use crate::{
    client::{Client, Failure},
    show::{self, PortRate, RATES, percent, rate, si},
};

/// What the daemon said at one time.
pub(crate) struct Look {
    at: Instant,
    health: Health,
    ports: Vec<PortStatus>,
    stats: Stats,
    workers: Vec<WorkerStatus>,
    flows: Vec<FlowStatus>,
}

/// Flows that are shown at most.
const FLOWS: u16 = 8;

async fn look(client: &Client) -> Result<Look, Failure> {
    Ok(Look {
        health: client.get("/v1/health").await?,
        ports: client.get("/v1/ports").await?,
        workers: client.get("/v1/workers").await?,
        stats: client.get("/v1/stats").await?,
        flows: client.get(&format!("/v1/flows?limit={FLOWS}")).await?,
        at: Instant::now(),
    })
}

/// By what ports are sorted, most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// As the daemon has them.
    Id,
    /// Frames a second, both ways.
    Frames,
    /// Bits a second, both ways.
    Bits,
    /// Drops a second, both ways.
    Drops,
}

impl Order {
    const fn word(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Frames => "pps",
            Self::Bits => "bit/s",
            Self::Drops => "drops",
        }
    }

    const fn next(self) -> Self {
        match self {
            Self::Id => Self::Frames,
            Self::Frames => Self::Bits,
            Self::Bits => Self::Drops,
            Self::Drops => Self::Id,
        }
    }
}

/// What is on the screen.
struct View<'a> {
    before: &'a Look,
    now: &'a Look,
    order: Order,
    scroll: usize,
    /// Why the daemon did not answer at last.
    away: Option<&'a str>,
}

/// Shows the daemon until `q`.
pub(crate) async fn run(client: &Client, interval: Duration) -> Result<(), Failure> {
    if !io::stdout().is_terminal() {
        return Err(Failure::Usage("top needs a terminal: try `fabnic stats show --watch`".into()));
    }
    let mut before = look(client).await?;
    tokio::time::sleep(interval.min(Duration::from_millis(250))).await;
    let mut now = look(client).await?;
    let mut terminal = ratatui::try_init()?;
    let result = watch(client, interval, &mut terminal, &mut before, &mut now).await;
    ratatui::restore();
    result
}

async fn watch(
    client: &Client,
    interval: Duration,
    terminal: &mut DefaultTerminal,
    before: &mut Look,
    now: &mut Look,
) -> Result<(), Failure> {
    let (mut order, mut scroll) = (Order::Id, 0_usize);
    let mut away: Option<String> = None;
    let mut next = now.at + interval;
    loop {
        scroll = scroll.min(now.ports.len().saturating_sub(1));
        let view = View { before, now, order, scroll, away: away.as_deref() };
        terminal.draw(|frame| draw(frame, &view))?;
        let left = next.saturating_duration_since(Instant::now());
        if left.is_zero() {
            next = Instant::now() + interval;
            match look(client).await {
                Ok(look) => {
                    away = None;
                    *before = std::mem::replace(now, look);
                }
                // It may be started again: the last figures stay until then.
                Err(failure) => away = Some(failure.to_string()),
            }
            continue;
        }
        // Nothing else runs on this thread, so waiting for a key here keeps nobody waiting.
        if !event::poll(left)? {
            continue;
        }
        let Event::Key(key) = event::read()? else { continue };
        if key.kind != KeyEventKind::Press {
            continue;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
            KeyCode::Char('s') => order = order.next(),
            KeyCode::Down | KeyCode::Char('j') => scroll += 1,
            KeyCode::Up | KeyCode::Char('k') => scroll = scroll.saturating_sub(1),
            KeyCode::PageDown => scroll += 20,
            KeyCode::PageUp => scroll = scroll.saturating_sub(20),
            KeyCode::Home => scroll = 0,
            _ => {}
        }
    }
}

const HEAD: Style = Style::new().add_modifier(Modifier::REVERSED);

fn draw(frame: &mut Frame<'_>, view: &View<'_>) {
    let workers = u16::try_from(view.now.workers.len()).unwrap_or(u16::MAX).min(16);
    let flows = match u16::try_from(view.now.flows.len()).unwrap_or(u16::MAX).min(FLOWS) {
        0 => 0,
        some => some + 2,
    };
    let [head, middle, bottom, talkers, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(workers.saturating_add(2)),
        Constraint::Min(3),
        Constraint::Length(flows),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(header(view)), head);
    frame.render_widget(worker_table(view), middle);
    frame.render_widget(port_table(view), bottom);
    if flows > 0 {
        frame.render_widget(flow_table(view), talkers);
    }
    let keys = format!("q quit   s sort ({})   up/down scroll", view.order.word());
    frame.render_widget(Paragraph::new(keys).style(Style::new().add_modifier(Modifier::DIM)), foot);
}

fn seconds_between(view: &View<'_>) -> f64 {
    view.now.at.saturating_duration_since(view.before.at).as_secs_f64()
}

fn header(view: &View<'_>) -> Vec<Line<'static>> {
    let health = &view.now.health;
    let (state, color) = if health.healthy { ("healthy", Color::Green) } else { ("not healthy", Color::Red) };
    let reason = health.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
    if let Some(problem) = view.away {
        let lost = Style::new().fg(Color::Red);
        return vec![
            Line::styled("the daemon does not answer: these are the last figures", lost),
            Line::from(problem.to_owned()),
        ];
    }
    let seconds = seconds_between(view);
    let (old, new) = (&view.before.stats.totals, &view.now.stats.totals);
    let per_second = |old, new| si(rate(old, new, seconds));
    vec![
        Line::from(vec![
            Span::raw(format!("fabnicd {}  ", health.version)),
            Span::styled(state, Style::new().fg(color)),
            Span::raw(format!("{reason}  {} of {} ports up", health.ports_up, health.ports)),
        ]),
        Line::from(format!(
            "received {}/s  replicated {}/s  delivered {}/s  dropped {}/s",
            per_second(old.received, new.received),
            per_second(old.replicated, new.replicated),
            per_second(old.delivered, new.delivered),
            per_second(old.dropped, new.dropped),
        )),
    ]
}

fn worker_table(view: &View<'_>) -> Table<'static> {
    let seconds = seconds_between(view);
    let old: HashMap<u32, &WorkerStatus> = view.before.workers.iter().map(|w| (w.id, w)).collect();
    let zero = WorkerStatus::default();
    let rows = view.now.workers.iter().map(|new| {
        let old = old.get(&new.id).copied().unwrap_or(&zero);
        let grown = |read: fn(&WorkerStatus) -> u64| read(new).saturating_sub(read(old));
        let (busy, packets, bursts) = (grown(|w| w.busy_cycles), grown(|w| w.packets), grown(|w| w.bursts));
        let each = |whole: u64, parts: u64| if parts == 0 { 0.0 } else { whole as f64 / parts as f64 };
        Row::new([
            new.id.to_string(),
            new.cpu.map_or_else(|| "-".into(), |c| c.to_string()),
            format!("{:.0}%", percent(busy, grown(|w| w.idle_cycles))),
            si(rate(old.packets, new.packets, seconds)),
            format!("{:.0}", each(busy, packets)),
            format!("{:.1}", each(packets, bursts)),
            format!("{:.1}%", percent(grown(|w| w.flow_cache.hits), grown(|w| w.flow_cache.misses))),
            si(new.flow_cache.entries as f64),
            si(rate(old.wakeups, new.wakeups, seconds)),
        ])
    });
    let header =
        ["WORKER", "CPU", "BUSY", "PPS", "CYCLES/PKT", "MEAN BURST", "FLOW HITS", "FLOWS", "WAKEUPS/S"];
    Table::new(rows, header.map(|h| Constraint::Length(u16::try_from(h.len() + 1).unwrap_or(12).max(8))))
        .header(Row::new(header).style(HEAD))
}

fn port_table(view: &View<'_>) -> Table<'static> {
    let mut rates = show::port_rates(&view.before.stats, &view.now.stats, seconds_between(view));
    let by: Option<fn(&PortRate) -> f64> = match view.order {
        Order::Id => None,
        Order::Frames => Some(|r| r.rx_frames + r.tx_frames),
        Order::Bits => Some(|r| r.rx_bits + r.tx_bits),
        Order::Drops => Some(|r| r.rx_drops + r.tx_drops),
    };
    if let Some(by) = by {
        rates.sort_by(|a, b| by(b).total_cmp(&by(a)));
    }
    let status: HashMap<&str, &PortStatus> = view.now.ports.iter().map(|p| (p.name.as_str(), p)).collect();
    let rows = rates.into_iter().skip(view.scroll).map(|r| {
        let (link, color) = match status.get(r.name.as_str()) {
            Some(port) if port.reason.is_some() => ("stopped", Color::Red),
            Some(port) if port.link == fabnic_api::LinkState::Up => ("up", Color::Green),
            Some(_) => ("down", Color::Yellow),
            None => ("gone", Color::DarkGray),
        };
        let dropping = r.rx_drops + r.tx_drops > 0.0;
        let style = if dropping { Style::new().fg(Color::Yellow) } else { Style::new() };
        let [name, rest @ ..] = r.cells();
        let cells = [Cell::from(name), Cell::from(link).style(Style::new().fg(color))];
        Row::new(cells.into_iter().chain(rest.map(Cell::from))).style(style)
    });
    let [name, rest @ ..] = RATES;
    let header = [name, "LINK"].into_iter().chain(rest);
    let widths = [Constraint::Min(16), Constraint::Length(8)].into_iter().chain([Constraint::Length(10); 6]);
    Table::new(rows, widths).header(Row::new(header).style(HEAD))
}

/// Who talks most: flows that are alive, by their bytes.
fn flow_table(view: &View<'_>) -> Table<'static> {
    let seconds = seconds_between(view);
    let name = |flow: &FlowStatus| (flow.port.clone(), show::flow(flow));
    let old: HashMap<(String, String), u64> = view.before.flows.iter().map(|f| (name(f), f.bytes)).collect();
    let rows = view.now.flows.iter().map(|flow| {
        // One that was not among the largest before has no rate yet.
        let rate = old.get(&name(flow)).map(|&bytes| rate(bytes, flow.bytes, seconds) * 8.0);
        Row::new([
            flow.port.clone(),
            show::flow(flow),
            flow.to.clone(),
            rate.map_or_else(|| "-".into(), si),
            si(flow.bytes as f64),
        ])
    });
    let header = ["TOP FLOWS OF", "FLOW", "TO", "BIT/S", "BYTES"];
    let widths = [
        Constraint::Min(16),
        Constraint::Percentage(50),
        Constraint::Length(16),
        Constraint::Length(8),
        Constraint::Length(8),
    ];
    Table::new(rows, widths).header(Row::new(header).style(HEAD))
}

#[cfg(test)]
mod tests {
    use fabnic_api::{Counters, LinkState, PortStats, QueuePairs, SwitchTotals};
    use fabnic_model::{AdminState, Vlan};
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn look(at: Instant, n: u64) -> Look {
        let port = |id: u32, name: &str, link| PortStatus {
            id,
            name: name.into(),
            tenant: None,
            kind: "virtio-net".into(),
            state: AdminState::Auto,
            link,
            reason: (name == "bad").then(|| "descriptor loop".into()),
            mac: None,
            mtu: 1500,
            vlan: Vlan::default(),
            learning: true,
            fdb_learned: 1,
            fdb_limit: 10,
            fdb_refused: 0,
            queues: QueuePairs { configured: 8, ready: 1 },
            peer: None,
        };
        let stats = |id: u32, name: &str, n: u64| PortStats {
            id,
            name: name.into(),
            counters: Counters {
                rx_frames: n,
                rx_bytes: n * 64,
                tx_frames: n / 2,
                tx_bytes: n * 32,
                tx_drops: [("ring_full".to_owned(), n / 4)].into(),
                ..Counters::default()
            },
            queues: Vec::new(),
        };
        Look {
            at,
            health: Health {
                healthy: true,
                reason: None,
                version: "0.1.0".into(),
                pid: 1,
                uptime_seconds: 1,
                ports: 2,
                ports_up: 1,
                workers: 1,
            },
            ports: vec![port(1, "quiet", LinkState::Up), port(2, "bad", LinkState::Down)],
            stats: Stats {
                totals: SwitchTotals {
                    received: n,
                    delivered: n / 2,
                    dropped: n / 4,
                    ..SwitchTotals::default()
                },
                ports: vec![stats(1, "quiet", 0), stats(2, "bad", n)],
            },
            workers: vec![WorkerStatus {
                cpu: Some(1),
                busy_cycles: n * 40,
                idle_cycles: n * 10,
                packets: n,
                bursts: n / 32,
                flow_cache: fabnic_api::FlowCache { hits: n, entries: 64, ..Default::default() },
                ..WorkerStatus::default()
            }],
            flows: Vec::new(),
        }
    }

    #[test]
    fn screen_shows_who_talks_most() {
        let start = Instant::now();
        let flow = |bytes| FlowStatus {
            port: "vm1".into(),
            src_mac: fabnic_model::Mac([2, 0, 0, 0, 0, 1]),
            dst_mac: fabnic_model::Mac([2, 0, 0, 0, 0, 2]),
            vlan: 10,
            protocol: "ipv4".into(),
            src_ip: Some("10.0.0.1".into()),
            dst_ip: Some("10.0.0.2".into()),
            ip_proto: Some("tcp".into()),
            src_port: Some(40_000),
            dst_port: Some(443),
            to: "vm2".into(),
            frames: bytes / 1000,
            bytes,
        };
        let before = Look { flows: vec![flow(1_000_000)], ..look(start, 0) };
        let now = Look { flows: vec![flow(3_000_000)], ..look(start + Duration::from_secs(2), 1000) };
        let mut terminal = Terminal::new(TestBackend::new(120, 14)).unwrap();
        let view = View { before: &before, now: &now, order: Order::Id, scroll: 0, away: None };
        terminal.draw(|frame| draw(frame, &view)).unwrap();
        insta::assert_snapshot!(terminal.backend());
    }

    #[test]
    fn screen_shows_rates_and_the_busiest_port_first() {
        let start = Instant::now();
        let (before, now) = (look(start, 0), look(start + Duration::from_secs(2), 8_000_000));
        let mut terminal = Terminal::new(TestBackend::new(100, 12)).unwrap();
        let view = View { before: &before, now: &now, order: Order::Frames, scroll: 0, away: None };
        terminal.draw(|frame| draw(frame, &view)).unwrap();
        insta::assert_snapshot!(terminal.backend());
    }

    #[test]
    fn screen_says_that_the_daemon_is_away_and_keeps_the_last_figures() {
        let start = Instant::now();
        let (before, now) = (look(start, 0), look(start + Duration::from_secs(1), 1000));
        let mut terminal = Terminal::new(TestBackend::new(100, 8)).unwrap();
        let view =
            View { before: &before, now: &now, order: Order::Id, scroll: 1, away: Some("nobody listens") };
        terminal.draw(|frame| draw(frame, &view)).unwrap();
        insta::assert_snapshot!(terminal.backend());
    }

    #[test]
    fn a_daemon_that_was_started_again_counts_from_zero() {
        let start = Instant::now();
        let (before, now) = (look(start, 1_000_000), look(start + Duration::from_secs(1), 500));
        let rates = show::port_rates(&before.stats, &now.stats, 1.0);
        assert!(rates.iter().all(|r| r.rx_frames <= 500.0), "no rate below zero, none out of this world");
    }
}
