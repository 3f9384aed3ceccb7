//! Tests that depend on the receive backend: unchanged datagrams, the kernel's queue, a port shared
//! by several daemons, and the shutdown.
//!
//! Several test targets include these tests. The daemons of each target use the receive backend in
//! the target's name. If that backend does not work on this machine, each test is skipped.

#[path = "../shared/skip.rs"]
mod skip;

mod account;
mod answers;
mod backend;
mod bad_input;
mod client;
mod dates;
mod delivery;
mod drain;
mod endpoint;
mod held;
mod load;
mod pacing;
mod process;
mod receive;
mod recorded;
mod shedding;
mod sockets;
