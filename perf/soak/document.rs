//! The documents of the soak. Each contains its number twice; the rest is the same in all
//! documents.
//!
//! For every document in a body, the endpoint finds the number and compares the document with the
//! expected text. All documents have the same length.

/// Length of a document in a datagram, without the header line, in bytes.
pub const DOCUMENT_BYTES: usize = 1_000;

/// The header line that SDKs send, with its newline.
const HEADER: &[u8] = b"{\"format\":\"json\",\"version\":1}\n";

const BODY_START: &[u8] = br#"{"TraceSegmentDocuments":["#;
const BODY_END: &[u8] = b"]}";

/// One of this many documents is poison: the endpoint refuses a request that contains it.
const POISON_ONE_IN: u64 = 100_000;

/// Placeholder for the segment's id and for the last digits of the trace id.
const ID: &[u8; 16] = b"IIIIIIIIIIIIIIII";
/// Placeholder for the segment's name. Poison documents have a special name.
const NAME: &[u8; 6] = b"NNNNNN";

/// A document with placeholders.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: Vec<u8>,
    id_places: [usize; 2],
    name_place: usize,
    seed: u64,
}

impl Template {
    /// Returns the template of a datagram: header line and document.
    pub fn datagram(seed: u64) -> Self {
        Self::new([HEADER, document().as_bytes()].concat(), seed)
    }

    /// Returns the template of the same document as a JSON string in a request's body.
    pub fn escaped(seed: u64) -> Self {
        let escaped = serde_json::to_vec(&document()).expect("text is JSON");
        Self::new(escaped, seed)
    }

    fn new(bytes: Vec<u8>, seed: u64) -> Self {
        let place_of = |text: &[u8], from: usize| {
            let found = bytes[from..].windows(text.len()).position(|window| window == text);
            from + found.expect("the template has the placeholder")
        };
        let first = place_of(ID, 0);
        let id_places = [first, place_of(ID, first + ID.len())];
        let name_place = place_of(NAME, 0);
        Self { bytes, id_places, name_place, seed }
    }

    /// Returns whether the document with this number is poison.
    pub fn is_poison(&self, number: u64) -> bool {
        fastrand::Rng::with_seed(self.seed ^ number.rotate_left(20)).u64(..POISON_ONE_IN) == 0
    }

    /// Returns the document with this number.
    pub fn fill(&mut self, number: u64) -> &[u8] {
        let digits = hexadecimal(number);
        for place in self.id_places {
            self.bytes[place..place + digits.len()].copy_from_slice(&digits);
        }
        let name = if self.is_poison(number) { b"poison" } else { b"orders" };
        self.bytes[self.name_place..self.name_place + name.len()].copy_from_slice(name);
        &self.bytes
    }

    /// Returns the numbers of the documents in a request's body, or `None` if the body contains
    /// anything that was not sent.
    pub fn numbers_in(&mut self, body: &[u8]) -> Option<Vec<u32>> {
        let mut rest = body.strip_prefix(BODY_START)?.strip_suffix(BODY_END)?;
        let mut numbers = Vec::with_capacity(50);
        loop {
            let (document, after) = rest.split_at_checked(self.bytes.len())?;
            let digits = &document[self.id_places[0]..self.id_places[0] + ID.len()];
            let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            if self.fill(u64::from(number)) != document {
                return None;
            }
            numbers.push(number);
            match after {
                [] => return Some(numbers),
                [b',', next @ ..] => rest = next,
                _ => return None,
            }
        }
    }
}

/// Returns the segment id of a document, as an answer contains it.
pub fn segment_id(number: u32) -> String {
    format!("{number:016x}")
}

fn hexadecimal(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (digit, byte) in digits.chunks_mut(2).zip(number.to_be_bytes()) {
        for (digit, half) in digit.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = b"0123456789abcdef"[usize::from(half)];
        }
    }
    digits
}

/// Returns a typical segment with placeholders. Metadata fills it up to [`DOCUMENT_BYTES`].
fn document() -> String {
    let (id, name) = (String::from_utf8_lossy(ID), String::from_utf8_lossy(NAME));
    let start = format!(
        "{{\"id\":\"{id}\",\"trace_id\":\"1-6745c000-00000000{id}\",\"name\":\"{name}\",\
         \"start_time\":1764057600.125,\"end_time\":1764057600.25,\"http\":{{\"request\":\
         {{\"method\":\"GET\",\"url\":\"http://shop.example.com/orders\"}},\"response\":\
         {{\"status\":200}}}},\"metadata\":{{\"default\":{{\"filler\":\""
    );
    let end = "\"}}}";
    let filler = "abcdefghi ".chars().cycle().take(DOCUMENT_BYTES - start.len() - end.len());
    start + &filler.collect::<String>() + end
}
