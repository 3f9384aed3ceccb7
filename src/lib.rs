//! xrayd: a drop-in replacement for the AWS X-Ray daemon.
//!
//! `docs/architecture.md` explains the design, `docs/glossary.md` the terms.
//!
//! Data flows in one direction. The code has seven rooms, in layers. A room uses only rooms of the
//! layers below it. The parts of a room have an order too, and a part uses only parts before it.
//! `tests/tidy` checks both.
//!
//! ```text
//! ┌──────────────────────────────────────────────┬─────────────────────────────────────────────┐
//! │ daemon/    start, threads, shutdown          │ commands/  verify, tail, healthcheck, ...   │
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

// The unit tests share this file with the integration tests.
#[cfg(test)]
#[path = "../tests/shared/skip.rs"]
mod skip;
