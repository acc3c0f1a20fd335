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

/// Copies `n` bytes and adds up, in the same pass, the 16-bit words that were written, as they lie in memory (RFC 1071, not
/// folded). Each vector or word is loaded once: what is summed is what is stored.
///
/// # Safety
/// `src` must be valid for reads and `dst` for writes of `n` bytes. They may overlap: then what is written is some mixture,
/// and the sum is that of the mixture.
#[inline]
pub(crate) unsafe fn copy_sum(dst: *mut u8, src: *const u8, n: usize) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if n >= 64 && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2; both runs are the caller's.
        return unsafe { avx2::copy_sum(dst, src, n) };
    }
    // SAFETY: the caller's promise.
    unsafe { copy_sum_words(dst, src, n) }
}

/// As [`copy_sum`], eight bytes at a time.
///
/// # Safety
/// As for [`copy_sum`].
unsafe fn copy_sum_words(dst: *mut u8, src: *const u8, n: usize) -> u64 {
    let (mut low, mut high, mut at) = (0_u64, 0_u64, 0);
    while at + 8 <= n {
        // SAFETY: [at, at + 8) is within both runs.
        let word = unsafe {
            let word = src.add(at).cast::<u64>().read_unaligned();
            dst.add(at).cast::<u64>().write_unaligned(word);
            word
        };
        low += word & 0xffff_ffff;
        high += word >> 32;
        at += 8;
    }
    let mut last = [0_u8; 8];
    if let Some(last) = last.get_mut(..n - at) {
        // SAFETY: [at, n) is within both runs, and `last` is private and as long.
        unsafe {
            copy(last.as_mut_ptr(), src.add(at), last.len());
            copy(dst.add(at), last.as_ptr(), last.len());
        }
    }
    let word = u64::from_ne_bytes(last);
    low + high + (word & 0xffff_ffff) + (word >> 32)
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use core::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_loadu_si256, _mm256_madd_epi16,
        _mm256_set1_epi16, _mm256_setzero_si256, _mm256_storeu_si256, _mm256_xor_si256,
    };

    /// Vectors after which the lanes are emptied: each gains at most 2^16 a vector, of the 2^31 that it holds.
    const STEPS: usize = 1 << 13;

    /// As [`super::copy_sum`], for 64 bytes at least.
    ///
    /// There is an instruction that multiplies signed words and adds neighbours, which with ones is the sum of pairs. A word
    /// whose highest bit is turned is, as a signed number, 2^15 less than it was unsigned: that is added again at the end.
    /// What is left behind whole vectors is copied as the last 32 bytes of all. Of the vector before them only those bytes
    /// count that stay: what is summed is what is written last.
    ///
    /// # Safety
    /// As there; and the CPU must have AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn copy_sum(dst: *mut u8, src: *const u8, n: usize) -> u64 {
        let (turn, ones) = (_mm256_set1_epi16(i16::MIN), _mm256_set1_epi16(1));
        let pairs = |vector| _mm256_madd_epi16(_mm256_xor_si256(vector, turn), ones);
        let new = if n.is_multiple_of(2) { n % 32 } else { 0 };
        // Vectors that are copied and stay; with 64 bytes at least there is one, and the loop is run.
        let whole = (n & !31) - if new > 0 { 32 } else { 0 };
        let (mut first, mut second) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        let (mut sum, mut at, mut vectors) = (0_i64, 0, whole / 32);
        if new > 0 {
            // SAFETY: [whole, whole + 32) and the last 32 bytes of both runs, and 32 bytes of a mask of 64.
            let (a, b) = unsafe {
                let a = _mm256_loadu_si256(src.add(whole).cast::<__m256i>());
                _mm256_storeu_si256(dst.add(whole).cast::<__m256i>(), a);
                let b = _mm256_loadu_si256(src.add(n - 32).cast::<__m256i>());
                _mm256_storeu_si256(dst.add(n - 32).cast::<__m256i>(), b);
                let stay = _mm256_loadu_si256(FIRST.as_ptr().add(32 - new).cast::<__m256i>());
                (_mm256_and_si256(a, stay), b)
            };
            (first, second) = (pairs(a), pairs(b));
            vectors += 2;
        }
        while at < whole {
            let end = whole.min(at + 32 * STEPS);
            while at + 64 <= end {
                // SAFETY: [at, at + 64) is within both runs.
                let (a, b) = unsafe {
                    let a = _mm256_loadu_si256(src.add(at).cast::<__m256i>());
                    let b = _mm256_loadu_si256(src.add(at + 32).cast::<__m256i>());
                    _mm256_storeu_si256(dst.add(at).cast::<__m256i>(), a);
                    _mm256_storeu_si256(dst.add(at + 32).cast::<__m256i>(), b);
                    (a, b)
                };
                first = _mm256_add_epi32(first, pairs(a));
                second = _mm256_add_epi32(second, pairs(b));
                at += 64;
            }
            if at < end {
                // SAFETY: a multiple of 32 is left, and it is less than 64.
                let a = unsafe {
                    let a = _mm256_loadu_si256(src.add(at).cast::<__m256i>());
                    _mm256_storeu_si256(dst.add(at).cast::<__m256i>(), a);
                    a
                };
                first = _mm256_add_epi32(first, pairs(a));
                at += 32;
            }
            sum += lanes(_mm256_add_epi32(first, second));
            (first, second) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        }
        let mut rest = 0;
        if new == 0 && at < n {
            // SAFETY: what is left of both runs.
            rest = unsafe { super::copy_sum_words(dst.add(at), src.add(at), n - at) };
        }
        // What was taken from each word: never more than it was, so that the sum is not negative.
        (sum + (vectors as i64 * 16) * 0x8000) as u64 + rest
    }

    /// From byte `32 - n` on, 32 bytes of which the first `n` are ones.
    static FIRST: [u8; 64] = {
        let mut mask = [0; 64];
        let mut at = 0;
        while at < 32 {
            mask[at] = 0xff;
            at += 1;
        }
        mask
    };

    /// The sum of eight signed lanes.
    #[target_feature(enable = "avx2")]
    fn lanes(sums: __m256i) -> i64 {
        let mut lanes = [0_i32; 8];
        // SAFETY: eight lanes of 32 bits.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast::<__m256i>(), sums) };
        lanes.iter().map(|lane| i64::from(*lane)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of every length around what the loops do at once, and of long runs of the largest words, where a lane would overflow.
    #[test]
    fn a_copy_with_its_sum_is_both() {
        let bytes: Vec<u8> = (0..3000_u32).map(|i| (i * 131 + i / 7) as u8).collect();
        let largest = vec![0xff_u8; (1 << 20) + 34];
        let mut to = vec![0; largest.len()];
        let lens = (0..300).chain([1386, 1450, 2048, 3000]).map(|len| &bytes[..len]);
        for from in lens.chain([&largest[..], &largest[..(1 << 19) + 33]]) {
            to.fill(1);
            // SAFETY: two private runs, both as long.
            let sum = unsafe { copy_sum(to.as_mut_ptr(), from.as_ptr(), from.len()) };
            assert_eq!(&to[..from.len()], from);
            assert!(to[from.len()..].iter().all(|byte| *byte == 1), "{}", from.len());
            let fold = |mut sum: u64| {
                while sum > 0xffff {
                    sum = (sum & 0xffff) + (sum >> 16);
                }
                sum
            };
            let words = from.chunks(2).map(|pair| u16::from_ne_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            assert_eq!(fold(sum), fold(words.map(u64::from).sum()), "{}", from.len());
            assert!(sum < 1 << 40, "{}", from.len());
        }
    }
}
