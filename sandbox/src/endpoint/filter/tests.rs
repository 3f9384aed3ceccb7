//! Tests of filter expressions: parsing, formatting, error positions, and evaluation.

use super::*;
use crate::endpoint::summary::Summary;
use crate::model::document::Document;
use crate::model::store::Snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

fn parse(text: &str) -> Expression {
    Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn trace(values: &[Value]) -> Snapshot {
    let document = |value: &Value| Arc::new(Document::unchecked(&value.to_string()));
    let documents = values.iter().map(document).collect();
    let id = "1-581cf771-a006649127e371903a2de979".into();
    Snapshot {
        id,
        revision: 1,
        updated_at: 0.0,
        evicted_document_count: 0,
        replaced_document_count: 0,
        documents,
    }
}

/// Returns a trace of a shop that answers 404 after 2 s. The shop calls an inventory, which fails,
/// and a table, which throttles.
fn shop() -> Snapshot {
    trace(&[
        json!({"id": "00000000000000a1", "name": "shop", "origin": "AWS::EC2::Instance",
        "start_time": 10.0, "end_time": 12.0, "error": true, "user": "ann",
        "resource_arn": "arn:aws:ec2:eu-west-1:1:instance/i-07",
        "aws": {"ec2": {"instance_id": "i-07", "availability_zone": "eu-west-1b"}},
        "annotations": {"game": "ABC", "age": 30, "paid": true, "free": false, "a.b": "dot"},
        "http": {"request": {"url": "http://shop.example/v2/cart?x=1", "method": "GET",
            "user_agent": "curl/8", "client_ip": "10.0.0.7"}, "response": {"status": 404}},
        "subsegments": [
            {"id": "00000000000000b1", "name": "inventory.internal", "namespace": "remote",
                "start_time": 10.1, "end_time": 11.6, "http": {"response": {"status": 502}}},
            {"id": "00000000000000b2", "name": "DynamoDB", "namespace": "aws", "error": true,
                "throttle": true, "start_time": 10.2, "end_time": 10.3},
        ]}),
        json!({"id": "00000000000000a2", "name": "inventory", "parent_id": "00000000000000b1",
            "start_time": 10.2, "end_time": 15.0, "fault": true, "user": "bob",
            "annotations": {"game": "XYZ"}}),
    ])
}

fn is_true(text: &str, trace: &Snapshot) -> bool {
    parse(text).is_true_of(&Summary::of(trace))
}

#[test]
fn a_trace_matches_expressions_that_are_true() {
    let trace = shop();
    for text in [
        "error",
        "!fault",
        "error = true",
        "fault = false",
        "fault != true",
        "!ok",
        "throttle",
        "NOT partial",
        "responsetime = 2",
        "responsetime >= 2 AND responsetime <= 2",
        "duration = 5",
        "availabilityzone = \"eu-west-1b\"",
        "instance.id = \"i-07\"",
        "resource.arn ENDSWITH \"/i-07\"",
        "duration > 4.9",
        "duration < 5.1",
        "http.status = 404",
        "http.status != 200",
        "http.url BEGINSWITH \"http://shop.example/\"",
        "http.url CONTAINS '/v2/'",
        "http.url ENDSWITH \"x=1\"",
        "http.method = \"GET\"",
        "http.method != \"PUT\"",
        "http.useragent BEGINSWITH \"curl\"",
        "http.clientip = \"10.0.0.7\"",
        "user = \"ann\"",
        "user = \"bob\"",
        "user CONTAINS \"\"",
        "user != \"eve\"",
        "id = \"1-581cf771-a006649127e371903a2de979\"",
        "name = \"shop\"",
        "type = \"AWS::EC2::Instance\"",
        "annotation.game = \"ABC\"",
        "annotation.game = \"XYZ\"",
        "annotation.game CONTAINS \"B\"",
        "annotation[game] BEGINSWITH \"X\"",
        "annotation.age > 29",
        "annotation.age != 31",
        "annotation.age != \"x\"",
        "annotation.age",
        "annotation.paid",
        "annotation.paid = true",
        "annotation.paid != false",
        "!annotation.free",
        "annotation.free = false",
        "annotation[a.b] = \"dot\"",
        "annotation[\"a.b\"] = \"dot\"",
        "annotation.a.b = \"dot\"",
        "!annotation.none",
    ] {
        assert!(is_true(text, &trace), "{text}");
    }
}

#[test]
fn a_trace_matches_expressions_about_services_and_calls() {
    let trace = shop();
    for text in [
        "service(\"shop\")",
        "service()",
        "service(\"shop\") { error }",
        "service(\"inventory\") { fault = true }",
        "service() { fault }",
        "service(\"DynamoDB\") { throttle }",
        "!service(\"other\")",
        "service(id(name: \"shop\", type: \"AWS::EC2::Instance\"))",
        "service(id(type: \"AWS::DynamoDB\")) { error AND responsetime < 0.2 }",
        "service(id(name: \"shop\", account.id: \"1\")) { annotation.age > 29 AND user = \"ann\" }",
        "service(\"inventory\") { responsetime > 4.7 }",
        "service(\"shop\") { instance.id BEGINSWITH \"i-\" }",
        "edge(\"shop\", \"inventory\")",
        "edge(\"shop\", \"inventory\") { http.status = 502 }",
        "edge(\"shop\") { throttle }",
        "edge() { responsetime < 0.2 }",
        "edge(\"shop\", id(type: \"AWS::DynamoDB\")) { error }",
        "edge(id(type: \"client\"), \"shop\") { error }",
        "error !partial duration <6",
        "(ok OR error) AND (fault OR service(\"inventory\") { fault })",
        "ok OR fault OR error",
        "error and not fault",
        "http.status>=400 and http.status<500",
    ] {
        assert!(is_true(text, &trace), "{text}");
    }
}

#[test]
fn a_trace_does_not_match_expressions_that_are_false() {
    let trace = shop();
    for text in [
        "ok",
        "fault",
        "partial",
        "error = false",
        "responsetime > 2",
        "duration != 5",
        "http.status = 200",
        "http.url = \"http://shop.example/\"",
        "http.method = \"get\"",
        "user = \"eve\"",
        "availabilityzone = \"eu-west-1a\"",
        "service(\"inventory\") { instance.id = \"i-07\" }",
        "user != \"bob\"",
        "annotation.none",
        "annotation.none != \"x\"",
        "annotation.none != 1",
        "annotation.free",
        "annotation.age > 30",
        "annotation.age = \"30\"",
        "annotation.game > 1",
        "annotation.game = true",
        "annotation.game != \"XYZ\"",
        "service(\"other\")",
        "service(\"shop\") { fault }",
        "service(\"inventory\") { error }",
        "service(id(name: \"shop\", type: \"remote\"))",
        "service(\"inventory.internal\")",
        "edge(\"inventory\", \"shop\")",
        "edge(\"shop\", \"inventory\") { responsetime > 2 }",
        "service(\"inventory\") { user = \"ann\" }",
        "service(\"DynamoDB\") { annotation.age }",
        "error AND ok",
        "error ok",
        "ok OR fault AND error",
        "!(error)",
        "!!fault",
    ] {
        assert!(!is_true(text, &trace), "{text}");
    }
}

#[test]
fn a_trace_without_a_field_matches_no_comparison_of_the_field() {
    let open = trace(&[json!({"name": "n", "start_time": 1.0, "in_progress": true})]);
    for text in [
        "responsetime > 0",
        "responsetime <= 0",
        "duration != 7",
        "http.status != 200",
        "http.url != \"x\"",
        "user != \"x\"",
    ] {
        assert!(!is_true(text, &open), "{text}");
    }
    assert!(is_true("partial AND ok", &open));
    let rootless = trace(&[json!({"name": "n", "start_time": 1.0, "type": "subsegment"})]);
    assert!(!is_true("error OR responsetime > 0 OR name = \"n\"", &rootless));
    let redirect = trace(&[json!({"name": "n", "http": {"response": {"status": 302}}})]);
    assert!(is_true("!ok !error !fault", &redirect));
}

#[test]
fn and_binds_more_tightly_than_or_and_not_more_than_both() {
    let flag = |flag| Expression::Test(Test::Flag(flag, true));
    let not = |inner| Expression::Not(Box::new(inner));
    assert_eq!(
        parse("ok OR error AND NOT fault throttle OR partial"),
        Expression::Any(vec![
            flag(Flag::Ok),
            Expression::All(vec![flag(Flag::Error), not(flag(Flag::Fault)), flag(Flag::Throttle)]),
            flag(Flag::Partial),
        ])
    );
    assert_eq!(parse("(ok AND (error fault))"), parse("ok error fault"));
}

#[test]
fn an_error_has_its_position() {
    for (text, position, problem) in [
        ("", 1, "a keyword is missing"),
        ("   ", 4, "a keyword is missing"),
        ("okay", 1, "\"okay\" is not a known keyword"),
        ("ok AND", 7, "a keyword is missing"),
        ("ok )", 4, "unexpected text after the expression"),
        ("(ok", 4, ") is missing"),
        ("ok = maybe", 6, "true or false is missing"),
        ("duration", 9, "=, !=, <, <=, > or >= is missing"),
        ("duration > soon", 12, "a number is missing"),
        ("duration > inf", 12, "a number is missing"),
        ("duration > 1e999", 12, "a number is missing"),
        ("http.url = cart", 12, "a text in quotation marks is missing"),
        ("http.url > \"x\"", 10, "CONTAINS, BEGINSWITH or ENDSWITH is missing"),
        ("http.url = \"größe", 12, "the closing quotation mark is missing"),
        ("user = \"größe\" AND x", 20, "\"x\" is not a known keyword"),
        ("annotation", 11, "the key of the annotation is missing"),
        ("annotation.", 12, "the key of the annotation is missing"),
        ("annotation[] = 1", 13, "the key of the annotation is missing"),
        ("annotation[x = 1", 17, "] is missing"),
        ("annotation.x = y", 16, "a value is missing"),
        ("annotation.x CONTAINS 1", 23, "a text in quotation marks is missing"),
        ("service", 8, "( is missing"),
        ("service(shop)", 9, "a text in quotation marks is missing"),
        ("service(\"a\", \"b\")", 12, ") is missing"),
        ("edge(\"a\" \"b\")", 10, ", is missing"),
        ("service() { fault", 18, "} is missing"),
        ("service() {}", 12, "a keyword is missing"),
        ("service() { service() }", 13, "service is not allowed inside braces"),
        ("service(id(host: \"x\"))", 12, "name:, type: or account.id: is missing"),
        ("group.name = \"x\"", 1, "the sandbox does not have group.name"),
    ] {
        let error = Expression::parse(text).unwrap_err();
        assert_eq!(error.position, position, "{text}: {error}");
        assert!(error.to_string().contains(problem), "{text}: {error}");
        assert!(error.to_string().contains(&format!("at character {position}:")), "{error}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    for (open, close) in [("(", ")"), ("!", ""), ("NOT ", "")] {
        let nested = |depth: usize| format!("{}ok{}", open.repeat(depth), close.repeat(depth));
        assert!(Expression::parse(&nested(DEPTH_MAX)).is_ok());
        let error = Expression::parse(&nested(DEPTH_MAX + 1)).unwrap_err();
        assert!(error.problem.contains("32 levels"), "{error}");
        let endless = open.repeat(LENGTH_MAX / open.len());
        assert!(Expression::parse(&endless).is_err());
    }
    let wide = "ok ".repeat(LENGTH_MAX / 3);
    let Expression::All(parts) = parse(&wide) else { panic!("a list") };
    assert_eq!(parts.len(), LENGTH_MAX / 3);
    assert!(Expression::parse(&"ok ".repeat(LENGTH_MAX)).unwrap_err().problem.contains("4096"));
}

fn one_of<T: Copy + std::fmt::Debug>(table: &'static [(&'static str, T)]) -> BoxedStrategy<T> {
    prop::sample::select(table).prop_map(|(_, value)| value).boxed()
}

