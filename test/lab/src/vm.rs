//! Virtual machines: stock kernels in QEMU, with NICs on vhost-user and vfio-user sockets.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::{
    Boot, Child, GuestKernel, GuestShell, Lab, Launch, Reply,
    guest::{self, Part},
};

/// How guest code is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// By the CPU itself.
    Kvm,
    /// By QEMU's translator: slow, but everywhere.
    Tcg,
}

impl Accel {
    /// What this machine can do.
    ///
    /// A `/dev/kvm` that opens is not enough: some hosts have one that runs only guests of its own. The CPU's
    /// flags tell.
    pub fn detect() -> Self {
        let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let hardware = flags
            .lines()
            .find(|line| line.starts_with("flags"))
            .is_some_and(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"));
        if hardware && std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok() {
            Self::Kvm
        } else {
            Self::Tcg
        }
    }
}

/// How a NIC reaches its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A virtio-net device of QEMU's, served over vhost-user.
    VhostUser,
    /// A PCI device that is not QEMU's at all.
    VfioUser,
}

/// One NIC of a VM.
#[derive(Clone, Debug)]
pub struct Nic {
    /// How it reaches the VM. Over vfio-user, the other fields but the socket say nothing: the server knows.
    pub transport: Transport,
    /// Over vfio-user: it is behind a root port of its own, where it can be unplugged.
    pub pluggable: bool,
    /// The socket.
    pub socket: PathBuf,
    /// Whether QEMU listens on it (the back end is in client role); otherwise QEMU connects, and reconnects.
    pub listen: bool,
    /// The guest's MAC address.
    pub mac: String,
    /// Queue pairs.
    pub queues: u16,
    /// Packed rings instead of split ones.
    pub packed: bool,
    /// More properties of the virtio-net device, such as `mrg_rxbuf=off`.
    pub properties: Vec<String>,
}

impl Nic {
    /// A NIC with one queue pair and split rings, whose QEMU connects to `socket`.
    pub fn new(socket: impl Into<PathBuf>, mac: &str) -> Self {
        Self {
            transport: Transport::VhostUser,
            pluggable: false,
            socket: socket.into(),
            listen: false,
            mac: mac.to_owned(),
            queues: 1,
            packed: false,
            properties: Vec::new(),
        }
    }

    /// The device of a NIC over vfio-user, as QEMU wants it: `n0`, `n1`, ... behind the root ports `rp0`, `rp1`, ...
    fn vfio_user_device(&self, index: usize, rom: Option<&str>) -> Value {
        let mut device = json!({
            "driver": "vfio-user-pci",
            "id": format!("n{index}"),
            "socket": { "type": "unix", "path": self.socket },
        });
        if self.pluggable {
            device["bus"] = json!(format!("rp{index}"));
        }
        if let Some(rom) = rom {
            device["romfile"] = json!(rom);
            device["bootindex"] = json!(0);
        }
        device
    }

    /// A PCI NIC that is served on `socket`.
    pub fn vfio_user(socket: impl Into<PathBuf>) -> Self {
        Self { transport: Transport::VfioUser, ..Self::new(socket, "") }
    }
}

/// What a VM is made of.
#[derive(Clone, Debug)]
pub struct VmSpec {
    /// Its name: the guest's hostname, and the prefix of its files.
    pub name: String,
    /// The kernel it boots.
    pub kernel: GuestKernel,
    /// Where it gets it from.
    pub boot: Boot,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// Its virtual CPUs.
    pub cpus: u16,
    /// Its NICs, in the order in which the guest names them (eth0, eth1, ...).
    pub nics: Vec<Nic>,
    /// The CPU that all of its threads are bound to, if any.
    pub on_cpu: Option<usize>,
    /// Whether it has `bridge`, `tc` and the kernel's modules behind them.
    pub networking: bool,
    /// Whether it has DPDK's testpmd (and no networking), and a virtual IOMMU, which VFIO wants. Newest kernel only.
    pub dpdk: bool,
    /// Programs of the machine that it has, each under its path in the guest.
    pub files: Vec<(String, PathBuf)>,
}

