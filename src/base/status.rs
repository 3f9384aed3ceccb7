//! What keeps the daemon from delivering at the moment, for whoever asks.
//!
//! In: troubles that stages begin and end as they meet them, once a call or rarer. Out: those that
//! last, with their age and the last reason. Bound: one entry for each [`Trouble`]. Any thread.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A reason why segments do not arrive, or may soon be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
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

impl Trouble {
    /// Every trouble, in the order of their discriminants.
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

/// A trouble that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lasting {
    /// Which one.
    pub trouble: Trouble,
    /// For how long.
    pub age: Duration,
    /// What was said of it last.
    pub reason: String,
}

/// The troubles that last.
#[derive(Debug, Default)]
pub struct Status {
    begun: Mutex<[Option<(Instant, String)>; Trouble::ALL.len()]>,
}

impl Status {
    /// Notes a trouble, or what is new of one that lasts.
    pub fn begin(&self, trouble: Trouble, reason: impl Into<String>) {
        let mut begun = self.lock();
        let (_, last) = begun[trouble as usize].get_or_insert((Instant::now(), String::new()));
        *last = reason.into();
    }

    /// Notes that a trouble is over, if there was one.
    pub fn end(&self, trouble: Trouble) {
        self.lock()[trouble as usize] = None;
    }

    /// Whether a trouble lasts.
    pub fn has(&self, trouble: Trouble) -> bool {
        self.lock()[trouble as usize].is_some()
    }

    /// The troubles that last.
    pub fn lasting(&self) -> Vec<Lasting> {
        let begun = self.lock();
        let lasting = |trouble: Trouble| {
            let (since, reason) = begun[trouble as usize].as_ref()?;
            Some(Lasting { trouble, age: since.elapsed(), reason: reason.clone() })
        };
        Trouble::ALL.into_iter().filter_map(lasting).collect()
    }

    /// What is in it is right after a panic elsewhere too.
    fn lock(&self) -> MutexGuard<'_, [Option<(Instant, String)>; Trouble::ALL.len()]> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_lasts_from_its_begin_to_its_end_with_the_last_reason() {
        let status = Status::default();
        assert!(status.lasting().is_empty());
        status.begin(Trouble::UploadsFailing, "first");
        status.begin(Trouble::SpoolFull, "full");
        std::thread::sleep(Duration::from_millis(2));
        status.begin(Trouble::UploadsFailing, "second");
        let [uploads, spool] = &status.lasting()[..] else { panic!("{status:?}") };
        assert_eq!((uploads.trouble, &uploads.reason[..]), (Trouble::UploadsFailing, "second"));
        assert!(uploads.age >= Duration::from_millis(2) && spool.trouble == Trouble::SpoolFull);
        status.end(Trouble::UploadsFailing);
        status.end(Trouble::NoRegion);
        assert_eq!(status.lasting().len(), 1);
        assert!(status.has(Trouble::SpoolFull) && !status.has(Trouble::UploadsFailing));
    }

    #[test]
    fn troubles_index_their_own_entries() {
        for (index, trouble) in Trouble::ALL.into_iter().enumerate() {
            assert_eq!(trouble as usize, index);
        }
    }
}
