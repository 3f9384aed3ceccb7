//! The ports that take OpenTelemetry's spans, over HTTP and over gRPC.
//!
//! In: requests of exporters. Out: their spans in the queue, and an answer as the protocol has it,
//! <https://opentelemetry.io/docs/specs/otlp/>. Bound: [`DoorLimits`]; one request at a time is
//! inflated. When full: the client gets the time after which it may try again. Thread: `otlp`, so
//! that inflating 5 MB does not delay `/ready` or a call of an application.
//!
//! ```text
//!  HTTP ──► http ──┐ path, content type,             ┌──► queue, then 200
//!                  ├─ web page, room? ──► body ──► accept
//!  gRPC ──► grpc ──┘                       inflated  └──► refused, with a reason
//! ```
//!
//! A success is an acceptance: the spans are in the queue by then. The bytes of an accepted span
//! are never changed, and nothing is sampled or added. Metrics and logs get an answer after which
//! an exporter does not try again.

mod accept;
mod grpc;
mod http;
mod limits;

pub use grpc::GrpcDoor;
pub use http::HttpDoor;
pub use limits::{DoorLimits, Ports};

use super::queue::{NoRoom, SpanWriter};
use crate::base::account::{Account, Export, SpanRefusal};
use crate::base::log::LogLimit;
use crate::base::panics;
use accept::{NotTaken, Taken};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::{info, warn};
use xrayd_otlp::grpc::{Refusal, code};
use xrayd_otlp::{BODY_BYTES_MAX, Encoding};

/// The capacity of the buffer for inflated requests that is kept for the next request, in bytes.
const KEPT_BYTES: usize = 256 * 1024;

/// A client whose spans came while the daemon ended may try again after this time.
const RESTART_TIME: Duration = Duration::from_secs(1);

/// The common part of both ports.
#[derive(Debug)]
pub struct Door {
    writer: SpanWriter,
    account: Arc<Account>,
    request_bytes_max: usize,
    /// The buffer into which a request is inflated.
    buffer: Mutex<Vec<u8>>,
    refused: LogLimit,
    refused_request: LogLimit,
    full: LogLimit,
    other_signal: LogLimit,
}

impl Door {
    /// Returns a door whose spans go to `writer`. `account` counts its requests and refusals.
    pub fn new(writer: SpanWriter, account: Arc<Account>, limits: &DoorLimits) -> Arc<Self> {
        Arc::new(Self {
            writer,
            account,
            request_bytes_max: limits.request_bytes_max,
            buffer: Mutex::default(),
            refused: LogLimit::once_a_minute(),
            refused_request: LogLimit::once_a_minute(),
            full: LogLimit::once_a_minute(),
            other_signal: LogLimit::once_a_minute(),
        })
    }

    /// Returns how many requests were answered, for the shutdown, which waits for clients.
    pub fn request_count(&self) -> u64 {
        self.account.otlp.request_count()
    }

    /// Closes the queue: a request that comes now is refused.
    pub fn close(&self) {
        self.writer.close();
    }

    /// Lets `inflate` put an uncompressed body into the buffer, then takes its spans. Returns how
    /// many were refused, and why the first one was.
    fn export<'a>(
        &self,
        encoding: Encoding,
        inflate: impl FnOnce(usize, &'a mut Vec<u8>) -> Result<&'a [u8], Refusal>,
        buffer: &'a mut Vec<u8>,
    ) -> Result<(usize, String), Refusal> {
        let body = inflate(self.request_bytes_max, buffer).map_err(|mut refusal| {
            let is_limited = self.request_bytes_max < BODY_BYTES_MAX;
            if is_limited && refusal.code == code::RESOURCE_EXHAUSTED {
                refusal.message.push_str("; a larger -m of the daemon allows more, up to 5 MB");
            }
            refusal
        })?;
        panics::inject("export");
        let now = self.account.clock.now();
        let taken = accept::take(&self.writer, (encoding, body), now);
        let taken = taken.map_err(|error| self.not_taken(&error))?;
        panics::inject("exported");
        self.count_refused(&taken);
        let refused_count = taken.refused_count();
        if taken.accepted_count == 0 && refused_count > 0 {
            // A success would hide the reason: few exporters report a partial success.
            return Err(Refusal::new(code::INVALID_ARGUMENT, taken.why));
        }
        Ok((refused_count, taken.why))
    }

    /// Runs `work` with the buffer, and gives most of its memory back.
    fn with_buffer<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let done = work(&mut buffer);
        buffer.clear();
        buffer.shrink_to(KEPT_BYTES);
        done
    }

    fn count_refused(&self, taken: &Taken) {
        for (reason, count) in SpanRefusal::ALL.into_iter().zip(taken.refused_counts) {
            self.account.otlp.refused_spans(reason).add(count as u64);
        }
        let (count, why) = (taken.refused_count(), &taken.why);
        if count > 0 {
            self.refused.log(|more| {
                warn!("{count} spans of a client were refused, the first one because: {why}{more}");
            });
        }
    }

    /// Returns an error if there is no room for any request, before its body is read.
    fn look(&self) -> Result<(), Refusal> {
        self.writer.look().map_err(|error| self.not_taken(&error.into()))
    }

    fn not_taken(&self, error: &NotTaken) -> Refusal {
        let why = error.to_string();
        match *error {
            NotTaken::Invalid(_) => Refusal::new(code::INVALID_ARGUMENT, why),
            NotTaken::NoRoom(NoRoom::TooLarge { .. }) => {
                Refusal::new(code::RESOURCE_EXHAUSTED, why)
            }
            NotTaken::NoRoom(NoRoom::Full { retry_after }) => {
                self.full.log(|more| {
                    warn!(
                        "The memory for spans is full (half of -m): requests are refused until \
                         there is room, and their clients try again{more}"
                    );
                });
                Refusal::new(code::RESOURCE_EXHAUSTED, why).retry_after(retry_after)
            }
            NotTaken::Closed(_) => Refusal::new(code::UNAVAILABLE, why).retry_after(RESTART_TIME),
        }
    }

    /// Returns the sentence for a client that sends metrics or logs, and logs it.
    fn refuse_signal(&self, signal: &str) -> String {
        let why = format!(
            "this daemon takes traces only, and no {signal}. Switch their exporter off: \
             OTEL_{}_EXPORTER=none",
            signal.to_uppercase()
        );
        self.other_signal.log(|more| info!("A client of the OTLP port was refused: {why}{more}"));
        why
    }

    /// Counts the result of a request.
    fn count(&self, export: Export) {
        self.account.otlp.exports(export).add(1);
    }

    /// Counts the result of a request for export, and logs why a request was refused.
    fn count_result(&self, result: &Result<(usize, String), Refusal>) {
        self.count(match result {
            Ok((0, _)) => Export::Accepted,
            Ok(_) => Export::Partial,
            Err(refusal) if refusal.retry_after.is_some() => Export::Full,
            Err(Refusal { message, .. }) => {
                self.refused_request.log(|more| {
                    warn!("A request to the ports for spans was refused: {message}{more}");
                });
                Export::Refused
            }
        });
    }
}

#[cfg(test)]
mod tests;
