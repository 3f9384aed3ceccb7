//! A daemon of which one system call fails lives on, or ends with its account.
//!
//! Each test makes one call fail once in each thread that makes it, at the first place after the
//! start, at the second, and so on. The daemon meanwhile looks for credentials, spools, uploads and
//! replays. strace makes the call fail (`inject`): the kernel does not execute it.

#[path = "../shared/skip.rs"]
mod skip;

mod account;
mod answers;
mod dates;
mod delivery;
mod endpoint;
mod load;
mod pacing;
mod process;

use account::Account;
use delivery::Delivery;
use endpoint::Endpoint;
use load::{Sent, large_document, send};
use process::{Daemon, daemon_command, wait_until};
use skip::{Need, skip};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

/// Number of places at which a call fails, if the daemon makes so many calls.
const PLACE_COUNT: usize = 16;

/// The calls for memory. `brk` is not among them: the kernel has no error for it, and the C library
/// takes the error of strace for an address.
const MEMORY: &str = "mmap,mprotect,mremap";

/// Number of documents of a trial: more than the memory of `-m 3` holds.
const DOCUMENT_COUNT: usize = 2_000;

/// The documents are sent in parts, with a pause after each.
const PART_COUNT: usize = 3;
const PART_PAUSE: Duration = Duration::from_millis(1_200);

/// The calls that fail: the name for strace, and the errors that take turns.
struct Fault {
    calls: &'static str,
    errors: &'static [&'static str],
    /// Empty if one call fails, `+` if all that follow fail too.
    until: &'static str,
}

impl Fault {
    /// Returns the argument of strace for a failure of the call number `place` of each thread.
    fn at(&self, place: usize) -> String {
        let Self { calls, errors, until } = self;
        let error = errors[place % errors.len()];
        format!("inject={calls}:error={error}:when={place}{until}")
    }
}

/// A running strace, which ends with the daemon.
struct Strace {
    child: Child,
    errors: BufReader<ChildStderr>,
}

