//! Tests of the service graph: its edges, its counts, and hostile links.

use super::*;
use std::sync::Arc;

fn trace(values: &[Value]) -> Snapshot {
    let document = |value: &Value| Arc::new(Document::unchecked(&value.to_string()));
    let documents = values.iter().map(document).collect();
    Snapshot {
        id: "t".into(),
        revision: 1,
        updated_at: 0.0,
        evicted_document_count: 0,
        replaced_document_count: 0,
        documents,
    }
}

fn id(number: u64) -> String {
    format!("{number:016x}")
}

/// Returns a segment that starts at 0 s and ends at 1 s, with the additional fields `more`.
fn segment(number: u64, name: &str, more: Value) -> Value {
    let mut value = json!({"id": id(number), "name": name, "start_time": 0.0, "end_time": 1.0});
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    value
}

/// Returns each edge as `name:type > name:type`, followed by the number of calls.
fn edges(services: &Value) -> Vec<String> {
    let list = services.as_array().unwrap();
    let label = |service: &Value| {
        format!("{}:{}", service["Name"].as_str().unwrap(), service["Type"].as_str().unwrap())
    };
    let by_id = |id: &Value| list.iter().find(|service| service["ReferenceId"] == *id).unwrap();
    let mut all = Vec::new();
    for service in list {
        for edge in service["Edges"].as_array().unwrap() {
            let count = &edge["SummaryStatistics"]["TotalCount"];
            all.push(format!(
                "{} > {} {count}",
                label(service),
                label(by_id(&edge["ReferenceId"]))
            ));
        }
    }
    all
}

#[test]
fn calls_lead_to_segments_or_to_services_without_segments() {
    let shop = segment(
        1,
        "shop",
        json!({"origin": "AWS::EC2::Instance", "subsegments": [
            segment(2, "stock.internal", json!({"namespace": "remote"})),
            segment(3, "local", json!({"subsegments": [
                segment(4, "DynamoDB", json!({"namespace": "aws", "aws": {"table_name": "carts"}}))]})),
        ]}),
    );
    let stock = segment(5, "stock", json!({"parent_id": id(2)}));
    let late = segment(
        6,
        "mail.internal",
        json!({"type": "subsegment", "parent_id": id(3), "namespace": "remote"}),
    );
    let deeper = segment(
        7,
        "S3",
        json!({"type": "subsegment", "parent_id": id(6),
            "namespace": "aws"}),
    );
    let services = services(&[trace(&[shop, stock, late, deeper])]);
    assert_eq!(
        edges(&services),
        [
            "shop:AWS::EC2::Instance > S3:AWS::S3 1",
            "shop:AWS::EC2::Instance > carts:AWS::DynamoDB::Table 1",
            "shop:AWS::EC2::Instance > mail.internal:remote 1",
            "shop:AWS::EC2::Instance > stock: 1",
            "shop:client > shop:AWS::EC2::Instance 1",
        ]
    );
    let state = |name: &str, type_name: &str| {
        let list = services.as_array().unwrap();
        let find = |it: &&Value| it["Name"] == name && it["Type"] == type_name;
        let service = list.iter().find(find).unwrap();
        (service["Root"].clone(), service["State"].clone())
    };
    assert_eq!(state("shop", "AWS::EC2::Instance"), (json!(true), json!("active")));
    assert_eq!(state("stock", ""), (json!(false), json!("active")));
    assert_eq!(state("carts", "AWS::DynamoDB::Table"), (json!(false), json!("unknown")));
    assert_eq!(state("shop", "client"), (json!(false), json!("unknown")));
}

