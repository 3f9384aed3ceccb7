//! `xray tail`: follows the segments of a running daemon, as trees.
//!
//! In: the address of the daemon's TCP port; the daemon answers `/tail` if its configuration has
//! `Tail: true`. Out: a tree for each trace, printed when the trace has had no new document for
//! [`QUIET_TIME`]. Spans of OpenTelemetry, in the form of UDP exporters, are
//! drawn like segments. A document that is neither is printed as one line. Bound: [`LIMITS`]. When
//! full: traces are left out, and a line says how many documents were lost. Thread: main prints,
//! `tail` asks the daemon. Ends when the daemon ends or the reader closes the output.

use super::fail;
use crate::admin::local_client::{Bounds, get};
use crate::pipeline::tail::WAIT_TIME;
use http::StatusCode;
use serde::Deserialize;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};
use xrayd_sandbox::model::document::Document;
use xrayd_sandbox::model::span::{self, Content};
use xrayd_sandbox::model::store::{Limits, Moment, Snapshot, Store};
use xrayd_sandbox::model::tree::{self, Colours};
use xrayd_sandbox::model::{QUIET_TIME, text};

/// Limits of the traces that wait to be printed.
const LIMITS: Limits = Limits {
    trace_count_max: 10_000,
    size_bytes_max: 64 * 1024 * 1024,
    trace_document_count_max: 1_000,
    trace_size_bytes_max: 4 * 1024 * 1024,
};

/// The timeout of one request to the daemon, and the maximum size of its answer. The daemon answers
/// within [`WAIT_TIME`], with less than 8 MiB.
const BOUNDS: Bounds = Bounds { time: WAIT_TIME.saturating_mul(2), answer_bytes: 8 * 1024 * 1024 };

/// Maximum number of answers of the daemon that wait to be printed. Meanwhile the next answer is
/// requested.
const ANSWER_COUNT_MAX: usize = 2;

/// Maximum length of the excerpt that is printed of a document that is not a segment, in
/// characters.
const SHOWN_LENGTH_MAX: usize = 100;

/// Advice for a client that is not on the daemon's host.
const FOLLOW_ON_HOST: &str = ". Run `xray tail` where the daemon runs, and give its port with an \
                              address of loopback: -t 127.0.0.1:2000. In a container: docker exec, \
                              kubectl exec, or aws ecs execute-command";

/// Why `xray tail` could not start, or why it ended
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The daemon does not answer, or has ended
    #[error("no answer on TCP {address}: {source}. Give the daemon's address with -t or -c")]
    Unreachable {
        /// The address of the daemon's TCP port, as configured.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The daemon answers with an error, for example because its configuration lacks `Tail: true`
    #[error("{message}{}", if *is_forbidden { FOLLOW_ON_HOST } else { "" })]
    Refused {
        /// The message of the daemon.
        message: String,
        /// Whether the daemon refuses this client, and not all of them.
        is_forbidden: bool,
    },
    /// Another program listens on the daemon's TCP port
    #[error("the server on TCP {0} is not the X-Ray daemon")]
    Foreign(String),
    /// The system does not create the thread that asks the daemon
    #[error("the system does not create a thread: {0}. Raise the limit of threads")]
    Thread(#[source] io::Error),
}

#[derive(Deserialize)]
struct Answer {
    next: u64,
    lost: u64,
    batches: Vec<Batch>,
}

#[derive(Deserialize)]
struct Batch {
    #[serde(rename = "TraceSegmentDocuments")]
    documents: Vec<String>,
}

/// Follows the daemon that listens on `address` and prints on standard output.
pub(super) fn run(address: &str) -> ExitCode {
    let mut output = io::stdout();
    let colours = Colours::of_terminal(&output);
    match follow(address, &mut output, colours) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

/// Follows the daemon that listens on `address`, `HOST:PORT`. Returns when a write to `output`
/// fails.
///
/// # Errors
///
/// Fails if the daemon does not answer, ends, or refuses the request (no `Tail: true`).
pub fn follow(address: &str, output: &mut dyn Write, colours: Colours) -> Result<(), TailError> {
    let (sender, answers) = mpsc::sync_channel(ANSWER_COUNT_MAX);
    let of_daemon = address.to_owned();
    let asking = thread::Builder::new().name("tail".into()).spawn(move || {
        let mut after = None;
        loop {
            let answer = ask(&of_daemon, after);
            after = answer.as_ref().ok().map(|answer| answer.next);
            let is_last = answer.is_err();
            if sender.send(answer).is_err() || is_last {
                return;
            }
        }
    });
    asking.map_err(TailError::Thread)?;
    let store = Store::new(LIMITS, 1);
    let mut screen = Screen { output, colours, store, told_count: 0, has_told_metrics: false };
    let mut ended = Ok(());
    let mut is_following = false;
    loop {
        let next = screen.store.next_quiet(QUIET_TIME);
        let time = next.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        let shown = match answers.recv_timeout(time.min(WAIT_TIME)) {
            Ok(Ok(answer)) => {
                if !std::mem::replace(&mut is_following, true) {
                    // This line goes to standard error. `output` is for the traces only, and may be
                    // a file.
                    let _ = writeln!(io::stderr(), "Following the daemon on TCP {address}");
                }
                screen.take(answer)
            }
            Ok(Err(error)) => {
                ended = Err(error);
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                // A write error is ignored: the reader has closed the output.
                let _ = screen.draw_all();
                return ended;
            }
        };
        if shown.and_then(|()| screen.draw_quiet()).is_err() {
            return Ok(());
        }
    }
}

/// The output of `xray tail`, and the traces that wait to be printed.
struct Screen<'a> {
    output: &'a mut dyn Write,
    colours: Colours,
    store: Store,
    /// Number of evicted documents that lines in the output have reported so far.
    told_count: u64,
    /// Whether a line in the output has said that metrics are not shown.
    has_told_metrics: bool,
}

impl Screen<'_> {
    fn take(&mut self, answer: Answer) -> io::Result<()> {
        if answer.lost > 0 {
            writeln!(
                self.output,
                "... {} segments are not shown: they arrived too fast",
                answer.lost
            )?;
        }
        for text in answer.batches.iter().flat_map(|batch| &batch.documents) {
            let documents = match span::read_datagram(text) {
                Some(Ok(Content::Spans(spans))) => spans.documents,
                Some(Ok(Content::Metrics)) => {
                    self.tell_metrics()?;
                    continue;
                }
                Some(Err(_)) => Vec::new(),
                None => Document::read(text).into_iter().collect(),
            };
            if documents.is_empty() {
                let start = text::clean(text, SHOWN_LENGTH_MAX);
                writeln!(self.output, "not a segment, {} bytes: {start}", text.len())?;
            }
            for document in documents {
                self.store.insert(document, Moment::now());
            }
        }
        let evicted_count = self.store.status().evicted_document_count;
        if evicted_count > self.told_count {
            let count = evicted_count - self.told_count;
            writeln!(
                self.output,
                "... {count} segments are not shown: too many wait to be printed"
            )?;
            self.told_count = evicted_count;
        }
        Ok(())
    }

    fn tell_metrics(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.has_told_metrics, true) {
            writeln!(self.output, "... metrics of OpenTelemetry are not shown")?;
        }
        Ok(())
    }

    fn draw_quiet(&mut self) -> io::Result<()> {
        let traces = self.store.take_quiet(Instant::now(), QUIET_TIME, usize::MAX);
        self.draw(&traces)
    }

    fn draw_all(&mut self) -> io::Result<()> {
        let traces = self.store.take_all();
        self.draw(&traces)
    }

    fn draw(&mut self, traces: &[Snapshot]) -> io::Result<()> {
        for trace in traces {
            let tree = tree::render(&trace.id, &trace.documents, self.colours);
            writeln!(self.output, "{tree}\n")?;
        }
        self.output.flush()
    }
}

