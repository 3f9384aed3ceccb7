//! A spool on a disk that rejects writes: the daemon logs and counts the failures, and keeps
//! running.

use super::delivery::{settle_once, settle_with_losses};
use super::endpoint::{Endpoint, Way};
use super::load::{Load, document, large_document, send};
use super::process::{Daemon, behind_shell, daemon_command, in_own_mounts, with_credentials};
use super::skip::{Need, skip};
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts a daemon in a new mount namespace, in which the spool's folder is a tmpfs with the mount
/// options `options`. Returns `None` if this machine does not allow the test to mount.
fn start(endpoint: &Endpoint, spool: &Path, options: &str) -> Option<Daemon> {
    let path = spool.to_str().unwrap();
    let mount = format!("mount -t tmpfs -o {options} none {path}");
    let trial = in_own_mounts(&Command::new("true"), &mount).stderr(Stdio::null()).status();
    if !trial.is_ok_and(|status| status.success()) {
        skip(Need::Mount, "mounting is not allowed here");
        return None;
    }
    let arguments = ["-m", "3", "--spool-path", path, "--spool-size-mb", "256"];
    let mut command = daemon_command(&endpoint.url(), &arguments);
    with_credentials(&mut command);
    Some(Daemon::spawn(in_own_mounts(&command, &format!("{mount} && exec \"$@\""))))
}

#[test]
fn a_full_disk_is_said_and_what_it_does_not_take_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let Some(daemon) = start(&endpoint, folder.path(), "size=1m,mode=700") else { return };
    let load = Load::start(daemon.udp, 1_000, large_document);
    let line = daemon.wait_for_line("No space left on device");
    assert!(line.contains(folder.path().to_str().unwrap()), "{line}");
    daemon.wait_for_count("dropped", 501, || daemon.account().get("dropped"));
    endpoint.set_way(Way::Open);
    daemon.wait_until("something arrives", || endpoint.arrived_count() > 0);
    let sent = load.stop();
    // The disk has room again. Soon new segments fit into memory, and the daemon no longer writes
    // to the spool.
    daemon.wait_until("the spool is known to work", || daemon.get("/ready").contains("\"ready\""));
    settle_with_losses(daemon, &endpoint, &sent);
}

#[test]
fn a_read_only_disk_is_said_and_segments_arrive_without_a_spool() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let Some(daemon) = start(&endpoint, folder.path(), "ro,mode=700") else { return };
    let line = daemon.wait_for_line("read-only");
    assert!(line.contains(folder.path().to_str().unwrap()), "{line}");
    let sent = send(daemon.udp, (0..120).map(document));
    settle_once(daemon, &endpoint, &sent);
}

#[test]
fn a_limit_on_the_size_of_files_is_like_a_full_disk_and_does_not_end_the_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool");
    let endpoint = Endpoint::start();
    endpoint.set_way(Way::Down);
    let arguments = ["-m", "3", "--spool-path", path.to_str().unwrap()];
    let mut command = daemon_command(&endpoint.url(), &arguments);
    with_credentials(&mut command);
    // The limit is 64 blocks for the size of a file. A block has 512 or 1024 bytes, depending on
    // the shell.
    let daemon = Daemon::spawn(behind_shell(&command, "ulimit -f 64 && exec \"$@\""));
    let load = Load::start(daemon.udp, 1_000, large_document);
    daemon.wait_for_line("File too large");
    endpoint.set_way(Way::Open);
    settle_with_losses(daemon, &endpoint, &load.stop());
}
