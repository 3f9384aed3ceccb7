//! The metrics for Prometheus (`GET /metrics`).
//!
//! In: the account, the pool, the sockets, the health, and the kernel's figures about the process
//! (`process.rs`). They are read for each request. Out: text
//! in OpenMetrics format, encoded by the crate prometheus-client, or in the older text format of
//! Prometheus (`format.rs`). Bound: the timeouts of
//! [`Account::held`] and of [`Health::faults`]. Thread: main. The only work for the pipeline is
//! that the sender's thread answers two occupancy queries for each request.

mod encode;
mod encode_ports;
mod encode_spans;
mod format;
mod process;

pub use format::Format;

use crate::admin::health::Health;
use crate::base::account::{Account, Held};
use crate::base::conditions::Condition;
use crate::base::memory::ChunkPool;
use crate::pipeline::receive::{BackendInUse, ReceiveSocket};
use encode::SnapshotCollector;
use encode_spans::SpanCollector;
use process::ProcessCollector;
use prometheus_client::encoding::text::{encode, encode_registry};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::{Arc, Weak};

/// The parts of the daemon from which the metrics are read.
#[derive(Debug)]
pub struct MetricSources {
    /// All counters of the daemon.
    pub account: Arc<Account>,
    /// The pool of memory for segments.
    pub pool: Arc<ChunkPool>,
    /// Source of the metrics about liveness and readiness.
    pub health: Health,
    /// Sockets of each receiver.
    pub sockets: Vec<Vec<Weak<ReceiveSocket>>>,
    /// The receive backend of each receiver.
    pub backends: Vec<Arc<BackendInUse>>,
    /// Size of the receive buffers of all receivers together, in bytes.
    pub receive_slots_bytes: usize,
    /// The counters and the pool of spans; `None` if the daemon takes none.
    pub spans: Option<(Arc<Account>, Arc<ChunkPool>)>,
}

/// The values that are read anew for each request of `/metrics`.
#[derive(Debug)]
struct Snapshot {
    /// The segments and the memory that are held; `None` if the sender did not answer the query.
    held: Option<Held>,
    is_alive: bool,
    conditions: [bool; Condition::ALL.len()],
    /// Size of the datagrams in the queues of all sockets, and the size limit of all queues
    /// together. Both are in bytes, as the kernel counts them.
    queued_bytes: u64,
    queues_limit_bytes: u64,
    /// Number of sockets.
    socket_count: u64,
    /// Memory that the TCP port uses, in bytes.
    tcp_port_bytes: u64,
}

/// The metrics of a daemon.
#[derive(Debug)]
pub struct Metrics {
    sources: Arc<MetricSources>,
    process: ProcessCollector,
}

impl Metrics {
    /// Returns the metrics of `sources`. The process counts as started now.
    pub fn new(sources: MetricSources) -> Self {
        Self { sources: Arc::new(sources), process: ProcessCollector::starting_now() }
    }

    /// Reads all values and returns them as text. The TCP port uses `tcp_port_bytes` of its memory.
    pub async fn text(&self, format: Format, tcp_port_bytes: usize) -> String {
        let sources = Arc::clone(&self.sources);
        let spans_held = async {
            match &sources.spans {
                Some((account, _)) => account.held().await,
                None => None,
            }
        };
        let (held, faults, spans_held) =
            tokio::join!(sources.account.held(), sources.health.faults(), spans_held);
        let sockets: Vec<_> = sources.sockets.iter().flatten().filter_map(Weak::upgrade).collect();
        let snapshot = Snapshot {
            held,
            is_alive: faults.is_empty(),
            conditions: Condition::ALL.map(|condition| sources.health.has(condition)),
            queued_bytes: sockets.iter().map(|socket| u64::from(socket.queued_bytes())).sum(),
            queues_limit_bytes: sockets.iter().map(|it| it.queue().granted_bytes as u64).sum(),
            socket_count: sockets.len() as u64,
            tcp_port_bytes: tcp_port_bytes as u64,
        };
        drop(sockets);
        let mut of_process = Registry::with_prefix("process");
        of_process.register_collector(Box::new(self.process.clone()));
        let spans = sources.spans.clone().map(|(account, pool)| SpanCollector {
            account,
            pool,
            held: spans_held,
        });
        let mut of_daemon = registry(sources, snapshot);
        if let Some(spans) = spans {
            // A family of its own: the sum of a family of segments stays a number of segments.
            of_daemon
                .sub_registry_with_prefix("otlp")
                .sub_registry_with_label(("signal".into(), "spans".into()))
                .register_collector(Box::new(spans));
        }
        let mut text = String::with_capacity(16 * 1024);
        encode_registry(&mut text, &of_process)
            .and_then(|()| encode(&mut text, &of_daemon))
            .expect("writing to a string does not fail");
        format.of_open_metrics(text)
    }
}

