//! What every room stands on: counting, memory, logging, time, the small HTTP server.
//!
//! Nothing here knows AWS, segments or the configuration.

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
