//! The way of a segment, in its order: from a datagram to an answer of the service.

pub mod batch;
pub mod intake;
pub mod limits;
pub mod outlet;
pub mod receive;
pub mod ring;
pub mod segment;
pub mod spool;
pub mod tail;
pub mod upload;
