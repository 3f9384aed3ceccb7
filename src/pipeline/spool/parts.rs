//! Keeps account of the parts of records that are taken, put back or set aside, in one file.
//!
//! In: parts that reading has found. Out: the same parts, in the order of their places. A part is a
//! run of segments of one record, or the whole record: memory may not have room for all segments at
//! once. A [`Place`] identifies a part. Bound: 80 bytes of memory for each part. Thread: the
//! spool's.

use super::record::Header;
use std::collections::BTreeMap;

/// A number of records, and the number of segments in these records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    pub record_count: u64,
    pub segment_count: u64,
}

impl Count {
    /// Counts one more record.
    pub fn add(&mut self, segment_count: u32) {
        self.record_count += 1;
        self.segment_count += u64::from(segment_count);
    }

    /// Takes one record out of the count.
    pub fn remove(&mut self, segment_count: u32) {
        self.record_count = self.record_count.saturating_sub(1);
        self.segment_count = self.segment_count.saturating_sub(segment_count.into());
    }
}

/// How much of a file is neither settled nor taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The number of records and segments, as far as record headers could be read.
    pub count: Count,
    /// How many bytes are damaged or cannot be read. The number of segments in them is not known.
    pub unknown_bytes: u64,
}

/// The place of a part: the offset of its record, and the index of its first segment.
pub type Place = (u64, u32);

/// A run of segments of one record, or the whole record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The header of the record that the segments belong to.
    pub header: Header,
    /// The index of the first segment of this part, counted from 0 within the record.
    pub first: u32,
    pub segment_count: u32,
}

/// The parts of one file that reading has come to and that are not settled.
#[derive(Debug, Default)]
pub struct Parts {
    taken: BTreeMap<Place, Part>,
    /// Parts that wait to be taken: parts that were put back, and parts that were read but not
    /// taken yet.
    waiting: BTreeMap<Place, Part>,
    /// Parts that stay on disk for a later run: they are not settled, and this run does not take
    /// them again.
    set_aside: BTreeMap<Place, Part>,
}

impl Parts {
    /// Adds a part that waits to be taken.
    pub fn add(&mut self, place: Place, part: Part) {
        self.waiting.insert(place, part);
    }

    /// Adds a part that is taken.
    pub fn add_taken(&mut self, place: Place, part: Part) {
        self.taken.insert(place, part);
    }

    /// Removes the first part that waits, and returns it.
    pub fn pop(&mut self) -> Option<(Place, Part)> {
        self.waiting.pop_first()
    }

    /// Returns whether a part waits to be taken.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns whether no part is taken or set aside.
    pub fn is_unused(&self) -> bool {
        self.taken.is_empty() && self.set_aside.is_empty()
    }

    /// Returns all parts: taken, waiting and set aside.
    pub fn all(&self) -> impl Iterator<Item = (&Place, &Part)> {
        self.taken.iter().chain(&self.waiting).chain(&self.set_aside)
    }

    /// Returns the parts that are not taken: waiting and set aside.
    pub fn untaken(&self) -> impl Iterator<Item = &Part> {
        self.waiting.values().chain(self.set_aside.values())
    }

    /// Returns how many segments are in all parts.
    pub fn segment_count(&self) -> u64 {
        self.all().map(|(_, part)| u64::from(part.segment_count)).sum()
    }

    /// Returns whether there is a part of a record at or behind `offset`.
    pub fn has_any_from(&self, offset: u64) -> bool {
        self.all().any(|(place, _)| place.0 >= offset)
    }

    /// Returns whether all segments of the record at `offset` wait to be taken.
    pub fn waits_whole(&self, offset: u64, header: &Header) -> bool {
        let part = self.waiting.get(&(offset, 0));
        part.is_some_and(|part| part.segment_count == header.segment_count)
    }

    /// Removes the waiting part that begins with the first segment of the record at `offset`.
    /// Returns whether that part existed.
    pub fn remove_waiting(&mut self, offset: u64) -> bool {
        self.waiting.remove(&(offset, 0)).is_some()
    }

    /// Keeps the first `segment_count` segments of a taken part, and puts the rest back. Returns
    /// `false` if the part cannot be divided in this way.
    pub fn split(&mut self, place: Place, segment_count: u32) -> bool {
        let Some(part) = self.taken.get_mut(&place) else { return false };
        let rest_count = part.segment_count.saturating_sub(segment_count);
        if rest_count == 0 || segment_count == 0 || !part.header.is_divisible() {
            return false;
        }
        part.segment_count = segment_count;
        let first = part.first + segment_count;
        let rest = Part { first, segment_count: rest_count, ..*part };
        self.waiting.insert((place.0, first), rest);
        true
    }

    /// Sets a taken part aside.
    pub fn set_aside(&mut self, place: Place) {
        let part = self.taken.remove(&place);
        self.set_aside.extend(part.map(|part| (place, part)));
    }

    /// Removes a taken part; `None` if it is not taken.
    pub fn settle(&mut self, place: Place) -> Option<Part> {
        self.taken.remove(&place)
    }

    /// Puts a taken part back. Returns `false` if it is not taken.
    pub fn release(&mut self, place: Place) -> bool {
        let part = self.taken.remove(&place);
        self.waiting.extend(part.map(|part| (place, part)));
        part.is_some()
    }

    /// Removes the waiting parts of the record at `offset`. Returns how many segments they had.
    pub fn drop_record(&mut self, offset: u64) -> u64 {
        let mut segment_count = 0;
        self.waiting.retain(|place, part| {
            let is_other_record = place.0 != offset;
            segment_count += if is_other_record { 0 } else { u64::from(part.segment_count) };
            is_other_record
        });
        segment_count
    }

    /// Removes all parts that are not taken. Returns the segments in them, and the bytes of their
    /// records.
    pub fn drop_untaken(&mut self) -> (u64, u64) {
        let mut dropped = std::mem::take(&mut self.waiting);
        dropped.append(&mut self.set_aside);
        let segment_count = dropped.values().map(|part| u64::from(part.segment_count)).sum();
        let bytes = dropped.values().map(|part| part.header.record_bytes()).sum();
        (segment_count, bytes)
    }
}
