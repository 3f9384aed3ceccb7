//! Documents that contain their own number and the time of sending.
//!
//! Each document has a mark, `"perf":"xrayd-perf-SEQUENCE-TIME"`, in hexadecimal digits. It is an
//! annotation, so that it is also in what a daemon forwards that writes its own documents.
//! JSON escapes nothing in it, so a mark is the same in a datagram and in a request's body. The
//! sender prepares its datagrams once and then only writes digits into them ([`Wheel`]). The
//! endpoint searches for marks while it reads a body ([`Scanner`]), and parses nothing.

use memchr::memmem::{self, Finder};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

/// The header line that most SDKs send.
pub const HEADER: &[u8] = b"{\"format\":\"json\",\"version\":1}\n";

/// The start of a mark.
const MARK_START: &[u8] = b"xrayd-perf-";
/// Number of hexadecimal digits of the sequence number, and of the time. A dash separates the two.
const DIGITS: usize = 16;

/// Length of a mark in bytes.
pub const MARK_BYTES: usize = MARK_START.len() + DIGITS + 1 + DIGITS;

/// Size of the largest datagram over IPv4, in bytes.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// The number of a document, and the time of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Number of the document, from 0.
    pub sequence: u64,
    /// Time of sending by `CLOCK_MONOTONIC`, in nanoseconds.
    pub time_ns: u64,
}

impl Mark {
    /// Reads the mark at the start of `bytes`.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let digits = bytes.strip_prefix(MARK_START)?;
        let (sequence, rest) = digits.split_at_checked(DIGITS)?;
        let time = rest.strip_prefix(b"-")?.get(..DIGITS)?;
        Some(Self { sequence: from_hexadecimal(sequence)?, time_ns: from_hexadecimal(time)? })
    }

    /// Returns the place of the first mark in `bytes`.
    pub fn find(bytes: &[u8]) -> Option<usize> {
        memmem::find(bytes, MARK_START)
    }
}

/// Finds the marks in a body that arrives in pieces.
#[derive(Debug)]
pub struct Scanner {
    finder: Finder<'static>,
    /// The last bytes of the previous pieces of the body. They are too short for a whole mark.
    carry: Vec<u8>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { finder: Finder::new(MARK_START), carry: Vec::with_capacity(2 * MARK_BYTES) }
    }
}

impl Scanner {
    /// Adds the marks that end in `piece` to `found`.
    pub fn scan(&mut self, piece: &[u8], found: &mut Vec<Mark>) {
        let carried = self.carry.len();
        self.carry.extend_from_slice(&piece[..piece.len().min(MARK_BYTES - 1)]);
        // Marks that begin in a previous piece. All other marks lie entirely in this piece.
        for start in self.finder.find_iter(&self.carry).take_while(|&start| start < carried) {
            found.extend(Mark::read(&self.carry[start..]));
        }
        found.extend(self.finder.find_iter(piece).filter_map(|start| Mark::read(&piece[start..])));
        if piece.len() >= MARK_BYTES - 1 {
            self.carry.clear();
            self.carry.extend_from_slice(&piece[piece.len() - (MARK_BYTES - 1)..]);
        } else {
            let surplus = self.carry.len().saturating_sub(MARK_BYTES - 1);
            self.carry.drain(..surplus);
        }
    }

    /// Forgets the current body. The next piece begins a new body.
    pub fn reset(&mut self) {
        self.carry.clear();
    }
}

/// The places of a datagram's digits, as offsets into the bytes of the [`Wheel`].
#[derive(Debug, Clone)]
struct Places {
    datagram: Range<usize>,
    sequence: usize,
    time: usize,
    /// Place of the segment's id, if the document has one.
    id: Option<usize>,
    /// Place of the last digits of the trace id, if the document has one.
    trace: Option<usize>,
}

/// Consecutive datagrams that are prepared once and reused with different digits.
#[derive(Debug, Clone, Default)]
pub struct Wheel {
    bytes: Vec<u8>,
    places: Vec<Places>,
}

