//! The tests that depend on the receive backend, with daemons that use `recvmmsg`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(dead_code, reason = "this target uses only a part of the shared test code")]

#[path = "daemon/by_backend.rs"]
mod daemon;
