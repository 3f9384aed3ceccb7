//! A client for the daemon's TCP port that writes exactly the given bytes.

use super::answers::Call;
use super::endpoint::Endpoint;
use super::process::{Daemon, PATIENCE, command, config_file};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Output;

/// The method and the path of the call that SDKs make first: it fetches the sampling rules.
pub const RULES: &str = "POST /GetSamplingRules";

/// An answer of the daemon.
#[derive(Debug)]
pub struct Answer {
    /// The status of the answer.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// The body of the answer.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the value of the first header with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// Returns the message of an error that the daemon itself produced. The body of the answer is
    /// JSON.
    pub fn message(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        body["message"].as_str().unwrap().to_owned()
    }
}

/// A connection to the daemon that stays open for several requests.
pub struct Client(BufReader<TcpStream>);

impl Client {
    /// Opens a connection.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// Sends a request with these header lines and a Content-Length header, and reads the answer.
    pub fn call(&mut self, request_line: &str, headers: &str, body: &[u8]) -> Answer {
        self.write(&request(request_line, headers, body));
        self.answer()
    }

    /// Reads an answer.
    pub fn answer(&mut self) -> Answer {
        let mut lines = (&mut self.0).lines().map(Result::unwrap);
        let status_line = lines.next().expect("the connection was closed");
        let status = status_line.split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: String| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let headers = lines.take_while(|line| !line.is_empty()).map(header).collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |value| value.parse().unwrap());
        answer.body.resize(length, 0);
        self.0.read_exact(&mut answer.body).unwrap();
        answer
    }

    /// Reads an answer. Returns `None` if the daemon closes or resets the connection before it.
    pub fn answer_unless_closed(&mut self) -> Option<Answer> {
        let has_bytes = self.0.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        has_bytes.then(|| self.answer())
    }

    /// Reads an answer if its first byte has arrived already.
    pub fn answer_now(&mut self) -> Option<Answer> {
        self.0.get_ref().set_nonblocking(true).unwrap();
        let has_bytes = self.0.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        self.0.get_ref().set_nonblocking(false).unwrap();
        has_bytes.then(|| self.answer())
    }

    /// Sends bytes; ignores an error, because the daemon may already have closed the connection.
    pub fn try_write(&mut self, bytes: &[u8]) {
        let _ = self.0.get_mut().write_all(bytes);
    }

    /// Reads until the daemon closes or resets the connection. Returns the bytes as text.
    pub fn rest(self) -> String {
        String::from_utf8_lossy(&self.rest_bytes()).into_owned()
    }

    /// Reads until the daemon closes or resets the connection.
    pub fn rest_bytes(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes);
        bytes
    }
}

/// Returns the bytes of a request with these header lines and a Content-Length header.
pub fn request(request_line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{request_line} HTTP/1.1\r\nHost: xray-daemon:2000\r\n{headers}Content-Length: \
         {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// Makes one call over a new connection.
pub fn call(daemon: &Daemon, request_line: &str, headers: &str, body: &[u8]) -> Answer {
    Client::connect(daemon.tcp).call(request_line, headers, body)
}

/// Returns the calls that the endpoint has received, except uploads. Asserts that all of them are
/// signed.
pub fn calls(endpoint: &Endpoint) -> Vec<Call> {
    endpoint.ledger(|ledger| {
        assert!(ledger.violations.is_empty(), "{:?}", ledger.violations);
        ledger.calls.clone()
    })
}

/// Starts a daemon with these keys in its configuration file.
pub fn start(endpoint: &Endpoint, keys: &str) -> Daemon {
    start_at(&endpoint.url(), keys)
}

/// Starts a daemon with these keys in its configuration file that sends to the service at `url`.
pub fn start_at(url: &str, keys: &str) -> Daemon {
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), keys);
    Daemon::start(url, &["-c", &config], &[])
}

/// Sends a GET for `path` to the daemon's TCP port. Returns the status and the JSON body.
pub fn page(daemon: &Daemon, path: &str) -> (u16, serde_json::Value) {
    let answer = Client::connect(daemon.tcp).call(&format!("GET {path}"), "", b"");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

/// Sends a GET for `path` with this `Host` header. Returns the status and the JSON body.
pub fn page_of_host(daemon: &Daemon, host: &str, path: &str) -> (u16, serde_json::Value) {
    let mut client = Client::connect(daemon.tcp);
    client.write(format!("GET {path} HTTP/1.1\r\n{host}\r\n").as_bytes());
    let answer = client.answer();
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

/// Runs `xray healthcheck` against a daemon.
pub fn healthcheck(daemon: &Daemon, arguments: &[&str]) -> Output {
    let address = daemon.tcp.to_string();
    command(&[&["healthcheck", "-t", &address], arguments].concat()).output().unwrap()
}
