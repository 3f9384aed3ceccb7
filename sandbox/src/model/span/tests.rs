//! Tests of documents that are made of spans: of recorded spans of real exporters, and of each
//! rule.

use super::*;
use crate::model::document::{Document, Kind};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use xrayd_otlp::coding;

fn recorded(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(name)).unwrap()
}

/// Returns the documents of the spans in a recorded body over HTTP.
fn of_body(name: &str) -> Vec<Document> {
    let encoding = if name.contains("-json") { Encoding::Json } else { Encoding::Protobuf };
    let content_encoding = ["gzip", "deflate"].into_iter().find(|coding| name.ends_with(coding));
    let body = recorded(&format!("otlp/{name}.bin"));
    let (content_encoding, mut buffer) = (content_encoding.map(str::as_bytes), Vec::new());
    let body = coding::decode(content_encoding, &body, 1 << 20, &mut buffer).unwrap();
    let spans = read(encoding, body).unwrap();
    assert_eq!((spans.rejected_count, &*spans.why), (0, ""));
    spans.documents
}

/// Returns the documents of the spans in a recorded datagram.
fn of_datagram(name: &str) -> Vec<Document> {
    let datagram = String::from_utf8(recorded(&format!("segments/{name}.bin"))).unwrap();
    let document = datagram.split_once('\n').unwrap().1;
    match read_datagram(document).unwrap().unwrap() {
        Content::Spans(spans) => spans.documents,
        Content::Metrics => panic!("no metrics"),
    }
}

fn parsed(document: &Document) -> Value {
    // The document is good by the rules of X-Ray too.
    Document::parse(&document.text).unwrap();
    document.object().into()
}

fn named(documents: &[Document], name: &str) -> Value {
    let found = documents.iter().find(|document| document.name == name);
    parsed(found.unwrap_or_else(|| panic!("no {name} in {documents:#?}")))
}

/// Makes the only document of a span with these fields. `resource` has attributes of the resource.
fn made(span: Value, resource: &Value) -> Vec<Document> {
    let attributes = |object: &Value| -> Value {
        let of_value = |value: &Value| match value {
            Value::String(text) => json!({"stringValue": text}),
            Value::Number(number) if number.is_i64() => json!({"intValue": number}),
            Value::Number(number) => json!({"doubleValue": number}),
            Value::Bool(value) => json!({"boolValue": value}),
            Value::Array(items) => {
                let items = items.iter().map(|item| json!({"stringValue": item}));
                json!({"arrayValue": {"values": items.collect::<Vec<_>>()}})
            }
            _ => json!({}),
        };
        let fields = object.as_object().into_iter().flatten();
        fields.map(|(key, value)| json!({"key": key, "value": of_value(value)})).collect()
    };
    let mut own = json!({
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "00000000000000aa",
        "name": "work", "kind": 3, "startTimeUnixNano": "1500000000000000000",
        "endTimeUnixNano": "1500000000250000000", "parentSpanId": "00000000000000ff",
    });
    own.as_object_mut().unwrap().extend(span.as_object().unwrap().clone());
    own["attributes"] = attributes(&span["attributes"]);
    for event in own["events"].as_array_mut().into_iter().flatten() {
        event["attributes"] = attributes(&event["attributes"].clone());
    }
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": attributes(resource)}, "scopeSpans": [{"spans": [own]}],
    }]});
    let spans = read(Encoding::Json, body.to_string().as_bytes()).unwrap();
    assert_eq!(spans.why, "");
    spans.documents
}

fn one(span: Value) -> Value {
    let documents = made(span, &json!({"service.name": "shop"}));
    assert_eq!(documents.len(), 1);
    parsed(&documents[0])
}

#[test]
fn spans_of_the_python_exporter_become_a_segment_and_its_subsegments() {
    for documents in [
        of_body("python-proto"),
        of_body("python-json"),
        of_body("python-proto-deflate"),
        of_datagram("adot-python-sampled-01"),
        of_datagram("adot-python-unsampled-01"),
    ] {
        let service = documents.iter().find(|document| !document.is_subsegment).unwrap();
        assert!(
            ["py-otlp", "py-shop", "otel-python"].contains(&&*service.name),
            "{}",
            service.name
        );
        let segment = parsed(service);
        assert_eq!(segment["http"]["request"]["method"], "GET");
        assert_eq!(segment["http"]["request"]["url"], "http://shop.example/cart");
        assert_eq!(segment["metadata"]["otel"]["name"], "GET /cart");
        let subsegments = || documents.iter().filter(|document| document.is_subsegment);
        for document in subsegments() {
            assert_eq!(parsed(document)["parent_id"], segment["id"]);
        }
        let database = named(&documents, "orders@db.example");
        assert_eq!(database["sql"]["sanitized_query"], "SELECT * FROM t WHERE a = ?");
        assert_eq!(database["namespace"], "remote");
        let object = named(&documents, "S3");
        assert_eq!(
            (&object["namespace"], &object["aws"]["operation"]),
            (&json!("aws"), &json!("PutObject"))
        );
        assert_eq!((&object["throttle"], &object["error"]), (&json!(true), &json!(true)));
        let work = named(&documents, "work");
        let exception = &work["cause"]["exceptions"][0];
        assert_eq!(exception["message"], "kaputt");
        assert_eq!(exception["stack"][0]["label"], "make");
        assert_eq!(exception["stack"][0]["line"], 13);
        assert_eq!(work["links"][0]["id"], segment["id"]);
    }
}

