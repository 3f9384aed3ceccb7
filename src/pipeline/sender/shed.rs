//! Decides when receivers leave their sockets alone, because segments come faster than they are
//! sent.
//!
//! Past its peak the daemon would take nearly everything out of the kernel, parse it and pack it,
//! only to drop it because there is no memory, with the processor time that the uploader needs. The
//! kernel drops at a fraction of the cost. So receivers stop once memory has been low for
//! [`LOW_TIME`], and go on once half of it is free. If memory is low again within [`AGAIN_TIME`],
//! they stop at once: segments still come faster than they are sent.
//!
//! This holds only while calls are answered and no spool works. Otherwise segments do not wait for
//! this host: in an outage and under throttling the oldest are dropped, since newer ones are worth
//! more there, and a spool that works takes all. While the concurrency limit still grows as at its
//! start, more calls may soon carry all, so that nothing begins.
//!
//! ```text
//!              low for 50 ms, or low within 1 s after shedding;
//!              and the limit does not grow as at its start
//!  ┌──────────────────┐ ───────────────────────────────────────────────► ┌──────────┐
//!  │ receivers look   │                                                  │ shedding │
//!  └──────────────────┘ ◄─────────────────────────────────────────────── └──────────┘
//!              half of the memory is free, calls are not answered, a spool works, the deadline
//! ```
//!
//! During the shutdown memory need not have been low for [`LOW_TIME`]: receivers that take what the
//! kernel holds wait at once while memory is low.
//!
//! In: the pool and the uploader, at each round of the sender. Out: the flag [`Shedding`]. Bound: a
//! look every [`LOOK_INTERVAL`] while memory is low or the flag is set. Thread: the sender's. No
//! I/O; the caller passes the time.

use super::shutdown::Deadline;
use crate::base::memory::ChunkPool;
use crate::pipeline::shedding::Shedding;
use crate::pipeline::upload::Uploader;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::debug;

/// Memory has to be low for this long, so that a burst is received whole.
const LOW_TIME: Duration = Duration::from_millis(50);

/// Memory still counts as low if looks find it otherwise for less than this time, and less than
/// half of it is free. Each eviction and each answer frees some chunks, which receivers take as
/// soon as they run. That may take a period of the quota of a cgroup, which is 100 ms by default.
/// With 10 ms, a receiver that had to wait for a busy processor was taken for a memory with room
/// again and again.
const GAP_MAX: Duration = Duration::from_millis(100);

/// If memory is low again within this time after shedding, shedding begins again at once: it is no
/// burst. Otherwise the sender would evict for [`LOW_TIME`] each time. Held to 20 % of a processor,
/// which is 20 ms in each 100 ms, the sender evicted a tenth of all segments in this way
/// (`perf/results/2026-11-30-real-load.md`, Intel Xeon).
const AGAIN_TIME: Duration = Duration::from_secs(1);

/// Time between two looks at the latest. Chosen, not measured.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// All that the decision depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// Whether memory is low, before the sender evicts.
    pub is_low: bool,
    /// Whether more than half of the memory is used.
    pub is_half_used: bool,
    /// Whether calls are answered, no spool works, and no deadline has passed.
    pub may_shed: bool,
    /// Whether the shutdown has begun. The kernel's queue then comes bit by bit, as memory has
    /// room, so that nothing that was accepted is dropped for it.
    pub is_draining: bool,
    /// Whether the concurrency limit may soon allow enough calls.
    pub is_searching: bool,
}

impl Facts {
    /// Returns the facts of a sender without a spool.
    pub(super) fn of(
        pool: &ChunkPool,
        uploader: &Uploader,
        deadline: Option<Deadline>,
        now: Instant,
    ) -> Self {
        let is_over = deadline.is_some_and(|deadline| deadline.for_uploads <= now);
        Self {
            is_low: pool.is_low(),
            is_half_used: pool.is_half_used(),
            may_shed: !is_over && uploader.is_answered(now),
            is_draining: deadline.is_some(),
            is_searching: uploader.is_searching(),
        }
    }
}

/// The decision, and the flag that tells it to receivers. Dropping it lets receivers go on.
#[derive(Debug, Default)]
pub(super) struct Shed {
    flag: Arc<Shedding>,
    /// Since when memory is low while nothing speaks against shedding.
    low_since: Option<Instant>,
    /// Whether memory was low since the last look.
    was_low: bool,
    /// Whether memory was low at the last look or since the one before.
    is_low: bool,
    /// Since when looks have found that memory is not low.
    roomy_since: Option<Instant>,
    begun_at: Option<Instant>,
    /// When shedding last ended because half of the memory was free. `None` if calls were not
    /// answered since.
    ended_at: Option<Instant>,
    /// Whether the last look found nothing that speaks against shedding.
    may_begin: bool,
    look_at: Option<Instant>,
}

