//! Segments that do not fit into memory are written to the spool and sent later, also after a
//! crash.

use super::account::Account;
use super::answers::{Failure, Reply};
use super::delivery::{Delivery, settle, settle_once, settle_with_losses, wait_until_received};
use super::endpoint::{Endpoint, Way};
use super::load::{Load, Sent, document, document_of, large_document, send};
use super::process::Daemon;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const SPOOLED: &str = "xray_segments_spooled_total";
const OLDEST_AGE: &str = "xray_spool_oldest_age_seconds";
const REPLAYED: &str = "xray_segments_replayed_total";

/// The largest number of documents in flight: 8 calls with 50 documents each.
const IN_FLIGHT_MAX: usize = 8 * 50;

/// Starts a daemon with 3 MB of memory and a spool.
fn start(endpoint: &Endpoint, spool: &Path) -> Daemon {
    let spool = spool.to_str().unwrap();
    let arguments = ["-m", "3", "--spool-path", spool, "--spool-size-mb", "256"];
    Daemon::start(&endpoint.url(), &arguments, &[])
}

/// Runs a load until this many segments are in the spool, while the service is down. Returns the
/// sent documents after the daemon has received all of them.
fn fill(daemon: &Daemon, spooled_count: u64) -> Vec<Sent> {
    let load = Load::start_within_memory(daemon, 1_000, large_document);
    daemon.wait_for_metric_of_at_least(SPOOLED, spooled_count);
    let sent = load.stop();
    wait_until_received(daemon, &sent);
    sent
}

/// Stops a daemon during the outage: all its segments go to the spool. Returns its log.
fn stop_into_spool(daemon: Daemon, sent: &[Sent]) -> String {
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let account = Account::of_log(&log).unwrap();
    let in_spool = account.get("spooled") - account.get("replayed");
    assert_eq!((in_spool, account.get("dropped")), (sent.len() as u64, 0), "{log}");
    log
}

/// Returns the paths of all files of a spool.
fn files(spool: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(spool).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

/// Returns the total size of a spool's files in bytes. Looks again if the daemon has removed or
/// created a file meanwhile: otherwise the sum could contain an old file and what replaced it.
fn size_bytes(spool: &Path) -> u64 {
    let names = || {
        let mut names = files(spool);
        names.sort();
        names
    };
    loop {
        let before = names();
        let sizes = before.iter().filter_map(|path| Some(path.metadata().ok()?.len()));
        let size_bytes = sizes.sum();
        if names() == before {
            return size_bytes;
        }
    }
}

/// Returns the path of the largest file of a spool.
fn largest(spool: &Path) -> PathBuf {
    files(spool).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

fn outage_costs_nothing(spooled_count: u64) {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, folder.path());
    let load = Load::start_within_memory(&daemon, 2_000, document);
    daemon.wait_for_arrivals(&endpoint, 500);
    endpoint.set_way(Way::Down);
    daemon.wait_for_metric_of_at_least(SPOOLED, spooled_count);
    endpoint.set_way(Way::Open);
    daemon.wait_for_metric_of_at_least(REPLAYED, 1_000);
    let sent = load.stop();
    let (log, account) = settle(daemon, &endpoint, &sent);
    Delivery::of(&endpoint, &sent).has_none_twice(&log);
    assert_eq!(account.get("spooled"), account.get("replayed"), "{log}");
    // The daemon has removed delivered segments from the disk.
    let left_bytes = size_bytes(folder.path());
    assert!(left_bytes < 1 << 20, "{left_bytes} bytes");
}

#[test]
fn an_outage_that_memory_cannot_hold_costs_nothing_and_doubles_none() {
    outage_costs_nothing(1_000);
}

#[test]
fn a_long_outage_that_memory_cannot_hold_costs_nothing_and_doubles_none() {
    outage_costs_nothing(30_000);
}

#[test]
fn what_had_reached_the_disk_before_a_kill_arrives_after_it_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let daemon = start(&endpoint, folder.path());
    let load = Load::start_within_memory(&daemon, 1_000, large_document);
    daemon.wait_for_metric_of_at_least(SPOOLED, 2_000);
    daemon.wait_for_metric_of_at_least(OLDEST_AGE, 1);
    // One record may have been replayed, in order to probe whether the service works again.
    let account = daemon.account();
    let spooled_count = usize::try_from(account.get("spooled") - account.get("replayed")).unwrap();
    let first_log = daemon.kill();
    let sent = load.stop();
    endpoint.set_way(Way::Open);
    let daemon = start(&endpoint, folder.path());
    daemon.wait_for_arrivals(&endpoint, spooled_count);
    daemon.wait_until("the spool is empty", || {
        daemon.account().get("replayed") > 0 && daemon.metric("xray_spool_size_bytes") == 0
    });
    daemon.wait_until("no batch has an age", || daemon.metric(OLDEST_AGE) == 0);
    daemon.balance();
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let delivery = Delivery::of(&endpoint, &sent).has_none_twice(&log);
    let lost_max = sent.len() - spooled_count;
    assert!(delivery.missing.len() <= lost_max, "{}\n{first_log}\n{log}", delivery.missing.len());
}

