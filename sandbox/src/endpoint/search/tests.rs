//! Tests of the search: what a text means, and where words are found.

use super::*;
use crate::model::document::Document;
use crate::model::store::Snapshot;
use serde_json::{Value, json};
use std::sync::Arc;

fn meaning(text: &str) -> &'static str {
    match Query::of(text) {
        Query::Nothing => "nothing",
        Query::Expression(_) => "expression",
        Query::Broken(_) => "broken",
        Query::Words(..) => "words",
    }
}

#[test]
fn expressions_are_told_from_words() {
    for (text, expected) in [
        ("", "nothing"),
        ("  ", "nothing"),
        (r#"service("api") AND fault"#, "expression"),
        ("responsetime > 0.5", "expression"),
        ("fault", "expression"),
        ("error OR throttle", "expression"),
        (r#"annotation.user = "x""#, "expression"),
        ("annotation.customer", "expression"),
        ("annotation[customer]", "expression"),
        ("!ok", "expression"),
        ("NOT fault", "expression"),
        (r#"http.url CONTAINS "/a""#, "expression"),
        (r#"service("a")"#, "expression"),
        ("(fault)", "expression"),
        ("payment error", "words"),
        ("error in payment", "words"),
        ("/orders?a=b", "words"),
        ("size=large", "words"),
        ("name", "words"),
        ("user ana", "words"),
        ("serviceable", "words"),
        ("service", "words"),
        ("not found", "words"),
        ("\"fault\"", "words"),
        ("(", "words"),
        ("card_declined", "words"),
    ] {
        assert_eq!(meaning(text), expected, "{text}");
    }
}

#[test]
fn a_half_typed_expression_is_a_broken_one_and_not_words() {
    for whole in [
        r#"annotation.customer = "returning""#,
        "responsetime > 0.5",
        r#"http.url CONTAINS "/cart""#,
    ] {
        let keyword_end = whole.find(' ').unwrap();
        for end in keyword_end..whole.len() {
            assert_ne!(meaning(&whole[..end]), "words", "{}", &whole[..end]);
        }
        assert_eq!(meaning(whole), "expression");
        for end in 1..keyword_end {
            // The first letters of a keyword are words until more is there. The page keeps its list
            // if it finds nothing.
            let Query::Words(_, keyword) = Query::of(&whole[..end]) else { continue };
            assert!(keyword.is_some(), "{}", &whole[..end]);
        }
    }
    for (text, problem) in [
        ("duration > > 2", "a number is missing"),
        ("user =", "quotation marks"),
        ("service(\"shop\"", ") is missing"),
        ("fault AND", "a keyword is missing"),
        ("annotation.", "key of the annotation"),
        ("rootcause.fault.service = \"a\"", "does not have rootcause"),
        ("group.name = \"a\"", "does not have group.name"),
        ("coverage > 0.5", "no root causes"),
        ("size = \"large\"", "write annotation.size"),
        ("size > 3", "write annotation.size"),
    ] {
        let Query::Broken(error) = Query::of(text) else { panic!("{text}: {}", meaning(text)) };
        assert!(error.to_string().contains(problem), "{text}: {error}");
    }
}

fn trace(value: &Value) -> Snapshot {
    Snapshot {
        id: "1-581cf771-a006649127e371903a2de979".into(),
        revision: 1,
        updated_at: 0.0,
        evicted_document_count: 0,
        replaced_document_count: 0,
        documents: vec![Arc::new(Document::unchecked(&value.to_string()))],
    }
}

fn found(text: &str, trace: &Snapshot) -> Option<Option<Hit>> {
    let Query::Words(words, _) = Query::of(text) else { panic!("{text} is not words") };
    find(&words, &Summary::of(trace))
}

#[test]
fn all_words_must_be_in_the_trace_and_a_hidden_one_is_shown() {
    let trace = trace(&json!({
        "name": "shop", "id": "70de5b6f19ff9a0a", "start_time": 1.0, "user": "ana",
        "http": {"request": {"method": "GET", "url": "http://h/tea"}, "response": {"status": 503}},
        "subsegments": [
            {"name": "Größe", "cause": {"exceptions": [
                {"type": "CardDeclined", "message": format!("{} the ISSUER said no", "x".repeat(99))}]}},
            {"name": "db", "sql": {"sanitized_query": "SELECT price FROM cups"}},
        ],
    }));
    for text in ["tea", "get TEA ana", "503", "SHOP", "a006649127", "70DE5B6F19FF9A0A"] {
        let hit = found(text, &trace).unwrap();
        assert!(hit.is_none_or(|hit| hit.kind == "user"), "{text}");
    }
    for text in ["cup tea coffee", "\"get ana\"", "a0066x", "70de5b6f19ff9a0b", "581"] {
        assert_eq!(found(text, &trace), None, "{text}");
    }
    let hit = found("tea issuer", &trace).unwrap().unwrap();
    assert_eq!((hit.kind, &*hit.word, &*hit.after), ("exception", "ISSUER", " said no"));
    assert!(hit.before.starts_with("…x") && hit.before.ends_with(" the "));
    let hit = found("CUPS", &trace).unwrap().unwrap();
    assert_eq!((hit.kind, &*hit.before, &*hit.word), ("sql", "SELECT price FROM ", "cups"));
    let hit = found("größe", &trace).unwrap().unwrap();
    assert_eq!((hit.kind, &*hit.word), ("name", "Größe"));
    assert_eq!(found("\"carddeclined: xx\"", &trace).unwrap().unwrap().kind, "exception");
}
