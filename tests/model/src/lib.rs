//! The ring and the pool as they are in the daemon, on loom's atomics: see `tests/ring.rs`.

// `clippy --all-targets` builds the unit tests of all targets: those in the included files are the
// daemon's, and need what the daemon's tests need.
#![cfg(not(test))]

#[path = "../../../src/memory.rs"]
pub mod memory;
#[path = "../../../src/ring/mod.rs"]
pub mod ring;
#[path = "../../../src/segment/types.rs"]
pub mod segment;
pub mod sync;
