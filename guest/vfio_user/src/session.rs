//! A session: what one client said so far, and what is answered to the next message.
//!
//! Sans I/O: messages go in, answers come out, and the function is told. Requests are done in the order in which they
//! come, each one entirely before its answer.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use fabnic_memory::Map;
use fabnic_pci::{ConfigSpace, DescriptionError, Effects, Function, Pin, PowerState, Reset, SharedBar};
use rustix::io::Errno;

use crate::dma::Windows;
use crate::error::{Error, Refusal};
use crate::fields::Payload;
use crate::interrupts::{Events, check_event};
use crate::message::{
    Command, Feature, Header, IrqAction, IrqData, Message, RegionWrite, Reply, Request, SetIrqs, name,
};
use crate::migration::{Migration, Parts};
use crate::msix_table::MsixTable;
use crate::regions::{self, REGIONS, Region};
use crate::status::{Status, Traps};
use crate::version::{self, Peer};

/// Kinds of interrupts of a PCI device: INTx, MSI, MSI-X, error, request to be unplugged.
const IRQS: u32 = 5;
const INTX: u32 = 0;
const MSIX: u32 = 2;
const ERR: u32 = 3;
const REQ: u32 = 4;

/// What is configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Offers the function's shared pages to be mapped. With QEMU it makes every other write to the device wait for its
    /// answer; with Cloud Hypervisor, whose writes always wait, it can only gain.
    pub mmap: bool,
}

/// What one client said so far.
#[derive(Debug)]
pub struct Session {
    config: ConfigSpace,
    table: Option<MsixTable>,
    windows: Windows,
    events: Arc<Events>,
    shared: Option<SharedBar>,
    /// What the client can do, once it said so.
    peer: Option<Peer>,
    /// What the function reaches now.
    reached: Option<Arc<Map>>,
    migration: Migration,
    traps: Traps,
    refused: u64,
    last_refusal: Option<String>,
}

impl Session {
    /// A session that has heard nothing yet. The function is attached.
    ///
    /// # Errors
    /// If the function's description contradicts itself.
    pub fn new(function: &mut dyn Function, settings: Settings) -> Result<Session, DescriptionError> {
        let config = ConfigSpace::new(function.description())?;
        let msix = config.description().msix;
        let events = Events::new(msix.map_or(0, |msix| msix.vectors));
        function.attach(Arc::clone(&events) as Arc<dyn fabnic_pci::Interrupts>);
        Ok(Session {
            config,
            table: msix.map(MsixTable::new),
            windows: Windows::default(),
            events,
            shared: if settings.mmap { function.shared() } else { None },
            peer: None,
            reached: None,
            migration: Migration::default(),
            traps: Traps::default(),
            refused: 0,
            last_refusal: None,
        })
    }

    /// Takes one message at a time of the transport's clock, in nanoseconds.
    ///
    /// # Errors
    /// What ends the session. A request that is only refused is answered.
    pub fn take(
        &mut self,
        function: &mut dyn Function,
        message: Message,
        now: u64,
    ) -> Result<Option<Reply>, Error> {
        let header = message.header;
        let is_version = header.command == Command::Version as u16;
        if is_version == self.peer.is_some() {
            let when = if is_version { "again" } else { "first" };
            return Err(Error::Order { command: name(header.command), when });
        }
        function.expire(now);
        let room = message.payload.len();
        let done = Request::parse(message).and_then(|request| self.obey(function, request, room));
        let reply = match done {
            Ok((payload, fd)) => {
                let mut reply = Reply::new(&header, &payload.0);
                reply.fd = fd;
                reply
            }
            Err(refusal) => {
                let problem = format!("{}: {refusal}", name(header.command));
                tracing::debug!(%problem, "vfio-user request refused");
                self.refused = self.refused.saturating_add(1);
                self.last_refusal = Some(problem);
                Reply::error(&header, refusal.errno)
            }
        };
        Ok((!header.no_reply).then_some(reply))
    }

