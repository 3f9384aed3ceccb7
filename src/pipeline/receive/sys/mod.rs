//! System calls that need unsafe code, behind safe types.
//!
//! In: descriptors. Out: datagrams, counts of the kernel. Thread: each type names its own.
//!
//! Every unsafe block says why it is sound (SAFETY) and why it is worth it (JUSTIFICATION), with a
//! measurement where the reason is speed.

#![expect(
    unsafe_code,
    reason = "the receivers' only place for it; each block says why it is sound"
)]

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
