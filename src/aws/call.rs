//! One call of the service: sends a signed request and classifies its answer.
//!
//! In: a signed request. Out: a [`Reading`], and the kind of failure for the counters. Bound: the
//! timeouts of the [`Client`], and [`ANSWER_BYTES_MAX`] for the answer. Thread: the caller's.

use super::{ANSWER_BYTES_MAX, Answer, Client, Media, Outcome, Reading, RequestBody, RequestError};
use super::{classify, failure};
use crate::base::account::RequestFailure;
use http::Request;
use std::time::{Duration, SystemTime};

/// Sends `request`, which was signed with the time `signed_at`. Returns the classified answer and
/// the kind of failure to count. The kind is `None` if the service accepted the request.
pub async fn call(
    client: &Client,
    request: Request<RequestBody>,
    signed_at: SystemTime,
) -> (Reading, Option<RequestFailure>) {
    let media = request.body().media();
    let (status, headers, body, waited) = match client.send(request, ANSWER_BYTES_MAX).await {
        Ok(Answer { status, headers, body, waited }) => (status, headers, Some(body), waited),
        Err(RequestError::TooLarge { status, headers, .. }) => {
            (status, *headers, None, Duration::ZERO)
        }
        Err(error) => return (Outcome::retry(error.to_string()).into(), Some(error.kind())),
    };
    let read = match media {
        Media::Json => classify::read,
        Media::SpansProtobuf | Media::SpansJson => classify::read_spans,
    };
    let reading = read(status, &headers, body.as_deref(), signed_at);
    let reading = Reading { waited, ..reading };
    let failure = failure::of_answer(status, &reading.outcome);
    (reading, failure)
}
