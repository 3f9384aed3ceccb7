//! The identity of the daemon: finds its region (`region`) and keeps its credentials fresh.
//!
//! In: the sources of credentials (environment, web identity, shared files, SSO,
//! `credential_process`, container credentials, instance metadata), and the role that the operator
//! configured. Out: two watch channels, one with the current credentials and one with the reason
//! why there are none (`absence`). Bound: at most one search for credentials a second, and one more
//! for each [`FILES_PAUSE`] in which a file has changed. Thread: main.
//!
//! While there are no credentials, the daemon still receives segments, and keeps them until it can
//! send them.

mod absence;
mod caller;
mod calls;
mod environment;
mod instance;
mod region;
mod report;
mod shared_files;
mod sources;

pub use caller::{Caller, CallerError, caller};
pub use instance::InstanceMetadata;
pub use region::{RegionError, Sources};
pub use sources::{Found, Reach, Source};

use crate::aws::transport::Transport;
use crate::base::clock::Clock;
use crate::base::files::Stamp;
use crate::base::outage::{Outage, PATIENCE};
use crate::base::panics;
use aws_config::Region;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use environment::{home, process, variable};
use shared_files::SharedFiles;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, watch};
use tracing::debug;

/// How long before their expiry credentials are renewed. Credentials that expire sooner are renewed
/// after half of the remaining time.
const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);

