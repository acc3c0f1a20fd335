//! Requests about queues and vectors.

use fabnic_avf_spec::receive::rxdid;
use fabnic_avf_spec::registers::VECTORS;
use fabnic_avf_spec::virtchnl::{
    Caps, ConfigQueues, IrqMap, QueuePair, QueueSelect, ReceiveQueue, Status, TransmitQueue,
};

use super::session::{FORMATS, max_frame};
use super::{Answer, DONE, Reply, ours, parsed};
use crate::Avf;
use crate::interrupts::Side;
use crate::queues::{TransmitConfig, each};
use crate::receive_ring::ReceiveConfig;

/// Descriptors of a ring: hardware takes 64 to 8160 in steps of 32; drivers exist that use fewer and other steps.
const RING: core::ops::RangeInclusive<u32> = 8..=8160;
const RING_STEP: u32 = 8;
/// Bytes of a receive buffer.
const BUFFER: core::ops::RangeInclusive<u32> = 128..=16256;
/// Longest frames that drivers may name. What is longer than this function's own counts as that.
const MAX_FRAME: core::ops::RangeInclusive<u32> = 64..=16382;

/// Descriptors of a ring that is used.
fn ring_len(len: u32) -> Result<Option<u16>, Status> {
    match len {
        0 => Ok(None),
        len if RING.contains(&len) && len.is_multiple_of(RING_STEP) => Ok(u16::try_from(len).ok()),
        _ => Err(Status::Param),
    }
}

impl Avf {
    pub(super) fn config_queues(&mut self, body: &[u8]) -> Answer {
        let (vsi, pairs) = parsed(ConfigQueues::parse(body))?;
        ours(vsi)?;
        // All are looked at before any is changed.
        let mut any = false;
        for pair in pairs.clone() {
            self.check_pair(&pair)?;
            any = true;
        }
        if !any {
            return Err(Status::Param);
        }
        for pair in pairs {
            let queue = usize::from(pair.transmit.id);
            let (transmit, receive) = self.check_pair(&pair)?;
            self.queues.configure_transmit(queue, transmit);
            self.queues.configure_receive(queue, receive);
        }
        DONE
    }

    fn check_pair(
        &self,
        pair: &QueuePair,
    ) -> Result<(Option<TransmitConfig>, Option<ReceiveConfig>), Status> {
        let QueuePair { transmit, receive } = pair;
        ours(transmit.vsi)?;
        ours(receive.vsi)?;
        if transmit.id != receive.id || transmit.id >= self.session.queues {
            return Err(Status::Param);
        }
        Ok((check_transmit(transmit)?, self.check_receive(receive)?))
    }

    fn check_receive(&self, queue: &ReceiveQueue) -> Result<Option<ReceiveConfig>, Status> {
        let Some(len) = ring_len(queue.ring_len)? else { return Ok(None) };
        let possible = BUFFER.contains(&queue.buffer_len)
            && MAX_FRAME.contains(&queue.max_frame)
            && queue.split == 0
            && queue.ring.is_multiple_of(8);
        if !possible {
            return Err(Status::Param);
        }
        if queue.keep_crc && (!self.session.caps.contains(Caps::CRC) || self.session.strip) {
            return Err(Status::Param);
        }
        // Without the capability the field is not the driver's.
        let format = match self.session.caps.contains(Caps::RX_FLEX_DESC) {
            true if queue.format >= 64 || FORMATS & 1 << queue.format == 0 => return Err(Status::Param),
            true => queue.format,
            false => rxdid::LEGACY_32,
        };
        Ok(Some(ReceiveConfig {
            ring: queue.ring,
            len,
            buffer_len: u16::try_from(queue.buffer_len).map_err(|_| Status::Param)?,
            max_frame: queue.max_frame.min(max_frame(&self.settings).into()),
            format,
            keep_crc: queue.keep_crc,
        }))
    }

    pub(super) fn config_irq_map(&mut self, body: &[u8]) -> Answer {
        let entries = parsed(IrqMap::parse(body))?;
        let queues = u32::from(self.session.queues);
        let mut count = 0;
        for entry in entries.clone() {
            ours(entry.vsi)?;
            let beyond = (u32::from(entry.receive) | u32::from(entry.transmit)) >> queues != 0;
            if entry.vector >= VECTORS || beyond {
                return Err(Status::Param);
            }
            count += 1;
        }
        if count == 0 || count > VECTORS {
            return Err(Status::Param);
        }
        for entry in entries {
            for (side, mask) in [(Side::Receive, entry.receive), (Side::Transmit, entry.transmit)] {
                each(mask.into()).for_each(|queue| self.vectors.map(side, queue, entry.vector));
            }
        }
        DONE
    }

    fn selected(&self, body: &[u8]) -> Result<QueueSelect, Status> {
        let select = parsed(QueueSelect::parse(body))?;
        ours(select.vsi)?;
        let all = select.receive | select.transmit;
        if all == 0 || all >> self.session.queues != 0 {
            return Err(Status::Param);
        }
        Ok(select)
    }

    pub(super) fn enable_queues(&mut self, body: &[u8]) -> Answer {
        let select = self.selected(body)?;
        match self.queues.enable(select.receive, select.transmit) {
            Ok(()) => DONE,
            Err(fault) => {
                tracing::debug!(port = %self.port.name, %fault, "queues not enabled");
                Err(Status::Param)
            }
        }
    }

    pub(super) fn disable_queues(&mut self, body: &[u8]) -> Answer {
        let select = self.selected(body)?;
        self.queues.disable(select.receive, select.transmit);
        DONE
    }

    pub(super) fn request_queues(&mut self, body: &[u8]) -> Answer {
        let asked = u16::from_le_bytes(*parsed(body.first_chunk::<2>())?);
        if asked == 0 || asked > self.settings.queues {
            // Not a failure: the reply says how many there could be.
            return Ok(Reply::Body(self.settings.queues.to_le_bytes().to_vec()));
        }
        self.session.queues = asked;
        self.reset_announced();
        Ok(Reply::Reset)
    }
}

fn check_transmit(queue: &TransmitQueue) -> Result<Option<TransmitConfig>, Status> {
    let Some(len) = ring_len(queue.ring_len.into())? else { return Ok(None) };
    if queue.head_write_back != 0 || !queue.ring.is_multiple_of(8) {
        return Err(Status::Param);
    }
    Ok(Some(TransmitConfig { ring: queue.ring, len }))
}
