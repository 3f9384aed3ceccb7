//! Asks a running daemon for its health, for `xray healthcheck` and `xray verify`.
//!
//! In: the address of the daemon's TCP port, and a path. Out: the answer as a [`Report`] or as
//! text. Bound: [`BOUNDS`]. Thread: the caller's. This code runs in the process of `xray
//! healthcheck` or `xray verify`, not in the daemon.

use crate::admin::local_client::{Bounds, get};
use serde_json::Value;
use std::io;
use std::time::Duration;

/// The time and size bounds of a request: 4.5 s and 64 KiB. Orchestrators kill a health check after
/// 5 s, so it must print its result earlier. The answers to `/health` and `/ready` are shorter than
/// 64 KiB.
const BOUNDS: Bounds = Bounds { time: Duration::from_millis(4_500), answer_bytes: 64 * 1024 };

/// The reason why a health check fails.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The daemon's address cannot be reached, or there is no complete answer in time.
    #[error("no answer on TCP {address}: {source}. Give the daemon's address with -t or -c")]
    Unreachable {
        /// Address of the daemon, as configured.
        address: String,
        /// Error of the connection or of the name lookup.
        source: io::Error,
    },
    /// A program answers at the address, but it is not the X-Ray daemon.
    #[error("the program that answers on TCP {address} is not the X-Ray daemon")]
    NotXrayd {
        /// Address of the daemon, as configured.
        address: String,
    },
    /// The daemon reports that it is not healthy or not ready.
    #[error("{0}")]
    Unhealthy(String),
}

/// Asks the daemon that listens on `address` (`HOST:PORT`) for `path` (`/health` or `/ready`).
/// Returns the daemon's status in one word, for example `alive`.
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
    /// Status of the daemon in one word: `alive`, `wedged`, `ready` or `not_ready`.
    pub status: String,
    /// Version of the daemon. Only the answer to `/health` has it.
    pub version: Option<String>,
    /// The problems that the daemon reports, one text for each.
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
    let text = |reason: &Value| match (reason.as_str(), reason["reason"].as_str()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(text)) => {
            let code = reason["code"].as_str().unwrap_or_default();
            format!("{code} for {} s: {text}", reason["seconds"])
        }
        // The daemon tells strangers only the code.
        (None, None) => reason["code"].as_str().unwrap_or_default().to_owned(),
    };
    let reasons = body["reasons"].as_array().into_iter().flatten().map(text).collect();
    Ok(Report { is_ok, status, version, reasons })
}

/// Asks the daemon that listens on `address` for `path`. Returns whether the HTTP status is 200,
/// and the body of the answer.
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

    /// Starts a server that answers every request with `answer`, and asks it for its health.
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
             {\"code\":\"no_region\",\"seconds\":7,\"reason\":\"none\"},{\"code\":\"x\"}]}",
        );
        let text = stalled.unwrap_err().to_string();
        assert_eq!(text, "wedged: receiver 1 sleeps; no_region for 7 s: none; x");
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
