//! Tests of the sampling rules: allowed changes, and the quotas of clients.

use super::*;
use serde_json::{Value, json};

const NOW: f64 = 1_600_000_000.9;

fn rule(name: &str) -> Rule {
    Rule {
        rule_name: name.to_owned(),
        priority: 10,
        reservoir_size: 5,
        ..Rule::default_rule(Sampling::Service)
    }
}

fn ask(rules: &mut RuleSet, name: &str, client: &str, now: f64) -> Option<Target> {
    let (rule_name, client_id) = (name.to_owned(), client.to_owned());
    let asked = Statistics { rule_name, client_id, ..Statistics::default() };
    rules.target(&asked, now)
}

fn names(rules: &RuleSet) -> Vec<&str> {
    rules.all().iter().map(|rule| &*rule.rule_name).collect()
}

#[test]
fn at_first_there_is_the_default_rule_alone() {
    let rules = RuleSet::new(Sampling::Service);
    let records = serde_json::to_value(rules.records()).unwrap();
    let rule = &records[0]["SamplingRule"];
    assert_eq!((records.as_array().unwrap().len(), &rule["RuleName"]), (1, &json!("Default")));
    assert_eq!((&rule["FixedRate"], &rule["ReservoirSize"]), (&json!(0.05), &json!(1)));
    assert_eq!((&rule["Priority"], &rule["Version"]), (&json!(10_000), &json!(1)));
    for field in ["ResourceARN", "ServiceName", "ServiceType", "Host", "HTTPMethod", "URLPath"] {
        assert_eq!(rule[field], "*", "{field}");
    }
    assert!(rule["RuleARN"].as_str().unwrap().ends_with("/Default"));
    assert!(rules.modified_at() < NOW);
}

#[test]
fn rules_are_created_changed_and_deleted() {
    let mut rules = RuleSet::new(Sampling::Service);
    let first = Rule { priority: 1, ..rule("first") };
    rules.create(rule("second"), NOW).unwrap();
    let record = rules.create(first, NOW + 1.0).unwrap();
    assert_eq!((record.created_at, record.modified_at), (NOW + 1.0, NOW + 1.0));
    assert!(record.sampling_rule.rule_arn.ends_with("/first"));
    assert_eq!(names(&rules), ["first", "second", "Default"]);
    assert_eq!(rules.create(rule("first"), NOW), Err(RuleError::Twice("first".to_owned())));

    let arn = rules.records()[0].sampling_rule.rule_arn.clone();
    let update = Update { rule_arn: Some(arn), priority: Some(99), ..Update::default() };
    let record = rules.update(update, NOW + 2.0).unwrap();
    assert_eq!((record.created_at, record.modified_at), (NOW + 1.0, NOW + 2.0));
    assert_eq!((record.sampling_rule.priority, record.sampling_rule.reservoir_size), (99, 5));
    assert_eq!(names(&rules), ["second", "first", "Default"]);
    assert_eq!(rules.modified_at(), NOW + 2.0);

    assert_eq!(rules.delete(Some("first"), None, NOW + 3.0).unwrap().sampling_rule.priority, 99);
    assert_eq!(rules.delete(Some("first"), None, NOW), Err(RuleError::Unknown));
    assert_eq!(rules.delete(None, None, NOW), Err(RuleError::Unnamed));
    assert_eq!(rules.delete(Some("a"), Some("b"), NOW), Err(RuleError::Unnamed));
    assert_eq!(rules.modified_at(), NOW + 3.0);
}

#[test]
fn the_default_rule_stays_and_keeps_matching_everything() {
    let mut rules = RuleSet::new(Sampling::Service);
    let name = || Some("Default".to_owned());
    let update = Update { rule_name: name(), fixed_rate: Some(1.0), ..Update::default() };
    assert_eq!(rules.update(update, NOW).unwrap().sampling_rule.fixed_rate, 1.0);
    let update = Update { rule_name: name(), host: Some("x".to_owned()), ..Update::default() };
    assert_eq!(rules.update(update, NOW), Err(RuleError::DefaultMatchesAll));
    assert_eq!(rules.delete(Some("Default"), None, NOW), Err(RuleError::DefaultStays));
    assert_eq!(rules.replace(vec![rule("mine")], NOW), Err(RuleError::DefaultStays));
    assert_eq!(names(&rules), ["Default"]);
}

#[test]
fn a_field_out_of_its_bounds_is_named() {
    let long = |length: usize| "x".repeat(length);
    let mut rules = RuleSet::new(Sampling::Service);
    for (field, bad) in [
        ("RuleName", Rule { rule_name: String::new(), ..rule("a") }),
        ("RuleName", rule(&long(33))),
        ("RuleName", rule("<b>")),
        ("Priority", Rule { priority: 0, ..rule("a") }),
        ("Priority", Rule { priority: 10_000, ..rule("a") }),
        ("FixedRate", Rule { fixed_rate: 1.01, ..rule("a") }),
        ("FixedRate", Rule { fixed_rate: f64::NAN, ..rule("a") }),
        ("Version", Rule { version: 2, ..rule("a") }),
        ("ServiceName", Rule { service_name: long(65), ..rule("a") }),
        ("HTTPMethod", Rule { http_method: long(11), ..rule("a") }),
        ("URLPath", Rule { url_path: String::new(), ..rule("a") }),
        ("Attributes", Rule { attributes: [(long(33), long(1))].into(), ..rule("a") }),
    ] {
        let error = rules.create(bad, NOW).unwrap_err();
        assert!(error.to_string().starts_with(field), "{field}: {error}");
    }
}

