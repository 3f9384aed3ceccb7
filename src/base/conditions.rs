//! Holds the conditions that currently keep segments from being delivered.
//!
//! In: the begin and the end of conditions, from the pipeline and from the search for region and
//! credentials. Out: the active conditions, each with its age and its latest reason, for `/ready`
//! and the metrics. Bound: one entry for each [`Condition`]. Thread: any; a mutex protects them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A reason why segments do not reach the service, or may soon be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// The region is not known yet. So the address of the service is not known either.
    NoRegion,
    /// There are no credentials to sign requests with.
    NoCredentials,
    /// There are credentials, but no request can be signed with them.
    CannotSign,
    /// The last call to the service failed.
    UploadsFailing,
    /// Segments are dropped because the memory for segments is full.
    MemoryFull,
    /// The spool (the queue on disk) cannot be used.
    SpoolFailing,
    /// Segments are dropped because the spool is full.
    SpoolFull,
    /// X-Ray takes no spans, because Transaction Search is off.
    TransactionSearchOff,
}

impl Condition {
    /// All conditions, in the order of the enum.
    pub const ALL: [Self; 8] = [
        Self::NoRegion,
        Self::NoCredentials,
        Self::CannotSign,
        Self::UploadsFailing,
        Self::MemoryFull,
        Self::SpoolFailing,
        Self::SpoolFull,
        Self::TransactionSearchOff,
    ];

    /// Returns the name of the condition in `/ready` and in the metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoRegion => "no_region",
            Self::NoCredentials => "no_credentials",
            Self::CannotSign => "cannot_sign",
            Self::UploadsFailing => "uploads_failing",
            Self::MemoryFull => "memory_full",
            Self::SpoolFailing => "spool_failing",
            Self::SpoolFull => "spool_full",
            Self::TransactionSearchOff => "transaction_search_off",
        }
    }
}

/// A condition that has begun and has not ended yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveCondition {
    /// Which condition is active.
    pub condition: Condition,
    /// Time since the condition began.
    pub age: Duration,
    /// The latest reason for the condition, as a text for the operator.
    pub reason: String,
}

/// The active conditions of a daemon.
#[derive(Debug, Default)]
pub struct Conditions {
    active_since: Mutex<[Option<(Instant, String)>; Condition::ALL.len()]>,
}

impl Conditions {
    /// Marks `condition` as active. If it is active already, only its reason is replaced.
    pub fn begin(&self, condition: Condition, reason: impl Into<String>) {
        let mut active_since = self.lock();
        let (_, last) =
            active_since[condition as usize].get_or_insert((Instant::now(), String::new()));
        *last = reason.into();
    }

    /// Marks `condition` as not active.
    pub fn end(&self, condition: Condition) {
        self.lock()[condition as usize] = None;
    }

    /// Returns whether `condition` is active.
    pub fn has(&self, condition: Condition) -> bool {
        self.lock()[condition as usize].is_some()
    }

    /// Returns all active conditions.
    pub fn active(&self) -> Vec<ActiveCondition> {
        let active_since = self.lock();
        let active = |condition: Condition| {
            let (since, reason) = active_since[condition as usize].as_ref()?;
            Some(ActiveCondition { condition, age: since.elapsed(), reason: reason.clone() })
        };
        Condition::ALL.into_iter().filter_map(active).collect()
    }

    /// Returns why no request can be signed: there is no region, or there are no credentials.
    pub fn missing_reason(&self) -> String {
        let active_since = self.lock();
        let reason =
            |condition: Condition| Some(active_since[condition as usize].as_ref()?.1.clone());
        match (reason(Condition::NoRegion), reason(Condition::NoCredentials)) {
            (Some(reason), _) => format!("there is no region: {reason}"),
            (None, Some(reason)) => format!("there are no credentials: {reason}"),
            (None, None) => "there are no credentials".to_owned(),
        }
    }

    /// Locks the list of conditions. The list is also used after a panic of a thread that held the
    /// lock: an entry is always replaced as a whole, so the list is still valid.
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
    fn a_missing_region_is_named_before_missing_credentials() {
        let conditions = Conditions::default();
        assert_eq!(conditions.missing_reason(), "there are no credentials");
        conditions.begin(Condition::NoCredentials, "none");
        assert_eq!(conditions.missing_reason(), "there are no credentials: none");
        conditions.begin(Condition::NoRegion, "unknown");
        assert_eq!(conditions.missing_reason(), "there is no region: unknown");
    }

    #[test]
    fn conditions_index_their_own_entries() {
        for (index, condition) in Condition::ALL.into_iter().enumerate() {
            assert_eq!(condition as usize, index);
        }
    }
}
