//! xrayd: a drop-in replacement for the AWS X-Ray daemon.
//!
//! Data flows one way. A stage uses what the stage before it gives and the leaves below, and
//! knows nothing of the stages after it; `tests/tidy` holds it to that.
//!
//! ```text
//!   a receiver thread (intake.rs)                the upload thread (outlet/)
//!  ┌────────────────────────────────────┐       ┌─────────────────────────────────────────┐
//!  │ socket ──► datagram ──► segment ───┼► ring ┼──► batch ──────► request ──────► outcome │
//!  │ receive/                segment.rs │ring/ │    batch/        upload/         upload/ │
//!  │                                    │       │    escape/       sign, client   classify │
//!  └────────────────────────────────────┘       └──────────────────▲────────────────┬─────┘
//!         memory.rs: one pool of chunks for all of it               └─── waiting ◄───┘
//!         account.rs: every segment counted once                    failures wait here ◄─► spool/
//!                                                                 (memory short, no time left)
//!
//!   beside the flow, on the main thread (daemon/):  identity/     credentials and region
//!                                                   health/       do the threads make progress?
//!                                                   pages.rs      its pages, and for the rest:
//!                                                                 the sandbox, or
//!                                                   proxy/        the service, signed for clients
//!                                                   telemetry/    PutTelemetryRecords
//! ```

// The flow, in its order.
pub mod receive;
pub mod segment;

pub mod ring;

pub mod batch;

pub mod upload;

// The threads of the flow.
pub mod intake;
pub mod outlet;

// Beside the flow.
pub mod health;
pub mod identity;
pub mod local_http;
pub mod metrics;
pub mod pages;
pub mod proxy;
pub mod telemetry;
pub mod verify;

// The assembly.
pub mod cli;
pub mod config;
pub mod daemon;

// Leaves: used by all of the above. They have an order of their own, in `tests/tidy/direction.rs`:
// each may use those before it.
pub mod account;
pub mod address;
pub mod cause;
pub mod clock;
pub mod endpoint;
pub mod escape;
pub mod hash;
pub mod limits;
pub mod log;
pub mod memory;
pub mod page;
pub mod panics;
pub mod spool;
pub mod status;
pub mod sync;
pub mod tail;
pub mod transport;

// Beside the unit tests.
#[cfg(test)]
#[path = "../tests/shared/skip.rs"]
mod skip;
