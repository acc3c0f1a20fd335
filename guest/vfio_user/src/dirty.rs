//! DMA logging: which pages the function wrote, for a client that migrates its VM (Linux VFIO's
//! `VFIO_DEVICE_FEATURE_DMA_LOGGING_*`, carried by DEVICE_FEATURE).
//!
//! The log has a bit for each 4 KiB of bus addresses below 1 TiB, whatever the client asks for; a report merges or
//! repeats them into pages of its size, and clears them. Pages beyond are always reported as written. In a report, bit
//! *n* of the little-endian 64-bit words is the page at address + *n* x page size.

use std::sync::Arc;

use fabnic_memory::DirtyLog;
use rustix::io::Errno;

use crate::error::Refusal;
use crate::fields::{Fields, Payload};
use crate::message::MAX_DATA;

/// Bus addresses that the log has bits for.
const LOGGED: u64 = 1 << 40;
const PAGE: u64 = 4096;
/// The largest page of a report.
const LARGEST: u64 = 1 << 30;
/// The most ranges that a client may name.
const MAX_RANGES: u32 = 1024;

/// Checks DMA_LOGGING_START, and makes a log.
pub(crate) fn start(data: &[u8]) -> Result<Arc<DirtyLog>, Refusal> {
    let mut fields = Fields::new(data);
    let (page, ranges, _reserved) = (fields.u64()?, fields.u32()?, fields.u32()?);
    check_page(page)?;
    if ranges > MAX_RANGES {
        return Err(Refusal::invalid(format!("{ranges} ranges"), "at most 1024, or 0 for everything"));
    }
    // Everything is logged, so that what is named does not matter.
    fields.exactly(u64::from(ranges) * 16)?;
    DirtyLog::anonymous(LOGGED)
        .map_err(|error| Refusal::with(Errno::NOMEM, error.to_string(), "memory to be had"))
}

fn check_page(page: u64) -> Result<(), Refusal> {
    if page.is_power_of_two() && (PAGE..=LARGEST).contains(&page) {
        return Ok(());
    }
    Err(Refusal::invalid(format!("pages of {page} bytes"), "a power of two from 4096 to 2^30"))
}

/// Answers DMA_LOGGING_REPORT: what follows argsz and flags, and the argsz that all of it needs. If the client has no
/// room for it, nothing is taken from the log, and only the request comes back.
pub(crate) fn report(log: &DirtyLog, data: &[u8], argsz: u32) -> Result<(u32, Payload), Refusal> {
    let mut fields = Fields::new(data);
    let (iova, length, page) = (fields.u64()?, fields.u64()?, fields.u64()?);
    // A client may leave room for the answer in its request.
    let _room = fields.rest();
    check_page(page)?;
    if iova % page != 0 || length == 0 || iova.checked_add(length - 1).is_none() {
        return Err(Refusal::invalid(
            format!("{length:#x} bytes at {iova:#x}"),
            "at least one, from the beginning of a page, and no end beyond 2^64",
        ));
    }
    let bits = length.div_ceil(page);
    let bytes = bits.div_ceil(64) * 8;
    if bytes > u64::from(MAX_DATA) {
        return Err(Refusal::with(
            Errno::TOOBIG,
            format!("a bitmap of {bytes} bytes"),
            "at most 1048576 (max_data_xfer_size)",
        ));
    }
    let payload = Payload::default().u64(iova).u64(length).u64(page);
    let whole = u32::try_from(8 + 24 + bytes).unwrap_or(u32::MAX);
    if argsz < whole {
        return Ok((whole, payload));
    }
    let mut bitmap = vec![0_u8; usize::try_from(bytes).unwrap_or(0)];
    for bit in 0..bits {
        let at = iova.saturating_add(bit.saturating_mul(page));
        let end = at.saturating_add(page).min(iova.saturating_add(length));
        if take(log, at, end) {
            set(&mut bitmap, bit);
        }
    }
    Ok((whole, payload.bytes(&bitmap)))
}

