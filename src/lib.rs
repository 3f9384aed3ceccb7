//! xrayd: a drop-in replacement for the AWS X-Ray daemon.
//!
//! Data flows one way. The code is seven rooms in layers: each uses the layers below it and knows
//! nothing of those above; within a room its parts have an order too. `tests/tidy` holds it to
//! that.
//!
//! ```text
//! ┌──────────────────────────────────────────────┬─────────────────────────────────────────────┐
//! │ daemon/    start, threads, shutdown          │ commands/  verify, tail                     │
//! ├──────────────────────────────────────────────┼─────────────────────────────────────────────┤
//! │ config/    flags, file, environment          │ admin/     health, metrics, proxy, telemetry│
//! ├──────────────────────────────────────────────┴─────────────────────────────────────────────┤
//! │ pipeline/  the way of a segment                                                            │
//! │                                                                                            │
//! │     a receiver thread                              the sender thread (sender/)             │
//! │     receive/ ──► segment/ ──► ingest.rs ──► ring/ ──► batch/ ──► upload/ ──► outcome       │
//! │     datagrams    checked                 packed    bodies        ▲           │             │
//! │                                                                  └───────────┘             │
//! │                                                   tried again; what memory has             │
//! │                                                   no room for waits in spool/              │
//! ├────────────────────────────────────────────────────────────────────────────────────────────┤
//! │ aws/       endpoint, identity, transport; signs a body, classifies the answer              │
//! ├────────────────────────────────────────────────────────────────────────────────────────────┤
//! │ base/      the account of every segment, the pool of memory, log, clock, HTTP server       │
//! └────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```

pub mod admin;
pub mod aws;
pub mod base;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod pipeline;

// Beside the unit tests.
#[cfg(test)]
#[path = "../tests/shared/skip.rs"]
mod skip;
