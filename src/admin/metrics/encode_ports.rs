//! The list of the metrics of the ports for spans: name, help text, and where each value comes
//! from.
//!
//! In: the counters of both ports. Out: descriptors and values for prometheus-client; all names
//! begin with `xray_otlp_port_`. Thread: main.

use super::encode::encode_labels;
use crate::base::account::{CloseReason, Counter, Export, OtlpCounts, PortCounts, SpanRefusal};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use std::fmt;

type CounterOf = (&'static str, &'static str, fn(&PortCounts) -> &Counter);

const COUNTERS: &[CounterOf] = &[
    ("port_requests_busy", "Requests with spans that got no turn in time", |port| &port.busy),
    ("port_requests_slow", "Requests with spans whose client was too slow", |port| &port.slow),
    ("port_requests_too_large", "Requests with spans that were too large", |port| &port.too_large),
];

/// Encodes the counters of both ports.
pub(super) fn encode_ports(
    encoder: &mut DescriptorEncoder<'_>,
    counts: &OtlpCounts,
) -> fmt::Result {
    let requests = Export::ALL.map(|export| (export.label(), counts.exports(export)));
    let help = "Requests to the ports for spans, by outcome";
    encode_labels(encoder, ("port_requests", "outcome"), help, &requests)?;
    let refused = SpanRefusal::ALL.map(|reason| (reason.label(), counts.refused_spans(reason)));
    let help = "Spans that a port refused, by reason; they are not received";
    encode_labels(encoder, ("port_spans_refused", "reason"), help, &refused)?;
    let ports = [("http", &counts.http), ("grpc", &counts.grpc)];
    for (name, help, counter) in COUNTERS {
        let counters = ports.map(|(protocol, port)| (protocol, counter(port)));
        encode_labels(encoder, (name, "protocol"), help, &counters)?;
    }
    let help = "Connections that a port for spans closed to make room, by what was missing";
    let kind = MetricType::Counter;
    let mut family = encoder.encode_descriptor("port_connections_closed", help, None, kind)?;
    for (protocol, port) in ports {
        for reason in CloseReason::ALL {
            let labels = [("protocol", protocol), ("reason", reason.label())];
            let counter = ConstCounter::new(port.closed(reason).get());
            counter.encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}
