//! Computes the SHA-256 of request bodies, and of two bodies together if there are two.
//!
//! In: bodies in pieces. Out: the SHA-256 of each body, for the signature. In a SHA-256 each step
//! waits for the step before, so a processor with SHA instructions is idle for a part of the time.
//! Two hashes computed in turn (`x86.rs`) use that time. The crate `sha2` computes single hashes,
//! and all hashes on other processors. No I/O, no allocation, no state.

#[cfg(target_arch = "x86_64")]
mod x86;

use sha2::block_api::compress256;

/// Size of a block in bytes: the hash takes one block at a time.
const BLOCK: usize = 64;

/// Size of the message's length, in bytes, at the end of the last block.
const LENGTH_BYTES: usize = 8;

/// The initial state of a hash (FIPS 180-4, 5.3.3).
const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// Returns the SHA-256 of a message in `pieces`.
pub fn sha256<P: AsRef<[u8]>>(pieces: &[P]) -> [u8; 32] {
    let mut state = START;
    finish(&mut state, &mut Message::new(pieces));
    digest(state)
}

/// Returns the SHA-256 of each of two messages in pieces.
pub fn sha256_of_two<P: AsRef<[u8]>>(messages: [&[P]; 2]) -> [[u8; 32]; 2] {
    let mut states = [START; 2];
    let [mut one, mut other] = messages.map(Message::new);
    #[cfg(target_arch = "x86_64")]
    if x86::is_available() {
        loop {
            let blocks = [one.blocks(), other.blocks()];
            let count = blocks.map(<[_]>::len).into_iter().min().unwrap_or(0);
            if count == 0 {
                break;
            }
            x86::compress_two(&mut states, blocks.map(|blocks| &blocks[..count]));
            one.advance(count);
            other.advance(count);
        }
    }
    // Only the rest of the longer message is left, or both whole messages on other processors.
    finish(&mut states[0], &mut one);
    finish(&mut states[1], &mut other);
    states.map(digest)
}

fn finish<P: AsRef<[u8]>>(state: &mut [u32; 8], message: &mut Message<'_, P>) {
    loop {
        let blocks = message.blocks();
        let count = blocks.len();
        if count == 0 {
            return;
        }
        compress256(state, blocks);
        message.advance(count);
    }
}

fn digest(state: [u32; 8]) -> [u8; 32] {
    let mut digest = [0; 32];
    for (place, word) in digest.chunks_exact_mut(4).zip(state) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// The blocks of a message, with the padding of SHA-256 (FIPS 180-4, 5.1.1).
struct Message<'a, P> {
    pieces: std::slice::Iter<'a, P>,
    /// The bytes of the current piece that were not taken yet.
    rest: &'a [u8],
    /// A copy of a block that lies in two pieces or has padding. It is complete when `filled` is
    /// [`BLOCK`].
    block: [u8; BLOCK],
    filled: usize,
    length_bytes: u64,
    padding: Padding,
}

/// The padding that is still missing after the last piece.
enum Padding {
    /// All padding is missing: the end mark (0x80), zeros, and the message's length.
    All,
    /// Zeros and the length are missing: the block with the end mark had no room for the length.
    Length,
    /// No padding: the message is complete.
    Nothing,
}

impl<'a, P: AsRef<[u8]>> Message<'a, P> {
    fn new(pieces: &'a [P]) -> Self {
        Self {
            pieces: pieces.iter(),
            rest: &[],
            block: [0; BLOCK],
            filled: 0,
            length_bytes: 0,
            padding: Padding::All,
        }
    }

    /// Returns the next blocks that lie together in memory; none at the end of the message.
    fn blocks(&mut self) -> &[[u8; BLOCK]] {
        while self.filled < BLOCK {
            if self.filled == 0 && self.rest.len() >= BLOCK {
                return self.rest.as_chunks().0;
            }
            if !self.rest.is_empty() {
                let count = self.rest.len().min(BLOCK - self.filled);
                let (taken, rest) = self.rest.split_at(count);
                self.block[self.filled..self.filled + count].copy_from_slice(taken);
                (self.rest, self.filled) = (rest, self.filled + count);
            } else if let Some(piece) = self.pieces.next() {
                self.rest = piece.as_ref();
                self.length_bytes += self.rest.len() as u64;
            } else if !self.pad() {
                return &[];
            }
        }
        std::slice::from_ref(&self.block)
    }

    /// Skips `count` of the blocks that [`blocks`](Self::blocks) has returned.
    fn advance(&mut self, count: usize) {
        if self.filled == BLOCK {
            self.filled = 0;
        } else {
            self.rest = &self.rest[count * BLOCK..];
        }
    }

    /// Fills the last block with padding. Returns `false` if all padding is done.
    fn pad(&mut self) -> bool {
        match self.padding {
            Padding::All => {
                self.block[self.filled] = 0x80;
                self.filled += 1;
            }
            Padding::Length => {}
            Padding::Nothing => return false,
        }
        let (start, length) = self.block.split_at_mut(BLOCK - LENGTH_BYTES);
        match start.get_mut(self.filled..) {
            Some(between) => {
                between.fill(0);
                length.copy_from_slice(&(self.length_bytes * 8).to_be_bytes());
                self.padding = Padding::Nothing;
            }
            None => {
                self.block[self.filled..].fill(0);
                self.padding = Padding::Length;
            }
        }
        self.filled = BLOCK;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    fn expected<P: AsRef<[u8]>>(pieces: &[P]) -> [u8; 32] {
        let mut hash = Sha256::new();
        pieces.iter().for_each(|piece| hash.update(piece));
        hash.finalize().into()
    }

    #[test]
    fn every_length_around_a_block_has_the_hash_of_the_library() {
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        // Miri takes a thousand times as long, so it gets a few lengths around one and two blocks.
        let few = [0, 1, 55, 56, 63, 64, 65, 119, 120, 128];
        let lengths = if cfg!(miri) { few.to_vec() } else { (0..=bytes.len()).collect() };
        for length in lengths {
            let one = [&bytes[..length]];
            let other = [&bytes[..bytes.len() - length]];
            assert_eq!(sha256(&one), expected(&one), "{length} bytes");
            assert_eq!(sha256_of_two([&one, &other]), [expected(&one), expected(&other)]);
        }
    }

    #[test]
    fn no_pieces_are_the_empty_message() {
        let none: [&[u8]; 0] = [];
        assert_eq!(sha256(&none), expected(&[""]));
        assert_eq!(sha256_of_two([&none, &none]), [expected(&[""]); 2]);
    }

    /// Generates messages in pieces. Some pieces consist of whole blocks only.
    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // Miri takes a thousand times as long.
        let [bytes, blocks, pieces] = if cfg!(miri) { [80, 3, 4] } else { [300, 5, 6] };
        let length = prop_oneof![0..bytes, (0..blocks).prop_map(|count| count * BLOCK)];
        let piece = length.prop_flat_map(|length| prop::collection::vec(any::<u8>(), length));
        prop::collection::vec(piece, 0..pieces)
    }

    proptest! {
        #[test]
        fn two_messages_have_the_hashes_that_each_has_alone(one in pieces(), other in pieces()) {
            prop_assert_eq!(sha256(&one), expected(&one));
            prop_assert_eq!(sha256_of_two([&one, &other]), [expected(&one), expected(&other)]);
        }
    }
}
