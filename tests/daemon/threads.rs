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

/// Users without other processes, so that the limit only counts the daemon's threads. Each test has
/// one of its own.
const USER_ID: u32 = 2_000_147_483;
const OTHER_USER_ID: u32 = 2_000_147_484;

/// A copy of the program that the other users may read.
struct Program(tempfile::TempDir);

impl Program {
    fn copy() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        // This process must not have the copy open for writing: a program that another test starts
        // meanwhile would inherit the descriptor, and the copy could not be run ("Text file busy").
        let mut copying = Command::new("cp");
        copying.arg(daemon_command("", &[]).get_program()).arg(folder.path().join("xray"));
        assert!(copying.status().unwrap().success());
        Self(folder)
    }

    /// Returns the command for a daemon of the user `user_id`, behind the words of `outer`.
    fn command(&self, outer: &[&str], url: &str, arguments: &[&str], user_id: u32) -> Command {
        let usual = daemon_command(url, arguments);
        let program = self.0.path().join("xray");
        let mut command = match outer {
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(&program);
                command
            }
            [] => Command::new(&program),
        };
        command.args(usual.get_args()).env_clear().env("PATH", "/usr/bin:/bin");
        command.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
        with_credentials(&mut command).uid(user_id).gid(user_id).current_dir("/");
        command
    }
}

#[test]
fn names_are_looked_up_where_no_more_threads_can_be_made() {
    if !geteuid().is_root() {
        skip(Need::Root, "only root can start a daemon as another user");
        return;
    }
    let endpoint = Endpoint::start();
    let program = Program::copy();
    let url = format!("http://localhost:{}", endpoint.address.port());
    let daemon = Daemon::spawn(program.command(&[], &url, &[], USER_ID));
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

#[test]
fn a_start_that_gets_too_few_threads_ends_in_order_before_it_opens_a_port() {
    if !geteuid().is_root() {
        skip(Need::Root, "only root can start a daemon as another user");
        return;
    }
    let endpoint = Endpoint::start();
    let program = Program::copy();
    let mut refused_count = 0;
    for limit in 1..=20 {
        let limit = format!("--nproc={limit}:{limit}");
        let arguments = ["--receiver", "auto", "--spool-path", "/nonexistent/spool"];
        let outer = ["prlimit", &limit, "--"];
        let command = program.command(&outer, &endpoint.url(), &arguments, OTHER_USER_ID);
        match Daemon::spawn_or_end(command, "Listening on TCP ") {
            Ok(daemon) => {
                daemon.send([format!("{HEADER}{{\"id\":\"1\"}}")]);
                let daemon = daemon.with_tcp();
                daemon.wait_for_metric("xray_segments_sent_total", 1);
                let (status, log) = daemon.stop();
                assert!(status.success(), "{log}");
                // The log, two lookups, a receiver, the sender and the spool, besides the main one.
                assert!(refused_count >= 6, "{refused_count}: {log}");
                return;
            }
            Err((status, log)) => {
                assert_eq!(status.code(), Some(1), "{limit}: {log}");
                assert!(log.contains("TasksMax, pids.max, ulimit -u"), "{limit}: {log}");
                assert!(!log.contains("panic"), "{limit}: {log}");
                // A datagram that was read would have no account.
                assert!(!log.contains("Listening on UDP"), "{limit}: {log}");
                refused_count += 1;
            }
        }
    }
    panic!("the daemon does not start with 20 threads");
}
