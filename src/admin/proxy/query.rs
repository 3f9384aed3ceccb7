//! Checks whether the query of a request can be signed as it is sent.
//!
//! In: the query of a request, without the question mark. Out: why its signature would not be
//! valid. Thread: any. No I/O, no clock.
//!
//! The signature covers a canonical form of the query (SigV4). The signing library and the service
//! each compute this form: they decode names and values and encode them again. For the queries that
//! are refused here, the two results can differ, or the query contains a signature of its own. The
//! service would then reject the signature, and its error would not name the cause.

/// The start of the names of the parameters of a signature in the query, in lower case.
const SIGNATURE_PREFIX: &[u8] = b"x-amz-";

/// The reason why a query cannot be signed as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueryError {
    /// The library reads a plus sign as a space; the service reads it as a plus sign.
    #[error("the query has a plus sign; write %20 for a space, and %2B for a plus sign")]
    Plus,
    /// An escape is not two hexadecimal digits.
    #[error("the query has a percent sign that is not followed by two hexadecimal digits")]
    Escape,
    /// A name or a value is not UTF-8. The library replaces what it cannot read.
    #[error("the query is not UTF-8")]
    Encoding,
    /// A character that an address cannot contain is not escaped.
    #[error("the query has a character that must be escaped with percent signs")]
    Unescaped,
    /// The library leaves out empty parameters; the service does not.
    #[error("the query has an empty parameter (two & in a row, or one at its start or end)")]
    Empty,
    /// The query contains a signature, or a part of one.
    #[error("the query has a signature of its own (X-Amz-); leave it out, the daemon signs")]
    Signature,
}

/// Checks that `query` can be signed as it is sent.
///
/// # Errors
///
/// Returns the first reason why it cannot.
pub(super) fn check(query: &str) -> Result<(), QueryError> {
    if query.is_empty() {
        return Ok(());
    }
    for parameter in query.split('&') {
        if parameter.is_empty() {
            return Err(QueryError::Empty);
        }
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let name = decode(name)?;
        decode(value)?;
        let start = name.get(..SIGNATURE_PREFIX.len());
        if start.is_some_and(|start| start.eq_ignore_ascii_case(SIGNATURE_PREFIX)) {
            return Err(QueryError::Signature);
        }
    }
    Ok(())
}

/// Returns a name or a value without its escapes.
fn decode(text: &str) -> Result<Vec<u8>, QueryError> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => return Err(QueryError::Plus),
            b'%' => {
                let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err(QueryError::Escape);
                };
                u8::try_from(16 * high + low).map_err(|_| QueryError::Escape)?
            }
            0x21..=0x7e if !b"\"<>\\^`{|}#".contains(&byte) => byte,
            _ => return Err(QueryError::Unescaped),
        });
    }
    match std::str::from_utf8(&decoded) {
        Ok(_) => Ok(decoded),
        Err(_) => Err(QueryError::Encoding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_with_one_meaning_are_signed_and_others_are_not() {
        for query in ["", "a", "a=", "a=b&c=d", "a=b=c", "a=%20%2B%c3%a4", "a=b/c?d:e@f,g;h", "=a"]
        {
            assert_eq!(check(query), Ok(()), "{query}");
        }
        for (query, error) in [
            ("a=b+c", QueryError::Plus),
            ("a=%", QueryError::Escape),
            ("a=%2", QueryError::Escape),
            ("%zz=1", QueryError::Escape),
            ("a=%ff", QueryError::Encoding),
            ("a=%c3", QueryError::Encoding),
            ("a=ä", QueryError::Unescaped),
            ("a={b}", QueryError::Unescaped),
            ("a&&b", QueryError::Empty),
            ("&a", QueryError::Empty),
            ("a&", QueryError::Empty),
            ("X-Amz-Signature=0", QueryError::Signature),
            ("a=b&x%2damz-date=1", QueryError::Signature),
        ] {
            assert_eq!(check(query), Err(error), "{query}");
        }
    }
}
