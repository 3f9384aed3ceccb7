//! Decompresses the body of an answer, as its header `Content-Encoding` demands.
//!
//! In: the headers and the body. Out: the decoded body, or why it cannot be decoded. Bound:
//! [`ANSWER_BYTES_MAX`] decoded bytes; decoding stops there. Thread: any. No I/O, no clock.
//!
//! The daemon does not ask for compression, but a proxy between it and the service may compress
//! answers nevertheless.

use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use std::borrow::Cow;
use std::io::{self, Read};

/// Longest body of an answer to the daemon's own calls, in bytes. The limit applies to the received
/// body and to the decoded body. Real answers are shorter: the longest answer of X-Ray to
/// `PutTraceSegments` lists 50 documents and has about 10 kB.
pub const ANSWER_BYTES_MAX: usize = 128 * 1024;

/// Number of characters of an unknown encoding that an error shows. The rest is cut off.
const NAME_CHARACTERS_MAX: usize = 40;

/// The reason why the body of an answer cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The received body or the decoded body is longer than [`ANSWER_BYTES_MAX`].
    #[error("it is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    /// The body has an unknown encoding, or more than one encoding.
    #[error("its encoding {0:?} is not known")]
    Encoding(String),
    /// The compressed data is damaged, or is not in the format that the header names.
    #[error("it cannot be decoded: {0}")]
    Damaged(String),
}

/// Decodes the body of an answer. `headers` are the headers of the answer. A body without an
/// encoding is returned unchanged; the caller has already bounded its length.
///
/// # Errors
///
/// Returns an error if the encoding is not supported, if the body does not conform to it, or if the
/// decoded body is longer than [`ANSWER_BYTES_MAX`].
pub fn decode<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<Cow<'a, [u8]>, Unreadable> {
    let encodings = encodings(headers);
    match encodings.as_str() {
        // An empty body needs no decoding, whatever encoding the headers name.
        _ if body.is_empty() => Ok(body.into()),
        "" => Ok(body.into()),
        "gzip" | "x-gzip" => read(MultiGzDecoder::new(body)),
        "deflate" => {
            let mut decoder = ZlibDecoder::new(body);
            let text = read(&mut decoder)?;
            match decoder.into_inner() {
                [] => Ok(text),
                _ => Err(Unreadable::Damaged("there are more bytes after its end".to_owned())),
            }
        }
        _ => Err(Unreadable::Encoding(encodings.chars().take(NAME_CHARACTERS_MAX).collect())),
    }
}

/// Returns the encodings in the `Content-Encoding` headers, in lower case. The value `identity` is
/// left out, because it means "no encoding".
fn encodings(headers: &HeaderMap) -> String {
    let values = headers.get_all(CONTENT_ENCODING).iter();
    let texts: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let names = texts.iter().flat_map(|text| text.split(',')).map(str::trim);
    let names: Vec<_> = names
        .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"))
        .map(str::to_ascii_lowercase)
        .collect();
    names.join(", ")
}

/// Reads all decoded bytes. Returns an error as soon as there are more than [`ANSWER_BYTES_MAX`].
fn read<'a>(decoder: impl Read) -> Result<Cow<'a, [u8]>, Unreadable> {
    let mut text = Vec::new();
    let read = decoder.take(ANSWER_BYTES_MAX as u64 + 1).read_to_end(&mut text);
    match read {
        Ok(length) if length > ANSWER_BYTES_MAX => Err(Unreadable::TooLarge),
        Ok(_) => Ok(text.into()),
        Err(error) => Err(damaged(&error)),
    }
}

