//! `SO_ATTACH_REUSEPORT_CBPF`: a program of classic BPF that chooses the socket of a group.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Where classic BPF finds values that are no part of the packet (`SKF_AD_OFF` and
/// `SKF_AD_RANDOM`, linux/filter.h), as the unsigned number that the instruction holds.
const RANDOM: u32 = (-0x1000i32 + 56).cast_unsigned();

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const MODULO: u16 = 0x94; // BPF_ALU | BPF_MOD | BPF_K
const RETURN_CONSTANT: u16 = 0x06; // BPF_RET | BPF_K
const RETURN_RESULT: u16 = 0x16; // BPF_RET | BPF_A

fn instruction(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// Has the kernel spread the datagrams of the group that `socket` belongs to over its first
/// `socket_count` sockets, each datagram by a random number.
///
/// # Errors
///
/// `EINVAL` when the socket has no group, `ENOMEM` or `EPERM` when the kernel takes no program.
pub fn attach_spread(socket: &impl AsFd, socket_count: usize) -> io::Result<()> {
    let count = u32::try_from(socket_count).unwrap_or(u32::MAX).max(1);
    let mut one = [instruction(RETURN_CONSTANT, 0)];
    let mut many =
        [instruction(LOAD_WORD, RANDOM), instruction(MODULO, count), instruction(RETURN_RESULT, 0)];
    let program: &mut [libc::sock_filter] = if count == 1 { &mut one } else { &mut many };
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or(0),
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `program` and the instructions that it points to are valid for reads for the whole
    // call, which copies them.
    // JUSTIFICATION: neither rustix nor socket2 offers this option.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            libc::socklen_t::try_from(size_of_val(&program)).unwrap_or(0),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the program off the group that `socket` belongs to: the kernel's hash spreads again.
///
/// # Errors
///
/// `ENOENT` when there is none.
pub fn detach_spread(socket: &impl AsFd) -> io::Result<()> {
    let unused: libc::c_int = 0;
    // SAFETY: the option reads nothing, and the integer that is passed is valid for reads.
    // JUSTIFICATION: neither rustix nor socket2 offers this option.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_REUSEPORT_BPF,
            (&raw const unused).cast(),
            libc::socklen_t::try_from(size_of_val(&unused)).unwrap_or(0),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