#[test]
fn spans_of_the_other_exporters_have_their_stacks() {
    for (name, label) in [
        ("node-json", "make"),
        ("node-proto", "make"),
        ("java-proto", "OT.make"),
        ("java-proto-gzip", "OT.make"),
    ] {
        let documents = of_body(name);
        let work = named(&documents, "work");
        let exception = &work["cause"]["exceptions"][0];
        assert_eq!(
            (&exception["message"], &exception["stack"][0]["label"]),
            (&json!("kaputt"), &json!(label)),
            "{name}"
        );
    }
    let java = of_datagram("adot-java-sampled-01");
    let segment = java.iter().find(|document| !document.is_subsegment).unwrap();
    assert_eq!(segment.facts.parts[0].type_name.as_ref(), "AWS::EC2::Instance");
    assert!(of_body("go-proto").iter().any(|document| !document.is_subsegment));
    assert!(!of_datagram("adot-node-sampled-01").is_empty());
}

#[test]
fn a_document_keeps_the_otlp_json_of_its_span() {
    let documents = of_body("go-proto");
    for document in &documents {
        let again = read(Encoding::Json, document.source().as_bytes()).unwrap();
        let texts: Vec<&str> = again.documents.iter().map(|it| it.text.as_str()).collect();
        assert!(texts.contains(&&*document.text));
    }
}

#[test]
fn the_kind_of_a_span_and_its_parent_decide_whether_it_is_a_segment() {
    let roles = |kind: i32, more: Value| {
        let mut span = json!({"kind": kind});
        span.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let documents = made(span, &json!({"service.name": "shop"}));
        documents.iter().map(|it| (it.is_subsegment, it.name.clone())).collect::<Vec<_>>()
    };
    let segment = vec![(false, "shop".to_owned())];
    let subsegment = vec![(true, "work".to_owned())];
    let both = [subsegment.clone(), segment.clone()].concat();
    let root = json!({"parentSpanId": ""});
    let remote = json!({"flags": 0x301});
    let marked = json!({"attributes": {"aws.span.kind": "LOCAL_ROOT"}});
    for (kind, child, first) in [
        (0, &subsegment, &segment),
        (1, &subsegment, &segment),
        (2, &segment, &segment),
        (3, &subsegment, &both),
        (4, &subsegment, &both),
        (5, &segment, &segment),
    ] {
        assert_eq!(&roles(kind, json!({"flags": 0x101})), child, "{kind}");
        for more in [&root, &remote, &marked] {
            assert_eq!(&roles(kind, more.clone()), first, "{kind} {more}");
        }
    }
}

#[test]
fn a_first_call_is_below_a_segment_of_its_service() {
    let span = json!({"parentSpanId": "", "attributes": {"peer.service": "stock"}});
    let documents = made(span, &json!({"service.name": "shop", "host.id": "i-1"}));
    let (call, caller) = (parsed(&documents[0]), parsed(&documents[1]));
    assert_eq!((&call["name"], &caller["name"]), (&json!("stock"), &json!("shop")));
    assert_eq!(call["parent_id"], caller["id"]);
    assert_eq!(caller["id"], "ffffffffffffff55");
    assert_eq!(caller.get("parent_id"), None);
    assert_eq!(caller["aws"]["ec2"]["instance_id"], "i-1");
    assert_eq!(caller.get("http"), None);
}

#[test]
fn ids_and_times_are_in_the_form_of_x_ray() {
    let document = one(json!({}));
    assert_eq!(document["trace_id"], "1-5b8efff7-98038103d269b633813fc60c");
    assert_eq!(
        (&document["id"], &document["parent_id"]),
        (&json!("00000000000000aa"), &json!("00000000000000ff"))
    );
    assert_eq!(
        (&document["start_time"], &document["end_time"]),
        (&json!(1.5e9), &json!(1_500_000_000.25))
    );
    let open = one(json!({"endTimeUnixNano": 0}));
    assert_eq!((open.get("end_time"), &open["in_progress"]), (None, &json!(true)));
}

