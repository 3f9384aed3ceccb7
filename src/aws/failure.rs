//! Returns for a failed request the kind of failure under which telemetry and metrics count it.
//!
//! In: the status and the outcome of an answer, or an error of the HTTP client. Out: a
//! [`RequestFailure`]. Thread: any. No I/O, no clock.

use super::classify::Outcome;
use crate::base::account::RequestFailure;
use http::StatusCode;
use std::error::Error;
use std::io;

/// Returns the kind of failure of an answer. Returns `None` if the service accepted the request.
pub(super) fn of_answer(status: StatusCode, outcome: &Outcome) -> Option<RequestFailure> {
    match outcome {
        Outcome::Accepted { .. } => None,
        Outcome::Failed { .. } if status.is_client_error() => Some(RequestFailure::Http4xx),
        Outcome::Failed { .. } if status.is_server_error() => Some(RequestFailure::Http5xx),
        Outcome::Failed { .. } => Some(RequestFailure::Other),
    }
}

/// Returns the kind of failure of an error of the HTTP client. The error and its causes are checked
/// from the outside in, and the first known kind is returned.
pub(super) fn of_error(error: &(dyn Error + 'static)) -> RequestFailure {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.find_map(of_cause).unwrap_or(RequestFailure::Other)
}

fn of_cause(cause: &(dyn Error + 'static)) -> Option<RequestFailure> {
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return match error.kind() {
            io::ErrorKind::TimedOut => Some(RequestFailure::Timeout),
            io::ErrorKind::ConnectionRefused => Some(RequestFailure::ConnectionRefused),
            _ => None,
        };
    }
    // The server did not answer an HTTP/2 ping in time.
    if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout) {
        return Some(RequestFailure::Timeout);
    }
    // The type of this error of hyper-util is private, so the error is recognized by its text. A
    // test checks that the text is still correct.
    (cause.to_string() == "dns error").then_some(RequestFailure::UnknownHost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::endpoint::{Endpoint, Variant};
    use crate::aws::transport::{Resolver, Transport};
    use crate::aws::{Client, Failure, RequestBody, Timeouts};
    use bytes::Bytes;
    use http::Request;
    use std::net::TcpListener;
    use std::time::Duration;

    #[test]
    fn answers_are_counted_by_their_status() {
        let failed = Outcome::retry(String::new());
        let throttled = Outcome::Failed {
            failure: Failure::Throttle { retry_after: None },
            reason: String::new(),
        };
        for (status, outcome, kind) in [
            (400, &failed, Some(RequestFailure::Http4xx)),
            (429, &throttled, Some(RequestFailure::Http4xx)),
            (500, &failed, Some(RequestFailure::Http5xx)),
            (503, &throttled, Some(RequestFailure::Http5xx)),
            // Answers that do not come from X-Ray, for example of a captive portal.
            (200, &failed, Some(RequestFailure::Other)),
            (302, &failed, Some(RequestFailure::Other)),
            (200, &Outcome::Accepted { unprocessed: vec![] }, None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(of_answer(status, outcome), kind, "{status}");
        }
    }

    async fn kind(url: &str, request_timeout: Duration) -> RequestFailure {
        let endpoint = Endpoint::resolve(Some(url), "x", Variant::default()).unwrap();
        let timeouts = Timeouts { request: request_timeout, ..Timeouts::default() };
        let client = Client::new(&Transport::local(Resolver::start().unwrap()), timeouts);
        let mut request = Request::new(RequestBody::from(Bytes::from("{}")));
        *request.uri_mut() = endpoint.uri("/");
        client.send(request, 1_000).await.unwrap_err().kind()
    }

    #[tokio::test]
    async fn errors_on_the_way_are_counted_by_their_cause() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (short, long) = (Duration::from_millis(200), Duration::from_secs(120));
        assert_eq!(kind(&url, short).await, RequestFailure::Timeout);
        drop(listener);
        assert_eq!(kind(&url, long).await, RequestFailure::ConnectionRefused);
        // A part of a host name has at most 63 characters. This one has 64, so the lookup fails
        // without a request to a DNS server.
        let url = format!("http://{}.invalid", "x".repeat(64));
        assert_eq!(kind(&url, long).await, RequestFailure::UnknownHost);
        let timed_out = io::Error::from(io::ErrorKind::TimedOut);
        assert_eq!(of_error(&timed_out), RequestFailure::Timeout);
        assert_eq!(of_error(&io::Error::other("x")), RequestFailure::Other);
    }
}
