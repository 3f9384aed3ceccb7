//! The effects of panics, in a build with injected panics: the feature `inject-panics`.
//!
//! The variable `XRAY_BINARY` names that build. `tests/run panics` builds it with the
//! profile `ci`, which inherits from the release profile and unwinds as that does.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(dead_code, reason = "this target uses only a part of the shared test code")]

#[path = "daemon/panics.rs"]
mod daemon;
