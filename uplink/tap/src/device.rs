//! Making, opening and setting up a TAP device (Linux, Documentation/networking/tuntap.rst, linux/if_tun.h).

use core::ffi::{c_int, c_ulong};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use fabnic_memory::{Map, MapError};
use fabnic_port::finish::Accepts;
use fabnic_port::{MAX_QUEUES, Port};
use fabnic_wire::MacAddr;
use fabnic_wire::offload::HEADER_LEN;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::queue::{ARENA, TapEgress, TapIngress};

// linux/if_tun.h; libc has the interface flags only.
const TUNSETIFF: c_ulong = 0x4004_54ca;
const TUNSETPERSIST: c_ulong = 0x4004_54cb;
const TUNSETOFFLOAD: c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: c_ulong = 0x4004_54d8;
const TUNSETVNETLE: c_ulong = 0x4004_54dc;
const TUN_F_CSUM: c_ulong = 0x01;
const TUN_F_TSO4: c_ulong = 0x02;
const TUN_F_TSO6: c_ulong = 0x04;
const TUN_F_TSO_ECN: c_ulong = 0x08;
const TUN_F_USO4: c_ulong = 0x20;
const TUN_F_USO6: c_ulong = 0x40;
const TUN_F_TSO: c_ulong = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;

/// The longest name of a network device (IFNAMSIZ less the zero byte).
const MAX_NAME: usize = 15;

/// How a TAP device is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// Name of the network device, 1 to 15 bytes. It is made if it does not exist.
    pub device: String,
    /// Queues to open, 1 to [`MAX_QUEUES`]. An existing device must have been made for several.
    pub queues: usize,
    /// Whether 64 KiB frames and partial checksums are exchanged with the kernel.
    pub offloads: bool,
    /// The device's MTU in bytes; left as it is if not said.
    pub mtu: Option<u16>,
    /// The device's own MAC address (the host's end, not that of a VM); left as it is if not said.
    pub mac: Option<MacAddr>,
    /// Whether to set the device up.
    pub up: bool,
    /// Whether a device that is made here stays when the daemon goes.
    pub persist: bool,
}

impl TapConfig {
    /// One queue with offloads, set up, gone with the daemon.
    pub fn new(device: impl Into<String>) -> TapConfig {
        TapConfig {
            device: device.into(),
            queues: 1,
            offloads: true,
            mtu: None,
            mac: None,
            up: true,
            persist: false,
        }
    }
}

