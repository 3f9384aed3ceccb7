//! The real binary against an endpoint that misbehaves, and senders that do.
//!
//! Each target that takes these tests in has its daemons receive in another way, which is the one
//! in the target's name.

mod bad_input;
mod denied;
mod endpoint;
mod faults;
mod process;
mod receive;
mod recorded;
mod start;
mod tls;
