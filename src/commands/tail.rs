//! `xray tail`: follows the segments of a running daemon, as trees.
//!
//! In: the address of its TCP port, which says what comes on `/tail` where the configuration has
//! `Tail: true`. Out: each trace as a tree once nothing has come for it in a while, what is no
//! segment as a line, and how much was lost where this was too slow. Bound: [`LIMITS`]. A process
//! of its own; ends with the daemon, or with whoever reads its output.

use super::fail;
use crate::admin::local_client::{Bounds, get};
use crate::pipeline::tail::WAIT_TIME;
use serde::Deserialize;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};
use xrayd_sandbox::model::document::Document;
use xrayd_sandbox::model::store::{Limits, Moment, Store};
use xrayd_sandbox::model::{QUIET_TIME, text, tree};

/// What waits to be drawn.
const LIMITS: Limits = Limits {
    trace_count_max: 10_000,
    size_bytes_max: 64 * 1024 * 1024,
    trace_document_count_max: 1_000,
    trace_size_bytes_max: 4 * 1024 * 1024,
};

/// An answer takes [`WAIT_TIME`], and a larger one is not the daemon's.
const BOUNDS: Bounds = Bounds { time: WAIT_TIME.saturating_mul(2), answer_bytes: 8 * 1024 * 1024 };

/// Answers that wait to be drawn, so that one is fetched while others are.
const ANSWER_COUNT_MAX: usize = 2;

/// A part of a line that shows what is no segment, in characters.
const SHOWN_LENGTH_MAX: usize = 100;

/// Why there is nothing to follow, or no longer
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// Nobody listens, or it has ended
    #[error("no answer on TCP {address}: {source}. Give the daemon's address with -t or -c")]
    Unreachable {
        /// As configured.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The daemon does not let anybody follow it
    #[error("{0}")]
    Refused(String),
    /// Something else has the port
    #[error("what answers on TCP {0} is not the X-Ray daemon")]
    Foreign(String),
    /// The system makes no thread to ask the daemon on
    #[error("the system refuses a thread to follow the daemon on: {0}. Raise its limit of threads")]
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
    match follow(address, &mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

/// Follows the daemon that listens on `address`, `HOST:PORT`, until nobody reads `output`.
///
/// # Errors
///
/// When the daemon is not there, or no longer, or does not let itself be followed.
pub fn follow(address: &str, output: &mut dyn Write) -> Result<(), TailError> {
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
    let mut screen = Screen { output, store: Store::new(LIMITS, 1), told_count: 0 };
    let mut ended = Ok(());
    let mut is_following = false;
    loop {
        let next = screen.store.next_quiet(QUIET_TIME);
        let time = next.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        let shown = match answers.recv_timeout(time.min(WAIT_TIME)) {
            Ok(Ok(answer)) => {
                if !std::mem::replace(&mut is_following, true) {
                    // Beside the traces, which may go into a file.
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
                // When nobody reads the rest there is nobody to tell.
                let _ = screen.draw_all();
                return ended;
            }
        };
        if shown.and_then(|()| screen.draw_quiet()).is_err() {
            return Ok(());
        }
    }
}

/// What is shown, and what waits for it.
struct Screen<'a> {
    output: &'a mut dyn Write,
    store: Store,
    told_count: u64,
}

impl Screen<'_> {
    fn take(&mut self, answer: Answer) -> io::Result<()> {
        if answer.lost > 0 {
            writeln!(self.output, "... {} segments came too fast to be shown", answer.lost)?;
        }
        for text in answer.batches.iter().flat_map(|batch| &batch.documents) {
            match Document::read(text) {
                Some(document) => self.store.insert(document, Moment::now()),
                None => {
                    let start = text::clean(text, SHOWN_LENGTH_MAX);
                    writeln!(self.output, "no segment, {} bytes: {start}", text.len())?;
                }
            }
        }
        let given_up_count = self.store.status().evicted_document_count;
        if given_up_count > self.told_count {
            let count = given_up_count - self.told_count;
            writeln!(self.output, "... {count} segments were too many to be drawn")?;
            self.told_count = given_up_count;
        }
        Ok(())
    }

    fn draw_quiet(&mut self) -> io::Result<()> {
        for trace in self.store.take_quiet(Instant::now(), QUIET_TIME, usize::MAX) {
            writeln!(self.output, "{}\n", tree::render(&trace.id, &trace.documents))?;
        }
        self.output.flush()
    }

    fn draw_all(&mut self) -> io::Result<()> {
        for trace in self.store.take_all() {
            writeln!(self.output, "{}\n", tree::render(&trace.id, &trace.documents))?;
        }
        self.output.flush()
    }
}

/// One question and its answer.
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
    Err(TailError::Refused(text::clean(message, 500)))
}
