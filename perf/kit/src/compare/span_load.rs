//! The loads of spans: protocol, rate, and compression.

use crate::spans::sender::Protocol;

/// The rates of a group, in spans a second.
const RATES: [u32; 3] = [1_000, 10_000, 50_000];

/// A steady load of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanLoad {
    /// Protocol of the sender.
    pub protocol: Protocol,
    /// Spans a second.
    pub rate: u32,
    /// Whether the sender and the contender compress their requests with gzip. Otherwise neither
    /// does.
    pub is_gzip: bool,
}

impl SpanLoad {
    /// Returns the name of the scenario.
    pub fn name(self) -> String {
        let end = if self.is_gzip { "-gzip" } else { "" };
        format!("spans-{}-{}{end}", self.protocol.name(), self.rate)
    }

    /// Returns the loads with this name: one, or those of the groups `spans`, `spans-http` and
    /// `spans-grpc`. Returns none for other names.
    pub fn parse(name: &str) -> Vec<Self> {
        let all = || {
            let protocols = [Protocol::Http, Protocol::Grpc].into_iter();
            protocols.flat_map(|protocol| {
                [false, true].into_iter().flat_map(move |is_gzip| {
                    RATES.into_iter().map(move |rate| Self { protocol, rate, is_gzip })
                })
            })
        };
        let Some(rest) = name.strip_prefix("spans") else { return Vec::new() };
        let Some(rest) = rest.strip_prefix('-') else {
            return if rest.is_empty() { all().collect() } else { Vec::new() };
        };
        if let Ok(protocol) = rest.parse() {
            return all().filter(|load| load.protocol == protocol).collect();
        }
        let one = || {
            let (protocol, rest) = rest.split_once('-')?;
            let (rate, is_gzip) = rest.strip_suffix("-gzip").map_or((rest, false), |it| (it, true));
            let rate = rate.parse().ok().filter(|rate| *rate > 0)?;
            Some(Self { protocol: protocol.parse().ok()?, rate, is_gzip })
        };
        one().into_iter().collect()
    }

    /// Returns the compression in the words of xrayd's configuration and of the collector's.
    pub fn compression(self) -> &'static str {
        if self.is_gzip { "gzip" } else { "none" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_found_by_its_name_and_by_its_group() {
        let all = SpanLoad::parse("spans");
        assert_eq!(all.len(), 12);
        for load in &all {
            assert_eq!(SpanLoad::parse(&load.name()), [*load]);
        }
        for protocol in [Protocol::Http, Protocol::Grpc] {
            let group = SpanLoad::parse(&format!("spans-{}", protocol.name()));
            assert_eq!(group.len(), 6);
            assert!(group.iter().all(|load| load.protocol == protocol && all.contains(load)));
        }
        let load = SpanLoad { protocol: Protocol::Grpc, rate: 7, is_gzip: true };
        assert_eq!(SpanLoad::parse("spans-grpc-7-gzip"), [load]);
        for name in ["span", "spans-", "spans-udp", "spans-http-0", "spans-http-7-zip", "spansx"] {
            assert_eq!(SpanLoad::parse(name), [], "{name}");
        }
    }
}
