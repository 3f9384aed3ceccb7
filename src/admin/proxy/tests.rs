//! Property tests of the proxy with generated requests of clients.

use super::headers::{HOP_BY_HOP, REPLACED, for_client, for_service};
use crate::aws::Signer;
use crate::aws::endpoint::{Endpoint, Variant};
use aws_credential_types::Credentials;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use std::time::SystemTime;
use xrayd_sandbox::endpoint::verify;

/// Generates names of headers that the proxy removes, replaces or forwards.
fn name() -> impl Strategy<Value = HeaderName> {
    let known = HOP_BY_HOP.into_iter().chain(REPLACED).collect::<Vec<_>>();
    let more = ["content-type", "content-encoding", "accept", "x-amz-foo", "x-amzn-trace-id"];
    let more = more.map(HeaderName::from_static).to_vec();
    let any = "x-[a-z]{1,4}".prop_map(|name| HeaderName::try_from(name).unwrap());
    prop_oneof![select(known), select(more), any]
}

/// Generates header values. Some are text with spaces inside, and some have bytes that are not
/// ASCII.
fn value() -> impl Strategy<Value = HeaderValue> {
    let text = "[!-~]{1,5}( {1,3}[!-~]{1,5}){0,2}";
    let bytes = vec(0xa0_u8..=0xff, 1..4);
    prop_oneof![
        9 => text.prop_map(|text| HeaderValue::try_from(text).unwrap()),
        1 => bytes.prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap()),
    ]
}

/// Generates headers. The header `Connection` lists the names of some of them.
fn headers() -> impl Strategy<Value = HeaderMap> {
    (vec((name(), value()), 0..12), vec("x-[a-z]{1,4}", 0..3)).prop_map(|(pairs, named)| {
        let mut headers: HeaderMap = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers.append(CONNECTION, HeaderValue::from_static("close"));
        headers.append(CONNECTION, HeaderValue::try_from(named.join(" , ")).unwrap());
        headers
    })
}

/// Returns the header names that the `Connection` headers list.
fn named(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_lowercase()).collect()
}

/// Returns method, path and headers of a request in the form in which the service receives it.
fn sent(signer: &Signer, parts: (Method, &PathAndQuery, HeaderMap), body: &[u8]) -> Parts {
    let body = Bytes::copy_from_slice(body);
    let signed = signer.sign_for_client(parts, body, &credentials(), SystemTime::now()).unwrap();
    let mut parts = signed.into_parts().0;
    // The HTTP client would add the `Host` header in the same way.
    let host = parts.uri.authority().unwrap().as_str().parse().unwrap();
    assert_eq!(parts.headers.insert(HOST, host), None);
    parts.uri = parts.uri.path_and_query().unwrap().as_str().parse().unwrap();
    parts
}

fn credentials() -> Credentials {
    Credentials::new("AKID", "secret", Some("token".into()), None, "test")
}

proptest! {
    #[test]
    fn no_header_of_one_connection_and_no_foreign_signature_survives(before in headers()) {
        let named = named(&before);
        let after = for_service(before.clone());
        for name in HOP_BY_HOP.iter().chain(&REPLACED) {
            prop_assert!(!after.contains_key(name), "{name}");
        }
        let answer = for_client(before.clone(), false);
        for name in &HOP_BY_HOP {
            prop_assert!(!answer.contains_key(name), "{name}");
        }
        prop_assert!(!answer.contains_key(CONTENT_LENGTH));
        // All headers that are neither removed nor replaced must be unchanged.
        for name in before.keys() {
            let is_named = named.iter().any(|named| named == name.as_str());
            let ends = is_named || HOP_BY_HOP.contains(name);
            let values = |headers: &HeaderMap| {
                headers.get_all(name).iter().cloned().collect::<Vec<_>>()
            };
            let expected = |ends| if ends { vec![] } else { values(&before) };
            prop_assert_eq!(values(&after), expected(ends || REPLACED.contains(name)), "{}", name);
            let ends = ends || *name == CONTENT_LENGTH;
            prop_assert_eq!(values(&answer), expected(ends), "{}", name);
        }
    }

    #[test]
    fn the_signature_covers_what_is_sent(
        before in headers(),
        method in select(vec![Method::POST, Method::GET, Method::PUT, Method::DELETE]),
        target in "/[a-zA-Z]{0,8}(/[a-zA-Z0-9]{1,3})?(\\?[a-z]{1,3}=[a-z0-9]{0,3})?",
        body in vec(any::<u8>(), 0..50),
    ) {
        let endpoint = Endpoint::resolve(Some("http://127.0.0.1:2001/prefix"), "x", Variant::default()).unwrap();
        let signer = Signer::new(&endpoint, "eu-central-1", None);
        let target: PathAndQuery = target.parse().unwrap();
        let parts = sent(&signer, (method, &target, for_service(before)), &body);
        let is_good = |parts: &Parts, body: &[u8]| {
            verify(&credentials(), parts, body, SystemTime::now())
        };
        prop_assert_eq!(is_good(&parts, &body), Ok(()), "{:?}", parts);

        let mut more = body.clone();
        more.push(b'x');
        prop_assert!(is_good(&parts, &more).is_err());
        let changed = |change: &dyn Fn(&mut Parts)| {
            let mut parts = parts.clone();
            change(&mut parts);
            is_good(&parts, &body)
        };
        prop_assert!(changed(&|it| it.method = Method::PATCH).is_err());
        let longer = format!("{}x", parts.uri).parse::<Uri>().unwrap();
        prop_assert!(changed(&|it| it.uri = longer.clone()).is_err());
        for name in parts.headers.keys() {
            let is_text = parts.headers.get_all(name).iter().all(|value| value.to_str().is_ok());
            let counts = name.as_str().starts_with("content-") || name.as_str().starts_with("x-amz-");
            if is_text && (counts || *name == HOST) {
                let other = HeaderValue::from_static("other");
                let result = changed(&|it| drop(it.headers.insert(name, other.clone())));
                prop_assert!(result.is_err(), "{}", name);
            }
        }
    }
}

