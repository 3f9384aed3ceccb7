//! Handles panics of the daemon and of its libraries: prints them, counts them, and turns them into
//! errors.
//!
//! In: panics of any thread. Out: the panic hook ([`install`]) prints one line to standard error
//! and adds one to the counter of the thread. Code that runs work with [`catch`] or [`caught`] gets
//! a panic as an error, and decides what to do with the affected segments. The printed line
//! contains the version, the thread, the source file and line, and the account. It does not
//! contain the message of the panic, because the message can contain data such as a key.
//!
//! Bound: a line is cut at [`LINE_BYTES_MAX`]. When full: if standard error would block, the line
//! is dropped. Thread: the thread that panics.

use crate::base::account::Account;
use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::future::poll_fn;
use std::io;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::thread;
use std::time::Duration;
use tokio::sync::watch;
use tracing::error;

/// Longest line about a panic, in bytes. A write of up to `PIPE_BUF` (4096) bytes to a pipe is
/// atomic (`pipe`(7)), so the lines of two threads do not mix.
const LINE_BYTES_MAX: usize = 1024;

/// The threads of the daemon. Panics are counted for each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    /// The main thread, which serves signals, the TCP port, credentials and telemetry.
    Main,
    /// A receiver's thread.
    Receive,
    /// The sender's thread, which fills batches and uploads them.
    Upload,
    /// The spool's thread.
    Spool,
    /// The thread of the ports for OpenTelemetry's spans.
    Otlp,
    /// A thread that looks up host names.
    Resolve,
    /// The thread that writes the log.
    Log,
    /// A thread that is not in this list.
    Other,
}

impl Thread {
    /// All threads, in the order of the enum.
    pub const ALL: [Self; 8] = [
        Self::Main,
        Self::Receive,
        Self::Upload,
        Self::Spool,
        Self::Otlp,
        Self::Resolve,
        Self::Log,
        Self::Other,
    ];

    /// Returns the value of the label `thread` in the metrics. The name of the thread begins with
    /// this text, for example `receive-0`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Receive => "receive",
            Self::Upload => "upload",
            Self::Spool => "spool",
            Self::Otlp => "otlp",
            Self::Resolve => "resolve",
            Self::Log => "log",
            Self::Other => "other",
        }
    }

    fn named(name: Option<&str>) -> Self {
        let name = name.unwrap_or_default();
        let known = Self::ALL.into_iter().find(|thread| name.starts_with(thread.label()));
        known.unwrap_or(Self::Other)
    }
}

static COUNTS: [AtomicU64; Thread::ALL.len()] = [const { AtomicU64::new(0) }; Thread::ALL.len()];

/// The account. The panic hook prints its counts.
static ACCOUNT: OnceLock<Arc<Account>> = OnceLock::new();

thread_local! {
    /// Where the last panic of this thread happened, as `FILE:LINE`.
    static LAST_PLACE: RefCell<Option<String>> = const { RefCell::new(None) };

    /// Whether this thread runs the work of [`catch_refusal`].
    static IS_REFUSAL: Cell<bool> = const { Cell::new(false) };
}

/// Returns the number of panics on threads of the kind `thread` since [`install`].
pub fn count(thread: Thread) -> u64 {
    COUNTS[thread as usize].load(Ordering::Relaxed)
}

/// Shortens the path of a source file of a library. The result starts with the name and version of
/// the library; the folders of the build machine before that are removed.
fn short_path(file: &str) -> &str {
    let of_library = file.rsplit_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/'));
    of_library.map_or(file, |(_registry, file)| file)
}

/// The error that [`catch`] and [`caught`] return for a panic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a fault in the program (panic at {place}); please report it")]
pub struct Panicked {
    place: String,
}

impl Panicked {
    /// Returns the error for the last panic of the calling thread.
    fn last() -> Self {
        // The panic hook stores where the panic happened. If no hook is installed, this is unknown.
        let place = LAST_PLACE.with_borrow(Clone::clone);
        Self { place: place.unwrap_or_else(|| "an unknown place".to_owned()) }
    }
}

/// Installs the panic hook, which prints and counts every panic of the process.
pub fn install() {
    panic::set_hook(Box::new(hook));
}

/// Sets the account. The panic hook prints its counts. Only the first call has an effect.
pub fn set_account(account: Arc<Account>) {
    let _ = ACCOUNT.set(account);
}