#[test]
fn old_and_new_names_of_http_attributes_give_the_same_request() {
    let old = json!({"http.method": "GET", "http.scheme": "https", "http.host": "a.b:8",
        "http.target": "/c?d", "http.status_code": 503, "http.user_agent": "u", "http.client_ip": "1.2.3.4"});
    let new = json!({"http.request.method": "GET", "url.scheme": "https", "server.address": "a.b",
        "server.port": 8, "url.path": "/c", "url.query": "d", "http.response.status_code": 503,
        "user_agent.original": "u", "client.address": "1.2.3.4"});
    for attributes in [old, new] {
        let document = one(json!({"kind": 2, "attributes": attributes}));
        assert_eq!(
            document["http"],
            json!({
                "request": {"method": "GET", "url": "https://a.b:8/c?d", "user_agent": "u",
                    "client_ip": "1.2.3.4", "x_forwarded_for": true},
                "response": {"status": 503},
            })
        );
        assert_eq!((&document["fault"], document.get("error")), (&json!(true), None));
        let default = document["metadata"].get("default").and_then(Value::as_object);
        let own =
            default.into_iter().flatten().filter(|(key, _)| !key.starts_with("otel.resource"));
        assert_eq!(own.count(), 0);
    }
    let path =
        one(json!({"kind": 2, "attributes": {"http.request.method": "GET", "url.path": "/c"}}));
    assert_eq!(path["http"]["request"]["url"], "/c");
    let usual = json!({"http.request.method": "GET", "url.scheme": "https", "server.address": "a", "server.port": 443});
    assert_eq!(one(json!({"attributes": usual}))["http"]["request"]["url"], "https://a/");
    assert_eq!(one(json!({"attributes": {"server.address": "a"}})).get("http"), None);
}

#[test]
fn a_call_has_the_name_of_the_called_service() {
    for (attributes, name, namespace) in [
        (json!({"peer.service": "stock", "server.address": "s"}), "stock", "remote"),
        (json!({"service.peer.name": "stock"}), "stock", "remote"),
        (json!({"aws.remote.service": "AWS::S3", "rpc.system": "aws-api"}), "S3", "aws"),
        (json!({"rpc.system": "aws-api", "rpc.service": "DynamoDB"}), "DynamoDB", "aws"),
        (json!({"rpc.system.name": "aws-api", "rpc.method": "SQS/SendMessage"}), "SQS", "aws"),
        (
            json!({"db.system": "mysql", "db.name": "o", "db.connection_string": "jdbc:mysql://h:3306"}),
            "o@h",
            "remote",
        ),
        (
            json!({"db.system.name": "postgresql", "db.namespace": "o", "server.address": "h"}),
            "o@h",
            "remote",
        ),
        (json!({"db.system": "redis", "net.peer.name": "cache"}), "redis@cache", "remote"),
        (json!({"messaging.destination.name": "orders"}), "orders", "remote"),
        (
            json!({"rpc.system": "grpc", "rpc.service": "a.Stock", "server.address": "h"}),
            "a.Stock",
            "remote",
        ),
        (json!({"http.host": "old.example"}), "old.example", "remote"),
        (json!({"server.address": "new.example"}), "new.example", "remote"),
        (json!({"net.peer.name": "peer.example"}), "peer.example", "remote"),
        (json!({"http.url": "https://full.example/x"}), "full.example", "remote"),
        (json!({}), "work", "remote"),
    ] {
        let document = one(json!({"attributes": attributes}));
        assert_eq!(
            (&document["name"], &document["namespace"]),
            (&json!(name), &json!(namespace)),
            "{attributes}"
        );
    }
}

#[test]
fn calls_of_aws_have_their_resource() {
    let attributes = json!({"rpc.system": "aws-api", "rpc.service": "DynamoDB", "rpc.method": "DynamoDB/GetItem",
        "aws.region": "eu-west-1", "aws.request_id": "r", "aws.dynamodb.table_names": ["carts"]});
    let documents = made(json!({"attributes": attributes}), &json!({}));
    assert_eq!(
        parsed(&documents[0])["aws"],
        json!({
        "operation": "GetItem", "region": "eu-west-1", "request_id": "r", "table_name": "carts"})
    );
    let part = &documents[0].facts.parts[0];
    assert_eq!(
        (part.kind, &*part.name, &*part.type_name),
        (Kind::Call, "carts", "AWS::DynamoDB::Table")
    );
}

