//! Checks of the running daemon: sends a test segment to the daemon and follows it to the service.
//!
//! In: the addresses of the daemon, and the [`Service`]. Out: lines of the checklist. The test
//! segment has the name [`NAME`] and is the only segment of its trace. The check reads the daemon's
//! counters. First the number of received segments must grow. Then the daemon must settle all
//! segments that it has received so far, and must not drop or reject any of them. If other segments
//! arrive at the same time, the counters do not prove this for the test segment. So the trace is
//! also read back from the service, if the credentials allow it.

use super::Checklist;
use super::service::Service;
use crate::admin::health::ask::{self, HealthError};
use crate::aws::ANSWER_BYTES_MAX;
use crate::base::address;
use crate::config::Config;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The name of the check of the test segment.
pub(super) const CHECK: &str = "segment";

/// The name of the test segment, as the X-Ray console shows it.
const NAME: &str = "xray-verify";

/// Time for the datagram to arrive. On the same host it arrives at once or never.
const ARRIVAL_TIME: Duration = Duration::from_secs(3);

/// Time for the service to accept the segment. A batch is sent when it is 1 s old; the rest of the
/// time is for retries. If the daemon is not ready, only [`ACCEPTANCE_TIME_NOT_READY`] applies.
const ACCEPTANCE_TIME: Duration = Duration::from_secs(15);
const ACCEPTANCE_TIME_NOT_READY: Duration = Duration::from_secs(3);

/// Time for the service to show the trace, which usually takes a few seconds.
const READ_BACK_TIME: Duration = Duration::from_secs(15);

/// Pause between two requests to the daemon, and between two requests to the service.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
const READ_BACK_INTERVAL: Duration = Duration::from_secs(1);

/// The URL path of the X-Ray call `BatchGetTraces`, which reads traces from the service.
const READ_BACK_PATH: PathAndQuery = PathAndQuery::from_static("/Traces");

/// The text for a daemon that ended during the check.
const GONE: &str = "the daemon ended, or does not answer any more, while it had the segment";

/// The daemon's counters of segments at one moment.
#[derive(Debug, Clone, Copy)]
struct Counts {
    received: u64,
    sent: u64,
    rejected: u64,
    dropped: u64,
    spooled: u64,
    replayed: u64,
}

impl Counts {
    /// Reads the counters from the text of `/metrics`. The values of a metric with different labels
    /// are added up.
    fn of(page: &str) -> Self {
        let sum = |name: &str| -> u64 {
            let values = page.lines().filter_map(|line| {
                let rest = line.strip_prefix(name)?;
                let value = rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next())??;
                value.parse::<u64>().ok()
            });
            values.sum()
        };
        Self {
            received: sum("xray_segments_received_total"),
            sent: sum("xray_segments_sent_total"),
            rejected: sum("xray_segments_rejected_total"),
            dropped: sum("xray_segments_dropped_total"),
            spooled: sum("xray_segments_spooled_total"),
            replayed: sum("xray_segments_replayed_total"),
        }
    }

    /// Returns the number of received segments that the daemon no longer holds in memory.
    fn settled(&self) -> u64 {
        let left = self.sent + self.rejected + self.dropped + self.spooled;
        left.saturating_sub(self.replayed)
    }
}

/// The outcome of the test segment.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// The service has accepted the test segment and every segment that the daemon received before
    /// it.
    Accepted,
    /// The service has rejected the test segment, or another segment that arrived at the same time.
    Rejected,
    /// The daemon has dropped the test segment or written it to the spool, or has done so with
    /// another segment that arrived at the same time.
    Dropped,
    /// The daemon has ended while it held the test segment.
    Gone,
    /// The outcome is not known yet: the daemon holds the test segment.
    Open,
}

impl Fate {
    /// Returns the outcome of a segment that arrived after the counters had the values `before` and
    /// until they had the values `arrival`. `now` has the current values.
    fn of(before: Counts, arrival: Counts, now: Counts) -> Self {
        if now.received < arrival.received {
            // The counter is smaller than before: another daemon runs now, with counters that start
            // at 0.
            Self::Gone
        } else if now.settled() < arrival.received {
            Self::Open
        } else if now.rejected > before.rejected {
            Self::Rejected
        } else if now.dropped > before.dropped || now.spooled > before.spooled {
            Self::Dropped
        } else {
            Self::Accepted
        }
    }
}