fn hook(info: &PanicHookInfo<'_>) {
    if IS_REFUSAL.get() {
        return;
    }
    let thread = thread::current();
    COUNTS[Thread::named(thread.name()) as usize].fetch_add(1, Ordering::Relaxed);
    let place = info.location().map(|at| format!("{}:{}", short_path(at.file()), at.line()));
    let mut line = Line { bytes: [0; LINE_BYTES_MAX], length: 0 };
    let name = thread.name().unwrap_or("without a name");
    let written = write_line(&mut line, name, place.as_deref());
    if written.is_err() {
        // The line was too long and is cut. It must still end with a newline.
        line.bytes[LINE_BYTES_MAX - 1] = b'\n';
    }
    write_to_stderr(&line.bytes[..line.length]);
    LAST_PLACE.set(place);
}

/// Prints one line that says that the process aborts, with the account. It allocates nothing and
/// takes no lock, so that a signal handler may call it.
pub(super) fn report_abort(thread: &str) {
    let mut line = Line { bytes: [0; LINE_BYTES_MAX], length: 0 };
    let written = write!(line, "xrayd {}: aborted in thread {thread}", env!("CARGO_PKG_VERSION"));
    // The line is far shorter than its buffer.
    let _ = written.and_then(|()| write_counts(&mut line));
    write_to_stderr(&line.bytes[..line.length]);
}

fn write_line(line: &mut Line, thread: &str, place: Option<&str>) -> fmt::Result {
    write!(line, "xrayd {}: panic in thread {thread}", env!("CARGO_PKG_VERSION"))?;
    if let Some(place) = place {
        write!(line, " at {place}")?;
    }
    write_counts(line)
}

/// Writes the rest of a line: the account, if it is set, and the newline.
fn write_counts(line: &mut Line) -> fmt::Result {
    if let Some(account) = ACCOUNT.get() {
        write!(
            line,
            "; received={} replayed={} sent={} rejected={} dropped={} spooled={}",
            account.received.get(),
            account.replayed.get(),
            account.sent.get(),
            account.rejected_total(),
            account.dropped_total(),
            account.spooled.get()
        )?;
    }
    line.write_str("\n")
}

/// Writes `line` to standard error, but only if the write does not block. A reader of standard
/// error that has stopped reading must not stop the thread.
fn write_to_stderr(line: &[u8]) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let output = io::stderr();
    let mut descriptors = [PollFd::new(&output, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_ready = poll(&mut descriptors, Some(&at_once)).is_ok_and(|count| count > 0);
    if is_ready && descriptors[0].revents().contains(PollFlags::OUT) {
        let _ = rustix::io::write(&output, line);
    }
}

/// A line of text in a buffer of fixed size. Text that does not fit is cut off.
struct Line {
    bytes: [u8; LINE_BYTES_MAX],
    length: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.length..];
        let count = text.len().min(room.len());
        room[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        if count == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Runs `work` and returns its result. If `work` panics, the changes that it has made already are
/// not undone.
///
/// # Errors
///
/// Returns an error if `work` panics.
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    // `AssertUnwindSafe` is correct: the caller gets an error, and so it knows that `work` may have
    // changed only a part of its data.
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_payload| Panicked::last())
}

/// Runs `work` and returns its result. Returns `None` if `work` panics.
///
/// Use it for a library that panics if the system refuses a resource, such as a thread. This panic
/// is no fault in the program. So the panic hook does not print or count it.
pub fn catch_refusal<T>(work: impl FnOnce() -> T) -> Option<T> {
    IS_REFUSAL.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_REFUSAL.set(false);
    result.ok()
}

/// Awaits `work` and returns its result. If `work` panics, the future is dropped.
///
/// # Errors
///
/// Returns an error if `work` panics.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut work = pin!(work);
    poll_fn(|context| match catch(|| work.as_mut().poll(context)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(result)) => Poll::Ready(Ok(result)),
        Err(panicked) => Poll::Ready(Err(panicked)),
    })
    .await
}

/// Runs the future that `make` returns. If the future panics, logs the panic, waits for `pause`,
/// and calls `make` again. Ends when a future ends without a panic.
///
/// Use this for tasks that no other task waits for. `what` is the name of the work in the log.
pub async fn restarted<F: Future<Output = ()>>(
    what: &'static str,
    pause: Duration,
    mut make: impl FnMut() -> F,
) {
    while let Err(panicked) = caught(async { make().await }).await {
        error!("{what} met {panicked}. It is started again in {} s", pause.as_secs());
        tokio::time::sleep(pause).await;
    }
}

/// A signal: a thread that the daemon cannot work without has panicked, and the daemon must shut
/// down. Clones share the signal.
#[derive(Debug, Clone)]
pub struct Alarm(Arc<watch::Sender<Option<Fault>>>);

/// The panic of a thread that the daemon cannot work without.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the thread {thread} met {panicked}")]
pub struct Fault {
    /// Name of the thread that panicked.
    pub thread: String,
    /// The error that describes the panic.
    pub panicked: Panicked,
}

