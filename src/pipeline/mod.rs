//! The way of a segment, in its order: from a datagram to an answer of the service.

pub mod batch;
pub mod ingest;
pub mod limits;
pub mod receive;
pub mod ring;
pub mod segment;
pub mod sender;
pub mod spool;
pub mod tail;
pub mod upload;