impl Shed {
    /// Decides for the receivers that read `flag`.
    pub(super) fn new(flag: Arc<Shedding>) -> Self {
        Self { flag, ..Self::default() }
    }

    /// Returns whether receivers leave their sockets alone.
    pub(super) fn is_on(&self) -> bool {
        self.begun_at.is_some()
    }

    /// Returns when to look at the latest; `None` while memory is not low.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.look_at
    }

    /// Returns whether memory was low at the last look, or since the look before.
    pub(super) fn is_low(&self) -> bool {
        self.is_low
    }

    /// Notes that memory is low, between two looks. Within [`AGAIN_TIME`] after shedding, shedding
    /// begins again. Otherwise the sender evicts, so that the next look may find memory otherwise.
    pub(super) fn note_low(&mut self, now: Instant) {
        self.was_low = true;
        if !self.is_on() && self.may_begin && self.is_again(now) {
            self.begin(now);
        }
    }

    /// Decides anew.
    pub(super) fn look(&mut self, facts: Facts, now: Instant) {
        let was_low = std::mem::take(&mut self.was_low);
        let facts = Facts { is_low: facts.is_low || was_low, ..facts };
        self.is_low = facts.is_low;
        if !facts.may_shed {
            self.ended_at = None;
        }
        if let Some(begun_at) = self.begun_at {
            if !facts.may_shed || !facts.is_half_used {
                (self.begun_at, self.ended_at) = (None, facts.may_shed.then_some(now));
                self.flag.set(false);
                let time = now.saturating_duration_since(begun_at);
                debug!("Receivers look at their sockets again, after {time:?}");
            }
        } else if self.is_low_for_long(facts, now) && !facts.is_searching {
            self.begin(now);
        }
        self.may_begin = facts.may_shed && !facts.is_searching;
        let is_near = self.is_on() || self.low_since.is_some();
        self.look_at = is_near.then(|| now + LOOK_INTERVAL);
    }

    fn begin(&mut self, now: Instant) {
        (self.begun_at, self.look_at) = (Some(now), Some(now + LOOK_INTERVAL));
        self.flag.set(true);
        (self.low_since, self.roomy_since) = (None, None);
        debug!(
            "Receivers leave their sockets alone until half of the memory (-m) is free: segments \
             come faster than they are sent"
        );
    }

    /// Returns whether shedding has ended within [`AGAIN_TIME`].
    fn is_again(&self, now: Instant) -> bool {
        let time_since = |ended_at: Instant| now.saturating_duration_since(ended_at);
        self.ended_at.is_some_and(|ended_at| time_since(ended_at) < AGAIN_TIME)
    }

    /// Returns whether memory is low, and has been for [`LOW_TIME`] while nothing spoke against
    /// shedding. During the shutdown, and within [`AGAIN_TIME`], it need not have been low before.
    fn is_low_for_long(&mut self, facts: Facts, now: Instant) -> bool {
        let time_since = |since: Instant| now.saturating_duration_since(since);
        if facts.is_low && facts.may_shed {
            self.roomy_since = None;
            let low_time = time_since(*self.low_since.get_or_insert(now));
            return facts.is_draining || self.is_again(now) || low_time >= LOW_TIME;
        }
        let roomy_since = *self.roomy_since.get_or_insert(now);
        if time_since(roomy_since) >= GAP_MAX || !facts.is_half_used || !facts.may_shed {
            (self.low_since, self.roomy_since) = (None, None);
        }
        false
    }
}

