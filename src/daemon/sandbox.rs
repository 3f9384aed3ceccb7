//! Runs the daemon with the local endpoint of the sandbox (`xray sandbox`).
//!
//! In: the configuration and the flags of the sandbox. Out: a daemon that sends its segments to the
//! endpoint on its own TCP port, and each trace as a tree on standard output when the trace has had
//! no new document for a while. With `--demo`, the sandbox sends a few segments to itself at the
//! start. Bound: [`Limits`], and [`TEXT_COUNT_MAX`] texts that wait for standard output. When full:
//! traces are evicted and texts are dropped; both are counted and logged. Thread: the runtime of
//! the daemon, and a thread named `print` that writes to standard output.

use super::destination::Destination;
use super::flow::Flow;
use super::otlp_ports::OtlpPorts;
use super::signals::Signals;
use super::tcp_port::listen;
use super::{DaemonError, Ended, Environment, RESTART_PAUSE, otlp, server, telemetry};
use crate::admin::pages::{Fallback, Pages};
use crate::aws::endpoint::{Endpoint, Variant};
use crate::aws::identity::Identity;
use crate::aws::transport::{Resolver, Transport};
use crate::base::address;
use crate::base::grpc_server;
use crate::base::http_server::{AnswerBody, Lane, Port, Server, ServerLimits};
use crate::base::log::{self, LogLimit};
use crate::base::panics;
use crate::config::Config;
use crate::config::cli::SandboxFlags;
use aws_credential_types::Credentials;
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use std::future;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tracing::{info, warn};
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use xrayd_otlp::grpc::{MESSAGE_BYTES_MAX as GRPC_MESSAGE_BYTES_MAX, Refusal};
use xrayd_sandbox::endpoint::sampling::Sampling;
use xrayd_sandbox::endpoint::{About, Account, Sandbox, TraceFile, datagrams};
use xrayd_sandbox::model::QUIET_TIME;
use xrayd_sandbox::model::store::Limits;
use xrayd_sandbox::model::tree::Colours;

/// Region of the signatures if the operator did not set one.
pub const REGION: &str = "us-east-1";

/// Returns the credentials of the sandbox. The daemon signs with them and the local endpoint checks
/// them. They are public and give access to nothing else.
pub fn credentials() -> Credentials {
    Credentials::new("xrayd-sandbox", "xrayd-sandbox-secret", None, None, "sandbox")
}

/// The local endpoint. It answers the requests with a path that the daemon itself does not serve.
pub struct LocalService {
    sandbox: Sandbox,
    /// Wakes [`Self::watch`] after each answered request.
    answered: Notify,
    output: Output,
}

/// A writer to standard output with a separate thread.
///
/// If the reader of standard output pauses (for example a paused terminal), the daemon must not
/// block. If too many texts wait, new texts are dropped and counted.
struct Output {
    writer: NonBlocking,
    _flushed_at_the_end: WorkerGuard,
}

/// Largest number of texts that wait for standard output. It is larger than the number of traces
/// that the sandbox stores.
const TEXT_COUNT_MAX: usize = 16 * 1024;

/// Maximum number of trees that are drawn before other tasks of the thread run. Drawing this many
/// trees takes a few milliseconds.
const TREES_PER_TURN: usize = 64;

const MEGABYTE: usize = 1024 * 1024;

/// The smallest memory of the TCP port, in bytes. The largest upload fits into it.
const MEMORY_BYTES_MIN: usize = 8 * MEGABYTE;

/// The limits of the port for OTLP over gRPC. An exporter uses one connection.
const GRPC_LIMITS: ServerLimits =
    ServerLimits { memory_bytes: 32 * MEGABYTE, connection_count_max: 64 };

static EVICTED: LogLimit = LogLimit::once_a_minute();
static REJECTED: LogLimit = LogLimit::once_a_minute();

impl Output {
    fn new() -> io::Result<Self> {
        let (writer, guard) = log::writer("print", TEXT_COUNT_MAX, io::stdout())?;
        Ok(Self { writer, _flushed_at_the_end: guard })
    }

