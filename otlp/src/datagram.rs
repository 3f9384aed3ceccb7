//! Reads the documents of AWS's UDP exporters for OpenTelemetry.
//!
//! In: the document of a datagram (behind the header line). It has a prefix, `T1S` for sampled
//! spans, `T1U` for unsampled spans or `M1` for metrics, and then the base64 of the protobuf of the
//! request for export. The prefix decides, and not the flags of the spans: one exporter leaves the
//! flag for sampled spans out. Out: the prefix, and the decoded bytes. Bound: the length of the
//! document.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// The content of a document of a UDP exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Spans that the application sampled.
    SampledSpans,
    /// Spans that the application did not sample.
    UnsampledSpans,
    /// Metrics.
    Metrics,
}

/// The prefix of each form.
const PREFIXES: [(&str, Form); 3] =
    [("T1S", Form::SampledSpans), ("T1U", Form::UnsampledSpans), ("M1", Form::Metrics)];

/// Returns the form of a document and its base64, or `None` if it has no such prefix.
pub fn form(document: &str) -> Option<(Form, &str)> {
    let of = |&(prefix, form): &(&str, Form)| Some((form, document.strip_prefix(prefix)?));
    PREFIXES.iter().find_map(of)
}

/// Decodes the base64 of a document. Returns `None` if it is not base64.
pub fn decode(base64: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(base64.trim_end()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_decides_about_the_form() {
        assert_eq!(form("T1SAAEC"), Some((Form::SampledSpans, "AAEC")));
        assert_eq!(form("T1UAAEC"), Some((Form::UnsampledSpans, "AAEC")));
        assert_eq!(form("M1AAEC"), Some((Form::Metrics, "AAEC")));
        for other in ["", "T1", "T1X", "t1sAAEC", "{\"id\":1}", " T1S"] {
            assert_eq!(form(other), None, "{other}");
        }
        assert_eq!(decode("AAEC\n"), Some(vec![0, 1, 2]));
        assert_eq!(decode("AAE*"), None);
    }
}
