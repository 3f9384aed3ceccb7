//! Escapes documents as JSON strings.
//!
//! In: the bytes of a document. Out: the same bytes as the inside of a JSON string, in a buffer of
//! the caller. Bound: the size of the buffer. When full: a call stops before the first character
//! that does not fit and returns how far it came, so that the caller can go on in another chunk. No
//! I/O, no allocation, no state.
//!
//! Documents are JSON themselves, so about every eighth byte is a quote to escape. That is too
//! often to search for the next quote. Blocks of 16 bytes are escaped as a whole instead, without a
//! branch for each byte: by `x86.rs` if the processor has the instructions, otherwise by
//! `portable.rs`. Only a block with a control character is escaped byte by byte.
//! `benches/escape.rs` compares this module with serde_json and json-escape-simd.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::AddAssign;

/// The largest number of bytes that one byte of input becomes (`\u001f`).
pub const EXPANSION_MAX: usize = 6;

/// U+FFFD in UTF-8. It replaces each maximal run of invalid bytes, as in
/// [`String::from_utf8_lossy`].
const REPLACEMENT: &[u8; 3] = "\u{fffd}".as_bytes().first_chunk().expect("U+FFFD is three bytes");

/// The progress of one call of [`escape`] or [`escape_lossy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// The number of bytes of the input that were escaped.
    pub consumed: usize,
    /// The number of bytes written to the output.
    pub written: usize,
}

impl AddAssign for Progress {
    fn add_assign(&mut self, step: Self) {
        self.consumed += step.consumed;
        self.written += step.written;
    }
}

/// Size in bytes of a block that is escaped as a whole. A block without control characters becomes
/// at most twice as long.
const BLOCK: usize = 16;

/// The values in the table of escapes: `COPY` for a byte that is copied, `HEX` for a byte that
/// becomes `\u00xx`. Any other value is written after a backslash.
const COPY: u8 = 0;
const HEX: u8 = 1;
static ESCAPE: [u8; 256] = escape_table();

const fn escape_table() -> [u8; 256] {
    let mut table = [COPY; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = HEX;
        byte += 1;
    }
    table[0x08] = b'b';
    table[0x09] = b't';
    table[0x0a] = b'n';
    table[0x0c] = b'f';
    table[0x0d] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
}

/// Escapes as much of `input` as fits into `output`.
///
/// `input` has to be valid UTF-8: bytes from 0x80 up are copied. A call never stops within a
/// character.
pub fn escape(input: &[u8], output: &mut [u8]) -> Progress {
    #[cfg(target_arch = "x86_64")]
    if x86::is_available() {
        return escape_with(x86::escape_blocks, input, output);
    }
    escape_portable(input, output)
}

/// A function that escapes as [`escape`] does.
pub type Escape = fn(&[u8], &mut [u8]) -> Progress;

/// Returns each implementation for this processor with its name, the fastest last. Tests and
/// benchmarks compare them.
pub fn ways() -> Vec<(&'static str, Escape)> {
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut))]
    let mut ways: Vec<(_, Escape)> = vec![("any processor", escape_portable)];
    #[cfg(target_arch = "x86_64")]
    if x86::is_available() {
        ways.push(("byte shuffle", |text, out| escape_with(x86::escape_blocks, text, out)));
    }
    ways
}

/// Escapes as [`escape`] does, without instructions that only some processors have.
fn escape_portable(input: &[u8], output: &mut [u8]) -> Progress {
    escape_with(portable::escape_blocks, input, output)
}

/// A function that escapes block after block. It stops before a block with a control character, and
/// when the input has no whole block left or the output has room for less than two blocks.
type EscapeBlocks = fn(&[u8], &mut [u8]) -> Progress;

#[inline]
fn escape_with(escape_blocks: EscapeBlocks, input: &[u8], output: &mut [u8]) -> Progress {
    let mut progress = Progress::default();
    loop {
        progress += escape_blocks(&input[progress.consumed..], &mut output[progress.written..]);
        // Escape the next block byte by byte: it has a control character, or there is too little
        // input or room for a block.
        let rest = &input[progress.consumed..];
        let block = &rest[..rest.len().min(BLOCK)];
        let step = escape_bytes(block, &mut output[progress.written..]);
        progress += step;
        if step.consumed < block.len() {
            return between_characters(input, progress);
        }
        if progress.consumed == input.len() {
            return progress;
        }
    }
}

/// Takes back the bytes of a character that did not fit as a whole. Those bytes were copied
/// unchanged, so the input and the output go back by the same number of bytes.
fn between_characters(input: &[u8], mut progress: Progress) -> Progress {
    let is_continuation = |at: usize| input.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    // A character of UTF-8 has at most three continuation bytes.
    for _ in 0..3 {
        if progress.consumed > 0 && is_continuation(progress.consumed) {
            progress.consumed -= 1;
            progress.written -= 1;
        }
    }
    progress
}

/// Escapes as [`escape`] does, but replaces invalid UTF-8 with U+FFFD.
pub fn escape_lossy(input: &[u8], output: &mut [u8]) -> Progress {
    let mut progress = Progress::default();
    for chunk in input.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let step = escape(valid, &mut output[progress.written..]);
        progress += step;
        if step.consumed < valid.len() {
            return progress;
        }
        if !chunk.invalid().is_empty() {
            let Some(out) = output[progress.written..].first_chunk_mut() else { return progress };
            *out = *REPLACEMENT;
            progress.consumed += chunk.invalid().len();
            progress.written += REPLACEMENT.len();
        }
    }
    progress
}

