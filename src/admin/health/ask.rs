//! Asks a running daemon for its health, for `xray healthcheck` and `xray verify`.
//!
//! In: the address of the daemon's TCP port, and a path. Out: the answer as a [`Report`] or as
//! text. Bound: [`BOUNDS`]. Thread: the caller's, in a process other than the daemon's.

use crate::admin::local_client::{Bounds, get};
use serde_json::Value;
use std::io;
use std::time::Duration;

/// The bounds of a request. Orchestrators kill a health check after 5 s, so it must print its
/// reason before then. An answer of a daemon to `/health` or `/ready` is shorter than 64 KiB.
const BOUNDS: Bounds = Bounds { time: Duration::from_millis(4_500), answer_bytes: 64 * 1024 };

/// The daemon is not healthy, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The address cannot be reached, or there is no answer in time.
    #[error("no answer on TCP {address}: {source}. Give the daemon's address with -t or -c")]
    Unreachable {
        /// Configured address.
        address: String,
        /// Error of the system.
        source: io::Error,
    },
    /// Another program uses the port.
    #[error("the program that answers on TCP {address} is not the X-Ray daemon")]
    NotXrayd {
        /// Configured address.
        address: String,
    },
    /// The daemon reports that it is not healthy or not ready.
    #[error("{0}")]
    Unhealthy(String),
}

/// Asks the daemon that listens on `address` (`HOST:PORT`) for `path`, and returns its status in
/// one word, for example `alive`.
///
/// # Errors
///
/// Returns an error if the daemon reports a problem or does not answer.
pub fn ask(address: &str, path: &str) -> Result<String, HealthError> {
    let Report { is_ok, status, reasons, .. } = report(address, path)?;
    match is_ok {
        true => Ok(status),
        false => Err(HealthError::Unhealthy(format!("{status}: {}", reasons.join("; ")))),
    }
}

/// The answer of a daemon to `/health` or `/ready`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether the daemon reports no problem.
    pub is_ok: bool,
    /// Status in one word: `alive`, `wedged`, `ready` or `not_ready`.
    pub status: String,
    /// Version of the daemon; only `/health` has it.
    pub version: Option<String>,
    /// Problems, each as a text.
    pub reasons: Vec<String>,
}

/// Asks the daemon that listens on `address` for `path` (`/health` or `/ready`), and returns its
/// report.
///
/// # Errors
///
/// Returns an error if no daemon answers.
pub fn report(address: &str, path: &str) -> Result<Report, HealthError> {
    let (is_ok, body) = fetch(address, path)?;
    let not_xrayd = || HealthError::NotXrayd { address: address.to_owned() };
    let body: Value = serde_json::from_str(&body).map_err(|_| not_xrayd())?;
    let status = body["status"].as_str().ok_or_else(not_xrayd)?.to_owned();
    let version = body["version"].as_str().map(str::to_owned);
    let text = |reason: &Value| match reason.as_str() {
        Some(text) => text.to_owned(),
        None => format!(
            "{} for {} s: {}",
            reason["code"].as_str().unwrap_or_default(),
            reason["seconds"],
            reason["reason"].as_str().unwrap_or_default()
        ),
    };
    let reasons = body["reasons"].as_array().into_iter().flatten().map(text).collect();
    Ok(Report { is_ok, status, version, reasons })
}

/// Asks the daemon that listens on `address` for `path`. Returns whether the status is 200, and the
/// body.
///
/// # Errors
///
/// Returns an error if there is no HTTP answer.
pub fn fetch(address: &str, path: &str) -> Result<(bool, String), HealthError> {
    let address = || address.to_owned();
    let answer = get(&address(), path, BOUNDS).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => HealthError::NotXrayd { address: address() },
        _ => HealthError::Unreachable { address: address(), source },
    })?;
    Ok((answer.status == 200, String::from_utf8_lossy(&answer.body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    /// Asks a server that sends `answer` to every request.
    fn ask_server(answer: &'static str) -> Result<String, HealthError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1000]);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let result = ask(&address, "/health");
        server.join().unwrap();
        result
    }

    #[test]
    fn the_answer_is_returned_as_text() {
        let alive = ask_server("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"status\":\"alive\"}");
        assert_eq!(alive.unwrap(), "alive");
        let stalled = ask_server(
            "HTTP/1.0 503 x\r\n\r\n{\"status\":\"wedged\",\"reasons\":[\"receiver 1 sleeps\", \
             {\"code\":\"no_region\",\"seconds\":7,\"reason\":\"none\"}]}",
        );
        let text = stalled.unwrap_err().to_string();
        assert_eq!(text, "wedged: receiver 1 sleeps; no_region for 7 s: none");
    }

    #[test]
    fn another_program_on_the_port_is_not_taken_for_the_daemon() {
        for answer in ["", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\n\r\nhello", "x\r\n\r\n{}"] {
            let error = ask_server(answer).unwrap_err();
            assert!(matches!(error, HealthError::NotXrayd { .. }), "{answer:?}: {error}");
        }
    }

    #[test]
    fn an_unreachable_address_is_an_error_that_names_the_flags() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = ask(&address, "/health").unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("-t or -c"), "{error}");
    }
}
