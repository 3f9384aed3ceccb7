//! Opens the sandbox's ports for exporters of OpenTelemetry.
//!
//! In: the flags `--otlp-http` and `--otlp-grpc`, and the address of the TCP port. Out: a listener
//! for each port that could be opened. A port that another program has is only a warning: spans are
//! taken on the TCP port too. Thread: main.

use super::tcp_port::open;
use crate::aws::transport::Resolver;
use crate::base::address;
use crate::config::cli::SandboxFlags;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tracing::{info, warn};

/// The usual ports of OTLP over HTTP and over gRPC,
/// <https://opentelemetry.io/docs/specs/otlp/#otlphttp-default-port>.
const HTTP_PORT: u16 = 4318;
const GRPC_PORT: u16 = 4317;

/// Value of a flag that switches its port off.
const OFF: &str = "off";

/// An open port, and the address at which clients on this host reach it.
pub(super) type Port = (Arc<TcpListener>, SocketAddr);

/// The ports that could be opened.
pub(super) struct OtlpPorts {
    pub(super) http: Option<Port>,
    pub(super) grpc: Option<Port>,
}

impl OtlpPorts {
    /// Opens both ports. By default they are on the address of the TCP port.
    pub(super) async fn open(flags: &SandboxFlags, tcp: SocketAddr, resolver: &Resolver) -> Self {
        let [http, grpc] = addresses(flags, tcp);
        let tcp = address::reachable(tcp);
        Self {
            http: port("HTTP", &http, tcp, resolver).await,
            grpc: port("gRPC", &grpc, tcp, resolver).await,
        }
    }
}

/// Returns the addresses of both ports, as configured or beside the TCP port.
fn addresses(flags: &SandboxFlags, tcp: SocketAddr) -> [String; 2] {
    let or_usual = |flag: &Option<String>, port| {
        flag.clone().unwrap_or_else(|| SocketAddr::new(tcp.ip(), port).to_string())
    };
    [or_usual(&flags.otlp_http, HTTP_PORT), or_usual(&flags.otlp_grpc, GRPC_PORT)]
}

async fn port(protocol: &str, at: &str, tcp: SocketAddr, resolver: &Resolver) -> Option<Port> {
    if at == OFF {
        return None;
    }
    match open(at, resolver).await {
        Ok((listener, address)) => {
            info!("OpenTelemetry's spans are taken over {protocol} at {address}");
            Some((Arc::new(listener), address::reachable(address)))
        }
        Err(error) => {
            warn!(
                "The port for OpenTelemetry over {protocol}, {at}, cannot be opened: {error}. \
                 Spans are taken at http://{tcp}/v1/traces"
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_ports_are_on_the_address_of_the_tcp_port() {
        let of = |flags: &SandboxFlags, tcp: &str| addresses(flags, tcp.parse().unwrap());
        let mut flags = SandboxFlags::default();
        assert_eq!(of(&flags, "127.0.0.1:2000"), ["127.0.0.1:4318", "127.0.0.1:4317"]);
        assert_eq!(of(&flags, "0.0.0.0:2000"), ["0.0.0.0:4318", "0.0.0.0:4317"]);
        assert_eq!(of(&flags, "[::1]:2000"), ["[::1]:4318", "[::1]:4317"]);
        flags.otlp_grpc = Some("off".to_owned());
        assert_eq!(of(&flags, "127.0.0.1:2000"), ["127.0.0.1:4318", OFF]);
    }
}