#[test]
fn there_are_twenty_five_rules_at_most() {
    let mut rules = RuleSet::new(Sampling::Service);
    for number in 0..RULE_COUNT_MAX {
        rules.create(rule(&format!("r{number}")), NOW).unwrap();
    }
    assert_eq!(rules.create(rule("more"), NOW), Err(RuleError::TooMany(RULE_COUNT_MAX)));
    let all: Vec<Rule> = rules.all().into_iter().cloned().collect();
    assert_eq!(rules.replace(all.clone(), NOW), Ok(()));
    let more = [all, vec![rule("more")]].concat();
    assert_eq!(rules.replace(more, NOW), Err(RuleError::TooMany(RULE_COUNT_MAX)));
}

#[test]
fn a_list_replaces_all_rules_and_unchanged_rules_keep_their_times() {
    let mut rules = RuleSet::new(Sampling::Service);
    rules.create(rule("a"), NOW).unwrap();
    rules.create(rule("b"), NOW).unwrap();
    let changed = Rule { fixed_rate: 0.5, ..rule("b") };
    rules
        .replace(vec![Rule::default_rule(Sampling::Service), rule("a"), changed], NOW + 5.0)
        .unwrap();
    let times: Vec<_> =
        rules.records().iter().map(|record| (record.created_at, record.modified_at)).collect();
    assert_eq!(times, [(NOW, NOW), (NOW, NOW + 5.0), (0.0, MODIFIED_AT)]);
    let twice = vec![Rule::default_rule(Sampling::Service), rule("a"), rule("a")];
    assert_eq!(rules.replace(twice, NOW), Err(RuleError::Twice("a".to_owned())));
    assert_eq!(names(&rules), ["a", "b", "Default"]);
}

#[test]
fn a_rule_goes_out_in_the_form_in_which_it_comes_in() {
    let value = serde_json::to_value(Rule::default_rule(Sampling::Service)).unwrap();
    assert_eq!(
        serde_json::from_value::<Rule>(value.clone()).unwrap(),
        Rule::default_rule(Sampling::Service)
    );
    let mut odd: Value = value;
    odd["ReservoirSize"] = json!(-1);
    assert!(serde_json::from_value::<Rule>(odd).is_err());
}

#[test]
fn one_client_gets_the_whole_reservoir_for_ten_seconds() {
    let mut rules = RuleSet::new(Sampling::Service);
    let target = ask(&mut rules, "Default", "c", NOW).unwrap();
    assert_eq!(
        serde_json::to_value(&target).unwrap(),
        json!({"RuleName": "Default", "FixedRate": 0.05, "ReservoirQuota": 1,
            "ReservoirQuotaTTL": 1_600_000_010, "Interval": 10})
    );
    assert_eq!(ask(&mut rules, "none", "c", NOW), None);
}

#[test]
fn clients_share_a_reservoir_and_absent_clients_get_no_part() {
    let mut rules = RuleSet::new(Sampling::Service);
    rules.create(rule("five"), NOW).unwrap();
    let mut quotas = |clients: &[&str], now: f64| -> Vec<u32> {
        // Each client asks once before its quota is read, so that the rule knows all clients.
        for client in clients {
            ask(&mut rules, "five", client, now);
        }
        let each = clients.iter();
        each.map(|client| ask(&mut rules, "five", client, now).unwrap().reservoir_quota).collect()
    };
    assert_eq!(quotas(&["a"], NOW), [5]);
    assert_eq!(quotas(&["b", "a", "c"], NOW), [2, 2, 1]);
    assert_eq!(quotas(&["a"], NOW + 20.0), [2]);
    assert_eq!(quotas(&["a"], NOW + 31.0), [5]);
    let many: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(quotas(&many, NOW + 100.0).iter().sum::<u32>(), 5);
}

#[test]
fn no_number_of_clients_fills_the_memory() {
    let mut rules = RuleSet::new(Sampling::Service);
    for number in 0..CLIENT_COUNT_MAX + 50 {
        ask(&mut rules, "Default", &number.to_string(), NOW);
    }
    assert_eq!(rules.clients["Default"].len(), CLIENT_COUNT_MAX);
}

#[test]
fn the_default_rule_samples_every_request_unless_it_is_to_be_that_of_the_service() {
    for (sampling, expected) in [(Sampling::All, 1.0), (Sampling::Service, 0.05)] {
        let rules = RuleSet::new(sampling);
        let rule = &rules.records()[0].sampling_rule;
        assert_eq!((rule.fixed_rate, rule.reservoir_size), (expected, 1));
        assert!(rule.clone().checked().is_ok());
    }
}

#[test]
fn the_requests_that_clients_report_are_added_up_by_rule() {
    let report = |rules: &mut RuleSet, name: &str, client: &str, counts: [u32; 2]| {
        let asked = Statistics {
            rule_name: name.to_owned(),
            client_id: client.to_owned(),
            request_count: counts[0],
            sampled_count: counts[1],
        };
        rules.target(&asked, NOW).is_some()
    };
    let mut rules = RuleSet::new(Sampling::All);
    rules.create(rule("slow"), NOW).unwrap();
    assert!(report(&mut rules, "Default", "a", [30, 7]));
    assert!(report(&mut rules, "Default", "b", [10, 10]));
    assert!(report(&mut rules, "slow", "a", [5, 9]));
    assert_eq!(rules.reported()["Default"], Reported { request_count: 40, sampled_count: 17 });
    assert_eq!(rules.reported()["slow"].unsampled_count(), 0);
    assert_eq!(rules.reported_sum().unsampled_count(), 23);
    rules.delete(Some("slow"), None, NOW).unwrap();
    assert!(!report(&mut rules, "slow", "a", [4, 1]));
    assert!(!rules.reported().contains_key("slow"));
    assert_eq!(rules.reported_sum().unsampled_count(), 26);
    rules.forget_reported();
    assert_eq!((rules.reported().len(), rules.reported_sum()), (0, Reported::default()));
}
