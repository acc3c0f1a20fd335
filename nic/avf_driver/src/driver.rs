//! The driver: from a reset to running queues, and what it can ask for.

use fabnic_avf_spec::receive::rxdid;
use fabnic_avf_spec::registers::{self as reg, dyn_ctl, icr, rstat};
use fabnic_avf_spec::virtchnl::{
    Caps, ConfigQueues, EthAddr, EthAddrs, Event, FdirAdd, FdirDelete, IrqMap, IrqMapEntry, LinkSpeed,
    Promiscuous, QueuePair, QueueSelect, ReceiveQueue, Resources, RssBytes, RssConfig, RssHash, Stats,
    Status, TransmitQueue, Version, VlanCaps, VlanFilter, VlanFilters, VlanIds, VlanSetting, fdir, opcode,
    vlan,
};

use crate::arena::Arena;
use crate::mailbox::{Mailbox, Message};
use crate::receive::Receive;
use crate::transmit::Transmit;
use crate::{Bus, Error};

/// How often the driver looks for something that must come.
const PATIENCE: u32 = 100_000;

/// All that this driver knows how to use.
pub const ALL_CAPS: Caps = Caps::BASE
    .union(Caps::WB_ON_ITR)
    .union(Caps::REQ_QUEUES)
    .union(Caps::ADV_LINK_SPEED)
    .union(Caps::VLAN_V2)
    .union(Caps::USO)
    .union(Caps::CRC)
    .union(Caps::RX_FLEX_DESC)
    .union(Caps::ADV_RSS_PF)
    .union(Caps::FDIR_PF);

/// How a driver wants to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What to ask for.
    pub caps: Caps,
    /// Queue pairs; fewer if the device has fewer.
    pub queues: u16,
    /// Descriptors of each ring, a multiple of 32.
    pub ring_len: u16,
    /// Bytes of each buffer to receive into, and to send from if that is not said.
    pub buffer_len: u16,
    /// Bytes of each buffer to send from.
    pub send_buffer_len: Option<u16>,
    /// Longest frame to be received; 0 is the device's.
    pub max_frame: u32,
    /// Receive the frame check sequence, too.
    pub keep_crc: bool,
    /// Format of receive descriptors ([`fabnic_avf_spec::receive::rxdid`]); the legacy one if no other was granted.
    pub format: u8,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            caps: ALL_CAPS,
            queues: 1,
            ring_len: 256,
            buffer_len: 2048,
            send_buffer_len: None,
            max_frame: 0,
            keep_crc: false,
            format: rxdid::LEGACY_32,
        }
    }
}

/// The link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// It is up.
    pub up: bool,
    /// Its speed in Mbit/s.
    pub mbps: u32,
}

/// A driver on its device.
#[derive(Debug)]
pub struct Driver<B: Bus> {
    bus: B,
    arena: Arena,
    /// What of the arena is the mailbox's.
    mark: u64,
    mailbox: Mailbox,
    options: Options,
    resources: Resources,
    link: Option<Link>,
    /// The device said that it will be reset.
    impending: bool,
    transmit: Vec<Transmit>,
    receive: Vec<Receive>,
    vlan_caps: Option<VlanCaps>,
}

impl<B: Bus> Driver<B> {
    /// Resets the device and agrees with it on what to use.
    ///
    /// # Errors
    /// The device does not answer as it must, or there is not enough memory.
    pub fn open(mut bus: B, options: Options) -> Result<Driver<B>, Error> {
        bus.reset();
        let (map, start, len) = bus.memory();
        let mut arena = Arena::new(&map, start, len);
        let mailbox = Mailbox::new(&mut arena)?;
        let mark = arena.mark();
        let resources = Resources {
            queue_pairs: 0,
            vectors: 0,
            max_frame: 0,
            caps: Caps::empty(),
            rss_key: 0,
            rss_lut: 0,
            vsi: 0,
            mac: [0; 6],
        };
        let mut driver = Driver {
            bus,
            arena,
            mark,
            mailbox,
            options,
            resources,
            link: None,
            impending: false,
            transmit: Vec::new(),
            receive: Vec::new(),
            vlan_caps: None,
        };
        driver.reopen()?;
        Ok(driver)
    }

