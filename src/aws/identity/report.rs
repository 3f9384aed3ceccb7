//! Logs what becomes of the search for credentials.
//!
//! In: credentials that were found, errors of the search, and an [`Outage`]. Out: log lines: a
//! warning for each failed search, an error once there have been no credentials for some seconds,
//! then one a minute, and at level debug the source of credentials and their expiry. Thread: main.
//!
//! No line has a secret. Of an access key id, at most its last four characters are shown.

use super::absence;
use super::sources::Found;
use crate::base::clock::Clock;
use crate::base::log::LogLimit;
use crate::base::outage::{Lasting, Outage};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use std::future::pending;
use std::pin::pin;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::{Level, debug, error, info, warn};

static UNREADABLE: LogLimit = LogLimit::once_a_minute();

/// Runs `work`. Meanwhile logs an error each time that `outage` has to be logged.
pub async fn while_running<T>(outage: &mut Outage, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        let next_due = outage.next_due();
        let due = async {
            match next_due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            result = &mut work => return result,
            () = due => say(outage),
        }
    }
}

fn say(outage: &mut Outage) {
    if let Some(Lasting { duration, reason }) = outage.due(Clock::instant()) {
        let seconds = duration.as_secs();
        error!(
            seconds,
            "No credentials for {seconds} s: {reason} Nothing is delivered until there are some; \
             segments are kept meanwhile"
        );
    }
}

/// Logs that a search failed. The next search begins after `pause`. If `is_outage`, there are no
/// credentials to sign with, and `outage` goes on.
///
/// An answer that cannot be read is an error at once, because a retry does not repair it.
pub fn failed(error: &CredentialsError, pause: Duration, is_outage: bool, outage: &mut Outage) {
    let (reason, pause) = (absence::full_reason(error), pause.as_secs());
    let now = Clock::instant();
    if is_outage {
        outage.fail(now, reason.clone());
    }
    if absence::is_unreadable(error) {
        if outage.is_on() {
            outage.said(now);
        }
        UNREADABLE.log(|more| {
            error!(
                "No credentials: {reason} Trying again in {pause} s; segments are kept \
                 meanwhile{more}"
            );
        });
    } else {
        warn!("No credentials: {reason} Trying again in {pause} s; segments are kept meanwhile");
    }
}

/// Logs that credentials were found, if there were none, and ends `outage`. At level debug, also
/// logs when the credentials expire. Logs nothing if they are the same as `present`.
pub fn found(found: &Found, present: Option<&Credentials>, outage: &mut Outage) {
    let Found { credentials, source } = found;
    match outage.end(Clock::instant()) {
        Some(duration) => {
            let seconds = duration.as_secs();
            info!(seconds, source, "Credentials found, after {seconds} s without any: {source}");
        }
        None if present.is_none() => info!(source, "Credentials found: {source}"),
        None => {}
    }
    if !tracing::enabled!(Level::DEBUG) || present == Some(credentials) {
        return;
    }
    let key = key_end(credentials.access_key_id());
    match credentials.expiry() {
        Some(expiry) => {
            let expiry = date(expiry);
            debug!(
                source,
                expiry,
                "The credentials are from {source}; the access key id ends in {key:?}; they \
                 expire at {expiry}"
            );
        }
        None => debug!(
            source,
            "The credentials are from {source}; the access key id ends in {key:?}; they do not \
             expire"
        ),
    }
}

/// Logs, at level debug, that credentials are renewed in `wait`, or that they have expired.
pub fn renewal(credentials: Option<&Credentials>, wait: Option<Duration>) {
    let expiry = credentials.and_then(Credentials::expiry);
    let (Some(expiry), Some(wait)) = (expiry, wait) else { return };
    match expiry.duration_since(Clock::host_date()) {
        Ok(left) => debug!(
            "The credentials expire in {} s; they are renewed in {} s",
            left.as_secs(),
            wait.as_secs()
        ),
        Err(_) => debug!("The credentials have expired; they are renewed in {} s", wait.as_secs()),
    }
}

/// Returns the last four characters of an access key id. Returns none of a short one, which the
/// four characters would give away.
fn key_end(key: &str) -> &str {
    let start = key.char_indices().rev().nth(3).map_or(0, |(index, _)| index);
    if key.chars().count() < 8 { "" } else { &key[start..] }
}

fn date(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::outage::PATIENCE;

    #[test]
    fn the_key_is_not_given_away() {
        for (key, end) in [("AKIDEXAMPLE", "MPLE"), ("AKID", ""), ("", ""), ("ééééééé1", "ééé1")]
        {
            assert_eq!(key_end(key), end);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_said_while_a_source_hangs_and_while_the_search_pauses() {
        let mut outage = Outage::with_patience(PATIENCE);
        let start = Clock::instant();
        outage.fail(start, "none");
        // The task of the runtime reaches each due time, although the work never ends.
        let work = while_running(&mut outage, pending::<()>());
        let hung = tokio::time::timeout(Duration::from_secs(130), work).await;
        assert!(hung.is_err());
        assert_eq!(outage.next_due(), Some(start + Duration::from_secs(183)));
        assert_eq!(while_running(&mut outage, async { 7 }).await, 7);
    }
}
