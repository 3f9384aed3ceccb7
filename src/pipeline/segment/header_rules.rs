//! Header lines that differ from the two header lines of the SDKs, for example in their spaces.
//!
//! In: the first line of a datagram. Out: whether the original daemon accepts it. Thread:
//! `receive-N`. No I/O, no clock.
//!
//! The rules are those of Go's package `encoding/json`, which the original daemon uses: keys may be
//! in upper or lower case and may be repeated, and the last value of a key counts. A value of
//! another type, and null, does not replace an earlier value. `tests/peer` compares both daemons.

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The letter that Go's comparison without case takes for an `s`.
const LONG_S: char = '\u{17f}';

/// Returns whether `line` is a JSON object with the format `json` and the version 1.
pub(super) fn is_valid(line: &[u8]) -> bool {
    // No control character but these is in JSON. serde_json does not check that in a key.
    let has_control =
        line.iter().any(|byte| byte.is_ascii_control() && !b"\t\r\x7f".contains(byte));
    let header: Header = serde_json::from_slice(line).unwrap_or_default();
    !has_control && header.is_json && header.version == 1
}

/// The values of a header line.
#[derive(Debug, Default)]
struct Header {
    is_json: bool,
    version: i64,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON object with format and version")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        while let Some(Key(key)) = map.next_key()? {
            if is_word(&key, "format") {
                let value: &RawValue = map.next_value()?;
                if value.get().starts_with('"') {
                    let text = serde_json::from_str::<String>(value.get());
                    header.is_json = text.is_ok_and(|text| is_word(&text, "json"));
                }
            } else if is_word(&key, "version") {
                let value: &RawValue = map.next_value()?;
                header.version = value.get().parse().unwrap_or(header.version);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(header)
    }
}

fn is_word(text: &str, word: &str) -> bool {
    text.replace(LONG_S, "s").eq_ignore_ascii_case(word)
}

/// A key, in which U+FFFD replaces what is no character.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a key")
            }

            /// Takes a key without escapes.
            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Key, E> {
                if bytes.contains(&b'\t') || bytes.contains(&b'\r') {
                    return Err(E::custom("a control character in a key"));
                }
                self.visit_bytes(bytes)
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Key, E> {
                Ok(Key(String::from_utf8_lossy(bytes).into_owned()))
            }
        }
        deserializer.deserialize_bytes(KeyVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Rejection, split};

    /// A class of header lines, a header line (a character for each byte), and whether the original
    /// daemon accepts it. The last value is the answer of xrayd, if it is another one.
    type Recorded = (String, String, Vec<bool>);

    #[test]
    fn header_lines_are_judged_as_recorded_from_the_original_daemon() {
        let recorded = include_str!("../../../tests/peer/recorded/headers.jsonl");
        // Miri takes a thousand times as long.
        let count_max = if cfg!(miri) { 40 } else { usize::MAX };
        let mut count = 0;
        for line in recorded.lines().take(count_max) {
            let (class, text, answers): Recorded = serde_json::from_str(line).unwrap();
            let header: Vec<u8> = text.chars().map(|char| u8::try_from(char).unwrap()).collect();
            let expected =
                if answers.last() == Some(&true) { Ok(&b"X"[..]) } else { Err(Rejection::Header) };
            assert_eq!(split(&[&header, &b"\nX"[..]].concat()), expected, "{class}: {text:?}");
            count += 1;
        }
        assert!(count > 2_500.min(count_max - 1), "{count}");
    }
}