    fn obey(
        &mut self,
        function: &mut dyn Function,
        request: Request,
        room: usize,
    ) -> Result<(Payload, Option<OwnedFd>), Refusal> {
        let payload = match request {
            Request::Version { major, minor, capabilities } => {
                let (peer, answer) = version::negotiate(major, minor, &capabilities, room)?;
                self.peer = Some(peer);
                Payload(answer)
            }
            Request::DmaMap(window) => {
                self.windows.add(window)?;
                self.refresh_memory(function);
                Payload::default()
            }
            Request::DmaUnmap { window, echo } => {
                match window {
                    Some((iova, size)) => self.windows.remove(iova, size)?,
                    None => self.windows.clear(),
                }
                // The answer says that nothing uses it any more.
                self.refresh_memory(function);
                Payload(echo.to_vec())
            }
            // Flags: can be reset, is PCI.
            Request::GetInfo => Payload::default().u32(16).u32(3).u32(REGIONS).u32(IRQS),
            Request::GetRegionInfo { argsz, index } => return self.region_info(argsz, index),
            Request::GetRegionIoFds { index } => {
                Region::new(self.config.description(), index)?;
                // There are none: nobody in the kernel knows our registers.
                Payload::default().u32(16).u32(0).u32(index).u32(0)
            }
            Request::GetIrqInfo { index } => {
                let (count, flags) = self.irq(index)?;
                Payload::default().u32(16).u32(flags).u32(index).u32(count)
            }
            Request::SetIrqs(request) => {
                self.set_irqs(request)?;
                Payload::default()
            }
            Request::RegionRead { region, offset, count } => self.read(function, region, offset, count)?,
            Request::RegionWrite(write) => {
                let count = u32::try_from(write.data.len()).unwrap_or(0);
                let region = self.check_write(&write)?;
                self.write(function, region, write.offset, &write.data);
                Payload::default().u64(write.offset).u32(write.region).u32(count)
            }
            Request::RegionWriteMulti(writes) => {
                let checked: Result<Vec<_>, _> =
                    writes.into_iter().map(|write| Ok((self.check_write(&write)?, write))).collect();
                let checked = checked?;
                let count = u64::try_from(checked.len()).unwrap_or(0);
                for (region, write) in checked {
                    self.write(function, region, write.offset, &write.data);
                }
                Payload::default().u64(count)
            }
            Request::Reset => {
                self.config.reset();
                self.reset(function, Reset::Device);
                Payload::default()
            }
            Request::Feature(feature) => self.feature(function, feature)?,
            Request::MigrationRead { size } => self.migration.read(size)?,
            Request::MigrationWrite(data) => {
                self.migration.write(&data)?;
                Payload::default()
            }
        };
        Ok((payload, None))
    }

    fn feature(&mut self, function: &mut dyn Function, feature: Feature) -> Result<Payload, Refusal> {
        let mut line = self.events.asserted();
        let parts = Parts {
            function: &mut *function,
            config: &mut self.config,
            table: self.table.as_mut(),
            line: &mut line,
        };
        let done = self.migration.feature(parts, feature);
        if self.migration.was_restored() {
            self.events.disable_line(self.config.intx_disabled());
            fabnic_pci::Interrupts::intx(&*self.events, line);
            self.refresh_memory(function);
        }
        done
    }

    fn region_info(&self, argsz: u32, index: u32) -> Result<(Payload, Option<OwnedFd>), Refusal> {
        let region = Region::new(self.config.description(), index)?;
        let takes_fds = self.peer.is_some_and(|peer| peer.fds > 0);
        let shared = self.shared.as_ref().filter(|_| takes_fds);
        let (payload, with_file) = regions::info(region, self.config.description(), index, argsz, shared);
        let file = shared.filter(|_| with_file).map(|shared| shared.file.try_clone()).transpose();
        let file = file.map_err(|e| {
            Refusal::with(Errno::MFILE, format!("no descriptor for the BAR's file: {e}"), "one to be had")
        })?;
        Ok((payload, file))
    }

    /// How many interrupts of a kind there are, and what can be done with them: eventfd 1, maskable 2, automasked 4.
    fn irq(&self, index: u32) -> Result<(u32, u32), Refusal> {
        let description = self.config.description();
        match index {
            INTX if description.pin == Pin::A => Ok((1, 7)),
            MSIX => Ok((description.msix.map_or(0, |msix| u32::from(msix.vectors)), 1)),
            // Neither is ever sent; QEMU warns where there is no ERR.
            ERR | REQ => Ok((1, 1)),
            0..IRQS => Ok((0, 0)),
            _ => Err(Refusal::invalid(format!("interrupt index {index}"), "0 to 4")),
        }
    }