    /// Prints a text and a newline. A write error is ignored: the reader has closed the output.
    fn print(&self, text: &str) {
        let _ = self.writer.clone().write_all(format!("{text}\n").as_bytes());
    }

    fn left_out_count(&self) -> usize {
        self.writer.error_counter().dropped_lines()
    }
}

/// Serves a port of `server`.
fn serve(server: &Arc<Server<Pages>>, name: &'static str, listener: Arc<TcpListener>) {
    let server = Arc::clone(server);
    tokio::spawn(panics::restarted(name, RESTART_PAUSE, move || {
        Arc::clone(&server).serve(Arc::clone(&listener))
    }));
}

/// Returns the addresses and the region that the page shows, and the allowed values of `Host`.
fn about(
    (udp_address, tcp_address): (SocketAddr, SocketAddr),
    ports: &OtlpPorts,
    region: &str,
    allowed_hosts: &[String],
) -> About {
    // The addresses of the sandbox are always allowed: the daemon itself uses one, and DNS
    // rebinding does not work with an address.
    let otlp = [&ports.http, &ports.grpc].map(|port| port.as_ref().map(|(_, address)| *address));
    let all = [Some(tcp_address), otlp[0], otlp[1]].into_iter().flatten();
    let own = all.flat_map(|it| [it.ip().to_string(), format!("[{}]", it.ip())]);
    let [otlp_http_address, otlp_grpc_address] =
        otlp.map(|address| address.map(|address| address.to_string()));
    About {
        udp_address: udp_address.to_string(),
        tcp_address: tcp_address.to_string(),
        otlp_http_address,
        otlp_grpc_address,
        region: region.to_owned(),
        own_hosts: own.chain(allowed_hosts.iter().cloned()).collect(),
    }
}

/// Returns why the TCP port cannot be opened. If the UDP port is in use too, one message says both:
/// a user who changes only the first port would meet the second one in the next attempt.
async fn refusal(config: &Config, source: io::Error, resolver: &Resolver) -> DaemonError {
    let (udp, tcp) = (config.udp_address.clone(), config.tcp_address.clone());
    let is_in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let text = udp.clone();
    let found = resolver.run(move || address::resolve(&text)).await.unwrap_or_default();
    let tried = found.first().map(UdpSocket::bind);
    let is_udp_in_use = tried.is_some_and(|it| it.is_err_and(|error| is_in_use(&error)));
    if is_udp_in_use && is_in_use(&source) {
        return DaemonError::BothInUse { udp, tcp };
    }
    DaemonError::Tcp { address: tcp, source }
}

