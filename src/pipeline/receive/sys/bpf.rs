//! Spreads datagrams over the sockets of a group with a program of classic BPF
//! (`SO_ATTACH_REUSEPORT_CBPF` in socket(7)).
//!
//! In: a socket of the group, and the number of sockets of the group to use. Out: a program that
//! the kernel runs for each datagram. Bound: three instructions. Any thread.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The offset at which classic BPF reads a random number instead of bytes of the datagram
/// (`SKF_AD_OFF` + `SKF_AD_RANDOM`, linux/filter.h), as the unsigned number that an instruction
/// holds.
const RANDOM: u32 = (-0x1000i32 + 56).cast_unsigned();

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const MODULO: u16 = 0x94; // BPF_ALU | BPF_MOD | BPF_K
const RETURN_CONSTANT: u16 = 0x06; // BPF_RET | BPF_K
const RETURN_RESULT: u16 = 0x16; // BPF_RET | BPF_A

fn instruction(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// Makes the kernel give each datagram to one of the first `socket_count` sockets of the group that
/// `socket` belongs to, chosen by a random number.
///
/// # Errors
///
/// Returns `EINVAL` if the socket has no group, `ENOMEM` or `EPERM` if the kernel takes no program.
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
    // SAFETY: `program` and the instructions that it points to are valid for reads during the whole
    // call, and the kernel copies them.
    // JUSTIFICATION: neither rustix nor socket2 offers this option. With it each of four receivers
    // gets 25 % of the datagrams of one sending socket (perf/results/2026-11-25-receive-epyc.md,
    // AMD EPYC); the kernel's hash gives all of them to one receiver (test in group.rs).
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

/// Detaches the program from the group that `socket` belongs to. The kernel's hash of the client's
/// address then spreads the datagrams.
///
/// # Errors
///
/// Returns `ENOENT` if no program is attached.
pub fn detach_spread(socket: &impl AsFd) -> io::Result<()> {
    let unused: libc::c_int = 0;
    // SAFETY: the kernel reads nothing for this option, and the integer that is passed is valid for
    // reads.
    // JUSTIFICATION: neither rustix nor socket2 offers this option. It is not about speed: a daemon
    // that leaves a shared port has to detach its program.
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
