//! What keeps the daemon from delivering at the moment, for whoever asks.
//!
//! In: conditions that stages begin and end as they meet them, once a call or rarer. Out: those
//! that last, with their age and the last reason. Bound: one entry for each [`Condition`]. Any
//! thread.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A reason why segments do not arrive, or may soon be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The region, and so the service's address, is not known yet.
    NoRegion,
    /// There is nobody to sign as.
    NoCredentials,
    /// The last call for uploading failed.
    UploadsFailing,
    /// Segments are given up since memory is full.
    MemoryFull,
    /// The spool cannot be used.
    SpoolFailing,
    /// Segments are given up since the spool is full.
    SpoolFull,
}

impl Condition {
    /// Every condition, in the order of their discriminants.
    pub const ALL: [Self; 6] = [
        Self::NoRegion,
        Self::NoCredentials,
        Self::UploadsFailing,
        Self::MemoryFull,
        Self::SpoolFailing,
        Self::SpoolFull,
    ];

    /// Its name for machines.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoRegion => "no_region",
            Self::NoCredentials => "no_credentials",
            Self::UploadsFailing => "uploads_failing",
            Self::MemoryFull => "memory_full",
            Self::SpoolFailing => "spool_failing",
            Self::SpoolFull => "spool_full",
        }
    }
}

/// A condition that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveCondition {
    /// Which one.
    pub condition: Condition,
    /// For how long.
    pub age: Duration,
    /// What was said of it last.
    pub reason: String,
}

/// The conditions that last.
#[derive(Debug, Default)]
pub struct Conditions {
    active_since: Mutex<[Option<(Instant, String)>; Condition::ALL.len()]>,
}

impl Conditions {
    /// Notes a condition, or what is new of one that lasts.
    pub fn begin(&self, condition: Condition, reason: impl Into<String>) {
        let mut active_since = self.lock();
        let (_, last) =
            active_since[condition as usize].get_or_insert((Instant::now(), String::new()));
        *last = reason.into();
    }

    /// Notes that a condition is over, if there was one.
    pub fn end(&self, condition: Condition) {
        self.lock()[condition as usize] = None;
    }

    /// Whether a condition lasts.
    pub fn has(&self, condition: Condition) -> bool {
        self.lock()[condition as usize].is_some()
    }

    /// The conditions that last.
    pub fn active(&self) -> Vec<ActiveCondition> {
        let active_since = self.lock();
        let active = |condition: Condition| {
            let (since, reason) = active_since[condition as usize].as_ref()?;
            Some(ActiveCondition { condition, age: since.elapsed(), reason: reason.clone() })
        };
        Condition::ALL.into_iter().filter_map(active).collect()
    }

    /// What is in it is right after a panic elsewhere too.
    fn lock(&self) -> MutexGuard<'_, [Option<(Instant, String)>; Condition::ALL.len()]> {
        self.active_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_lasts_from_its_begin_to_its_end_with_the_last_reason() {
        let conditions = Conditions::default();
        assert!(conditions.active().is_empty());
        conditions.begin(Condition::UploadsFailing, "first");
        conditions.begin(Condition::SpoolFull, "full");
        std::thread::sleep(Duration::from_millis(2));
        conditions.begin(Condition::UploadsFailing, "second");
        let [uploads, spool] = &conditions.active()[..] else { panic!("{conditions:?}") };
        assert_eq!((uploads.condition, &uploads.reason[..]), (Condition::UploadsFailing, "second"));
        assert!(uploads.age >= Duration::from_millis(2) && spool.condition == Condition::SpoolFull);
        conditions.end(Condition::UploadsFailing);
        conditions.end(Condition::NoRegion);
        assert_eq!(conditions.active().len(), 1);
        assert!(conditions.has(Condition::SpoolFull) && !conditions.has(Condition::UploadsFailing));
    }

    #[test]
    fn conditions_index_their_own_entries() {
        for (index, condition) in Condition::ALL.into_iter().enumerate() {
            assert_eq!(condition as usize, index);
        }
    }
}
