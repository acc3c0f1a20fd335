//! The kernel as an oracle: this machine's kernel may lack what is asked, a guest's has it all. The switch is compared with
//! it in the guest, by this very program.
//!
//! ```text
//!   machine                                       guest
//!   the test, by name --- boots --------------->  stock kernel, tc, bridge; this program and its libraries
//!                     --- runs the same test -->  random cases; kernel and switch get the same frames
//!                     <-- "the same: N cases" --
//! ```
//!
//! `FABNIC_ORACLE_CASES=2000` tries so many cases instead of a few, and other ones each time; `FABNIC_ORACLE_KERNEL` names
//! another kernel than the newest (`6.1`, `6.12`).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fabnic_lab::{GuestKernel, Vm, VmSpec};
use fabnic_oracle::{
    CASES, Filtering, Inside, Verdict, compare_connections, compare_groups, compare_rules, compare_vlans,
    in_guest,
};
use fabnic_system::Rig;

/// Where this program and its libraries are in the guest, whose own may be others.
const PLACE: &str = "/opt/oracle";

/// This program and what it is linked with. The loader is the first library whose name says so.
fn program() -> Result<Vec<(String, PathBuf)>> {
    let own = std::env::current_exe().context("a running program has a path")?;
    let libraries = fabnic_lab::output(fabnic_lab::Launch::on_host("ldd").arg(&own))?;
    let mut files = vec![(format!("{PLACE}/test"), own)];
    for path in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let path = PathBuf::from(path);
        let name = path.file_name().and_then(|name| name.to_str()).context("a library without a name")?;
        let name = if name.starts_with("ld-") { "loader" } else { name };
        files.push((format!("{PLACE}/{name}"), path));
    }
    Ok(files)
}

fn kernel() -> Result<GuestKernel> {
    let Ok(name) = std::env::var("FABNIC_ORACLE_KERNEL") else { return Ok(GuestKernel::Linux7) };
    GuestKernel::ALL
        .into_iter()
        .find(|kernel| kernel.name() == name)
        .with_context(|| format!("no guest kernel {name}, expected 6.1, 6.12 or 7.x"))
}

/// Outside: boots a guest and runs the test of this name there. Inside: compares.
fn compared(test: &str, compare: impl FnOnce(&Inside) -> Result<Verdict>) -> Result<()> {
    if let Some(inside) = in_guest() {
        println!("{test}: {}", compare(&inside)?);
        return Ok(());
    }
    let Some(rig) = Rig::new(test)? else { return Ok(()) };
    let mut spec = VmSpec::new("oracle", kernel()?);
    spec.memory_mib = 768;
    spec.networking = true;
    spec.files = program()?;
    let mut vm = Vm::boot(rig.lab(), &spec, rig.dir())?;
    let cases = std::env::var(CASES).map_or_else(|_| String::new(), |cases| format!("{CASES}={cases}"));
    let command = format!(
        "modprobe tun; modprobe nf_conntrack_ftp; {}=1 {cases} {PLACE}/loader --library-path {PLACE} {PLACE}/test --exact oracle::{test} --nocapture --test-threads=1",
        fabnic_oracle::INSIDE
    );
    let patience = if cases.is_empty() { Duration::from_secs(240) } else { Duration::from_secs(3600) };
    let reply = vm.shell().run(&command, patience)?;
    let is_same = reply.status == 0 && reply.text.contains("the same:");
    anyhow::ensure!(is_same, "kernel {}: {}", vm.kernel_version(), reply.text);
    eprintln!("  kernel {}", vm.kernel_version());
    let told = |line: &&str| line.contains("the same:") || line.contains("meant to differ");
    reply.text.lines().filter(told).for_each(|line| eprintln!("  {line}"));
    vm.power_off()
}

#[test]
fn vlans_are_as_in_a_bridge_that_filters_them() -> Result<()> {
    compared("vlans_are_as_in_a_bridge_that_filters_them", |inside| {
        let kinds = &[0x8100, 0x88a8];
        let customer = compare_vlans(inside, Filtering::Dot1Q, kinds, 20).context("802.1Q")?;
        let service = compare_vlans(inside, Filtering::Dot1Ad, kinds, 20).context("802.1ad")?;
        Ok(customer + service)
    })
}

#[test]
fn rules_are_as_of_tc_flower() -> Result<()> {
    compared("rules_are_as_of_tc_flower", |inside| compare_rules(inside, 16))
}

#[test]
fn connections_are_as_of_the_kernel() -> Result<()> {
    compared("connections_are_as_of_the_kernel", |inside| compare_connections(inside, 50))
}

#[test]
fn groups_are_as_of_a_bridge_that_snoops() -> Result<()> {
    compared("groups_are_as_of_a_bridge_that_snoops", |inside| compare_groups(inside, 16))
}
