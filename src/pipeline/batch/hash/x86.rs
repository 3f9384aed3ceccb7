//! Computes two SHA-256 in turn with the SHA instructions of x86-64 (SHA-NI: Intel since 2016 in
//! small processors and since 2021 in servers, AMD since 2017).
//!
//! In: two states and two runs of blocks of equal length. Out: the new states. The instructions
//! keep the eight words of a state in two registers and take four words of a block at a time. No
//! I/O.

#![expect(unsafe_code, reason = "vector instructions; each block says why it is sound")]

use super::BLOCK;
use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_loadu_si128, _mm_set_epi32,
    _mm_set_epi64x, _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32,
    _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
};

/// The number of hashes computed in turn. Three would be a tenth faster (3.5 against 3.1 GB/s;
/// their state does not fit into the sixteen registers), but three bodies are seldom full at the
/// same time (`perf/README.md`).
const CHAINS: usize = 2;

/// The round constants (FIPS 180-4, 4.2.2), four for each step.
#[rustfmt::skip]
static ROUNDS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// Returns whether the processor has the instructions. The standard library caches the answer.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
}

/// Adds the blocks of each message to the state of that message.
///
/// # Panics
///
/// When the processor does not have the instructions, or when the messages do not have the same
/// number of blocks.
pub(super) fn compress_two(states: &mut [[u32; 8]; CHAINS], blocks: [&[[u8; BLOCK]]; CHAINS]) {
    assert!(is_available(), "the caller asks first");
    assert_eq!(blocks[0].len(), blocks[1].len(), "the chains take turns");
    // SAFETY: the assertion above has checked that the processor has the features.
    // JUSTIFICATION: stable Rust has no safe way to these instructions, and `sha2` computes one
    // hash at a time. For two bodies of 50 documents `benches/hash.rs` measured 35.2 us, against
    // 52.6 us with `sha2` one after the other; the daemon took 0.92 +- 0.004 of the CPU time at
    // 10,000 segments a second (AMD EPYC, `perf/README.md`). The crate `tape-sha256` 0.2 computes
    // four hashes together, but it is too young to rely on, and four bodies are seldom full at the
    // same time.
    unsafe { compress_two_sha(states, blocks) }
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress_two_sha(states: &mut [[u32; 8]; CHAINS], blocks: [&[[u8; BLOCK]]; CHAINS]) {
    // The words of a block are big-endian, the registers little-endian.
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let [mut abef, mut cdgh] = [[_mm_setzero_si128(); CHAINS]; 2];
    for chain in 0..CHAINS {
        let [a, b, c, d, e, f, g, h] = states[chain].map(u32::cast_signed);
        abef[chain] = _mm_set_epi32(a, b, e, f);
        cdgh[chain] = _mm_set_epi32(c, d, g, h);
    }
    for pair in blocks[0].iter().zip(blocks[1]).map(<[_; CHAINS]>::from) {
        let before = [abef, cdgh];
        let mut words = [[_mm_setzero_si128(); 4]; CHAINS];
        for chain in 0..CHAINS {
            let quarters = pair[chain].as_chunks::<16>().0;
            for step in 0..4 {
                words[chain][step] = _mm_shuffle_epi8(load(&quarters[step]), swap);
            }
        }
        for (turn, rounds) in ROUNDS.as_chunks::<4>().0.iter().enumerate() {
            for step in 0..4 {
                for chain in 0..CHAINS {
                    let input = _mm_add_epi32(words[chain][step], load(&rounds[step]));
                    cdgh[chain] = _mm_sha256rnds2_epu32(cdgh[chain], abef[chain], input);
                    let input = _mm_shuffle_epi32::<0b1110>(input);
                    abef[chain] = _mm_sha256rnds2_epu32(abef[chain], cdgh[chain], input);
                }
                // The message schedule of SHA-256 replaces the four words that this step has used
                // by those that the same step needs in the next turn. The last turn has no next
                // one.
                for words in words.iter_mut().filter(|_| turn < 3) {
                    let [w0, w1, w2, w3] = [0, 1, 2, 3].map(|next| words[(step + next) % 4]);
                    let sum =
                        _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
                    words[step] = _mm_sha256msg2_epu32(sum, w3);
                }
            }
        }
        for chain in 0..CHAINS {
            abef[chain] = _mm_add_epi32(abef[chain], before[0][chain]);
            cdgh[chain] = _mm_add_epi32(cdgh[chain], before[1][chain]);
        }
    }
    for chain in 0..CHAINS {
        let [[f, e, b, a], [h, g, d, c]] = [abef, cdgh].map(|half| words_of(half[chain]));
        states[chain] = [a, b, c, d, e, f, g, h];
    }
}

/// Returns the four words of a register, the lowest first.
#[target_feature(enable = "sse4.1")]
fn words_of(register: __m128i) -> [u32; 4] {
    [
        _mm_extract_epi32::<0>(register),
        _mm_extract_epi32::<1>(register),
        _mm_extract_epi32::<2>(register),
        _mm_extract_epi32::<3>(register),
    ]
    .map(i32::cast_unsigned)
}

/// Loads sixteen bytes or four words into a register.
#[inline]
fn load<T, const N: usize>(values: &[T; N]) -> __m128i
where
    T: Copy,
{
    const { assert!(size_of::<[T; N]>() == size_of::<__m128i>(), "a register has 16 bytes") };
    // SAFETY: the reference is valid for reads of sixteen bytes, which the line above checks. The
    // instruction asks for no alignment, and a register can hold any bytes.
    // JUSTIFICATION: the instruction takes a pointer.
    unsafe { _mm_loadu_si128(values.as_ptr().cast()) }
}
