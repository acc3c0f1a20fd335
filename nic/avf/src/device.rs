//! The function: registers, resets, and what its transport asks of it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use fabnic_avf_spec::PCI_ID;
use fabnic_avf_spec::mailbox::MESSAGE;
use fabnic_avf_spec::registers::{self as reg, dyn_ctl, icr};
use fabnic_memory::Map;
use fabnic_pci::{
    Bar, Description, Express, Function, Interrupts, Msix, Pin, Reset, SharedBar, SoftwareInterrupts,
};
use fabnic_port::{Fault, Port};

use crate::control::Session;
use crate::doorbell::{AREAS, Doorbells, NoDoorbells};
use crate::interrupts::{Pauses, Side, Vectors};
use crate::mailbox::Mailbox;
use crate::queues::{MAX_QUEUES, Queues};
use crate::rescue::{Moment, Rescues};
use crate::rss::Hasher;
use crate::settings::{Control, Settings};

/// Requests that one access answers; what is left waits for the transport's next turn, so that one guest's mailbox does not
/// hold up the registers of all others.
const REQUESTS: usize = 16;

/// A fabricated adaptive virtual function on a port.
#[derive(Debug)]
pub struct Avf {
    description: Description,
    pub(crate) port: Arc<Port>,
    pub(crate) settings: Settings,
    pub(crate) vectors: Arc<Vectors>,
    doorbells: Arc<Doorbells>,
    pauses: Pauses,
    rescues: Rescues,
    map: Option<Arc<Map>>,
    /// Not stopped where it stands.
    is_running: bool,
    pub(crate) mailbox: Mailbox,
    /// The mailbox may hold requests that were not looked at yet.
    has_more: bool,
    /// Holds the body of the request in work.
    inbox: Option<Box<[u8; MESSAGE]>>,
    pub(crate) session: Session,
    pub(crate) queues: Queues,
    control: Control,
    /// The changes from outside that are in effect, and the resets among them.
    seen: u64,
    resets: u64,
}

fn description() -> Description {
    let mut bars = [Bar::None; 6];
    let [first, _, _, fourth, ..] = &mut bars;
    *first = Bar::Memory64 { size: reg::BAR0_SIZE, prefetchable: true };
    *fourth = Bar::Memory64 { size: reg::BAR3_SIZE, prefetchable: true };
    Description {
        id: PCI_ID,
        subsystem: (PCI_ID.0, 0),
        class: 0x02_0000,
        revision: 2,
        pin: Pin::None,
        bars,
        msix: Some(Msix { vectors: reg::VECTORS, table: (3, 0), pending: (3, reg::MSIX_PENDING) }),
        express: Some(Express { flr: true }),
        power: true,
        serial: None,
    }
}

impl Avf {
    /// A function on `port`. It has at most as many queue pairs as the port has cells.
    ///
    /// # Errors
    /// The system has no memory or no descriptors left.
    pub fn new(port: Arc<Port>, mut settings: Settings) -> Result<Avf, Fault> {
        let cells = port.ingress().len().min(port.egress().len()).min(MAX_QUEUES);
        settings.queues = settings.queues.clamp(1, u16::try_from(cells).unwrap_or(1));
        let doorbells = Doorbells::new(MAX_QUEUES, settings.share_doorbells)
            .map_err(|NoDoorbells(error)| Fault(format!("no memory for tail registers: {error}")))?;
        let vectors = Arc::new(Vectors::new(Arc::clone(&doorbells)));
        let control =
            Control::new(&settings).map_err(|error| Fault(format!("no eventfd for settings: {error}")))?;
        let session = Session::new(&settings);
        let queues = Queues::new(
            Arc::clone(&port),
            Arc::clone(&doorbells),
            Arc::clone(&vectors),
            session.filter(),
            Hasher::new(&session.rss),
        );
        let mut avf = Avf {
            description: description(),
            port,
            settings,
            vectors,
            doorbells,
            pauses: Pauses::default(),
            rescues: Rescues::default(),
            map: None,
            is_running: true,
            mailbox: Mailbox::default(),
            has_more: false,
            inbox: Some(Box::new([0; MESSAGE])),
            session,
            queues,
            control,
            seen: 0,
            resets: 0,
        };
        avf.apply_rules();
        Ok(avf)
    }

