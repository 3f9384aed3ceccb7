//! The real binary against an endpoint that misbehaves, and senders that do.
//!
//! Each target that takes these tests in has its daemons receive in another way, which is the one
//! in the target's name.

mod account;
mod answers;
mod bad_input;
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
mod http_proxy;
mod identity;
mod load;
mod logging;
mod outage;
mod process;
mod proxy;
mod proxy_identity;
mod receive;
mod recorded;
mod region;
mod shutdown;
mod signing_proxy;
mod split;
mod spool;
mod start;
mod tcp_limits;
mod telemetry;
mod throttle;
mod tls;