fn damaged(error: &io::Error) -> Unreadable {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Unreadable::Damaged("its end is missing".to_owned()),
        _ => Unreadable::Damaged(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;
    use proptest::prelude::*;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// Decodes `body` with one `Content-Encoding` header for each of `encodings`.
    fn decoded(encodings: &[&str], body: &[u8]) -> Result<Vec<u8>, Unreadable> {
        let mut headers = HeaderMap::new();
        for encoding in encodings {
            headers.append(CONTENT_ENCODING, HeaderValue::from_str(encoding).unwrap());
        }
        decode(&headers, body).map(Cow::into_owned)
    }

    #[test]
    fn a_body_without_an_encoding_is_returned_unchanged() {
        for encodings in [&[][..], &[""], &["identity"], &["Identity, ,identity", "identity"]] {
            assert_eq!(decoded(encodings, b"text"), Ok(b"text".to_vec()), "{encodings:?}");
        }
        // Without the header, a compressed body is not decoded.
        assert_eq!(decoded(&[], &gzip(b"text")), Ok(gzip(b"text")));
    }

    #[test]
    fn gzip_and_deflate_are_decoded_by_each_of_their_names() {
        for name in ["gzip", "GZIP", " gzip ", "x-gzip", "identity, gzip", "X-GZip"] {
            assert_eq!(decoded(&[name], &gzip(b"text")), Ok(b"text".to_vec()), "{name}");
        }
        assert_eq!(decoded(&["Deflate"], &zlib(b"text")), Ok(b"text".to_vec()));
        for name in ["gzip", "deflate", "br", "gzip, gzip"] {
            assert_eq!(decoded(&[name], b""), Ok(Vec::new()), "{name} of nothing");
        }
    }

    #[test]
    fn other_encodings_and_several_at_once_are_not_readable() {
        for (encodings, name) in [
            (&["br"][..], "br"),
            (&["zstd"], "zstd"),
            (&["gzip, gzip"], "gzip, gzip"),
            (&["gzip", "deflate"], "gzip, deflate"),
        ] {
            let expected = Err(Unreadable::Encoding(name.to_owned()));
            assert_eq!(decoded(encodings, &gzip(&gzip(b"text"))), expected);
        }
        let long = decoded(&[&"x".repeat(1_000)], b"text").unwrap_err().to_string();
        assert!(long.len() < 100, "{long}");
    }

    #[test]
    fn members_one_after_the_other_are_one_text_and_what_is_behind_them_is_damage() {
        let two = [gzip(b"first "), gzip(b"second")].concat();
        assert_eq!(decoded(&["gzip"], &two), Ok(b"first second".to_vec()));
        for (name, whole) in [("gzip", gzip(b"text")), ("deflate", zlib(b"text"))] {
            let more = [&whole[..], b"more"].concat();
            let half = &whole[..whole.len() - 1];
            let mut flipped = whole.clone();
            *flipped.last_mut().unwrap() ^= 1;
            for damaged in [&more, half, &flipped[..], b"text"] {
                let read = decoded(&[name], damaged);
                assert!(matches!(read, Err(Unreadable::Damaged(_))), "{name}: {read:?}");
            }
        }
        // RFC 9110 defines `deflate` as the zlib format, which has a header.
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        raw.write_all(b"text").unwrap();
        assert!(decoded(&["deflate"], &raw.finish().unwrap()).is_err());
    }

    #[test]
    fn a_text_is_decoded_up_to_the_limit_and_no_further() {
        for (name, encode) in [("gzip", gzip as fn(&[u8]) -> Vec<u8>), ("deflate", zlib)] {
            let most = vec![b' '; ANSWER_BYTES_MAX];
            assert_eq!(decoded(&[name], &encode(&most)), Ok(most.clone()), "{name}");
            let more = vec![b' '; ANSWER_BYTES_MAX + 1];
            assert_eq!(decoded(&[name], &encode(&more)), Err(Unreadable::TooLarge), "{name}");
        }
        // This body decodes to 5 MB and is damaged at its end. Decoding stops at the limit, before
        // the damage, so the error is `TooLarge`.
        let mut bomb = gzip(&vec![0; 5_000_000]);
        *bomb.last_mut().unwrap() ^= 1;
        assert_eq!(decoded(&["gzip"], &bomb), Err(Unreadable::TooLarge));
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(text in proptest::collection::vec(any::<u8>(), 1..500)) {
            prop_assert_eq!(decoded(&["gzip"], &gzip(&text)), Ok(text.clone()));
            prop_assert_eq!(decoded(&["deflate"], &zlib(&text)), Ok(text));
        }

        #[test]
        fn no_input_makes_a_decoder_panic(body in proptest::collection::vec(any::<u8>(), 0..500)) {
            for name in ["gzip", "deflate"] {
                let _ = decoded(&[name], &body);
                let start = if name == "gzip" { gzip(b"text") } else { zlib(b"text") };
                let _ = decoded(&[name], &[&start[..12], &body[..]].concat());
            }
        }
    }
}
