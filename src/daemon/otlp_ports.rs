//! Opens the sandbox's ports for exporters of OpenTelemetry.
//!
//! In: the flags `--otlp-http` and `--otlp-grpc`, and the address of the TCP port. Out: a listener
//! for each port that could be opened. A port that another program has is only a warning: spans are
//! taken on the TCP port too. Thread: main.

use super::tcp_port::open;
use crate::aws::transport::Resolver;
use crate::base::address;
use crate::config::cli::SandboxFlags;
use std::io;
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

/// The protocol and the address of a port that cannot be opened, and why.
type Refused<'a> = (&'a str, &'a str, &'a io::Error);

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
        let http_port = port("HTTP", &http, resolver).await;
        let grpc_port = port("gRPC", &grpc, resolver).await;
        let failures: Vec<Refused<'_>> = [("HTTP", &http, &http_port), ("gRPC", &grpc, &grpc_port)]
            .into_iter()
            .filter_map(|(protocol, at, port)| Some((protocol, &**at, port.as_ref().err()?)))
            .collect();
        if !failures.is_empty() {
            let tcp = address::reachable(tcp);
            warn!("{}. Spans are taken at http://{tcp}/v1/traces", complaint(&failures));
        }
        Self { http: http_port.unwrap_or_default(), grpc: grpc_port.unwrap_or_default() }
    }
}

/// Returns the addresses of both ports, as configured or beside the TCP port.
fn addresses(flags: &SandboxFlags, tcp: SocketAddr) -> [String; 2] {
    let or_usual = |flag: &Option<String>, port| {
        flag.clone().unwrap_or_else(|| SocketAddr::new(tcp.ip(), port).to_string())
    };
    [or_usual(&flags.otlp_http, HTTP_PORT), or_usual(&flags.otlp_grpc, GRPC_PORT)]
}

/// Opens a port. Returns `None` if it is switched off.
async fn port(protocol: &str, at: &str, resolver: &Resolver) -> io::Result<Option<Port>> {
    if at == OFF {
        return Ok(None);
    }
    let (listener, address) = open(at, resolver).await?;
    info!("OpenTelemetry's spans are taken over {protocol} at {address}");
    Ok(Some((Arc::new(listener), address::reachable(address))))
}

/// Returns one sentence about the ports that cannot be opened, with each reason once.
fn complaint(failures: &[Refused<'_>]) -> String {
    let ports: Vec<String> =
        failures.iter().map(|(protocol, at, _)| format!("over {protocol} at {at}")).collect();
    let mut reasons: Vec<String> = failures.iter().map(|(_, _, error)| error.to_string()).collect();
    reasons.dedup();
    format!("OpenTelemetry {} cannot be served: {}", ports.join(" and "), reasons.join("; "))
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

    #[test]
    fn ports_that_cannot_be_opened_are_one_complaint() {
        let taken = io::Error::from(io::ErrorKind::AddrInUse);
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let (http, grpc) = (("HTTP", "127.0.0.1:4318"), ("gRPC", "127.0.0.1:4317"));
        assert_eq!(
            complaint(&[(http.0, http.1, &taken), (grpc.0, grpc.1, &taken)]),
            "OpenTelemetry over HTTP at 127.0.0.1:4318 and over gRPC at 127.0.0.1:4317 cannot be \
             served: address in use"
        );
        assert_eq!(
            complaint(&[(http.0, http.1, &taken), (grpc.0, grpc.1, &denied)]),
            "OpenTelemetry over HTTP at 127.0.0.1:4318 and over gRPC at 127.0.0.1:4317 cannot be \
             served: address in use; permission denied"
        );
        assert_eq!(
            complaint(&[(grpc.0, grpc.1, &denied)]),
            "OpenTelemetry over gRPC at 127.0.0.1:4317 cannot be served: permission denied"
        );
    }
}
