//! The real binary against an endpoint that misbehaves, and senders that do.

mod bad_input;
mod endpoint;
mod faults;
mod process;
mod start;
mod tls;
