//! A page of a running daemon, asked for by another process: `xray healthcheck`, `verify`, `tail`.
//!
//! In: the address of its TCP port, and what to ask for. Out: the answer as it is. HTTP/1.0, whose
//! answers end with the connection. Bounds: a time for all of it, the name's lookup included, and a
//! size of the answer ([`Bounds`]). No runtime is needed.

use crate::base::address;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long, and how large.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For the answer to be complete.
    pub time: Duration,
    /// Head and body; of a longer answer there is nothing behind that.
    pub answer_bytes: usize,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalResponse {
    /// Of HTTP.
    pub status: u16,
    /// As it came.
    pub body: Vec<u8>,
}

/// Gets `target` (`/PATH?QUERY`) of the daemon that listens on `address`, `HOST:PORT`.
///
/// # Errors
///
/// When nobody answers in time; `InvalidData` when what answers does not speak HTTP.
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
            // What the system calls the end of a time.
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

/// The addresses of `address`, within `time`: the system's resolver itself takes no limit.
fn resolve(address: &str, time: Duration) -> io::Result<Vec<SocketAddr>> {
    let (sender, found) = mpsc::channel();
    let address = address.to_owned();
    // When it is late nobody listens any more, and it ends with the process.
    let look_up = move || sender.send(address::resolve(&address));
    thread::Builder::new().name("resolve".into()).spawn(look_up)?;
    found.recv_timeout(time).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_whatever_comes_behind_its_head() {
        let response = parse(b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\n{}\r\n\r\n\xff").unwrap();
        assert_eq!((response.status, &response.body[..]), (404, &b"{}\r\n\r\n\xff"[..]));
        for other in ["", "SSH-2.0-x\r\n", "x\r\n\r\n{}", "HTTP/1.1 200 OK\r\nA: b\r\n"] {
            assert_eq!(parse(other.as_bytes()), None, "{other:?}");
        }
    }
}