pub(super) async fn check(config: &Config, service: Option<&Service>, list: &mut Checklist<'_>) {
    let Some(is_ready) = check_daemon(&config.tcp_address, list) else { return };
    let patience = if is_ready { ACCEPTANCE_TIME } else { ACCEPTANCE_TIME_NOT_READY };
    let trace_id = new_trace_id();
    if send_and_follow(config, &trace_id, patience, list).await
        && let Some(service) = service
    {
        read_back(service, &trace_id, list).await;
    }
}

/// Checks liveness and readiness of the daemon. Returns whether the daemon can send segments, or
/// `None` if no daemon answers.
fn check_daemon(address: &str, list: &mut Checklist<'_>) -> Option<bool> {
    let report = match ask::report(address, "/health") {
        Ok(report) => report,
        Err(error @ HealthError::Unreachable { .. }) => {
            let advice = "Start the daemon, or correct the address: it must be the daemon's \
                          Socket.TCPAddress";
            list.fail("daemon", error.to_string(), advice);
            return None;
        }
        Err(error) => {
            let advice = "Stop the program that has the port, perhaps the original daemon, or give \
                          the address of the daemon with -t";
            list.fail("daemon", error.to_string(), advice);
            return None;
        }
    };
    let version = report.version.unwrap_or_default();
    let text = format!("xrayd {version} on TCP {address} is {}", report.status);
    if !report.is_ok {
        let advice = "This is a fault of xrayd: restart it, and report it";
        list.fail("daemon", format!("{text}: {}", report.reasons.join("; ")), advice);
    } else if version != env!("CARGO_PKG_VERSION") {
        let advice = "Restart it after an update";
        list.note("daemon", format!("{text}; this is {}", env!("CARGO_PKG_VERSION")), advice);
    } else {
        list.ok("daemon", text);
    }
    match ask::report(address, "/ready") {
        Ok(report) if report.is_ok => list.ok("ready", "nothing keeps segments from being sent"),
        Ok(report) => list.fail(
            "ready",
            format!("the daemon cannot send what it has: {}", report.reasons.join("; ")),
            "Fix that. If the checks above have passed, the daemon runs with other settings, \
             credentials or another network than this command",
        ),
        Err(error) => list.fail("ready", error.to_string(), ""),
    }
    Some(list.is_last_ok())
}

/// Returns a trace id with the current time and a random number.
fn new_trace_id() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = fastrand::u128(..) >> 32;
    format!("1-{:08x}-{number:024x}", now.as_secs() & 0xffff_ffff)
}

/// Returns the datagram of the test segment, as an SDK would send it.
fn datagram(trace_id: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let document = json!({
        "trace_id": trace_id,
        "id": format!("{:016x}", fastrand::u64(..)),
        "name": NAME,
        "start_time": now - 0.001,
        "end_time": now,
        "annotations": {"xrayd_verify": true},
    });
    format!("{{\"format\":\"json\",\"version\":1}}\n{document}")
}

