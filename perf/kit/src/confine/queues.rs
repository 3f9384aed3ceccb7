//! The process that sets the queues of a confined program.
//!
//! In: the process id of the program (argument) and the number of its listener (standard input).
//! Out: [`READY`] on standard output, and an answer for each `SO_RCVBUF` of the program. It ends
//! with the program.

use super::QUEUE_BYTES_MAX;
use super::listener::{Call, Listener};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

/// The line that the process prints when it has the listener.
pub const READY: &str = "ready";

/// Serves the confined program until it has ended.
///
/// # Errors
///
/// Fails if the listener cannot be taken over or breaks.
pub fn serve(mut words: impl Iterator<Item = OsString>) -> Result<(), Box<dyn Error>> {
    let id = words.next().ok_or("queues needs a process id")?;
    let id = id.to_str().and_then(|id| id.parse().ok()).ok_or("that is no process id")?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let mut out = io::stdout();
    let listener = match copy_of(id, line.trim().parse()?) {
        Ok(listener) => Listener::of(listener),
        Err(error) => return Ok(writeln!(out, "{error}")?),
    };
    writeln!(out, "{READY}")?;
    while let Some(call) = listener.next()? {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EPERM);
        listener.answer(call, set(call).map_err(errno));
    }
    Ok(())
}

/// Returns a copy of a descriptor of another process.
fn copy_of(id: i32, descriptor: RawFd) -> io::Result<OwnedFd> {
    let id = Pid::from_raw(id).ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(id, PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())?)
}

/// Carries out a call `setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &size, ...)`, as the kernel would
/// with `net.core.rmem_max` at its default.
fn set(call: Call) -> io::Result<()> {
    let [socket, _, _, place, ..] = call.arguments;
    // The listener has the id of a thread, but a process id is needed.
    let status = fs::read_to_string(format!("/proc/{}/status", call.thread))?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    let process = process.ok_or(io::ErrorKind::NotFound)?;
    let mut size = [0; 4];
    File::open(format!("/proc/{process}/mem"))?.read_exact_at(&mut size, place)?;
    // A negative size is a large one for the kernel.
    let size = usize::try_from(u32::from_ne_bytes(size)).unwrap_or(usize::MAX);
    let socket = RawFd::try_from(socket).map_err(io::Error::other)?;
    let socket = copy_of(process, socket)?;
    rustix::net::sockopt::set_socket_recv_buffer_size(socket, size.min(QUEUE_BYTES_MAX))?;
    Ok(())
}
