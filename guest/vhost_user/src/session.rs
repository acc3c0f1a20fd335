//! A session: what one front end said so far, and what is answered to the next message.
//!
//! Sans I/O: messages go in, answers come out, and the device is told. Messages may come in any order. A ring begins as
//! soon as its last missing piece is there, whichever that is, and stops when GET_VRING_BASE asks for its position.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use fabnic_memory::{DirtyLog, Map, MapError, RegionSpec};
use fabnic_port::Fault;
use vhost::vhost_user::message::{FrontendReq, VhostUserLog};
use vhost::vhost_user::{VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures as Transport};
use vm_memory::ByteValued;

use crate::back_channel::BackChannel;
use crate::device::{Device, RingSetup};
use crate::error::Error;
use crate::inflight;
use crate::memory_file;
use crate::message::{MEM_SLOTS, Message, Reply, Request, RingAddr, RingFd};
use crate::positions::{Identity, Positions};
use crate::ring::{Kick, RING_PACKED, Ring, position};
use crate::status::{self, RingFormat, RingStatus};

/// The most rings of a device: the ring number has 8 bits where a descriptor comes with it.
pub const MAX_RINGS: u16 = 256;

/// The largest ring (virtio 1.x, section 2.7: "Queue Size is at most 32768").
const MAX_RING_SIZE: u32 = 32768;

/// Warnings that one session may log.
const WARNINGS: u32 = 16;

/// Protocol features that every device of ours offers.
///
/// Their place, but not offered yet: DEVICE_STATE (19) and HOST_NOTIFIER (11, with BACKEND_SEND_FD, 10) come with live
/// migration; see [`crate`], "Not offered".
pub const PROTOCOL_FEATURES: Protocol = Protocol::MQ
    .union(Protocol::LOG_SHMFD)
    .union(Protocol::RARP)
    .union(Protocol::REPLY_ACK)
    .union(Protocol::MTU)
    .union(Protocol::BACKEND_REQ)
    .union(Protocol::CONFIG)
    .union(Protocol::INFLIGHT_SHMFD)
    .union(Protocol::RESET_DEVICE)
    .union(Protocol::CONFIGURE_MEM_SLOTS)
    .union(Protocol::STATUS);

/// Virtio features of the transport; they are offered by the session and not shown to the device.
const TRANSPORT_FEATURES: u64 = Transport::LOG_ALL.union(Transport::PROTOCOL_FEATURES).bits();

/// What one front end said so far.
#[derive(Debug)]
pub struct Session {
    rings: Vec<Ring>,
    features: Option<u64>,
    protocol: Option<Protocol>,
    map: Option<Arc<Map>>,
    log: Option<Arc<DirtyLog>>,
    back: Option<BackChannel>,
    inflight: Option<inflight::Regions>,
    /// Where rings stand, beyond the session.
    positions: Option<Arc<Positions>>,
    /// The front end's process, 0 if not known.
    peer: i32,
    status: u8,
    /// Warnings that may still be logged; the rest is only in the status.
    warnings: u32,
}

impl Session {
    /// A session that has heard nothing yet.
    pub fn new(device: &dyn Device) -> Session {
        Session::with_positions(device, None, 0)
    }

    /// A session with a process (0 if not known), in which the positions of packed rings are noted.
    pub(crate) fn with_positions(
        device: &dyn Device,
        positions: Option<Arc<Positions>>,
        peer: i32,
    ) -> Session {
        let rings = device.rings().min(MAX_RINGS);
        Session {
            rings: (0..rings).map(|_| Ring::default()).collect(),
            features: None,
            protocol: None,
            map: None,
            log: None,
            back: None,
            inflight: None,
            positions,
            peer,
            status: 0,
            warnings: WARNINGS,
        }
    }

    /// Takes one message. An error ends the session; a refusal that the front end wants to hear of is an answer.
    pub fn take(&mut self, device: &mut dyn Device, message: Message) -> Result<Option<Reply>, Error> {
        let (request, need_reply) = (message.request, message.need_reply);
        let acknowledge = need_reply && self.protocol.is_some_and(|p| p.contains(Protocol::REPLY_ACK));
        let done = Request::parse(message).and_then(|parsed| self.obey(device, request, parsed));
        match done {
            Ok(None) if acknowledge => Ok(Some(Reply::number(request, 0))),
            Ok(reply) => Ok(reply),
            Err(error) if acknowledge && error.is_refusal() && !has_reply(request) => {
                if self.may_warn() {
                    tracing::warn!(port = device.name(), %error, "vhost-user request refused");
                }
                Ok(Some(Reply::number(request, 1)))
            }
            Err(error) => Err(error),
        }
    }

