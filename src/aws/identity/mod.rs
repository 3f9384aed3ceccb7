//! Who the daemon is: region (`region`) and credentials, found and refreshed beside the flow.
//!
//! In: the whole default chain of `aws-config` (environment, shared files, SSO,
//! `credential_process`, web identity, container credentials, instance metadata) and the
//! operator's role. Out: the newest credentials, and why there are none (`absence`), each in a
//! watch channel. Nothing waits for them: segments are accepted and kept while there are none.

mod absence;
mod caller;
mod calls;
mod region;
mod sources;

pub use caller::{Caller, CallerError, caller};
pub use calls::metadata_client;
pub use region::{RegionError, Sources};

use crate::aws::transport::Transport;
use crate::base::clock::Clock;
use crate::base::panics;
use aws_config::Region;
use aws_credential_types::Credentials;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

/// Credentials are renewed this long before they expire.
const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);

/// Pauses between tries while no source has credentials, from the first to the longest.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The newest credentials, and the wish for newer ones.
#[derive(Debug, Clone)]
pub struct Identity {
    credentials: watch::Receiver<Option<Credentials>>,
    absence: watch::Receiver<Option<String>>,
    renew: Arc<Notify>,
}

/// Where a new identity is put.
struct Findings {
    credentials: watch::Sender<Option<Credentials>>,
    absence: watch::Sender<Option<String>>,
}

impl Identity {
    /// Credentials that never change.
    pub fn fixed(credentials: Credentials) -> Self {
        // A receiver keeps the last value when its sender is gone.
        Self {
            credentials: watch::channel(Some(credentials)).1,
            absence: watch::channel(None).1,
            renew: Arc::default(),
        }
    }

    /// Starts to look for credentials on the current runtime, with `role_arn` on top if given.
    /// Sources beyond this host are asked over `transport`.
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

    /// The newest credentials; `None` while no source has any.
    pub fn credentials(&self) -> Option<Credentials> {
        self.credentials.borrow().clone()
    }

    /// Whether there are credentials.
    pub fn is_ready(&self) -> bool {
        self.credentials.borrow().is_some()
    }

    /// Asks for new credentials, since the service has said that these have expired.
    pub fn renew(&self) {
        self.renew.notify_one();
    }

    /// Waits until there are other credentials than before.
    pub async fn changed(&mut self) {
        if self.credentials.changed().await.is_err() {
            // Fixed credentials: there is nothing to wait for.
            std::future::pending().await
        }
    }

    /// Tells `listener` why there are no credentials, or `None` once there are some: now, and
    /// whenever that changes.
    pub async fn watch_absence(mut self, mut listener: impl FnMut(Option<&str>)) {
        loop {
            listener(self.absence.borrow_and_update().as_deref());
            if self.absence.changed().await.is_err() {
                return;
            }
        }
    }
}

/// The credentials that a daemon would sign with, asked for once.
///
/// # Errors
///
/// Says which sources were asked and why none has any.
pub async fn find_credentials(
    region: Region,
    role_arn: Option<String>,
    transport: &Transport,
) -> Result<Credentials, String> {
    sources::ask(region, role_arn, transport).await.map_err(|error| absence::full_reason(&error))
}

/// Keeps the channel filled, for as long as anybody listens.
async fn refresh(
    region: Region,
    role_arn: Option<String>,
    transport: &Transport,
    findings: &Findings,
    renew: &Notify,
) {
    let Findings { credentials: sender, absence: missing_reason } = findings;
    let mut pause = RETRY_PAUSE_MIN;
    while !sender.is_closed() {
        // The sources are made for each time: one keeps what it has read of the shared files, and
        // also that they were not there.
        let wait = match sources::ask(region.clone(), role_arn.clone(), transport).await {
            Ok(credentials) => {
                pause = RETRY_PAUSE_MIN;
                let wait = credentials.expiry().map(|expiry| renew_in(expiry, Clock::host_date()));
                if sender.borrow().is_none() {
                    info!("Credentials found");
                }
                // The same ones again are no reason to ask the service again.
                sender.send_if_modified(|present| {
                    let is_new = present.as_ref() != Some(&credentials);
                    *present = Some(credentials);
                    is_new
                });
                missing_reason.send_replace(None);
                wait
            }
            Err(error) => {
                warn!(
                    "No credentials: {} Trying again in {} s; segments are kept meanwhile",
                    absence::full_reason(&error),
                    pause.as_secs()
                );
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
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
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
        // However often the service says "expired", the sources are asked once a second at most.
        tokio::time::sleep(RETRY_PAUSE_MIN).await;
    }
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
