//! A spool with records that are dated in the past or in the future. The clock of the daemon may be
//! wrong.

use super::account::Account;
use super::answers::Failure;
use super::delivery::{Delivery, wait_until_received};
use super::endpoint::{Endpoint, Way};
use super::load::{Sent, document, send};
use super::process::{Daemon, config_file};
use std::fs;
use std::path::Path;

/// The layout of a file of the spool: the lengths in bytes of the file's header and of a record's
/// header. `CREATED_AT` and `CHECKSUM` are the offsets of the date and of the checksum in a
/// record's header.
const FILE_HEADER_BYTES: usize = 8;
const HEADER_BYTES: usize = 28;
const CREATED_AT: std::ops::Range<usize> = 12..20;
const CHECKSUM: std::ops::Range<usize> = 24..28;

/// Starts a daemon. Segments in its spool expire after one hour.
fn start(endpoint: &Endpoint, folder: &Path) -> Daemon {
    let spool = folder.join("spool");
    let keys = format!("Spool: {{Path: {:?}, MaxAgeHours: 1}}", spool.to_str().unwrap());
    Daemon::start(&endpoint.url(), &["-c", &config_file(folder, &keys)], &[])
}

/// Sets the date of every record of a spool, in seconds since 1970.
fn set_created_at(spool: &Path, created_at: u64) {
    for entry in fs::read_dir(spool).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "spool") {
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        let mut offset = FILE_HEADER_BYTES;
        while offset < bytes.len() {
            let header = &mut bytes[offset..offset + HEADER_BYTES];
            header[CREATED_AT].copy_from_slice(&created_at.to_le_bytes());
            let crc32 = crc32fast::hash(&header[..CHECKSUM.start]);
            header[CHECKSUM].copy_from_slice(&crc32.to_le_bytes());
            let payload_bytes = u32::from_le_bytes(header[4..8].try_into().unwrap());
            offset += HEADER_BYTES + usize::try_from(payload_bytes).unwrap();
        }
        fs::write(&path, bytes).unwrap();
    }
}

/// Creates a spool with 20 batches of 50 segments that have this date.
fn spool_with_date(endpoint: &Endpoint, folder: &Path, created_at: u64) -> Vec<Sent> {
    endpoint.set_way(Way::Down);
    let daemon = start(endpoint, folder);
    let sent = send(daemon.udp, (0..1_000).map(document));
    wait_until_received(&daemon, &sent);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert_eq!(Account::of_log(&log).unwrap().get("spooled"), 1_000, "{log}");
    set_created_at(&folder.join("spool"), created_at);
    sent
}

/// Returns the time one year ago, in seconds since 1970.
fn long_ago() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs() - 365 * 24 * 3600
}

#[test]
fn nothing_of_an_earlier_run_expires_while_the_service_has_not_answered() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    spool_with_date(&endpoint, folder.path(), long_ago());
    let daemon = start(&endpoint, folder.path());
    daemon.wait_for_metric_of_at_least("xray_segments_replayed_total", 50);
    daemon.wait_for_metric_of_at_least("xray_requests_retried_total", 2);
    // The metric shows the age of 300 days or more, although nothing expires.
    daemon.wait_for_metric_of_at_least("xray_spool_oldest_age_seconds", 300 * 24 * 3600);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let account = Account::of_log(&log).unwrap();
    assert_eq!((account.get("dropped"), account.get("sent")), (0, 0), "{log}");
    assert_eq!(account.get("spooled"), account.get("replayed"), "{log}");
}

#[test]
fn an_answer_of_the_service_vouches_for_the_date_also_one_that_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let sent = spool_with_date(&endpoint, folder.path(), long_ago());
    endpoint.change(|rules| rules.failure = Some(Failure::code(500, "InternalFailure")));
    endpoint.set_way(Way::Open);
    let daemon = start(&endpoint, folder.path());
    daemon.wait_until("the service has answered", || endpoint.request_count() > 0);
    endpoint.change(|rules| rules.failure = None);
    daemon.wait_until("all of it is delivered or has expired", || {
        let account = daemon.account();
        account.get("sent") + account.reason("dropped", "spool_age") == 1_000
    });
    daemon.balance();
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let account = Account::of_log(&log).unwrap();
    // At least 500 segments expired. The daemon sent the others, because it had replayed them
    // before the first answer.
    assert!(account.reason("dropped", "spool_age") >= 500, "{log}");
    let missing_count = usize::try_from(account.get("dropped")).unwrap();
    Delivery::of(&endpoint, &sent).misses(missing_count, &log).has_none_twice(&log);
}

#[test]
fn a_date_that_is_yet_to_come_expires_nothing_and_ends_no_page_of_metrics() {
    for created_at in [u64::MAX, u64::MAX / 2, long_ago() + 3 * 365 * 24 * 3600, 0] {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::start();
        let sent = spool_with_date(&endpoint, folder.path(), created_at);
        let daemon = start(&endpoint, folder.path());
        daemon.wait_for_metric_of_at_least("xray_segments_replayed_total", 50);
        assert!(daemon.metric("xray_spool_oldest_age_seconds") < 3_600);
        endpoint.set_way(Way::Open);
        daemon.wait_for_metric("xray_segments_sent_total", 1_000);
        // The files are removed a little later than the last segment is sent.
        daemon.wait_until("the spool is empty", || {
            daemon.metric("xray_spool_oldest_age_seconds") == 0
        });
        daemon.balance();
        let (status, log) = daemon.stop();
        assert!(status.success(), "{log}");
        Delivery::of(&endpoint, &sent).misses(0, &log).has_none_twice(&log);
    }
}