impl Wheel {
    /// Prepares `slot_count` datagrams, each with a document of `document_bytes`.
    ///
    /// # Errors
    ///
    /// Fails if `document_bytes` is too short for a document, or too long for a datagram.
    pub fn fixed(document_bytes: usize, slot_count: usize) -> io::Result<Self> {
        let document = document_of(document_bytes)?;
        let mut wheel = Self::default();
        for _ in 0..slot_count {
            wheel.push(&document)?;
        }
        Ok(wheel)
    }

    /// Prepares `slot_count` datagrams, drawn at random from the recorded JSON datagrams in
    /// `folder` (`*.bin`).
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be read or has no JSON datagram.
    pub fn mix(folder: &Path, slot_count: usize, random: &mut fastrand::Rng) -> io::Result<Self> {
        let mut documents = recorded(folder)?;
        // The order in which a folder lists its files depends on the file system.
        documents.sort_unstable();
        let mut wheel = Self::default();
        for _ in 0..slot_count {
            let document = random
                .choice(&documents)
                .ok_or_else(|| io::Error::other(format!("no JSON in {}", folder.display())))?;
            wheel.push(document)?;
        }
        Ok(wheel)
    }

    /// Adds a datagram with `document`, which must contain a mark.
    fn push(&mut self, document: &[u8]) -> io::Result<()> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(HEADER);
        let body = self.bytes.len();
        self.bytes.extend_from_slice(document);
        if self.bytes.len() - start > DATAGRAM_BYTES_MAX {
            return Err(io::Error::other("a document is too large for a datagram"));
        }
        let fault = || io::Error::other("a document has no mark");
        let mark = body + Mark::find(document).ok_or_else(fault)?;
        let sequence = mark + MARK_START.len();
        // In documents of SDKs the first field with this name belongs to the segment itself.
        let value = |name: &[u8], last: usize| {
            let after = memmem::find(document, name)? + name.len();
            let open = after + document[after..].iter().position(|&byte| byte == b'"')? + 1;
            let close = open + document[open..].iter().position(|&byte| byte == b'"')?;
            (close - open >= last).then(|| body + close - last)
        };
        self.places.push(Places {
            datagram: start..self.bytes.len(),
            sequence,
            time: sequence + DIGITS + 1,
            id: value(b"\"id\":", DIGITS),
            trace: value(b"\"trace_id\":", DIGITS),
        });
        Ok(())
    }

    /// Returns the number of datagrams.
    pub fn slot_count(&self) -> usize {
        self.places.len()
    }

    /// Returns the length of all documents together, without header lines, in bytes.
    pub fn document_bytes(&self) -> usize {
        self.bytes.len() - self.places.len() * HEADER.len()
    }

    /// Writes the digits of the next document into the prepared datagram of a slot. Each document
    /// has its own trace.
    pub fn fill(&mut self, slot: usize, mark: Mark) {
        let places = &self.places[slot];
        let sequence = hexadecimal(mark.sequence);
        let mut write = |place: usize, digits: &[u8; DIGITS]| {
            self.bytes[place..place + DIGITS].copy_from_slice(digits);
        };
        write(places.sequence, &sequence);
        write(places.time, &hexadecimal(mark.time_ns));
        for place in [places.id, places.trace].into_iter().flatten() {
            write(place, &sequence);
        }
    }

    /// Returns the datagram of a slot.
    pub fn datagram(&self, slot: usize) -> &[u8] {
        &self.bytes[self.places[slot].datagram.clone()]
    }

    /// Returns the datagrams of consecutive slots as one slice without gaps.
    pub fn datagrams(&self, slots: Range<usize>) -> &[u8] {
        let (first, last) = (&self.places[slots.start], &self.places[slots.end - 1]);
        &self.bytes[first.datagram.start..last.datagram.end]
    }
}

