//! Escapes blocks with the byte shuffle of x86-64 (SSSE3: Intel since 2006, AMD since 2011).
//!
//! A mask has a bit for each of eight bytes: 1 if the byte is to be escaped. A table has a shuffle
//! for each mask. The shuffle moves each byte to its place in the result and puts the backslashes
//! between the bytes. No I/O.

#![expect(unsafe_code, reason = "vector instructions; each block says why it is sound")]

use super::{BLOCK, Progress};
use std::arch::x86_64::{
    __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128,
    _mm_set1_epi8, _mm_shuffle_epi8, _mm_storeu_si128, _mm_unpackhi_epi64, _mm_unpacklo_epi64,
};

/// The number of bytes that one shuffle takes. The result has at most twice as many.
const HALF: usize = BLOCK / 2;

/// The index of the first backslash in the input of a shuffle, after the eight bytes.
const BACKSLASH: u8 = 8;

/// The shuffle for each mask: for each byte of the result, its index in the input.
static SHUFFLES: [[u8; BLOCK]; 1 << HALF] = shuffles();

const fn shuffles() -> [[u8; BLOCK]; 1 << HALF] {
    let mut table = [[0; BLOCK]; 1 << HALF];
    let mut mask = 0;
    while mask < table.len() {
        let mut written = 0;
        let mut index = 0;
        while index < BACKSLASH {
            if mask >> index & 1 == 1 {
                table[mask][written] = BACKSLASH;
                written += 1;
            }
            table[mask][written] = index;
            written += 1;
            index += 1;
        }
        mask += 1;
    }
    table
}

/// Returns whether the processor has the instructions. The standard library caches the answer.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("popcnt")
}

/// Escapes blocks without control characters; see [`EscapeBlocks`](super::EscapeBlocks).
///
/// # Panics
///
/// When the processor does not have the instructions.
pub(super) fn escape_blocks(input: &[u8], output: &mut [u8]) -> Progress {
    assert!(is_available(), "the caller asks first");
    // SAFETY: the assertion above has checked that the processor has both features.
    // JUSTIFICATION: stable Rust has no safe byte shuffle with a mask known only at run time. For a
    // document of 1,000 bytes `benches/escape.rs` measured 0.142 us, against 0.426 us with
    // `portable.rs` (Intel Xeon, `perf/results/2026-11-25-stages.md`).
    unsafe { escape_blocks_ssse3(input, output) }
}

#[target_feature(enable = "ssse3,popcnt")]
fn escape_blocks_ssse3(input: &[u8], output: &mut [u8]) -> Progress {
    let quote = _mm_set1_epi8(b'"'.cast_signed());
    let backslash = _mm_set1_epi8(b'\\'.cast_signed());
    let last_control = _mm_set1_epi8(0x1f);
    let mut progress = Progress::default();
    while let Some(block) = input[progress.consumed..].first_chunk::<BLOCK>() {
        let Some(out) = output[progress.written..].first_chunk_mut::<{ 2 * BLOCK }>() else {
            break;
        };
        let block = load(block);
        if mask(_mm_cmpeq_epi8(_mm_min_epu8(block, last_control), block)) != 0 {
            break;
        }
        let escaped = _mm_or_si128(_mm_cmpeq_epi8(block, quote), _mm_cmpeq_epi8(block, backslash));
        let escaped = mask(escaped);
        progress.consumed += BLOCK;
        progress.written += if escaped == 0 {
            store(block, out, 0);
            BLOCK
        } else {
            let [low, high, ..] = escaped.to_le_bytes();
            store(spread(_mm_unpacklo_epi64(block, backslash), low), out, 0);
            let low_length = HALF + low.count_ones() as usize;
            store(spread(_mm_unpackhi_epi64(block, backslash), high), out, low_length);
            low_length + HALF + high.count_ones() as usize
        };
    }
    progress
}

/// Returns eight bytes, with a backslash before each byte for which `escaped` has a bit. The bytes
/// after them have no meaning.
#[target_feature(enable = "ssse3")]
fn spread(bytes_and_backslashes: __m128i, escaped: u8) -> __m128i {
    _mm_shuffle_epi8(bytes_and_backslashes, load(&SHUFFLES[usize::from(escaped)]))
}

/// Returns a mask with a bit for each byte that is 0xff.
#[target_feature(enable = "sse2")]
fn mask(bytes: __m128i) -> u32 {
    _mm_movemask_epi8(bytes).cast_unsigned()
}

#[target_feature(enable = "sse2")]
fn load(bytes: &[u8; BLOCK]) -> __m128i {
    // SAFETY: the reference is valid for reads of sixteen bytes; no alignment is asked for.
    // JUSTIFICATION: the instruction takes a pointer.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Writes sixteen bytes to `out` from `offset` on. `offset` is at most sixteen.
#[target_feature(enable = "sse2")]
fn store(bytes: __m128i, out: &mut [u8; 2 * BLOCK], offset: usize) {
    let out = out[offset & (2 * BLOCK - 1)..].first_chunk_mut::<BLOCK>();
    let out = out.expect("half a block takes up a block at most");
    // SAFETY: the reference is valid for writes of sixteen bytes; no alignment is asked for.
    // JUSTIFICATION: the instruction takes a pointer.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), bytes) }
}
