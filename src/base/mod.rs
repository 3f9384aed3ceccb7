//! The base of all rooms: counters, memory, log, clock, panics and a small HTTP server.
//!
//! Code in this room knows nothing of AWS, of segments or of the configuration.

pub mod account;
pub mod address;
pub mod clock;
pub mod conditions;
pub mod error_text;
pub mod host;
pub mod http_server;
pub mod log;
pub mod memory;
pub mod panics;
pub mod sync;
