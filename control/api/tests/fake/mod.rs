//! A daemon without a switch, served on a socket in a directory of its own: what clients of the API are tested with.
//!
//! It keeps a configuration and really compares and applies; what a switch would count and learn is made up, the
//! same for each run.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "tests, and what they are made of")]

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use fabnic_api::{
    ApplyError, Backend, CaptureRequest, CaptureSender, CaptureStream, Counters, FdbEntry, FdbFilter,
    FdbKind, FdbPage, FlowCache, Health, LinkState, Peer, PortStats, PortStatus, QueuePairs, QueueStats,
    RingFormat, Stats, SwitchTotals, WorkerStatus, capture_channel,
};
use fabnic_model::{Change, Config, PortKind, diff, parse};

/// The configuration that the fake starts with.
pub const START: &str = r#"
[daemon]
api = "/run/fabnic/api.sock"
workers = [1]

[[port]]
name = "vm1"
nic = "virtio-net"
vhost_user = { socket = "/run/fabnic/vm1.sock", role = "server" }
mac = "52:54:00:00:00:01"
vlan = { access = 10 }

[[port]]
name = "vm2"
nic = "virtio-net"
vhost_user = { socket = "/run/fabnic/vm2.sock", role = "client" }
mac = "52:54:00:00:00:02"
vlan = { access = 10 }
queues = 2

[[port]]
name = "up0"
uplink = "tap"
device = "tap0"
vlan = { trunk = [10, "20-29"], native = 1 }

[[fdb]]
mac = "52:54:00:00:00:99"
vlan = 10
port = "up0"
"#;

/// The daemon that is not there.
pub struct Fake {
    config: Mutex<Config>,
    learned: Mutex<Vec<FdbEntry>>,
    /// Captures without an end: a quiet port's.
    endless: Mutex<Vec<CaptureSender>>,
}

impl Fake {
    fn new() -> Self {
        let learned = |vlan: u16, last: u8, port: &str, age_seconds, moves| FdbEntry {
            vlan: fabnic_model::Vid::new(vlan).unwrap(),
            mac: fabnic_model::Mac([0x52, 0x54, 0, 0, 0, last]),
            port: port.into(),
            kind: FdbKind::Learned,
            age_seconds,
            moves,
        };
        Self {
            config: Mutex::new(parse(START).unwrap()),
            learned: Mutex::new(vec![
                learned(1, 0x50, "up0", 299, 0),
                learned(10, 0x01, "vm1", 3, 0),
                learned(10, 0x02, "vm2", 75, 4),
            ]),
            endless: Mutex::default(),
        }
    }

    /// Whether the client of an endless capture went.
    pub fn capture_is_closed(&self) -> bool {
        self.endless.lock().unwrap().iter().any(CaptureSender::is_closed)
    }
}

fn counters(frames: u64) -> Counters {
    Counters {
        rx_frames: frames,
        rx_bytes: frames * 64,
        tx_frames: frames / 2,
        tx_bytes: frames * 32,
        bursts: frames / 25,
        calls: frames / 100,
        kicks: frames / 200,
        ..Counters::default()
    }
}

impl Backend for Fake {
    fn health(&self) -> Health {
        let ports = self.ports();
        Health {
            healthy: true,
            reason: None,
            version: "0.1.0".into(),
            pid: 4242,
            uptime_seconds: 93_784,
            ports: ports.len(),
            ports_up: ports.iter().filter(|p| p.link == LinkState::Up).count(),
            workers: 1,
        }
    }

    fn config(&self) -> Config {
        self.config.lock().unwrap().clone()
    }

    fn apply(&self, desired: Config, dry_run: bool) -> Result<Vec<Change>, ApplyError> {
        desired.check_cpus(&[0, 1])?;
        if let Some(port) = desired.port.iter().find(|p| p.device.as_deref() == Some("busy0")) {
            return Err(ApplyError::Failed {
                key: format!("port[{}].device", port.name),
                problem: "busy0: Device or resource busy (os error 16)".into(),
                expected: "a device that nobody else has opened".into(),
            });
        }
        let mut config = self.config.lock().unwrap();
        let changes = diff(&config, &desired);
        if !dry_run {
            *config = desired;
        }
        Ok(changes)
    }

    fn ports(&self) -> Vec<PortStatus> {
        let config = self.config();
        let learned = self.learned.lock().unwrap();
        config
            .port
            .iter()
            .zip(1..)
            .map(|(port, id)| {
                let kind = port.kind().unwrap();
                let connected = port.name == "vm1";
                PortStatus {
                    id,
                    name: port.name.clone(),
                    kind: kind.as_str().into(),
                    state: port.state,
                    link: if connected || port.uplink.is_some() { LinkState::Up } else { LinkState::Down },
                    reason: (port.name == "vm2").then(|| "queue 0: descriptor 7 points to itself".into()),
                    mac: port.effective_mac(),
                    mtu: port.mtu,
                    vlan: port.vlan.clone(),
                    learning: port.learning,
                    fdb_learned: learned.iter().filter(|e| e.port == port.name).count() as u64,
                    fdb_limit: port.fdb_limit,
                    queues: QueuePairs {
                        configured: port.queues.unwrap_or(8),
                        ready: if connected { 4 } else { 0 },
                    },
                    peer: match kind {
                        PortKind::VirtioNet(nic) => Some(Peer {
                            socket: nic.socket,
                            role: nic.role,
                            connected,
                            connections: u64::from(connected),
                            features: if connected {
                                vec!["VIRTIO_F_VERSION_1".into(), "VIRTIO_NET_F_MRG_RXBUF".into()]
                            } else {
                                Vec::new()
                            },
                            ring: connected.then_some(RingFormat::Packed),
                            pci: None,
                        }),
                        _ => None,
                    },
                }
            })
            .collect()
    }