/// Returns the JSON documents among the datagrams of a folder, with marks.
fn recorded(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut documents = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let datagram = fs::read(&path)?;
        let line = datagram.iter().position(|&byte| byte == b'\n').unwrap_or(datagram.len());
        let document = datagram[line..].trim_ascii();
        let parsed = serde_json::from_slice::<serde_json::Map<_, _>>(document);
        if parsed.is_ok_and(|fields: serde_json::Map<_, serde_json::Value>| !fields.is_empty()) {
            documents.push(with_mark(document));
        }
    }
    Ok(documents)
}

/// Returns the JSON `object` with an added first field that contains a mark.
fn with_mark(object: &[u8]) -> Vec<u8> {
    [b"{".as_slice(), mark_field().as_bytes(), &object[1..]].concat()
}

fn mark_field() -> String {
    let start = String::from_utf8_lossy(MARK_START);
    format!("\"perf\":\"{start}{:0DIGITS$x}-{:0DIGITS$x}\",", 0, 0)
}

/// Returns a document of a web application with exactly `length` bytes. Optional fields are
/// included if there is room.
fn document_of(length: usize) -> io::Result<Vec<u8>> {
    let short = concat!(
        r#""name":"shop.example","id":"0000000000000000","#,
        r#""trace_id":"1-67a1b2c3-000000000000000000000000","#,
        r#""start_time":1795354918.123,"end_time":1795354918.456"#,
    );
    let long = concat!(
        r#","in_progress":false,"http":{"request":{"method":"GET","#,
        r#""url":"https://shop.example/cart/17","user_agent":"Mozilla/5.0 (X11; Linux x86_64)","#,
        r#""client_ip":"192.0.2.7"},"response":{"status":200,"content_length":5120}},"#,
        r#""aws":{"xray":{"sdk":"X-Ray for Python","sdk_version":"2.15.0"}},"#,
        r#""subsegments":[{"id":"00000000000f4240","name":"inventory","#,
        r#""start_time":1795354918.2,"end_time":1795354918.3,"namespace":"remote","#,
        r#""sql":{"sanitized_query":"SELECT * FROM items WHERE id = \"?\"","#,
        r#""database_type":"PostgreSQL"}}]"#,
    );
    let annotations = format!(r#","annotations":{{{}"tenant":"t3","cold":true}}"#, mark_field());
    const FILLER: &str = r#","metadata":{"default":{"note":""#;
    const END: &str = r#""}}}"#;
    let fixed_bytes = |middle: &str| {
        1 + short.len() + middle.len() + annotations.len() + FILLER.len() + END.len()
    };
    let middle = if fixed_bytes(long) <= length { long } else { "" };
    let filler_bytes = length.checked_sub(fixed_bytes(middle)).ok_or_else(|| {
        io::Error::other(format!("a document has at least {} bytes", fixed_bytes("")))
    })?;
    let filler: String = "abcdefghi ".chars().cycle().take(filler_bytes).collect();
    Ok(format!("{{{short}{middle}{annotations}{FILLER}{filler}{END}").into_bytes())
}

fn hexadecimal(number: u64) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        for (digit, half) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = b"0123456789abcdef"[usize::from(half)];
        }
    }
    digits
}