/// Pauses between attempts to find credentials: 1 s after the first failure, twice as long after
/// each further failure, and at most 30 s.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Pause between two looks at the files that may hold credentials, while there are none. A look is
/// one system call for each file.
const FILES_PAUSE: Duration = Duration::from_secs(1);

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
        Self::start_from(Search { region, role_arn, transport })
    }

    /// Starts a task on the current runtime that gets credentials from `source` and renews them.
    pub fn start_from(source: impl Source) -> Self {
        let (found, credentials) = watch::channel(None);
        let (missing_reason, absence) =
            watch::channel(Some("the sources are being asked".to_owned()));
        let findings = Arc::new(Findings { credentials: found, absence: missing_reason });
        let (renew, source) = (Arc::new(Notify::new()), Arc::new(source));
        let identity = Self { credentials, absence, renew: Arc::clone(&renew) };
        tokio::spawn(panics::restarted("The search for credentials", RETRY_PAUSE_MAX, move || {
            let (source, findings) = (Arc::clone(&source), Arc::clone(&findings));
            let renew = Arc::clone(&renew);
            async move { refresh(&*source, &findings, &renew).await }
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
) -> Result<Found, String> {
    let found = sources::ask(region, role_arn, transport, Reach::All).await;
    found.map_err(|error| absence::full_reason(&error))
}

/// Returns what is wrong with the shared AWS files, for `xray verify`: a text for each line that is
/// passed over, and for each file that cannot be read.
pub fn faults_of_shared_files() -> Vec<String> {
    SharedFiles::read(&process).remarks().to_vec()
}

/// The sources that the environment and the host have.
struct Search {
    region: Region,
    role_arn: Option<String>,
    transport: Transport,
}

impl Source for Search {
    // Each search builds new providers. A provider for profiles reads the shared files only once.
    async fn ask(&self, reach: Reach) -> Result<Found, CredentialsError> {
        sources::ask(self.region.clone(), self.role_arn.clone(), &self.transport, reach).await
    }

    fn files(&self) -> Vec<Stamp> {
        let token = variable(&process, "AWS_WEB_IDENTITY_TOKEN_FILE").map(PathBuf::from);
        // `aws sso login` writes a new file into this folder.
        let sso = home(&process).join(".aws/sso/cache");
        let paths = shared_files::paths(&process).into_iter().chain(token).chain([sso]);
        paths.map(|path| Stamp::of(&path)).collect()
    }

    fn host_date(&self) -> SystemTime {
        Clock::host_date()
    }
}

/// Finds and renews credentials until the last [`Identity`] is dropped.
async fn refresh(sources: &impl Source, findings: &Findings, renew: &Notify) {
    let Findings { credentials: sender, absence: missing_reason } = findings;
    let mut pause = RETRY_PAUSE_MIN;
    let mut outage = Outage::with_patience(PATIENCE);
    while !sender.is_closed() {
        if !outage.is_on() && !is_usable(sender.borrow().as_ref(), sources.host_date()) {
            outage.fail(Clock::instant(), "the sources have not answered yet.");
        }
        let files = sources.files();
        // Boxed, because the future of the AWS SDK is large, and is needed once an hour.
        let asking = Box::pin(sources.ask(Reach::All));
        let mut answer = report::while_running(&mut outage, asking).await;
        if let Err(error) = &answer {
            report::failed(
                error,
                pause,
                !is_usable(sender.borrow().as_ref(), sources.host_date()),
                &mut outage,
            );
            if sender.borrow().is_none() {
                missing_reason.send_replace(Some(absence::public_reason(error)));
            }
            let waiting = report::while_running(&mut outage, tokio::time::sleep(pause));
            tokio::select! {
                biased;
                () = sender.closed() => return,
                () = renew.notified() => {}
                found = found_in_files(sources, files) => answer = Ok(found),
                () = waiting => {}
            }
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
        if let Ok(found) = answer {
            pause = RETRY_PAUSE_MIN;
            let expiry = found.credentials.expiry();
            let wait = expiry.map(|expiry| renew_in(expiry, sources.host_date()));
            report::found(&found, sender.borrow().as_ref(), &mut outage);
            // Unchanged credentials do not wake the tasks that wait for new ones.
            sender.send_if_modified(|present| {
                let is_new = present.as_ref() != Some(&found.credentials);
                *present = Some(found.credentials);
                is_new
            });
            missing_reason.send_replace(None);
            report::renewal(sender.borrow().as_ref(), wait);
            tokio::select! {
                biased;
                () = sender.closed() => return,
                () = renew.notified() => {}
                () = sleep_if_some(wait) => {}
            }
        }
        // This pause limits the search for credentials to one a second, even if the service answers
        // "expired" more often.
        tokio::time::sleep(RETRY_PAUSE_MIN).await;
    }
}

/// Returns whether there are credentials that have not expired at `host_date`.
fn is_usable(credentials: Option<&Credentials>, host_date: SystemTime) -> bool {
    let is_valid = |expiry: SystemTime| expiry > host_date;
    credentials.is_some_and(|present| present.expiry().is_none_or(is_valid))
}

/// Waits until the files have credentials. The files are read only if one has changed since
/// `before`. The network is asked only as far as a profile of the files names a service.
async fn found_in_files(sources: &impl Source, mut before: Vec<Stamp>) -> Found {
    loop {
        tokio::time::sleep(FILES_PAUSE).await;
        let now = sources.files();
        if now != before {
            before = now;
            match Box::pin(sources.ask(Reach::Files)).await {
                Ok(found) => return found,
                Err(error) => {
                    debug!(
                        "The changed files have no credentials: {}",
                        absence::full_reason(&error)
                    );
                }
            }
        }
    }
}

/// Waits for `duration`, or for ever if there is none.
async fn sleep_if_some(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

fn renew_in(expiry: SystemTime, now: SystemTime) -> Duration {
    let left = expiry.duration_since(now).unwrap_or_default();
    left.checked_sub(RENEW_BEFORE_EXPIRY).unwrap_or(left / 2).max(RETRY_PAUSE_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::transport::Resolver;
    use std::sync::Mutex;
    use tokio::time::Instant;

    /// Sources without credentials until their file changes, and the searches that they have seen.
    #[derive(Default)]
    struct Late {
        folder: Option<tempfile::TempDir>,
        searches: Mutex<Vec<(Reach, Instant)>>,
    }

    impl Late {
        fn file(&self) -> PathBuf {
            self.folder.as_ref().unwrap().path().join("credentials")
        }
    }

    impl Source for Late {
        async fn ask(&self, reach: Reach) -> Result<Found, CredentialsError> {
            self.searches.lock().unwrap().push((reach, Instant::now()));
            if std::fs::read_to_string(self.file()).is_ok_and(|text| text == "whole") {
                let credentials = Credentials::new("AKID", "secret", None, None, "test");
                return Ok(Found { credentials, source: "test".into() });
            }
            Err(CredentialsError::not_loaded("none"))
        }

        fn files(&self) -> Vec<Stamp> {
            vec![Stamp::of(&self.file())]
        }

        fn host_date(&self) -> SystemTime {
            SystemTime::now()
        }
    }

    #[test]
    fn the_task_that_waits_for_the_expiry_has_no_memory_for_calls_of_the_sdk() {
        let region = Region::from_static("us-east-1");
        let transport = Transport::local(Resolver::start().unwrap());
        let search = Search { region, role_arn: None, transport };
        let asking_bytes = size_of_val(&search.ask(Reach::All));
        let findings =
            Findings { credentials: watch::channel(None).0, absence: watch::channel(None).0 };
        let waiting_bytes = size_of_val(&refresh(&search, &findings, &Notify::new()));
        assert!(waiting_bytes < 2_000, "{waiting_bytes} bytes, and {asking_bytes} for the call");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_changes_is_read_within_2_s_and_nothing_else_is_asked_more_often() {
        let late = Late { folder: Some(tempfile::tempdir().unwrap()), ..Late::default() };
        let (credentials, mut found) = watch::channel(None);
        let findings = Findings { credentials, absence: watch::channel(None).0 };
        let renew = Notify::new();
        let count = |reach| {
            let searches = late.searches.lock().unwrap();
            searches.iter().filter(|(asked, _)| *asked == reach).count()
        };
        let operator = async {
            // The pauses have grown to 30 s by now.
            tokio::time::sleep(Duration::from_secs(101)).await;
            let before = count(Reach::All);
            assert_eq!(count(Reach::Files), 0);
            std::fs::write(late.file(), "half").unwrap();
            tokio::time::sleep(Duration::from_millis(1500)).await;
            assert_eq!(count(Reach::Files), 1);
            let written = Instant::now();
            std::fs::write(late.file(), "whole").unwrap();
            found.changed().await.unwrap();
            assert!(Instant::now() - written < Duration::from_secs(2));
            assert_eq!(count(Reach::All), before);
        };
        tokio::select! {
            () = operator => {}
            () = refresh(&late, &findings, &renew) => unreachable!("it runs as long as it is read"),
        }
    }

    #[test]
    fn credentials_are_renewed_well_before_they_expire() {
        let now = SystemTime::now();
        let seconds = Duration::from_secs;
        assert_eq!(renew_in(now + seconds(3600), now), seconds(3300));
        assert_eq!(renew_in(now + seconds(200), now), seconds(100));
        assert_eq!(renew_in(now - seconds(10), now), RETRY_PAUSE_MIN);
    }
}
