//! The system calls that need unsafe code, behind safe types.

#![expect(unsafe_code, reason = "the one place for it; each block says why it is sound")]

mod bpf;
mod buffer_ring;
mod meminfo;
mod mmsg;
mod uring;
mod watch;

pub use bpf::{attach_spread, detach_spread};
pub use meminfo::{drop_count, queued_bytes};
pub use mmsg::DatagramSlots;
pub use uring::MultishotReceive;
pub use watch::watch;
