//! The system calls that need unsafe code, behind safe types.

#![expect(unsafe_code, reason = "the one place for it; each block says why it is sound")]

mod meminfo;
mod mmsg;

pub use meminfo::drop_count;
pub use mmsg::DatagramSlots;
