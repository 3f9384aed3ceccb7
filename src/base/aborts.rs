//! Writes the account when the process aborts, and makes it end with exit code 1.
//!
//! In: the signal SIGABRT. Out: one line on standard error with the thread and the account, as for
//! a panic (`panics.rs`). Bound: the line. When standard error would block, the line is dropped.
//! Thread: the one that aborts.
//!
//! The program aborts itself where no thread can go on: after a failed allocation
//! (`std::alloc::handle_alloc_error`), a stack overflow, or a panic during the handling of a panic.
//! The standard library has printed the reason before. Stable Rust has no hook for a failed
//! allocation, and an allocator of our own could not tell a failure that ends the process from one
//! that its caller handles (`Vec::try_reserve`). The signal comes in any case, and costs nothing
//! before.
//!
//! A SIGABRT of another process, such as systemd's watchdog, has its usual effect after the line.

#![expect(unsafe_code, reason = "there is no safe function that handles SIGABRT")]

use super::panics;
use std::mem::zeroed;
use std::ptr;

/// Exit code for a failure, as of a daemon that cannot start.
const EXIT_FAILURE: i32 = 1;

/// Size of a thread's name in the kernel, with its final zero (`PR_SET_NAME`, prctl(2)).
const NAME_BYTES: usize = 16;

/// Installs the handler for this process.
pub fn install() {
    // SAFETY: `action` is a C struct of integers, for which zero is a valid value, and it is valid
    // for reads during the call. `on_abort` has the type that SA_SIGINFO requires and calls only
    // functions that a signal handler may call.
    // JUSTIFICATION: the functions of signal-hook-registry are unsafe too, and its handler takes a
    // lock. It is not about speed: it runs once.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = on_abort as *const () as usize;
        // With RESETHAND a second abort has the usual effect. ONSTACK: after a stack overflow only
        // the alternate stack has room.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESETHAND;
        // It fails only for a signal that cannot be handled.
        libc::sigaction(libc::SIGABRT, &raw const action, ptr::null_mut());
    }
}

extern "C" fn on_abort(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    let mut name = [0u8; NAME_BYTES];
    // SAFETY: `name` has the size that PR_GET_NAME requires.
    // JUSTIFICATION: the name that the standard library knows is behind a thread-local value, which
    // a signal handler may not create. It is not about speed.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
    panics::report_abort(std::str::from_utf8(&name[..length]).unwrap_or_default());
    // SAFETY: the kernel passes a valid `info` with SA_SIGINFO, and a signal that a process sends
    // has a sender. The calls take no pointer, and a signal handler may make them
    // (signal-safety(7)).
    // JUSTIFICATION: `std::process::exit` would run the destructors of a broken process. It is not
    // about speed.
    unsafe {
        if (*info).si_code == libc::SI_TKILL && (*info).si_pid() == libc::getpid() {
            libc::_exit(EXIT_FAILURE);
        }
        // It takes effect when this function returns, with the usual handling.
        libc::raise(signal);
    }
}
