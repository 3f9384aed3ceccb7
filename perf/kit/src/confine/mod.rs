//! Runs a program with the restrictions of a container without privileges, without changes to the
//! machine.
//!
//! `confine PROGRAM ARGUMENTS...` drops root and installs two seccomp filters. The first denies
//! io_uring like the default profiles of Docker, containerd and Fargate. The second makes a
//! `SO_RCVBUF` of the program wait until another process has set the size, bounded by 212,992 bytes
//! as if `net.core.rmem_max` had its default; the kernel then grants twice this number, as always.
//! Then the process executes the program, under the same process id.
//!
//! ```text
//!   confine ──► starts `queues`, hands it the listener of the second filter ──► executes PROGRAM
//!                                                                                   │ SO_RCVBUF
//!   queues  ◄──── the kernel: a call waits ◄───────────────────────────────────────┘
//!           ────► takes a copy of the socket, sets the size, answers the call
//! ```

mod listener;
mod queues;

pub use queues::serve as serve_queues;

use listener::Listener;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The command of this kit that sets the queues of a confined program. Only `confine` starts it.
pub const QUEUES: &str = "queues";

/// The default of `net.core.rmem_max` and `net.core.rmem_default`, in bytes.
pub const QUEUE_BYTES_MAX: usize = 212_992;

/// The user id of `nobody`.
const USER: u32 = 65_534;

/// System call numbers, from asm/unistd.h. The numbers of io_uring are the same on all processors.
const IO_URING: [i64; 3] = [425, 426, 427];
#[cfg(target_arch = "x86_64")]
const SETSOCKOPT: i64 = 54;
#[cfg(target_arch = "aarch64")]
const SETSOCKOPT: i64 = 208;

const SOL_SOCKET: u64 = 1;
/// From asm-generic/socket.h. `SO_RCVBUFFORCE` needs no filter: the kernel denies it to `nobody`.
const SO_RCVBUF: u64 = 8;

const EPERM: u32 = 1;

/// Executes the program in place of this process. Returns only if that fails.
///
/// # Errors
///
/// Fails if the kernel rejects a filter, if the process that sets the queues does not start, or if
/// the program cannot be executed.
pub fn become_confined(mut words: impl Iterator<Item = OsString>) -> Result<(), Box<dyn Error>> {
    let program = words.next().ok_or("confine needs a program")?;
    let mut command = Command::new(program);
    command.args(words);
    // The user id changes on `exec`, after the filters are installed. The filters also apply to the
    // new user.
    if rustix::process::geteuid().is_root() {
        command.uid(USER).gid(USER);
    }
    install()?;
    Err(command.exec().into())
}

/// Installs both filters, and hands the listener of the second to a process that sets queues.
fn install() -> Result<(), Box<dyn Error>> {
    // The process starts before the filters exist: a filter applies to later children too.
    let mut queues = Command::new(std::env::current_exe()?)
        .arg(QUEUES)
        .arg(std::process::id().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // Without root, the process may only copy sockets of this one if this one allows it. The call
    // fails where no permission is needed.
    let _ = rustix::process::set_ptracer(rustix::process::PTracer::ProcessID(
        rustix::process::Pid::from_child(&queues),
    ));
    apply_filter(&denied()?)?;
    let listener = Listener::install(watched()?)?;
    let (input, output) = (queues.stdin.take(), queues.stdout.take());
    let (Some(mut input), Some(output)) = (input, output) else { return Err("no pipes".into()) };
    writeln!(input, "{}", listener.as_raw_fd())?;
    let mut answer = String::new();
    BufReader::new(output).read_line(&mut answer)?;
    match answer.trim() {
        queues::READY => Ok(()),
        error => Err(format!("the queues cannot be limited: {error}").into()),
    }
}

/// Returns the filter that denies io_uring.
fn denied() -> Result<BpfProgram, Box<dyn Error>> {
    let calls = IO_URING.map(|number| (number, Vec::new()));
    filter(BTreeMap::from(calls), SeccompAction::Errno(EPERM))
}

/// Returns the filter that lets the listener answer `SO_RCVBUF`.
fn watched() -> Result<BpfProgram, Box<dyn Error>> {
    let equals = |index, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let rule = SeccompRule::new(vec![equals(1, SOL_SOCKET)?, equals(2, SO_RCVBUF)?])?;
    let calls = BTreeMap::from([(SETSOCKOPT, vec![rule])]);
    filter(calls, SeccompAction::Trace(listener::PLACEHOLDER))
}

fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    matching: SeccompAction,
) -> Result<BpfProgram, Box<dyn Error>> {
    let processor = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, matching, processor)?.try_into()?)
}