/// Returns the canonical query of SigV4 as the service computes it: decode names and values, encode
/// them again, sort.
fn canonical(query: &str) -> String {
    let decode = |text: &str| -> Vec<u8> {
        let bytes = text.as_bytes();
        let (mut decoded, mut at) = (Vec::new(), 0);
        while at < bytes.len() {
            let escape = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
            let value = escape.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            decoded.push(value.unwrap_or(bytes[at]));
            at += if value.is_some() { 3 } else { 1 };
        }
        decoded
    };
    let encode = |bytes: Vec<u8>| -> String {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        let encoded = bytes.iter().map(|byte| match plain(byte) {
            true => char::from(*byte).to_string(),
            false => format!("%{byte:02X}"),
        });
        encoded.collect()
    };
    let mut parameters: Vec<_> = query
        .split('&')
        .map(|it| it.split_once('=').unwrap_or((it, "")))
        .map(|(name, value)| (encode(decode(name)), encode(decode(value))))
        .collect();
    parameters.sort();
    let parameters = parameters.into_iter().map(|(name, value)| format!("{name}={value}"));
    parameters.collect::<Vec<_>>().join("&")
}

/// Generates queries. Some have a plus sign or bytes that are not UTF-8.
fn query() -> impl Strategy<Value = String> {
    let parameter = "([a-zA-Z0-9=;:@/?!$'()*,._~+-]|%[2-8][0-9a-fA-F]|%C3%A4){1,5}";
    proptest::string::string_regex(&format!("{parameter}(&{parameter}){{0,3}}")).unwrap()
}

proptest! {
    #[test]
    fn a_query_that_is_not_refused_is_signed_as_the_service_reads_it(
        query in query(),
    ) {
        let uri = format!("/GetSamplingRules?{query}").parse::<PathAndQuery>();
        let sent = uri.ok().filter(|target| target.query() == Some(&query));
        prop_assume!(super::query::check(&query).is_ok());
        let target = sent.expect("a query without characters to escape is valid");
        let endpoint =
            Endpoint::resolve(Some("http://127.0.0.1:2001"), "x", Variant::default()).unwrap();
        let signer = Signer::new(&endpoint, "eu-central-1", None);
        let now = SystemTime::now();
        let signature = |target: &PathAndQuery| {
            let parts = (Method::POST, target, HeaderMap::new());
            let request = signer.sign_for_client(parts, Bytes::new(), &credentials(), now).unwrap();
            request.headers()["authorization"].clone()
        };
        // The canonical form is a query too. It has the same signature if the library reads the
        // query as the service does.
        let canonical: PathAndQuery =
            format!("/GetSamplingRules?{}", canonical(&query)).parse().unwrap();
        prop_assert_eq!(signature(&target), signature(&canonical));
    }
}

#[test]
fn the_answer_to_head_keeps_its_length() {
    let headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("17"))]);
    assert_eq!(for_client(headers, true)[CONTENT_LENGTH], "17");
}
