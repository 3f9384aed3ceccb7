//! The listener of a seccomp filter: the kernel's queue of system calls that wait for an answer
//! (seccomp_unotify(2)).

#![allow(unsafe_code, reason = "neither the standard library nor rustix has these system calls")]

use rustix::event::{PollFd, PollFlags, poll};
use seccompiler::BpfProgram;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The data of the action `Trace` in a filter's program. [`Listener::install`] puts the action
/// "notify the listener", which seccompiler does not know, in its place.
pub const PLACEHOLDER: u32 = 0x5152;

/// The instruction of a BPF program that returns a constant.
const RETURN: u16 = 0x06;

/// A system call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Number of the call, for the answer.
    id: u64,
    /// Id of the calling thread.
    pub thread: u32,
    /// The arguments.
    pub arguments: [u64; 6],
}

/// The listener of an installed filter.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Installs a filter in this thread and its children. Calls for which it returns
    /// [`PLACEHOLDER`] wait for the listener.
    ///
    /// # Errors
    ///
    /// Fails if the kernel rejects the filter.
    pub fn install(program: BpfProgram) -> io::Result<Self> {
        let placeholder = libc::SECCOMP_RET_TRACE | PLACEHOLDER;
        let mut code: Vec<libc::sock_filter> = program
            .into_iter()
            .map(|one| {
                let is_placeholder = one.code == RETURN && one.k == placeholder;
                let k = if is_placeholder { libc::SECCOMP_RET_USER_NOTIF } else { one.k };
                libc::sock_filter { code: one.code, jt: one.jt, jf: one.jf, k }
            })
            .collect();
        let len = u16::try_from(code.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len, filter: code.as_mut_ptr() };
        // SAFETY: `program` and its instructions are valid for reads during the call, which copies
        // them. JUSTIFICATION: no safe wrapper installs a filter with a listener.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const program,
            )
        };
        let fd = RawFd::try_from(result).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened this descriptor for this process, and nobody else
        // knows it. JUSTIFICATION: the system call returns a bare number.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Uses a listener that another process has installed.
    pub fn of(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Waits for the next call. Returns `None` when no process has the filter any more.
    ///
    /// # Errors
    ///
    /// Fails if the kernel does not know the listener.
    pub fn next(&self) -> io::Result<Option<Call>> {
        loop {
            let mut waiting = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut waiting, None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result?,
            };
            if !waiting[0].revents().contains(PollFlags::IN) {
                return Ok(None);
            }
            // SAFETY: all fields are integers, for which zero is a value.
            // JUSTIFICATION: the kernel demands a structure of zeros.
            let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: the kernel writes one `seccomp_notif` to `call`, which is valid for writes.
            // JUSTIFICATION: no safe wrapper makes this call.
            let result = unsafe {
                libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call)
            };
            if result == 0 {
                let (id, thread, arguments) = (call.id, call.pid, call.data.args);
                return Ok(Some(Call { id, thread, arguments }));
            }
            let error = io::Error::last_os_error();
            // The calling process may have been killed meanwhile.
            if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) {
                return Err(error);
            }
        }
    }

    /// Ends a call: it returns 0, or fails with an error number.
    pub fn answer(&self, call: Call, result: Result<(), i32>) {
        let mut answer = libc::seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: result.err().map_or(0, |errno| -errno),
            flags: 0,
        };
        // If this fails, the calling process has been killed.
        // SAFETY: the kernel reads one `seccomp_notif_resp` from `answer`, which is valid.
        // JUSTIFICATION: no safe wrapper makes this call.
        unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer);
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