impl VmSpec {
    /// A VM with one CPU, 256 MiB and no NIC.
    pub fn new(name: &str, kernel: GuestKernel) -> Self {
        Self {
            name: name.to_owned(),
            kernel,
            boot: Boot::Kernel,
            memory_mib: 256,
            cpus: 1,
            nics: Vec::new(),
            on_cpu: None,
            networking: false,
            dpdk: false,
            files: Vec::new(),
        }
    }

    /// Adds a NIC.
    #[must_use]
    pub fn with_nic(mut self, nic: Nic) -> Self {
        self.nics.push(nic);
        self
    }
}

/// A running VM; killed when dropped.
#[derive(Debug)]
pub struct Vm {
    name: String,
    qemu: Child,
    shell: GuestShell,
    console: PathBuf,
    console_socket: PathBuf,
    monitor: PathBuf,
    nics: Vec<Nic>,
    kernel_version: String,
}

impl Vm {
    /// How long a boot may take. Under TCG on a busy machine of two CPUs it takes 3 to 20 s.
    pub const BOOT_TIMEOUT: Duration = Duration::from_secs(240);

    /// Starts QEMU and does not wait for the guest. `dir` (below `/tmp` or `/run`) gets the VM's sockets and logs.
    ///
    /// # Errors
    /// If QEMU does not start.
    pub fn start(lab: &Lab, spec: &VmSpec, dir: &Path) -> Result<Self> {
        if !(dir.starts_with("/tmp") || dir.starts_with("/run")) {
            bail!(
                "a VM's folder must be below /tmp or /run to be seen from inside the lab: {}",
                dir.display()
            );
        }
        let path = |suffix: &str| dir.join(format!("{}.{suffix}", spec.name));
        let (console, console_socket, agent) = (path("console.log"), path("console"), path("agent"));
        let mut launch = lab.program("qemu-system-x86_64");
        launch.args(["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"]);
        launch.arg("-name").arg(&spec.name);
        // Without graphics the BIOS speaks to the first serial port.
        launch.arg("-machine").arg("q35,memory-backend=mem,vmport=off,graphics=off");
        match Accel::detect() {
            Accel::Kvm => launch.args(["-accel", "kvm", "-cpu", "host"]),
            Accel::Tcg => launch.args(["-accel", "tcg", "-cpu", "max"]),
        };
        launch.arg("-smp").arg(spec.cpus.to_string());
        launch.arg("-m").arg(format!("{}M", spec.memory_mib));
        launch.arg("-object").arg(format!("memory-backend-memfd,id=mem,size={}M,share=on", spec.memory_mib));
        match &spec.boot {
            Boot::Kernel => load_kernel(lab, spec, &mut launch, path("initrd"))?,
            boot => boot.prepare(lab, &mut launch, &path("firmware"))?,
        }
        launch.arg("-chardev").arg(format!(
            "socket,id=console,path={},server=on,wait=off,logfile={}",
            console_socket.display(),
            console.display()
        ));
        launch.args(["-serial", "chardev:console"]);
        launch.arg("-chardev").arg(format!("socket,id=agent,path={},server=on,wait=off", agent.display()));
        launch.args(["-serial", "chardev:agent"]);
        let monitor = path("qmp");
        launch.arg("-qmp").arg(format!("unix:{},server=on,wait=off", monitor.display()));
        for (index, nic) in spec.nics.iter().enumerate() {
            if nic.transport == Transport::VfioUser {
                if nic.pluggable {
                    launch.arg("-device").arg(format!("pcie-root-port,id=rp{index},slot={}", index + 1));
                }
                // Only this form can say what kind of socket it is.
                let rom = spec.boot.rom().filter(|_| index == 0);
                launch.arg("-device").arg(nic.vfio_user_device(index, rom).to_string());
                continue;
            }
            let role = if nic.listen { "server=on,wait=off" } else { "reconnect-ms=50" };
            launch.arg("-chardev").arg(format!("socket,id=c{index},path={},{role}", nic.socket.display()));
            launch
                .arg("-netdev")
                .arg(format!("vhost-user,id=n{index},chardev=c{index},queues={}", nic.queues));
            let mut device = format!(
                "virtio-net-pci,netdev=n{index},mac={},packed={},rx_queue_size=1024,tx_queue_size=1024,romfile=",
                nic.mac,
                if nic.packed { "on" } else { "off" }
            );
            if nic.queues > 1 {
                device.push_str(&format!(",mq=on,vectors={}", 2 * nic.queues + 2));
            }
            for property in &nic.properties {
                device.push(',');
                device.push_str(property);
            }
            launch.arg("-device").arg(device);
        }
        if let Some(cpu) = spec.on_cpu {
            launch.on_cpu(cpu);
        }
        launch.log_to(path("qemu.log"));
        // Sockets that a VM of this name left behind when it was killed.
        for stale in [&agent, &console_socket, &monitor] {
            let _absent = std::fs::remove_file(stale);
        }
        let mut qemu = launch.spawn()?;
        // The socket's name is there a moment before QEMU listens on it.
        let mut shell = Err(anyhow::anyhow!("nobody tried to connect"));
        qemu.wait_until("its agent socket", Duration::from_secs(20), || {
            shell = GuestShell::connect(&agent);
            shell.is_ok()
        })?;
        let shell = shell?;
        Ok(Self {
            name: spec.name.clone(),
            qemu,
            shell,
            console,
            console_socket,
            monitor,
            nics: spec.nics.clone(),
            kernel_version: String::new(),
        })
    }

