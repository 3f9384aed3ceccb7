//! The effects of panics, in a build with injected panics: the feature `inject-panics`.
//!
//! The variable `XRAY_BINARY` names that build. `tests/run panics` builds it with the release
//! profile, because the release profile must unwind.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(dead_code, reason = "this target uses only a part of the shared test code")]

#[path = "daemon/panics.rs"]
mod daemon;
