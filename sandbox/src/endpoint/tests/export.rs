//! Tests of requests with spans of OpenTelemetry, in bodies that real exporters sent.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs;
use std::io::Write;
use std::path::Path;
use xrayd_otlp::grpc::{self, code};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn recorded(name: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(name);
    fs::read(path).unwrap().into()
}

fn post(path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Request<Bytes> {
    let mut request = Request::builder().method("POST").uri(path).header("host", "localhost:4318");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

fn export(sandbox: &Sandbox, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Response<Bytes> {
    sandbox.answer(post("/v1/traces", headers, body))
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// Returns the JSON of a request with spans that have these ids.
fn json_body(ids: &[&str]) -> String {
    let span = |id: &&str| {
        json!({"traceId": "581cf771000000000000000000007431", "spanId": id,
        "parentSpanId": digits("a", 16), "name": "work", "kind": 1, "startTimeUnixNano": 1_000_000_000,
        "endTimeUnixNano": "1250000000"})
    };
    let spans: Vec<Value> = ids.iter().map(span).collect();
    json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).to_string()
}

#[test]
fn each_recorded_body_is_taken_and_answered_in_its_encoding() {
    for (name, content_type, encoding) in [
        ("go-proto", PROTOBUF, None),
        ("java-proto", PROTOBUF, None),
        ("java-proto-gzip", PROTOBUF, Some("gzip")),
        ("node-json", JSON, None),
        ("node-json-gzip", JSON, Some("gzip")),
        ("node-proto", PROTOBUF, None),
        ("python-json", "application/json; charset=utf-8", None),
        ("python-proto", PROTOBUF, None),
        ("python-proto-deflate", PROTOBUF, Some("deflate")),
    ] {
        for path in ["/v1/traces", "/v1/traces/"] {
            let sandbox = Sandbox::new(credentials());
            let mut headers = vec![("content-type", content_type)];
            headers.extend(encoding.map(|encoding| ("content-encoding", encoding)));
            let body = recorded(&format!("otlp/{name}.bin"));
            let response = sandbox.answer(post(path, &headers, body));
            assert_eq!(response.status(), 200, "{name}");
            let essence = content_type.split(';').next().unwrap();
            assert_eq!(response.headers()[CONTENT_TYPE], essence, "{name}");
            let expected = if essence == JSON { "{}" } else { "" };
            assert_eq!(response.body(), expected, "{name}");
            assert_eq!(sandbox.status().trace_count, 1, "{name}");
            assert!(sandbox.account().kept_document_count >= 2, "{name}");
        }
    }
}

#[test]
fn a_span_is_in_one_trace_with_the_segments_of_the_x_ray_sdk() {
    let sandbox = Sandbox::new(credentials());
    // The child comes before its parent.
    let body = json_body(&["00000000000000bb"]);
    assert_eq!(export(&sandbox, &[("content-type", JSON)], body).status(), 200);
    assert_eq!(sandbox.answer(put(&[&segment("t1", "a")])).status(), 200);
    let [tree] = &sandbox.take_all()[..] else { panic!("one trace") };
    assert!(tree.contains("└─ shop  250 ms\n   └─ work  250 ms"), "{tree}");
    let page =
        json_of(&sandbox.answer(request("GET", &format!("/api/traces/{}", trace_id("t1")), "")));
    let otlp = page["otlp"][0].as_str().unwrap();
    assert!(
        otlp.starts_with("{\"resourceSpans\":[") && otlp.contains("00000000000000bb"),
        "{otlp}"
    );
    assert_eq!(page["otlp"][1], Value::Null);
    let read = request("POST", "/Traces", &json!({"TraceIds": [trace_id("t1")]}).to_string());
    let answer = json_of(&sandbox.answer(read));
    assert_eq!(answer["Traces"][0]["Segments"][0]["Id"], "00000000000000bb");
}

#[test]
fn spans_that_are_not_taken_are_a_partial_success_and_none_at_all_an_error() {
    let sandbox = Sandbox::new(credentials());
    let json = [("content-type", JSON)];
    let some = export(&sandbox, &json, json_body(&["00000000000000bb", "bb"]));
    assert_eq!(some.status(), 200);
    let partial = &json_of(&some)["partialSuccess"];
    assert_eq!(partial["rejectedSpans"], "1");
    assert!(partial["errorMessage"].as_str().unwrap().contains("span id"));
    let none = export(&sandbox, &json, json_body(&["bb"]));
    assert_eq!((none.status().as_u16(), &json_of(&none)["code"]), (400, &json!(3)));
    assert_eq!(sandbox.account().rejected_span_count, 2);
    assert!(sandbox.last_rejection().contains("span id"));
    assert_eq!(export(&sandbox, &json, "{}").status(), 200);
}

#[test]
fn what_cannot_be_read_is_refused_with_a_reason_in_the_encoding_of_the_request() {
    let sandbox = Sandbox::new(credentials());
    let status = |headers: &[(&str, &str)], body: &[u8]| {
        let response = export(&sandbox, headers, body.to_vec());
        let content_type = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let body = String::from_utf8_lossy(response.body()).into_owned();
        (response.status().as_u16(), content_type, body)
    };
    let (code, content_type, body) =
        status(&[("content-type", PROTOBUF)], b"\x0a\xff\xff\xff\xff\x07ab");
    assert_eq!((code, &*content_type), (400, PROTOBUF));
    assert!(body.contains("the protobuf is cut off"), "{body}");
    let (code, content_type, body) = status(&[("content-type", JSON)], b"[");
    assert_eq!((code, &*content_type), (400, JSON));
    assert!(body.contains("\"code\":3"), "{body}");
    let (code, _, body) = status(&[("content-type", "text/plain")], b"{}");
    assert_eq!(code, 415, "{body}");
    assert_eq!(status(&[], b"{}").0, 415);
    for encoding in ["br", "zstd"] {
        let headers = [("content-type", JSON), ("content-encoding", encoding)];
        assert_eq!(status(&headers, b"{}").0, 415);
    }
    let twice =
        [("content-type", JSON), ("content-encoding", "gzip"), ("content-encoding", "gzip")];
    assert_eq!(status(&twice, &gzip(b"{}")).0, 415);
    let gzipped = [("content-type", JSON), ("content-encoding", "gzip")];
    assert_eq!(status(&gzipped, &gzip(&vec![b' '; 6 << 20])).0, 413);
    assert_eq!(status(&gzipped, b"{}").0, 400);
    assert_eq!(status(&gzipped, &gzip(b"{}")).0, 200);
    let get = sandbox.answer(request("GET", "/v1/traces", ""));
    assert_eq!((get.status().as_u16(), &get.headers()[ALLOW]), (405, &"POST".parse().unwrap()));
}

#[test]
fn metrics_and_logs_are_refused_for_good() {
    let sandbox = Sandbox::new(credentials());
    for (path, name) in [("/v1/metrics", "metrics"), ("/v1/logs/", "logs")] {
        let response = sandbox.answer(post(path, &[("content-type", JSON)], "{}"));
        // Exporters try again after 429, 502, 503 and 504 only.
        assert_eq!(response.status(), 404);
        let message = json_of(&response)["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&format!("no {name}")), "{message}");
        assert!(message.contains(&format!("OTEL_{}_EXPORTER=none", name.to_uppercase())));
    }
}

#[test]
fn another_website_cannot_send_spans() {
    let sandbox = Sandbox::new(credentials());
    for header in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
        let headers = [("content-type", JSON), header];
        let response = export(&sandbox, &headers, json_body(&["00000000000000bb"]));
        assert_eq!((response.status().as_u16(), &json_of(&response)["code"]), (403, &json!(7)));
    }
    let rebound =
        Request::builder().method("POST").uri("/v1/traces").header("host", "evil.example");
    let rebound = rebound.header("content-type", PROTOBUF).body(Bytes::new()).unwrap();
    assert_eq!(sandbox.answer(rebound).status(), 403);
    assert_eq!(sandbox.status().trace_count, 0);
}

#[test]
fn documents_of_udp_exporters_become_traces_and_metrics_are_no_error() {
    let sandbox = Sandbox::new(credentials());
    let document = |name: &str| {
        let datagram =
            String::from_utf8(recorded(&format!("segments/{name}.bin")).to_vec()).unwrap();
        datagram.split_once('\n').unwrap().1.to_owned()
    };
    let names = [
        "adot-python-sampled-01",
        "adot-python-unsampled-01",
        "adot-node-lambda-01",
        "adot-java-sampled-01",
        "adot-python-metric-01",
    ];
    let documents = names.map(document);
    let mut texts: Vec<&str> = documents.iter().map(String::as_str).collect();
    texts.push("T1Sx");
    let answer = json_of(&sandbox.answer(put(&texts)));
    let unprocessed = answer["UnprocessedTraceSegments"].as_array().unwrap();
    assert_eq!(unprocessed.len(), 1, "{unprocessed:?}");
    assert!(unprocessed[0]["Message"].as_str().unwrap().contains("base64"));
    assert!(sandbox.status().trace_count >= 3);
    let account = sandbox.account();
    assert_eq!((account.metrics_document_count, account.unprocessed_document_count), (1, 1));
}

#[test]
fn the_call_of_grpc_is_taken_like_a_request_over_http() {
    let sandbox = Sandbox::new(credentials());
    let head = |path: &str, authority: &str, headers: &[(&str, &str)]| {
        let uri = format!("http://{authority}{path}");
        let mut request = Request::builder().method("POST").uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    };
    let own = head(grpc::EXPORT_PATH, "127.0.0.1:4317", &[("grpc-encoding", "gzip")]);
    let body = recorded("otlp/python-proto.bin");
    assert_eq!(sandbox.export_grpc(&own, &grpc::frame(&body)), Ok(Bytes::new()));
    let mut packed = grpc::frame(&gzip(&body)).to_vec();
    packed[0] = 1;
    assert_eq!(sandbox.export_grpc(&own, &packed.into()), Ok(Bytes::new()));
    assert_eq!(sandbox.status().trace_count, 1);
    let code = |head: &Parts, body: &Bytes| sandbox.export_grpc(head, body).unwrap_err().code;
    assert_eq!(code(&own, &Bytes::new()), code::INVALID_ARGUMENT);
    assert_eq!(code(&own, &grpc::frame(b"\x0a\x05")), code::INVALID_ARGUMENT);
    let foreign = head(grpc::EXPORT_PATH, "evil.example", &[]);
    assert_eq!(code(&foreign, &grpc::frame(&body)), code::PERMISSION_DENIED);
    let metrics = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    assert_eq!(code(&head(metrics, "localhost", &[]), &grpc::frame(b"")), code::UNIMPLEMENTED);
}

#[test]
fn spans_are_in_the_trace_file_and_in_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("traces");
    let start = || Sandbox::new(credentials()).with_file(TraceFile::open(&path).unwrap());
    let sandbox = start();
    let body = json_body(&["00000000000000bb"]);
    assert_eq!(export(&sandbox, &[("content-type", JSON)], body).status(), 200);
    // A first call becomes two documents. The file has its span once.
    let call = json_body(&["00000000000000cc"])
        .replace(&digits("a", 16), "")
        .replace("\"kind\":1", "\"kind\":3");
    assert_eq!(export(&sandbox, &[("content-type", JSON)], call).status(), 200);
    let page = |sandbox: &Sandbox| {
        let path = format!("/api/traces/{}", trace_id("t1"));
        json_of(&sandbox.answer(request("GET", &path, "")))
    };
    let before = page(&sandbox);
    assert_eq!(before["documents"].as_array().unwrap().len(), 3);
    drop(sandbox);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    assert_eq!(page(&start()), before);
}
