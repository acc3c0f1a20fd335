//! Little-endian fields at places that may not be there.

pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

pub(crate) fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// Writes a field; one that does not fit is left out.
pub(crate) fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(field.len())) {
        place.copy_from_slice(field);
    }
}

/// The `count` elements of `size` bytes behind `header`, if the message holds them and at most one more.
pub(crate) fn elements(
    bytes: &[u8],
    header: usize,
    count: u16,
    size: usize,
) -> Option<core::slice::ChunksExact<'_, u8>> {
    let need = usize::from(count) * size;
    let list = bytes.get(header..)?;
    if list.len() > need + size {
        return None;
    }
    Some(list.get(..need)?.chunks_exact(size.max(1)))
}