impl Drop for Shed {
    fn drop(&mut self) {
        self.flag.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LOW: Facts = Facts {
        is_low: true,
        is_half_used: true,
        may_shed: true,
        is_draining: false,
        is_searching: false,
    };
    const ROOMY: Facts = Facts { is_low: false, ..LOW };
    const HALF: Facts = Facts { is_half_used: false, ..ROOMY };

    /// Looks once a millisecond for each entry of `phases`: facts, and for how many milliseconds.
    /// Returns whether receivers leave their sockets alone at the end of each phase.
    fn run(phases: &[(Facts, u32)]) -> Vec<bool> {
        let (flag, mut now) = (Arc::<Shedding>::default(), Instant::now());
        let mut shed = Shed::new(Arc::clone(&flag));
        let mut looks = |&(facts, count): &(Facts, u32)| {
            for _ in 0..count {
                shed.look(facts, now);
                now += MS;
            }
            assert_eq!(shed.is_on(), flag.is_on());
            flag.is_on()
        };
        phases.iter().map(&mut looks).collect()
    }

    #[test]
    fn receivers_stop_once_memory_was_low_for_50_ms_and_go_on_below_half_of_it() {
        let phases = [(LOW, 50), (LOW, 1), (ROOMY, 500), (LOW, 10), (HALF, 1)];
        assert_eq!(run(&phases), [false, true, true, true, false]);
    }

    #[test]
    fn receivers_stop_at_once_if_memory_is_low_again_within_a_second() {
        let phases = [(LOW, 51), (HALF, 1), (ROOMY, 998), (LOW, 1)];
        assert_eq!(run(&phases), [true, false, false, true]);
        let phases = [(LOW, 51), (HALF, 1), (ROOMY, 999), (LOW, 50), (LOW, 1)];
        assert_eq!(run(&phases), [true, false, false, false, true]);
        // The same between two looks.
        let mut shed = Shed::default();
        let now = Instant::now();
        shed.note_low(now);
        assert!(!shed.is_on(), "a first time");
        shed.look(LOW, now);
        shed.look(LOW, now + LOW_TIME);
        for (facts, late, expected) in [
            (HALF, MS, true),
            (HALF, AGAIN_TIME, false),
            (Facts { is_searching: true, ..HALF }, MS, false),
            (Facts { may_shed: false, ..HALF }, MS, false),
        ] {
            shed.begin(now);
            shed.look(facts, now);
            assert!(!shed.is_on());
            assert_eq!(shed.next_due(), None);
            shed.note_low(now + late);
            assert_eq!(shed.is_on(), expected, "{facts:?} {late:?}");
            assert_eq!(shed.next_due().is_some(), expected);
        }
    }

    #[test]
    fn a_moment_with_room_changes_nothing_and_a_while_with_room_begins_anew() {
        assert_eq!(run(&[(LOW, 10), (ROOMY, 30), (LOW, 11)]), [false, false, true]);
        assert_eq!(run(&[(LOW, 30), (ROOMY, 101), (LOW, 50)]), [false; 3]);
        assert_eq!(run(&[(LOW, 30), (HALF, 1), (LOW, 50)]), [false; 3]);
        // Room at the moment of the decision: memory is not low.
        assert_eq!(run(&[(LOW, 45), (ROOMY, 99), (LOW, 1)]), [false, false, true]);
    }

    #[test]
    fn a_memory_that_the_sender_keeps_from_being_low_by_evicting_is_low_all_the_same() {
        let mut shed = Shed::default();
        let mut now = Instant::now();
        for _ in 0..50 {
            shed.look(ROOMY, now);
            assert!(!shed.is_on());
            shed.note_low(now);
            now += MS;
        }
        now += MS;
        shed.look(ROOMY, now);
        assert!(shed.is_on());
    }

    #[test]
    fn late_looks_at_a_memory_that_is_low_each_time_see_it_low_all_the_time() {
        let mut shed = Shed::default();
        let mut now = Instant::now();
        for expected in [false, true] {
            shed.look(LOW, now);
            assert_eq!(shed.is_on(), expected);
            now += 80 * MS;
        }
    }

    #[test]
    fn nothing_begins_or_goes_on_while_the_oldest_must_give_way_or_more_calls_may_carry_all() {
        let refused = Facts { may_shed: false, ..LOW };
        assert_eq!(run(&[(refused, 500), (LOW, 50), (LOW, 1)]), [false, false, true]);
        assert_eq!(
            run(&[(LOW, 60), (refused, 1), (LOW, 50), (LOW, 1)]),
            [true, false, false, true]
        );
        let searching = Facts { is_searching: true, ..LOW };
        assert_eq!(run(&[(searching, 500), (LOW, 1), (searching, 500)]), [false, true, true]);
    }

    #[test]
    fn the_kernel_s_queue_waits_for_room_at_once_during_the_shutdown() {
        let draining = Facts { is_draining: true, ..LOW };
        let refused = Facts { may_shed: false, ..draining };
        assert_eq!(run(&[(draining, 1), (HALF, 1), (refused, 100)]), [true, false, false]);
    }

    #[test]
    fn a_sender_that_ends_lets_receivers_go_on() {
        let flag = Arc::<Shedding>::default();
        let mut shed = Shed::new(Arc::clone(&flag));
        let now = Instant::now();
        shed.look(LOW, now);
        assert_eq!(shed.next_due(), Some(now + LOOK_INTERVAL));
        shed.look(LOW, now + LOW_TIME);
        assert!(flag.is_on());
        drop(shed);
        assert!(!flag.is_on());
    }

    #[test]
    fn an_idle_sender_is_not_woken() {
        let mut shed = Shed::default();
        let now = Instant::now();
        shed.look(HALF, now);
        assert_eq!(shed.next_due(), None);
        shed.look(LOW, now);
        shed.look(ROOMY, now + MS);
        assert!(shed.next_due().is_some());
        shed.look(ROOMY, now + 101 * MS);
        assert_eq!(shed.next_due(), None);
    }
}
