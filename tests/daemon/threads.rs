//! The daemon on a host that allows no further threads. Such limits are `ulimit -u`, `pids.max` and
//! `TasksMax`.

use super::endpoint::Endpoint;
use super::process::{Daemon, HEADER, daemon_command, with_credentials};
use super::skip::{Need, skip};
use rustix::process::geteuid;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A user without other processes, so that the limit only counts the daemon's threads.
const USER_ID: u32 = 2_000_147_483;

/// Starts the daemon as the user `USER_ID`, from a copy of the program that this user may read.
/// Returns the daemon and the folder of the copy.
fn start_as_other_user(url: &str) -> (Daemon, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let usual = daemon_command(url, &[]);
    let program = folder.path().join("xray");
    fs::copy(usual.get_program(), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(usual.get_args()).env_clear();
    command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    with_credentials(&mut command).uid(USER_ID).gid(USER_ID).current_dir("/");
    (Daemon::spawn(command), folder)
}

#[test]
fn names_are_looked_up_where_no_more_threads_can_be_made() {
    if !geteuid().is_root() {
        skip(Need::Root, "only root can start a daemon as another user");
        return;
    }
    let endpoint = Endpoint::start();
    let (daemon, _folder) =
        start_as_other_user(&format!("http://localhost:{}", endpoint.address.port()));
    // The program `prlimit` sets the limit as the daemon's user. Even root may not be allowed to
    // set the limit of another user's process.
    let mut limit = Command::new("prlimit");
    limit.args(["--nproc=1:1", "--pid", &daemon.id().to_string()]).uid(USER_ID).gid(USER_ID);
    assert!(limit.status().unwrap().success());
    daemon.send([format!("{HEADER}{{\"id\":\"1\"}}")]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert_eq!(endpoint.sorted_documents().len(), 1);
}
