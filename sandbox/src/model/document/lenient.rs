//! Parses JSON that is good by its grammar, whatever its numbers and escape sequences.
//!
//! In: the text of a document. Out: its JSON value. Bound: [`NESTING_MAX`] levels, so that the
//! recursion of serde_json cannot overflow the stack; and a copy of the text, which is made only if
//! serde_json refuses the text. No I/O, no clock, no recursion of its own.
//!
//! RFC 8259 allows numbers beyond a double, and strings with lone surrogates such as `\ud83d`. The
//! service gets such documents, and so the sandbox shows them. serde_json cannot hold them in a
//! [`Value`].

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;
use serde_json::{Deserializer, Error, Value};

/// Largest number of levels of arrays and objects in a document. 128 levels of subsegments take 257
/// of them: an object and an array each, and the segment. The rest is for what is in the deepest
/// one.
pub const NESTING_MAX: usize = 320;

/// Largest number of levels that serde_json takes by itself.
const USUAL_NESTING_MAX: usize = 127;

/// Takes the place of a number that is too large for a double. The shortest such number has as many
/// characters (`1e309`), so that it fits into every place.
const LARGE_NUMBER: &[u8] = b"9e307";
/// The value of [`LARGE_NUMBER`]. Larger numbers are replaced, too: serde_json rounds, and so it
/// refuses some numbers that are barely a double.
const LARGE: f64 = 9e307;

/// The escape sequence of U+FFFD, the replacement character.
const REPLACEMENT: &[u8; 6] = br"\ufffd";

/// Parses `text`. U+FFFD takes the place of each lone surrogate, and 9e307 that of a number that is
/// too large for a double.
///
/// # Errors
///
/// Returns the error of serde_json if `text` is not JSON. Its line and column are those of `text`.
pub fn parse(text: &str) -> Result<Value, Error> {
    let nesting = nesting(text);
    if nesting > NESTING_MAX {
        return Err(Error::custom(format!("nested deeper than {NESTING_MAX} levels")));
    }
    let is_deep = nesting > USUAL_NESTING_MAX;
    value(text.as_bytes(), is_deep).or_else(|_| value(&replaced(text), is_deep))
}

fn value(text: &[u8], is_deep: bool) -> Result<Value, Error> {
    if !is_deep {
        return serde_json::from_slice(text);
    }
    let mut parser = Deserializer::from_slice(text);
    parser.disable_recursion_limit();
    let value = Value::deserialize(&mut parser)?;
    parser.end().map(|()| value)
}

/// Returns the largest number of arrays and objects that are open at the same time.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest): (usize, usize) = (0, 0);
    let (mut is_in_string, mut is_escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_in_string => is_escaped = true,
            b'"' => is_in_string = !is_in_string,
            b'[' | b'{' if !is_in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !is_in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Returns a copy of `text` that has the same length, with the replacements.
fn replaced(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let mut is_in_string = false;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'"' => {
                is_in_string = !is_in_string;
                1
            }
            b'\\' if is_in_string => replace_surrogate(&mut bytes[at..]),
            b'-' | b'0'..=b'9' if !is_in_string => replace_number(&mut bytes[at..]),
            _ => 1,
        };
    }
    bytes
}

/// Replaces a lone surrogate at the start of `bytes`. Returns the length of the escape sequence
/// there: 12 for a pair of surrogates.
fn replace_surrogate(bytes: &mut [u8]) -> usize {
    match code_unit(bytes) {
        Some(0xd800..=0xdbff) if matches!(code_unit(&bytes[6..]), Some(0xdc00..=0xdfff)) => 12,
        Some(0xd800..=0xdfff) => {
            bytes[..6].copy_from_slice(REPLACEMENT);
            6
        }
        _ => 2,
    }
}

/// Returns the number in an escape sequence like `\ud83d`, or `None` if `bytes` begins with
/// something else.
fn code_unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(br"\u")?.get(..4)?;
    let is_hexadecimal = digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_hexadecimal)?;
    u16::from_str_radix(text, 16).ok()
}

/// Replaces the number at the start of `bytes` if it is too large. Returns its length.
fn replace_number(bytes: &mut [u8]) -> usize {
    let is_of_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let length = bytes.iter().position(|byte| !is_of_number(byte)).unwrap_or(bytes.len());
    let (number, _) = bytes.split_at_mut(length);
    let value: Option<f64> = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
    // Rust parses numbers that JSON does not have, such as `01`.
    let is_json = || serde_json::from_slice::<&RawValue>(number).is_ok();
    if value.is_some_and(|value| value.abs() > LARGE) && is_json() {
        let digits = if number[0] == b'-' { &mut number[1..] } else { number };
        digits.fill(b' ');
        digits[..LARGE_NUMBER.len()].copy_from_slice(LARGE_NUMBER);
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_lone_surrogate_becomes_the_replacement_character_and_a_pair_stays() {
        for (text, expected) in [
            (r#""Ann \ud83d""#, "Ann \u{fffd}"),
            (r#""\uDE00\ud83d\ud83d\ude00\ud83dx""#, "\u{fffd}\u{fffd}😀\u{fffd}x"),
            (r#""\\ud83d\udbff\u0041\"\ud800""#, "\\ud83d\u{fffd}A\"\u{fffd}"),
        ] {
            assert_eq!(parse(text).unwrap(), json!(expected), "{text}");
        }
        assert_eq!(parse(r#"{"\udfff":["\ud800"]}"#).unwrap(), json!({"\u{fffd}": ["\u{fffd}"]}));
    }

    #[test]
    fn a_number_that_is_too_large_becomes_a_large_one_and_others_stay() {
        let text = format!("[1e309, -1E+400,1{},\"1e999\",1.5,-0,2e-400]", "0".repeat(400));
        let expected = json!([9e307, -9e307, 9e307, "1e999", 1.5, -0.0, 0.0]);
        assert_eq!(parse(&text).unwrap(), expected);
        assert_eq!(parse("[1e999]").unwrap(), json!([9e307]));
        assert_eq!(
            parse("1.7976931348623157e308").unwrap().as_f64().map(f64::is_finite),
            Some(true)
        );
    }

    #[test]
    fn what_breaks_the_grammar_stays_an_error_at_its_place() {
        for text in [
            "",
            "{",
            r#"{"a":1e999"#,
            r#"["\ud83d",]"#,
            r#""\ud8""#,
            r#""\ud83d"#,
            r"\ud83d",
            "1e999x",
            "-",
            "01e999",
            "[1.e999]",
            "1e400.5",
            r#"{"a":+1e999}"#,
            r#""\ud+3d""#,
            "[1e999 2]",
            r#""\"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let error = parse(r#"{"a":"\ud83d","b":1e999999,x}"#).unwrap_err();
        assert_eq!(error.column(), 28);
    }
}