    /// Starts a VM and waits until it serves commands.
    ///
    /// # Errors
    /// If it does not come up within [`Vm::BOOT_TIMEOUT`]; the error has QEMU's log and the guest's console.
    pub fn boot(lab: &Lab, spec: &VmSpec, dir: &Path) -> Result<Self> {
        let mut vm = Self::start(lab, spec, dir)?;
        vm.wait_ready()?;
        Ok(vm)
    }

    /// Waits until the guest serves commands: after [`Vm::start`], or after a reboot.
    ///
    /// # Errors
    /// As [`Vm::boot`].
    pub fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + Self::BOOT_TIMEOUT;
        match self.shell.wait_ready(deadline) {
            Ok(version) => {
                self.kernel_version = version;
                Ok(())
            }
            Err(error) => Err(error).with_context(|| {
                format!(
                    "VM {}: qemu said:\n{}its console said:\n{}",
                    self.name,
                    self.qemu.log_tail(),
                    self.console_tail()
                )
            }),
        }
    }

    /// Waits until its console has shown `text`.
    ///
    /// # Errors
    /// If that does not come within [`Vm::BOOT_TIMEOUT`], or QEMU ends; the error has the console.
    pub fn wait_console(&mut self, text: &str) -> Result<()> {
        let console = self.console.clone();
        self.qemu
            .wait_until(&format!("{text:?} on the console"), Self::BOOT_TIMEOUT, || {
                std::fs::read(&console).is_ok_and(|said| String::from_utf8_lossy(&said).contains(text))
            })
            .with_context(|| format!("VM {}: its console said:\n{}", self.name, self.console_tail()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What `uname -r` said when it came up.
    pub fn kernel_version(&self) -> &str {
        &self.kernel_version
    }

    /// The socket of its console, a root shell: `cargo xtask lab console SOCKET`.
    pub fn console_socket(&self) -> &Path {
        &self.console_socket
    }

    /// QEMU itself.
    pub fn qemu(&mut self) -> &mut Child {
        &mut self.qemu
    }

    /// The line to the guest's init, for commands that are started now and finished later.
    pub fn shell(&mut self) -> &mut GuestShell {
        &mut self.shell
    }

    /// Runs a shell command in the guest, as root, and gives its status and output.
    ///
    /// # Errors
    /// If the guest does not answer within four minutes: no measure of speed, but the end of patience.
    pub fn run(&mut self, command: &str) -> Result<Reply> {
        let name = self.name.clone();
        self.shell.run(command, Duration::from_secs(240)).with_context(|| format!("VM {name}"))
    }

    /// Runs a shell command that must succeed, and gives its output.
    ///
    /// # Errors
    /// If the guest does not answer, or the command fails; the error has its output.
    pub fn sh(&mut self, command: &str) -> Result<String> {
        let reply = self.run(command)?;
        if reply.status != 0 {
            bail!("VM {}: `{command}` failed ({}): {}", self.name, reply.status, reply.text);
        }
        Ok(reply.text)
    }

    /// Tells the guest to reboot and waits until it is up again.
    ///
    /// # Errors
    /// If it does not come up again.
    pub fn reboot(&mut self) -> Result<()> {
        // No reply: the line dies with the guest.
        self.shell.start("reboot -f")?;
        self.wait_ready()
    }

    /// Powers the guest off and waits for QEMU's end.
    ///
    /// # Errors
    /// If QEMU does not end by itself; it is killed then.
    pub fn power_off(mut self) -> Result<()> {
        self.shell.start("poweroff -f")?;
        let status = self.qemu.wait_exit(Duration::from_secs(30))?;
        if !status.success() {
            bail!("QEMU of VM {} ended badly ({status}):\n{}", self.name, self.qemu.log_tail());
        }
        Ok(())
    }

    /// Takes a pluggable NIC out, and waits until the guest has let it go.
    ///
    /// # Errors
    /// If QEMU or the guest does not do it.
    pub fn unplug(&mut self, index: usize) -> Result<()> {
        let mut qmp = Qmp::connect(&self.monitor)?;
        qmp.ask("device_del", &json!({ "id": format!("n{index}") }))?;
        qmp.wait_event("DEVICE_DELETED").with_context(|| format!("VM {}: unplugging NIC {index}", self.name))
    }

    /// Puts a NIC in again.
    ///
    /// # Errors
    /// If QEMU refuses.
    pub fn plug(&mut self, index: usize) -> Result<()> {
        let nic = self.nics.get(index).with_context(|| format!("VM {} has no NIC {index}", self.name))?;
        Qmp::connect(&self.monitor)?.ask("device_add", &nic.vfio_user_device(index, None))
    }

    /// The end of what the guest's kernel and init said.
    pub fn console_tail(&self) -> String {
        let bytes = std::fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(25)).map(|line| format!("    {line}\n")).collect()
    }
}

/// The arguments that have QEMU load a guest's kernel; `own` is where an initramfs goes that is this VM's alone.
fn load_kernel(lab: &Lab, spec: &VmSpec, launch: &mut Launch, own: PathBuf) -> Result<()> {
    let guest = format!("/mnt/guest/{}", spec.kernel.name());
    let mut initrd = format!("{guest}/initrd");
    let more = match (spec.dpdk, spec.networking) {
        (true, _) => Some(Part::Dpdk),
        (false, true) => Some(Part::Networking),
        (false, false) => None,
    };
    if more.is_some() || !spec.files.is_empty() {
        guest::assemble(lab, spec.kernel, more, &spec.files, &own)?;
        initrd = own.display().to_string();
    }
    launch.arg("-kernel").arg(format!("{guest}/vmlinuz")).arg("-initrd").arg(initrd);
    let mut line = command_line(&spec.name);
    if spec.dpdk {
        launch.args(["-device", "intel-iommu,caching-mode=on"]);
        line.push_str(" intel_iommu=on iommu=pt");
    }
    launch.arg("-append").arg(line);
    Ok(())
}

/// What the lab's kernels and their init want to be told.
pub fn command_line(name: &str) -> String {
    format!("console=ttyS0 quiet panic=-1 net.ifnames=0 fabnic.name={name} random.trust_cpu=on")
}

/// QEMU's monitor for programs: one JSON object a line.
#[derive(Debug)]
struct Qmp {
    stream: BufReader<UnixStream>,
    /// Names of events that came while something else was waited for.
    events: Vec<String>,
}

impl Qmp {
    fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).context("cannot connect to QEMU's monitor")?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut qmp = Self { stream: BufReader::new(stream), events: Vec::new() };
        qmp.read()?;
        qmp.ask("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).context("QEMU's monitor says nothing")? == 0 {
            bail!("QEMU closed its monitor");
        }
        serde_json::from_str(&line).context("QEMU's monitor sent no JSON")
    }

    fn ask(&mut self, command: &str, arguments: &Value) -> Result<()> {
        let text = json!({ "execute": command, "arguments": arguments }).to_string();
        writeln!(self.stream.get_mut(), "{text}")?;
        loop {
            let answer = self.read()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            if answer.get("return").is_some() {
                return Ok(());
            }
            self.events.extend(answer["event"].as_str().map(str::to_owned));
        }
    }

    fn wait_event(&mut self, name: &str) -> Result<()> {
        while !self.events.iter().any(|event| event == name) {
            let message = self.read()?;
            self.events.extend(message["event"].as_str().map(str::to_owned));
        }
        Ok(())
    }
}
