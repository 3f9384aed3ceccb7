//! The stages that a segment passes through, from a datagram to an answer of the service.
//!
//! In: datagrams of applications. Out: calls to the X-Ray service, and counts in the account.
//! Bound: `limits` divides the memory among the stages before the start. Threads: `receive-N` up to
//! the rings, `upload` from the rings on, `spool` for the disk queue. `spans` is the queue of the
//! spans of OpenTelemetry, which have a way of their own.

pub mod batch;
pub mod call_limit;
pub mod capacity;
pub mod ingest;
pub mod limits;
pub mod receive;
pub mod ring;
pub mod segment;
pub mod sender;
pub mod shedding;
pub mod sockets;
pub mod spans;
pub mod spool;
pub mod tail;
pub mod upload;
