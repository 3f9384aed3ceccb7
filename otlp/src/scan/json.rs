//! Walks a request in JSON.
//!
//! serde_json reads it to the end, so a walk that succeeds has seen valid JSON. The lists are not
//! collected: a body of 5 MB has room for more than a million empty spans. A span is found as a
//! part of the text, and only its times are read.

use super::{FoundSpan, SpanTimes};
use crate::json;
use crate::request::DecodeError;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::ops::Range;

/// A span in the text: its place, whether it is the first one of its list, and the span.
struct Placed {
    place: Range<usize>,
    is_first: bool,
    span: FoundSpan,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Times {
    #[serde(default, deserialize_with = "json::unsigned")]
    start_time_unix_nano: u64,
    #[serde(default, deserialize_with = "json::unsigned")]
    end_time_unix_nano: u64,
}

pub fn scan(body: &[u8], look: &mut dyn FnMut(&FoundSpan)) -> Result<(), DecodeError> {
    walk(body, &mut |placed| look(&placed.span))
}

pub fn cut(
    body: &[u8],
    keeps: &dyn Fn(&FoundSpan) -> bool,
    put: &mut dyn FnMut(&[u8]),
) -> Result<(), DecodeError> {
    // The end of the last span, whether it is kept, and whether its list has a kept span.
    let (mut done, mut is_last_kept, mut has_kept) = (0, false, false);
    walk(body, &mut |placed| {
        let Range { start, end } = placed.place;
        if placed.is_first {
            put(&body[done..start]);
            has_kept = false;
        }
        let is_kept = keeps(&placed.span);
        if is_kept {
            match (placed.is_first, is_last_kept) {
                (false, true) => put(&body[done..start]),
                (false, false) if has_kept => put(b","),
                _ => {}
            }
            put(&body[start..end]);
            has_kept = true;
        }
        (done, is_last_kept) = (end, is_kept);
    })?;
    put(&body[done..]);
    Ok(())
}

fn walk(body: &[u8], take: &mut dyn FnMut(&Placed)) -> Result<(), DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut walk = Walk { start: body.as_ptr() as usize, index: 0, take };
    Object { key: "resourceSpans", below: &["scopeSpans", "spans"], walk: &mut walk }
        .deserialize(&mut deserializer)?;
    Ok(deserializer.end()?)
}

struct Walk<'w> {
    /// Address of the first byte of the body, from which the place of a span is known.
    start: usize,
    index: usize,
    take: &'w mut dyn FnMut(&Placed),
}

impl Walk<'_> {
    fn span(&mut self, span: &RawValue, is_first: bool) {
        let text = span.get();
        let from = text.as_ptr() as usize - self.start;
        // serde also takes a list for a struct.
        let is_object = text.starts_with('{');
        let times = serde_json::from_str(text).ok().filter(|_| is_object);
        let times = times.map(|times: Times| SpanTimes {
            start_ns: times.start_time_unix_nano,
            end_ns: times.end_time_unix_nano,
        });
        let span = FoundSpan { index: self.index, size_bytes: text.len(), times };
        (self.take)(&Placed { place: from..from + text.len(), is_first, span });
        self.index += 1;
    }
}

/// Reads an object. Its member `key` is a list; `below` has the keys of the lists further inside.
/// All other members are skipped.
struct Object<'a, 'w> {
    key: &'static str,
    below: &'static [&'static str],
    walk: &'a mut Walk<'w>,
}

impl<'de> DeserializeSeed<'de> for Object<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "an object with the list {}", self.key)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_list = false;
        while let Some(is_list) = map.next_key_seed(IsKey(self.key))? {
            if !is_list {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if has_list {
                return Err(Error::duplicate_field(self.key));
            }
            has_list = true;
            map.next_value_seed(List { below: self.below, key: self.key, walk: self.walk })?;
        }
        Ok(())
    }
}

/// Reads a key, and returns whether it is the one that is looked for.
struct IsKey(&'static str);

impl<'de> DeserializeSeed<'de> for IsKey {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsKey {
    type Value = bool;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

/// Reads the list of an object, which may be `null`: a list of objects, or of spans if nothing is
/// below.
struct List<'a, 'w> {
    key: &'static str,
    below: &'static [&'static str],
    walk: &'a mut Walk<'w>,
}

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the list {}", self.key)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((key, below)) = self.below.split_first() else {
            let mut is_first = true;
            while let Some(span) = list.next_element::<&RawValue>()? {
                self.walk.span(span, is_first);
                is_first = false;
            }
            return Ok(());
        };
        while list.next_element_seed(Object { key, below, walk: &mut *self.walk })?.is_some() {}
        Ok(())
    }
}