    /// Begins anew after a reset: nothing that was agreed on or set up holds any more.
    ///
    /// # Errors
    /// As for [`Driver::open`].
    pub fn reopen(&mut self) -> Result<(), Error> {
        self.transmit.clear();
        self.receive.clear();
        self.arena.rewind(self.mark);
        (self.link, self.impending, self.vlan_caps) = (None, false, None);
        let mut state = rstat::IN_PROGRESS;
        for _ in 0..PATIENCE {
            state = self.bus.read(reg::RSTAT) & rstat::MASK;
            if matches!(state, rstat::ACTIVE | rstat::COMPLETED) {
                break;
            }
            self.bus.pause();
        }
        if !matches!(state, rstat::ACTIVE | rstat::COMPLETED) {
            return Err(Error::NotActive(state));
        }
        let map = self.arena.map().clone();
        self.mailbox.open(&mut self.bus, &map);
        self.bus.write(reg::ICR0_ENA1, icr::ADMINQ);
        self.bus.write(reg::DYN_CTL01, dyn_ctl::INTENA | dyn_ctl::ITR_NONE << dyn_ctl::ITR_INDX_SHIFT);

        let reply = self.request(opcode::VERSION, &Version::V1_1.encode())?;
        let version = Version::parse(&reply).ok_or(Error::BadAnswer(opcode::VERSION))?;
        if version != Version::V1_1 {
            return Err(Error::Version(version.major, version.minor));
        }
        let reply = self.request(opcode::GET_VF_RESOURCES, &self.options.caps.bits().to_le_bytes())?;
        self.resources = Resources::parse(&reply).ok_or(Error::BadAnswer(opcode::GET_VF_RESOURCES))?;
        if self.has(Caps::VLAN_V2) {
            let reply = self.request(opcode::GET_OFFLOAD_VLAN_V2_CAPS, &[])?;
            self.vlan_caps = VlanCaps::parse(&reply);
        }
        Ok(())
    }

    /// What was granted.
    pub fn has(&self, caps: Caps) -> bool {
        self.resources.caps.contains(caps)
    }

    /// What the device said of itself.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// What can be done with VLAN tags, if that was granted.
    pub fn vlan_caps(&self) -> Option<&VlanCaps> {
        self.vlan_caps.as_ref()
    }

    /// The link, if the device ever said how it is.
    pub fn link(&self) -> Option<Link> {
        self.link
    }

    /// The bus.
    pub fn bus(&mut self) -> &mut B {
        &mut self.bus
    }

    /// Whether the device was reset, or is about to be: then [`Driver::reopen`] is next.
    pub fn was_reset(&mut self) -> bool {
        self.poll();
        !Mailbox::is_open(&mut self.bus)
    }

    /// Whether the device announced a reset.
    pub fn reset_is_impending(&self) -> bool {
        self.impending
    }

    /// Looks for events.
    pub fn poll(&mut self) {
        let map = self.arena.map().clone();
        while let Some(message) = self.mailbox.take(&mut self.bus, &map) {
            self.take_event(&message);
        }
    }

    fn take_event(&mut self, message: &Message) -> bool {
        if message.message != opcode::EVENT {
            return false;
        }
        match Event::parse(&message.body) {
            Some(Event::Link { up, speed }) => {
                let speed = match self.has(Caps::ADV_LINK_SPEED) {
                    true => LinkSpeed::Mbps(speed),
                    false => LinkSpeed::Bit(speed),
                };
                self.link = Some(Link { up, mbps: speed.mbps() });
            }
            Some(Event::ResetImpending | Event::Close) => self.impending = true,
            None => {}
        }
        true
    }

