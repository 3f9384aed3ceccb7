//! A fake X-Ray service. It accepts documents like the real service. A test can start and end
//! faults.
//!
//! In: the daemon's requests over HTTP/1.1 or HTTP/2, with or without TLS. Out: answers, and a
//! record of the requests ([`Ledger`]). A fault is either on the network path ([`Way`]) or in the
//! answers ([`Rules`]). Thread: one thread, which ends when the [`Endpoint`] is dropped. The drop
//! fails the test if the daemon sent a request that the real service would reject as malformed.

use super::answers::{Call, Failure, Ledger, Outcome, Reply, Rules, Upload};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{Domain, SockRef, Socket, Type};
use std::future::pending;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;

/// When a fault starts, the endpoint keeps open connections for this long, so that answers in
/// flight reach the daemon. It accepts no document during this time.
const FLUSH: Duration = Duration::from_millis(50);

/// The state of the network path to the service. The start of a fault ends all open connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// There is no fault.
    Open,
    /// No socket listens: connections are refused.
    Down,
    /// Connections are accepted. They are reset when the first data arrives.
    Reset,
    /// Connections are accepted and requests are read, but no request is answered and no document
    /// accepted.
    BlackHole,
    /// Connections are accepted and never read. Open connections stay open and are no longer read.
    Unread,
    /// Connections are accepted, and closed in the middle of the TLS handshake.
    CutHandshake,
    /// Each request is answered with these bytes, which are an incomplete answer. No document is
    /// accepted. This works without TLS only.
    Half(&'static str),
}

/// A running endpoint. It keeps its port on the loopback interface while the service is down.
#[derive(Debug)]
pub struct Endpoint {
    /// The address of the service.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    scheme: &'static str,
    /// Reserves the port: this socket is bound and never listens.
    _port: Socket,
    /// The endpoint's thread ends when this field is dropped.
    _running: tokio::sync::oneshot::Sender<()>,
}

struct Shared {
    way: watch::Sender<Way>,
    state: Mutex<(Rules, Ledger)>,
    connection_count: AtomicUsize,
    dead_connection_count: AtomicUsize,
    tls: Option<TlsAcceptor>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:?}", self.way.borrow())
    }
}

impl Endpoint {
    /// Starts an endpoint without faults.
    pub fn start() -> Self {
        Self::start_on(None)
    }

    /// Starts an endpoint that answers the uploads, numbered from 0, as `script` says.
    pub fn scripted(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let endpoint = Self::start();
        endpoint.change(|rules| rules.script = Some(Arc::new(script)));
        endpoint
    }

    /// Starts an endpoint that answers every upload with this failure.
    pub fn failing(failure: Failure) -> Self {
        let endpoint = Self::start();
        endpoint.change(|rules| rules.failure = Some(failure));
        endpoint
    }

    /// Starts an endpoint with TLS.
    pub fn start_tls(tls: rustls::ServerConfig) -> Self {
        Self::start_on(Some(TlsAcceptor::from(Arc::new(tls))))
    }

    fn start_on(tls: Option<TlsAcceptor>) -> Self {
        let port = bind(([127, 0, 0, 1], 0).into());
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (way, state) = (watch::channel(Way::Open).0, Mutex::default());
        let (connection_count, dead_connection_count) = Default::default();
        let shared = Shared { way, state, connection_count, dead_connection_count, tls };
        let shared = Arc::new(shared);
        let (running, mut ended) = tokio::sync::oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(async { listen(address) });
        let own = Arc::clone(&shared);
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, address, own) => {}
                    _ = &mut ended => {}
                }
            });
        });
        Self { address, shared, scheme, _port: port, _running: running }
    }

    /// Returns the URL of the service for the daemon.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Starts or ends a fault of the network path.
    pub fn set_way(&self, way: Way) {
        self.shared.way.send_replace(way);
    }

    /// Changes the rules. The change applies from the next answer on.
    pub fn change(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.shared.state.lock().unwrap().0);
    }

    /// Reads the ledger.
    pub fn ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.shared.state.lock().unwrap().1)
    }

    /// Returns the accepted documents, sorted. A document that arrived twice is listed twice.
    pub fn sorted_documents(&self) -> Vec<String> {
        self.ledger(|ledger| {
            let arrivals = ledger.arrivals.iter();
            arrivals.flat_map(|(document, it)| vec![document.clone(); it.count]).collect()
        })
    }

    /// Returns the number of different documents that the service has accepted.
    pub fn arrived_count(&self) -> usize {
        self.ledger(|ledger| ledger.arrivals.len())
    }

    /// Returns the number of uploads that have ended, with or without an answer.
    pub fn request_count(&self) -> usize {
        self.ledger(|ledger| ledger.requests.len())
    }

    /// Returns the number of connections that were accepted.
    pub fn connection_count(&self) -> usize {
        self.shared.connection_count.load(Ordering::Relaxed)
    }

    /// Returns the number of uploads that have no answer yet.
    pub fn in_flight(&self) -> usize {
        self.ledger(Ledger::open_count)
    }

    /// Returns the largest number of uploads without an answer so far.
    pub fn in_flight_max(&self) -> usize {
        self.ledger(|ledger| ledger.open_count_max)
    }

    /// Returns the number of open connections that will never be read again, even after the fault
    /// ends.
    pub fn dead_connection_count(&self) -> usize {
        self.shared.dead_connection_count.load(Ordering::Relaxed)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.ledger(|ledger| assert!(ledger.violations.is_empty(), "{:?}", ledger.violations));
        }
    }
}

