//! The daemon's own ring and pool, compiled with loom's atomics. `tests/ring.rs` checks them.
//!
//! In: files of `src`. Out: the same modules, with [`base::sync`] of this crate.

// `clippy --all-targets` builds the unit tests of all targets. The unit tests in the included files
// belong to the daemon's crate and need its other modules.
#![cfg(not(test))]

// The modules have the same paths as in the daemon, because its files use these paths.
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
