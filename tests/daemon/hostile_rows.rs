//! Runs the rows of a table of hostile behaviour against daemons, several rows at a time.
//!
//! In: rows. Out: a panic that names the first row in which something did not hold. One daemon
//! takes one row after the other. In each row the daemon sends documents while the service behaves
//! as the row says, and more documents to the good service afterwards; then it forwards a call of a
//! client in the same way. `Line::run` checks each row.

use super::hostile_peer::{Act, Arrival, Connection, Done, On, Peer};
use super::load::{document_of, send};
use super::process::{Daemon, PATIENCE, config_file};
use super::tls::Authority;
use rustls::ALL_VERSIONS;
use rustls::version::TLS12;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// The number of documents in a batch. A full batch is sent at once.
const BATCH: usize = 50;

/// The most memory that a daemon may need in a row more than before it, in bytes.
const MEMORY_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The longest line of the log that a service may cause, in bytes.
const LINE_BYTES_MAX: usize = 1_000;

/// A word that no answer must contain: the service puts it where no answer is expected.
pub const SMUGGLED: &str = "smuggled";

/// The fate of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// The answer of the act is a good one, and no call is repeated.
    Accepted,
    /// The call fails, and its documents are sent again. The log has a line with this text.
    Retried(&'static str),
    /// The call may fail or not: it depends on which end is faster.
    Either,
}

/// The answer to a client whose call the daemon forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// As an upload: the good answer, or an error of the daemon, or an answer that is cut off.
    AsUpload,
    /// The answer of the service with this status.
    Status(u16),
    /// Either of these.
    Either,
    /// The row makes no such call.
    Skipped,
}

/// How long the daemon waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeouts {
    /// The default, for rows in which the daemon need not wait.
    Long,
    /// 1 s, for rows in which the service lets the daemon wait.
    Short,
}

/// The protocol of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 over TLS.
    Http2,
    /// HTTP/1.1 over TLS.
    Http1,
    /// HTTP/1.1 over TLS 1.2.
    Tls12,
    /// HTTP/1.1 in plain text.
    Plain,
}

/// A row of a table.
#[derive(Clone)]
pub struct Row {
    name: String,
    act: Act,
    holds: Holds,
    on: On,
    /// How many times the act is run.
    count: u32,
    batch_count: usize,
    timeouts: Timeouts,
    forwarded: Forwarded,
}

impl Row {
    /// Returns a row in which the service does `act` once.
    pub fn new(
        name: impl Into<String>,
        holds: Holds,
        act: impl Fn(&mut Connection) -> Done + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            act: Arc::new(act),
            holds,
            on: On::NewConnection,
            count: 1,
            batch_count: 1,
            timeouts: Timeouts::Long,
            forwarded: Forwarded::AsUpload,
        }
    }

    /// Runs the act this many times, each on another connection.
    pub fn times(self, count: u32) -> Self {
        Self { count, ..self }
    }

    /// Runs the act on an open connection, at its next request.
    pub fn on_open_connection(self) -> Self {
        Self { on: On::OpenConnection, ..self }
    }

    /// Makes this many calls at once on a connection that is open already.
    pub fn calls_at_once(self, batch_count: usize) -> Self {
        Self { batch_count, on: On::OpenConnection, forwarded: Forwarded::Skipped, ..self }
    }

    /// Lets the daemon wait for 1 s only.
    pub fn timeout(self) -> Self {
        Self { timeouts: Timeouts::Short, ..self }
    }

    /// Sets what a client gets.
    pub fn forwards(self, forwarded: Forwarded) -> Self {
        Self { forwarded, ..self }
    }
}

/// Runs all rows, with this many daemons at a time for each of the timeouts.
pub fn run(rows: Vec<Row>, protocol: Protocol, daemon_count: usize) {
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for timeouts in [Timeouts::Long, Timeouts::Short] {
            let rows: Vec<Row> =
                rows.iter().filter(|row| row.timeouts == timeouts).cloned().collect();
            let (rows, next) = (Arc::new(rows), Arc::new(AtomicUsize::new(0)));
            // With short timeouts, the daemons mostly wait.
            let daemon_count = daemon_count * if timeouts == Timeouts::Short { 2 } else { 1 };
            for _ in 0..daemon_count.min(rows.len()) {
                let (rows, next, failures) = (Arc::clone(&rows), Arc::clone(&next), &failures);
                scope.spawn(move || {
                    let failed = run_some(&rows, &next, protocol, timeouts);
                    failures.lock().unwrap().extend(failed);
                });
            }
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "these rows failed, see above: {failures:#?}");
}

