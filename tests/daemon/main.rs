//! The real binary against an endpoint that misbehaves, and senders that do.

#![allow(clippy::unwrap_used, reason = "a test may end where it finds what it does not expect")]

mod bad_input;
mod endpoint;
mod faults;
mod process;
mod recorded;
mod start;
mod tls;
