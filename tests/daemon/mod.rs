//! The real binary against a service that misbehaves, and senders that do.
//!
//! What depends on how datagrams are received is in `by_backend.rs`; the rest is here, and runs
//! once, on io_uring where that works.

#[path = "../shared/skip.rs"]
mod skip;

mod account;
mod answers;
mod client;
mod connections;
mod credentials;
mod dates;
mod delivery;
mod denied;
mod disk;
mod endpoint;
mod fake;
mod faults;
mod health;
mod held;
mod http_proxy;
mod identity;
mod libraries;
mod load;
mod logging;
mod not_x_ray;
mod outage;
mod pacing;
mod process;
mod proxy;
mod proxy_identity;
mod region;
mod shutdown;
mod signing_proxy;
mod split;
mod spool;
mod spool_clock;
mod spool_large;
mod start;
mod tcp_limits;
mod telemetry;
mod threads;
mod throttle;
mod tls;
