//! The copies themselves, on raw pointers.
//!
//! A guest may write while we read. Rust's memory model has no word for that; what is relied on here is that a copy
//! through vector registers or `memcpy` reads each byte at least once and writes each destination byte with something
//! that was read. No decision is made on the source after the copy: callers decide on the private bytes.

use core::ptr;

/// Copies `n` bytes; short runs without a call.
///
/// # Safety
/// `src` must be valid for reads and `dst` for writes of `n` bytes, and the two must not overlap.
#[inline(always)]
pub(crate) unsafe fn copy(dst: *mut u8, src: *const u8, n: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};
        // SAFETY: every access below stays within the first or the last bytes of the `n` that the caller vouches for;
        // head and tail runs overlap each other, never the ends.
        unsafe {
            let load = |o: usize| _mm_loadu_si128(src.add(o).cast::<__m128i>());
            let store = |o: usize, v| _mm_storeu_si128(dst.add(o).cast::<__m128i>(), v);
            let pair = |o: usize| store(o, load(o));
            // The lengths that come most often are asked for first: those of short frames with and without a header.
            if n > 64 {
                if n <= 80 {
                    let (a, b, c, d, e) = (load(0), load(16), load(32), load(48), load(n - 16));
                    store(0, a);
                    store(16, b);
                    store(32, c);
                    store(48, d);
                    store(n - 16, e);
                    return;
                }
                if n <= 144 {
                    pair(0);
                    pair(16);
                    pair(32);
                    pair(48);
                    if n > 112 {
                        pair(64);
                        pair(80);
                        pair(96);
                        if n > 128 {
                            pair(112);
                        }
                    } else if n > 96 {
                        pair(64);
                        pair(80);
                    } else {
                        pair(64);
                    }
                    return pair(n - 16);
                }
            } else if n > 32 {
                let (a, b, c, d) = (load(0), load(16), load(n - 32), load(n - 16));
                store(0, a);
                store(16, b);
                store(n - 32, c);
                store(n - 16, d);
                return;
            } else if n > 16 {
                let (a, b) = (load(0), load(n - 16));
                store(0, a);
                store(n - 16, b);
                return;
            } else {
                return copy_tiny(dst, src, n);
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { ptr::copy_nonoverlapping(src, dst, n) }
}

/// Copies up to 16 bytes with at most two loads and two stores.
///
/// # Safety
/// As for [`copy`].
#[inline(always)]
#[cfg(target_arch = "x86_64")]
unsafe fn copy_tiny(dst: *mut u8, src: *const u8, n: usize) {
    // SAFETY: each branch touches [0, w) and [n - w, n) with w <= n.
    unsafe {
        if n >= 8 {
            let a = src.cast::<u64>().read_unaligned();
            let b = src.add(n - 8).cast::<u64>().read_unaligned();
            dst.cast::<u64>().write_unaligned(a);
            dst.add(n - 8).cast::<u64>().write_unaligned(b);
        } else if n >= 4 {
            let a = src.cast::<u32>().read_unaligned();
            let b = src.add(n - 4).cast::<u32>().read_unaligned();
            dst.cast::<u32>().write_unaligned(a);
            dst.add(n - 4).cast::<u32>().write_unaligned(b);
        } else if n >= 2 {
            let a = src.cast::<u16>().read_unaligned();
            let b = src.add(n - 2).cast::<u16>().read_unaligned();
            dst.cast::<u16>().write_unaligned(a);
            dst.add(n - 2).cast::<u16>().write_unaligned(b);
        } else if n == 1 {
            *dst = *src;
        }
    }
}

/// Asks for the cache line of `p` to be read soon. Never faults, whatever the address.
#[inline(always)]
pub(crate) fn prefetch_read(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint and does not fault; SSE is part of the architecture's base.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Asks for the cache line of `p` to be ours to write soon. Never faults, whatever the address. A line that another CPU
/// holds is fetched and taken from it in one go, where a read and a write would ask twice.
#[inline(always)]
pub(crate) fn prefetch_write(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that does not fault and changes neither memory nor registers nor flags; processors that do not
    // know it take it for a NOP (Intel SDM, PREFETCHW).
    unsafe {
        core::arch::asm!("prefetchw byte ptr [{}]", in(reg) p, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Adds the 16-bit words of `bytes`, as they lie in memory, to a 64-bit accumulator (RFC 1071, not folded). An odd last
/// byte counts as the first byte of a word whose second byte is zero.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let (mut low, mut high) = (0_u64, 0_u64);
    for word in words {
        let word = u64::from_ne_bytes(*word);
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    let mut last = [0_u8; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let word = u64::from_ne_bytes(last);
    // Both halves are sums of at most 2^61 / 8 words of 32 bits: no carry is lost for any slice that fits in memory
    // here, because callers bound the length by 2^24.
    low + high + (word & 0xffff_ffff) + (word >> 32)
}