/// Runs the daemon with the local endpoint until it is stopped.
///
/// # Errors
///
/// Returns an error if the TCP port, the file of `--keep` or the daemon's flow cannot be started.
pub async fn run(
    config: &Config,
    environment: &Environment,
    flags: &SandboxFlags,
    resolver: &Resolver,
) -> Result<Ended, DaemonError> {
    let signals = Signals::new()?;
    let listener = listen(&config.tcp_address, resolver).await;
    let (listener, tcp_address) = match listener {
        Ok(listening) => listening,
        Err(source) => return Err(refusal(config, source, resolver).await),
    };
    let file = flags.keep.as_ref().map(|path| {
        TraceFile::open(Path::new(path))
            .map_err(|source| DaemonError::Keep { path: path.clone(), source })
    });
    let file = file.transpose()?;
    let output = Output::new()?;
    // First the ports of the configuration, which must open; the sandbox's own may be taken.
    let span_ports = otlp::OtlpPorts::open(config, resolver).await?;
    let ports = OtlpPorts::open(flags, tcp_address, resolver).await;
    // From here on, a failure has to go through the flow, which settles what it has received.
    let mut flow = Flow::start(config)?;
    flow.serve_spans(span_ports);
    let udp_address = address::reachable(flow.udp_address);
    let tcp_address = address::reachable(tcp_address);
    let region = config.region.clone().unwrap_or_else(|| REGION.to_owned());
    let about = about((udp_address, tcp_address), &ports, &region, &flags.allowed_hosts);
    let sampling = if flags.samples_as_service { Sampling::Service } else { Sampling::All };
    let service = Arc::new(LocalService::new(about, sampling, file, output));
    let fallback = Arc::clone(&service) as Arc<dyn Fallback>;
    // The uploads of the daemon itself come to this port too. The sandbox holds traces in memory
    // anyway, so `-m` does not bound it.
    let limits = flow.server_limits();
    let limits = ServerLimits { memory_bytes: limits.memory_bytes.max(MEMORY_BYTES_MIN), ..limits };
    let server = server(config, &flow, limits, fallback);
    serve(&server, "The TCP port", Arc::new(listener));
    let OtlpPorts { http, grpc } = ports;
    // The port for OTLP is another door to the same server, with the same limits.
    if let Some((listener, _)) = http {
        serve(&server, "The port for OTLP over HTTP", listener);
    }
    if let Some((listener, _)) = grpc {
        let port = Port { name: "gRPC port", share: "32 MB", counts: Arc::default() };
        let unary = Arc::clone(&service);
        let server = grpc_server::Server::new(unary, GRPC_LIMITS, GRPC_MESSAGE_BYTES_MAX, port);
        tokio::spawn(panics::restarted("The port for OTLP over gRPC", RESTART_PAUSE, move || {
            Arc::clone(&server).serve(Arc::clone(&listener))
        }));
    }
    let (printed, prints) = (Arc::clone(&service), flags.print);
    let printer = tokio::spawn(panics::restarted("Printing traces", RESTART_PAUSE, move || {
        Arc::clone(&printed).watch(prints)
    }));
    service.welcome(flags.demo);
    let routes = async {
        if flags.demo {
            send_demo(udp_address)?;
        }
        let url = format!("http://{tcp_address}");
        let destination = Destination {
            endpoint: Endpoint::resolve(Some(&url), "", Variant::default())?,
            region,
            identity: Identity::fixed(credentials()),
            transport: Transport::local(resolver.clone()),
        };
        Ok(destination.routes(config, environment))
    };
    let telemetry = telemetry(config, environment, &flow, false, resolver);
    let result = flow.run(routes, telemetry, &server, signals).await;
    printer.abort();
    service.finish(flags.print);
    Ok(result)
}

impl LocalService {
    /// Returns an endpoint. If there is a trace file, its traces are read, and new traces are
    /// stored in it.
    fn new(about: About, sampling: Sampling, file: Option<TraceFile>, output: Output) -> Self {
        let sandbox = Sandbox::with(credentials(), about, Limits::default())
            .with_colours(Colours::of_terminal(&io::stdout()))
            .with_sampling(sampling);
        let sandbox = match file {
            Some(file) => sandbox.with_file(file),
            None => sandbox,
        };
        Self { sandbox, answered: Notify::new(), output }
    }

