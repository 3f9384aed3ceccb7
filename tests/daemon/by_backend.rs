//! What depends on how datagrams are received: every datagram arrives as it was, the kernel's
//! queue, a shared port, the end.
//!
//! Each target that takes these tests in has its daemons receive in another way, which is the one
//! in the target's name. Where that does not work each test is skipped.

#[path = "../shared/skip.rs"]
mod skip;

mod account;
mod answers;
mod backend;
mod bad_input;
mod client;
mod dates;
mod delivery;
mod drain;
mod endpoint;
mod held;
mod load;
mod pacing;
mod process;
mod receive;
mod recorded;
