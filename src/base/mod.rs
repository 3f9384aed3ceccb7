//! Parts that all other modules use: counters, memory, log, clock, panics and two small
//! servers.
//!
//! The code in this module does not depend on AWS, on segments or on the configuration.

pub mod aborts;
pub mod account;
pub mod address;
pub mod clock;
pub mod conditions;
pub mod error_text;
pub mod files;
pub mod grpc_server;
pub mod host;
pub mod http_server;
pub mod log;
pub mod memory;
pub mod outage;
pub mod panics;
pub mod sync;
