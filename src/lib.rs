//! xrayd: a drop-in replacement for the AWS X-Ray daemon.

pub mod cli;
pub mod config;
pub mod sandbox;
