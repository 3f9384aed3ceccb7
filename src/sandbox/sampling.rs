//! The sampling calls, answered with the default rule that every account begins with.
//!
//! In: the body of `GetSamplingRules` or `GetSamplingTargets`. Out: the body of the answer, or a
//! sentence for a 400. Bound: [`STATISTICS_COUNT_MAX`]. Pure code.
//!
//! One request a second and five percent of the rest, see
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-console-sampling.html>.

use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

/// Statistics documents taken in one call; the limit of the API.
pub const STATISTICS_COUNT_MAX: usize = 25;

const RULE_NAME: &str = "Default";
const FIXED_RATE: f64 = 0.05;
const RESERVOIR_SIZE: u32 = 1;

/// Seconds between two calls of one client for targets, and how long a quota holds; the SDKs'
/// own interval is the same.
const INTERVAL_SECONDS: u32 = 10;

/// When the rule was changed last, in seconds since 1970. In the past for good, or clients would
/// fetch the rules again with every call for targets.
const MODIFIED_AT: f64 = 1_530_000_000.0;

/// The answer to `GetSamplingRules`.
pub fn rules() -> Value {
    json!({
        "SamplingRuleRecords": [{
            "SamplingRule": {
                "RuleName": RULE_NAME,
                "RuleARN": "arn:aws:xray:us-east-1:000000000000:sampling-rule/Default",
                "ResourceARN": "*",
                "Priority": 10000,
                "FixedRate": FIXED_RATE,
                "ReservoirSize": RESERVOIR_SIZE,
                "ServiceName": "*",
                "ServiceType": "*",
                "Host": "*",
                "HTTPMethod": "*",
                "URLPath": "*",
                "Version": 1,
                "Attributes": {},
            },
            "CreatedAt": 0.0,
            "ModifiedAt": MODIFIED_AT,
        }],
        "NextToken": null,
    })
}

#[derive(Deserialize)]
struct TargetsRequest<'a> {
    #[serde(borrow, rename = "SamplingStatisticsDocuments")]
    statistics: Vec<Statistics<'a>>,
}

#[derive(Deserialize)]
struct Statistics<'a> {
    #[serde(borrow, rename = "RuleName")]
    rule_name: Cow<'a, str>,
}

/// The answer to `GetSamplingTargets`: a target for each mention of the default rule, and the
/// other rules named as unprocessed.
///
/// # Errors
///
/// A sentence for the client when the body is not a request or has too many documents.
pub fn targets(body: &[u8], now: SystemTime) -> Result<Value, String> {
    let request: TargetsRequest<'_> =
        serde_json::from_slice(body).map_err(|error| format!("Could not parse: {error}"))?;
    let count = request.statistics.len();
    if count > STATISTICS_COUNT_MAX {
        return Err(format!("{count} statistics documents, at most {STATISTICS_COUNT_MAX}"));
    }
    let now_seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let target = json!({
        "RuleName": RULE_NAME,
        "FixedRate": FIXED_RATE,
        "ReservoirQuota": RESERVOIR_SIZE,
        "ReservoirQuotaTTL": now_seconds + u64::from(INTERVAL_SECONDS),
        "Interval": INTERVAL_SECONDS,
    });
    let (known, unknown): (Vec<_>, Vec<_>) =
        request.statistics.iter().partition(|asked| asked.rule_name == RULE_NAME);
    let unprocessed = unknown.iter().map(
        |asked| json!({"RuleName": asked.rule_name, "ErrorCode": "400", "Message": "Unknown rule"}),
    );
    Ok(json!({
        "SamplingTargetDocuments": vec![target; known.len()],
        "LastRuleModification": MODIFIED_AT,
        "UnprocessedStatistics": unprocessed.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ask(names: &[&str]) -> Result<Value, String> {
        let documents: Vec<Value> = names
            .iter()
            .map(|name| {
                json!({"RuleName": name, "ClientID": "c", "Timestamp": 1.5e9,
                "RequestCount": 3, "SampledCount": 1, "BorrowCount": 0})
            })
            .collect();
        let body = json!({"SamplingStatisticsDocuments": documents}).to_string();
        targets(body.as_bytes(), UNIX_EPOCH + Duration::from_millis(1_600_000_000_900))
    }

    #[test]
    fn the_rules_are_the_default_rule_alone() {
        let rules = rules();
        let records = rules["SamplingRuleRecords"].as_array().unwrap();
        assert_eq!(records.len(), 1);
        let rule = &records[0]["SamplingRule"];
        assert_eq!(rule["RuleName"], "Default");
        assert_eq!((&rule["FixedRate"], &rule["ReservoirSize"]), (&json!(0.05), &json!(1)));
        assert_eq!((&rule["Priority"], &rule["Version"]), (&json!(10_000), &json!(1)));
        for field in ["ResourceARN", "ServiceName", "ServiceType", "Host", "HTTPMethod", "URLPath"]
        {
            assert_eq!(rule[field], "*", "{field}");
        }
    }

    #[test]
    fn the_default_rule_gets_a_target_and_others_are_unprocessed() {
        let answer = ask(&["Default", "mine"]).unwrap();
        let target = json!({"RuleName": "Default", "FixedRate": 0.05, "ReservoirQuota": 1,
            "ReservoirQuotaTTL": 1_600_000_010, "Interval": 10});
        assert_eq!(answer["SamplingTargetDocuments"], json!([target]));
        assert_eq!(answer["UnprocessedStatistics"][0]["RuleName"], "mine");
        assert_eq!(answer["UnprocessedStatistics"].as_array().unwrap().len(), 1);
        assert_eq!(ask(&[]).unwrap()["SamplingTargetDocuments"], json!([]));
    }

    #[test]
    fn more_than_twenty_five_documents_and_bad_bodies_are_refused() {
        assert!(ask(&["Default"; 25]).is_ok());
        assert!(ask(&["Default"; 26]).unwrap_err().contains("26"));
        assert!(targets(b"{}", UNIX_EPOCH).is_err());
        assert!(targets(b"", UNIX_EPOCH).is_err());
    }
}