fn registry(sources: Arc<MetricSources>, snapshot: Snapshot) -> Registry {
    let mut registry = Registry::with_prefix("xray");
    let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The daemon's version", version);
    registry.register_collector(Box::new(SnapshotCollector { sources, snapshot }));
    registry
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::account::{DropReason, LimitChange};
    use crate::pipeline::receive::{Backend, Binding, Receiver, SocketGroup};
    use std::net::UdpSocket;

    fn metrics(account: &Arc<Account>) -> Metrics {
        let account = Arc::clone(account);
        Metrics::new(MetricSources {
            health: Health::new(Arc::clone(&account), Vec::new()),
            account,
            pool: ChunkPool::new(8, 2),
            sockets: Vec::new(),
            backends: [Backend::Uring, Backend::Recvmmsg]
                .map(|backend| Arc::new(BackendInUse::new(backend)))
                .into(),
            receive_slots_bytes: 1_000,
            spans: None,
        })
    }

    /// Returns the text of `metrics`. Meanwhile the test answers all occupancy queries with `held`.
    async fn text(metrics: &Metrics, held: Held) -> String {
        let mut queries = metrics.sources.account.occupancy_queries();
        let answers = async {
            loop {
                queries.next().await.answer(held);
            }
        };
        tokio::select! {
            text = metrics.text(Format::OpenMetrics, 60) => text,
            () = answers => unreachable!("it goes on"),
        }
    }

    #[tokio::test]
    async fn occupancy_is_shown_only_if_the_sender_answers() {
        let metrics = metrics(&Arc::new(Account::new(0)));
        let unknown = metrics.text(Format::OpenMetrics, 60).await;
        assert!(!unknown.contains("xray_segments_held"), "{unknown}");
        assert!(unknown.contains("xray_alive 0\n"), "{unknown}");
        let held = Held {
            segment_count: 17,
            waiting_batch_count: 3,
            in_flight_batch_count: 2,
            ring_bytes: 10,
            open_batch_bytes: 20,
            waiting_bytes: 30,
            in_flight_bytes: 40,
            spool_bytes: 50,
        };
        let text = text(&metrics, held).await;
        for line in [
            "xray_alive 1",
            "xray_segments_held 17",
            "xray_batches_held{state=\"waiting\"} 3",
            "xray_batches_held{state=\"in_flight\"} 2",
            "xray_memory_holder_bytes{holder=\"rings\"} 10",
            "xray_memory_holder_bytes{holder=\"open_batches\"} 20",
            "xray_memory_holder_bytes{holder=\"waiting\"} 30",
            "xray_memory_holder_bytes{holder=\"in_flight\"} 40",
            "xray_memory_holder_bytes{holder=\"spool\"} 50",
            "xray_memory_holder_bytes{holder=\"receive_slots\"} 1000",
            "xray_memory_holder_bytes{holder=\"tcp_port\"} 60",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[tokio::test]
    async fn spans_have_families_of_their_own_with_the_name_of_their_signal() {
        let segments = Arc::new(Account::new(0));
        let without = metrics(&segments).text(Format::OpenMetrics, 60).await;
        assert!(!without.contains("xray_otlp_"), "{without}");
        let mut sources = Arc::into_inner(metrics(&segments).sources).unwrap();
        let spans = Arc::new(Account::for_spans());
        sources.spans = Some((Arc::clone(&spans), ChunkPool::new(16, 2)));
        spans.received.add(9);
        spans.dropped(DropReason::Shutdown).add(2);
        let with = Metrics::new(sources).text(Format::OpenMetrics, 60).await;
        for line in [
            "xray_segments_received_total 0",
            "xray_otlp_spans_received_total{signal=\"spans\"} 9",
            "xray_otlp_spans_dropped_total{signal=\"spans\",reason=\"shutdown\"} 2",
            "xray_otlp_requests_sent_total{signal=\"spans\"} 0",
            "xray_otlp_memory_limit_bytes{signal=\"spans\"} 262144",
        ] {
            assert!(with.lines().any(|found| found == line), "{line} is missing in\n{with}");
        }
        let families = |text: &str| text.lines().filter(|line| line.starts_with("# TYPE")).count();
        let names = include_str!("../../../docs/configuration.md");
        let shown = with.lines().filter_map(|line| line.strip_prefix("# TYPE xray_otlp_"));
        for name in shown.filter_map(|line| line.split(' ').next()) {
            assert!(names.contains(&format!("`xray_otlp_{name}")), "{name} is not documented");
        }
        assert!(families(&with) > families(&without) + 20);
    }

    #[tokio::test]
    async fn the_size_of_the_socket_queues_comes_from_the_kernel() {
        let binding = Binding {
            receiver_count: 2,
            socket_count: 3,
            queue_bytes: 64 * 1024,
            share_port: false,
        };
        let group = SocketGroup::bind("127.0.0.1:0", binding).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.send_to(&[0; 1_000], group.local_address()).unwrap();
        let limit_bytes = 6 * group.queue().granted_bytes;
        let receivers = group.into_receivers(4);
        let mut sources = Arc::into_inner(metrics(&Arc::new(Account::new(2))).sources).unwrap();
        sources.sockets = receivers.iter().map(Receiver::weak_sockets).collect();
        let text = Metrics::new(sources).text(Format::OpenMetrics, 0).await;
        let value = |name: &str| -> usize {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
        };
        assert_eq!(value("xray_socket_queues_limit_bytes"), limit_bytes);
        assert_eq!(value("xray_sockets"), 6);
        assert!(value("xray_memory_holder_bytes{holder=\"socket_queues\"}") > 1_000);
    }

    #[tokio::test]
    async fn conditions_are_shown_one_by_one_and_together() {
        let account = Arc::new(Account::new(0));
        let metrics = metrics(&account);
        account.conditions.begin(Condition::SpoolFull, "full");
        let troubled = text(&metrics, Held::default()).await;
        assert!(troubled.contains("xray_ready 0\n"), "{troubled}");
        assert!(troubled.contains("xray_trouble{code=\"spool_full\"} 1\n"), "{troubled}");
        assert!(troubled.contains("xray_trouble{code=\"no_region\"} 0\n"), "{troubled}");
        account.conditions.end(Condition::SpoolFull);
        assert!(metrics.text(Format::OpenMetrics, 60).await.contains("xray_ready 1\n"));
    }

    #[tokio::test]
    async fn every_reason_is_shown_from_the_start_and_counts() {
        let account = Arc::new(Account::new(2));
        let metrics = metrics(&account);
        let text = metrics.text(Format::OpenMetrics, 60).await;
        for line in [
            "xray_receive_backend_info{backend=\"uring\"} 1",
            "xray_receive_backend_info{backend=\"recvmmsg\"} 1",
            "xray_receiver_backend_info{receiver=\"0\",backend=\"uring\"} 1",
            "xray_receiver_backend_info{receiver=\"1\",backend=\"recvmmsg\"} 1",
            "xray_segments_received_total 0",
            "xray_segments_rejected_total{reason=\"header\"} 0",
            "xray_segments_dropped_total{reason=\"memory\"} 0",
            "xray_request_failures_total{kind=\"unknown_host\"} 0",
            "xray_segments_spooled_total 0",
            "xray_proxy_requests_total{outcome=\"refused\"} 0",
            "xray_tcp_connections_closed_total{reason=\"memory\"} 0",
            "xray_spool_size_bytes 0",
            "xray_spool_oldest_age_seconds 0",
            "xray_panics_total{thread=\"spool\"} 0",
            "xray_upload_rate_limit 0.0",
            "xray_upload_calls_in_flight 0",
            "xray_upload_concurrency_limit 0",
            "xray_upload_concurrency_changes_total{reason=\"slow\"} 0",
            "xray_upload_concurrency_last_change{reason=\"queue\"} 0",
            "xray_receiver_datagrams_total{receiver=\"1\"} 0",
            "xray_receiver_kernel_drops_total{receiver=\"0\"} 0",
            "xray_receiver_shed_seconds_total{receiver=\"0\"} 0.0",
            "xray_memory_limit_bytes 131072",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        account.received.add(7);
        account.receivers[1].shed_us.add(1_250_000);
        account.dropped(DropReason::Shutdown).add(3);
        account.calls.changed(16, LimitChange::Queue);
        let text = metrics.text(Format::OpenMetrics, 60).await;
        assert!(!text.contains("xray_receive_backend_info{backend=\"tokio-uring\"}"), "{text}");
        assert!(text.contains("xray_segments_received_total 7\n"), "{text}");
        let shed = "xray_receiver_shed_seconds_total{receiver=\"1\"} 1.25\n";
        assert!(text.contains(shed), "{text}");
        assert!(text.contains("xray_upload_concurrency_limit 16\n"), "{text}");
        let last = "xray_upload_concurrency_last_change{reason=\"queue\"} 1\n";
        assert!(text.contains(last), "{text}");
        assert!(text.contains("xray_segments_dropped_total{reason=\"shutdown\"} 3\n"), "{text}");
    }
}
