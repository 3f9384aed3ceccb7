//! Tests of the requests of the page, and of requests that are refused.

use super::*;
use http::StatusCode;

pub fn get(sandbox: &Sandbox, path: &str) -> Response<Bytes> {
    sandbox.answer(request("GET", path, ""))
}

/// Returns a request as a browser sends it for the sandbox's own page.
pub fn from_page(method: &str, path: &str, body: &str) -> Request<Bytes> {
    let mut request = request(method, path, body);
    let headers = request.headers_mut();
    headers.insert("origin", "http://localhost:1".parse().unwrap());
    headers.insert("sec-fetch-site", "same-origin".parse().unwrap());
    headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
    request
}

fn ids(listing: &Value) -> Vec<&str> {
    let traces = listing["traces"].as_array().unwrap();
    traces.iter().map(|trace| trace["id"].as_str().unwrap()).collect()
}

#[test]
fn the_page_is_served_with_a_policy_that_lets_nothing_else_in() {
    let sandbox = Sandbox::new(credentials());
    for path in ["/", "/page/index.html"] {
        let response = get(&sandbox, path);
        let header = |name: &str| response.headers()[name].to_str().unwrap();
        assert_eq!((response.status(), header("cache-control")), (StatusCode::OK, "no-cache"));
        assert_eq!(header("content-type"), "text/html; charset=utf-8");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(
            header("content-security-policy"),
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        assert!(response.body().starts_with(b"<!doctype html>"));
    }
}

#[test]
fn traces_that_have_changed_come_with_all_that_a_list_shows() {
    let sandbox = Sandbox::new(credentials());
    let before = json_of(&get(&sandbox, "/api/traces"));
    assert_eq!((&before["traces"], &before["gone"]), (&json!([]), &json!(false)));
    let root = json!({
        "trace_id": trace_id("t1"), "id": digits("a", 16), "name": "shop", "start_time": 1.0,
        "end_time": 1.25, "user": "u", "annotations": {"n": 1, "s": "x", "b": true},
        "error": true, "http": {
            "request": {"method": "GET", "url": "http://s/", "client_ip": "::1"},
            "response": {"status": 404}},
    });
    let later = json!({
        "trace_id": trace_id("t1"), "id": digits("b", 16), "name": "stock", "start_time": 1.1,
        "in_progress": true, "parent_id": digits("p", 16), "annotations": {"n": 2, "s": "x"},
        "fault": true,
    });
    sandbox.answer(put(&[&root.to_string(), &later.to_string()]));
    let since = format!("/api/traces?since={}", before["revision"]);
    let listing = json_of(&get(&sandbox, &since));
    let mut trace = listing["traces"][0].clone();
    assert_eq!(trace["revision"].take(), listing["revision"]);
    assert_eq!(
        trace,
        json!({"id": trace_id("t1"), "revision": null, "start_time": 1.0, "duration_seconds": 0.25,
            "response_time_seconds": 0.25, "segment_count": 2, "name": "shop",
            "services": ["shop", "stock"], "in_progress": true, "fault": true, "error": true,
            "throttle": false, "users": ["u"],
            "annotations": {"n": [1.0, 2.0], "s": ["x"], "b": [true]},
            "http": {"method": "GET", "url": "http://s/", "status": 404, "client_ip": "::1"}})
    );
    let mut store = listing["store"].clone();
    assert!(store["size_bytes"].take().as_u64().unwrap() > 300);
    assert_eq!(
        store,
        json!({"trace_count": 1, "document_count": 2, "size_bytes": null, "evicted_trace_count": 0,
            "trace_count_max": Limits::default().trace_count_max, "evicted_document_count": 0})
    );
    let since = format!("/api/traces?since={}", listing["revision"]);
    assert_eq!(json_of(&get(&sandbox, &since))["traces"], json!([]));
}

#[test]
fn durations_have_no_noise_of_doubles() {
    let sandbox = Sandbox::new(credentials());
    let noisy = segment("t1", "a")
        .replace("\"start_time\":1.0", "\"start_time\":1700000000.1")
        .replace("\"end_time\":1.25", "\"end_time\":1700000000.582");
    sandbox.answer(put(&[&noisy]));
    let list = json_of(&get(&sandbox, "/traces"));
    assert_eq!(list[0]["duration_seconds"], json!(0.482));
    assert_eq!(list[0]["start_time"], json!(1_700_000_000.1));
    let page = &json_of(&get(&sandbox, "/api/traces"))["traces"][0];
    assert_eq!(page["response_time_seconds"], json!(0.482));
    let graph = json_of(&get(&sandbox, "/api/service-graph"));
    let services = graph["Services"].as_array().unwrap().iter();
    let mut edges = services.flat_map(|service| service["Edges"].as_array().unwrap());
    assert_eq!(edges.next().unwrap()["SummaryStatistics"]["TotalResponseTime"], json!(0.482));
}

#[test]
fn a_listing_is_the_newest_first_and_no_longer_than_is_asked_for() {
    let sandbox = Sandbox::new(credentials());
    for trace in ["t1", "t2", "t3"] {
        sandbox.answer(put(&[&segment(trace, "a")]));
    }
    let listing = json_of(&get(&sandbox, "/api/traces?since=0&limit=2"));
    assert_eq!(ids(&listing), [trace_id("t3"), trace_id("t2")]);
    for bad in ["since=x", "since=-1", "limit=1.5", "since="] {
        let response = get(&sandbox, &format!("/api/traces?{bad}"));
        assert_eq!(failure(&response).0, 400, "{bad}");
    }
}

#[test]
fn revisions_of_another_process_are_gone() {
    let sandbox = Sandbox::new(credentials());
    let revision = json_of(&get(&sandbox, "/api/traces"))["revision"].as_u64().unwrap();
    for (since, is_gone) in
        [(0, false), (revision, false), (revision - 1, true), (revision + 1, true)]
    {
        let listing = json_of(&get(&sandbox, &format!("/api/traces?since={since}")));
        assert_eq!(listing["gone"], is_gone, "{since}");
    }
    // Numbers in JavaScript are exact up to 2^53.
    assert!(revision < 1 << 53);
}

#[test]
fn a_trace_has_the_text_of_each_document_byte_for_byte() {
    let sandbox = Sandbox::new(credentials());
    let odd = format!(" {}\n", segment("t1", "a").replace("\"shop\"", "\"caf\\u00e9\""));
    sandbox.answer(put(&[&odd]));
    let path = format!("/api/traces/{}", trace_id("t1"));
    let mut trace = json_of(&get(&sandbox, &path));
    assert_eq!(trace["forest"].take()["rows"].as_array().unwrap().len(), 1);
    assert_eq!(
        trace,
        json!({"id": trace_id("t1"), "documents": [odd], "otlp": [null], "forest": null,
            "refused": [], "evicted_document_count": 0, "replaced_document_count": 0})
    );
}

#[test]
fn a_trace_has_its_rows_in_the_order_of_the_waterfall() {
    let sandbox = Sandbox::new(credentials());
    let root = json!({
        "trace_id": trace_id("t1"), "id": digits("a", 16), "name": "shop", "start_time": 1.0,
        "end_time": 1.25, "fault": true, "subsegments": [
            {"id": digits("b", 16), "name": "stock", "namespace": "remote", "start_time": 1.1,
                "end_time": 1.2, "fault": true, "cause": {"exceptions": [{"message": "m"}]},
                "http": {"request": {"method": "GET", "url": "http://stock/items"}}}],
    });
    let open = json!({
        "trace_id": trace_id("t1"), "id": digits("c", 16), "parent_id": digits("d", 16),
        "type": "subsegment", "name": "alone", "start_time": 1.5, "in_progress": true,
    });
    sandbox.answer(put(&[&root.to_string(), &open.to_string()]));
    let trace = json_of(&get(&sandbox, &format!("/api/traces/{}", trace_id("t1"))));
    assert_eq!(
        trace["forest"],
        json!({
            "rows": [
                {"document": 0, "id": digits("a", 16), "name": "shop", "service": 0, "start": 1.0,
                    "end": 1.25, "state": "fault", "is_segment": true},
                {"document": 0, "path": [0], "id": digits("b", 16), "name": "stock", "parent": 0,
                    "depth": 1, "service": 0, "namespace": "remote", "start": 1.1, "end": 1.2,
                    "state": "fault", "has_cause": true, "note": "GET /items  m"},
                {"document": 1, "id": digits("c", 16), "name": "alone", "orphan": "missing",
                    "parent_id": digits("d", 16), "start": 1.5, "is_open": true,
                    "state": "progress"},
            ],
            "services": ["shop"], "segment_count": 1, "omitted_count": 0, "skewed_count": 0,
            "failed": 1,
        })
    );
}

#[test]
fn the_service_graph_is_of_everything_or_of_a_time() {
    let sandbox = Sandbox::new(credentials());
    sandbox.answer(put(&[&segment("t1", "a")]));
    let count = |path: &str| json_of(&get(&sandbox, path))["Services"].as_array().unwrap().len();
    assert_eq!(count("/api/service-graph"), 2);
    assert_eq!(count("/api/service-graph?start=1.2&end=9"), 2);
    assert_eq!(count("/api/service-graph?start=1.3"), 0);
    let times = |path: &str| {
        let graph = json_of(&get(&sandbox, path));
        (graph["StartTime"].clone(), graph["EndTime"].clone())
    };
    assert_eq!(times("/api/service-graph"), (json!(1.0), json!(1.25)));
    assert_eq!(times("/api/service-graph?end=9"), (json!(1.0), json!(9.0)));
    assert_eq!(times("/api/service-graph?start=1.3"), (json!(1.3), json!(null)));
    assert_eq!(failure(&get(&sandbox, "/api/service-graph?start=2&end=1")).0, 400);
    assert_eq!(failure(&get(&sandbox, "/api/service-graph?start=NaN")).0, 400);
}

#[test]
fn the_store_is_emptied_on_request() {
    let sandbox = Sandbox::new(credentials());
    sandbox.answer(put(&[&segment("t1", "a")]));
    let before = json_of(&get(&sandbox, "/api/traces"))["revision"].clone();
    assert_eq!(sandbox.answer(from_page("DELETE", "/api/traces", "")).status(), 200);
    let after = json_of(&get(&sandbox, &format!("/api/traces?since={before}")));
    assert_eq!((&after["gone"], &after["store"]["trace_count"]), (&json!(true), &json!(0)));
}

#[test]
fn rules_are_edited_as_a_list() {
    let sandbox = Sandbox::new(credentials());
    let mut list = json_of(&get(&sandbox, "/api/sampling-rules"));
    assert_eq!(list["rules"][0]["RuleName"], "Default");
    let mut mine = list["rules"][0].clone();
    mine["RuleName"] = json!("mine");
    mine["Priority"] = json!(1);
    mine["FixedRate"] = json!(1.0);
    list["rules"].as_array_mut().unwrap().push(mine);
    let put =
        |list: &Value| sandbox.answer(from_page("PUT", "/api/sampling-rules", &list.to_string()));
    let answer = json_of(&put(&list));
    assert_eq!(
        (&answer["rules"][0]["RuleName"], &answer["rules"][1]["RuleName"]),
        (&json!("mine"), &json!("Default"))
    );
    let rules = json_of(&sandbox.answer(request("POST", "/GetSamplingRules", "{}")));
    assert_eq!(rules["SamplingRuleRecords"][0]["SamplingRule"]["FixedRate"], 1.0);
    list["rules"].as_array_mut().unwrap().remove(0);
    for bad in [list, json!({"rules": []}), json!({"rules": [{}]}), json!([])] {
        assert_eq!(failure(&put(&bad)).0, 400, "{bad}");
    }
    let after = json_of(&get(&sandbox, "/api/sampling-rules"));
    assert_eq!((&after["rules"], &after["reported"]), (&answer["rules"], &json!({})));
}

#[test]
fn the_page_gets_the_addresses_and_credentials() {
    let about = About {
        udp_address: "127.0.0.1:2000".to_owned(),
        tcp_address: "127.0.0.1:2001".to_owned(),
        otlp_http_address: Some("127.0.0.1:4318".to_owned()),
        otlp_grpc_address: None,
        region: "eu-west-1".to_owned(),
        own_hosts: Vec::new(),
    };
    let sandbox = Sandbox::with(credentials(), about, Limits::default());
    assert_eq!(
        json_of(&get(&sandbox, "/api/info")),
        json!({"version": env!("CARGO_PKG_VERSION"), "udp_address": "127.0.0.1:2000",
            "tcp_address": "127.0.0.1:2001", "region": "eu-west-1", "access_key_id": "AKIDEXAMPLE",
            "otlp_endpoint": "http://127.0.0.1:4318", "otlp_grpc_address": null,
            "secret_access_key": "secret"})
    );
}

#[test]
fn the_addresses_are_shown_in_the_form_that_every_sdk_reads() {
    let with = |udp: &str| About {
        udp_address: udp.to_owned(),
        tcp_address: "127.0.0.1:2000".to_owned(),
        ..About::default()
    };
    assert_eq!(with("127.0.0.1:2000").daemon_address(), "127.0.0.1:2000");
    let both = "\"tcp:127.0.0.1:2000 udp:127.0.0.1:2001\"";
    assert_eq!(with("127.0.0.1:2001").daemon_address(), both);
    // The port for OTLP is taken.
    assert_eq!(with("127.0.0.1:2000").otlp_endpoint(), "http://127.0.0.1:2000");
}

#[test]
fn no_other_page_may_look_or_change_anything() {
    let sandbox = Sandbox::new(credentials());
    sandbox.answer(put(&[&segment("t1", "a")]));
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/api/traces"),
        ("GET", "/traces"),
        ("DELETE", "/api/traces"),
        ("PUT", "/api/sampling-rules"),
        ("POST", "/TraceSegments"),
        ("POST", "/GetSamplingRules"),
    ] {
        for (name, value) in [
            ("host", "rebound.example:1"),
            ("origin", "http://localhost:3000"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
        ] {
            let mut request = from_page(method, path, "{}");
            request.headers_mut().insert(name, value.parse().unwrap());
            let (parts, _) = request.clone().into_parts();
            let refused = sandbox.refuse(&parts).unwrap();
            assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{method} {path} {name}");
            let refused = failure(&sandbox.answer(request));
            assert_eq!(refused, (403, "AccessDeniedException".to_owned()), "{method} {path}");
        }
    }
    // A content type that an HTML form can send is refused, even from the sandbox's own page.
    let mut form = from_page("PUT", "/api/sampling-rules", r#"{"rules":[]}"#);
    form.headers_mut().insert(CONTENT_TYPE, "text/plain".parse().unwrap());
    assert_eq!(failure(&sandbox.answer(form)).0, 400);
    assert_eq!(sandbox.status().trace_count, 1);
}