#[test]
fn a_kill_while_the_spool_is_sent_doubles_no_more_than_was_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let daemon = start(&endpoint, folder.path());
    let sent = fill(&daemon, 3_000);
    stop_into_spool(daemon, &sent);
    // The service is slow, so that calls are in flight at the kill. It accepts at most two thirds
    // of the segments.
    endpoint.change(|rules| {
        rules.pause = Duration::from_millis(200);
        rules.script = Some(Arc::new(|number| match number {
            0..40 => Reply::Accept,
            _ => Reply::Fail(Failure::status(503)),
        }));
    });
    endpoint.set_way(Way::Open);
    let daemon = start(&endpoint, folder.path());
    daemon.wait_for_arrivals(&endpoint, 1_000);
    let arrived_count = endpoint.arrived_count();
    daemon.kill();
    assert!(arrived_count < sent.len() - IN_FLIGHT_MAX, "{arrived_count} of {}", sent.len());
    endpoint.change(|rules| (rules.pause, rules.script) = (Duration::ZERO, None));
    let daemon = start(&endpoint, folder.path());
    daemon.wait_for_arrivals(&endpoint, sent.len());
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let doubled_count = Delivery::of(&endpoint, &sent).misses(0, &log).doubled.len();
    assert!(doubled_count <= IN_FLIGHT_MAX, "{doubled_count} doubled\n{log}");
}

#[test]
fn what_is_left_at_the_shutdown_goes_to_the_spool_and_a_restart_delivers_it() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let daemon = start(&endpoint, folder.path());
    // The 120 segments fit into memory, so the daemon spools them at its shutdown only.
    let sent = send(daemon.udp, (0..120).map(document));
    wait_until_received(&daemon, &sent);
    stop_into_spool(daemon, &sent);
    endpoint.set_way(Way::Open);
    let daemon = start(&endpoint, folder.path());
    daemon.wait_for_metric("xray_segments_sent_total", 120);
    assert_eq!(daemon.balance().get("replayed"), 120);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("received=0 replayed=120 sent=120 rejected=0 dropped=0"), "{log}");
    Delivery::of(&endpoint, &sent).misses(0, &log).has_none_twice(&log);
    // The next run finds the spool empty.
    let daemon = start(&endpoint, folder.path());
    let fresh = send(daemon.udp, [document(120)]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    let (_, log) = daemon.stop();
    assert_eq!(Account::of_log(&log).unwrap().get("replayed"), 0, "{log}");
    Delivery::of(&endpoint, sent.iter().chain(&fresh)).misses(0, &log).has_none_twice(&log);
}

#[test]
fn a_second_signal_with_a_spool_loses_nothing_either() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::BlackHole);
    let daemon = start(&endpoint, folder.path());
    let sent = send(daemon.udp, (0..120).map(document));
    wait_until_received(&daemon, &sent);
    daemon.signal(Signal::TERM);
    daemon.wait_for_line("Got shutdown signal");
    stop_into_spool(daemon, &sent);
}

#[test]
fn the_configuration_file_names_a_spool_as_the_flags_do() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let keys = format!("{{Path: {:?}, MaxSizeMB: 16, MaxAgeHours: 24}}", spool.to_str().unwrap());
    let config = super::process::config_file(folder.path(), &format!("Spool: {keys}"));
    let daemon = Daemon::start(&endpoint.url(), &["-c", &config, "-m", "3"], &[]);
    let sent = send(daemon.udp, (0..120).map(document));
    wait_until_received(&daemon, &sent);
    stop_into_spool(daemon, &sent);
    assert!(!files(&spool).is_empty());
}

#[test]
fn nobody_else_can_read_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("new");
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let daemon = start(&endpoint, &spool);
    fill(&daemon, 500);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&spool), 0o700);
    let files = files(&spool);
    assert!(!files.is_empty());
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

/// Returns the log line that says why the daemon does not use the spool.
fn refusal(daemon: &Daemon, spool: &Path) -> String {
    let line = daemon.wait_for_line("cannot be used");
    assert!(line.contains(spool.to_str().unwrap()), "{line}");
    line
}

#[test]
fn a_second_daemon_on_the_same_folder_says_so_and_delivers_without_a_spool() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let first = start(&endpoint, folder.path());
    first.wait_for_line("spool");
    let second = start(&endpoint, folder.path());
    let line = refusal(&second, folder.path());
    assert!(line.contains("another daemon"), "{line}");
    let sent = send(second.udp, (0..120).map(document));
    settle_once(second, &endpoint, &sent);
    assert!(first.stop().0.success());
}

#[test]
fn a_symbolic_link_is_no_spool_and_segments_arrive_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, &link);
    let line = refusal(&daemon, &link);
    assert!(line.contains("symbolic link"), "{line}");
    let sent = send(daemon.udp, (0..120).map(document));
    settle_once(daemon, &endpoint, &sent);
    assert!(files(&real).is_empty());
}