    /// Sends a message without waiting for a reply: for those that have none.
    ///
    /// # Errors
    /// It is too long.
    pub fn tell(&mut self, message: u32, body: &[u8]) -> Result<(), Error> {
        let map = self.arena.map().clone();
        self.mailbox.send(&mut self.bus, &map, message, body)
    }

    /// Sends a request and waits for its reply, of which this is the body. Events that come meanwhile are noted.
    ///
    /// # Errors
    /// The device refuses, does not answer, or answers something else.
    pub fn request(&mut self, message: u32, body: &[u8]) -> Result<Vec<u8>, Error> {
        self.tell(message, body)?;
        let map = self.arena.map().clone();
        for _ in 0..PATIENCE {
            let Some(reply) = self.mailbox.take(&mut self.bus, &map) else {
                self.bus.pause();
                continue;
            };
            if self.take_event(&reply) {
                continue;
            }
            if reply.message != message {
                return Err(Error::BadAnswer(message));
            }
            return match Status::of(reply.status) {
                Some(Status::Success) => Ok(reply.body),
                Some(status) => Err(Error::Refused { message, status }),
                None => Err(Error::BadAnswer(message)),
            };
        }
        Err(Error::NoAnswer(message))
    }

    /// Asks for a reset. [`Driver::reopen`] is next.
    ///
    /// # Errors
    /// None that is known.
    pub fn reset(&mut self) -> Result<(), Error> {
        self.tell(opcode::RESET_VF, &[])
    }

    /// Makes rings and starts them: receive buffers posted, the own address set, vectors 1 and up for queues.
    ///
    /// # Errors
    /// The device refuses, or there is not enough memory.
    pub fn start(&mut self) -> Result<(), Error> {
        let Options { ring_len, buffer_len, keep_crc, .. } = self.options;
        if !ring_len.is_multiple_of(32) || !(64..=4096).contains(&ring_len) {
            return Err(Error::Setup("a ring has 64 to 4096 descriptors, in steps of 32"));
        }
        let format = if self.has(Caps::RX_FLEX_DESC) { self.options.format } else { rxdid::LEGACY_32 };
        let count = self.options.queues.clamp(1, self.resources.queue_pairs.max(1));
        for queue in 0..count {
            let send = self.options.send_buffer_len.unwrap_or(buffer_len);
            self.transmit.push(Transmit::new(&mut self.arena, queue, ring_len, send)?);
            self.receive.push(Receive::new(&mut self.arena, queue, ring_len, buffer_len, format)?);
        }
        for receive in &mut self.receive {
            receive.refill(&mut self.bus);
        }
        if self.resources.mac != [0; 6] {
            let own = EthAddr { addr: self.resources.mac, kind: EthAddr::PRIMARY };
            self.set_addresses(&[own], true)?;
        }
        let vsi = self.resources.vsi;
        let max_frame = match self.options.max_frame {
            0 => u32::from(self.resources.max_frame),
            len => len,
        };
        let pairs = self.transmit.iter().zip(&self.receive).zip(0_u16..);
        let pairs = pairs.map(|((transmit, receive), id)| QueuePair {
            transmit: TransmitQueue {
                vsi,
                id,
                ring_len: transmit.len,
                head_write_back: 0,
                ring: transmit.ring,
            },
            receive: ReceiveQueue {
                vsi,
                id,
                ring_len: receive.len.into(),
                buffer_len: receive.buffer_len.into(),
                max_frame,
                keep_crc,
                format,
                ring: receive.ring,
                ..ReceiveQueue::default()
            },
        });
        let config = ConfigQueues { vsi, pairs: pairs.collect() };
        self.request(opcode::CONFIG_VSI_QUEUES, &config.encode())?;
        let vectors = self.resources.vectors.saturating_sub(1).max(1);
        let entries = (0..count.min(vectors)).map(|vector| {
            let queues =
                (vector..count).step_by(usize::from(vectors)).fold(0, |bits, queue| bits | 1_u16 << queue);
            IrqMapEntry {
                vsi,
                vector: vector + 1,
                receive: queues,
                transmit: queues,
                receive_itr: 0,
                transmit_itr: 1,
            }
        });
        self.request(opcode::CONFIG_IRQ_MAP, &IrqMap(entries.collect()).encode())?;
        self.request(opcode::ENABLE_QUEUES, &self.all_queues())?;
        self.poll();
        Ok(())
    }

