//! The system calls that need unsafe code, behind safe types. There is no other unsafe code.

mod meminfo;
mod mmsg;

pub use meminfo::drop_count;
pub use mmsg::DatagramSlots;