    fn obey(
        &mut self,
        device: &mut dyn Device,
        request: FrontendReq,
        parsed: Request,
    ) -> Result<Option<Reply>, Error> {
        let number = |value| Ok(Some(Reply::number(request, value)));
        match parsed {
            Request::GetFeatures => return number(device.features() | TRANSPORT_FEATURES),
            Request::SetFeatures(features) => self.set_features(device, request, features)?,
            Request::GetProtocolFeatures => return number(PROTOCOL_FEATURES.bits()),
            Request::SetProtocolFeatures(bits) => {
                let agreed = Protocol::from_bits_retain(bits);
                if !PROTOCOL_FEATURES.contains(agreed) {
                    let extra = bits & !PROTOCOL_FEATURES.bits();
                    return Err(value(
                        request,
                        format!("protocol features {extra:#x} beyond the offer"),
                        "a part of the offer",
                    ));
                }
                self.protocol = Some(agreed);
            }
            // There is one owner, the other end of the socket; and RESET_OWNER is to be ignored.
            Request::SetOwner | Request::ResetOwner => {}
            // QEMU and DPDK take this for an upper bound of pairs, Cloud Hypervisor of rings: rings suit all of them.
            Request::GetQueueNum => return number(u64::try_from(self.rings.len()).unwrap_or(0)),
            Request::GetMaxMemSlots => return number(MEM_SLOTS),
            Request::SetMemTable(specs) => {
                specs.iter().try_for_each(|spec| memory_file::check(request, &spec.file))?;
                let map = Map::new(specs).map_err(|source| Error::Memory { request, source })?;
                self.set_map(device, map);
            }
            Request::AddMemReg(spec) => {
                memory_file::check(request, &spec.file)?;
                self.change_map(device, request, |map| add(map, spec))?;
            }
            Request::RemMemReg(name) => self.change_map(device, request, |map| match map {
                Some(map) => map.without_region(name.guest_addr, name.user_addr, name.len),
                None => Err(MapError::NoSuchRegion { guest_addr: name.guest_addr, len: name.len }),
            })?,
            Request::SetLogBase(area) => {
                memory_file::check(request, &area.fd)?;
                let reply = VhostUserLog { mmap_size: area.len, mmap_offset: area.offset };
                let log = DirtyLog::new(area.fd, area.offset, area.len)
                    .map_err(|source| Error::Memory { request, source })?;
                self.log = Some(log);
                self.refresh_logs(device);
                // QEMU and Cloud Hypervisor wait for an answer whether or not they say so; the latter for this one.
                return Ok(Some(Reply::new(request, reply.as_slice())));
            }
            Request::SetLogFd(_unused) => {}
            Request::SetVringNum { ring, size } => {
                if size == 0 || size > MAX_RING_SIZE {
                    return Err(value(request, format!("ring {ring} of size {size}"), "1 to 32768"));
                }
                let size = u16::try_from(size).ok();
                self.change_ring(device, request, ring, |ring| (ring.size != size, ring.size = size).0)?;
            }
            Request::SetVringAddr(addr) => self.set_addr(device, request, addr)?,
            Request::SetVringBase { ring, base } => {
                // The position of a ring that runs is its own.
                let state = self.ring(request, ring)?;
                if !state.running {
                    state.base = Some(base);
                    state.said = Some(base);
                    self.start_if_complete(device, ring);
                }
            }
            Request::GetVringBase(ring) => return self.get_base(device, request, ring).map(Some),
            Request::SetVringKick(kick) => self.set_kick(device, request, kick)?,
            Request::SetVringCall(call) => self.set_call(device, request, call)?,
            Request::SetVringErr(RingFd { ring, fd }) => self.ring(request, ring)?.err = fd,
            Request::SetVringEnable { ring, enabled } => {
                let state = self.ring(request, ring)?;
                state.enabled = Some(enabled);
                if state.running {
                    device.set_enabled(ring, enabled);
                }
            }
            Request::SendRarp(mac) => device.announce(mac),
            Request::SetMtu(mtu) => {
                device.set_mtu(mtu).map_err(|source| Error::Device { request, source })?;
            }
            Request::SetBackendReqFd(fd) => {
                let back = BackChannel::new(fd)
                    .map_err(|source| Error::Socket { doing: "preparing the back-end channel", source })?;
                self.back = Some(back);
            }
            Request::GetConfig { offset, len, flags } => {
                let mut data = vec![0; usize::try_from(len).unwrap_or(0)];
                if !device.read_config(offset, &mut data) {
                    data.clear();
                }
                return Ok(Some(Reply::config(request, offset, flags, &data)));
            }
            Request::SetConfig { offset, data } => {
                device.write_config(offset, &data).map_err(|source| Error::Device { request, source })?;
            }
            Request::GetInflightFd { rings, size, payload } => {
                if usize::from(rings) > self.rings.len() || u32::from(size) > MAX_RING_SIZE {
                    return Err(value(
                        request,
                        format!("{rings} rings of {size} descriptors"),
                        "at most the rings that there are, of at most 32768",
                    ));
                }
                let packed = self.features.unwrap_or(0) & RING_PACKED != 0;
                let failed = |source| Error::Socket { doing: "making an area for in-flight records", source };
                let (fd, area) = inflight::create(rings, size, packed).map_err(failed)?;
                let reply = Reply::inflight(request, area, payload, fd.as_fd());
                return reply.map(Some).map_err(|_| failed(rustix::io::Errno::MFILE));
            }
            Request::SetInflightFd { area, rings, size } => {
                memory_file::check(request, &area.fd)?;
                let regions = inflight::Regions::open(area, rings, size)
                    .map_err(|source| Error::Memory { request, source })?;
                self.inflight = Some(regions);
            }
            Request::ResetDevice => self.reset(device),
            Request::SetStatus(bits) => {
                let status = u8::try_from(bits).map_err(|_| {
                    value(request, format!("{bits:#x}"), "the eight bits of the virtio status")
                })?;
                self.status = status;
                if status == 0 {
                    // Rings stop, and their positions stay to be asked for: QEMU before 8.1 resets first.
                    self.stop_all(device);
                    self.forget_positions();
                }
                device.set_status(status);
            }
            Request::GetStatus => return number(u64::from(self.status)),
        }
        Ok(None)
    }