    /// A handle by which the function is changed from outside.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The function as after power-on, but for its address and number of queues, which a driver may have changed.
    pub(crate) fn reset_function(&mut self) {
        self.queues.reset();
        self.mailbox.reset();
        self.vectors.reset();
        self.pauses.reset();
        self.doorbells.clear();
        self.session.reset(&self.settings);
        self.has_more = false;
        self.apply_rules();
        // Whatever its driver did wrong is over.
        if self.port.is_stopped() {
            self.port.restart();
        }
        tracing::debug!(port = %self.port.name, "virtual function reset");
    }

    /// Resets with an announcement, as the administrator does and a granted request for queues.
    pub(crate) fn reset_announced(&mut self) {
        self.post_event(fabnic_avf_spec::virtchnl::Event::ResetImpending);
        self.pump();
        self.reset_function();
    }

    /// Tells the queues what the session says.
    pub(crate) fn apply_rules(&mut self) {
        self.queues.set_filter(self.session.filter());
        self.queues.set_send_rules(self.session.send_rules(&self.settings));
        self.queues.set_strip(self.session.strip);
        self.queues.set_hasher(Hasher::new(&self.session.rss));
        self.queues.set_director(&self.session.director);
    }

    pub(crate) fn take_inbox(&mut self) -> Option<Box<[u8; MESSAGE]>> {
        self.inbox.take()
    }

    pub(crate) fn return_inbox(&mut self, inbox: Option<Box<[u8; MESSAGE]>>) {
        self.inbox = inbox;
    }

    /// Delivers what waits for the driver.
    pub(crate) fn pump(&mut self) {
        let Some(map) = self.map.as_ref().filter(|_| self.is_running) else { return };
        if self.mailbox.pump(map) {
            self.vectors.cause_other(icr::ADMINQ);
        }
    }

    /// Takes requests and answers them.
    fn run_mailbox(&mut self) {
        self.has_more = false;
        let Some(map) = self.map.clone().filter(|_| self.is_running) else { return };
        for _ in 0..REQUESTS {
            self.pump();
            if self.mailbox.is_full() {
                return;
            }
            let Some(inbox) = &mut self.inbox else { return self.pump() };
            let Some(request) = self.mailbox.take(&map, inbox) else { return self.pump() };
            self.answer(request);
        }
        self.pump();
        self.has_more = true;
    }

    fn read_register(&mut self, offset: u64) -> u32 {
        if Doorbells::holds(offset) {
            return self.doorbells.read(offset);
        }
        if let Some(value) = self.mailbox.read(offset) {
            return value;
        }
        match offset {
            reg::RSTAT => reg::rstat::ACTIVE,
            reg::ICR01 => self.vectors.take_causes(),
            reg::ICR0_ENA1 => self.vectors.enabled_causes(),
            reg::DYN_CTL01 => self.vectors.read_control(0),
            _ => match queue_vector(offset) {
                Some(vector) => self.vectors.read_control(vector),
                None => 0,
            },
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        if Doorbells::holds(offset) {
            self.doorbells.write(offset, value);
            return;
        }
        if self.mailbox.write(offset, value) {
            if matches!(offset, reg::ATQT | reg::ARQT) {
                self.run_mailbox();
            }
            return;
        }
        match offset {
            reg::ICR0_ENA1 => self.vectors.enable_causes(value),
            reg::DYN_CTL01 => self.write_control(0, value),
            _ => {
                if let Some(vector) = queue_vector(offset) {
                    self.write_control(vector, value);
                }
            }
        }
    }

    fn write_control(&mut self, vector: u16, value: u32) {
        let Avf { vectors, queues, pauses, rescues, .. } = self;
        let look = || {
            let [receive, transmit] =
                [Side::Receive, Side::Transmit].map(|side| vectors.queues(side, vector));
            Moment { is_waiting: vectors.is_waiting(vector), passed: queues.passed(receive, transmit) }
        };
        if value & dyn_ctl::SWINT_TRIG != 0 {
            rescues.asked(vector, look, || queues.wait_for_bursts());
        }
        vectors.write_control(vector, value, pauses);
        if value & dyn_ctl::INTENA != 0 && value & dyn_ctl::INTENA_MSK == 0 {
            rescues.enabled(vector, look());
        }
    }

    /// Gives the queues the memory that they may use now, and looks at the mailbox.
    fn bind(&mut self) {
        let map = self.map.clone().filter(|_| self.is_running);
        if let Err(fault) = self.queues.set_memory(map) {
            self.port.stop(fault);
        }
        self.run_mailbox();
    }

    /// Follows what was changed from outside.
    fn follow(&mut self) {
        if !self.is_running {
            return;
        }
        let changes = self.control.changes();
        if changes == self.seen {
            return;
        }
        self.seen = changes;
        let told = self.control.told();
        let link = (self.settings.link_up, self.settings.speed);
        (self.settings.link_up, self.settings.speed) = (told.link_up, told.speed);
        (self.settings.trust, self.settings.spoofchk) = (told.trust, told.spoofchk);
        if let Some(mac) = told.mac {
            self.settings.mac = mac;
        }
        if told.resets != self.resets {
            self.resets = told.resets;
            if let Some(mac) = told.mac {
                self.session.mac = mac;
            }
            self.reset_announced();
            return;
        }
        self.session.follow_trust(&self.settings);
        self.apply_rules();
        let listens = self.mailbox.is_open() && !self.session.caps.is_empty() && !self.mailbox.is_full();
        if listens && link != (told.link_up, told.speed) {
            self.post_link();
            self.pump();
        }
    }
}

/// The vector that a DYN_CTLN register controls.
fn queue_vector(offset: u64) -> Option<u16> {
    let index = offset.checked_sub(reg::DYN_CTLN)? / 4;
    u16::try_from(index + 1).ok().filter(|vector| *vector < reg::VECTORS)
}

impl Function for Avf {
    fn description(&self) -> &Description {
        &self.description
    }