/// Runs a daemon with a spool twice. Between the runs the function `damage` changes the largest
/// file of the spool. Asserts that nearly all segments arrive and that the log reports the damage.
/// Returns the number of missing segments.
fn survives_damage(damage: impl FnOnce(&Path)) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let daemon = start(&endpoint, folder.path());
    let sent = fill(&daemon, 1_000);
    stop_into_spool(daemon, &sent);
    damage(&largest(folder.path()));
    endpoint.set_way(Way::Open);
    let daemon = start(&endpoint, folder.path());
    daemon.wait_for_line("damaged");
    // The daemon delivers a new segment without delay, despite the damage.
    let fresh = send(daemon.udp, [document(1_000_000)]);
    let all: Vec<Sent> = sent.into_iter().chain(fresh).collect();
    daemon.wait_for_arrivals(&endpoint, all.len() - 50);
    daemon.wait_until("no segment waits", || {
        daemon.metric("xray_segments_held") == 0 && daemon.metric("xray_spool_size_bytes") == 0
    });
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let delivery = Delivery::of(&endpoint, &all).has_none_twice(&log);
    assert!(delivery.missing.iter().all(|missing| missing != &all.last().unwrap().document));
    delivery.missing.len()
}

#[test]
fn a_torn_tail_costs_the_batch_that_it_was_in() {
    let missing_count = survives_damage(|file| {
        let length_bytes = file.metadata().unwrap().len();
        fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length_bytes - 10).unwrap();
    });
    assert!((1..=50).contains(&missing_count), "{missing_count}");
}

#[test]
fn a_flipped_byte_costs_the_batch_that_it_was_in() {
    let missing_count = survives_damage(|file| {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(file, bytes).unwrap();
    });
    assert!((1..=50).contains(&missing_count), "{missing_count}");
}

#[test]
fn a_spool_that_is_removed_under_the_daemon_is_made_anew_and_what_it_costs_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let daemon = start(&endpoint, &spool);
    let mut sent = fill(&daemon, 1_000);
    fs::remove_dir_all(&spool).unwrap();
    let load = Load::start_within_memory(&daemon, 100, |index| large_document(1_000_000 + index));
    daemon.wait_for_line("The folder is created again");
    sent.extend(load.stop());
    assert!(spool.join("lock").exists());
    endpoint.set_way(Way::Open);
    daemon.wait_for_count("sent and dropped", sent.len() as u64, || {
        let account = daemon.account();
        account.get("sent") + account.get("dropped")
    });
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    // Segments in closed files of the removed folder are lost. Whether the daemon had closed a file
    // before the removal depends on timing.
    let account = Account::of_log(&log).unwrap();
    let lost_count = account.reason("dropped", "spool_damage");
    assert_eq!((account.get("dropped"), account.imbalance()), (lost_count, 0), "{log}");
    let lost_count = usize::try_from(lost_count).unwrap();
    Delivery::of(&endpoint, &sent).misses(lost_count, &log).has_none_twice(&log);
}

#[test]
fn a_spool_keeps_to_its_size_and_the_oldest_are_evicted_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let path = folder.path().to_str().unwrap();
    let arguments = ["-m", "8", "--spool-path", path, "--spool-size-mb", "16"];
    let daemon = Daemon::start(&endpoint.url(), &arguments, &[]);
    let shape = |index| document_of(index, index, &"x".repeat(9_000));
    let load = Load::start_within_memory(&daemon, 500, shape);
    daemon.wait_for_line("Spilling over");
    // The spool has room for about 1,800 of these documents.
    daemon.wait_for_metric_of_at_least(SPOOLED, 2_200);
    daemon.wait_for_count("dropped", 300, || daemon.account().get("dropped"));
    let size_bytes = size_bytes(folder.path());
    assert!(size_bytes <= 16 << 20, "{size_bytes}");
    endpoint.set_way(Way::Open);
    daemon.wait_until("something arrives", || endpoint.arrived_count() > 0);
    let sent = load.stop();
    let (log, account) = settle_with_losses(daemon, &endpoint, &sent);
    assert!(account.reason("dropped", "spool_full") > 0, "{log}");
    let newest = &sent[sent.len() - 200..];
    let arrived = |sent: &&Sent| endpoint.ledger(|l| l.arrivals.contains_key(&sent.document));
    assert_eq!(newest.iter().filter(arrived).count(), newest.len(), "{log}");
}

#[test]
fn without_a_spool_nothing_is_written_and_without_an_outage_nothing_is_spooled() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let daemon = start(&endpoint, folder.path());
    let load = Load::start_within_memory(&daemon, 1_000, document);
    daemon.wait_for_arrivals(&endpoint, 2_000);
    let sent = load.stop();
    let (log, account) = settle(daemon, &endpoint, &sent);
    assert_eq!((account.get("spooled"), account.get("replayed")), (0, 0), "{log}");
}
