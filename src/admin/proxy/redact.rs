//! Removes the session token from an error of the service, before a client gets it.
//!
//! In: an answer without a success status, and the session token of the request. Out: the same
//! answer; `(redacted)` stands in the place of the token. Bound: the answer was read whole before.
//! Thread: any. No I/O, no clock.
//!
//! When the service rejects a signature, its message quotes the canonical request, which contains
//! the session token. The token is a secret: a client of the port may use the daemon's credentials
//! for some paths, but not hold them.

use crate::aws::Answer;
use bytes::Bytes;
use http::HeaderName;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue};

/// The header with the session token. In the canonical request its value follows after a colon.
const TOKEN_HEADER: &[u8] = b"x-amz-security-token";

/// The text in the place of a token.
const REDACTED: &[u8] = b"(redacted)";

/// Headers that describe the bytes of a body. They are removed from an answer that is changed.
const OF_BODY: [HeaderName; 5] = [
    CONTENT_ENCODING,
    ETAG,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("x-amz-crc32"),
];

/// Returns `answer` without the session token `token`. The answer is unchanged if it has none.
///
/// A body that cannot be decoded is replaced, because it cannot be searched.
pub(super) fn redact(mut answer: Answer, token: Option<&str>) -> Answer {
    let token = token.map(str::as_bytes).filter(|token| !token.is_empty());
    let has_token = |value: &HeaderValue| {
        token.is_some_and(|token| position(value.as_bytes(), token).is_some())
    };
    let with_token: Vec<HeaderName> = answer
        .headers
        .iter()
        .filter(|(_, value)| has_token(value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in with_token {
        answer.headers.remove(name);
    }
    let changed = match answer.text() {
        Ok(text) => without_token(&text, token).map(Bytes::from),
        Err(unreadable) => {
            answer.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let message = format!(
                "the service answered {}, and the daemon leaves its body out: {unreadable}",
                answer.status
            );
            Some(Bytes::from(serde_json::json!({ "message": message }).to_string()))
        }
    };
    if let Some(body) = changed {
        answer.body = body;
        for name in &OF_BODY {
            answer.headers.remove(name);
        }
    }
    answer
}

/// Returns `text` without the token, or `None` if the text has none. The token is found by its own
/// bytes, and by the name of its header before it.
fn without_token(text: &[u8], token: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut clean = Vec::with_capacity(text.len());
    let (mut rest, mut is_changed) = (text, false);
    while let Some(&byte) = rest.first() {
        let token_bytes = token.map_or(0, |token| spelled_bytes(rest, token));
        if token_bytes > 0 {
            clean.extend_from_slice(REDACTED);
            (rest, is_changed) = (&rest[token_bytes..], true);
        } else if let Some((name_bytes, value_bytes)) = header_line(rest) {
            clean.extend_from_slice(&rest[..name_bytes]);
            clean.extend_from_slice(REDACTED);
            (rest, is_changed) = (&rest[name_bytes + value_bytes..], true);
        } else {
            clean.push(byte);
            rest = &rest[1..];
        }
    }
    is_changed.then_some(clean)
}

/// Returns the length of `token` at the start of `text`, or 0 if it is not there. JSON may write a
/// slash as `\/`, and a URL may write a character as `%2F`.
fn spelled_bytes(text: &[u8], token: &[u8]) -> usize {
    let mut length = 0;
    for &byte in token {
        let rest = &text[length..];
        length += match rest {
            [first, ..] if *first == byte => 1,
            [b'\\', second, ..] if *second == byte => 2,
            [b'%', high, low, ..] if escaped(*high, *low) == Some(byte) => 3,
            _ => return 0,
        };
    }
    length
}

fn escaped(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(16 * digit(high)? + digit(low)?).ok()
}

/// If `text` starts with the header of a session token and its value, returns the length of the
/// name with its colon, and the length of the value.
fn header_line(text: &[u8]) -> Option<(usize, usize)> {
    let name = text.get(..TOKEN_HEADER.len())?;
    if !name.eq_ignore_ascii_case(TOKEN_HEADER) {
        return None;
    }
    let after = &text[TOKEN_HEADER.len()..];
    let is_between = |byte: &u8| b":=\"' \t".contains(byte);
    let between = after.iter().take_while(|byte| is_between(byte)).count();
    let is_value = after[..between].iter().any(|byte| b":=".contains(byte));
    let value = &after[between..];
    let mut value_bytes = 0;
    while let Some(&byte) = value.get(value_bytes) {
        let is_escaped_slash = byte == b'\\' && value.get(value_bytes + 1) == Some(&b'/');
        if !(byte.is_ascii_alphanumeric() || b"+/=_-.%~".contains(&byte) || is_escaped_slash) {
            break;
        }
        value_bytes += if is_escaped_slash { 2 } else { 1 };
    }
    (is_value && value_bytes > 0).then_some((TOKEN_HEADER.len() + between, value_bytes))
}

fn position(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};

    const TOKEN: &str = "IQoJb3JpZ2lu/X2Vj+EAMa==";

    fn answer(headers: HeaderMap, body: &str) -> Answer {
        Answer {
            status: StatusCode::FORBIDDEN,
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
            waited: std::time::Duration::ZERO,
        }
    }

    fn redacted(body: &str) -> String {
        let answer = redact(answer(HeaderMap::new(), body), Some(TOKEN));
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    #[test]
    fn the_token_is_removed_in_every_spelling_and_the_rest_stays() {
        for (body, expected) in [
            (format!("{{\"message\":\"x {TOKEN} y\"}}"), "{\"message\":\"x (redacted) y\"}"),
            (TOKEN.replace('/', "\\/") + "|", "(redacted)|"),
            (TOKEN.replace('/', "%2F").replace('+', "%2b") + "|", "(redacted)|"),
            (
                format!("x-amz-security-token:{TOKEN}\\n\\nhost;x-amz-security-token\\nabc"),
                "x-amz-security-token:(redacted)\\n\\nhost;x-amz-security-token\\nabc",
            ),
            (
                "X-Amz-Security-Token: an\\/other== x".to_owned(),
                "X-Amz-Security-Token: (redacted) x",
            ),
            ("host;x-amz-security-token;x".to_owned(), "host;x-amz-security-token;x"),
            ("no token".to_owned(), "no token"),
        ] {
            assert_eq!(redacted(&body), expected, "{body}");
        }
    }

    #[test]
    fn a_header_that_repeats_the_token_is_removed_and_the_others_stay() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-amz-security-token", TOKEN.to_owned()),
            ("x-amzn-errormessage", format!("x-amz-security-token:{TOKEN} is not valid")),
            ("x-amzn-errormessage", "a second value without it".to_owned()),
            ("x-amzn-requestid", "1-2-3".to_owned()),
            ("etag", "\"of the body\"".to_owned()),
        ] {
            headers.append(name, HeaderValue::from_str(&value).unwrap());
        }
        let names = |token| {
            let answer = redact(answer(headers.clone(), "no token"), token);
            assert_eq!(answer.body, "no token");
            let mut names: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
            names.sort();
            names
        };
        assert_eq!(names(Some(TOKEN)), ["etag", "x-amzn-requestid"]);
        // A request without a session token gets the answer as it is.
        for token in [None, Some("")] {
            assert_eq!(names(token).len(), headers.keys_len(), "{token:?}");
        }
    }
}