/// Runs rows from `next` on with one daemon, and with a new one after a row that failed. Returns
/// the names of the rows that failed.
fn run_some(
    rows: &[Row],
    next: &AtomicUsize,
    protocol: Protocol,
    timeouts: Timeouts,
) -> Vec<String> {
    let mut failed = Vec::new();
    let mut line = Line::start(protocol, timeouts);
    while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
        if catch_unwind(AssertUnwindSafe(|| line.run(row))).is_err() {
            eprintln!("in the row {:?}", row.name);
            failed.push(row.name.clone());
            line = Line::start(protocol, timeouts);
        }
    }
    line.end();
    failed
}

/// A daemon and its service.
struct Line {
    daemon: Option<Daemon>,
    peer: Peer,
    /// Keeps the file with the trusted certificate.
    _folder: tempfile::TempDir,
    /// The number of documents that were sent so far.
    sent_count: usize,
    descriptor_count: usize,
    /// The counters when the last document had been sent.
    counters: Counters,
}

/// Counters of a daemon.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    /// The segments that count as sent.
    sent_count: u64,
    /// The calls that have ended.
    call_count: u64,
    /// The calls that failed and were repeated.
    retried_count: u64,
}

impl Counters {
    /// Reads the page of the metrics once: it is a large page.
    fn of(daemon: &Daemon) -> Self {
        let page = daemon.get("/metrics");
        let value = |name: &str| -> u64 {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap().parse().unwrap()
        };
        let retried_count = value("xray_requests_retried_total");
        let others = value("xray_requests_sent_total") + value("xray_requests_refused_total");
        let sent_count = value("xray_segments_sent_total");
        Self { sent_count, call_count: retried_count + others, retried_count }
    }
}

/// The state of a daemon before a row.
struct Before {
    line_count: usize,
    memory_bytes: u64,
}