/// Sends the test segment and waits until the service has accepted it. Returns whether the service
/// may have the trace.
async fn send_and_follow(
    config: &Config,
    trace_id: &str,
    patience: Duration,
    list: &mut Checklist<'_>,
) -> bool {
    let (udp, tcp) = (&config.udp_address, &config.tcp_address);
    let counts = || ask::fetch(tcp, "/metrics").map(|(_, page)| Counts::of(&page));
    let followed = async {
        let before = counts().map_err(|error| error.to_string())?;
        send(udp, &datagram(trace_id)).map_err(|error| format!("UDP {udp}: {error}"))?;
        let arrival = wait(ARRIVAL_TIME, || match counts() {
            Ok(now) => (now.received > before.received).then_some(Ok(now)),
            Err(_) => Some(Err(GONE.to_owned())),
        });
        let arrival =
            arrival.await.ok_or(format!("the segment sent to UDP {udp} does not arrive"))?;
        Ok::<_, String>((before, arrival?))
    };
    let (before, arrival) = match followed.await {
        Ok(counts) => counts,
        Err(problem) => {
            let advice = "Give the addresses of the daemon with -b and -t: another program or \
                          container has these addresses, or a firewall blocks them";
            list.fail(CHECK, problem, advice);
            return false;
        }
    };
    let fate = wait(patience, || {
        let fate = counts().map_or(Fate::Gone, |now| Fate::of(before, arrival, now));
        (fate != Fate::Open).then_some(fate)
    });
    let log = "The daemon's log names the segment and the reason";
    match fate.await.unwrap_or(Fate::Open) {
        Fate::Accepted => {
            list.ok(CHECK, format!("the service has accepted it (trace {trace_id})"));
            return true;
        }
        // Other segments arrived at the same time. Perhaps one of them failed and not the test
        // segment.
        Fate::Rejected | Fate::Dropped if arrival.received > before.received + 1 => {
            let text = format!(
                "it was received; some segments at the same time were not accepted (trace \
                 {trace_id})"
            );
            list.note(CHECK, text, log);
            return true;
        }
        Fate::Rejected => list.fail(CHECK, "the service rejects it", log),
        Fate::Gone => {
            list.fail(CHECK, GONE, "Its log, or the log of the system, says why it ended")
        }
        Fate::Dropped => {
            let advice = "The daemon cannot send: see the checks above, and its log";
            list.fail(CHECK, "it was received, and dropped or written to the spool", advice);
        }
        Fate::Open => {
            let seconds = patience.as_secs();
            let text = format!("it was received and is not accepted after {seconds} s; it is kept");
            let advice = "The daemon cannot send, or has many older segments to send: see /ready, \
                          its log and xray_segments_held";
            list.fail(CHECK, text, advice);
        }
    }
    false
}

/// Sends a datagram, and waits up to [`ASK_INTERVAL`] for an ICMP error (closed port).
///
/// # Errors
///
/// Fails if the address cannot be resolved, or no socket is bound to it.
fn send(address: &str, datagram: &str) -> io::Result<()> {
    let target = address::resolve(address)?.into_iter().map(address::reachable).next();
    let target = target.ok_or(io::ErrorKind::NotFound)?;
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    socket.send(datagram.as_bytes())?;
    // The daemon does not answer a datagram. The only result can be the error for a closed port.
    socket.set_read_timeout(Some(ASK_INTERVAL))?;
    match socket.recv(&mut [0]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(io::Error::other("no program listens there"))
        }
        _ => Ok(()),
    }
}

/// Calls `look` every [`ASK_INTERVAL`] until it returns a value or `time` is over.
async fn wait<T>(time: Duration, look: impl Fn() -> Option<T>) -> Option<T> {
    let end = Instant::now() + time;
    loop {
        match look() {
            Some(found) => return Some(found),
            None if Instant::now() >= end => return None,
            None => tokio::time::sleep(ASK_INTERVAL).await,
        }
    }
}

/// The answer of the service to a request for a trace.
enum Reading {
    Found,
    NotYet,
    Denied(String),
    Failed(String),
}

/// Reads the trace back from the service, until [`READ_BACK_TIME`] is over.
async fn read_back(service: &Service, trace_id: &str, list: &mut Checklist<'_>) {
    let look = |why: &str| format!("{why}; look for trace {trace_id} in the console");
    let end = Instant::now() + READ_BACK_TIME;
    loop {
        match read(service, trace_id).await {
            Reading::Found => {
                return list.ok("read_back", format!("the service shows trace {trace_id}"));
            }
            Reading::NotYet if Instant::now() < end => {}
            Reading::NotYet => {
                let why = format!("not shown after {} s", READ_BACK_TIME.as_secs());
                let advice =
                    "The service may need longer, or the segment is in another account or region";
                return list.note("read_back", look(&why), advice);
            }
            Reading::Denied(reason) => {
                let why = format!("these credentials may not read traces ({reason})");
                let advice =
                    "The daemon does not need this: xray:BatchGetTraces is no part of its policy";
                return list.note("read_back", look(&why), advice);
            }
            Reading::Failed(reason) => return list.note("read_back", look(&reason), ""),
        }
        tokio::time::sleep(READ_BACK_INTERVAL).await;
    }
}

