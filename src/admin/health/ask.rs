//! `xray healthcheck` and `xray verify` ask a daemon for its pages, from a process of their own.
//!
//! In: the address of its TCP port. Out: its answer, in words or as it is. Bound: [`BOUNDS`].

use crate::admin::local_client::{Bounds, get};
use serde_json::Value;
use std::io;
use std::time::Duration;

/// Orchestrators give up after 5 s, and then nobody sees why; a longer answer is not the daemon's.
const BOUNDS: Bounds = Bounds { time: Duration::from_millis(4_500), answer_bytes: 64 * 1024 };

/// Why the daemon is not well, as far as can be seen from here
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// Nobody listens, or it does not answer
    #[error("no answer on TCP {address}: {source}. Give the daemon's address with -t or -c")]
    Unreachable {
        /// As configured.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// Something else has the port
    #[error("what answers on TCP {address} is not the X-Ray daemon")]
    NotXrayd {
        /// As configured.
        address: String,
    },
    /// The daemon says that it is not well
    #[error("{0}")]
    Unhealthy(String),
}

/// Asks the daemon that listens on `address`, `HOST:PORT`, for `page`; says what it is in a word.
///
/// # Errors
///
/// When it is not well, or does not answer.
pub fn ask(address: &str, path: &str) -> Result<String, HealthError> {
    let Report { is_ok, status, reasons, .. } = report(address, path)?;
    match is_ok {
        true => Ok(status),
        false => Err(HealthError::Unhealthy(format!("{status}: {}", reasons.join("; ")))),
    }
}

/// What a daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether there is nothing to complain of.
    pub is_ok: bool,
    /// In a word.
    pub status: String,
    /// The daemon's version, where the page has it.
    pub version: Option<String>,
    /// What there is to complain of, each in words.
    pub reasons: Vec<String>,
}

/// The report on `page` of the daemon that listens on `address`.
///
/// # Errors
///
/// When there is no daemon that answers.
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

/// The body of a page of the daemon that listens on `address`, and whether its status is 200.
///
/// # Errors
///
/// When nobody answers in HTTP.
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

    /// Asks a server that says `answer` whatever it is asked.
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
    fn the_answer_is_told_in_words() {
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
    fn whoever_else_has_the_port_is_not_taken_for_the_daemon() {
        for answer in ["", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\n\r\nhello", "x\r\n\r\n{}"] {
            let error = ask_server(answer).unwrap_err();
            assert!(matches!(error, HealthError::NotXrayd { .. }), "{answer:?}: {error}");
        }
    }

    #[test]
    fn where_nobody_listens_the_flags_that_help_are_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = ask(&address, "/health").unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("-t or -c"), "{error}");
    }
}
