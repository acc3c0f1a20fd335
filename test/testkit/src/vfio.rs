//! A PCI card over vfio-user, as a guest's driver sees it: the VMM's part and the bus in one.
//!
//! The client is Cloud Hypervisor's (the `vfio_user` crate), so that messages are not ours on both sides. Registers on pages
//! that the device lets its client map are plain memory here; every other access is a message, and is counted: in a VM it
//! would be an exit.
//!
//! ```text
//!   fabnic-avf-driver, e1000::Driver --> Card --message--> socket
//!                                         |---- load, store ----> pages of the BAR
//!   GuestMemory ----------------------------- DMA map --------> device
//! ```

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fabnic_memory::{AddressSpace, Map, RegionSpec, Table};
use vfio_user::Client;

use crate::memory::GuestMemory;

/// Regions of a PCI device (Linux, `vfio.h`): BARs are 0 to 5, configuration space is this.
const CONFIG: u32 = 7;
/// The command register, and memory, I/O and bus mastering in it.
const COMMAND: u64 = 4;
const ALL_ON: [u8; 2] = [7, 0];

/// Pages of BAR 0 that are mapped.
#[derive(Debug)]
struct Pages {
    start: u64,
    words: Table<u32>,
}

/// A card whose device reaches a guest's memory.
pub struct Card {
    client: Client,
    pages: Vec<Pages>,
    accesses: u64,
    /// What went wrong with the first message that did not go: registers read as all ones since.
    failed: Option<String>,
}

impl core::fmt::Debug for Card {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Card")
            .field("pages", &self.pages)
            .field("accesses", &self.accesses)
            .finish_non_exhaustive()
    }
}

impl Card {
    /// Connects, waiting up to `patience` for the socket; maps the guest's memory and switches the device on.
    ///
    /// # Errors
    /// There is nobody, or not who was expected.
    pub fn connect(socket: &Path, memory: &GuestMemory, patience: Duration) -> Result<Card> {
        let since = Instant::now();
        let mut client = loop {
            match Client::new(socket) {
                Ok(client) => break client,
                Err(_) if since.elapsed() < patience => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => return Err(error).with_context(|| format!("{}", socket.display())),
            }
        };
        for (index, region) in memory.regions().iter().enumerate() {
            let file = memory.file(index).context("a region has a file")?;
            client.dma_map(0, region.guest_addr, region.len, file.as_raw_fd()).context("DMA map")?;
        }
        client.region_write(CONFIG, COMMAND, &ALL_ON).context("command register")?;
        let pages = map_pages(&client)?;
        Ok(Card { client, pages, accesses: 0, failed: None })
    }

    /// Accesses that were messages.
    pub fn accesses(&self) -> u64 {
        self.accesses
    }

    /// Whether tails are written without a message.
    pub fn is_mapped(&self) -> bool {
        !self.pages.is_empty()
    }

    /// Why the device does not answer any more, if so.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    #[inline]
    fn page(&self, bar: u8, offset: u64) -> Option<(&Table<u32>, usize)> {
        let find =
            |pages: &&Pages| bar == 0 && offset.wrapping_sub(pages.start) / 4 < pages.words.len() as u64;
        let pages = self.pages.iter().find(find)?;
        Some((&pages.words, usize::try_from((offset - pages.start) / 4).ok()?))
    }

    fn note<E: core::fmt::Display>(&mut self, result: Result<(), E>) {
        self.accesses += 1;
        if let Err(error) = result
            && self.failed.is_none()
        {
            self.failed = Some(error.to_string());
        }
    }

    /// Reads from a BAR.
    pub fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        if let (Ok(word), Some((words, at))) = (<&mut [u8; 4]>::try_from(&mut *data), self.page(bar, offset))
        {
            *word = words.load_acquire(at).to_ne_bytes();
            return;
        }
        data.fill(0xff);
        if self.failed.is_none() {
            let result = self.client.region_read(bar.into(), offset, data);
            self.note(result);
        }
    }

    /// Writes to a BAR. What was written to memory before is seen before.
    #[inline]
    pub fn write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if let (Ok(word), Some((words, at))) = (<[u8; 4]>::try_from(data), self.page(bar, offset)) {
            words.store_release(at, u32::from_ne_bytes(word));
            return;
        }
        if self.failed.is_none() {
            let result = self.client.region_write(bar.into(), offset, data);
            self.note(result);
        }
    }
}

/// Maps what of BAR 0 the device offers.
fn map_pages(client: &Client) -> Result<Vec<Pages>> {
    let region = client.region(0).context("the device has no BAR 0")?;
    let Some(file) = &region.file_offset else { return Ok(Vec::new()) };
    let mut pages = Vec::new();
    for area in &region.sparse_areas {
        ensure!(
            area.offset.checked_add(area.size).is_some_and(|end| end <= region.size),
            "pages outside of BAR 0"
        );
        let file_copy = file.file().as_fd().try_clone_to_owned().context("the BAR's file")?;
        let (len, offset) = (area.size, file.start() + area.offset);
        let map = Map::new(vec![RegionSpec { guest_addr: 0, user_addr: 0, len, offset, file: file_copy }])?;
        let words = map.table(AddressSpace::Guest, 0, usize::try_from(len / 4)?)?;
        pages.push(Pages { start: area.offset, words });
    }
    Ok(pages)
}

/// [`Card`] as the AVF's driver wants it.
#[derive(Debug)]
pub struct AvfBus {
    card: Card,
    memory: Arc<Map>,
    start: u64,
    len: u64,
}

impl AvfBus {
    /// On a card that reaches `memory`, whose first region is the driver's.
    ///
    /// # Errors
    /// The memory has no region.
    pub fn new(card: Card, memory: &GuestMemory) -> Result<AvfBus> {
        let region = memory.regions().first().context("memory has a region")?;
        Ok(AvfBus { card, memory: Arc::clone(memory.map()), start: region.guest_addr, len: region.len })
    }

    /// The card.
    pub fn card(&self) -> &Card {
        &self.card
    }
}

impl fabnic_avf_driver::Bus for AvfBus {
    fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.card.read(0, offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[inline]
    fn write(&mut self, offset: u64, value: u32) {
        self.card.write(0, offset, &value.to_le_bytes());
    }

    fn memory(&self) -> (Arc<Map>, u64, u64) {
        (Arc::clone(&self.memory), self.start, self.len)
    }

    fn reset(&mut self) {
        let result = self.card.client.reset();
        self.card.note(result);
        // A reset switches off what a driver then switches on.
        let result = self.card.client.region_write(CONFIG, COMMAND, &ALL_ON);
        self.card.note(result);
    }

    fn take_interrupts(&mut self, _vector: u16) -> u32 {
        // No eventfd was given: this driver polls.
        0
    }

    fn pause(&mut self) {
        std::thread::sleep(Duration::from_micros(100));
    }
}

impl crate::e1000::Registers for Card {
    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        Card::read(self, bar, offset, data);
    }

    fn write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        Card::write(self, bar, offset, data);
    }

    fn wait(&mut self, nanoseconds: u64) {
        std::thread::sleep(Duration::from_nanos(nanoseconds));
    }
}
