//! Escapes blocks with plain code, which the compiler may turn into vector instructions. No I/O.

use super::{BLOCK, Progress};

/// Escapes blocks without control characters; see [`EscapeBlocks`](super::EscapeBlocks).
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

/// The kind of a block.
enum Block {
    /// The block has no byte to escape.
    Plain,
    /// The block has quotes or backslashes, and no control character.
    Quotes,
    /// The block has control characters.
    Controls,
}

/// Classifies a block without a branch for each byte.
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

/// Escapes quotes and backslashes without branches: each byte gets a backslash before it, which the
/// byte overwrites if no backslash is needed. Returns the number of bytes written.
fn escape_quotes(block: &[u8; BLOCK], output: &mut [u8; 2 * BLOCK]) -> usize {
    let mut written = 0;
    for &byte in block {
        // `written` is at most 30 here. The mask lets the compiler leave out the bounds check.
        output[written & (2 * BLOCK - 1)] = b'\\';
        written += usize::from((byte == b'"') | (byte == b'\\'));
        output[written & (2 * BLOCK - 1)] = byte;
        written += 1;
    }
    written
}