    fn may_warn(&mut self) -> bool {
        let may = self.warnings > 0;
        self.warnings = self.warnings.saturating_sub(1);
        may
    }

    fn ring(&mut self, request: FrontendReq, ring: u16) -> Result<&mut Ring, Error> {
        let count = self.rings.len();
        self.rings.get_mut(usize::from(ring)).ok_or_else(|| {
            value(request, format!("ring {ring} of {count}"), "a ring that GET_QUEUE_NUM announced")
        })
    }

    fn indexes(&self) -> impl Iterator<Item = u16> + use<> {
        0..u16::try_from(self.rings.len()).unwrap_or(MAX_RINGS)
    }

    fn set_features(
        &mut self,
        device: &mut dyn Device,
        request: FrontendReq,
        features: u64,
    ) -> Result<(), Error> {
        let extra = features & !(device.features() | TRANSPORT_FEATURES);
        if extra != 0 {
            let names = status::names(extra, |bit| device.feature_name(bit)).join(", ");
            return Err(value(
                request,
                format!("{names} ({extra:#x}) beyond the offer"),
                "a part of the offer",
            ));
        }
        let changed = self.features.replace(features).unwrap_or(0) ^ features;
        if changed & !TRANSPORT_FEATURES != 0 {
            // The device and its rings speak another language now: begin anew where they are.
            self.restart_all(device);
        } else if changed & Transport::PROTOCOL_FEATURES.bits() != 0 {
            for ring in self.indexes() {
                self.refresh_enabled(device, ring);
            }
        }
        if changed & Transport::LOG_ALL.bits() != 0 {
            self.refresh_logs(device);
        }
        for ring in self.indexes() {
            self.start_if_complete(device, ring);
        }
        Ok(())
    }

    fn is_enabled(&self, ring: u16) -> bool {
        let by_default = self.features.is_some_and(|f| f & Transport::PROTOCOL_FEATURES.bits() == 0);
        self.rings.get(usize::from(ring)).and_then(|ring| ring.enabled).unwrap_or(by_default)
    }