fn from_hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, &digit| {
        let value = char::from(digit).to_digit(16)?;
        Some(number << 4 | u64::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { sequence: 0x12_3456_789a, time_ns: u64::MAX - 1 };

    fn recorded_folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/segments")
    }

    /// Returns the document of a slot.
    fn document(wheel: &Wheel, slot: usize) -> serde_json::Value {
        let document = wheel.datagram(slot).strip_prefix(HEADER).unwrap();
        serde_json::from_slice(document).unwrap()
    }

    #[test]
    fn a_mark_that_was_written_is_read_again() {
        let mut wheel = Wheel::fixed(1_000, 2).unwrap();
        wheel.fill(1, MARK);
        let datagram = wheel.datagram(1);
        assert_eq!(Mark::read(&datagram[Mark::find(datagram).unwrap()..]), Some(MARK));
        assert_eq!(Mark::read(b"xrayd-perf-0000000000000001-000000000000000"), None);
        assert_eq!(Mark::read(b"xrayd-perf-000000000000000g-0000000000000001"), None);
        assert_eq!(Mark::read(b"xrayd-perf-0000000000000001+0000000000000001"), None);
    }

    #[test]
    fn digits_change_and_nothing_else_does() {
        let mut wheel = Wheel::fixed(1_000, 3).unwrap();
        let before = wheel.bytes.clone();
        wheel.fill(1, MARK);
        let changed = (0..before.len()).filter(|&at| before[at] != wheel.bytes[at]).count();
        assert!((1..=4 * DIGITS).contains(&changed), "{changed}");
        assert_eq!(wheel.datagram(0), &before[..wheel.datagram(0).len()]);
        let document = document(&wheel, 1);
        assert_eq!(document["id"], "000000123456789a");
        assert_eq!(document["trace_id"], "1-67a1b2c3-00000000000000123456789a");
        // The subsegment keeps its id.
        assert_eq!(document["subsegments"][0]["id"], "00000000000f4240");
    }

    #[test]
    fn documents_have_the_length_that_was_asked_for() {
        for bytes in [300, 700, 1_000, 60_000] {
            let wheel = Wheel::fixed(bytes, 2).unwrap();
            assert_eq!(wheel.document_bytes(), 2 * bytes);
            assert!(document(&wheel, 0)["name"].is_string());
            let mark = document(&wheel, 0)["annotations"]["perf"].as_str().map(str::len);
            assert_eq!(mark, Some(MARK_BYTES));
        }
        assert!(Wheel::fixed(100, 1).is_err());
        assert!(Wheel::fixed(65_507, 1).is_err());
    }

    #[test]
    fn the_mix_is_recorded_documents_with_marks_and_the_same_for_a_seed() {
        let draw = |seed| {
            Wheel::mix(&recorded_folder(), 200, &mut fastrand::Rng::with_seed(seed)).unwrap()
        };
        let mut wheel = draw(1);
        assert_eq!(wheel.bytes, draw(1).bytes);
        assert_ne!(wheel.bytes, draw(2).bytes);
        let mut lengths = std::collections::BTreeSet::new();
        for slot in 0..wheel.slot_count() {
            wheel.fill(slot, MARK);
            let document = document(&wheel, slot);
            assert_eq!(document["id"], "000000123456789a");
            assert_eq!(document["perf"].as_str().unwrap().len(), MARK_BYTES);
            lengths.insert(wheel.datagram(slot).len());
        }
        assert!(lengths.len() > 10, "{lengths:?}");
    }

    #[test]
    fn datagrams_in_a_row_have_no_gap() {
        let wheel = Wheel::fixed(500, 4).unwrap();
        let both = [wheel.datagram(1), wheel.datagram(2)].concat();
        assert_eq!(wheel.datagrams(1..3), both);
    }

    #[test]
    fn marks_are_found_wherever_a_body_is_cut() {
        let mut wheel = Wheel::fixed(300, 3).unwrap();
        let marks: Vec<Mark> =
            (0..3).map(|sequence| Mark { sequence, time_ns: 100 + sequence }).collect();
        for (slot, &mark) in marks.iter().enumerate() {
            wheel.fill(slot, mark);
        }
        // In a request's body the documents are escaped strings in a list.
        let body =
            serde_json::to_vec(&[0, 1, 2].map(|slot| {
                String::from_utf8(wheel.datagram(slot)[HEADER.len()..].to_vec()).unwrap()
            }));
        let body = body.unwrap();
        let scan = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let (mut scanner, mut found) = (Scanner::default(), Vec::new());
            pieces.for_each(|piece| scanner.scan(piece, &mut found));
            found
        };
        for cut in 0..=body.len() {
            let (left, right) = body.split_at(cut);
            assert_eq!(scan(&mut [left, right].into_iter()), marks, "cut at {cut}");
        }
        for length in 1..=2 * MARK_BYTES {
            assert_eq!(scan(&mut body.chunks(length)), marks, "pieces of {length}");
        }
    }
}
