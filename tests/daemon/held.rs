//! Stops one thread of a daemon, to simulate a thread that a fault of the program has blocked.

#![allow(unsafe_code, reason = "a single thread can only be stopped with ptrace")]

use super::process::{Daemon, wait_until};
use super::skip::{Need, skip};

/// A thread of a daemon that this process has stopped with ptrace. The daemon sees a stuck thread.
/// The thread runs again when this value is dropped. The test must drop the value on the thread
/// that created it.
#[derive(Debug)]
pub struct Held(libc::pid_t);

impl Held {
    /// Stops the thread with this name. Returns `None`, and prints that the test is skipped, if
    /// this machine does not allow that.
    pub fn thread_of(daemon: &Daemon, name: &str) -> Option<Self> {
        let folder = format!("/proc/{}/task", daemon.id());
        let thread =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find(|path| {
                std::fs::read_to_string(path.join("comm")).is_ok_and(|it| it.trim() == name)
            });
        let id: libc::pid_t =
            thread.unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap();
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: neither request reads or writes memory of this process.
        let is_held = unsafe {
            libc::ptrace(libc::PTRACE_SEIZE, id, none, none) == 0
                && libc::ptrace(libc::PTRACE_INTERRUPT, id, none, none) == 0
        };
        if !is_held {
            skip(Need::Root, "threads cannot be held here (ptrace)");
            return None;
        }
        let state = || std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        wait_until("the thread is held", || state().contains(") t "));
        Some(Self(id))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: the request reads and writes no memory of this process. The thread is in a ptrace
        // stop, as PTRACE_DETACH requires.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, none, none) };
    }
}
