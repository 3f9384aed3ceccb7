//! Reads how much memory a socket's queue takes up, and how many datagrams the kernel dropped
//! (`SO_MEMINFO`, linux/sock_diag.h).
//!
//! In: a socket. Out: two of the kernel's counts. Bound: one system call each. Any thread.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Count of numbers in the kernel's answer (`SK_MEMINFO_VARS`).
const COUNT: usize = 9;
/// Index of the bytes that the queue takes up (`SK_MEMINFO_RMEM_ALLOC`).
const QUEUED: usize = 0;
/// Index of the count of dropped datagrams (`SK_MEMINFO_DROPS`).
const DROPS: usize = 8;

/// Returns how many datagrams the kernel has dropped since the socket was opened, modulo 2^32.
///
/// # Errors
///
/// Returns `ENOPROTOOPT` on kernels before Linux 4.12.
pub fn drop_count(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(memory_info(socket)?[DROPS])
}

/// Returns the bytes that datagrams in the socket's queue take up, with the kernel's own
/// structures.
///
/// # Errors
///
/// Returns `ENOPROTOOPT` on kernels before Linux 4.12.
pub fn queued_bytes(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(memory_info(socket)?[QUEUED])
}

fn memory_info(socket: BorrowedFd<'_>) -> io::Result<[u32; COUNT]> {
    let mut answer = [0u32; COUNT];
    let mut length = libc::socklen_t::try_from(size_of_val(&answer)).unwrap_or(0);
    // SAFETY: `answer` and `length` are valid for writes during the whole call. `length` is the
    // size of `answer` in bytes, so that the kernel writes within it.
    // JUSTIFICATION: neither rustix nor socket2 offers this option. It is not about speed: the same
    // counts are otherwise only text in /proc/net/udp.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            (&raw mut answer).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(answer) } else { Err(io::Error::last_os_error()) }
}
