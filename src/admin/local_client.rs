//! The local client: a small HTTP client with which `xray healthcheck`, `verify` and `tail` ask a
//! running daemon.
//!
//! In: the address of the daemon's TCP port, and a path. Out: the status and the body of the
//! answer. Bound: a time for the whole request, including the name lookup, and a size for the
//! answer ([`Bounds`]). Thread: the caller's, which blocks; no tokio runtime is needed. The client
//! uses HTTP/1.0: the daemon closes the connection at the end of its answer.

use crate::base::address;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The bounds of a request of the local client.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Time in which the answer must be complete.
    pub time: Duration,
    /// Longest answer that is read, in bytes, including status line and headers. A longer answer is
    /// cut off.
    pub answer_bytes: usize,
}

/// The HTTP answer of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalResponse {
    /// HTTP status code.
    pub status: u16,
    /// Body of the answer. It is cut off if the answer is longer than [`Bounds::answer_bytes`].
    pub body: Vec<u8>,
}

/// Sends `GET target` (`/PATH?QUERY`) to the daemon that listens on `address` (`HOST:PORT`).
///
/// # Errors
///
/// Returns an error if there is no complete answer in time. The kind of the error is `InvalidData`
/// if the answer is not HTTP.
pub fn get(address: &str, target: &str, bounds: Bounds) -> io::Result<LocalResponse> {
    let answer = send_request(address, target, bounds)?;
    parse(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse(answer: &[u8]) -> Option<LocalResponse> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok()?;
    Some(LocalResponse { status, body: answer[end + 4..].to_vec() })
}

fn send_request(address: &str, target: &str, bounds: Bounds) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + bounds.time;
    let time_left =
        || deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let addresses = resolve(address, time_left())?;
    let first = addresses.first().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address::reachable(*first), time_left())?;
    stream.set_write_timeout(Some(time_left()))?;
    stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        stream.set_read_timeout(Some(time_left()))?;
        let count = stream.read(&mut buffer).map_err(|error| match error.kind() {
            // Linux reports `EAGAIN` when the read timeout of a socket expires (`socket`(7)).
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })?;
        answer.extend_from_slice(&buffer[..count]);
        if count == 0 || answer.len() > bounds.answer_bytes {
            answer.truncate(bounds.answer_bytes);
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// Resolves `address` within `time`. The system's resolver has no parameter for a timeout, so the
/// lookup runs on a separate thread.
fn resolve(address: &str, time: Duration) -> io::Result<Vec<SocketAddr>> {
    let (sender, found) = mpsc::channel();
    let address = address.to_owned();
    // If the lookup takes too long, its result is ignored. Its thread ends with the process.
    let look_up = move || sender.send(address::resolve(&address));
    thread::Builder::new().name("resolve".into()).spawn(look_up)?;
    found.recv_timeout(time).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let response = parse(b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\n{}\r\n\r\n\xff").unwrap();
        assert_eq!((response.status, &response.body[..]), (404, &b"{}\r\n\r\n\xff"[..]));
        for other in ["", "SSH-2.0-x\r\n", "x\r\n\r\n{}", "HTTP/1.1 200 OK\r\nA: b\r\n"] {
            assert_eq!(parse(other.as_bytes()), None, "{other:?}");
        }
    }
}
