//! The ring and the pool as they are in the daemon, on loom's atomics: see `tests/ring.rs`.

// `clippy --all-targets` builds the unit tests of all targets: those in the included files are the
// daemon's, and need what the daemon's tests need.
#![cfg(not(test))]

// The folders are those of the daemon, since its files name each other by them.
#[path = "../../../src/base"]
pub mod base {
    pub mod memory;
    #[path = "../../tests/model/src/sync.rs"]
    pub mod sync;
}
#[path = "../../../src/pipeline"]
pub mod pipeline {
    pub mod ring;
    #[path = "segment/types.rs"]
    pub mod segment;
}
