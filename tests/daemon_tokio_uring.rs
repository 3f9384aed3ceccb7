//! The tests of the daemon that depend on how it receives, with daemons that receive by
//! tokio-uring.

#![allow(clippy::unwrap_used, reason = "a test may end where it finds what it does not expect")]
#![allow(dead_code, reason = "only a part of the tests, and so of what they use, is here")]

#[path = "daemon/by_backend.rs"]
mod daemon;
