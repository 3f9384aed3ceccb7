//! Tests of the demo: its form, its story, and what its trees show.

use super::super::filter::Expression;
use super::super::summary::Summary;
use super::super::tree::{self, Colours};
use super::trace::ORIGIN;
use super::*;
use crate::model::document::{DOCUMENT_SIZE_BYTES_MAX, Document};
use crate::model::forest::Forest;
use crate::model::span::{self, Content};
use crate::model::store::{Limits, Moment, Snapshot, Store};
use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

const NOW_SECONDS: u64 = 1_700_000_000;

fn documents() -> Vec<Document> {
    let datagrams = datagrams(UNIX_EPOCH + Duration::from_secs(NOW_SECONDS));
    let parse = |datagram: &Vec<u8>| {
        let text = std::str::from_utf8(datagram).unwrap();
        let (header, document) = text.split_once('\n').unwrap();
        assert_eq!(header, r#"{"format":"json","version":1}"#);
        assert!(text.len() < DOCUMENT_SIZE_BYTES_MAX);
        match span::read_datagram(document) {
            Some(Ok(Content::Spans(spans))) => spans.documents,
            _ => vec![Document::parse(document).unwrap()],
        }
    };
    assert!(datagrams.len() <= 30, "{}", datagrams.len());
    datagrams.iter().flat_map(parse).collect()
}

/// Returns the traces of the demo, in the order of their starts.
fn traces() -> Vec<Snapshot> {
    let mut store = Store::new(Limits::default(), 1);
    for document in documents() {
        store.insert(document, Moment { arrival: Instant::now(), wall_seconds: 0.0 });
    }
    let mut traces = store.all();
    traces.sort_by(|one, other| {
        Summary::of(one).start_time.total_cmp(&Summary::of(other).start_time)
    });
    traces
}

/// Returns how many traces of the demo an expression finds.
fn found(expression: &str) -> usize {
    let expression = Expression::parse(expression).unwrap();
    traces().iter().filter(|trace| expression.is_true_of(&Summary::of(trace))).count()
}

/// Returns the tree of the trace of this request, without its first line.
fn below(request: &str) -> String {
    let trees = traces();
    let trees = trees.iter().map(|it| tree::render(&it.id, &it.documents, Colours::Off));
    let mut found = trees.filter(|tree| tree.lines().nth(1).unwrap().contains(request));
    found.next_back().unwrap().split_once('\n').unwrap().1.to_owned()
}

#[test]
fn there_are_a_dozen_traces_of_the_last_minute_in_the_form_of_the_service() {
    assert_eq!(traces().len(), TRACE_COUNT);
    for document in &documents() {
        let parts: Vec<&str> = document.trace_id.split('-').collect();
        assert_eq!((parts[0], parts[2].len(), document.id.len()), ("1", 24, 16));
        let start = u64::from_str_radix(parts[1], 16).unwrap();
        assert!((NOW_SECONDS - 60..NOW_SECONDS).contains(&start), "{}", document.trace_id);
        let end = document.end_time.unwrap_or(document.start_time);
        assert!(document.start_time <= end && end <= 1_700_000_000.0);
    }
}

#[test]
fn the_shop_is_one_service_on_two_hosts() {
    let documents = documents();
    let shop = || documents.iter().filter(|document| document.name == "shop.example");
    assert!(shop().all(|it| &*it.facts.parts[0].type_name == ORIGIN));
    let hosts: BTreeSet<&str> = shop().filter_map(|it| it.facts.instance_id.as_deref()).collect();
    assert_eq!(hosts.len(), 2);
}

#[test]
fn every_call_has_fresh_ids() {
    let ids: HashSet<String> =
        (0..20).flat_map(|_| documents()).map(|document| document.trace_id).collect();
    assert_eq!(ids.len(), 20 * TRACE_COUNT);
}

#[test]
fn each_kind_of_trouble_is_there_and_the_filters_of_the_guide_find_it() {
    assert_eq!(found("fault"), 1);
    assert_eq!(found("throttle"), 1);
    assert_eq!(found("error AND http.status = 404"), 1);
    assert_eq!(found("responsetime > 1"), 1);
    assert_eq!(found(r#"service("shop.example") { fault }"#), 1);
    assert_eq!(found(r#"edge("shop.example", "payments") { fault }"#), 1);
    assert_eq!(found(r#"service("recommendations")"#), 1);
    assert_eq!(found(r#"service("order-worker")"#), 1);
    assert_eq!(found(r#"annotation.customer = "returning""#), 3);
    assert_eq!(found("annotation.attempts = 2"), 1);
    let open = traces().iter().filter(|trace| Summary::of(trace).in_progress).count();
    assert_eq!(open, 1);
}

#[test]
fn every_trace_is_one_tree() {
    for trace in traces() {
        let forest = Forest::of(&trace.documents);
        let roots = forest.nodes.iter().filter(|node| node.parent.is_none()).count();
        assert_eq!((roots, forest.skewed_count), (1, 0), "{}", forest.nodes[0].name);
    }
}

#[test]
fn the_trees_show_what_each_trace_is_about() {
    let expected = "\
└─ shop.example  373 ms  POST /orders 502  fault
   ├─ DynamoDB  7.0 ms  200  GetItem carts
   ├─ inventory  46 ms  POST /reservations 201
   │  └─ inventory  36 ms  POST /reservations 201
   │     └─ stock@inventory-db  28 ms  UPDATE stock SET reserved = reserved + ? WHERE item = ?
   ├─ payments  306 ms  POST /charge 500  fault
   │  └─ payments  291 ms  POST /charge 500  fault  CardDeclined: the card issuer did not answer
   │     ├─ fraud check  19 ms
   │     │  └─ DynamoDB  13 ms  200  GetItem scores
   │     └─ issuer.example  251 ms  POST /authorize  fault
   └─ render the error  4.0 ms";
    assert_eq!(below("POST /orders 502"), expected);
    let expected = "\
└─ shop.example  61 ms  POST /orders 202
   └─ SQS  32 ms  200  SendMessage orders
      └─ order-worker  301 ms
         ├─ payments  196 ms  POST /charge 200
         │  └─ payments  183 ms  POST /charge 200
         │     └─ ledger@payments-db  43 ms  INSERT INTO ledger (order_id, amount) VALUES (?, ?)
         └─ S3  67 ms  200  PutObject receipts";
    assert_eq!(below("POST /orders 202"), expected);
    let expected = "\
└─ shop.example  229 ms  GET /items/42 200
   └─ recommendations  196 ms  GET /for/42 200
      └─ recommendations  181 ms  GET /for/42 200
         ├─ recommend@recommend-db  43 ms  SELECT item FROM seen WHERE customer = $1
         └─ rank  92 ms  fault  ModelTimeout: no answer within 90 ms";
    assert_eq!(below("GET /items/42 200"), expected);
    let throttled = below("PUT /cart 429");
    assert!(throttled.starts_with("└─ shop.example  171 ms  PUT /cart 429  throttle\n"));
    assert!(
        throttled.contains("   └─ DynamoDB  155 ms  400  PutItem carts  throttle  Provisioned")
    );
    assert!(below("in progress").starts_with("└─ shop.example  in progress  POST /reports\n"));
}
