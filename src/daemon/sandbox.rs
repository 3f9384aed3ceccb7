//! The sandbox around the daemon: the local endpoint on the TCP port, its trees on standard
//! output, and a few segments to begin with.

use super::flow::Flow;
use super::{
    DaemonError, Destination, Ended, Environment, RESTART_PAUSE, Signals, listen, telemetry,
};
use crate::admin::pages::{Fallback, Pages};
use crate::aws::endpoint::{Endpoint, Variant};
use crate::aws::identity::Identity;
use crate::aws::transport::{Resolver, Transport};
use crate::base::address;
use crate::base::http_server::Server;
use crate::base::log::LogLimit;
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
use tokio::sync::Notify;
use tracing::warn;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use xrayd_sandbox::endpoint::{About, Sandbox, TraceFile, datagrams};
use xrayd_sandbox::model::QUIET_TIME;
use xrayd_sandbox::model::store::Limits;

/// The region in the scope of signatures where the operator names none.
pub const REGION: &str = "us-east-1";

/// What the daemon signs with and the local endpoint checks: known to everybody, worth nothing.
pub fn credentials() -> Credentials {
    Credentials::new("xrayd-sandbox", "xrayd-sandbox-secret", None, None, "sandbox")
}

/// The local endpoint behind the daemon's own pages.
pub struct LocalService {
    sandbox: Sandbox,
    answered: Notify,
    output: Output,
}

/// Standard output, written by a thread of its own: a reader that does not read, such as a paused
/// terminal, must not keep the daemon from its work. What does not fit in between is left out.
struct Output {
    writer: NonBlocking,
    _flushed_at_the_end: WorkerGuard,
}

/// Texts that wait for standard output at most: more than the sandbox has traces.
const TEXT_COUNT_MAX: usize = 16 * 1024;

/// Trees drawn before others have their turn on the thread: some milliseconds of work.
const TREES_PER_TURN: usize = 64;

const MEGABYTE: usize = 1024 * 1024;

static EVICTED: LogLimit = LogLimit::once_a_minute();

impl Output {
    fn new() -> Self {
        let builder = NonBlockingBuilder::default().lossy(true).thread_name("print");
        let (writer, guard) = builder.buffered_lines_limit(TEXT_COUNT_MAX).finish(io::stdout());
        Self { writer, _flushed_at_the_end: guard }
    }

    /// When nobody reads it any more there is nobody to tell.
    fn print(&self, text: &str) {
        let _ = self.writer.clone().write_all(format!("{text}\n").as_bytes());
    }

    fn left_out_count(&self) -> usize {
        self.writer.error_counter().dropped_lines()
    }
}

/// What the page tells of the sandbox, and the names that it answers to.
pub fn about(
    udp_address: SocketAddr,
    tcp_address: SocketAddr,
    region: &str,
    allowed_hosts: &[String],
) -> About {
    // An address is no name that could be made to lead elsewhere, and this one is asked by the
    // daemon itself.
    let own = [tcp_address.ip().to_string(), format!("[{}]", tcp_address.ip())];
    About {
        udp_address: udp_address.to_string(),
        tcp_address: tcp_address.to_string(),
        region: region.to_owned(),
        own_hosts: own.into_iter().chain(allowed_hosts.iter().cloned()).collect(),
    }
}