fn number() -> impl Strategy<Value = f64> {
    prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL
}

fn selector() -> impl Strategy<Value = Selector> {
    (prop::option::of(".{0,8}"), prop::option::of(".{0,8}"))
        .prop_map(|(name, type_name)| Selector { name, type_name })
}

fn simple() -> impl Strategy<Value = Test> {
    let annotation = prop_oneof![
        any::<bool>().prop_map(AnnotationTest::Flag),
        (one_of(COMPARISONS), number()).prop_map(|(it, number)| AnnotationTest::Number(it, number)),
        (one_of(TEXT_COMPARISONS), ".{0,8}").prop_map(|(it, text)| AnnotationTest::Text(it, text)),
    ];
    prop_oneof![
        (one_of(FLAGS), any::<bool>()).prop_map(|(flag, is_set)| Test::Flag(flag, is_set)),
        (one_of(NUMBERS), one_of(COMPARISONS), number())
            .prop_map(|(field, it, number)| Test::Number(field, it, number)),
        (one_of(TEXTS), one_of(TEXT_COMPARISONS), ".{0,8}")
            .prop_map(|(field, it, text)| Test::Text(field, it, text)),
        (".{1,8}", prop::option::of(annotation)).prop_map(|(key, it)| Test::Annotation(key, it)),
    ]
}

