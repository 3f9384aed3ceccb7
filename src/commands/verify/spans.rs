//! Checks that X-Ray takes spans of OpenTelemetry: Transaction Search has to be on.
//!
//! In: the service. Out: a line of the checklist, if the daemon takes spans. Bound: the timeouts of
//! the client.

use super::Checklist;
use super::service::Service;
use crate::aws::{ANSWER_BYTES_MAX, Outcome, SpansTo, classify};
use crate::config::Config;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use std::time::SystemTime;

const CHECK: &str = "spans";

/// The operation that says where X-Ray keeps spans, see
/// <https://docs.aws.amazon.com/xray/latest/api/API_GetTraceSegmentDestination.html>.
const PATH: &str = "/GetTraceSegmentDestination";

const SWITCH_ON: &str = "Switch on Transaction Search: in the console of CloudWatch, or with aws \
                         xray update-trace-segment-destination --destination CloudWatchLogs. \
                         Otherwise X-Ray refuses spans, and the daemon keeps them";

const ALLOW: &str = "Allow xray:GetTraceSegmentDestination to check it. The daemon itself does \
                     not need it";

/// Asks whether Transaction Search is on.
pub(super) async fn check(config: &Config, service: &Service, list: &mut Checklist<'_>) {
    if !config.takes_spans() || config.otlp_to != SpansTo::Endpoint {
        return;
    }
    let Service { client, signer, credentials } = service;
    let headers =
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let (target, signed_at) = (PathAndQuery::from_static(PATH), SystemTime::now());
    let body = Bytes::from_static(b"{}");
    let parts = (Method::POST, &target, headers);
    let request = match signer.sign_for_client(parts, body, credentials, signed_at) {
        Ok(request) => request,
        Err(error) => return list.note(CHECK, error.to_string(), ALLOW),
    };
    let answer = match client.send(request, ANSWER_BYTES_MAX).await {
        Ok(answer) => answer,
        Err(error) => return list.note(CHECK, error.to_string(), ALLOW),
    };
    if !answer.status.is_success() {
        let outcome = classify(answer.status, &answer.headers, &answer.body, signed_at);
        let Outcome::Failed { reason, .. } = outcome else { return };
        return list.note(CHECK, format!("the destination of spans is not known: {reason}"), ALLOW);
    }
    let answer: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let field = |name: &str| answer[name].as_str().unwrap_or("not known").to_owned();
    match (field("Destination").as_str(), field("Status").as_str()) {
        ("CloudWatchLogs", "ACTIVE") => list.ok(CHECK, "Transaction Search is on"),
        ("CloudWatchLogs", status) => {
            list.note(CHECK, format!("Transaction Search is being switched on ({status})"), "");
        }
        (destination, _) => {
            let text = format!("Transaction Search is off (the destination is {destination})");
            list.fail(CHECK, text, SWITCH_ON);
        }
    }
}