#[test]
fn results_and_times_are_counted_once_each() {
    let ended = |number: u64, more: Value| segment(number, "shop", more);
    let traces: Vec<Snapshot> = [
        ended(1, json!({})),
        ended(2, json!({"end_time": 0.25, "error": true})),
        ended(3, json!({"error": true, "throttle": true})),
        ended(4, json!({"error": true, "fault": true, "end_time": 2.0})),
        ended(5, json!({"in_progress": true, "end_time": null})),
    ]
    .into_iter()
    .map(|value| trace(&[value]))
    .collect();
    let services = services(&traces);
    let shop = &services[0];
    assert_eq!(
        shop["SummaryStatistics"],
        json!({"OkCount": 1, "TotalCount": 4, "TotalResponseTime": 4.25,
            "ErrorStatistics": {"ThrottleCount": 1, "OtherCount": 1, "TotalCount": 2},
            "FaultStatistics": {"OtherCount": 1, "TotalCount": 1}})
    );
    assert_eq!(
        shop["ResponseTimeHistogram"],
        json!([{"Value": 0.25, "Count": 1}, {"Value": 1.0, "Count": 2}, {"Value": 2.0, "Count": 1}])
    );
    assert_eq!((&shop["StartTime"], &shop["EndTime"]), (&json!(0.0), &json!(2.0)));
    let client = &services[1];
    assert_eq!(client["Edges"][0]["SummaryStatistics"]["TotalCount"], 4);
    assert_eq!(client["SummaryStatistics"]["TotalCount"], 0);
    assert_eq!(client["EndTime"], 2.0);
}

#[test]
fn response_times_are_rounded_to_two_digits() {
    for (seconds, us) in [
        (0.0, 0),
        (0.000_009, 9),
        (0.000_123_4, 120),
        (0.000_125, 130),
        (0.998, 1_000_000),
        (12.3456, 12_000_000),
        (1e300, u64::MAX / 10_u64.pow(18) * 10_u64.pow(18)),
    ] {
        assert_eq!(rounded_us(seconds), us, "{seconds}");
    }
}

#[test]
fn a_caller_that_is_missing_is_not_a_client() {
    let services = services(&[trace(&[segment(1, "stock", json!({"parent_id": id(99)}))])]);
    assert_eq!(services.as_array().unwrap().len(), 1);
    assert_eq!((&services[0]["Root"], &services[0]["Edges"]), (&json!(false), &json!([])));
}

#[test]
fn rings_of_parents_lead_nowhere() {
    let sub = |number: u64, parent: u64| {
        segment(
            number,
            "x",
            json!({"type": "subsegment", "parent_id": id(parent), "namespace": "aws"}),
        )
    };
    let own = segment(9, "self", json!({"parent_id": id(9)}));
    let inner = segment(10, "in", json!({"parent_id": id(11), "subsegments": [{"id": id(11)}]}));
    for ring in [vec![sub(1, 1)], vec![sub(1, 2), sub(2, 1), sub(3, 2)], vec![own], vec![inner]] {
        assert_eq!(edges(&services(&[trace(&ring)])), Vec::<String>::new());
    }
    let pair = [
        segment(1, "a", json!({"parent_id": id(2)})),
        segment(2, "b", json!({"parent_id": id(1)})),
    ];
    assert_eq!(edges(&services(&[trace(&pair)])), ["a: > b: 1", "b: > a: 1"]);
}

#[test]
fn a_chain_of_ten_thousand_documents_is_followed_to_its_end() {
    let sub = |number: u64| {
        json!({"id": id(number), "type": "subsegment", "name": "x", "namespace": "remote",
            "parent_id": id(number + 1), "start_time": 0.0, "end_time": 1.0})
    };
    let mut chain: Vec<Value> = (1..10_000).map(sub).collect();
    chain.push(segment(10_000, "shop", json!({})));
    let trace = trace(&chain);
    assert_eq!(edges(&services(&[trace])), ["shop: > x:remote 9999", "shop:client > shop: 1"]);
}

#[test]
fn a_trace_is_within_a_time_that_it_touches() {
    let trace = trace(&[segment(1, "a", json!({"start_time": 10.0, "end_time": 12.0}))]);
    for (start, end, expected) in [
        (9.0, 9.9, false),
        (9.0, 10.0, true),
        (11.0, 11.5, true),
        (12.0, 20.0, true),
        (12.1, 20.0, false),
    ] {
        assert_eq!(is_within(&trace, start, end), expected, "{start} to {end}");
    }
}