#[test]
fn an_error_without_an_exception_has_the_message_of_its_status() {
    let document = one(json!({"status": {"code": 2, "message": "no stock"}}));
    assert_eq!(
        (&document["fault"], &document["cause"]["exceptions"][0]["message"]),
        (&json!(true), &json!("no stock"))
    );
    assert_eq!(document["metadata"]["otel"]["status"], "ERROR");
    let ok = one(json!({"status": {"code": 1}, "attributes": {"http.response.status_code": 404}}));
    assert_eq!((&ok["error"], ok.get("fault"), ok.get("cause")), (&json!(true), None, None));
}

#[test]
fn listed_attributes_are_annotations_and_the_others_are_metadata() {
    let attributes = json!({"aws.xray.annotations": ["a b", "otel.resource.env"], "a b": 7,
        "aws.xray.metadata.own": "{\"x\":[1]}", "aws.xray.metadata.broken": "{", "other": true,
        "enduser.id": "ann"});
    let documents =
        made(json!({"kind": 2, "attributes": attributes}), &json!({"env": "test", "z": 1}));
    let document = parsed(&documents[0]);
    assert_eq!(document["annotations"], json!({"a_b": 7, "otel.resource.env": "test"}));
    assert_eq!(document["metadata"]["own"], json!({"x": [1]}));
    let default = json!({"other": true, "aws.xray.metadata.broken": "{", "otel.resource.z": 1});
    assert_eq!(document["metadata"]["default"], default);
    assert_eq!(document["user"], "ann");
}

#[test]
fn events_links_and_the_scope_are_shown() {
    let document = one(json!({
        "kind": 1, "traceState": "a=b",
        "events": [{"name": "cache miss", "timeUnixNano": "1500000000100000000", "attributes": {"key": "k"}}],
        "links": [{"traceId": "00000000000000000000000000000001", "spanId": "0000000000000002"}],
    }));
    let own = &document["metadata"]["otel"];
    assert_eq!(
        own["events"],
        json!([{"name": "cache miss", "time": 1_500_000_000.1, "attributes": {"key": "k"}}])
    );
    assert_eq!((&own["kind"], &own["trace_state"]), (&json!("INTERNAL"), &json!("a=b")));
    assert_eq!(
        document["links"],
        json!([{"trace_id": "1-00000000-000000000000000000000001", "id": "0000000000000002"}])
    );
}

#[test]
fn a_metric_is_not_an_error_and_what_is_broken_is() {
    assert!(matches!(read_datagram("M1CqYCCuoB"), Some(Ok(Content::Metrics))));
    assert!(read_datagram("{\"id\":1}").is_none());
    let error = |text| read_datagram(text).unwrap().unwrap_err();
    assert_eq!(error("T1S*"), "it is not base64 behind its prefix");
    assert!(error("T1SCv///w8=").contains("cut off"), "{}", error("T1SCv///w8="));
}

#[test]
fn a_request_of_large_resources_is_bounded() {
    let large = "x".repeat(150_000);
    let resource = json!({"attributes": [{"key": "a", "value": {"stringValue": large}}]});
    let span = |id: usize| json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": format!("{id:016x}")});
    let spans: Vec<Value> = (1..=1_000).map(span).collect();
    let body = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]});
    let spans = read(Encoding::Json, body.to_string().as_bytes()).unwrap();
    assert_eq!(spans.taken_count + spans.rejected_count, 1_000);
    assert!((50..200).contains(&spans.taken_count), "{}", spans.taken_count);
    assert_eq!(spans.why, "the spans of the request take too much memory");
}

#[test]
fn spans_that_are_too_large_take_no_room_from_the_others() {
    let text = |size: usize| json!([{"key": "a", "value": {"stringValue": "x".repeat(size)}}]);
    let span = |id: usize, size: usize| {
        json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": format!("{id:016x}"),
            "attributes": text(size)})
    };
    // Together, the texts of the refused spans are larger than what a request may have.
    let count = REQUEST_TEXT_BYTES_MAX / TEXT_BYTES_MAX + 10;
    let spans: Vec<Value> =
        (1..=count).map(|id| span(id, 80_000)).chain([span(count + 1, 10)]).collect();
    let resource = json!({"attributes": text(190_000)});
    let body = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]});
    let spans = read(Encoding::Json, body.to_string().as_bytes()).unwrap();
    assert_eq!((spans.taken_count, spans.rejected_count), (1, count));
    assert!(spans.why.contains("at most 262144 are taken"), "{}", spans.why);
}