/// Creates a socket that shares its port with other sockets of the test. At most one of them may
/// listen.
fn bind(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = bind(address);
    socket.listen(1024).unwrap();
    socket.set_nonblocking(true).unwrap();
    TcpListener::from_std(socket.into()).unwrap()
}

async fn serve(first: TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    let mut way = shared.way.subscribe();
    let mut listener = Some(first);
    loop {
        if *way.borrow_and_update() == Way::Down {
            listener = None;
            way.changed().await.unwrap();
            continue;
        }
        let open = listener.get_or_insert_with(|| listen(address));
        tokio::select! {
            accepted = open.accept() => {
                shared.connection_count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connection(accepted.unwrap().0, Arc::clone(&shared)));
            }
            changed = way.changed() => changed.unwrap(),
        }
    }
}

async fn connection(mut stream: TcpStream, shared: Arc<Shared>) {
    // A second handle of the connection. It is used to set socket options while TLS or HTTP owns
    // the stream.
    let socket = SockRef::from(&stream).try_clone().unwrap();
    let way = *shared.way.borrow();
    match way {
        Way::Down => {}
        Way::Unread => pending().await,
        Way::Reset => {
            let _ = stream.readable().await;
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        Way::CutHandshake => {
            let _ = stream.read(&mut [0; 4096]).await;
        }
        Way::Half(text) => {
            let _ = read_request(&mut stream).await;
            let _ = stream.write_all(text.as_bytes()).await;
        }
        Way::Open | Way::BlackHole => match &shared.tls {
            None => speak(stream, &socket, &shared, false).await,
            Some(tls) => {
                // The handshake fails if the daemon does not trust the certificate.
                let Ok(stream) = tls.accept(stream).await else { return };
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                speak(stream, &socket, &shared, http2).await;
            }
        },
    }
}

/// Reads one whole HTTP/1.1 request.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
        if length.is_none_or(|length| body.len() >= length.trim().parse().unwrap()) {
            return Ok(());
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    socket: &Socket,
    shared: &Arc<Shared>,
    http2: bool,
) {
    let (request_count, enough) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
    let (state, is_enough) = (Arc::clone(shared), Arc::clone(&enough));
    let service = service_fn(move |request| {
        let shared = Arc::clone(&state);
        let index = request_count.fetch_add(1, Ordering::Relaxed);
        let limit = shared.state.lock().unwrap().0.requests_per_connection;
        if limit.is_some_and(|limit| index + 1 >= limit) {
            is_enough.notify_one();
        }
        answer(request, shared)
    });
    let stream = TokioIo::new(stream);
    if http2 {
        let stream_count_max = shared.state.lock().unwrap().0.stream_count_max;
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        if let Some(count) = stream_count_max {
            builder.max_concurrent_streams(count);
        }
        let connection = builder.serve_connection(stream, service);
        drive(connection, |connection| connection.graceful_shutdown(), socket, shared, &enough)
            .await;
    } else {
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(stream, service);
        drive(connection, |connection| connection.graceful_shutdown(), socket, shared, &enough)
            .await;
    }
}

/// Serves a connection until it ends, or until a fault of the network path ends it.
async fn drive<C: Future>(
    connection: C,
    close: impl Fn(Pin<&mut C>),
    socket: &Socket,
    shared: &Shared,
    enough: &Notify,
) {
    let mut way = shared.way.subscribe();
    // Also reports a fault that started before this line.
    way.mark_changed();
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            _ = &mut connection => return,
            () = enough.notified() => close(connection.as_mut()),
            changed = way.changed() => changed.unwrap(),
        }
        let now = *way.borrow_and_update();
        match now {
            Way::Open | Way::BlackHole => {}
            _ => {
                let _ = tokio::time::timeout(FLUSH, &mut connection).await;
                match now {
                    Way::Unread => {
                        shared.dead_connection_count.fetch_add(1, Ordering::Relaxed);
                        pending().await
                    }
                    Way::Reset => socket.set_linger(Some(Duration::ZERO)).unwrap(),
                    _ => {}
                }
                return;
            }
        }
    }
}

/// The service closes the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("broken")]
struct Broken;

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Broken> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let is_upload = parts.uri.path() == "/TraceSegments";
    let pause = {
        let (rules, ledger) = &mut *shared.state.lock().unwrap();
        if is_upload {
            ledger.begin_upload();
        }
        rules.pause
    };
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    while shared.state.lock().unwrap().0.is_held {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let is_open = *shared.way.borrow() == Way::Open;
    let hangs = is_upload && shared.state.lock().unwrap().0.hangs_uploads;
    if !is_open || hangs {
        // This request is never answered, not even after the fault has ended.
        return pending().await;
    }
    let mut state = shared.state.lock().unwrap();
    let (rules, ledger) = &mut *state;
    // Only JSON is the daemon's own telemetry. Other bodies come from a client in a test, through
    // the daemon.
    if parts.uri.path() == "/TelemetryRecords"
        && let Ok(record) = serde_json::from_slice(&body)
    {
        ledger.telemetry.push(record);
        return Ok(Response::new(Full::from("{}")));
    }
    if !is_upload {
        let target = parts.uri.path_and_query().unwrap().to_string();
        let (method, headers) = (parts.method, parts.headers);
        let call = Call { method, target, headers, body: body.to_vec() };
        return Ok(ledger.take_call(rules, call).map(Full::from));
    }
    let upload = Upload { version: parts.version, headers: &parts.headers, body: &body };
    match ledger.decide(rules, &upload) {
        Outcome::Answered(answer) => Ok(answer.map(Full::from)),
        Outcome::Broken => Err(Broken),
    }
}