    fn set_irqs(&mut self, request: SetIrqs) -> Result<(), Refusal> {
        let SetIrqs { index, start, count, data, action } = request;
        let (vectors, _) = self.irq(index)?;
        if count == 0 {
            return match (&data, action, start) {
                (IrqData::None, IrqAction::Trigger, 0) => {
                    self.disable_irqs(index);
                    Ok(())
                }
                _ => Err(Refusal::invalid(
                    "no vectors",
                    "data none, action trigger and start 0 with it: all off",
                )),
            };
        }
        if start.checked_add(count).is_none_or(|end| end > vectors) {
            return Err(Refusal::invalid(
                format!("vectors {start} and {count} of them, of {vectors}"),
                "vectors that there are",
            ));
        }
        match (data, action) {
            (IrqData::Event(events), _) => self.install(index, start, count, events, action),
            (data, IrqAction::Trigger) => {
                for vector in meant(&data, start, count) {
                    self.fire(index, vector);
                }
                Ok(())
            }
            (data, IrqAction::Mask | IrqAction::Unmask) => {
                if index != INTX {
                    return Err(Refusal::invalid(format!("masking interrupt index {index}"), "INTx (0)"));
                }
                if meant(&data, start, count).next().is_some() {
                    self.events.mask_line(action == IrqAction::Mask);
                }
                Ok(())
            }
        }
    }

    fn install(
        &mut self,
        index: u32,
        start: u32,
        count: u32,
        events: Vec<OwnedFd>,
        action: IrqAction,
    ) -> Result<(), Refusal> {
        let got = u32::try_from(events.len()).unwrap_or(u32::MAX);
        if got != count && got != 0 {
            return Err(Refusal::invalid(
                format!("{got} file descriptors for {count} vectors"),
                "one each, or none at all",
            ));
        }
        events.iter().try_for_each(check_event)?;
        let mut events = events.into_iter();
        match (index, action) {
            (MSIX, IrqAction::Trigger) => {
                for vector in (start..).take(usize::try_from(count).unwrap_or(0)) {
                    self.events.set_vector(vector, events.next());
                }
            }
            (INTX, IrqAction::Trigger) => self.events.set_line(events.next()),
            (INTX, IrqAction::Unmask) => self.events.set_resample(events.next()),
            // Taken and dropped: they are never sent.
            (ERR | REQ, IrqAction::Trigger) => {}
            _ => {
                return Err(Refusal::invalid(
                    format!("eventfds to {action:?} interrupt index {index}"),
                    "to trigger, or to unmask INTx",
                ));
            }
        }
        Ok(())
    }

    fn disable_irqs(&mut self, index: u32) {
        match index {
            INTX => {
                self.events.set_line(None);
                self.events.set_resample(None);
            }
            MSIX => self.events.clear_vectors(),
            _ => {}
        }
    }

    fn fire(&self, index: u32, vector: u32) {
        match index {
            INTX => self.events.fire_line(),
            MSIX => {
                if let Ok(vector) = u16::try_from(vector) {
                    fabnic_pci::Interrupts::msix(&*self.events, vector);
                }
            }
            _ => {}
        }
    }

    fn read(
        &mut self,
        function: &mut dyn Function,
        region: u32,
        offset: u64,
        count: u32,
    ) -> Result<Payload, Refusal> {
        let index = region;
        let count_bytes = usize::try_from(count).unwrap_or(usize::MAX);
        let region = Region::new(self.config.description(), region)?;
        region.check(self.config.description(), offset, count_bytes)?;
        // Bounded by the check of the command (1 MiB) and of the region.
        let mut data = vec![0; count_bytes];
        self.traps.reads += u64::from(matches!(region, Region::Bar(_)));
        match region {
            Region::Config => {
                self.config.show_interrupt(self.events.asserted());
                self.config.read(offset, &mut data);
            }
            Region::Bar(_) if self.config.power_state() == PowerState::D3hot => data.fill(0xff),
            Region::Bar(bar) => {
                for (at, range) in regions::pieces(offset, count_bytes) {
                    let Some(piece) = data.get_mut(range) else { continue };
                    let table = self.table.as_ref();
                    if !table.is_some_and(|table| table.read(&self.events, bar, at, piece)) {
                        function.read(bar, at, piece);
                    }
                }
            }
            Region::Absent => {}
        }
        Ok(Payload::default().u64(offset).u32(index).u32(count).bytes(&data))
    }

