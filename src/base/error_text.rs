//! Turns an error of a library into text for an operator.
//!
//! In: an error with its chain of causes. Out: one line of text. Libraries wrap errors in other
//! errors, and usually only the innermost error says what to repair. A few messages of libraries
//! are written for programmers; this file replaces them. Thread: any. No I/O, no clock.

use std::error::Error;
use std::io::{self, ErrorKind};

/// Longest text of a cause, in characters. The rest is cut off. A server decides about a part of
/// some texts: the text of a GOAWAY frame of HTTP/2 can have 16 kB.
const CAUSE_CHARACTERS_MAX: usize = 300;

/// Returns the text of the deepest cause of `error`.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    in_plain_words(cause).map_or_else(|| shortened(cause.to_string()), str::to_owned)
}

/// Returns the first [`CAUSE_CHARACTERS_MAX`] characters of a text, with `...` if there are more.
pub fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(CAUSE_CHARACTERS_MAX) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// Returns the text of `error` and of its deepest cause.
pub fn with_root_cause(error: &(dyn Error + 'static)) -> String {
    let cause = root_cause(error);
    if error.source().is_none() { cause } else { format!("{error}: {cause}") }
}

/// Returns the texts of `error` and of all its causes, on one line. Use this if each of these
/// errors adds a part of the explanation.
pub fn with_all_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    // Some causes contain line breaks.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns whether the system has no network on which the other side could be reached: there is no
/// route to it, or the host behind the route does not answer the link layer.
pub fn is_without_network(error: &(dyn Error + 'static)) -> bool {
    has_kind(error, |kind| {
        matches!(kind, ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable)
    })
}

/// Returns whether the other side, or a firewall, has refused a connection.
pub fn is_refused(error: &(dyn Error + 'static)) -> bool {
    has_kind(error, |kind| kind == ErrorKind::ConnectionRefused)
}

/// Returns whether `error` or one of its causes is an error of the system of such a kind.
fn has_kind(error: &(dyn Error + 'static), is_such: fn(ErrorKind) -> bool) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(|cause| {
        // `source` of an `io::Error` passes over the error that it wraps.
        let system = cause.downcast_ref::<io::Error>();
        system.is_some_and(|system| {
            let wrapped = system.get_ref().map(|wrapped| wrapped as &(dyn Error + 'static));
            is_such(system.kind()) || wrapped.is_some_and(|wrapped| has_kind(wrapped, is_such))
        })
    })
}

/// Returns a text for operators if the text of this library error is written for programmers.
/// Returns `None` for all other errors.
fn in_plain_words(cause: &(dyn Error + 'static)) -> Option<&'static str> {
    if cause.is::<http_body_util::LengthLimitError>() {
        return Some("it is larger than the limit");
    }
    if let Some(system) = cause.downcast_ref::<io::Error>() {
        // An `io::Error` can wrap another error. `source` does not return the wrapped error, but
        // its cause, so the wrapped error is checked here.
        return in_plain_words(system.get_ref()?);
    }
    match cause.downcast_ref()? {
        rustls::Error::InvalidMessage(_) => {
            Some("the server does not speak TLS; should its address begin with http, not https?")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("é".repeat(300)), "é".repeat(300));
        assert_eq!(shortened("é".repeat(301)), format!("{}...", "é".repeat(300)));
        let text = root_cause(&io::Error::other("x".repeat(16_000)));
        assert_eq!(text.len(), 303);
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_deepest_cause_is_returned() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(root_cause(&Outer(refused())), refused().to_string());
        assert_eq!(with_root_cause(&Outer(refused())), format!("outer: {}", refused()));
        assert_eq!(with_root_cause(&refused()), refused().to_string());
    }

    #[test]
    fn a_missing_network_is_found_at_any_depth() {
        for (number, is_without) in [(101, true), (113, true), (110, false), (111, false)] {
            let system = || io::Error::from_raw_os_error(number);
            assert_eq!(is_without_network(&system()), is_without, "{number}");
            assert_eq!(is_without_network(&Outer(system())), is_without, "{number}");
            let wrapped = Outer(io::Error::other(Outer(io::Error::other(system()))));
            assert_eq!(is_without_network(&wrapped), is_without, "{number}");
            assert_eq!(is_refused(&wrapped), number == 111, "{number}");
        }
    }

    #[test]
    fn all_causes_are_returned_on_one_line() {
        let error = Outer(io::Error::other(Outer(io::Error::other("two\n  lines"))));
        assert_eq!(with_all_causes(&error), "outer: outer: two lines");
    }

    #[test]
    fn a_message_for_programmers_is_replaced() {
        let tls = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let plain = "the server does not speak TLS; should its address begin with http, not https?";
        assert_eq!(root_cause(&tls), plain);
        assert_eq!(
            with_root_cause(&Outer(io::Error::other(io::Error::other(tls)))),
            format!("outer: {plain}")
        );
    }
}
