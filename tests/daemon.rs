//! All tests of the daemon except those that depend on the receive backend.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "daemon/mod.rs"]
mod daemon;