/// Why a TAP device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The name cannot be that of a network device.
    #[error(
        "{name:?} is not the name of a network device, expected 1 to 15 bytes without space, '/', ':' and '%'"
    )]
    Name {
        /// What was asked for.
        name: String,
    },
    /// No such number of queues.
    #[error("TAP device {device}: {queues} queues, expected 1 to {MAX_QUEUES}")]
    Queues {
        /// The device.
        device: String,
        /// What was asked for.
        queues: usize,
    },
    /// The device and the port have different numbers of queues.
    #[error("TAP device {device} has {queues} queues, port {port:?} has room for {room}: expected as many")]
    PortQueues {
        /// The device.
        device: String,
        /// Its queues.
        queues: usize,
        /// The port.
        port: String,
        /// Its queue pairs.
        room: usize,
    },
    /// `/dev/net/tun` cannot be opened.
    #[error(
        "/dev/net/tun cannot be opened: {source}; expected the kernel's TUN driver and the right to use it"
    )]
    NoDriver {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel did not give the device.
    #[error("TAP device {device}, queue {queue}: {source}; {hint}")]
    Attach {
        /// The device.
        device: String,
        /// Which queue.
        queue: usize,
        /// The kernel's answer.
        source: io::Error,
        /// What it commonly means.
        hint: &'static str,
    },
    /// A setting was refused.
    #[error("TAP device {device}: {setting} was refused: {source}")]
    Setting {
        /// The device.
        device: String,
        /// What was to be set.
        setting: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No memory to read into.
    #[error("TAP device {device}: no memory to read into: {source}")]
    Memory {
        /// The device.
        device: String,
        /// What went wrong.
        source: MapError,
    },
}

/// An open TAP device.
#[derive(Debug)]
pub struct Tap {
    name: Arc<str>,
    queues: Vec<Arc<OwnedFd>>,
    accepts: Accepts,
    created: bool,
    /// For settings of the network device, in the namespace that it was opened in.
    control: OwnedFd,
}

impl Tap {
    /// Opens the device, or makes it, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// See [`TapError`]. A device that was made for this call is gone again.
    pub fn open(config: &TapConfig) -> Result<Tap, TapError> {
        let TapConfig { device, queues, .. } = config;
        if !is_device_name(device) {
            return Err(TapError::Name { name: device.clone() });
        }
        if !(1..=MAX_QUEUES).contains(queues) {
            return Err(TapError::Queues { device: device.clone(), queues: *queues });
        }
        let setting = |setting| move |source| TapError::Setting { device: device.clone(), setting, source };
        let control =
            rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
                .map_err(|errno| setting("a control socket")(errno.into()))?;
        let created = rustix::net::netdevice::name_to_index(&control, device).is_err();

        let mut fds = Vec::with_capacity(*queues);
        let mut multi_queue = true;
        for queue in 0..*queues {
            let mut attached = attach_queue(device, multi_queue)?;
            // A device that was made for one queue is not opened with the flag for several.
            if *queues == 1 && matches!(&attached, Err(error) if error.raw_os_error() == Some(libc::EINVAL)) {
                multi_queue = false;
                attached = attach_queue(device, multi_queue)?;
            }
            let fd = attached.map_err(|source| {
                let hint = hint(&source, queue);
                TapError::Attach { device: device.clone(), queue, source, hint }
            })?;
            fds.push(Arc::new(fd));
        }
        let mut tap =
            Tap { name: device.as_str().into(), queues: fds, accepts: Accepts::default(), created, control };
        for fd in &tap.queues {
            let header = HEADER_LEN as c_int;
            ioctl_int(fd, TUNSETVNETHDRSZ, header).map_err(setting("a virtio-net header of 12 bytes"))?;
            ioctl_int(fd, TUNSETVNETLE, 1).map_err(setting("a little-endian virtio-net header"))?;
        }
        tap.set_offloads(config.offloads).map_err(setting("offloads"))?;
        if config.persist
            && let Some(fd) = tap.queues.first()
        {
            ioctl_value(fd, TUNSETPERSIST, 1).map_err(setting("to persist"))?;
        }
        if let Some(mac) = config.mac {
            tap.set_mac(mac).map_err(setting("the MAC address"))?;
        }
        if let Some(mtu) = config.mtu {
            tap.set_mtu(mtu).map_err(setting("the MTU"))?;
        }
        if config.up {
            tap.set_up(true).map_err(setting("link up"))?;
        }
        tracing::debug!(device = %tap.name, queues = tap.queues.len(), created, accepts = ?tap.accepts, "TAP device open");
        Ok(tap)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many queues are open.
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// What was agreed with the kernel: it gives and takes these unfinished. Anything else that is delivered to it is
    /// finished in software.
    pub fn accepts(&self) -> Accepts {
        self.accepts
    }

    /// Whether the device was made by [`Tap::open`].
    pub fn created(&self) -> bool {
        self.created
    }

    /// Installs the queues in the port's cells, which must be as many, and tells the port.
    ///
    /// # Errors
    /// When the port has another number of queue pairs (the kernel spreads flows over all of ours), or there is no
    /// memory. Nothing is installed then.
    pub fn attach(&self, port: &Port) -> Result<(), TapError> {
        let room = port.ingress().len().min(port.egress().len());
        if room != self.queues.len() {
            return Err(TapError::PortQueues {
                device: self.name.to_string(),
                queues: self.queues.len(),
                port: port.name.clone(),
                room,
            });
        }
        let pairs = (0..room).map(|queue| self.pair(queue)).collect::<Result<Vec<_>, _>>()?;
        for ((ingress, egress), (from, to)) in pairs.into_iter().zip(port.ingress().iter().zip(port.egress()))
        {
            to.install(Box::new(egress));
            from.install(Box::new(ingress));
        }
        port.refresh_egress();
        Ok(())
    }

    /// Takes all queues out of the port again.
    pub fn detach(&self, port: &Port) {
        for cell in port.ingress() {
            drop(cell.remove());
        }
        for cell in port.egress() {
            drop(cell.remove());
        }
        port.refresh_egress();
    }

    /// The two directions of one queue.
    ///
    /// # Errors
    /// There is no such queue, or no memory.
    pub fn pair(&self, queue: usize) -> Result<(TapIngress, TapEgress), TapError> {
        let device = || self.name.to_string();
        let fd =
            self.queues.get(queue).ok_or_else(|| TapError::Queues { device: device(), queues: queue })?;
        let (arena, _) =
            Map::anonymous(ARENA).map_err(|source| TapError::Memory { device: device(), source })?;
        let egress = TapEgress::new(Arc::clone(&self.name), Arc::clone(fd), self.accepts, Arc::clone(&arena));
        let ingress = TapIngress::new(Arc::clone(&self.name), Arc::clone(fd), arena);
        Ok((ingress, egress))
    }

    /// Sets the device's MTU in bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_mtu(&self, mtu: u16) -> io::Result<()> {
        let mut request = ifreq(&self.name);
        request.ifr_ifru.ifru_mtu = c_int::from(mtu);
        ioctl_ifreq(&self.control, libc::SIOCSIFMTU, &mut request)
    }

    /// Sets the address of the kernel's end.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_mac(&self, mac: MacAddr) -> io::Result<()> {
        let mut request = ifreq(&self.name);
        let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
        for (to, from) in address.sa_data.iter_mut().zip(mac.octets()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_hwaddr = address;
        ioctl_ifreq(&self.control, libc::SIOCSIFHWADDR, &mut request)
    }

    /// Sets the device up or down.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_up(&self, up: bool) -> io::Result<()> {
        const IFF_UP: i16 = libc::IFF_UP as i16;
        let mut request = ifreq(&self.name);
        ioctl_ifreq(&self.control, libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: SIOCGIFFLAGS filled this member, and every bit pattern of it is a value.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let wanted = if up { flags | IFF_UP } else { flags & !IFF_UP };
        if wanted == flags {
            return Ok(());
        }
        request.ifr_ifru.ifru_flags = wanted;
        ioctl_ifreq(&self.control, libc::SIOCSIFFLAGS, &mut request)
    }

    /// Asks for all offloads or none. Kernels before 6.2 do not know USO.
    fn set_offloads(&mut self, wanted: bool) -> io::Result<()> {
        let Some(fd) = self.queues.first() else { return Ok(()) };
        if !wanted {
            ioctl_value(fd, TUNSETOFFLOAD, 0)?;
            self.accepts = Accepts::default();
        } else if ioctl_value(fd, TUNSETOFFLOAD, TUN_F_TSO | TUN_F_USO4 | TUN_F_USO6).is_ok() {
            self.accepts = Accepts::ALL;
        } else {
            ioctl_value(fd, TUNSETOFFLOAD, TUN_F_TSO)?;
            self.accepts = Accepts { uso4: false, uso6: false, ..Accepts::ALL };
        }
        Ok(())
    }
}

fn is_device_name(name: &str) -> bool {
    // net/core/dev.c, dev_valid_name; '%' would make it a pattern.
    (1..=MAX_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .bytes()
            .any(|b| b.is_ascii_whitespace() || b == b'\x0b' || matches!(b, b'/' | b':' | b'%' | 0))
}

fn hint(error: &io::Error, queue: usize) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "expected CAP_NET_ADMIN, or a device made beforehand for this user (ip tuntap add ... mode tap user ...)"
        }
        Some(libc::EBUSY) if queue == 0 => "another process has the device open",
        Some(libc::EINVAL) => {
            "the name belongs to a device that is not a TAP, or that was made for one queue (ip tuntap add ... multi_queue)"
        }
        Some(libc::E2BIG) => "all queues of the device are taken",
        _ => "expected a TAP device, existing or to be made",
    }
}