    fn port(&self, name: &str) -> Option<PortStatus> {
        assert_ne!(name, "trap", "the fake was asked to panic");
        self.ports().into_iter().find(|p| p.name == name)
    }

    fn fdb(&self, filter: &FdbFilter) -> FdbPage {
        let mut entries: Vec<FdbEntry> = self.learned.lock().unwrap().clone();
        entries.extend(self.config().fdb.into_iter().map(|e| FdbEntry {
            vlan: e.vlan,
            mac: e.mac,
            port: e.port,
            kind: FdbKind::Static,
            age_seconds: 0,
            moves: 0,
        }));
        entries.retain(|e| filter.matches(e));
        entries.sort_by_key(|e| (e.vlan, e.mac));
        FdbPage { total: entries.len() as u64, entries }
    }

    fn fdb_forget(&self, filter: &FdbFilter) -> u64 {
        let mut learned = self.learned.lock().unwrap();
        let before = learned.len();
        learned.retain(|e| !filter.matches(e));
        (before - learned.len()) as u64
    }

    fn stats(&self) -> Stats {
        // Everything that vm1 sends goes to vm2, half of it finds its ring full, and one frame is flooded.
        let mut one = counters(1000);
        one.tx_frames = 0;
        one.tx_bytes = 0;
        one.rx_drops = [("vlan_not_allowed".to_owned(), 8)].into();
        let mut two = counters(0);
        two.tx_frames = 493;
        two.tx_bytes = 31_552;
        two.tx_drops = [("not_ready".to_owned(), 9), ("ring_full".to_owned(), 490)].into();
        let mut up = counters(0);
        up.tx_frames = 1;
        up.tx_bytes = 64;
        let stats = |id, name: &str, counters: Counters| PortStats {
            id,
            name: name.into(),
            queues: vec![
                QueueStats { queue: 0, counters: counters.clone() },
                QueueStats { queue: 1, counters: Counters::default() },
            ],
            counters,
        };
        let drops = [("not_ready", 9), ("ring_full", 490), ("vlan_not_allowed", 8)];
        Stats {
            totals: SwitchTotals {
                received: 1000,
                replicated: 1,
                delivered: 494,
                dropped: 507,
                drops: drops.map(|(reason, n)| (reason.to_owned(), n)).into(),
            },
            ports: vec![stats(1, "vm1", one), stats(2, "vm2", two), stats(3, "up0", up)],
        }
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        vec![WorkerStatus {
            id: 0,
            cpu: Some(1),
            busy_cycles: 41_500,
            idle_cycles: 124_500,
            sleeps: 3,
            wakeups: 2,
            packets: 1000,
            bursts: 40,
            cycles_per_packet: 0.0,
            burst_sizes: [1, 2, 3, 4, 10, 20, 0],
            queues: 6,
            flow_cache: FlowCache { hits: 998, misses: 2, entries: 2, capacity: 65_536 },
            tsc_hz: 2_000_000_000,
        }]
    }

    fn capture(&self, request: &CaptureRequest) -> Option<CaptureStream> {
        self.config().find_port(&request.port)?;
        let (sender, stream) = capture_channel(4);
        match request.count {
            // A thread that may wait, and one block a frame after the file's head.
            Some(count) => {
                std::thread::spawn(move || {
                    let mut result = sender.send_blocking(b"HEAD".to_vec());
                    for _ in 0..count {
                        result = result.and_then(|()| sender.send_blocking(b"BLOCK".to_vec()));
                    }
                });
            }
            // A quiet port: the file's head, and then nothing.
            None => {
                sender.try_send(b"HEAD".to_vec()).unwrap();
                self.endless.lock().unwrap().push(sender);
            }
        }
        Some(stream)
    }
}

/// A fake that is served until this is dropped.
pub struct Served {
    _dir: tempfile::TempDir,
    pub socket: PathBuf,
    pub fake: Arc<Fake>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Serves a fake on a socket of its own.
pub fn serve() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("api.sock");
    let fake = Arc::new(Fake::new());
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (path, backend) = (socket.clone(), Arc::clone(&fake));
    let (bound, is_bound) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::bind(path).unwrap();
            bound.send(()).unwrap();
            let shutdown = async {
                // An error means that the test is over as well.
                let _ = stopped.await;
            };
            fabnic_api::serve(listener, backend, shutdown).await.unwrap();
        });
    });
    is_bound.recv().unwrap();
    Served { _dir: dir, socket, fake, stop: Some(stop), thread: Some(thread) }
}

impl Served {
    /// Ends the server and waits until it has.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}
