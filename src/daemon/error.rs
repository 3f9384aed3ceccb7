//! The error that ends the daemon, with a text that says what to change.

use crate::aws::endpoint::EndpointError;
use crate::aws::identity::RegionError;
use crate::aws::transport::TlsError;
use crate::base::panics::{Fault, Panicked};
use crate::pipeline::receive::{BindError, ReceiveError, Unavailable};
use std::io;

/// Why the daemon could not start, or why it ended before a signal asked for the end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The UDP address cannot be opened
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The receive backend that the operator chose does not work on this host
    #[error("{0}. Or leave the choice to the daemon: Receive.Backend: auto")]
    Backend(#[from] Unavailable),
    /// The sandbox cannot open its TCP port, which it needs
    #[error("TCP {address} cannot be opened: {source}. Give another address with -t")]
    Tcp {
        /// The address from the configuration.
        address: String,
        /// The error of the kernel.
        source: io::Error,
    },
    /// Other programs have both ports of the sandbox
    #[error(
        "UDP {udp} and TCP {tcp} are in use, perhaps by another X-Ray daemon or sandbox. Stop it, \
         or give other ports: xray sandbox -b 127.0.0.1:3000 -t 127.0.0.1:3000"
    )]
    BothInUse {
        /// The UDP address from the configuration.
        udp: String,
        /// The TCP address from the configuration.
        tcp: String,
    },
    /// A port for OpenTelemetry's spans cannot be opened
    #[error(
        "TCP {address} for OpenTelemetry's spans ({key}) cannot be opened: {source}. Give another \
         address, or end the program that has it"
    )]
    Otlp {
        /// The key of the setting.
        key: &'static str,
        /// The address from the configuration.
        address: String,
        /// The error of the kernel.
        source: io::Error,
    },
    /// The file for the sandbox's traces cannot be used
    #[error(
        "--keep {path}: {source}. Give a file that this user may write and no other sandbox has"
    )]
    Keep {
        /// The path as given with `--keep`.
        path: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// No source has a region
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The endpoint is not a valid address
    #[error("Endpoint {0}")]
    Endpoint(#[from] EndpointError),
    /// The trusted certificates cannot be loaded
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system does not create the spool's thread
    #[error(
        "the thread of the spool (Spool.Path) cannot be created: {0}. Allow more threads \
         (TasksMax, pids.max, ulimit -u), or run without a spool"
    )]
    SpoolThread(#[source] io::Error),
    /// The system does not provide a thread, a descriptor or a signal handler
    #[error(
        "the system does not provide a thread or descriptor that the daemon needs: {0}. Allow more \
         of them (TasksMax, pids.max, ulimit -u, ulimit -n)"
    )]
    System(#[from] io::Error),
    /// A receiver has ended with an error
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    /// A thread that the daemon needs has panicked
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Code that starts the daemon has panicked
    #[error("the start met {0}")]
    Panic(#[from] Panicked),
}
