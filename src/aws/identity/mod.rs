//! The identity of the daemon: finds its region (`region`) and keeps its credentials fresh.
//!
//! In: the default credential chain of `aws-config` (environment, shared files, SSO,
//! `credential_process`, web identity, container credentials, instance metadata), and the role that
//! the operator configured. Out: two watch channels, one with the current credentials and one with
//! the reason why there are none (`absence`). Bound: at most one search for credentials a second.
//! Thread: main.
//!
//! While there are no credentials, the daemon still receives segments, and keeps them until it can
//! send them.

mod absence;
mod caller;
mod calls;
mod region;
mod report;
mod sources;

pub use caller::{Caller, CallerError, caller};
pub use calls::metadata_client;
pub use region::{RegionError, Sources};

use crate::aws::transport::Transport;
use crate::base::clock::Clock;
use crate::base::outage::{Outage, PATIENCE};
use crate::base::panics;
use aws_config::Region;
use aws_credential_types::Credentials;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};
use tracing::info;

/// How long before their expiry credentials are renewed. Credentials that expire sooner are renewed
/// after half of the remaining time.
const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);

/// Pauses between attempts to find credentials: 1 s after the first failure, twice as long after
/// each further failure, and at most 30 s.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The current credentials. A background task renews them. Clones share the same credentials.
#[derive(Debug, Clone)]
pub struct Identity {
    credentials: watch::Receiver<Option<Credentials>>,
    absence: watch::Receiver<Option<String>>,
    renew: Arc<Notify>,
}

/// The senders of the two watch channels that an [`Identity`] reads.
struct Findings {
    credentials: watch::Sender<Option<Credentials>>,
    absence: watch::Sender<Option<String>>,
}

impl Identity {
    /// Returns an identity with credentials that never change.
    pub fn fixed(credentials: Credentials) -> Self {
        // A watch receiver keeps the last value after its sender is dropped.
        Self {
            credentials: watch::channel(Some(credentials)).1,
            absence: watch::channel(None).1,
            renew: Arc::default(),
        }
    }

    /// Starts a task on the current runtime that finds credentials and renews them. If `role_arn`
    /// is given, the task assumes this role with the credentials that it finds. Services outside of
    /// this host are called over `transport`.
    pub fn start(region: Region, role_arn: Option<String>, transport: Transport) -> Self {
        let (found, credentials) = watch::channel(None);
        let (missing_reason, absence) =
            watch::channel(Some("the sources are being asked".to_owned()));
        let findings = Arc::new(Findings { credentials: found, absence: missing_reason });
        let renew = Arc::new(Notify::new());
        let identity = Self { credentials, absence, renew: Arc::clone(&renew) };
        tokio::spawn(panics::restarted("The search for credentials", RETRY_PAUSE_MAX, move || {
            let (region, role_arn, transport) =
                (region.clone(), role_arn.clone(), transport.clone());
            let (findings, renew) = (Arc::clone(&findings), Arc::clone(&renew));
            async move { refresh(region, role_arn, &transport, &findings, &renew).await }
        }));
        identity
    }

    /// Returns the current credentials. Returns `None` until the first credentials are found.
    pub fn credentials(&self) -> Option<Credentials> {
        self.credentials.borrow().clone()
    }

    /// Returns whether there are credentials.
    pub fn is_ready(&self) -> bool {
        self.credentials.borrow().is_some()
    }

    /// Requests new credentials, for example after the service answered that they have expired.
    pub fn renew(&self) {
        self.renew.notify_one();
    }

    /// Waits until the credentials change.
    pub async fn changed(&mut self) {
        if self.credentials.changed().await.is_err() {
            // Fixed credentials never change.
            std::future::pending().await
        }
    }

