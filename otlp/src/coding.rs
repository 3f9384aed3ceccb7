//! Decompresses the body of a request.
//!
//! In: a body and its `Content-Encoding`. Out: the body, inflated. Bound: the caller's limit for
//! the inflated body, usually [`crate::BODY_BYTES_MAX`]. A body that inflates to more is refused
//! after one byte more than the limit. So a small body cannot take much memory.

use flate2::read::{MultiGzDecoder, ZlibDecoder};
use std::io::Read;

/// Why a body cannot be decompressed
#[derive(Debug, thiserror::Error)]
pub enum CodingError {
    /// The encoding is not known
    #[error("the content encoding is not supported; gzip, deflate and identity are")]
    Unknown,
    /// The body is not in the encoding that it names
    #[error("the body is not {0}, or is cut off")]
    Broken(&'static str),
    /// The body is too large
    #[error("the decompressed body has more than {0} bytes")]
    TooLarge(usize),
}

/// The first capacity of the buffer for an inflated body, in bytes. It doubles up to the limit.
const CAPACITY_MIN: usize = 64 * 1024;

/// Decompresses a body. `encoding` is the value of the header `Content-Encoding`, if there is one.
/// The inflated body is in `buffer`, which the caller may use again; its capacity grows to
/// `limit_bytes` and one byte at most. A body that is not compressed is returned as it is.
///
/// # Errors
///
/// Returns an error if the encoding is unknown, the body is broken, or it inflates to more than
/// `limit_bytes`.
pub fn decode<'a>(
    encoding: Option<&[u8]>,
    body: &'a [u8],
    limit_bytes: usize,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], CodingError> {
    let encoding = encoding.unwrap_or_default().trim_ascii();
    let is = |name: &str| encoding.eq_ignore_ascii_case(name.as_bytes());
    if encoding.is_empty() || is("identity") {
        return match body.len() > limit_bytes {
            true => Err(CodingError::TooLarge(limit_bytes)),
            false => Ok(body),
        };
    }
    if is("gzip") || is("x-gzip") {
        inflate(MultiGzDecoder::new(body), "gzip", limit_bytes, buffer)?;
    } else if is("deflate") {
        inflate(ZlibDecoder::new(body), "deflate", limit_bytes, buffer)?;
    } else {
        return Err(CodingError::Unknown);
    }
    Ok(buffer)
}

fn inflate(
    mut from: impl Read,
    name: &'static str,
    limit_bytes: usize,
    buffer: &mut Vec<u8>,
) -> Result<(), CodingError> {
    buffer.clear();
    let mut capacity = buffer.capacity().max(CAPACITY_MIN).min(limit_bytes + 1);
    loop {
        buffer.reserve_exact(capacity - buffer.len());
        let mut part = from.by_ref().take((capacity - buffer.len()) as u64);
        part.read_to_end(buffer).map_err(|_| CodingError::Broken(name))?;
        if buffer.len() > limit_bytes {
            return Err(CodingError::TooLarge(limit_bytes));
        }
        if buffer.len() < capacity {
            return Ok(());
        }
        capacity = (2 * capacity).min(limit_bytes + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use std::io::Write;

    fn gzip(body: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap().into()
    }

    #[test]
    fn a_body_is_inflated_by_the_name_of_its_encoding() {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"spans").unwrap();
        let deflated: Bytes = encoder.finish().unwrap().into();
        let plain = Bytes::from_static(b"spans");
        for (encoding, body) in [
            (None, &plain),
            (Some(&b""[..]), &plain),
            (Some(b"identity"), &plain),
            (Some(b" GZip "), &gzip(b"spans")),
            (Some(b"deflate"), &deflated),
        ] {
            let mut buffer = vec![1; 3];
            assert_eq!(decode(encoding, body, 5, &mut buffer).unwrap(), plain, "{encoding:?}");
            let error = decode(encoding, body, 4, &mut buffer).unwrap_err();
            assert!(matches!(error, CodingError::TooLarge(4)), "{encoding:?}");
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert!(bomb.len() < 100_000);
        let mut buffer = Vec::new();
        let error = decode(Some(b"gzip"), &bomb, 1 << 20, &mut buffer).unwrap_err();
        assert_eq!(buffer.capacity(), (1 << 20) + 1);
        assert_eq!(error.to_string(), "the decompressed body has more than 1048576 bytes");
    }

    #[test]
    fn a_body_of_any_size_up_to_the_limit_is_inflated() {
        let limit = 300_000;
        for length in [0, 1, CAPACITY_MIN - 1, CAPACITY_MIN, CAPACITY_MIN + 1, 131_072, limit] {
            let body = gzip(&vec![7; length]);
            let mut buffer = Vec::new();
            assert_eq!(decode(Some(b"gzip"), &body, limit, &mut buffer).unwrap().len(), length);
        }
        let mut buffer = Vec::new();
        assert!(decode(Some(b"gzip"), &gzip(&vec![7; limit + 1]), limit, &mut buffer).is_err());
    }

    #[test]
    fn broken_bodies_and_unknown_encodings_are_refused() {
        let whole = gzip(b"spans");
        for length in 0..whole.len() - 1 {
            let cut = whole.slice(..length);
            let refused = decode(Some(b"gzip"), &cut, 100, &mut Vec::new()).is_err();
            assert!(refused || length == 0, "{length}");
        }
        assert!(decode(Some(b"deflate"), &whole, 100, &mut Vec::new()).is_err());
        for encoding in ["br", "zstd", "gzip, gzip"] {
            let error =
                decode(Some(encoding.as_bytes()), &whole, 100, &mut Vec::new()).unwrap_err();
            assert!(matches!(error, CodingError::Unknown), "{encoding}");
        }
    }
}
