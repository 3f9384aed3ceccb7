//! A kit that measures and compares X-Ray daemons: load, endpoint, floor and comparison.
//!
//! The kit treats a daemon as a black box: a program that receives datagrams on a UDP port and
//! calls an HTTP endpoint. For spans of OpenTelemetry there is a second sender and a second floor
//! (`spans`). `perf/README.md` says how to run the kit and what the numbers mean.
//!
//! ```text
//!   sender ──UDP──► a daemon, or floor ──TLS──► endpoint        compare starts them in turn,
//!   document, pace                              tally           measures them from outside
//!                                                               and writes rows
//! ```

pub mod clock;
pub mod compare;
pub mod confine;
pub mod document;
pub mod endpoint;
pub mod floor;
pub mod pace;
pub mod sender;
pub mod sending;
pub mod spans;
pub mod tally;
mod upload;
