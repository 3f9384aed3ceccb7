//! The kinds of data that the daemon carries.
//!
//! In: nothing. Out: the name of a signal and of its items, for the log and the metrics. Thread:
//! any.

/// A kind of data with a flow of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Signal {
    /// Segments of X-Ray. An item is a segment.
    #[default]
    Segments,
    /// Spans of OpenTelemetry. An item is a span.
    Spans,
}

/// A value for each signal.
#[derive(Debug)]
pub struct PerSignal<T> {
    segments: T,
    spans: T,
}

impl<T> PerSignal<T> {
    /// Takes the value for segments and the value for spans.
    pub const fn new(segments: T, spans: T) -> Self {
        Self { segments, spans }
    }

    /// Returns the value for `signal`.
    pub const fn of(&self, signal: Signal) -> &T {
        match signal {
            Signal::Segments => &self.segments,
            Signal::Spans => &self.spans,
        }
    }
}

impl Signal {
    /// Returns the name of the signal in the metrics and in `/ready`. It is the plural of the name
    /// of an item too.
    pub fn label(self) -> &'static str {
        match self {
            Self::Segments => "segments",
            Self::Spans => "spans",
        }
    }
}

/// Formats the plural of the name of an item.
impl std::fmt::Display for Signal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(self.label())
    }
}
