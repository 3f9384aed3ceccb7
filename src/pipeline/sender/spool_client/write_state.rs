//! Keeps track of whether an open spool can be written to.
//!
//! In: the results of jobs. Out: whether to write, and when to try again after a failure. Bound:
//! one pending batch in each pause. Thread: the sender's.
//!
//! ```text
//!             a write or an fsync fails            the pause is over
//!   Works ───────────────────────────────► Rests ─────────────────────► Unproven
//!     ▲                                      ▲                            │   │
//!     │                                      └── a write or fsync fails ──┘   │
//!     └───────────────── a write or a probe succeeds, and all is synced ──────┘
//! ```
//!
//! A failed probe alone leaves the state at `Unproven`: a smaller batch may still find room.

use super::super::spool_job::Done;
use std::time::Instant;

/// Whether an open spool can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteState {
    /// No write and no fsync has failed since the spool was last known to work.
    Works,
    /// A write or an fsync has failed. Nothing is written until the pause is over.
    Rests {
        /// The end of the pause.
        until: Instant,
        /// Whether an fsync has failed, and none has succeeded since.
        is_unsynced: bool,
    },
    /// The pause is over, and it is not known yet whether the spool can be written to.
    Unproven {
        /// When to probe; `None` if a probe was started.
        probe_at: Option<Instant>,
        /// Whether an fsync has failed, and none has succeeded since.
        is_unsynced: bool,
    },
}

impl WriteState {
    /// Returns whether batches may be written now.
    pub fn may_write(self) -> bool {
        !matches!(self, Self::Rests { .. })
    }

    /// Returns when [`starts_probe`](Self::starts_probe) has to be called.
    pub fn next_due(self) -> Option<Instant> {
        match self {
            Self::Works => None,
            Self::Rests { until, .. } => Some(until),
            Self::Unproven { probe_at, .. } => probe_at,
        }
    }

    /// Ends a pause that is over. Returns whether the next job has to probe the spool. The probe is
    /// needed because there may be no batch to write.
    pub fn starts_probe(&mut self, now: Instant) -> bool {
        let is_due = self.next_due().is_some_and(|at| at <= now);
        if is_due {
            *self = Self::Unproven { probe_at: None, is_unsynced: self.is_unsynced() };
        }
        is_due
    }

    /// Ends the pause at once. A probe is still due when the pause would have ended.
    pub fn end_pause(&mut self) {
        if let Self::Rests { until, is_unsynced } = *self {
            *self = Self::Unproven { probe_at: Some(until), is_unsynced };
        }
    }

    /// Takes note of a job that has written `written_count` pending batches. After a failure the
    /// spool is tried again at `again_at`. Returns whether the spool is known to work now.
    pub fn note(&mut self, done: &Done, written_count: usize, again_at: Instant) -> bool {
        let is_unsynced =
            if done.has_tried_to_sync { done.is_unsynced } else { self.is_unsynced() };
        let is_proven = done.has_probed || written_count > 0;
        let has_failed = done.failure.is_some();
        let works = !has_failed && is_proven && !is_unsynced;
        *self = match *self {
            _ if works => Self::Works,
            Self::Works if !has_failed => Self::Works,
            Self::Rests { until, .. } if !has_failed => Self::Rests { until, is_unsynced },
            Self::Unproven { probe_at, .. } if !has_failed => {
                Self::Unproven { probe_at, is_unsynced }
            }
            Self::Unproven { .. } if done.has_probed && !done.is_unsynced => {
                Self::Unproven { probe_at: Some(again_at), is_unsynced }
            }
            _ => Self::Rests { until: again_at, is_unsynced },
        };
        works
    }

    fn is_unsynced(self) -> bool {
        match self {
            Self::Works => false,
            Self::Rests { is_unsynced, .. } | Self::Unproven { is_unsynced, .. } => is_unsynced,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::spool::SpoolError;
    use std::io;
    use std::time::Duration;

    const PAUSE: Duration = Duration::from_secs(5);

    /// The result of a job without a failure.
    fn good() -> Done {
        Done::default()
    }

    fn failed() -> Done {
        let failure = SpoolError::Write(io::ErrorKind::StorageFull.into());
        Done { failure: Some(failure), ..Done::default() }
    }

    fn unsynced() -> Done {
        Done { has_tried_to_sync: true, is_unsynced: true, ..failed() }
    }

    fn synced() -> Done {
        Done { has_tried_to_sync: true, ..good() }
    }

    fn probed(done: Done) -> Done {
        Done { has_probed: true, ..done }
    }

    #[test]
    fn a_failed_write_stops_writing_until_the_pause_is_over_and_then_a_probe_is_due_once() {
        let (now, mut writing) = (Instant::now(), WriteState::Works);
        assert!(!writing.note(&good(), 0, now + PAUSE) && writing == WriteState::Works);
        assert!(!writing.note(&failed(), 1, now + PAUSE));
        assert_eq!((writing.may_write(), writing.next_due()), (false, Some(now + PAUSE)));
        assert!(!writing.starts_probe(now));
        assert!(writing.starts_probe(now + PAUSE));
        assert!(writing.may_write() && !writing.starts_probe(now + PAUSE));
        assert_eq!(writing.next_due(), None, "the result of the probe is an event");
        assert!(!writing.note(&good(), 0, now), "a job without a write or a probe proves nothing");
        assert_eq!(writing, WriteState::Unproven { probe_at: None, is_unsynced: false });
        assert!(writing.note(&probed(good()), 0, now) && writing == WriteState::Works);
    }

    #[test]
    fn after_a_failed_probe_batches_are_written_and_the_next_probe_is_due_after_a_pause() {
        let (now, mut writing) = (Instant::now(), WriteState::Works);
        writing.note(&failed(), 0, now);
        assert!(writing.starts_probe(now));
        assert!(!writing.note(&probed(failed()), 0, now + PAUSE));
        assert_eq!((writing.may_write(), writing.next_due()), (true, Some(now + PAUSE)));
        assert!(!writing.note(&failed(), 0, now + PAUSE) && !writing.may_write());
    }

    #[test]
    fn after_a_failed_sync_a_write_proves_nothing_before_a_sync_succeeds() {
        let (now, mut writing) = (Instant::now(), WriteState::Works);
        writing.note(&unsynced(), 1, now);
        writing.end_pause();
        assert!(writing.may_write() && !writing.note(&good(), 3, now));
        assert!(writing.starts_probe(now));
        assert!(!writing.note(&probed(unsynced()), 0, now + PAUSE) && !writing.may_write());
        assert!(!writing.note(&synced(), 0, now), "a sync does not prove that a write works");
        assert!(writing.note(&probed(good()), 0, now) && writing == WriteState::Works);
    }
}