    fn all_queues(&self) -> [u8; 12] {
        let bits = u32::try_from((1_u64 << self.transmit.len()) - 1).unwrap_or(u32::MAX);
        QueueSelect { vsi: self.resources.vsi, receive: bits, transmit: bits }.encode()
    }

    /// Stops the queues. When this returns the device does not touch their memory any more.
    ///
    /// # Errors
    /// The device refuses.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.request(opcode::DISABLE_QUEUES, &self.all_queues())?;
        self.transmit.clear();
        self.receive.clear();
        self.arena.rewind(self.mark);
        Ok(())
    }

    /// A transmit queue, and the bus to ring for it.
    pub fn transmit(&mut self, queue: usize) -> Option<(&mut Transmit, &mut B)> {
        Some((self.transmit.get_mut(queue)?, &mut self.bus))
    }

    /// A receive queue, and the bus to refill it over.
    pub fn receive(&mut self, queue: usize) -> Option<(&mut Receive, &mut B)> {
        Some((self.receive.get_mut(queue)?, &mut self.bus))
    }

    /// Asks for the next interrupt of a vector. It comes at once if something happened since the last one.
    pub fn enable_interrupt(&mut self, vector: u16) {
        let value = dyn_ctl::INTENA | dyn_ctl::ITR_NONE << dyn_ctl::ITR_INDX_SHIFT;
        match vector.checked_sub(1) {
            None => self.bus.write(reg::DYN_CTL01, value),
            Some(index) => self.bus.write(reg::DYN_CTLN + 4 * u64::from(index), value),
        }
    }

    /// Adds or removes addresses.
    ///
    /// # Errors
    /// The device refuses.
    pub fn set_addresses(&mut self, list: &[EthAddr], add: bool) -> Result<(), Error> {
        let message = if add { opcode::ADD_ETH_ADDR } else { opcode::DEL_ETH_ADDR };
        let body = EthAddrs { vsi: self.resources.vsi, list: list.to_vec() }.encode();
        self.request(message, &body).map(drop)
    }

    /// Receives everything, or only what is addressed to it.
    ///
    /// # Errors
    /// The device refuses.
    pub fn set_promiscuous(&mut self, unicast: bool, multicast: bool) -> Result<(), Error> {
        let body = Promiscuous { vsi: self.resources.vsi, unicast, multicast }.encode();
        self.request(opcode::CONFIG_PROMISCUOUS_MODE, &body).map(drop)
    }

    /// Adds or removes VLANs, by whatever version was granted.
    ///
    /// # Errors
    /// The device refuses.
    pub fn set_vlans(&mut self, ids: &[u16], add: bool) -> Result<(), Error> {
        let vsi = self.resources.vsi;
        if self.has(Caps::VLAN_V2) {
            let tag = |id: &u16| [VlanFilter { tci: *id, mask: 0, tpid: 0x8100 }, VlanFilter::default()];
            let body = VlanFilters { vsi, list: ids.iter().map(tag).collect() }.encode();
            return self
                .request(if add { opcode::ADD_VLAN_V2 } else { opcode::DEL_VLAN_V2 }, &body)
                .map(drop);
        }
        let body = VlanIds { vsi, list: ids.to_vec() }.encode();
        self.request(if add { opcode::ADD_VLAN } else { opcode::DEL_VLAN }, &body).map(drop)
    }

    /// Whether the device takes VLAN tags out of frames, and puts them in. The first version always puts them in.
    ///
    /// # Errors
    /// The device refuses.
    pub fn set_vlan_offloads(&mut self, strip: bool, insert: bool) -> Result<(), Error> {
        if self.has(Caps::VLAN_V2) {
            let body =
                VlanSetting { outer: 0, inner: vlan::ETHERTYPE_8100, vsi: self.resources.vsi }.encode();
            let (on, off) = (opcode::ENABLE_VLAN_STRIPPING_V2, opcode::DISABLE_VLAN_STRIPPING_V2);
            self.request(if strip { on } else { off }, &body)?;
            let (on, off) = (opcode::ENABLE_VLAN_INSERTION_V2, opcode::DISABLE_VLAN_INSERTION_V2);
            return self.request(if insert { on } else { off }, &body).map(drop);
        }
        let (on, off) = (opcode::ENABLE_VLAN_STRIPPING, opcode::DISABLE_VLAN_STRIPPING);
        self.request(if strip { on } else { off }, &[]).map(drop)
    }

    /// Sets key and table of receive side scaling.
    ///
    /// # Errors
    /// The device refuses.
    pub fn set_rss(&mut self, key: &[u8], table: &[u8]) -> Result<(), Error> {
        let vsi = self.resources.vsi;
        self.request(opcode::CONFIG_RSS_KEY, &RssBytes { vsi, bytes: key }.encode())?;
        self.request(opcode::CONFIG_RSS_LUT, &RssBytes { vsi, bytes: table }.encode()).map(drop)
    }

    /// Sets which types of packets are hashed, one a bit.
    ///
    /// # Errors
    /// The device refuses.
    pub fn set_rss_types(&mut self, types: u64) -> Result<(), Error> {
        self.request(opcode::SET_RSS_HENA, &types.to_le_bytes()).map(drop)
    }

    /// Sets how packets are hashed.
    ///
    /// # Errors
    /// The device refuses.
    pub fn set_rss_algorithm(&mut self, algorithm: u16) -> Result<(), Error> {
        let body = RssHash { vsi: self.resources.vsi, algorithm }.encode();
        self.request(opcode::CONFIG_RSS_HFUNC, &body).map(drop)
    }

    /// Says what of packets with a header stack is hashed, or that nothing is.
    ///
    /// # Errors
    /// The device refuses.
    pub fn set_rss_stack(&mut self, config: &RssConfig, on: bool) -> Result<(), Error> {
        self.request(if on { opcode::ADD_RSS_CFG } else { opcode::DEL_RSS_CFG }, &config.encode()).map(drop)
    }

    /// Adds a flow director rule; gives its id.
    ///
    /// # Errors
    /// The device refuses.
    pub fn add_rule(&mut self, rule: &FdirAdd) -> Result<u32, Error> {
        let message = opcode::ADD_FDIR_FILTER;
        let body = FdirAdd { vsi: self.resources.vsi, ..rule.clone() }.encode();
        let reply = self.request(message, &body)?;
        match FdirAdd::parse_reply(&reply).ok_or(Error::BadAnswer(message))? {
            (flow, fdir::SUCCESS) => Ok(flow),
            (_, status) => Err(Error::Rule(status)),
        }
    }

    /// Removes a flow director rule.
    ///
    /// # Errors
    /// There is no such rule.
    pub fn remove_rule(&mut self, flow: u32) -> Result<(), Error> {
        let message = opcode::DEL_FDIR_FILTER;
        let body = FdirDelete { vsi: self.resources.vsi, flow, status: 0 }.encode();
        let reply = self.request(message, &body)?;
        match FdirDelete::parse(&reply).ok_or(Error::BadAnswer(message))?.status {
            fdir::SUCCESS => Ok(()),
            status => Err(Error::Rule(status)),
        }
    }

    /// What passed.
    ///
    /// # Errors
    /// The device refuses.
    pub fn stats(&mut self) -> Result<Stats, Error> {
        let body = QueueSelect { vsi: self.resources.vsi, ..QueueSelect::default() }.encode();
        let reply = self.request(opcode::GET_STATS, &body)?;
        Stats::parse(&reply).ok_or(Error::BadAnswer(opcode::GET_STATS))
    }
}
