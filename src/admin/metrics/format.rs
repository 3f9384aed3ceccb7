//! The text format of the metrics, as the client asks for it.
//!
//! In: the header `Accept` of a request, and the metrics in OpenMetrics format. Out: the format,
//! and the metrics in this format. Thread: any. No I/O, no clock.
//!
//! Only a client that asks for OpenMetrics gets it. All others get the text format 0.0.4, which
//! every collector reads. Its difference: the name of a counter or of an info metric in its `HELP`
//! and `TYPE` lines is the full name of its sample, and there is no `# EOF`.

use http::HeaderMap;
use http::header::ACCEPT;
use std::fmt::Write;

/// A text format of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus.
    Text,
}

impl Format {
    /// Returns the value of the header `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Returns the format that the header `Accept` prefers. Prometheus lists several formats with
    /// their qualities. Of two formats with the same quality, the first counts.
    pub fn accepted_by(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut best = (0.0, Self::Text);
        for range in values.flat_map(|value| value.split(',')) {
            if let Some((quality, format)) = read_range(range)
                && quality > best.0
            {
                best = (quality, format);
            }
        }
        best.1
    }

    /// Returns the metrics in this format.
    pub fn of_open_metrics(self, text: String) -> String {
        match self {
            Self::OpenMetrics => text,
            Self::Text => plain_text(&text),
        }
    }
}

/// Reads one media range, such as `text/plain;version=0.0.4;q=0.3`. Returns its quality, and the
/// format that it accepts; `None` if it accepts none.
fn read_range(range: &str) -> Option<(f32, Format)> {
    let mut parts = range.split(';').map(str::trim);
    let media_type = parts.next()?.to_ascii_lowercase();
    let (mut quality, mut version) = (1.0, None);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "q" => quality = value.parse().ok().filter(|it| (0.0..=1.0).contains(it))?,
            "version" => version = Some(value),
            _ => {}
        }
    }
    let format = match (media_type.as_str(), version) {
        ("application/openmetrics-text", None | Some("1.0.0")) => Format::OpenMetrics,
        ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => Format::Text,
        _ => return None,
    };
    Some((quality, format))
}

fn plain_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    // The name and the help text of the last `HELP` line. Its name depends on the next `TYPE` line.
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = Some(rest.split_once(' ').unwrap_or((rest, "")));
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use Format::{OpenMetrics, Text};

    #[test]
    fn only_who_asks_for_open_metrics_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            ("", Text),
            ("*/*", Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Text),
            (prometheus, OpenMetrics),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"; q=0.1", OpenMetrics),
            ("application/openmetrics-text; q=0.5, text/plain; q=0.6", Text),
            ("text/plain; q=0.5, application/openmetrics-text; q=0.6", OpenMetrics),
            ("text/plain, application/openmetrics-text", Text),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;q=2", Text),
            ("application/openmetrics-text;version=9", Text),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily", Text),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            assert_eq!(Format::accepted_by(&headers), expected, "{accept}");
        }
        assert_eq!(Format::accepted_by(&HeaderMap::new()), Text);
    }

    #[test]
    fn names_of_counters_are_those_of_their_samples() {
        let open_metrics = "# HELP a Sum.\n# TYPE a counter\na_total{b=\"c\"} 1\n# HELP d What.\n\
                            # TYPE d info\nd_info{e=\"f\"} 1\n# HELP g Now.\n# TYPE g gauge\ng 2\n\
                            # UNIT g x\n# EOF\n";
        let expected = "# HELP a_total Sum.\n# TYPE a_total counter\na_total{b=\"c\"} 1\n\
                        # HELP d_info What.\n# TYPE d_info gauge\nd_info{e=\"f\"} 1\n\
                        # HELP g Now.\n# TYPE g gauge\ng 2\n";
        assert_eq!(Text.of_open_metrics(open_metrics.to_owned()), expected);
        assert_eq!(OpenMetrics.of_open_metrics(open_metrics.to_owned()), open_metrics);
    }
}
