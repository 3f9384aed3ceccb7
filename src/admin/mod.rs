//! Administration: the handler of the TCP port, and the health and metrics that the daemon reports.
//!
//! In: HTTP requests on the TCP port. Out: health, metrics, the received segments (`/tail`), and
//! the service's answers to requests that the signing proxy forwards. Telemetry sends counts to the
//! service. The local client runs in other processes, for example `xray healthcheck`, and sends
//! requests to a running daemon.

pub mod health;
pub mod local_client;
pub mod metrics;
pub mod pages;
pub mod proxy;
pub mod telemetry;