impl Default for Alarm {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Alarm {
    /// Raises the alarm for the calling thread. Only the first call has an effect.
    pub fn raise(&self, panicked: Panicked) {
        let thread = thread::current().name().unwrap_or_default().to_owned();
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(Fault { thread, panicked });
            is_first
        });
    }

    /// Returns the panic that raised the alarm. Returns `None` if the alarm has not been raised.
    pub fn fault(&self) -> Option<Fault> {
        self.0.borrow().clone()
    }

    /// Waits until the alarm is raised. Returns the panic that raised it.
    pub async fn raised(&self) -> Fault {
        let mut receiver = self.0.subscribe();
        let fault = receiver.wait_for(Option::is_some).await.ok().and_then(|it| it.clone());
        match fault {
            Some(fault) => fault,
            // Cannot happen: `self` holds the sending end.
            None => std::future::pending().await,
        }
    }
}

/// Panics, for tests, if the build has the feature `inject-panics` and the environment variable
/// `XRAY_PANICS` lists `point`. The variable contains how often each point panics, for example
/// `sender=1,upload_call=3`. In builds without the feature, this function does nothing.
#[inline(always)]
pub fn inject(point: &str) {
    #[cfg(feature = "inject-panics")]
    injected::at(point);
    #[cfg(not(feature = "inject-panics"))]
    let _ = point;
}

#[cfg(feature = "inject-panics")]
mod injected {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex, PoisonError};

    static LEFT: LazyLock<Mutex<HashMap<String, u32>>> = LazyLock::new(|| {
        let wanted = std::env::var("XRAY_PANICS").unwrap_or_default();
        let parts = wanted.split(',').filter_map(|part| part.split_once('='));
        let parts = parts.map(|(point, count)| (point.to_owned(), count.parse().expect("a count")));
        Mutex::new(parts.collect())
    });

    pub fn at(point: &str) {
        let is_due = {
            let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
            left.get_mut(point).is_some_and(|left| {
                let is_due = *left > 0;
                *left = left.saturating_sub(1);
                is_due
            })
        };
        if is_due {
            panic!("injected at {point}: secret-of-the-message");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_for_the_caller() {
        assert_eq!(catch(|| 7), Ok(7));
        assert!(catch(|| panic!("x")).is_err());
        let fault = catch(|| panic!("what was worked on")).unwrap_err();
        assert!(!fault.to_string().contains("worked on"), "{fault}");
    }

    #[tokio::test]
    async fn a_panic_of_a_future_becomes_an_error_at_any_poll() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let late = async {
            tokio::task::yield_now().await;
            panic!("x")
        };
        assert!(caught(late).await.is_err());
    }

    #[tokio::test]
    async fn the_first_alarm_counts_and_is_seen_by_early_and_late_waiters() {
        let alarm = Alarm::default();
        assert_eq!(alarm.fault(), None);
        let panicked = |place: &str| Panicked { place: place.to_owned() };
        let raise = async { alarm.raise(panicked("a:1")) };
        let (fault, ()) = tokio::join!(alarm.raised(), raise);
        assert_eq!(fault.panicked, panicked("a:1"));
        alarm.raise(panicked("b:2"));
        assert_eq!(alarm.raised().await, fault);
    }

    #[test]
    fn a_thread_is_known_by_the_start_of_its_name() {
        assert_eq!(Thread::named(Some("receive-12")), Thread::Receive);
        assert_eq!(Thread::named(Some("resolve-0")), Thread::Resolve);
        assert_eq!(Thread::named(Some("main")), Thread::Main);
        assert_eq!(Thread::named(Some("tests::x")), Thread::Other);
        assert_eq!(Thread::named(None), Thread::Other);
        for (index, thread) in Thread::ALL.into_iter().enumerate() {
            assert_eq!(thread as usize, index);
        }
    }

    #[test]
    fn the_line_names_a_library_without_the_folder_that_it_was_built_in() {
        let library =
            "/x/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/aws-x-1.2.3/src/a.rs";
        assert_eq!(short_path(library), "aws-x-1.2.3/src/a.rs");
        assert_eq!(short_path("src/sender/mod.rs"), "src/sender/mod.rs");
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let mut line = Line { bytes: [0; LINE_BYTES_MAX], length: 0 };
        assert_eq!(write_line(&mut line, "upload", Some("a.rs:1")), Ok(()));
        let text = String::from_utf8_lossy(&line.bytes[..line.length]).into_owned();
        assert!(text.starts_with("xrayd ") && text.contains("thread upload at a.rs:1"), "{text}");
        assert!(text.ends_with('\n'));
        let long = "x".repeat(LINE_BYTES_MAX);
        assert!(write_line(&mut line, &long, None).is_err());
        assert_eq!(line.length, LINE_BYTES_MAX);
    }
}
