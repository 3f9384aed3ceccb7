//! What is answered on the TCP port, and what the daemon says of itself.

pub mod health;
pub mod local_client;
pub mod metrics;
pub mod pages;
pub mod proxy;
pub mod telemetry;