fn escape_bytes(input: &[u8], output: &mut [u8]) -> Progress {
    const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut progress = Progress::default();
    for &byte in input {
        let out = &mut output[progress.written..];
        progress.written += match ESCAPE[usize::from(byte)] {
            COPY => {
                let Some(out) = out.first_mut() else { return progress };
                *out = byte;
                1
            }
            HEX => {
                let Some(out) = out.first_chunk_mut::<6>() else { return progress };
                let [high, low] = [byte >> 4, byte & 0xf].map(|d| HEX_DIGITS[usize::from(d)]);
                *out = [b'\\', b'u', b'0', b'0', high, low];
                6
            }
            escaped => {
                let Some(out) = out.first_chunk_mut::<2>() else { return progress };
                *out = [b'\\', escaped];
                2
            }
        };
        progress.consumed += 1;
    }
    progress
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Escapes all of `input` with an output of `room` bytes in each call.
    fn escape_all(input: &[u8], room: usize, escape: Escape) -> Vec<u8> {
        let mut escaped = Vec::new();
        let mut rest = input;
        let mut output = vec![0; room];
        while !rest.is_empty() {
            let progress = escape(rest, &mut output);
            assert!(progress.consumed > 0, "no progress with {room} bytes of room");
            escaped.extend_from_slice(&output[..progress.written]);
            rest = &rest[progress.consumed..];
        }
        escaped
    }

    /// Each implementation for this processor, and the function that chooses one of them.
    fn all_ways() -> impl Iterator<Item = Escape> {
        ways().into_iter().map(|(_, escape)| escape).chain([escape as Escape])
    }

    fn decode(escaped: &[u8]) -> String {
        let quoted = [b"\"", escaped, b"\""].concat();
        serde_json::from_slice(&quoted).expect("escaped text is the inside of a JSON string")
    }

    #[test]
    fn every_ascii_character_survives_in_every_place_of_a_block() {
        for escape in all_ways() {
            // Miri takes a thousand times as long.
            let step = if cfg!(miri) { 17 } else { 1 };
            for byte in (0..0x80u8).step_by(step) {
                for place in (0..2 * BLOCK).step_by(step.min(11)) {
                    let mut text = vec![b'x'; 4 * BLOCK + 3];
                    text[place] = byte;
                    let escaped = escape_all(&text, 8 * BLOCK, escape);
                    assert_eq!(decode(&escaped).as_bytes(), text, "byte {byte} at {place}");
                }
            }
        }
    }

    #[test]
    fn every_mix_of_quotes_in_half_a_block_survives() {
        for escape in all_ways() {
            for mask in (0..1u32 << 8).step_by(if cfg!(miri) { 51 } else { 1 }) {
                let quote = |place: u32| if mask >> place & 1 == 1 { b'"' } else { b'a' };
                let low: Vec<u8> = (0..8).map(quote).collect();
                let high: Vec<u8> = (0..8).map(|place| quote(7 - place)).collect();
                let text = [&low[..], &high, &high, &low].concat();
                assert_eq!(decode(&escape_all(&text, 8 * BLOCK, escape)).as_bytes(), text);
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn vector_instructions_are_used_where_the_kernel_says_that_the_processor_has_them() {
        let text = std::fs::read_to_string("/proc/cpuinfo").expect("the kernel knows");
        let flags = text.lines().find(|line| line.starts_with("flags")).expect("x86 has flags");
        let is_there = flags.split_whitespace().any(|word| word == "ssse3");
        assert_eq!(ways().iter().any(|(way, _)| *way == "byte shuffle"), is_there);
    }

    #[test]
    fn an_output_without_room_takes_nothing_and_says_so() {
        for (input, room) in [(&b"\""[..], 1), (b"\n", 1), (b"\x01", 5), (b"a", 0), (b"\xff", 2)] {
            let mut output = vec![0; room];
            assert_eq!(escape_lossy(input, &mut output), Progress::default());
        }
    }

    proptest! {
        #[test]
        fn decoding_gives_back_any_string(text in ".*", room in 6usize..200) {
            for escape in all_ways() {
                prop_assert_eq!(&decode(&escape_all(text.as_bytes(), room, escape)), &text);
            }
        }

        #[test]
        fn json_like_text_equals_what_serde_json_writes(
            text in if cfg!(miri) {
                r#"[a-c"\\ \n\t\x00-\x1fé🦀]{0,50}"#
            } else {
                r#"[a-c"\\ \n\t\x00-\x1fé🦀]{0,300}"#
            },
        ) {
            let expected = serde_json::to_string(&text).expect("a string is serializable");
            for escape in all_ways() {
                let escaped = escape_all(text.as_bytes(), 4096, escape);
                prop_assert_eq!(format!("\"{}\"", String::from_utf8_lossy(&escaped)), &*expected);
            }
        }

        #[test]
        fn invalid_bytes_become_what_the_standard_library_makes_of_them(
            bytes in proptest::collection::vec(any::<u8>(), 0..if cfg!(miri) { 60 } else { 300 }),
            room in 6usize..200,
        ) {
            let escaped = escape_all(&bytes, 4096, escape_lossy);
            prop_assert_eq!(decode(&escaped), String::from_utf8_lossy(&bytes).into_owned());
            prop_assert_eq!(escape_all(&bytes, room, escape_lossy), escaped);
        }
    }
}
