//! `cargo xtask lab`: makes the lab, shows what is in it, boots its guests, opens a guest's console.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Subcommand};
use fabnic_lab::{Accel, GuestKernel, Lab, Progress, Vm, VmSpec, WorkDir};

/// Arguments of `cargo xtask lab`.
#[derive(Args)]
pub(crate) struct LabArgs {
    /// Only show what is there and what is missing
    #[arg(long)]
    show: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Boot a VM of each guest kernel, to see that the lab works here
    Boot,
    /// Talk to a VM's console (Ctrl-] ends it)
    Console {
        /// The console's socket, as the demo prints it
        socket: PathBuf,
    },
}

pub(crate) fn run(args: &LabArgs) -> Result<ExitCode> {
    if args.show {
        return show();
    }
    let progress = Progress::new();
    if let Some(Action::Console { socket }) = &args.action {
        crate::console::run(socket)?;
        return Ok(ExitCode::SUCCESS);
    }
    let lab = Lab::ensure(&progress)?;
    if let Some(Action::Boot) = &args.action {
        return boot(&lab, &progress);
    }
    show()
}

fn show() -> Result<ExitCode> {
    let root = Lab::default_root();
    println!("lab: {}", root.display());
    match Lab::open() {
        Ok(lab) => {
            for (name, version) in lab.versions()? {
                println!("  {name:<18} {version}");
            }
            println!("  {:<18} {:?}", "acceleration", Accel::detect());
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            println!("  {error:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn boot(lab: &Lab, progress: &Progress) -> Result<ExitCode> {
    let dir = WorkDir::new("fabnic-boot.", false)?;
    for kernel in GuestKernel::ALL {
        let step = progress.step(format!("boot kernel {}", kernel.name()));
        let name = format!("vm{}", kernel.name().replace('.', "-"));
        let mut vm = Vm::boot(lab, &VmSpec::new(&name, kernel), dir.path())?;
        let modules =
            vm.sh("lsmod | awk 'NR > 1 {print $1}' | tr '\\n' ' '; hostname; iperf3 --version | head -1")?;
        let version = vm.kernel_version().to_owned();
        vm.power_off()?;
        step.done(format!("{version}; {}", modules.replace('\n', "; ")));
    }
    Ok(ExitCode::SUCCESS)
}