/// Runs the daemon against the endpoint in this process.
pub async fn run(
    config: &Config,
    environment: &Environment,
    flags: &SandboxFlags,
    resolver: &Resolver,
) -> Result<Ended, DaemonError> {
    let signals = Signals::new()?;
    let listener = listen(&config.tcp_address, resolver).await;
    let (listener, tcp_address) = listener.map_err(|source| {
        let address = config.tcp_address.clone();
        DaemonError::Tcp { address, source }
    })?;
    let file = flags.keep.as_ref().map(|path| {
        TraceFile::open(Path::new(path))
            .map_err(|source| DaemonError::Keep { path: path.clone(), source })
    });
    let file = file.transpose()?;
    let flow = Flow::start(config)?;
    let udp_address = address::reachable(flow.udp_address);
    let tcp_address = address::reachable(tcp_address);
    let region = config.region.clone().unwrap_or_else(|| REGION.to_owned());
    let about = about(udp_address, tcp_address, &region, &flags.allowed_hosts);
    let service = Arc::new(LocalService::new(about, file));
    let pages =
        Pages::new(flow.health(), flow.metrics(), Some(Arc::clone(&service) as Arc<dyn Fallback>));
    let server = Server::new(pages.with_tail(flow.tail()));
    let (serving, listener) = (Arc::clone(&server), Arc::new(listener));
    tokio::spawn(panics::restarted("The TCP port", RESTART_PAUSE, move || {
        Arc::clone(&serving).serve(Arc::clone(&listener))
    }));
    let (printed, prints) = (Arc::clone(&service), flags.print);
    let printer = tokio::spawn(panics::restarted("Printing traces", RESTART_PAUSE, move || {
        Arc::clone(&printed).watch(prints)
    }));
    service.welcome(udp_address, tcp_address);
    if flags.demo {
        send_demo(udp_address)?;
    }
    let destination = Destination {
        endpoint: Endpoint::resolve(
            Some(&format!("http://{tcp_address}")),
            "",
            Variant::default(),
        )?,
        region,
        identity: Identity::fixed(credentials()),
        transport: Transport::local(resolver.clone()),
    };
    let routes = future::ready(Ok(destination.routes(config, environment)));
    let telemetry = telemetry(config, environment, &flow, false, resolver);
    let result = flow.run(routes, telemetry, &server, signals).await;
    printer.abort();
    service.finish(flags.print);
    Ok(result)
}

impl LocalService {
    /// An endpoint with the traces of `keep`.
    pub fn new(about: About, file: Option<TraceFile>) -> Self {
        let sandbox = Sandbox::with(credentials(), about, Limits::default());
        let sandbox = match file {
            Some(file) => sandbox.with_file(file),
            None => sandbox,
        };
        Self { sandbox, answered: Notify::new(), output: Output::new() }
    }

    /// Prints each trace as a tree when nothing more has come for it in a while, if it `prints`,
    /// and says when traces have given way; never ends.
    pub async fn watch(self: Arc<Self>, prints: bool) {
        let mut evicted_count = 0;
        loop {
            self.say_evicted(&mut evicted_count);
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
                    "The sandbox is full: its oldest traces give way, {count} so far. It holds \
                     {} traces, {} MB of documents{more}",
                    status.trace_count,
                    status.size_bytes / MEGABYTE
                );
            });
            *said_count = count;
        }
    }

    /// Prints the traces that have not been quiet for long enough, and says what was left out.
    pub fn finish(&self, prints: bool) {
        if !prints {
            return;
        }
        for tree in self.sandbox.take_all() {
            self.output.print(&format!("{tree}\n"));
        }
        let left_out_count = self.output.left_out_count();
        if left_out_count > 0 {
            warn!("{left_out_count} traces were not shown: standard output was not read in time");
        }
        let evicted_count = self.sandbox.status().evicted_unshown_count;
        if evicted_count > 0 {
            warn!(
                "{evicted_count} traces were not shown: they had given way before they were quiet"
            );
        }
    }

    /// Says how to use the sandbox.
    pub fn welcome(&self, udp_address: SocketAddr, tcp_address: SocketAddr) {
        self.output.print(&format!(
            "The sandbox is ready. Point an X-Ray SDK at it and see its traces here:\n\
             \n    AWS_XRAY_DAEMON_ADDRESS=\"tcp:{tcp_address} udp:{udp_address}\"\n\
             \nIn a browser: http://{tcp_address}/    As JSON: http://{tcp_address}/traces    \
             Counters: http://{tcp_address}/metrics    Stop: Ctrl-C\n",
        ));
    }
}

impl Fallback for LocalService {
    fn refuse(&self, head: &Parts) -> Option<Response<Bytes>> {
        self.sandbox.refuse(head)
    }

    fn answer(
        &self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + '_>> {
        let answer = self.sandbox.answer(request);
        self.answered.notify_one();
        Box::pin(future::ready(answer))
    }
}

/// Sends the demo's segments, as an SDK would.
///
/// # Errors
///
/// When the system refuses a socket.
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