impl Strace {
    /// Attaches strace to the daemon. Its output, with the calls of `fault`, goes to `path`.
    fn attach(daemon: &Daemon, fault: &Fault, place: usize, path: &Path) -> Self {
        let mut command = Command::new("strace");
        command.args(["-f", "-e", &format!("trace={}", fault.calls), "-e", &fault.at(place), "-o"]);
        command.arg(path).args(["-p", &daemon.id().to_string()]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let mut strace = Self { child, errors };
        let mut line = String::new();
        while !line.contains(" attached") {
            line.clear();
            let length = strace.errors.read_line(&mut line).unwrap();
            assert!(length > 0, "strace cannot attach");
        }
        strace
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the daemon's credentials come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// A file, which has them once [`Keys::appear`] is called.
    File,
    /// A program, which fails three times first. It makes no process itself.
    Program,
}

impl Keys {
    /// Writes the files of the source into `folder`. Returns the path of the shared credentials.
    fn prepare(self, folder: &Path) -> PathBuf {
        let path = folder.join("credentials");
        if self == Self::File {
            fs::write(&path, "[default]\n").unwrap();
            return path;
        }
        let (program, answer) =
            (folder.join("keys"), r#"{"Version":1,"AccessKeyId":"AKIDEXAMPLE","#);
        let mut script = format!("#!/bin/sh\ncd {}\n", folder.display());
        for attempt in 1..=3 {
            script += &format!("[ -e {attempt} ] || {{ : >{attempt}; exit 1; }}\n");
        }
        script += &format!("echo '{answer}\"SecretAccessKey\":\"secret\"}}'\n");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
        let text = format!("[default]\ncredential_process = exec {}\n", program.display());
        fs::write(&path, text).unwrap();
        path
    }

    /// Makes the source return credentials.
    fn appear(self, folder: &Path) {
        if self == Self::File {
            let keys = "aws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n";
            // A rename, so that the daemon never reads a part of the file.
            fs::write(folder.join("new"), format!("[default]\n{keys}")).unwrap();
            fs::rename(folder.join("new"), folder.join("credentials")).unwrap();
        }
    }
}

/// Returns the command for a daemon with a spool that gets its credentials from `keys`. Its
/// endpoint has a name that is looked up.
fn command(endpoint: &Endpoint, folder: &Path, keys: Keys, arguments: &[&str]) -> Command {
    let credentials = keys.prepare(folder);
    let spool = folder.join("spool");
    let mut all = vec!["-m", "3", "--spool-path", spool.to_str().unwrap()];
    all.extend(arguments);
    let url = format!("http://localhost:{}", endpoint.address.port());
    let mut command = daemon_command(&url, &all);
    command.env("AWS_SHARED_CREDENTIALS_FILE", credentials).env("PATH", "/usr/bin:/bin");
    command
}

/// Waits until the daemon has nothing left to send, or has ended.
fn wait_until_idle(daemon: &Daemon) {
    let metrics = daemon.metrics();
    let count = |name: &str| metrics.value(name);
    daemon.wait_until("nothing is left", || {
        let left = || -> std::io::Result<u64> {
            let received = count("xray_segments_received_total")?;
            let held = count("xray_segments_held")? + count("xray_spool_segments")?;
            Ok(held + u64::from(received == 0))
        };
        // A page that cannot be fetched shows that the daemon ends.
        left().map_or(true, |count| count == 0)
    });
}

/// Asserts that the daemon has ended in order with its account, and that the account counts each
/// document of `sent` that did not arrive.
fn check(endpoint: &Endpoint, sent: &[Sent], (status, log): (ExitStatus, String)) {
    assert!(!log.contains("panic in thread"), "{log}");
    if log.contains("aborted in thread") {
        // A failed allocation: the counts are on standard error.
        assert!(status.code() == Some(1) && log.contains("; received="), "{status}: {log}");
        return;
    }
    let account = Account::of_log(&log);
    let account = account.unwrap_or_else(|| panic!("no account after {status}:\n{log}"));
    assert_eq!(account.imbalance(), 0, "{account}\n{log}");
    let lost_count = account.get("dropped") + account.get("rejected") + account.get("spooled");
    let delivery = Delivery::of(endpoint, sent);
    if status.success() {
        let came_count = account.get("received") + account.get("kernel_drops");
        assert_eq!(came_count, sent.len() as u64, "{account}\n{log}");
        let missing_count = delivery.missing.len() as u64;
        assert!(missing_count <= lost_count + account.get("kernel_drops"), "{account}\n{log}");
    } else {
        assert_eq!(status.code(), Some(1), "{log}");
    }
}

/// Returns whether strace has made a call fail, by its output in `folder`.
fn is_injected(folder: &Path) -> bool {
    fs::read_to_string(folder.join("trace")).unwrap().contains("(INJECTED)")
}

/// Runs one trial with a failure at `place`. Returns whether a call has failed.
fn fails_at(fault: &Fault, place: usize, keys: Keys, arguments: &[&str]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let daemon = Daemon::spawn(command(&endpoint, folder.path(), keys, arguments));
    let strace = Strace::attach(&daemon, fault, place, &folder.path().join("trace"));
    let mut sent = Vec::new();
    for part in 0..PART_COUNT {
        let first = part * DOCUMENT_COUNT / PART_COUNT;
        let last = (part + 1) * DOCUMENT_COUNT / PART_COUNT;
        sent.extend(send(daemon.udp, (first..last).map(large_document)));
        // The spool syncs its file a second after a write.
        thread::sleep(PART_PAUSE);
    }
    keys.appear(folder.path());
    wait_until_idle(&daemon);
    check(&endpoint, &sent, daemon.stop());
    drop(strace);
    is_injected(folder.path())
}

/// Runs a trial for each place. Asserts that the call has failed at `count_min` places at least.
fn fails_everywhere(fault: &Fault, count_min: usize, keys: Keys, arguments: &[&str]) {
    if is_strace_missing() {
        return;
    }
    let places = 1..=PLACE_COUNT;
    let count = places.take_while(|place| fails_at(fault, *place, keys, arguments)).count();
    assert!(count >= count_min, "{} failed at {count} places only", fault.calls);
}

#[track_caller]
fn is_strace_missing() -> bool {
    let is_missing = Command::new("strace").arg("--version").output().is_err();
    if is_missing {
        skip(Need::Root, "strace is not installed");
    }
    is_missing
}

#[test]
fn a_process_that_cannot_be_made() {
    let fault = Fault { calls: "clone3,clone,vfork", errors: &["EAGAIN", "ENOMEM"], until: "" };
    fails_everywhere(&fault, 3, Keys::Program, &[]);
}

#[test]
fn a_file_that_cannot_be_opened() {
    let errors = &["EMFILE", "EIO", "EACCES"];
    fails_everywhere(&Fault { calls: "openat", errors, until: "" }, 4, Keys::File, &[]);
}

#[test]
fn a_socket_that_cannot_be_made() {
    let fault = Fault { calls: "socket", errors: &["EMFILE", "ENOBUFS"], until: "" };
    fails_everywhere(&fault, 2, Keys::File, &[]);
}

#[test]
fn a_connection_that_cannot_be_made() {
    let errors = &["ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL"];
    fails_everywhere(&Fault { calls: "connect", errors, until: "" }, 2, Keys::File, &[]);
}

#[test]
fn a_connection_that_cannot_be_accepted() {
    let fault = Fault { calls: "accept4", errors: &["EMFILE", "ECONNABORTED"], until: "" };
    fails_everywhere(&fault, 4, Keys::File, &[]);
}

#[test]
fn a_file_that_cannot_be_synced() {
    let fault = Fault { calls: "fdatasync,fsync", errors: &["EIO", "ENOSPC"], until: "" };
    fails_everywhere(&fault, 3, Keys::File, &[]);
}

#[test]
fn a_wait_or_a_look_of_io_uring_that_fails() {
    if process::missing().is_some() {
        return;
    }
    let errors = &["ENOMEM", "EAGAIN", "EBADR"];
    let fault = Fault { calls: "io_uring_enter", errors, until: "" };
    fails_everywhere(&fault, PLACE_COUNT, Keys::File, &[]);
}

#[test]
fn io_uring_that_fails_for_good() {
    if process::missing().is_some() {
        return;
    }
    let fault = Fault { calls: "io_uring_enter", errors: &["ENOMEM"], until: "+" };
    fails_everywhere(&fault, PLACE_COUNT, Keys::File, &[]);
}

#[test]
fn io_uring_that_fails_under_tokio_uring() {
    if process::missing().is_some() {
        return;
    }
    let fault = Fault { calls: "io_uring_enter", errors: &["ENOMEM", "EBADR"], until: "" };
    fails_everywhere(&fault, 4, Keys::File, &["--receiver", "tokio-uring"]);
}

#[test]
fn a_read_of_a_socket_that_fails() {
    let fault = Fault { calls: "recvmmsg", errors: &["ENOMEM", "ENOBUFS", "EINTR"], until: "" };
    fails_everywhere(&fault, PLACE_COUNT, Keys::File, &["--receiver", "recvmmsg"]);
}

#[test]
fn memory_that_cannot_be_had_once() {
    let fault = Fault { calls: MEMORY, errors: &["ENOMEM"], until: "" };
    fails_everywhere(&fault, 4, Keys::File, &[]);
}

#[test]
fn memory_that_cannot_be_had_any_more() {
    let fault = Fault { calls: MEMORY, errors: &["ENOMEM"], until: "+" };
    fails_everywhere(&fault, 4, Keys::File, &[]);
}

#[test]
fn a_call_of_the_start_that_fails() {
    if is_strace_missing() {
        return;
    }
    for (calls, errors) in [
        ("clone3", &["EAGAIN"]),
        ("socket", &["EMFILE"]),
        ("eventfd2", &["EMFILE"]),
        ("epoll_create1", &["EMFILE"]),
        ("io_uring_setup", &["ENOMEM"]),
        ("io_uring_register", &["ENOMEM"]),
        ("io_uring_enter", &["ENOMEM"]),
    ] {
        let is_of_uring = calls.starts_with("io_uring");
        if is_of_uring && process::missing().is_some() {
            continue;
        }
        let fault = Fault { calls, errors, until: "" };
        let count = (1..=8).take_while(|place| fails_at_start(&fault, *place)).count();
        assert!(count > 0, "{calls} has never failed");
    }
}

/// Starts a daemon of which one call fails from the start on. It ends and says why, or it delivers.
/// Returns whether a call has failed.
fn fails_at_start(fault: &Fault, place: usize) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let usual = command(&endpoint, folder.path(), Keys::File, &["--receiver", "auto"]);
    Keys::File.appear(folder.path());
    let mut traced = Command::new("strace");
    // With -D strace is no parent of the daemon, so that signals reach the daemon.
    traced.args(["-D", "-f", "-q", "-e", &format!("trace={}", fault.calls)]);
    traced.args(["-e", &fault.at(place), "-o"]).arg(folder.path().join("trace"));
    traced.arg(usual.get_program()).args(usual.get_args()).env_clear().stdin(Stdio::null());
    traced.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    match Daemon::spawn_or_end(traced, "Credentials found") {
        Ok(daemon) => {
            let sent = send(daemon.udp, (0..50).map(large_document));
            wait_until("a result", || endpoint.arrived_count() == 50 || daemon.has_ended());
            check(&endpoint, &sent, daemon.stop());
        }
        Err((status, log)) => {
            assert_eq!(status.code(), Some(1), "{}: {log}", fault.at(place));
            assert!(log.contains("[Error] ") || log.contains("cannot be started"), "{log}");
        }
    }
    is_injected(folder.path())
}
