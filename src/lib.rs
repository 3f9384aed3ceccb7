//! xrayd: a drop-in replacement for the AWS X-Ray daemon.

pub mod account;
pub mod address;
pub mod batch;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod endpoint;
pub mod escape;
pub mod identity;
pub mod intake;
pub mod limits;
pub mod local_http;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod outlet;
pub mod receive;
pub mod ring;
pub mod sandbox;
pub mod segment;
pub mod upload;