fn set(bitmap: &mut [u8], bit: u64) {
    let byte = usize::try_from(bit / 8).ok().and_then(|byte| bitmap.get_mut(byte));
    if let Some(byte) = byte {
        *byte |= 1 << (bit % 8);
    }
}

/// Takes the bits of all pages from `at` to `end` (which is not more than a page of a report): whether any was set.
fn take(log: &DirtyLog, at: u64, end: u64) -> bool {
    let (mut first, last) = (at / PAGE, end.saturating_sub(1) / PAGE);
    let mut dirty = false;
    while first <= last {
        let in_word = first % 64;
        let count = (64 - in_word).min(last - first + 1);
        let mask = (u64::MAX >> (64 - count)) << in_word;
        match usize::try_from(first / 64).ok().and_then(|word| log.take(word, mask)) {
            Some(bits) => dirty |= bits != 0,
            None => return true,
        }
        first += count;
    }
    dirty
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(log: &DirtyLog, iova: u64, length: u64, page: u64) -> Vec<u8> {
        let request = Payload::default().u64(iova).u64(length).u64(page).0;
        let (argsz, short) = report(log, &request, 0).unwrap();
        assert_eq!(short.0, request, "no room");
        let (_, answer) = report(log, &request, argsz).unwrap();
        assert_eq!(answer.0.len() as u32 + 8, argsz);
        answer.0[24..].to_vec()
    }

    #[test]
    fn bits_are_reported_once_and_in_any_size_of_page() {
        let log = start(&Payload::default().u64(4096).u32(0).u32(0).0).unwrap();
        log.mark(0x3000, 1);
        log.mark(0x4_0000, 0x2000);
        assert_eq!(ask(&log, 0x2000, 0x2000, 4096), [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ask(&log, 0x2000, 0x2000, 4096), [0; 8]);
        log.mark(0x3000, 1);
        assert_eq!(ask(&log, 0, 0x8_0000, 0x1_0000), [0b1_0001, 0, 0, 0, 0, 0, 0, 0]);
        log.mark(0x3f_f000, 0x2000);
        assert_eq!(ask(&log, 0, 0x60_0000, 2 << 20), [0b110, 0, 0, 0, 0, 0, 0, 0]);
        // Half a page at the end of the range, whose other half stays.
        log.mark(0x9_0000, 1);
        log.mark(0x9_9000, 1);
        assert_eq!(ask(&log, 0x9_0000, 0x8000, 0x1_0000), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ask(&log, 0x9_0000, 0x1_0000, 0x1_0000), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ask(&log, LOGGED - 4096, 8192, 4096), [2, 0, 0, 0, 0, 0, 0, 0], "nobody knows");
    }

    #[test]
    fn what_cannot_be_asked() {
        let log = DirtyLog::anonymous(LOGGED).unwrap();
        for (iova, length, page) in [
            (0, 4096, 0),
            (0, 4096, 4095),
            (0, 4096, 2048),
            (1, 4096, 4096),
            (0, 0, 4096),
            (0, u64::MAX, 4096),
            (u64::MAX - 4095, 8192, 4096),
        ] {
            let request = Payload::default().u64(iova).u64(length).u64(page).0;
            assert!(report(&log, &request, u32::MAX).is_err(), "{iova:#x} {length:#x} {page:#x}");
        }
        assert!(start(&Payload::default().u64(4096).u32(u32::MAX).u32(0).0).is_err());
        assert!(start(&Payload::default().u64(4096).u32(1).u32(0).0).is_err(), "a range that is missing");
        assert!(start(&[]).is_err());
        // The largest report that there is.
        let request = Payload::default().u64(0).u64(1 << 53).u64(1 << 30).0;
        assert_eq!(report(&log, &request, u32::MAX).unwrap().1.0.len(), 24 + (1 << 20));
    }
}