impl Line {
    fn start(protocol: Protocol, timeouts: Timeouts) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "private");
        let alpn: &[u8] = if protocol == Protocol::Http2 { b"h2" } else { b"http/1.1" };
        let versions = if protocol == Protocol::Tls12 { &[&TLS12][..] } else { ALL_VERSIONS };
        let mut tls = authority.server_of_versions("127.0.0.1", &[alpn], versions);
        tls.enable_secret_extraction = true;
        let tls = (protocol != Protocol::Plain).then_some(tls);
        let peer = Peer::start(tls, protocol == Protocol::Http2);
        let waits = match timeouts {
            Timeouts::Long => "",
            Timeouts::Short => {
                "Upload: {RequestTimeoutSeconds: 1, PingIntervalSeconds: 1}\nProxyServer: \
                 {TimeoutSeconds: 1}"
            }
        };
        // With one receiver, the documents of a batch are always in the same ring.
        let keys = format!("Telemetry: false\nReceive: {{Receivers: 1}}\n{waits}");
        let config = config_file(folder.path(), &keys);
        let bundle = authority.path.to_str().unwrap();
        let arguments = ["-c", &config, "-l", "debug"];
        let daemon = Daemon::start(&peer.url(), &arguments, &[("AWS_CA_BUNDLE", bundle)]);
        let mut line = Self {
            daemon: Some(daemon),
            peer,
            _folder: folder,
            sent_count: 0,
            descriptor_count: 0,
            counters: Counters::default(),
        };
        line.deliver(1);
        line.call_well("before the rows");
        line.rest();
        line.descriptor_count = line.descriptors();
        line
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// Runs a row and checks all that must hold. On a busy machine a batch may come in two parts,
    /// over two connections, and the act may be run on one without a request. Then the row is run
    /// again.
    fn run(&mut self, row: &Row) {
        assert!((0..3).any(|_| self.run_once(row)), "the act has met no request three times");
    }

    /// Runs a row. Returns whether the act has met a request.
    fn run_once(&mut self, row: &Row) -> bool {
        let before = self.before();
        self.rest();
        if row.on == On::OpenConnection {
            self.deliver(1);
        }
        self.peer.arm(&row.act, row.on, row.count);
        let first = self.sent_count;
        let counters = self.counters;
        self.deliver(row.batch_count);
        // The good service again.
        self.deliver(1);
        self.check_act(row);
        let is_unfinished = self.peer.state(|state| !state.unfinished.is_empty());
        let has_failed = self.counters.retried_count > counters.retried_count;
        if matches!(row.holds, Holds::Retried(_)) && !has_failed && is_unfinished {
            return false;
        }
        let retried_count = self.check_calls(row, counters);
        self.check_arrivals(row, first, retried_count);
        self.peer.disarm();
        self.forward(row);
        self.check_log(row, &before);
        // Each of the two clients keeps a connection, and one more for each further call at once.
        let most = self.descriptor_count + 2 + 2 * row.batch_count;
        self.daemon().wait_until("the connections to the hostile service are closed", || {
            self.descriptors() <= most
        });
        self.peer.release();
        let peak_bytes = self.daemon().peak_memory_bytes();
        let grown_bytes = peak_bytes.saturating_sub(before.memory_bytes);
        assert!(grown_bytes < MEMORY_BYTES_MAX, "the daemon took {grown_bytes} bytes more");
        let account = self.daemon().balance();
        assert_eq!(account.get("dropped") + account.get("rejected"), 0, "{account}");
        assert_eq!(account.get("sent"), self.sent_count as u64, "{account}");
        true
    }

    fn before(&self) -> Before {
        let daemon = self.daemon();
        // Lets the kernel measure the largest memory anew.
        std::fs::write(format!("/proc/{}/clear_refs", daemon.id()), "5").unwrap();
        Before {
            line_count: daemon.log().lines().count(),
            memory_bytes: daemon.peak_memory_bytes(),
        }
    }

    /// Ends all connections, and waits until the daemon has closed them.
    fn rest(&self) {
        self.peer.end_connections();
        self.daemon().wait_until("no connection is open", || self.peer.open_count() == 0);
    }

    /// Sends documents for this many batches and waits until all of them are delivered.
    fn deliver(&mut self, batch_count: usize) {
        let documents: Vec<String> =
            (0..batch_count * BATCH).map(|index| self.sent_count + index).map(document).collect();
        send(self.daemon().udp, documents.iter().cloned());
        self.sent_count += documents.len();
        let daemon = self.daemon();
        daemon.wait_until("all documents arrive", || {
            self.peer.state(|state| documents.iter().all(|it| state.arrivals.contains_key(it)))
        });
        let mut counters = Counters::default();
        daemon.wait_until("all documents count as sent", || {
            counters = Counters::of(daemon);
            counters.sent_count >= self.sent_count as u64
        });
        self.counters = counters;
    }

    fn check_act(&self, row: &Row) {
        self.peer.state(|state| {
            assert_eq!(state.act_count, row.count, "the act was not run\n{}", self.daemon().log());
        });
    }

    /// Checks that the service has seen no call that the daemon has not counted, and that the
    /// daemon has made no more calls and opened no more connections than it needs. Returns the
    /// number of repeated calls since `before`.
    fn check_calls(&self, row: &Row, before: Counters) -> u64 {
        let (head_count, connection_count) =
            self.peer.state(|state| (state.head_count, state.connection_count));
        let counted = self.counters.call_count - before.call_count;
        let log = self.daemon().log();
        assert!(head_count <= counted, "{head_count} calls arrived, {counted} counted\n{log}");
        let most = counted + row.batch_count as u64;
        assert!(connection_count <= most, "{connection_count} connections\n{log}");
        let retried = self.counters.retried_count - before.retried_count;
        match row.holds {
            Holds::Accepted => assert_eq!(retried, 0, "{log}"),
            Holds::Retried(_) => assert!(retried >= u64::from(row.count), "{retried}\n{log}"),
            Holds::Either => {}
        }
        // A batch may come in two parts.
        let most = (2 * (u64::from(row.count) + 1) * row.batch_count as u64) + 2;
        if row.timeouts == Timeouts::Long {
            assert!(counted <= most, "{counted} calls, not {most}\n{log}");
        }
        retried
    }

    /// Checks that each document of the row has arrived once, and again only where the answer to
    /// it was lost.
    fn check_arrivals(&self, row: &Row, first: usize, retried_count: u64) {
        let others = retried_count.saturating_sub(u64::from(row.count));
        self.peer.state(|state| {
            for index in first..self.sent_count {
                let Arrival { served_count, act_count } = state.arrivals[&document(index)];
                let most = match (&row.holds, row.timeouts) {
                    // The good service may be slower than 1 s on a busy machine.
                    (_, Timeouts::Short) => 1 + others,
                    _ => 1,
                };
                let counts = format!("{index}: {served_count} times, in acts {act_count}");
                assert!(u64::from(served_count) <= most, "{counts}");
                assert!(act_count <= row.count, "{counts}");
                if row.holds == Holds::Accepted {
                    assert!(served_count + act_count == 1, "{counts}");
                }
            }
        });
    }

    /// Checks that the log says where and why each kind of call failed, and that nothing panicked.
    fn check_log(&self, row: &Row, before: &Before) {
        let since = || {
            let log = self.daemon().log();
            log.lines().skip(before.line_count).collect::<Vec<_>>().join("\n")
        };
        if let Holds::Retried(reason) = row.holds {
            let ends =
                |line: &str| line.contains(" has no answer ") || line.contains(" has the answer ");
            self.daemon().wait_until(&format!("the log says {reason:?}"), || {
                since().lines().any(|line| ends(line) && line.contains(reason))
            });
        }
        let log = since();
        assert!(!log.contains("panicked") && !log.contains(SMUGGLED), "{log}");
        assert!(log.lines().all(|line| line.len() < LINE_BYTES_MAX), "{log}");
        let failures = log.lines().filter(|line| line.contains("Sending segment batch failed"));
        let endpoint = format!("Endpoint: {}", self.peer.url());
        failures.for_each(|line| assert!(line.contains(&endpoint), "{line}"));
    }

    /// Makes a call of a client while the service behaves as the row says, and another one to the
    /// good service afterwards.
    fn forward(&self, row: &Row) {
        if row.forwarded == Forwarded::Skipped {
            return;
        }
        self.rest();
        if row.on == On::OpenConnection {
            self.call_well("to open a connection");
        }
        self.peer.arm(&row.act, row.on, 1);
        let nonce = format!("{{\"call\":\"hostile {}\"}}", self.sent_count);
        let answer = self.call(&nonce);
        assert_eq!(self.peer.state(|state| state.act_count), 1, "the act was not run");
        let is_good = answer.status() == 200 && answer.is_whole() && answer.body() == nonce;
        let is_error = [502, 504].contains(&answer.status()) && answer.is_whole();
        let is_cut = !answer.is_whole();
        let holds = match (row.forwarded, &row.holds) {
            (Forwarded::Status(status), _) => answer.status() == status,
            (Forwarded::Either, _) | (_, Holds::Either) => is_good || is_error || is_cut,
            (_, Holds::Accepted) => is_good,
            (_, Holds::Retried(_)) => is_error || is_cut,
        };
        assert!(holds, "{answer:?}");
        self.peer.disarm();
        self.call_well("after the hostile service");
    }

    /// Makes calls until the good service answers one of them with the body of this call. A
    /// connection that is already broken may cost one or two of them.
    fn call_well(&self, what: &str) {
        for index in 1.. {
            let nonce = format!("{{\"call\":\"{what} {} {index}\"}}", self.sent_count);
            let answer = self.call(&nonce);
            if answer.status() == 200 {
                return assert_eq!(answer.body(), nonce, "{answer:?}");
            }
            assert!(index < 3, "{answer:?}\n{}", self.daemon().log());
        }
    }

    fn call(&self, body: &str) -> Forward {
        let mut stream = TcpStream::connect(self.daemon().tcp).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let head = format!(
            "POST /GetSamplingRules HTTP/1.1\r\nHost: xray-daemon:2000\r\nConnection: \
             close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut text = Vec::new();
        // The daemon may cut off the answer.
        if let Err(error) = stream.read_to_end(&mut text) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the call hangs");
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.contains(SMUGGLED), "{text}");
        Forward(text)
    }

    /// Returns the number of open sockets of the daemon.
    fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.daemon().id());
        std::fs::read_dir(folder).unwrap().count()
    }

    /// Checks that the daemon holds on to nothing, and stops it.
    fn end(&mut self) {
        self.rest();
        self.daemon().wait_until("no descriptor is left over", || {
            self.descriptors() <= self.descriptor_count
        });
        let (status, log) = self.daemon.take().unwrap().stop();
        assert!(status.success(), "{log}");
    }
}

/// Returns the document with this number. The documents of a batch belong to one trace: only then
/// they are in one batch.
fn document(index: usize) -> String {
    document_of(index / BATCH, index, "")
}

/// The bytes that a client of the daemon has received.
#[derive(Debug)]
struct Forward(String);

impl Forward {
    fn parts(&self) -> (&str, &str) {
        self.0.split_once("\r\n\r\n").unwrap_or((&self.0, ""))
    }

    fn status(&self) -> u16 {
        let status = self.0.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.unwrap_or_default()
    }

    fn body(&self) -> &str {
        self.parts().1
    }

    /// Returns whether a client takes this for a whole answer.
    fn is_whole(&self) -> bool {
        let (head, body) = self.parts();
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        match length {
            Some(length) => body.len() == length.parse::<usize>().unwrap(),
            None if head.contains("transfer-encoding") => body.ends_with("0\r\n\r\n"),
            None => self.0.contains("\r\n\r\n"),
        }
    }
}
