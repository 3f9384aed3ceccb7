//! Blocks escaped by plain code, which the compiler turns into what vector instructions it can.

use super::{BLOCK, Progress};

/// Escapes blocks without control characters, see [`EscapeBlocks`](super::EscapeBlocks).
pub(super) fn escape_blocks(input: &[u8], output: &mut [u8]) -> Progress {
    let mut progress = Progress::default();
    while let Some(block) = input[progress.consumed..].first_chunk::<BLOCK>() {
        let Some(out) = output[progress.written..].first_chunk_mut::<{ 2 * BLOCK }>() else {
            break;
        };
        progress.written += match classify(block) {
            Block::Plain => {
                out[..BLOCK].copy_from_slice(block);
                BLOCK
            }
            Block::Quotes => escape_quotes(block, out),
            Block::Controls => break,
        };
        progress.consumed += BLOCK;
    }
    progress
}

enum Block {
    Plain,
    Quotes,
    Controls,
}

/// One pass without branches.
fn classify(block: &[u8; BLOCK]) -> Block {
    let mut controls = false;
    let mut quotes = false;
    for &byte in block {
        controls |= byte < 0x20;
        quotes |= (byte == b'"') | (byte == b'\\');
    }
    match (controls, quotes) {
        (true, _) => Block::Controls,
        (false, true) => Block::Quotes,
        (false, false) => Block::Plain,
    }
}

/// Writes the backslash every time and steps over it only where it is wanted.
fn escape_quotes(block: &[u8; BLOCK], output: &mut [u8; 2 * BLOCK]) -> usize {
    let mut written = 0;
    for &byte in block {
        // `written` is at most 30 here; the mask tells the compiler so.
        output[written & (2 * BLOCK - 1)] = b'\\';
        written += usize::from((byte == b'"') | (byte == b'\\'));
        output[written & (2 * BLOCK - 1)] = byte;
        written += 1;
    }
    written
}