    /// Calls `listener` now, and again each time the reason changes. The argument is the reason why
    /// there are no credentials, or `None` if there are credentials.
    pub async fn watch_absence(mut self, mut listener: impl FnMut(Option<&str>)) {
        loop {
            listener(self.absence.borrow_and_update().as_deref());
            if self.absence.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Finds credentials once, in the same way as [`Identity::start`], for `xray verify`.
///
/// # Errors
///
/// Returns a text that names the sources and says why each of them has no credentials.
pub async fn find_credentials(
    region: Region,
    role_arn: Option<String>,
    transport: &Transport,
) -> Result<Credentials, String> {
    sources::ask(region, role_arn, transport).await.map_err(|error| absence::full_reason(&error))
}

/// Finds and renews credentials until the last [`Identity`] is dropped.
async fn refresh(
    region: Region,
    role_arn: Option<String>,
    transport: &Transport,
    findings: &Findings,
    renew: &Notify,
) {
    let Findings { credentials: sender, absence: missing_reason } = findings;
    let mut pause = RETRY_PAUSE_MIN;
    let mut outage = Outage::with_patience(PATIENCE);
    while !sender.is_closed() {
        if !outage.is_on() && !is_usable(sender.borrow().as_ref()) {
            outage.fail(Clock::instant(), "the sources have not answered yet.");
        }
        // The credential chain is built anew for each attempt. Otherwise its profile provider would
        // not see shared files that were created or changed since the first attempt.
        let asked = sources::ask(region.clone(), role_arn.clone(), transport);
        let wait = match report::while_running(&mut outage, asked).await {
            Ok(credentials) => {
                pause = RETRY_PAUSE_MIN;
                let wait = credentials.expiry().map(|expiry| renew_in(expiry, Clock::host_date()));
                let is_first = sender.borrow().is_none();
                match outage.end(Clock::instant()) {
                    Some(duration) => {
                        let seconds = duration.as_secs();
                        info!(seconds, "Credentials found, after {seconds} s without any");
                    }
                    None if is_first => info!("Credentials found"),
                    None => {}
                }
                report::found(&credentials, sender.borrow().as_ref());
                // Unchanged credentials do not wake the tasks that wait for new ones.
                sender.send_if_modified(|present| {
                    let is_new = present.as_ref() != Some(&credentials);
                    *present = Some(credentials);
                    is_new
                });
                missing_reason.send_replace(None);
                wait
            }
            Err(error) => {
                report::failed(&error, pause, !is_usable(sender.borrow().as_ref()), &mut outage);
                if sender.borrow().is_none() {
                    missing_reason.send_replace(Some(absence::public_reason(&error)));
                }
                let wait = pause;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
                Some(wait)
            }
        };
        match wait {
            Some(wait) => {
                report::renewal(sender.borrow().as_ref(), wait);
                let waiting = report::while_running(&mut outage, tokio::time::sleep(wait));
                tokio::select! {
                    () = waiting => {}
                    () = renew.notified() => {}
                    () = sender.closed() => return,
                }
            }
            None => {
                tokio::select! {
                    () = renew.notified() => {}
                    () = sender.closed() => return,
                }
            }
        }
        // This pause limits the search for credentials to one a second, even if the service answers
        // "expired" more often.
        report::while_running(&mut outage, tokio::time::sleep(RETRY_PAUSE_MIN)).await;
    }
}

/// Returns whether there are credentials that have not expired.
fn is_usable(credentials: Option<&Credentials>) -> bool {
    let is_valid = |expiry: SystemTime| expiry > Clock::host_date();
    credentials.is_some_and(|present| present.expiry().is_none_or(is_valid))
}

fn renew_in(expiry: SystemTime, now: SystemTime) -> Duration {
    let left = expiry.duration_since(now).unwrap_or_default();
    left.checked_sub(RENEW_BEFORE_EXPIRY).unwrap_or(left / 2).max(RETRY_PAUSE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_renewed_well_before_they_expire() {
        let now = SystemTime::now();
        let seconds = Duration::from_secs;
        assert_eq!(renew_in(now + seconds(3600), now), seconds(3300));
        assert_eq!(renew_in(now + seconds(200), now), seconds(100));
        assert_eq!(renew_in(now - seconds(10), now), RETRY_PAUSE_MIN);
    }
}
