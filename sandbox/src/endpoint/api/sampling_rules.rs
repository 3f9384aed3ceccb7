//! Answers `GetSamplingRules`, `GetSamplingTargets`, and the requests that change sampling rules.

use super::super::Sandbox;
use super::super::answer::{Answer, Failure};
use super::super::sampling::{Record, Rule, Statistics, Update};
use super::parse;
use serde::Deserialize;
use serde_json::json;

/// Largest number of statistics documents in one `GetSamplingTargets` request. It is the limit of
/// the service's API.
const STATISTICS_COUNT_MAX: usize = 25;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetSamplingTargets {
    sampling_statistics_documents: Vec<Statistics>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateSamplingRule {
    sampling_rule: Rule,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateSamplingRule {
    sampling_rule_update: Update,
}

#[derive(Deserialize)]
struct DeleteSamplingRule {
    #[serde(rename = "RuleName")]
    name: Option<String>,
    #[serde(rename = "RuleARN")]
    arn: Option<String>,
}

impl Sandbox {
    pub(in super::super) fn get_sampling_rules(&self) -> Answer {
        json!({"SamplingRuleRecords": self.lock().rules.records(), "NextToken": null}).into()
    }

    pub(in super::super) fn get_sampling_targets(
        &self,
        body: &[u8],
        now_seconds: f64,
    ) -> Result<Answer, Failure> {
        let request: GetSamplingTargets = parse(body)?;
        let statistics = request.sampling_statistics_documents;
        let count = statistics.len();
        if count > STATISTICS_COUNT_MAX {
            return Err(Failure::invalid(format!(
                "The request has {count} statistics documents. At most {STATISTICS_COUNT_MAX} are \
                 allowed"
            )));
        }
        let mut state = self.lock();
        let (mut targets, mut unprocessed) = (Vec::new(), Vec::new());
        for asked in statistics {
            match state.rules.target(&asked, now_seconds) {
                Some(target) => targets.push(target),
                None => unprocessed.push(json!({
                    "RuleName": asked.rule_name, "ErrorCode": "400", "Message": "Unknown rule",
                })),
            }
        }
        Ok(json!({
            "SamplingTargetDocuments": targets,
            "LastRuleModification": state.rules.modified_at(),
            "UnprocessedStatistics": unprocessed,
            "UnprocessedBoostStatistics": [],
        })
        .into())
    }

    pub(in super::super) fn create_sampling_rule(
        &self,
        body: &[u8],
        now_seconds: f64,
    ) -> Result<Answer, Failure> {
        let request: CreateSamplingRule = parse(body)?;
        let mut state = self.lock();
        let record = state.rules.create(request.sampling_rule, now_seconds);
        record.map(answer).map_err(|error| error.failure())
    }

    pub(in super::super) fn update_sampling_rule(
        &self,
        body: &[u8],
        now_seconds: f64,
    ) -> Result<Answer, Failure> {
        let request: UpdateSamplingRule = parse(body)?;
        let mut state = self.lock();
        let record = state.rules.update(request.sampling_rule_update, now_seconds);
        record.map(answer).map_err(|error| error.failure())
    }

    pub(in super::super) fn delete_sampling_rule(
        &self,
        body: &[u8],
        now_seconds: f64,
    ) -> Result<Answer, Failure> {
        let request: DeleteSamplingRule = parse(body)?;
        let mut state = self.lock();
        let (name, arn) = (request.name.as_deref(), request.arn.as_deref());
        let record = state.rules.delete(name, arn, now_seconds);
        record.map(|record| answer(&record)).map_err(|error| error.failure())
    }
}

fn answer(record: &Record) -> Answer {
    json!({"SamplingRuleRecord": record}).into()
}
