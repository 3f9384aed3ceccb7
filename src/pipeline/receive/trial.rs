//! Tries a receive backend without risk: in a child process, if a seccomp filter applies.
//!
//! In: a [`Backend`]. Out: nothing if it works, else why not ([`Unavailable`]). Bound:
//! [`CHILD_TIME_MAX`]. Thread: the one that starts the daemon.
//!
//! A seccomp filter may not only deny a call: it may end the process or the thread that makes it
//! (`SECCOMP_RET_KILL_PROCESS` and others, seccomp(2)). A filter cannot be read, so the call has to
//! be tried. A child process tries it: this program, executed once more with [`ARGUMENT`]. The
//! child writes its result to standard output as one line: `ok`, or the number of the kernel's
//! error, or a text. A child that is ended writes nothing.

use super::Backend;
use super::probe::{PROBE_TIME_MAX, Unavailable, has_filter};
use crate::base::clock::Clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

/// The only argument of a child process, before the name of the backend. It is not for operators,
/// so `xray -h` does not list it.
const ARGUMENT: &str = "--try-receive-backend=";

/// Time to wait for the child process. It starts within milliseconds, and then waits for a datagram
/// for [`PROBE_TIME_MAX`] at most.
const CHILD_TIME_MAX: Duration = PROBE_TIME_MAX.saturating_add(Duration::from_secs(3));

/// The program of this process, even if its file was replaced in the meantime.
const PROGRAM: &str = "/proc/self/exe";

/// Tries `backend`: in this process if no seccomp filter can apply, else in a child process.
///
/// # Errors
///
/// Returns an error that names the likely cause and what to change.
pub(super) fn run(backend: Backend) -> Result<(), Unavailable> {
    if backend == Backend::Recvmmsg || has_filter() == Some(false) {
        // `recvmmsg` needs no trial, and so neither a thread nor a child process.
        return backend.probe();
    }
    let mut child = Command::new(PROGRAM)
        .arg0("xray")
        .arg(format!("{ARGUMENT}{backend}"))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| Unavailable::NoChild { backend, source })?;
    let answer = read_answer(&mut child);
    if answer.is_err() {
        // The child may have ended meanwhile.
        let _ = child.kill();
    }
    // The status is unknown if this process ignores SIGCHLD: the kernel has then removed the child.
    judge(backend, answer, child.wait().ok())
}

/// Reads what the child writes until it closes its standard output.
fn read_answer(child: &mut Child) -> io::Result<String> {
    let mut answer = String::new();
    let Some(output) = &mut child.stdout else { return Ok(answer) };
    let end = Clock::instant() + CHILD_TIME_MAX;
    loop {
        let left = Timespec::try_from(end.saturating_duration_since(Clock::instant()));
        match poll(&mut [PollFd::new(output, PollFlags::IN)], left.ok().as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        let mut part = [0; 256];
        match output.read(&mut part)? {
            0 => return Ok(answer),
            length => answer.push_str(&String::from_utf8_lossy(&part[..length])),
        }
    }
}

/// Returns the result of a trial from the child's answer and its exit status.
fn judge(
    backend: Backend,
    answer: io::Result<String>,
    status: Option<ExitStatus>,
) -> Result<(), Unavailable> {
    let refused = |source| Err(Unavailable::Refused { backend, source });
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            let time = CHILD_TIME_MAX.as_secs();
            return refused(io::Error::other(format!("its trial did not end within {time} s")));
        }
        Err(source) => return Err(Unavailable::NoChild { backend, source }),
    };
    match (answer.trim_end(), status.and_then(|status| status.signal())) {
        // The backend has worked before the end, whatever the end was.
        (OK, _) => Ok(()),
        ("", Some(signal)) => Err(Unavailable::Killed { backend, signal }),
        ("", None) => refused(io::Error::other("its trial ended without a result")),
        (error, _) => refused(match error.parse() {
            Ok(code) => io::Error::from_raw_os_error(code),
            Err(_) => io::Error::other(error.to_owned()),
        }),
    }
}

const OK: &str = "ok";

/// Does the work of a child process of [`run`] if `arguments`, those of this process after its
/// name, are those of such a child. Then returns its exit code. Call this first, on the main thread
/// and before any other thread is made, so that a filter that ends a thread ends the process.
pub fn child(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let argument = arguments.next()?;
    let name = argument.to_str()?.strip_prefix(ARGUMENT)?;
    let backend = Backend::ALL.into_iter().find(|backend| backend.name() == name)?;
    // A filter that ends this process must not leave a core file. This cannot fail.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let line = match backend.probe_here() {
        Ok(()) => OK.to_owned(),
        Err(error) => error.raw_os_error().map_or(error.to_string(), |code| code.to_string()),
    };
    let written = writeln!(io::stdout(), "{line}");
    Some(if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(answer: &str, status: i32) -> Result<(), String> {
        let status = ExitStatus::from_raw(status);
        let judged = judge(Backend::Uring, Ok(answer.to_owned()), Some(status));
        judged.map_err(|error| error.to_string())
    }

    #[test]
    fn the_result_of_a_child_is_its_line_or_the_signal_that_ended_it() {
        assert_eq!(judged("ok\n", 0), Ok(()));
        assert!(judged("12\n", 0).unwrap_err().contains("LimitMEMLOCK"));
        assert!(judged("no datagram\n", 0).unwrap_err().ends_with(": no datagram"));
        assert!(judged("", libc::SIGSYS).unwrap_err().contains("SIGSYS"));
        assert!(judged("", libc::SIGKILL).unwrap_err().ends_with("signal 9"));
        assert!(judged("", 101 << 8).unwrap_err().contains("without a result"));
        let silent = judge(Backend::Uring, Err(io::ErrorKind::TimedOut.into()), None).unwrap_err();
        assert!(silent.to_string().contains("within 5 s"), "{silent}");
    }

    #[test]
    fn only_the_argument_of_a_child_makes_a_child() {
        for words in [&[][..], &["-n", "eu-west-1"], &["--try-receive-backend=x"]] {
            assert!(child(words.iter().map(OsString::from)).is_none(), "{words:?}");
        }
    }
}