    fn refresh_enabled(&self, device: &mut dyn Device, ring: u16) {
        if self.rings.get(usize::from(ring)).is_some_and(|ring| ring.running) {
            device.set_enabled(ring, self.is_enabled(ring));
        }
    }

    /// The log that is written to at the moment.
    fn active_log(&self) -> Option<Arc<DirtyLog>> {
        let on = self.features.is_some_and(|features| features & Transport::LOG_ALL.bits() != 0);
        self.log.clone().filter(|_| on)
    }

    fn refresh_logs(&self, device: &mut dyn Device) {
        let log = self.active_log();
        for (index, ring) in (0_u16..).zip(&self.rings) {
            if ring.running {
                device.set_log(index, log.clone(), ring.addr.and_then(|addr| addr.log));
            }
        }
    }

    fn change_map(
        &mut self,
        device: &mut dyn Device,
        request: FrontendReq,
        change: impl FnOnce(Option<&Map>) -> Result<Arc<Map>, MapError>,
    ) -> Result<(), Error> {
        let map = change(self.map.as_deref()).map_err(|source| Error::Memory { request, source })?;
        self.set_map(device, map);
        Ok(())
    }

    /// Another memory, while traffic runs: every ring is moved between two bursts. What is left in no region stops.
    fn set_map(&mut self, device: &mut dyn Device, map: Arc<Map>) {
        self.map = Some(Arc::clone(&map));
        for index in self.indexes() {
            let Some(ring) = self.rings.get_mut(usize::from(index)) else { continue };
            if !ring.running {
                self.start_if_complete(device, index);
            } else if let Err(reason) = device.set_memory(index, &map) {
                self.stop(device, index);
                self.note_problem(device, index, &reason);
            }
        }
    }

    /// Changes what was said of a ring. One that runs begins anew where it is if the change says that it matters.
    fn change_ring(
        &mut self,
        device: &mut dyn Device,
        request: FrontendReq,
        index: u16,
        change: impl FnOnce(&mut Ring) -> bool,
    ) -> Result<(), Error> {
        let ring = self.ring(request, index)?;
        if change(ring) && ring.running {
            self.stop(device, index);
        }
        self.start_if_complete(device, index);
        Ok(())
    }

    fn set_addr(
        &mut self,
        device: &mut dyn Device,
        request: FrontendReq,
        addr: RingAddr,
    ) -> Result<(), Error> {
        let ring = self.ring(request, addr.ring)?;
        let old = ring.addr.replace(addr);
        if ring.running && old.is_some_and(|old| RingAddr { log: addr.log, ..old } == addr) {
            // Only whether the ring itself is logged: said at the beginning of a migration.
            let log = self.active_log();
            device.set_log(addr.ring, log, addr.log);
            return Ok(());
        }
        self.change_ring(device, request, addr.ring, |_| true)
    }

    fn set_kick(&mut self, device: &mut dyn Device, request: FrontendReq, kick: RingFd) -> Result<(), Error> {
        let index = kick.ring;
        let ring = self.ring(request, index)?;
        if let Some(fd) = &kick.fd {
            check_event(request, fd)?;
        }
        if ring.running {
            device.set_kick(index, duplicate(request, kick.fd.as_ref())?);
        }
        ring.kick = kick.fd.map_or(Kick::Poll, Kick::Fd);
        self.start_if_complete(device, index);
        Ok(())
    }

    fn set_call(&mut self, device: &mut dyn Device, request: FrontendReq, call: RingFd) -> Result<(), Error> {
        let ring = self.ring(request, call.ring)?;
        if let Some(fd) = &call.fd {
            check_event(request, fd)?;
        }
        if ring.running {
            device.set_call(call.ring, duplicate(request, call.fd.as_ref())?);
        }
        ring.call = call.fd;
        ring.pay_call();
        Ok(())
    }

    fn start_if_complete(&mut self, device: &mut dyn Device, index: u16) {
        if let Err(reason) = self.start(device, index) {
            self.note_problem(device, index, &reason);
        }
    }

