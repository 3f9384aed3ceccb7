//! What every room stands on: counting, memory, logging, time, the small HTTP server.
//!
//! Nothing here knows AWS, segments or the configuration.

pub mod account;
pub mod address;
pub mod cause;
pub mod clock;
pub mod local_http;
pub mod log;
pub mod memory;
pub mod panics;
pub mod status;
pub mod sync;
