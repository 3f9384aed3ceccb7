//! Telemetry records, and the backlog of records that wait to be sent.
//!
//! In: the counts of the account at two times. Out: the record with their differences. Bound:
//! [`RECORD_COUNT_MAX`] records. When full: the oldest record is removed. Thread: main.

use crate::base::account::{Account, RequestFailure};
use serde::Serialize;
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest number of records that wait to be sent. One record is made a minute, so this is half an
/// hour. The original daemon has the same limit.
const RECORD_COUNT_MAX: usize = 30;

/// Largest number of records in one request. The original daemon has the same limit.
const RECORD_COUNT_OF_CALL_MAX: usize = 10;

/// The counts that a telemetry record contains, as read from the account at one time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    received: u64,
    sent: u64,
    dropped: u64,
    rejected: u64,
    failures: [u64; RequestFailure::ALL.len()],
}

impl Counts {
    pub fn read(account: &Account) -> Self {
        Self {
            received: account.received.get(),
            sent: account.sent.get(),
            dropped: account.dropped_total(),
            rejected: account.rejected_total(),
            failures: RequestFailure::ALL.map(|kind| account.request_failures(kind).get()),
        }
    }

    /// Returns a record with the time `at`. Its counts are the differences between `self` and the
    /// earlier counts `before`.
    pub fn since(&self, before: &Self, at: SystemTime) -> Record {
        let failures = |kind: RequestFailure| {
            count(self.failures[kind as usize] - before.failures[kind as usize])
        };
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Record {
            timestamp: (since_epoch.as_secs_f64() * 1000.0).round() / 1000.0,
            segments_received_count: count(self.received - before.received),
            segments_sent_count: count(self.sent - before.sent),
            segments_spillover_count: count(self.dropped - before.dropped),
            segments_rejected_count: count(self.rejected - before.rejected),
            backend_connection_errors: BackendConnectionErrors {
                timeout_count: failures(RequestFailure::Timeout),
                connection_refused_count: failures(RequestFailure::ConnectionRefused),
                http_4xx_count: failures(RequestFailure::Http4xx),
                http_5xx_count: failures(RequestFailure::Http5xx),
                unknown_host_count: failures(RequestFailure::UnknownHost),
                other_count: failures(RequestFailure::Other)
                    .saturating_add(failures(RequestFailure::Unsigned)),
            },
        }
    }
}

/// Converts a count to a 32-bit integer, the type in the service's API. A count that does not fit
/// becomes `i32::MAX`.
fn count(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A telemetry record, with the fields of `TelemetryRecord` in the service's API.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Record {
    /// Time of the record, in seconds since 1970 with three decimals.
    timestamp: f64,
    segments_received_count: i32,
    segments_sent_count: i32,
    /// Number of segments that the daemon dropped.
    segments_spillover_count: i32,
    segments_rejected_count: i32,
    backend_connection_errors: BackendConnectionErrors,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct BackendConnectionErrors {
    timeout_count: i32,
    connection_refused_count: i32,
    #[serde(rename = "HTTPCode4XXCount")]
    http_4xx_count: i32,
    #[serde(rename = "HTTPCode5XXCount")]
    http_5xx_count: i32,
    unknown_host_count: i32,
    other_count: i32,
}

/// The records that wait to be sent, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Backlog(Vec<Record>);

impl Backlog {
    /// Adds a record. Returns whether the oldest one was removed for it.
    pub fn push(&mut self, record: Record) -> bool {
        let is_full = self.0.len() == RECORD_COUNT_MAX;
        if is_full {
            self.0.remove(0);
        }
        self.0.push(record);
        is_full
    }

    /// Returns the oldest records, at most [`RECORD_COUNT_OF_CALL_MAX`].
    pub fn oldest(&self) -> &[Record] {
        &self.0[..self.0.len().min(RECORD_COUNT_OF_CALL_MAX)]
    }

    /// Removes the oldest `record_count` records.
    pub fn remove_oldest(&mut self, record_count: usize) {
        self.0.drain(..record_count);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::account::{DropReason, RejectReason};
    use std::time::Duration;

    #[test]
    fn a_record_has_what_was_counted_since_the_one_before() {
        let account = Account::default();
        account.received.add(100);
        let before = Counts::read(&account);
        account.received.add(20);
        account.sent.add(9);
        account.dropped(DropReason::Memory).add(1);
        account.dropped(DropReason::SpoolAge).add(2);
        account.rejected(RejectReason::Header).add(3);
        account.rejected(RejectReason::Refused).add(4);
        for (kind, number) in RequestFailure::ALL.into_iter().zip(1..) {
            account.request_failures(kind).add(number);
        }
        let at = UNIX_EPOCH + Duration::new(1_795_354_918, 42_000_000);
        let record = Counts::read(&account).since(&before, at);
        assert_eq!(
            serde_json::to_value(&record).unwrap(),
            serde_json::json!({
                "Timestamp": 1_795_354_918.042,
                "SegmentsReceivedCount": 20,
                "SegmentsSentCount": 9,
                "SegmentsSpilloverCount": 3,
                "SegmentsRejectedCount": 7,
                "BackendConnectionErrors": {
                    "TimeoutCount": 1,
                    "ConnectionRefusedCount": 2,
                    "HTTPCode4XXCount": 3,
                    "HTTPCode5XXCount": 4,
                    "UnknownHostCount": 5,
                    "OtherCount": 13,
                },
            })
        );
        // `Timestamp` must have no exponent (such as `1.79e9`), because some JSON parsers do not
        // accept an exponent.
        assert!(serde_json::to_string(&record).unwrap().contains(r#""Timestamp":1795354918.042,"#));
        account.received.add(u64::from(u32::MAX));
        let much = Counts::read(&account).since(&before, at);
        assert_eq!(much.segments_received_count, i32::MAX);
    }

    #[test]
    fn thirty_records_wait_and_ten_go_at_a_time_the_oldest_first() {
        let account = Account::default();
        let mut backlog = Backlog::default();
        let pushed = (0..35).map(|second| {
            let at = UNIX_EPOCH + Duration::from_secs(second);
            backlog.push(Counts::read(&account).since(&Counts::default(), at))
        });
        assert_eq!(pushed.filter(|is_dropping| *is_dropping).count(), 5);
        let mut calls: Vec<Vec<f64>> = Vec::new();
        while !backlog.is_empty() {
            calls.push(backlog.oldest().iter().map(|record| record.timestamp).collect());
            backlog.remove_oldest(calls.last().unwrap().len());
        }
        let seconds = |from: u32| (from..from + 10).map(f64::from).collect::<Vec<_>>();
        assert_eq!(calls, [seconds(5), seconds(15), seconds(25)]);
    }
}