    fn attach(&mut self, interrupts: Arc<dyn Interrupts>) {
        self.vectors.attach(Some(interrupts));
    }

    fn set_memory(&mut self, memory: Option<Arc<Map>>) {
        self.map = memory;
        self.bind();
    }

    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if bar != 0 {
            return;
        }
        // Whole words, each read once: reading has effects.
        let first = offset & !3;
        let mut at = first;
        while at < offset.saturating_add(data.len() as u64) {
            let word = self.read_register(at).to_le_bytes();
            for (byte, place) in word.iter().zip(at..) {
                let index = place.checked_sub(offset).and_then(|index| usize::try_from(index).ok());
                if let Some(to) = index.and_then(|index| data.get_mut(index)) {
                    *to = *byte;
                }
            }
            at += 4;
        }
    }

    fn write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        // Registers are written as a whole; no driver does anything else.
        if bar != 0 || !offset.is_multiple_of(4) {
            return;
        }
        let (words, _) = data.as_chunks::<4>();
        for (word, at) in words.iter().zip((offset..).step_by(4)) {
            self.write_register(at, u32::from_le_bytes(*word));
        }
    }

    fn reset(&mut self, reset: Reset) {
        if reset != Reset::FunctionLevel {
            // Another driver comes, or none: what this one asked for is forgotten too.
            self.session = Session::new(&self.settings);
        }
        self.reset_function();
        if reset == Reset::Disconnect {
            self.vectors.attach(None);
        }
    }

    fn shared(&self) -> Option<SharedBar> {
        let file = self.doorbells.file()?;
        Some(SharedBar { bar: 0, file, areas: AREAS.to_vec() })
    }

    fn deadline(&self) -> Option<u64> {
        let next = if self.has_more { Some(0) } else { self.pauses.next() };
        next.filter(|_| self.is_running)
    }

    fn expire(&mut self, now: u64) {
        self.pauses.set_now(now);
        if self.is_running {
            self.vectors.release(&mut self.pauses);
        }
        self.follow();
        if self.has_more {
            self.run_mailbox();
        }
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.control.wake())
    }

    fn faults(&self) -> u64 {
        self.queues.faults() + self.mailbox.faults
    }

    fn software_interrupts(&self) -> SoftwareInterrupts {
        self.rescues.count()
    }

    fn set_running(&mut self, running: bool) {
        if running != self.is_running {
            self.is_running = running;
            self.bind();
            self.follow();
        }
    }
}