async fn read(service: &Service, trace_id: &str) -> Reading {
    let Service { client, signer, credentials } = service;
    let body = Bytes::from(json!({"TraceIds": [trace_id]}).to_string());
    let json = HeaderValue::from_static("application/json");
    let head = (Method::POST, &READ_BACK_PATH, HeaderMap::from_iter([(CONTENT_TYPE, json)]));
    let request = match signer.sign_for_client(head, body, credentials, SystemTime::now()) {
        Ok(request) => request,
        Err(error) => return Reading::Failed(error.to_string()),
    };
    let answer = match client.send(request, ANSWER_BYTES_MAX).await {
        Ok(answer) => answer,
        Err(error) => return Reading::Failed(error.to_string()),
    };
    let text = match answer.text() {
        Ok(text) => text,
        Err(error) => return Reading::Failed(format!("{}, and {error}", answer.status)),
    };
    let body: Value = serde_json::from_slice(&text).unwrap_or_default();
    if answer.status == StatusCode::FORBIDDEN {
        return Reading::Denied("xray:BatchGetTraces".to_owned());
    }
    if !answer.status.is_success() {
        return Reading::Failed(format!("the service answers {}", answer.status));
    }
    let traces = body["Traces"].as_array().into_iter().flatten();
    let mut segments = traces.filter_map(|trace| trace["Segments"].as_array()).flatten();
    let is_there =
        segments.any(|part| part["Document"].as_str().is_some_and(|it| it.contains(NAME)));
    if is_there { Reading::Found } else { Reading::NotYet }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(received: u64, sent: u64, rejected: u64, dropped: u64) -> Counts {
        Counts { received, sent, rejected, dropped, spooled: 0, replayed: 0 }
    }

    #[test]
    fn counters_are_summed_over_their_labels() {
        let page = "# TYPE xray_segments_rejected counter\n\
                    xray_segments_received_total 12\nxray_segments_sent_total 7\n\
                    xray_segments_rejected_total{reason=\"header\"} 2\n\
                    xray_segments_rejected_total{reason=\"refused\"} 3\n\
                    xray_segments_received_total_more 99\n";
        let counts = Counts::of(page);
        assert_eq!((counts.received, counts.sent, counts.rejected, counts.dropped), (12, 7, 5, 0));
        assert_eq!(counts.settled(), 12);
    }

    #[test]
    fn a_segment_is_accepted_when_all_earlier_segments_are_settled() {
        let (before, arrival) = (counts(10, 8, 0, 0), counts(11, 9, 0, 0));
        let fate = |now| Fate::of(before, arrival, now);
        assert_eq!(fate(counts(11, 10, 0, 0)), Fate::Open);
        assert_eq!(fate(counts(11, 11, 0, 0)), Fate::Accepted);
        // Segments that the daemon received after the test segment do not change the outcome.
        assert_eq!(fate(counts(500, 11, 0, 0)), Fate::Accepted);
        assert_eq!(fate(counts(11, 10, 1, 0)), Fate::Rejected);
        assert_eq!(fate(counts(11, 10, 0, 1)), Fate::Dropped);
        assert_eq!(fate(counts(0, 0, 0, 0)), Fate::Gone, "started anew");
        let spooled = Counts { spooled: 1, ..counts(11, 10, 0, 0) };
        assert_eq!(fate(spooled), Fate::Dropped);
    }

    #[test]
    fn trace_ids_have_the_format_of_the_service_and_differ() {
        let [first, second] = [new_trace_id(), new_trace_id()];
        assert_ne!(first, second);
        let parts: Vec<_> = first.split('-').map(str::len).collect();
        assert_eq!(parts, [1, 8, 24]);
        let datagram = datagram(&first);
        let (_, document) = datagram.split_once('\n').unwrap();
        let document: Value = serde_json::from_str(document).unwrap();
        assert_eq!((&document["trace_id"], &document["name"]), (&first.into(), &NAME.into()));
    }
}
