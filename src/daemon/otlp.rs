//! The ports for OpenTelemetry's spans, and the thread that serves them.
//!
//! In: the addresses in the configuration, the queue of spans. Out: open ports, later a thread
//! named `otlp` that serves them until the shutdown. A port that cannot be opened ends the start:
//! the configuration asks for it. Thread: main opens and ends the ports.

use super::DaemonError;
use super::RESTART_PAUSE;
use super::shutdown::wait_until_quiet;
use super::tcp_port::bind;
use super::threads::{Idle, Runtime};
use crate::aws::transport::Resolver;
use crate::base::account::Account;
use crate::base::grpc_server;
use crate::base::http_server::{self, Port, ServerLimits};
use crate::base::panics::{self, Alarm};
use crate::config::Config;
use crate::pipeline::spans::SpanWriter;
use crate::pipeline::spans::door::{Door, DoorLimits, GrpcDoor, HttpDoor};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// The name of the thread, as in the label `thread` of `xray_panics_total`.
const THREAD_NAME: &str = "otlp";

/// The share of the memory that both ports have together, as the log says it.
const SHARE: &str = "a sixth of -m";

/// The open ports, and the thread that waits for them.
pub(super) struct OtlpPorts {
    http: Option<StdListener>,
    grpc: Option<StdListener>,
    thread: Idle,
    runtime: Runtime,
}

impl OtlpPorts {
    /// Opens the ports that the configuration has. Returns `None` if it has none.
    ///
    /// # Errors
    ///
    /// Fails if a port cannot be opened, or the system does not create the thread.
    pub(super) async fn open(
        config: &Config,
        resolver: &Resolver,
    ) -> Result<Option<Self>, DaemonError> {
        if !config.takes_spans() {
            return Ok(None);
        }
        let (runtime, thread) = (Runtime::new()?, Idle::make(THREAD_NAME.to_owned())?);
        let http = open("HTTP", "Otlp.HttpAddress", &config.otlp_http_address, resolver).await?;
        let grpc = open("gRPC", "Otlp.GrpcAddress", &config.otlp_grpc_address, resolver).await?;
        Ok(Some(Self { http, grpc, thread, runtime }))
    }

    /// Serves the ports. Their spans go to `writer`, and `account` counts requests and refusals.
    pub(super) fn serve(
        self,
        writer: SpanWriter,
        account: &Arc<Account>,
        limits: DoorLimits,
        alarm: Alarm,
    ) -> OtlpThread {
        let Self { http, grpc, thread, runtime } = self;
        let door = Door::new(writer, Arc::clone(account), &limits);
        let (stop, stopped) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        let servers = Servers { door: Arc::clone(&door), account: Arc::clone(account), limits };
        thread.run(move || {
            let served = || runtime.get().block_on(servers.serve(http, grpc, stopped));
            match panics::catch(served) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => error!(
                    "The ports for spans cannot be served: {error}. Exporters find them closed until \
                     the daemon is restarted"
                ),
                Err(panicked) => alarm.raise(panicked),
            }
            let _ = ended_sender.send(());
        });
        OtlpThread { door, stop: Some(stop), ended: Some(ended) }
    }
}

async fn open(
    protocol: &str,
    key: &'static str,
    address: &Option<String>,
    resolver: &Resolver,
) -> Result<Option<StdListener>, DaemonError> {
    let Some(address) = address else { return Ok(None) };
    let opened = bind(address, resolver).await;
    let (listener, local): (_, SocketAddr) =
        opened.map_err(|source| DaemonError::Otlp { key, address: address.clone(), source })?;
    info!("OpenTelemetry's spans are taken over {protocol} at {local}");
    Ok(Some(listener))
}

/// The parts that the thread needs to serve the ports.
struct Servers {
    door: Arc<Door>,
    account: Arc<Account>,
    limits: DoorLimits,
}

impl Servers {
    /// Serves the ports until `stop` has the time for the last requests.
    async fn serve(
        self,
        http: Option<StdListener>,
        grpc: Option<StdListener>,
        stop: oneshot::Receiver<Duration>,
    ) -> io::Result<()> {
        let http = http.map(|listener| self.http(listener)).transpose()?;
        let grpc = grpc.map(|listener| self.grpc(listener)).transpose()?;
        panics::inject("otlp");
        let time = stop.await.unwrap_or_default();
        panics::inject("otlp_end");
        let http = async {
            if let Some(server) = http {
                server.finish(time).await;
            }
        };
        let grpc = async {
            if let Some(server) = grpc {
                server.finish(time).await;
            }
        };
        tokio::join!(http, grpc);
        Ok(())
    }

    fn http(&self, listener: StdListener) -> io::Result<Arc<http_server::Server<HttpDoor>>> {
        let limits: ServerLimits = self.limits.http;
        let handler = HttpDoor::new(Arc::clone(&self.door), limits);
        let counts = Arc::clone(&self.account.otlp.http);
        let port = Port { name: "OTLP/HTTP port", share: SHARE, counts };
        let server = http_server::Server::new(handler, limits, port);
        let (listener, serving) = (Arc::new(TcpListener::from_std(listener)?), Arc::clone(&server));
        tokio::spawn(panics::restarted("The OTLP/HTTP port", RESTART_PAUSE, move || {
            panics::inject("otlp_serve");
            Arc::clone(&serving).serve(Arc::clone(&listener))
        }));
        Ok(server)
    }

    fn grpc(&self, listener: StdListener) -> io::Result<Arc<grpc_server::Server<GrpcDoor>>> {
        let counts = Arc::clone(&self.account.otlp.grpc);
        let port = Port { name: "OTLP/gRPC port", share: SHARE, counts };
        let (unary, bytes_max) =
            (GrpcDoor::new(Arc::clone(&self.door)), self.limits.message_bytes_max);
        let server = grpc_server::Server::new(unary, self.limits.grpc, bytes_max, port);
        let (listener, serving) = (Arc::new(TcpListener::from_std(listener)?), Arc::clone(&server));
        tokio::spawn(panics::restarted("The OTLP/gRPC port", RESTART_PAUSE, move || {
            panics::inject("otlp_serve");
            Arc::clone(&serving).serve(Arc::clone(&listener))
        }));
        Ok(server)
    }
}

/// The thread that serves the ports.
pub(super) struct OtlpThread {
    door: Arc<Door>,
    stop: Option<oneshot::Sender<Duration>>,
    /// `None` after the end of the thread.
    ended: Option<oneshot::Receiver<()>>,
}

impl OtlpThread {
    /// Serves clients until none has sent spans for a while, for half of `time` at most. Then
    /// closes the ports; requests that are being read have a quarter of `time` to be answered. No
    /// span follows.
    pub(super) async fn finish(&mut self, time: Duration) {
        let limit = Instant::now() + time / 2;
        if !wait_until_quiet(|| self.door.request_count(), limit).await {
            warn!(
                "Applications still send spans: the daemon closes its ports for OpenTelemetry, \
                 because half of the time for the shutdown (ShutdownSeconds) is over"
            );
        }
        self.close(time / 4).await;
    }

    /// Closes the ports. Requests that are being read have `time` to be answered.
    pub(super) async fn close(&mut self, time: Duration) {
        if let Some(stop) = self.stop.take() {
            // Fails only if the thread has ended.
            let _ = stop.send(time);
        }
        if let Some(ended) = &mut self.ended {
            let _ = ended.await;
        }
        self.ended = None;
        self.door.close();
    }
}
