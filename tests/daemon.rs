//! The tests of the daemon, but those that depend on how it receives.

#![allow(clippy::unwrap_used, reason = "a test may end where it finds what it does not expect")]

#[path = "daemon/mod.rs"]
mod daemon;
