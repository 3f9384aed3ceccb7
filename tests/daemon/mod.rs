//! Runs the real binary against a faulty service and faulty clients.
//!
//! Tests that depend on the receive backend are in `by_backend.rs`. All other tests are in this
//! folder's other files. They run with one backend: io_uring, or `recvmmsg` if io_uring does not
//! work.

#[path = "../shared/skip.rs"]
mod skip;

mod account;
mod alarms;
mod answers;
mod calls;
mod client;
mod connections;
mod credentials;
mod dates;
mod debug_log;
mod delivery;
mod denied;
mod disk;
mod endpoint;
mod exporter;
mod fake;
mod faults;
mod files;
mod forwarding;
mod health;
mod held;
mod hostile_frames;
mod hostile_http1;
mod hostile_http2;
mod hostile_http2_answers;
mod hostile_peer;
mod hostile_records;
mod hostile_requests;
mod hostile_rows;
mod hostile_tls;
mod http_proxy;
mod identity;
mod json;
mod libraries;
mod limits;
mod load;
mod logging;
mod metadata;
mod not_x_ray;
mod otlp;
mod otlp_ports;
mod outage;
mod pacing;
mod pod;
mod process;
mod proxy;
mod proxy_identity;
mod region;
mod shared_files;
mod shutdown;
mod signing_proxy;
mod smuggling;
#[rustfmt::skip] // One row a line.
mod smuggling_rows;
mod socks_proxy;
mod spans;
mod split;
mod spool;
mod spool_clock;
mod spool_large;
mod start;
mod tcp_limits;
mod tcp_memory;
mod telemetry;
mod threads;
mod throttle;
mod tls;
mod verify;
