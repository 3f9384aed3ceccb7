//! An X-Ray endpoint that fails at random and counts every document that it accepts.
//!
//! Thread: one, with its own runtime. The endpoint decides about a request as soon as the body has
//! arrived. From then on its documents are accepted or not. Only when the call has ended does the
//! endpoint know whether its answer was sent; then it counts the accepted documents.

use super::answer::{Answer, AnswerBody, Broken, Reply, Script};
use super::faults::{Fault, Window};
use super::tally::Tally;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// An answer with at most this delay arrives in time: the daemon waits for 2 s.
const IN_TIME: Duration = Duration::from_millis(1_200);

/// Interval at which the endpoint measures how late its own thread wakes up.
const LAG_INTERVAL: Duration = Duration::from_millis(20);

/// The phases of a soak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The endpoint does not listen.
    Outage,
    /// Windows with random faults follow one another.
    Faults,
    /// The endpoint answers without faults.
    Calm,
    /// The endpoint ends.
    End,
}

/// A running endpoint.
pub struct Endpoint {
    /// Address of the endpoint.
    pub address: SocketAddr,
    script: Arc<Mutex<Script>>,
    phase: watch::Sender<Phase>,
    thread: JoinHandle<()>,
}

impl Endpoint {
    /// Starts the endpoint in an outage.
    pub fn start(script: Script, random: fastrand::Rng) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let address = free_address(random.clone());
        let script = Arc::new(Mutex::new(script));
        let (phase, phases) = watch::channel(Phase::Outage);
        let shared = Arc::clone(&script);
        let thread = thread::Builder::new().name("endpoint".into());
        let thread = thread.spawn(move || runtime.block_on(run(address, shared, phases, random)));
        Self { address, script, phase, thread: thread.expect("a thread can be started") }
    }

    /// Begins a phase. It takes effect within milliseconds.
    pub fn begin(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Returns the name of the current fault.
    pub fn fault_name(&self) -> &'static str {
        lock(&self.script).window.fault.name()
    }

    /// Stops the endpoint and returns the record of the accepted documents.
    pub fn end(self) -> Tally {
        self.begin(Phase::End);
        self.thread.join().expect("the endpoint does not panic");
        std::mem::take(&mut lock(&self.script).tally)
    }
}

/// Returns a free address. Its port is one that the kernel does not choose for outgoing
/// connections, so it stays free while the endpoint does not listen.
fn free_address(mut random: fastrand::Rng) -> SocketAddr {
    let addresses = (0..1_000).map(|_| (Ipv4Addr::LOCALHOST, random.u16(20_000..30_000)));
    let mut free = addresses.filter(|&address| std::net::TcpListener::bind(address).is_ok());
    free.next().expect("one of a thousand ports is free").into()
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().expect("nobody panics with it")
}

/// Runs the windows one after the other.
async fn run(
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    mut phases: watch::Receiver<Phase>,
    mut random: fastrand::Rng,
) {
    // Connections live until this value changes.
    let (cut, _) = watch::channel(());
    let mut listener = None;
    tokio::spawn(watch_lag(Arc::clone(&script)));
    loop {
        let phase = *phases.borrow_and_update();
        let window = match phase {
            Phase::Outage => Window::OUTAGE,
            Phase::Faults => Window::draw(&mut random, lock(&script).rate),
            Phase::Calm => Window::CALM,
            Phase::End => return,
        };
        let began = Instant::now();
        lock(&script).enter(window);
        let is_over = async {
            tokio::select! {
                _ = phases.changed() => {}
                () = tokio::time::sleep(window.time.min(Duration::from_secs(86_400))) => {}
            }
        };
        if window.fault == Fault::ConnectionRefused {
            listener = None;
            cut.send_replace(());
            is_over.await;
        } else {
            if listener.is_none() {
                listener = Some(listen(address).await);
            }
            let listener = listener.as_ref().expect("it was just opened");
            tokio::select! {
                () = accept(listener, &script, &cut) => {}
                () = is_over => {}
            }
        }
        if phase == Phase::Faults {
            let mut script = lock(&script);
            *script.tally.fault_times.entry(window.fault.name()).or_default() += began.elapsed();
        }
    }
}

async fn listen(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn accept(listener: &TcpListener, script: &Arc<Mutex<Script>>, cut: &watch::Sender<()>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let mut is_cut = cut.subscribe();
            let connection = serve(stream, Arc::clone(script));
            tokio::spawn(async move {
                tokio::select! {
                    () = connection => {}
                    _ = is_cut.changed() => {}
                }
            });
        }
    }
}

/// Serves a connection until one side ends it.
async fn serve(stream: TcpStream, script: Arc<Mutex<Script>>) {
    let _ = stream.set_nodelay(true);
    let Ok(socket) = socket2::SockRef::from(&stream).try_clone() else { return };
    let socket = Arc::new(socket);
    let service = service_fn(move |request| answer(request, Arc::clone(&script), socket.clone()));
    // This fails if the connection was broken on purpose or the daemon closed it.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    script: Arc<Mutex<Script>>,
    socket: Arc<socket2::Socket>,
) -> Result<Response<AnswerBody>, Broken> {
    let began = Instant::now();
    let is_telemetry = request.uri().path() == "/TelemetryRecords";
    let Ok(body) = request.into_body().collect().await else {
        lock(&script).tally.request("cut by the daemon while it was sent");
        return Err(Broken);
    };
    if is_telemetry {
        lock(&script).tally.request("telemetry");
        return Answer::status(200, "{}").into_response(&socket);
    }
    let reply = lock(&script).reply(&body.to_bytes());
    match reply {
        Reply::Accept { numbers, pause, answer } => {
            let mut receipt = Receipt { numbers, is_answered: false, script };
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            receipt.is_answered = began.elapsed() < IN_TIME && answer.is_whole();
            answer.into_response(&socket)
        }
        Reply::Other(answer) => answer.into_response(&socket),
        Reply::Never => std::future::pending().await,
    }
}

/// Counts the accepted documents of a call when the call ends, with an answer or without.
struct Receipt {
    numbers: Vec<u32>,
    is_answered: bool,
    script: Arc<Mutex<Script>>,
}

impl Drop for Receipt {
    fn drop(&mut self) {
        lock(&self.script).tally.accepted(&self.numbers, !self.is_answered);
    }
}

/// Measures how late the endpoint's thread wakes up.
async fn watch_lag(script: Arc<Mutex<Script>>) {
    loop {
        let due = Instant::now() + LAG_INTERVAL;
        tokio::time::sleep_until(due.into()).await;
        let lag = due.elapsed();
        let mut script = lock(&script);
        script.tally.lag_max = script.tally.lag_max.max(lag);
    }
}