/// Asks the daemon once for new documents. `after` is the number `next` of the previous answer.
fn ask(address: &str, after: Option<u64>) -> Result<Answer, TailError> {
    let query = after.map(|after| format!("?after={after}")).unwrap_or_default();
    let foreign = || TailError::Foreign(address.to_owned());
    let page = get(address, &format!("/tail{query}"), BOUNDS).map_err(|source| {
        let address = address.to_owned();
        match source.kind() {
            io::ErrorKind::InvalidData => TailError::Foreign(address),
            _ => TailError::Unreachable { address, source },
        }
    })?;
    if page.status == 200 {
        return serde_json::from_slice(&page.body).map_err(|_| foreign());
    }
    let failure: serde_json::Value = serde_json::from_slice(&page.body).map_err(|_| foreign())?;
    let message = failure["message"].as_str().ok_or_else(foreign)?;
    let is_forbidden = page.status == StatusCode::FORBIDDEN;
    Err(TailError::Refused { message: text::clean(message, 500), is_forbidden })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Returns what a screen prints of the answers, if it may hold this number of traces.
    fn printed(trace_count_max: usize, answers: Vec<Answer>) -> String {
        let mut output = Vec::new();
        let store = Store::new(Limits { trace_count_max, ..LIMITS }, 1);
        let mut screen = Screen {
            output: &mut output,
            colours: Colours::Off,
            store,
            told_count: 0,
            has_told_metrics: false,
        };
        answers.into_iter().for_each(|answer| screen.take(answer).unwrap());
        screen.draw_all().unwrap();
        String::from_utf8(output).unwrap()
    }

    fn answer(lost: u64, documents: Vec<String>) -> Answer {
        Answer { next: 0, lost, batches: vec![Batch { documents }] }
    }

    /// Returns a segment of the trace with this number.
    fn segment(trace: u32) -> String {
        let trace_id = format!("1-6b0c71a6-{trace:024}");
        json!({"trace_id": trace_id, "id": "e3749ea6d7cb5d05", "name": "shop"}).to_string()
    }

    #[test]
    fn what_the_daemon_no_longer_holds_is_told_with_its_number() {
        let printed = printed(10, vec![answer(7, vec![segment(1)]), answer(0, vec![segment(2)])]);
        assert!(printed.starts_with("... 7 segments are not shown: they arrived too fast\n"));
        assert_eq!(printed.matches("not shown").count(), 1, "{printed}");
        assert_eq!(printed.matches("shop").count(), 2, "{printed}");
    }

    #[test]
    fn what_has_no_room_before_it_is_printed_is_told_with_its_number_and_once() {
        let full = answer(0, (1..=5).map(segment).collect());
        let printed = printed(2, vec![full, answer(0, Vec::new()), answer(0, vec![segment(6)])]);
        let told: Vec<&str> = printed.lines().filter(|line| line.starts_with("...")).collect();
        let told_of =
            |count| format!("... {count} segments are not shown: too many wait to be printed");
        assert_eq!(told, [told_of(3), told_of(1)]);
        assert_eq!(printed.matches("shop").count(), 2, "{printed}");
    }

    #[test]
    fn a_document_that_is_no_segment_is_a_line_with_its_start() {
        let long = format!("not JSON\n{}", "x".repeat(SHOWN_LENGTH_MAX));
        let printed = printed(2, vec![answer(0, vec![long.clone()])]);
        assert!(printed.starts_with(&format!("not a segment, {} bytes: not JSON", long.len())));
        assert_eq!(printed.lines().count(), 1, "{printed}");
        assert!(printed.ends_with("…\n"), "{printed}");
    }
}
