//! Many ports.

use anyhow::{Context as _, Result, ensure};
use fabnic_system::{Rig, worker_cpu};

const PORTS: usize = 10_000;

#[test]
fn ten_thousand_configured_ports_start() -> Result<()> {
    let Some(rig) = Rig::new("10,000 ports")? else { return Ok(()) };
    let mut config = rig.config(&[worker_cpu()]);
    for index in 0..PORTS {
        let mac = format!("02:00:01:00:{:02x}:{:02x}", index >> 8, index & 0xff);
        let vlan = format!("vlan = {{ access = {} }}", index % 4000 + 1);
        config =
            config.virtio_net(&format!("p{index}"), &rig.path(&format!("p{index}")), "server", &mac, &vlan);
    }
    let began = std::time::Instant::now();
    let daemon = rig.daemon(&config)?;
    eprintln!("  up after {:.2} s", began.elapsed().as_secs_f64());
    let ports = daemon.ask(&["port", "show"])?;
    ensure!(ports.as_array().map(Vec::len) == Some(PORTS), "not all ports are there");
    ensure!(rig.path("p9999").exists(), "the last port does not listen");
    // Idle ports cost nothing: the worker sleeps.
    let idle = |daemon: &fabnic_lab::Daemon| -> Result<u64> {
        let workers = daemon.ask(&["worker", "show"])?;
        workers[0]["busy_cycles"].as_u64().context("a worker without busy cycles")
    };
    let before = idle(&daemon)?;
    std::thread::sleep(std::time::Duration::from_secs(1));
    let busy = idle(&daemon)? - before;
    let workers = daemon.ask(&["worker", "show"])?;
    let hz = workers[0]["tsc_hz"].as_u64().context("a worker without a clock rate")?;
    ensure!(busy < hz / 100, "an idle worker was busy for {busy} of {hz} cycles");
    daemon.stop()
}
