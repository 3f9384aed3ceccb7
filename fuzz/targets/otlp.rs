//! Fuzzes both decoders of OTLP and the documents that the sandbox makes of spans. There must be no
//! panic, no document that breaks X-Ray's rules, and no span that its own JSON does not have again.
//! A request from which spans are cut must have exactly the other spans. Documents that a request
//! is divided into must have all its spans, and must not be too long.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xrayd_otlp::documents::{Part, documents};
use xrayd_otlp::{BODY_BYTES_MAX, Encoding, FoundSpan, coding, cut, datagram, grpc, scan};
use xrayd_sandbox::model::document::Document;
use xrayd_sandbox::model::span::{self, TEXT_BYTES_MAX};

/// Returns the times of the spans; `None` if the body is refused.
fn times(encoding: Encoding, body: &[u8]) -> Option<Vec<(u64, u64)>> {
    let mut all = Vec::new();
    let of = |span: &FoundSpan| span.times.map_or((0, 0), |it| (it.start_ns, it.end_ns));
    scan(encoding, body, |span| all.push(of(span))).ok().map(|()| all)
}

fn check_cut(encoding: Encoding, body: &[u8]) {
    let Some(before) = times(encoding, body) else { return };
    for keeps in [|index: usize| index % 3 == 1, |index| index % 2 == 0, |_| false] {
        let mut kept = Vec::new();
        let put = |piece: &[u8]| kept.extend_from_slice(piece);
        cut(encoding, body, |span| keeps(span.index), put).expect("it was walked before");
        let expected = before.iter().enumerate().filter(|(index, _)| keeps(*index));
        let expected: Vec<_> = expected.map(|(_, times)| *times).collect();
        assert_eq!(times(encoding, &kept), Some(expected));
        assert!(kept.len() <= body.len());
    }
}

fn check_documents(encoding: Encoding, body: &[u8], bytes_max: usize) {
    let (mut divided, mut rejected_count) = (Vec::new(), 0);
    let result = documents(encoding, body, bytes_max, |part| match part {
        Part::Rejected(_) => rejected_count += 1,
        Part::Document(text, span_count) => {
            assert!(text.len() <= bytes_max);
            let (_, base64) = datagram::form(&text).expect("a document of a UDP exporter");
            let protobuf = datagram::decode(base64).expect("base64");
            let spans = times(Encoding::Protobuf, &protobuf).expect("a request in protobuf");
            assert_eq!(spans.len(), span_count as usize);
            divided.extend(spans);
        }
    });
    if encoding == Encoding::Protobuf && result.is_ok() {
        let all = times(encoding, body).expect("it was divided before");
        assert_eq!(divided.len() + rejected_count, all.len());
        if rejected_count == 0 {
            assert_eq!(divided, all);
        }
    }
}

fn check(encoding: Encoding, body: &[u8]) {
    check_cut(encoding, body);
    for bytes_max in [500, 64_000] {
        check_documents(encoding, body, bytes_max);
    }
    let Ok(spans) = span::read(encoding, body) else { return };
    assert_eq!(spans.rejected_count > 0, !spans.why.is_empty());
    for document in &spans.documents {
        assert!(document.text.len() <= TEXT_BYTES_MAX && document.source().len() <= TEXT_BYTES_MAX);
        if document.text.len() <= 64 * 1024 {
            Document::parse(&document.text).expect("a document by the rules of X-Ray");
        }
        let again = span::read(Encoding::Json, document.source().as_bytes()).expect("its own JSON");
        assert_eq!((again.taken_count, again.rejected_count), (1, 0), "{}", again.why);
        assert!(again.documents.iter().any(|it| it.text == document.text));
    }
}

fuzz_target!(|input: &[u8]| {
    // A seed may be a datagram, an inflated body, or a compressed body.
    let text = String::from_utf8_lossy(input);
    let document = text.split_once('\n').map_or(&*text, |(_, document)| document);
    if let Some((_, base64)) = datagram::form(document)
        && let Some(protobuf) = datagram::decode(base64)
    {
        check(Encoding::Protobuf, &protobuf);
    }
    check(Encoding::Protobuf, input);
    check(Encoding::Json, input);
    let mut buffer = Vec::new();
    for encoding in [&b"gzip"[..], b"deflate"] {
        if let Ok(inflated) = coding::decode(Some(encoding), input, BODY_BYTES_MAX, &mut buffer) {
            check(Encoding::Protobuf, inflated);
            check(Encoding::Json, inflated);
        }
    }
    let _ = grpc::message(input, Some(b"gzip"), BODY_BYTES_MAX, &mut buffer);
});