    /// If `prints` is set, prints a trace as a tree when it has had no new document for a while.
    /// Also logs a warning when traces were evicted. Never returns.
    pub async fn watch(self: Arc<Self>, prints: bool) {
        let mut evicted_count = 0;
        let mut account = Account::default();
        loop {
            self.say_evicted(&mut evicted_count);
            self.say_otlp(&mut account);
            let taken = match prints {
                true => self.sandbox.take_quiet(Instant::now(), QUIET_TIME, TREES_PER_TURN),
                false => Vec::new(),
            };
            for tree in &taken {
                self.output.print(&format!("{tree}\n"));
            }
            let next = self.sandbox.next_quiet(QUIET_TIME).filter(|_| prints);
            let quiet = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => future::pending().await,
                }
            };
            tokio::select! {
                () = self.answered.notified() => {}
                () = quiet => {}
            }
        }
    }

    fn say_evicted(&self, said_count: &mut u64) {
        let status = self.sandbox.status();
        let count = status.evicted_trace_count;
        if count > *said_count {
            EVICTED.log(|more| {
                warn!(
                    "The sandbox is full and evicts its oldest traces: {count} so far. It holds \
                     {} traces, {} MB of documents{more}",
                    status.trace_count,
                    status.size_bytes / MEGABYTE
                );
            });
            *said_count = count;
        }
    }

    /// Logs how many spans of OpenTelemetry were not taken, and, once, that metrics are not shown.
    fn say_otlp(&self, said: &mut Account) {
        let account = self.sandbox.account();
        if account.rejected_span_count > said.rejected_span_count {
            REJECTED.log(|more| {
                warn!(
                    "Spans of OpenTelemetry were rejected: {} so far, the last one because {}{more}",
                    account.rejected_span_count,
                    self.sandbox.last_rejection()
                );
            });
        }
        if account.metrics_document_count > 0 && said.metrics_document_count == 0 {
            info!(
                "An exporter of OpenTelemetry sends metrics over UDP. The sandbox shows traces only \
                 and ignores them. They end with OTEL_METRICS_EXPORTER=none and \
                 OTEL_AWS_APPLICATION_SIGNALS_ENABLED=false"
            );
        }
        *said = account;
    }

    /// Prints the traces that are not printed yet, and logs how many traces were not shown. Does
    /// nothing if `prints` is not set.
    pub fn finish(&self, prints: bool) {
        if !prints {
            return;
        }
        for tree in self.sandbox.take_all() {
            self.output.print(&format!("{tree}\n"));
        }
        let left_out_count = self.output.left_out_count();
        if left_out_count > 0 {
            warn!(
                "{left_out_count} traces were not shown: standard output was not read fast enough"
            );
        }
        let evicted_count = self.sandbox.status().evicted_unshown_count;
        if evicted_count > 0 {
            warn!(
                "{evicted_count} traces were not shown: they were evicted before they were quiet"
            );
        }
    }

    /// Prints the address of the page, and what to do next. `has_demo` says that the traces of the
    /// demo are about to arrive.
    pub fn welcome(&self, has_demo: bool) {
        let about = self.sandbox.about();
        let (daemon, otlp) = (about.daemon_address(), about.otlp_endpoint());
        let page = match has_demo {
            true => "Open the page: a dozen traces of a shop are there. See what failed and why.",
            false => "Open the page. It has the lines for your language under Connect.",
        };
        self.output.print(&format!(
            "The sandbox is ready: http://{}/ (Ctrl-C ends it). What to do next:\n\
             \n  1. {page}\
             \n  2. Send your own traces. X-Ray SDKs: AWS_XRAY_DAEMON_ADDRESS={daemon}\
             \n  3. Or from OpenTelemetry: OTEL_EXPORTER_OTLP_ENDPOINT={otlp}\n",
            about.tcp_address,
        ));
    }
}

impl grpc_server::Unary for LocalService {
    fn call(&self, head: &Parts, body: &Bytes) -> Result<Bytes, Refusal> {
        let answer = self.sandbox.export_grpc(head, body);
        self.answered.notify_one();
        answer
    }
}

impl Fallback for LocalService {
    fn refuse(&self, head: &Parts) -> Option<Response<Bytes>> {
        self.sandbox.refuse(head)
    }

    fn lane(&self, head: &Parts) -> Lane {
        // Everything but uploads is small: pages, and calls for sampling.
        let is_upload = ["/TraceSegments", "/v1/traces", "/v1/traces/"].contains(&head.uri.path());
        if is_upload { Lane::Other } else { Lane::Quick }
    }

    fn answer(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<AnswerBody>> + Send + '_>> {
        let answer = self.sandbox.answer(request).map(AnswerBody::from);
        self.answered.notify_one();
        Box::pin(future::ready(answer))
    }
}

/// Sends the segments of the demo through UDP, like an SDK.
///
/// # Errors
///
/// Returns an error if the socket cannot be opened or used.
pub fn send_demo(udp_address: SocketAddr) -> io::Result<()> {
    let any: SocketAddr = match udp_address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    for datagram in datagrams(SystemTime::now()) {
        socket.send_to(&datagram, udp_address)?;
    }
    Ok(())
}
