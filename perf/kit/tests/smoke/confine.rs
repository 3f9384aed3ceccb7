//! Tests `xrayd-perf confine`: a confined program gets the queues that the kernel grants to a user
//! without privileges, and no io_uring.

use std::process::Command;

/// Prints what the kernel grants of a number of bytes asked for with a socket option, or the
/// error's name. Option 8 is `SO_RCVBUF`, and 33 is `SO_RCVBUFFORCE`.
const QUEUES: &str = "
import errno, socket
def granted(option, asked):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.setsockopt(socket.SOL_SOCKET, option, asked)
        except OSError as error:
            return errno.errorcode[error.errno]
        return one.getsockopt(socket.SOL_SOCKET, 8)
print(granted(8, 100_000), granted(8, 212_992), granted(8, 16 << 20), granted(33, 16 << 20))
";

/// Prints the error's name of a call of io_uring_setup.
const RING: &str = "
import ctypes, errno
call = ctypes.CDLL(None, use_errno=True).syscall
call(425, 1, None)
print(errno.errorcode[ctypes.get_errno()])
";

/// Keeps as many of 1,000 datagrams as the queue of one socket has room for, and counts them.
const BURST: &str = "
import socket
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 212_992)
one.bind(('127.0.0.1', 0))
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(1000):
    other.sendto(b'x' * 1000, one.getsockname())
one.setblocking(False)
count = 0
try:
    while one.recv(2000):
        count += 1
except BlockingIOError:
    print(count)
";

/// Runs a Python program confined, and returns what it prints.
fn confined(program: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xrayd-perf"));
    let output = command.args(["confine", "python3", "-c", program]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_confined_socket_gets_twice_what_it_asks_for_up_to_the_kernels_default_maximum() {
    assert_eq!(confined(QUEUES), "200000 425984 425984 EPERM");
}

#[test]
fn a_confined_socket_that_asks_for_212992_bytes_keeps_184_datagrams_of_1000() {
    assert_eq!(confined(BURST), "184");
}

#[test]
fn a_confined_program_gets_no_io_uring() {
    assert_eq!(confined(RING), "EPERM");
}