    fn check_write(&self, write: &RegionWrite) -> Result<Region, Refusal> {
        let region = Region::new(self.config.description(), write.region)?;
        region.check(self.config.description(), write.offset, write.data.len())?;
        Ok(region)
    }

    fn write(&mut self, function: &mut dyn Function, region: Region, offset: u64, data: &[u8]) {
        self.traps.writes += u64::from(matches!(region, Region::Bar(_)));
        match region {
            Region::Config => {
                let effects = self.config.write(offset, data);
                self.follow(function, effects);
            }
            Region::Bar(_) if self.config.power_state() == PowerState::D3hot => {}
            Region::Bar(bar) => {
                for (at, range) in regions::pieces(offset, data.len()) {
                    let Some(piece) = data.get(range) else { continue };
                    if !self.table.as_mut().is_some_and(|table| table.write(bar, at, piece)) {
                        function.write(bar, at, piece);
                    }
                }
            }
            Region::Absent => {}
        }
    }

    /// Does what a write to configuration space brings about.
    fn follow(&mut self, function: &mut dyn Function, effects: Effects) {
        if effects.contains(Effects::RESET) {
            self.reset(function, Reset::FunctionLevel);
            return;
        }
        if effects.contains(Effects::INTX) {
            self.events.disable_line(self.config.intx_disabled());
        }
        if effects.contains(Effects::MASTER) {
            self.refresh_memory(function);
        }
    }

    /// Resets the function; configuration space was.
    fn reset(&mut self, function: &mut dyn Function, reset: Reset) {
        self.refresh_memory(function);
        function.reset(reset);
        self.events.reset();
        if let Some(table) = &mut self.table {
            table.reset();
        }
        self.migration.was_reset(function);
    }

    /// Tells the function what it may reach, if that is something else than before.
    fn refresh_memory(&mut self, function: &mut dyn Function) {
        let memory = self.windows.map().filter(|_| self.config.may_master());
        if memory.map(|map| map.id()) != self.reached.as_ref().map(|map| map.id()) {
            let memory = memory.cloned();
            function.set_memory(memory.clone());
            // Only now may the old one go.
            self.reached = memory;
        }
    }

    /// The descriptor by which the client unmasks INTx, if it gave one: when it becomes readable,
    /// [`Session::resampled`] is to be called.
    pub fn resample(&self) -> Option<Arc<OwnedFd>> {
        self.events.resample()
    }

    /// That descriptor became readable.
    pub fn resampled(&self) {
        self.events.resampled();
    }

    /// The client is gone: the function is reset and reaches nothing, descriptors and memory go.
    pub fn end(mut self, function: &mut dyn Function) {
        self.migration.end(function);
        self.windows.clear();
        self.refresh_memory(function);
        function.reset(Reset::Disconnect);
        self.events.end();
    }

    /// What the function is at the moment, as `lspci` would show it.
    pub fn config(&self) -> &ConfigSpace {
        &self.config
    }

    /// Accesses to BARs so far.
    pub(crate) fn traps(&self) -> Traps {
        self.traps
    }

    pub(crate) fn describe(&self, status: &mut Status) {
        let (windows, memory_windows) = self.windows.count();
        status.bus_master = self.config.may_master();
        status.asleep = self.config.power_state() == PowerState::D3hot;
        (status.windows, status.memory_windows) = (windows, memory_windows);
        status.memory_bytes = self.windows.map().map_or(0, |map| map.bytes());
        status.vectors =
            (self.config.description().msix.map_or(0, |msix| msix.vectors), self.events.installed());
        status.shared = self.shared.is_some();
        status.logging = self.migration.is_logging();
        status.refused = self.refused;
        status.last_refusal.clone_from(&self.last_refusal);
    }
}

/// The vectors that are meant.
fn meant(data: &IrqData, start: u32, count: u32) -> impl Iterator<Item = u32> + '_ {
    let chosen = move |index: u32| match data {
        IrqData::Bool(bools) => {
            usize::try_from(index).ok().and_then(|index| bools.get(index)).copied().unwrap_or(false)
        }
        IrqData::None | IrqData::Event(_) => true,
    };
    (0..count).filter(move |index| chosen(*index)).map(move |index| start.saturating_add(index))
}

/// The header of a command, for those who make messages themselves.
impl Header {
    /// A command with an answer.
    pub fn command(id: u16, command: u16, size: usize) -> Header {
        Header { id, command, size, no_reply: false }
    }
}