    fn start(&mut self, device: &mut dyn Device, index: u16) -> Result<(), Fault> {
        let (Some(features), Some(map)) = (self.features, &self.map) else { return Ok(()) };
        let (enabled, log, map) = (self.is_enabled(index), self.active_log(), Arc::clone(map));
        let Some(ring) = self.rings.get_mut(usize::from(index)) else { return Ok(()) };
        let (Some(size), Some(addr), Some(base)) = (ring.size, ring.addr, ring.base) else { return Ok(()) };
        if ring.running || !ring.is_complete() {
            return Ok(());
        }
        let packed = features & RING_PACKED != 0;
        if !packed && !size.is_power_of_two() {
            return Err(Fault(format!("a split ring of size {size}, expected a power of two")));
        }
        let identity =
            Identity { desc: addr.desc, device: addr.device, size, said: ring.said, peer: self.peer };
        let noted = self.positions.as_ref().filter(|_| packed);
        let base = match noted.and_then(|noted| noted.recover(index, &identity, &map)) {
            Some(at) => u32::from(at) | u32::from(at) << 16,
            None => {
                position(&map, packed, base, addr.device).map_err(|e| Fault(format!("used ring: {e}")))?
            }
        };
        let copy = |fd: &OwnedFd| {
            fd.try_clone().map_err(|e| Fault(format!("duplicating a descriptor of the ring: {e}")))
        };
        let kick = if let Kick::Fd(fd) = &ring.kick { Some(copy(fd)?) } else { None };
        let call = ring.call.as_ref().map(copy).transpose()?;
        if let Some(noted) = noted {
            noted.begin(index, &identity, u16::try_from(base & 0xffff).unwrap_or(0));
        }
        device.start_ring(RingSetup {
            ring: index,
            map,
            features: features & !TRANSPORT_FEATURES,
            size,
            desc: addr.desc,
            driver: addr.driver,
            device: addr.device,
            base,
            enabled,
            kick,
            call,
            log,
            log_used: addr.log,
            journal: noted.map(|noted| noted.journal(index)),
        })?;
        ring.running = true;
        ring.problem = None;
        ring.owes_call = base != if packed { 0x8000_8000 } else { 0 };
        ring.pay_call();
        if let Some(inflight) = &self.inflight {
            inflight.note(index, packed, base);
        }
        tracing::debug!(port = device.name(), ring = index, size, packed, base, enabled, "ring started");
        Ok(())
    }

    /// Stops a ring and remembers where.
    fn stop(&mut self, device: &mut dyn Device, index: u16) {
        let Some(ring) = self.rings.get_mut(usize::from(index)) else { return };
        if core::mem::take(&mut ring.running)
            && let Some(base) = device.stop_ring(index)
        {
            ring.base = Some(base);
            ring.said = None;
            if let Some(inflight) = &self.inflight {
                inflight.note(index, self.features.unwrap_or(0) & RING_PACKED != 0, base);
            }
        }
    }

    fn stop_all(&mut self, device: &mut dyn Device) {
        for ring in self.indexes() {
            self.stop(device, ring);
        }
    }

    /// The device was reset: what its rings were is of no use to anybody.
    fn forget_positions(&self) {
        if let Some(positions) = &self.positions {
            self.indexes().for_each(|ring| positions.forget(ring));
        }
    }

    fn restart_all(&mut self, device: &mut dyn Device) {
        for ring in self.indexes() {
            if self.rings.get(usize::from(ring)).is_some_and(|ring| ring.running) {
                self.stop(device, ring);
                self.start_if_complete(device, ring);
            }
        }
    }

    /// The ring failed: kept to be read, and told to the front end where it wants to know.
    fn note_problem(&mut self, device: &dyn Device, index: u16, reason: &Fault) {
        if self.may_warn() {
            tracing::warn!(port = device.name(), ring = index, %reason, "ring cannot run");
        }
        let Some(ring) = self.rings.get_mut(usize::from(index)) else { return };
        ring.problem = Some(reason.to_string());
        if let Some(err) = &ring.err {
            // A full or foreign descriptor is the front end's own loss.
            let _ = rustix::io::write(err, &1_u64.to_ne_bytes());
        }
    }

    fn get_base(
        &mut self,
        device: &mut dyn Device,
        request: FrontendReq,
        index: u16,
    ) -> Result<Reply, Error> {
        self.ring(request, index)?;
        self.stop(device, index);
        let ring = self.ring(request, index)?;
        // It begins again when it is told anew how it is kicked.
        ring.kick = Kick::Unset;
        ring.problem = None;
        let base = ring.base.unwrap_or(0);
        if let Some(positions) = &self.positions {
            positions.forget(index);
        }
        Ok(Reply::ring(request, index, base))
    }

