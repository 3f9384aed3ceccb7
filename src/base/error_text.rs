//! The bottom of an error, in words for an operator.
//!
//! Libraries wrap what went wrong; only the innermost error says what can be mended. Some of them
//! speak to programmers, and are said anew here. Pure code.

use std::error::Error;
use std::io;

/// The deepest cause of `error`.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    in_plain_words(cause).map_or_else(|| cause.to_string(), str::to_owned)
}

/// `error` and its deepest cause.
pub fn with_root_cause(error: &(dyn Error + 'static)) -> String {
    let cause = root_cause(error);
    if error.source().is_none() { cause } else { format!("{error}: {cause}") }
}

/// `error` and all its causes, on one line: for a chain in which each says a part of it.
pub fn with_all_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    // Some causes have lines of their own.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn in_plain_words(cause: &(dyn Error + 'static)) -> Option<&'static str> {
    if cause.is::<http_body_util::LengthLimitError>() {
        return Some("it is larger than the limit");
    }
    if let Some(system) = cause.downcast_ref::<io::Error>() {
        // An error of the system hides the one that it is made of.
        return in_plain_words(system.get_ref()?);
    }
    match cause.downcast_ref()? {
        rustls::Error::InvalidMessage(_) => {
            Some("what answers does not speak TLS; is its address http and not https?")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn the_deepest_cause_is_told() {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(root_cause(&Outer(refused())), refused().to_string());
        assert_eq!(with_root_cause(&Outer(refused())), format!("outer: {}", refused()));
        assert_eq!(with_root_cause(&refused()), refused().to_string());
    }

    #[test]
    fn all_causes_are_told_on_one_line() {
        let error = Outer(io::Error::other(Outer(io::Error::other("two\n  lines"))));
        assert_eq!(with_all_causes(&error), "outer: outer: two lines");
    }

    #[test]
    fn what_libraries_say_to_programmers_is_said_anew() {
        let tls = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let plain = "what answers does not speak TLS; is its address http and not https?";
        assert_eq!(root_cause(&tls), plain);
        assert_eq!(
            with_root_cause(&Outer(io::Error::other(io::Error::other(tls)))),
            format!("outer: {plain}")
        );
    }
}