/// Opens one more queue of the device. The outer error is that of the driver, the inner one that of the device.
fn attach_queue(device: &str, multi_queue: bool) -> Result<io::Result<OwnedFd>, TapError> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty())
        .map_err(|errno| TapError::NoDriver { source: errno.into() })?;
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let mut request = ifreq(device);
    request.ifr_ifru.ifru_flags = flags as i16;
    Ok(ioctl_ifreq(&fd, TUNSETIFF, &mut request).map(|()| fd))
}

/// A request for the device, with nothing else in it.
fn ifreq(device: &str) -> libc::ifreq {
    // SAFETY: plain data for which all zeros is valid.
    let mut request = unsafe { core::mem::zeroed::<libc::ifreq>() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes().take(MAX_NAME)) {
        *to = from as libc::c_char;
    }
    request
}

fn answer(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An ioctl that takes a `struct ifreq`: TUNSETIFF and the SIOCxIFyyy that this file names.
fn ioctl_ifreq(fd: &OwnedFd, request: c_ulong, argument: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the descriptor is open; the requests used here read and write one ifreq, which is borrowed for the call.
    answer(unsafe { libc::ioctl(raw(fd.as_fd()), request, core::ptr::from_mut(argument)) })
}

/// An ioctl that takes a pointer to an `int`: TUNSETVNETHDRSZ, TUNSETVNETLE.
fn ioctl_int(fd: &OwnedFd, request: c_ulong, value: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open; the requests used here read one int, which lives for the call.
    answer(unsafe { libc::ioctl(raw(fd.as_fd()), request, core::ptr::from_ref(&value)) })
}

/// An ioctl whose argument is the value itself: TUNSETOFFLOAD, TUNSETPERSIST.
fn ioctl_value(fd: &OwnedFd, request: c_ulong, value: c_ulong) -> io::Result<()> {
    // SAFETY: the descriptor is open; the requests used here take a number and touch no memory of ours.
    answer(unsafe { libc::ioctl(raw(fd.as_fd()), request, value) })
}

fn raw(fd: BorrowedFd<'_>) -> c_int {
    fd.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_not_take_are_refused() {
        for good in ["tap0", "a", "fifteen-bytes-0", "up.10"] {
            assert!(is_device_name(good), "{good}");
        }
        for bad in ["", ".", "..", "sixteen-bytes-00", "tap%d", "a/b", "a b", "a:1", "a\0"] {
            assert!(!is_device_name(bad), "{bad:?}");
        }
        let error = Tap::open(&TapConfig::new("tap%d")).unwrap_err();
        assert!(matches!(error, TapError::Name { .. }), "{error}");
    }

    #[test]
    fn numbers_of_queues_that_cannot_be_are_refused() {
        for queues in [0, MAX_QUEUES + 1] {
            let error = Tap::open(&TapConfig { queues, ..TapConfig::new("tap0") }).unwrap_err();
            assert!(matches!(error, TapError::Queues { .. }), "{error}");
        }
    }
}