    /// RESET_DEVICE: rings and features are forgotten; memory, log and channels stay.
    fn reset(&mut self, device: &mut dyn Device) {
        self.stop_all(device);
        self.forget_positions();
        for ring in &mut self.rings {
            let call = ring.call.take();
            *ring = Ring { call, ..Ring::default() };
        }
        self.features = None;
        self.status = 0;
        device.set_status(0);
    }

    /// The configuration space changed: tells the front end, if it listens.
    pub fn config_changed(&mut self) {
        if let Some(back) = &mut self.back {
            back.config_changed();
        }
    }

    /// Tries again to send what the back-end channel did not take.
    pub fn flush_back_channel(&mut self) {
        if let Some(back) = &mut self.back {
            back.flush();
        }
    }

    /// The front end is gone: stops everything. Descriptors and memory go with the session.
    pub fn end(mut self, device: &mut dyn Device, reason: &str) {
        self.stop_all(device);
        device.disconnected(reason);
    }

    /// What was agreed and what runs, for people to read.
    pub(crate) fn describe(&self, device: &dyn Device, into: &mut status::Status) {
        into.features = status::names(self.features.unwrap_or(0), |bit| device.feature_name(bit));
        into.protocol_features = status::protocol_names(self.protocol.unwrap_or(Protocol::empty()));
        into.device_status = self.status;
        if let Some(map) = &self.map {
            into.memory_regions = map.regions();
            into.memory_bytes = map.bytes();
        }
        into.logging = self.active_log().is_some();
        let packed = self.features.unwrap_or(0) & RING_PACKED != 0;
        for (index, ring) in (0_u16..).zip(&self.rings) {
            if ring.size.is_none() && ring.call.is_none() && matches!(ring.kick, Kick::Unset) {
                continue;
            }
            into.rings.push(RingStatus {
                ring: index,
                size: ring.size.unwrap_or(0),
                format: if packed { RingFormat::Packed } else { RingFormat::Split },
                running: ring.running,
                enabled: self.is_enabled(index),
                problem: ring.problem.clone(),
            });
        }
    }
}

/// Requests with an answer of their own get no other.
fn has_reply(request: FrontendReq) -> bool {
    matches!(
        request,
        FrontendReq::GET_FEATURES
            | FrontendReq::GET_PROTOCOL_FEATURES
            | FrontendReq::GET_QUEUE_NUM
            | FrontendReq::GET_MAX_MEM_SLOTS
            | FrontendReq::GET_VRING_BASE
            | FrontendReq::SET_LOG_BASE
            | FrontendReq::GET_CONFIG
            | FrontendReq::GET_INFLIGHT_FD
            | FrontendReq::GET_STATUS
    )
}

fn value(request: FrontendReq, got: String, expected: &'static str) -> Error {
    Error::Value { request, got, expected }
}

fn add(map: Option<&Map>, spec: RegionSpec) -> Result<Arc<Map>, MapError> {
    match map {
        Some(map) => map.with_region(spec),
        None => Map::new(vec![spec]),
    }
}

fn duplicate(request: FrontendReq, fd: Option<&OwnedFd>) -> Result<Option<OwnedFd>, Error> {
    fd.map(OwnedFd::try_clone)
        .transpose()
        .map_err(|e| Error::Device { request, source: Fault(format!("duplicating a descriptor: {e}")) })
}

/// Kicks and calls must be eventfds: they have no file type, everything else that can be sent has one. And they must not
/// block, for a worker writes to them: a counter that the front end filled to the brim would hold it for ever.
fn check_event(request: FrontendReq, fd: &OwnedFd) -> Result<(), Error> {
    let kernel = |source| Error::Socket { doing: "looking at a kick or call descriptor", source };
    let stat = rustix::fs::fstat(fd).map_err(kernel)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Unknown {
        return Err(value(request, "a descriptor that is no eventfd".to_owned(), "an eventfd"));
    }
    let flags = rustix::fs::fcntl_getfl(fd).map_err(kernel)?;
    rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK).map_err(kernel)
}
