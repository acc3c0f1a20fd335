//! Guests with virtio-net cards.

use std::sync::Arc;

use anyhow::{Context, Result};
use fabnic_port::{Port, PortId, PortKind};
use fabnic_testkit::driver::RingOptions;
use fabnic_testkit::driver::light::{LightReceive, LightTransmit};
use fabnic_testkit::front_end::RingPlace;
use fabnic_testkit::memory::{Backing, GuestMemory};
use fabnic_virtio_net::{Features, QueueSetup, open_receive, open_transmit};
use fabnic_virtqueue::RingConfig;

use crate::{Case, Driver, RING, frame, shared_map};

/// Entries and bytes of a buffer of the ring that a guest sends with, and of the one that it receives with. Large frames lie
/// in pieces of 32 KiB, as Linux has them, and there are as many of them as fit into the buffers of the receiver.
fn shape(case: Case) -> [(u16, u32); 2] {
    if case.is_large() { [(64, 32 << 10), (1024, 2048)] } else { [(RING, u32::MAX), (RING, 1526)] }
}

struct Light {
    transmit: LightTransmit,
    receive: LightReceive,
}

impl Driver for Light {
    fn turn(&mut self) {
        while self.receive.poll(true) > 0 {}
        self.transmit.start();
        self.transmit.poll(RING, true);
    }

    fn received(&self) -> u64 {
        self.receive.counts().frames
    }
}

/// A guest and its port.
pub(crate) fn connect(
    case: Case,
    packed: bool,
    in_order: bool,
    id: u8,
) -> Result<(Box<dyn Driver>, Arc<Port>)> {
    let mut memory = GuestMemory::new(16 << 20, Backing::Ordinary)?;
    let [(sending, piece), (receiving, buffer)] = shape(case);
    let options = |size| RingOptions { size, packed, in_order, ..RingOptions::default() };
    let frame = |place| frame(case, id, place % case.flows.max(1));
    let transmit =
        LightTransmit::new(&mut memory, options(sending), piece, case.flows, case.fields(), frame)?;
    let receive = LightReceive::new(&mut memory, options(receiving), buffer)?;

    let map = shared_map(&memory)?;
    let large = Features::CSUM | Features::GUEST_CSUM | Features::HOST_TSO4 | Features::GUEST_TSO4;
    let features =
        Features::VERSION_1 | Features::MRG_RXBUF | if case.is_large() { large } else { Features::empty() };
    let setup = |place: RingPlace, size| QueueSetup {
        map: Arc::clone(&map),
        ring: RingConfig {
            size,
            packed,
            desc: memory.user_address(place.descriptors),
            driver: memory.user_address(place.driver),
            device: memory.user_address(place.device),
            event_idx: false,
            in_order,
            base: if packed { 0x8000_8000 } else { 0 },
        },
        features,
        kick: None,
        call: None,
        log: None,
        log_used: None,
    };
    let port = Arc::new(Port::new(PortId(id.into()), &format!("guest{id}"), PortKind::VirtioNet, 1));
    let (from, to) = (port.ingress().first(), port.egress().first());
    to.context("a port has queues")?.install(open_receive(setup(receive.place(), receiving))?);
    from.context("a port has queues")?.install(open_transmit(setup(transmit.place(), transmit.ring_size()))?);
    port.refresh_egress();
    Ok((Box::new(Light { transmit, receive }), port))
}
