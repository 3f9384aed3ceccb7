//! Tests of the page's search, of what was refused, and of the requests that were not sampled.

use super::page_requests::{from_page, get};
use super::*;

fn put_named(sandbox: &Sandbox, trace: &str, more: &Value) {
    let mut document: Value = serde_json::from_str(&segment(trace, "a")).unwrap();
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    sandbox.answer(put(&[&document.to_string()]));
}

fn search(sandbox: &Sandbox, text: &str, since: u64) -> Value {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("q", text)
        .append_pair("since", &since.to_string())
        .finish();
    json_of(&get(sandbox, &format!("/api/search?{query}")))
}

#[test]
fn a_search_finds_words_and_expressions_and_says_what_is_wrong() {
    let sandbox = Sandbox::new(credentials());
    put_named(&sandbox, "t1", &json!({"annotations": {"customer": "new"}}));
    let sql = json!({"id": digits("s", 16), "name": "db", "start_time": 1.0, "end_time": 1.1,
        "sql": {"sanitized_query": "SELECT cups"}});
    put_named(&sandbox, "t2", &json!({"subsegments": [sql], "fault": true}));
    let (t1, t2) = (json!(trace_id("t1")), json!(trace_id("t2")));
    for (text, mode, matched) in [
        ("", "nothing", json!([])),
        ("shop", "words", json!([t2, t1])),
        ("cups", "words", json!([t2])),
        ("cups saucers", "words", json!([])),
        ("annotation.customer", "expression", json!([t1])),
        (r#"annotation.customer = "new""#, "expression", json!([t1])),
        ("fault", "expression", json!([t2])),
        ("annotation.customer =", "broken", json!([])),
        ("rootcause.fault.service", "broken", json!([])),
    ] {
        let answer = search(&sandbox, text, 0);
        assert_eq!((&answer["mode"], &answer["matched"]), (&json!(mode), &matched), "{text}");
        assert_eq!(answer["problem"].is_null(), mode != "broken", "{text}");
    }
    let answer = search(&sandbox, "cups", 0);
    let hit = &answer["hits"][trace_id("t2")];
    assert_eq!((&hit["kind"], &hit["word"]), (&json!("sql"), &json!("cups")));
    for (text, begun) in [
        ("respon", json!("responsetime")),
        ("responder", json!(null)),
        ("sho", json!(null)),
        ("annotation.cust", json!("annotation.customer")),
        ("duration > 0 AND annotation.c", json!("annotation.customer")),
        ("annotation.x", json!(null)),
    ] {
        assert_eq!(search(&sandbox, text, 0)["begun"], begun, "{text}");
    }
    // Only the traces that changed later.
    let revision = answer["revision"].as_u64().unwrap();
    assert_eq!(search(&sandbox, "shop", revision)["matched"], json!([]));
    put_named(&sandbox, "t3", &json!({}));
    assert_eq!(search(&sandbox, "shop", revision)["matched"], json!([trace_id("t3")]));
    assert_eq!(search(&sandbox, "shop", 1)["gone"], json!(true));
    assert_eq!(get(&sandbox, "/api/search?q=a&since=x").status(), 400);
}

#[test]
fn refused_documents_are_listed_and_named_at_their_trace_until_they_are_forgotten() {
    let sandbox = Sandbox::new(credentials());
    let bad = segment("t1", "b").replace("shop", "Query()");
    let alone = segment("t2", "c").replace("end_time", "end");
    sandbox.answer(put(&[&segment("t1", "a"), &bad, "no json", &alone]));
    let answer = json_of(&get(&sandbox, "/api/refused"));
    assert_eq!(answer["count"], 3);
    let kinds = answer["kinds"].as_array().unwrap();
    let codes: Vec<_> = kinds.iter().map(|kind| kind["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["MissingEndTime", "ParseError", "InvalidName"]);
    let sample = &kinds[2]["samples"][0];
    assert_eq!((&sample["field"], &sample["value"]), (&json!("name"), &json!("Query()")));
    assert_eq!((&sample["start"], &sample["trace_id"]), (&json!(bad), &json!(trace_id("t1"))));
    assert!(sample["mend"].as_str().unwrap().contains("\"Query\""));
    assert_eq!(json_of(&get(&sandbox, "/api/traces"))["refused_count"], 3);
    let trace = json_of(&get(&sandbox, &format!("/api/traces/{}", trace_id("t1"))));
    assert_eq!(trace["documents"].as_array().unwrap().len(), 1);
    assert_eq!(trace["refused"][0]["code"], "InvalidName");
    assert_eq!(trace["refused"][0]["id"], digits("b", 16));
    // Of this trace, no document was taken.
    let trace = json_of(&get(&sandbox, &format!("/api/traces/{}", trace_id("t2"))));
    assert_eq!(
        (&trace["documents"], trace["refused"].as_array().unwrap().len()),
        (&Value::Null, 1)
    );
    let mut foreign = from_page("DELETE", "/api/refused", "");
    foreign.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
    assert_eq!(sandbox.answer(foreign).status(), 403);
    assert_eq!(sandbox.answer(from_page("DELETE", "/api/refused", "")).status(), 200);
    assert_eq!(json_of(&get(&sandbox, "/api/refused"))["count"], 0);
    assert_eq!(get(&sandbox, &format!("/api/traces/{}", trace_id("t2"))).status(), 404);
}

#[test]
fn a_trace_says_that_documents_were_replaced_or_evicted() {
    let limits = Limits { trace_document_count_max: 2, ..Limits::default() };
    let sandbox = Sandbox::with(credentials(), About::default(), limits);
    let longer = segment("t1", "a").replace("1.25", "1.75");
    sandbox.answer(put(&[&longer, &segment("t1", "a"), &segment("t1", "b"), &segment("t1", "c")]));
    let trace = json_of(&get(&sandbox, &format!("/api/traces/{}", trace_id("t1"))));
    assert_eq!(
        (&trace["replaced_document_count"], &trace["evicted_document_count"]),
        (&json!(1), &json!(1))
    );
}

#[test]
fn requests_that_were_not_sampled_are_counted_until_all_traces_are_deleted() {
    let sandbox = Sandbox::new(credentials());
    let rules = json_of(&sandbox.answer(request("POST", "/GetSamplingRules", "{}")));
    let rate = &rules["SamplingRuleRecords"][0]["SamplingRule"]["FixedRate"];
    assert_eq!(rate, &json!(1.0));
    let documents = json!([{"RuleName": "Default", "ClientID": "a", "Timestamp": 1.0,
        "RequestCount": 30, "SampledCount": 7, "BorrowCount": 1}]);
    let body = json!({"SamplingStatisticsDocuments": documents}).to_string();
    assert_eq!(sandbox.answer(request("POST", "/SamplingTargets", &body)).status(), 200);
    let count = |sandbox: &Sandbox| {
        json_of(&get(sandbox, "/api/traces"))["unsampled_request_count"].as_u64().unwrap()
    };
    assert_eq!(count(&sandbox), 23);
    let rules = json_of(&get(&sandbox, "/api/sampling-rules"));
    assert_eq!(rules["reported"]["Default"], json!({"request_count": 30, "sampled_count": 7}));
    sandbox.answer(from_page("DELETE", "/api/traces", ""));
    assert_eq!(count(&sandbox), 0);
    let service = Sandbox::new(credentials()).with_sampling(Sampling::Service);
    let rules = json_of(&get(&service, "/api/sampling-rules"));
    assert_eq!(rules["rules"][0]["FixedRate"], 0.05);
}
