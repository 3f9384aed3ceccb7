//! Puts a contender under a load of spans, and measures it.
//!
//! A span counts as sent when the contender has accepted its request. So a contender that refuses
//! spans in time has lost nothing; the report has its refusals by themselves.

use super::contender::Running;
use super::span_load::SpanLoad;
use super::turn::Turn;
use super::window::{Look, drain, latency_figures, sample, wait_for_delivery, window_figures};
use crate::endpoint::Endpoint;
use crate::spans::SPAN_COUNT;
use crate::spans::sender::{self, Options, Report};
use std::io;
use std::time::{Duration, Instant};

/// Number of connections of the sender.
const CONNECTION_COUNT: usize = 4;

/// Runs a load of spans: for the first duration without, for the second with measurement. The
/// measurement begins and ends with a delivery at any rate, because a request has thousands of
/// spans.
///
/// # Errors
///
/// Fails if the contender ends or closes its port.
pub fn steady(
    running: &Running,
    load: SpanLoad,
    (warm_up, window): (Duration, Duration),
    endpoint: &Endpoint,
    seed: u64,
    turn: &mut Turn,
) -> io::Result<()> {
    let begin = Instant::now();
    let sender = sender::start(Options {
        target: running.spans(load),
        protocol: running.span_protocol(load),
        rate: load.rate.into(),
        is_gzip: load.is_gzip,
        connection_count: CONNECTION_COUNT,
        seed,
        first_batch: 0,
        batch_count_max: u64::MAX,
    })?;
    sample(running, begin, warm_up, turn);
    wait_for_delivery(endpoint);
    let first = Look::take(running, endpoint, sender.sent_count())?;
    sample(running, begin, window, turn);
    wait_for_delivery(endpoint);
    let last = Look::take(running, endpoint, sender.sent_count())?;
    let report = sender.stop()?;
    drain(endpoint, report.accepted_count);
    window_figures(&first, &last, turn);
    latency_figures(&first, &last, endpoint, turn);
    let counts = endpoint.counts();
    turn.put("delivered", counts.delivered_count as f64);
    turn.put("delivered_share", counts.delivered_count as f64 / report.accepted_count as f64);
    turn.put("duplicates", counts.duplicate_count as f64);
    turn.put("connections", counts.connection_count as f64);
    turn.put("sent_bytes_per_span", counts.body_bytes as f64 / counts.delivered_count as f64);
    load_figures(&report, turn);
    turn.discarded = why_not_counted(&report);
    Ok(())
}

/// Records the figures of the whole load.
fn load_figures(report: &Report, turn: &mut Turn) {
    turn.put("batch_spans", SPAN_COUNT as f64);
    turn.put("offered", report.offered_count as f64);
    turn.put("sent", report.accepted_count as f64);
    turn.put("refused", (report.refused_count + report.rejected_count) as f64);
    turn.put("received_bytes_per_span", report.body_bytes as f64 / report.offered_count as f64);
    turn.put("sender_late_max_us", report.late_max_us);
    turn.put("sender_held_up_s", report.held_up_s);
}

/// Returns why a load does not count: requests failed in a way in which nobody knows whether the
/// contender has accepted their spans.
fn why_not_counted(report: &Report) -> Option<String> {
    let trouble = report.first_trouble.as_deref().unwrap_or_default();
    let count = report.failed_count;
    (count > 0).then(|| format!("requests with {count} spans failed; the first trouble: {trouble}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_counts_with_refusals_and_not_with_failures() {
        let first_trouble = Some("503 full".to_owned());
        let refused = Report { refused_count: 512, first_trouble, ..Report::default() };
        assert_eq!(why_not_counted(&refused), None);
        let failed = Report { failed_count: 512, ..refused };
        assert!(why_not_counted(&failed).unwrap().contains("503 full"));
    }

    #[test]
    fn spans_that_were_refused_are_not_sent() {
        let report = Report {
            offered_count: 4 * 512,
            accepted_count: 2 * 512 - 5,
            rejected_count: 5,
            refused_count: 2 * 512,
            ..Report::default()
        };
        let mut turn = Turn::default();
        load_figures(&report, &mut turn);
        assert_eq!((turn.figures["sent"], turn.figures["refused"]), (1_019.0, 1_029.0));
    }
}
