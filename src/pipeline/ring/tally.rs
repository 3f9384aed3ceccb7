//! Counts the new segments of a ring and decides when its consumer is woken.
//!
//! In: the number of segments that the producer pushes; the number that the consumer waits for.
//! Out: whether the producer has to wake the consumer; whether the consumer may sleep. Bound: 32
//! bits for each number. Threads: the producer's methods run on `receive-N`, the consumer's on
//! `upload`; neither waits for the other.
//!
//! Both numbers are in one atomic, so that neither side can change one and miss a change of the
//! other.

use crate::base::sync::{AtomicU64, Ordering};

/// Number of new segments at which the consumer is woken, until it calls [`Tally::arm`].
pub(super) const FIRST_WAKE_COUNT: u32 = 1;

/// The two numbers of a ring, as the bits of [`Counts`].
#[derive(Debug)]
pub(super) struct Tally(AtomicU64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Segments pushed since the consumer last found the ring empty.
    fresh: u32,
    /// The value of `fresh` at which the consumer is woken.
    wake: u32,
}

impl Counts {
    /// The lower 32 bits, which hold `fresh`. The upper 32 bits hold `wake`.
    const FRESH: u64 = u32::MAX as u64;

    fn of(bits: u64) -> Self {
        // Each cast keeps one half of the bits.
        Self { fresh: (bits & Self::FRESH) as u32, wake: (bits >> u32::BITS) as u32 }
    }

    fn bits(self) -> u64 {
        u64::from(self.wake) << u32::BITS | u64::from(self.fresh)
    }
}

impl Tally {
    /// Creates the counts of an empty ring. Its first segment wakes the consumer.
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(Counts { fresh: 0, wake: FIRST_WAKE_COUNT }.bits()))
    }

    /// Counts `count` segments that the producer has made visible. Returns whether the producer has
    /// to wake the consumer.
    #[must_use = "a consumer that is not woken may sleep on"]
    pub(super) fn add(&self, count: usize) -> bool {
        let count = count as u64;
        let before = Counts::of(self.0.fetch_add(count, Ordering::AcqRel));
        let (fresh, wake) = (u64::from(before.fresh), u64::from(before.wake));
        fresh < wake && fresh + count >= wake
    }

    /// Sets the count of new segments to 0. The consumer calls it before it looks for the last new
    /// segments.
    ///
    /// It is a read-modify-write, because a plain store would not be ordered before the consumer's
    /// next reads of the ring.
    pub(super) fn clear(&self) {
        self.0.fetch_and(!Counts::FRESH, Ordering::AcqRel);
    }

    /// Counts one segment again. The consumer calls it if it leaves segments that it has
    /// [cleared](Self::clear).
    pub(super) fn put_back(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of segments that are counted and not cleared.
    pub(super) fn fresh_count(&self) -> usize {
        Counts::of(self.0.load(Ordering::Acquire)).fresh as usize
    }

    /// Makes the producer wake the consumer once `wake_count` segments are counted. Returns whether
    /// `wake_count` segments are counted already. The producer may not wake the consumer for these.
    #[must_use = "a consumer that sleeps over what waits already may sleep on"]
    pub(super) fn arm(&self, wake_count: usize) -> bool {
        let wake = u32::try_from(wake_count).unwrap_or(u32::MAX);
        let with_wake = |bits| Some(Counts { wake, ..Counts::of(bits) }.bits());
        let (Ok(before) | Err(before)) =
            self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, with_wake);
        Counts::of(before).fresh >= wake
    }
}
