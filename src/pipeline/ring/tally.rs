//! How many segments of a ring are new, and for how many its consumer is to be woken.
//!
//! In: what the producer pushes, what the consumer waits for. Out: to the producer, whether it has
//! to wake the consumer; to the consumer, whether it may sleep. Both counts are one atomic number,
//! so that neither side changes one and misses the other. Bound: 32 bits for each. Each side's
//! methods run on its own thread; neither waits for the other.

use crate::base::sync::{AtomicU64, Ordering};

/// For how many segments the consumer is woken before it has said anything.
pub(super) const FIRST_WAKE_COUNT: u32 = 1;

/// One ring's two counts.
#[derive(Debug)]
pub(super) struct Tally(AtomicU64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Segments pushed since the consumer last found the queue empty.
    fresh: u32,
    /// It is woken when there are so many.
    wake: u32,
}

impl Counts {
    /// The bits of `fresh`; the others are those of `wake`.
    const FRESH: u64 = u32::MAX as u64;

    fn of(bits: u64) -> Self {
        // The halves.
        Self { fresh: (bits & Self::FRESH) as u32, wake: (bits >> u32::BITS) as u32 }
    }

    fn bits(self) -> u64 {
        u64::from(self.wake) << u32::BITS | u64::from(self.fresh)
    }
}

impl Tally {
    /// Nothing was pushed yet, and the first segment wakes the consumer.
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(Counts { fresh: 0, wake: FIRST_WAKE_COUNT }.bits()))
    }

    /// The producer has made `count` segments visible; says whether it has to wake the consumer.
    #[must_use = "a consumer that is not woken may sleep on"]
    pub(super) fn add(&self, count: usize) -> bool {
        let count = count as u64;
        let before = Counts::of(self.0.fetch_add(count, Ordering::AcqRel));
        let (fresh, wake) = (u64::from(before.fresh), u64::from(before.wake));
        fresh < wake && fresh + count >= wake
    }

    /// The consumer is about to look for the last segments that were counted.
    ///
    /// A read and write in one: a store would not order this and the look.
    pub(super) fn clear(&self) {
        self.0.fetch_and(!Counts::FRESH, Ordering::AcqRel);
    }

    /// The consumer leaves segments that it has [cleared](Self::clear).
    pub(super) fn put_back(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Segments counted and not cleared.
    pub(super) fn fresh_count(&self) -> usize {
        Counts::of(self.0.load(Ordering::Acquire)).fresh as usize
    }

    /// From now on the consumer is woken for `wake_count` segments; says whether so many are
    /// counted already, for which it may not be woken.
    #[must_use = "a consumer that sleeps over what waits already may sleep on"]
    pub(super) fn arm(&self, wake_count: usize) -> bool {
        let wake = u32::try_from(wake_count).unwrap_or(u32::MAX);
        let with_wake = |bits| Some(Counts { wake, ..Counts::of(bits) }.bits());
        let (Ok(before) | Err(before)) =
            self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, with_wake);
        Counts::of(before).fresh >= wake
    }
}
