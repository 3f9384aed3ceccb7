//! The tests of `tests/daemon`, with daemons that receive by recvmmsg.

#![allow(clippy::unwrap_used, reason = "a test may end where it finds what it does not expect")]

mod daemon;