fn nested(test: BoxedStrategy<Test>) -> BoxedStrategy<Expression> {
    let leaf = test.prop_map(Expression::Test);
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::all),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::any),
            inner.prop_map(|inner| Expression::Not(Box::new(inner))),
        ]
    })
    .boxed()
}

fn expression() -> BoxedStrategy<Expression> {
    let filter = || prop::option::of(nested(simple().boxed()).prop_map(Box::new));
    let test = prop_oneof![
        4 => simple(),
        1 => (selector(), filter()).prop_map(|(service, it)| Test::Service(service, it)),
        1 => (selector(), selector(), filter())
            .prop_map(|(source, target, it)| Test::Edge(source, target, it)),
    ];
    nested(test.boxed())
}

proptest! {
    #[test]
    fn an_expression_is_read_as_it_was_written(expression in expression()) {
        let text = expression.to_string();
        if text.len() <= LENGTH_MAX {
            prop_assert_eq!(Expression::parse(&text), Ok(expression), "{}", text);
        }
    }

    #[test]
    fn no_text_ends_in_a_panic(
        text in "(service|edge|annotation|id|name|http\\.url|ok|AND|OR|NOT|[\"'(){}\\[\\],:.!=<>0-9é \\\\]){0,30}",
    ) {
        if let Err(error) = Expression::parse(&text) {
            prop_assert!(error.position <= text.chars().count() + 1);
        }
    }

    #[test]
    fn no_expression_and_no_trace_end_in_a_panic(expression in expression()) {
        let _ = expression.is_true_of(&Summary::of(&shop()));
        let _ = expression.is_true_of(&Summary::of(&trace(&[])));
    }
}
