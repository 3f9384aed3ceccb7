//! One system call of the daemon fails, at many places after the start. strace makes it fail.
//!
//! These tests take minutes: tests/run --full faults.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(dead_code, reason = "this target uses only a part of the shared test code")]

#[path = "daemon/syscalls.rs"]
mod daemon;
