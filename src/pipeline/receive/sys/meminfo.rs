//! `getsockopt(SO_MEMINFO)`: what the kernel knows of a socket's memory.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Numbers in the kernel's answer (`SK_MEMINFO_VARS`, linux/sock_diag.h).
const COUNT: usize = 9;
/// What the queue takes up (`SK_MEMINFO_RMEM_ALLOC`).
const QUEUED: usize = 0;
/// The one that counts dropped datagrams (`SK_MEMINFO_DROPS`).
const DROPS: usize = 8;

/// Datagrams that the kernel dropped since the socket was made; it counts up to 2^32 and wraps.
///
/// # Errors
///
/// `ENOPROTOOPT` on kernels before 4.12.
pub fn drop_count(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(memory_info(socket)?[DROPS])
}

/// Bytes that datagrams in the socket's queue take up, the kernel's own structures included.
///
/// # Errors
///
/// As [`drop_count`].
pub fn queued_bytes(socket: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(memory_info(socket)?[QUEUED])
}

fn memory_info(socket: BorrowedFd<'_>) -> io::Result<[u32; COUNT]> {
    let mut answer = [0u32; COUNT];
    let mut length = libc::socklen_t::try_from(size_of_val(&answer)).unwrap_or(0);
    // SAFETY: `answer` and `length` are valid for writes for the whole call, and `length` is the
    // size of `answer` in bytes, so the kernel writes within it.
    // JUSTIFICATION: neither rustix nor socket2 offers this option.
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
