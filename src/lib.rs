//! xrayd: a drop-in replacement for the AWS X-Ray daemon.

pub mod account;
pub mod batch;
pub mod cli;
pub mod config;
pub mod escape;
pub mod memory;
pub mod ring;
pub mod sandbox;
pub mod segment;
