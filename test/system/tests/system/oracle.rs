//! The kernel as an oracle: this machine's kernel may lack what is asked, a guest's has it all. The switch is compared with
//! it in the guest, by this very program.
//!
//! ```text
//!   machine                                       guest
//!   the test --- boots ------------------------>  stock kernel, tc, bridge; this program and its libraries
//!            --- runs itself, by comparison --->  random cases; kernel and switch get the same frames
//!            <-- "the same: N cases" -----------
//! ```
//!
//! `FABNIC_ORACLE_CASES=2000` tries so many cases instead of a few, and other ones each time; `FABNIC_ORACLE_KERNEL` names
//! another kernel than the newest (`6.1`, `6.12`).

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use fabnic_lab::{GuestKernel, Vm, VmSpec};
use fabnic_oracle::{
    CASES, Filtering, INSIDE, Inside, Verdict, compare_connections, compare_groups, compare_rules,
    compare_vlans, in_guest,
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

/// Compares the switch with the kernel of the guest that it runs in.
type Compare = fn(&Inside) -> Result<Verdict>;

/// What is compared, and under which name.
const COMPARISONS: [(&str, Compare); 4] = [
    ("vlans", |inside| {
        let kinds = &[0x8100, 0x88a8];
        let customer = compare_vlans(inside, Filtering::Dot1Q, kinds, 20).context("802.1Q")?;
        let service = compare_vlans(inside, Filtering::Dot1Ad, kinds, 20).context("802.1ad")?;
        Ok(customer + service)
    }),
    ("rules", |inside| compare_rules(inside, 16)),
    ("connections", |inside| compare_connections(inside, 50)),
    ("groups", |inside| compare_groups(inside, 16)),
];

/// Names the comparison to the program in the guest.
const WHICH: &str = "FABNIC_ORACLE_COMPARES";

/// Outside: boots one guest for all comparisons, and runs this test there for each. Inside: compares.
#[test]
fn the_switch_does_as_the_kernel() -> Result<()> {
    if let Some(inside) = in_guest() {
        let name = std::env::var(WHICH).context("the guest is not told what to compare")?;
        let (_, compare) =
            COMPARISONS.iter().find(|(known, _)| *known == name).context("an unknown comparison")?;
        println!("{}", compare(&inside)?);
        return Ok(());
    }
    let Some(rig) = Rig::new("switch and kernel")? else { return Ok(()) };
    let mut spec = VmSpec::new("oracle", kernel()?);
    spec.memory_mib = 768;
    spec.networking = true;
    spec.files = program()?;
    let mut vm = Vm::boot(rig.lab(), &spec, rig.dir())?;
    eprintln!("  kernel {}", vm.kernel_version());
    vm.sh("modprobe tun; modprobe nf_conntrack_ftp")?;
    let cases = std::env::var(CASES).map_or_else(|_| String::new(), |cases| format!("{CASES}={cases}"));
    let patience = if cases.is_empty() { Duration::from_secs(240) } else { Duration::from_secs(3600) };
    let mut differ = Vec::new();
    // One that differs must not hide what the others find.
    for (name, _) in COMPARISONS {
        let command = format!(
            "{INSIDE}=1 {WHICH}={name} {cases} {PLACE}/loader --library-path {PLACE} {PLACE}/test \
             --exact oracle::the_switch_does_as_the_kernel --nocapture --test-threads=1"
        );
        let reply = vm.shell().run(&command, patience)?;
        if reply.status != 0 || !reply.text.contains("the same:") {
            differ.push(format!("{name}: {}", reply.text));
        }
        let told = |line: &&str| line.contains("the same:") || line.contains("meant to differ");
        reply.text.lines().filter(told).for_each(|line| eprintln!("  {name}: {line}"));
    }
    anyhow::ensure!(differ.is_empty(), "kernel {}: {}", vm.kernel_version(), differ.join("\n"));
    vm.power_off()
}
