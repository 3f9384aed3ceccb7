//! The flow of spans of OpenTelemetry: the queue behind the ports that take them, and their sender.
//!
//! In: requests that the ports put into the queue, the route to the service. Out: calls to the
//! service, and the account of spans in the log. Bound: half of `-m`. Nothing is shared with the
//! flow of segments but the identity and the clock of the service, so neither holds the other back.
//! Thread: main; the sender has a thread of its own.

use super::DaemonError;
use super::account_log::{count_unwound, log_account};
use super::otlp::{OtlpPorts, OtlpThread};
use super::shutdown::Shutdown;
use super::threads::{SenderThread, UploadThread};
use crate::aws::{Service, SpansTo};
use crate::base::account::Account;
use crate::base::memory::ChunkPool;
use crate::base::panics::Alarm;
use crate::config::Config;
use crate::pipeline::limits::{MEGABYTE, SpanLimits};
use crate::pipeline::sender::{Deadline, Sender, SpoolThread};
use crate::pipeline::spans::door::DoorLimits;
use crate::pipeline::spans::{SpanQueue, SpanWriter};
use crate::pipeline::spool;
use crate::pipeline::upload::Uploader;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tracing::{info, warn};

/// The folder of the spool of spans, inside the folder of the spool of segments. A version that
/// knows no spans ignores it.
const FOLDER: &str = "otlp";

/// X-Ray takes no spans that are older than this, see
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html>.
const AGE_HOURS_MAX: u64 = 14 * 24;

/// The parts of the flow of spans that exist before the first socket is opened.
pub(super) struct Prepared {
    account: Arc<Account>,
    pool: Arc<ChunkPool>,
    limits: SpanLimits,
    spool: Option<SpoolThread>,
    thread: UploadThread,
}

impl Prepared {
    /// Makes the memory and the thread of the spool. `thread` is for the sender.
    ///
    /// # Errors
    ///
    /// Fails if the system does not create the thread of the spool.
    pub(super) fn make(
        config: &Config,
        limits: SpanLimits,
        thread: UploadThread,
    ) -> Result<Self, DaemonError> {
        let pool = ChunkPool::new(limits.chunk_count_max, limits.batch_reserve_count);
        let account = Arc::new(Account::for_spans());
        let spool = spool_options(config)
            .map(|it| SpoolThread::start(it, Arc::clone(&pool), Arc::clone(&account)))
            .transpose()
            .map_err(DaemonError::SpoolThread)?;
        Ok(Self { account, pool, limits, spool, thread })
    }
}

/// The running flow of spans.
pub(super) struct SpanFlow {
    account: Arc<Account>,
    pool: Arc<ChunkPool>,
    writer: SpanWriter,
    door_limits: DoorLimits,
    door: Option<OtlpThread>,
    has_spool: bool,
    upload: SenderThread,
    route: Option<oneshot::Sender<Box<dyn Service>>>,
    alarm: Alarm,
}

impl SpanFlow {
    /// Starts the sender of spans.
    pub(super) fn start(prepared: Prepared, config: &Config, alarm: Alarm) -> Self {
        let Prepared { account, pool, limits, spool, thread } = prepared;
        match config.otlp_to {
            SpansTo::Endpoint => {
                info!("Spans of OpenTelemetry are sent to X-Ray's endpoint for them (/v1/traces)");
            }
            SpansTo::Segments => warn!(
                "Spans of OpenTelemetry are sent through PutTraceSegments (Otlp.To: segments). This \
                 is experimental: AWS does not document it for other senders than its own"
            ),
        }
        let (writer, queue) = SpanQueue::new(Arc::clone(&pool), Arc::clone(&account));
        let (route, arrival) = oneshot::channel();
        let uploader = Uploader::new(arrival, limits.call_limit, Arc::clone(&account));
        let has_spool = spool.is_some();
        let (pools, accounts) = (Arc::clone(&pool), Arc::clone(&account));
        let sender =
            Sender::for_spans((&limits, config.otlp_to), queue, uploader, spool, pools, accounts);
        let upload = SenderThread::start(sender, alarm.clone(), thread);
        let route = Some(route);
        let door_limits = limits.door;
        Self { account, pool, writer, door_limits, door: None, has_spool, upload, route, alarm }
    }

    /// Returns the account and the pool of spans, for the metrics.
    pub(super) fn sources(&self) -> (Arc<Account>, Arc<ChunkPool>) {
        (Arc::clone(&self.account), Arc::clone(&self.pool))
    }

    /// Serves the ports that take spans, on a thread of their own.
    pub(super) fn serve(&mut self, ports: OtlpPorts) {
        let (writer, alarm) = (self.writer.clone(), self.alarm.clone());
        self.door = Some(ports.serve(writer, &self.account, self.door_limits, alarm));
    }

    /// Gives the sender its service. Returns at once.
    pub(super) fn take_route(&mut self) -> Option<oneshot::Sender<Box<dyn Service>>> {
        self.route.take()
    }

    /// Closes the ports and the queue, and waits until the sender has settled all spans or the time
    /// is over. Returns the number of spans that are still held.
    pub(super) async fn finish(&mut self, shutdown: Shutdown) -> usize {
        let now = Instant::now();
        let mut deadline = Deadline::within(shutdown.time, self.has_spool, now);
        let has_panicked =
            self.alarm.fault().is_some_and(|it| it.thread == SenderThread::SPANS_NAME);
        if has_panicked && self.has_spool {
            deadline.for_uploads = now;
        }
        self.upload.set_deadline(deadline);
        if let Some(door) = &mut self.door {
            door.finish(shutdown.time).await;
        }
        self.writer.close();
        self.upload.ended().await
    }

    /// Ends without time for calls.
    pub(super) async fn finish_at_once(&mut self) -> usize {
        if let Some(door) = &mut self.door {
            door.close(Duration::ZERO).await;
        }
        self.writer.close();
        self.upload.set_deadline(Deadline::at_once(Instant::now()));
        self.upload.ended().await
    }

    /// Logs the account of spans.
    pub(super) fn log_account(&self, held_count: usize) {
        if self.alarm.fault().is_some() {
            count_unwound(&self.account, held_count);
        }
        log_account(&self.account, held_count);
    }
}

/// Returns the options of the spool of spans. `None` if the configuration has no `Spool.Path`.
fn spool_options(config: &Config) -> Option<spool::Options> {
    let age_hours = config.spool_age_hours.min(AGE_HOURS_MAX);
    Some(spool::Options {
        path: config.spool_path.as_ref()?.join(FOLDER),
        size_bytes_max: config.spool_size_mb * MEGABYTE / 2,
        age_max: Duration::from_secs(age_hours * 3600),
    })
}
