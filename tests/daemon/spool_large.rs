//! A spool with records that are larger than the memory of the current run.

use super::account::Account;
use super::delivery::{Delivery, wait_until_received};
use super::endpoint::{Endpoint, Way};
use super::load::{Sent, document_of, send};
use super::process::Daemon;
use rustix::process::Signal;
use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// The lengths in bytes of two headers in a file of the spool: that of a record and that of the
/// file.
const RECORD_HEADER_BYTES: usize = 28;
const FILE_HEADER_BYTES: usize = 8;

fn start(endpoint: &Endpoint, spool: &Path, buffer_size_mb: &str) -> Daemon {
    let path = spool.to_str().unwrap();
    let arguments = ["-m", buffer_size_mb, "--spool-path", path, "--spool-size-mb", "16"];
    Daemon::start(&endpoint.url(), &arguments, &[])
}

/// Stops a daemon at once, by a second signal during its shutdown. Returns its account and its log.
fn stop_at_once(daemon: Daemon) -> (Account, String) {
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("Got shutdown signal");
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    (Account::of_log(&log).unwrap(), log)
}

/// Returns a document of 60 kB. A batch of 15 such documents has about 1 MB.
fn largest_document(index: usize) -> String {
    document_of(index, index, &"x".repeat(60_000))
}

fn medium_document(index: usize) -> String {
    document_of(1_000_000 + index, 1_000_000 + index, &"x".repeat(5_000))
}

/// Returns the number of segments in the spool's records that are not completely settled.
fn count_on_disk(spool: &Path) -> u64 {
    let number = |bytes: &[u8]| usize::try_from(u32::from_le_bytes(bytes.try_into().unwrap()));
    let mut segment_count = 0;
    for entry in fs::read_dir(spool).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "spool") {
            continue;
        }
        let done = fs::read(path.with_extension("done")).unwrap_or_default();
        let done: HashSet<u64> = done
            .chunks_exact(12)
            .map(|entry| u64::from_le_bytes(*entry.first_chunk().unwrap()))
            .collect();
        let bytes = fs::read(&path).unwrap();
        let mut offset = FILE_HEADER_BYTES;
        while offset < bytes.len() {
            let header = &bytes[offset..offset + RECORD_HEADER_BYTES];
            if !done.contains(&(offset as u64)) {
                segment_count += number(&header[8..12]).unwrap() as u64;
            }
            offset += RECORD_HEADER_BYTES + number(&header[4..8]).unwrap();
        }
    }
    segment_count
}

/// Makes a daemon with enough memory spool 100 documents in records of about 1 MB.
fn spool_large_records(endpoint: &Endpoint, spool: &Path) -> Vec<Sent> {
    endpoint.set_way(Way::Down);
    let daemon = start(endpoint, spool, "128");
    let sent = send(daemon.udp, (0..100).map(largest_document));
    wait_until_received(&daemon, &sent);
    let (account, log) = stop_at_once(daemon);
    assert_eq!((account.get("spooled"), account.get("dropped")), (100, 0), "{log}");
    assert_eq!(count_on_disk(spool), 100);
    sent
}

#[test]
fn records_that_are_larger_than_memory_arrive_document_by_document() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let sent = spool_large_records(&endpoint, folder.path());
    endpoint.set_way(Way::Open);
    let daemon = start(&endpoint, folder.path(), "3");
    daemon.wait_for_metric("xray_segments_sent_total", 100);
    let account = daemon.balance();
    assert_eq!(account.get("replayed") - account.get("spooled"), 100);
    daemon.wait_until("the spool is empty", || daemon.metric("xray_spool_size_bytes") == 0);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    Delivery::of(&endpoint, &sent).misses(0, &log).has_none_twice(&log);
}

#[test]
fn a_full_spool_counts_records_that_are_larger_than_memory_when_they_are_evicted() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let mut sent = spool_large_records(&endpoint, folder.path());
    let daemon = start(&endpoint, folder.path(), "3");
    // When this loop ends, the spool has evicted all files of the previous run. `send` waits for
    // the daemon, so that the kernel drops nothing.
    let mut fresh = Vec::new();
    while daemon.account().reason("dropped", "spool_full") <= 300 {
        fresh.extend(send(daemon.udp, (fresh.len()..fresh.len() + 40).map(medium_document)));
        wait_until_received(&daemon, &fresh);
    }
    sent.extend(fresh);
    let (account, log) = stop_at_once(daemon);
    let (on_disk, dropped) = (count_on_disk(folder.path()), account.get("dropped"));
    assert_eq!(on_disk + dropped, sent.len() as u64, "{on_disk} on the disk\n{log}");
    endpoint.set_way(Way::Open);
    let daemon = start(&endpoint, folder.path(), "3");
    daemon.wait_for_metric("xray_segments_sent_total", on_disk);
    daemon.balance();
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let missing_count = usize::try_from(dropped).unwrap();
    Delivery::of(&endpoint, &sent).misses(missing_count, &log).has_none_twice(&log);
}
