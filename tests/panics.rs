//! What becomes of panics, in a build that has some injected: the feature `inject-panics`.
//!
//! `XRAY_BINARY` names that build. It is one of the release profile, since it is that one which has
//! to unwind: `tests/run panics`.

#![allow(clippy::unwrap_used, reason = "a test may end where it finds what it does not expect")]
#![allow(dead_code, reason = "only a part of what the daemon's tests use is used here")]

#[path = "daemon/panics.rs"]
mod daemon;
