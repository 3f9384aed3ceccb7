//! One sampling rule, and what it may be.
//!
//! In: a rule as a client or the page sends it. Out: the same, or a [`RuleError`] that names the
//! field. The bounds are those of the API's model (`SamplingRule`). Pure code.

use super::super::answer::Failure;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the rule that is always there, and matches what no other does.
pub const DEFAULT_NAME: &str = "Default";

/// Its priority, behind all others.
pub const DEFAULT_PRIORITY: u32 = 10_000;

/// Attributes in one rule.
const ATTRIBUTE_COUNT_MAX: usize = 5;

/// A sampling rule, with the service's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the fields are the service's")]
pub struct Rule {
    #[serde(default)]
    pub rule_name: String,
    #[serde(default, rename = "RuleARN")]
    pub rule_arn: String,
    #[serde(rename = "ResourceARN")]
    pub resource_arn: String,
    pub priority: u32,
    pub fixed_rate: f64,
    pub reservoir_size: u32,
    pub service_name: String,
    pub service_type: String,
    pub host: String,
    #[serde(rename = "HTTPMethod")]
    pub http_method: String,
    #[serde(rename = "URLPath")]
    pub url_path: String,
    pub version: u32,
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// What is to be changed of a rule; the rest stays.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the fields are the service's")]
pub struct Update {
    pub rule_name: Option<String>,
    #[serde(rename = "RuleARN")]
    pub rule_arn: Option<String>,
    #[serde(rename = "ResourceARN")]
    pub resource_arn: Option<String>,
    pub priority: Option<u32>,
    pub fixed_rate: Option<f64>,
    pub reservoir_size: Option<u32>,
    pub host: Option<String>,
    pub service_name: Option<String>,
    pub service_type: Option<String>,
    #[serde(rename = "HTTPMethod")]
    pub http_method: Option<String>,
    #[serde(rename = "URLPath")]
    pub url_path: Option<String>,
    pub attributes: Option<BTreeMap<String, String>>,
}

/// Why rules cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A field is out of its bounds
    #[error("{field} of the rule {rule:?} {problem}")]
    Field {
        /// The rule's name.
        rule: String,
        /// The field's name.
        field: &'static str,
        /// What it should be.
        problem: &'static str,
    },
    /// A rule of this name is there already, or twice in one list
    #[error("there is more than one rule with the name {0:?}")]
    Twice(String),
    /// There is no such rule
    #[error("there is no such rule")]
    Unknown,
    /// Neither a name nor an ARN was given, or both
    #[error("name a rule by RuleName or by RuleARN, and not by both")]
    Unnamed,
    /// The default rule has to stay
    #[error("the rule Default has to stay")]
    DefaultStays,
    /// Of the default rule only two fields can be changed
    #[error("of the rule Default only FixedRate and ReservoirSize can be changed")]
    DefaultMatchesAll,
    /// There are too many
    #[error("there can be no more than {0} rules beside Default")]
    TooMany(usize),
}

impl RuleError {
    /// The answer in the words of the service.
    pub fn failure(&self) -> Failure {
        let message = self.to_string();
        match self {
            Self::TooMany(_) => {
                Failure::new(StatusCode::BAD_REQUEST, "RuleLimitExceededException", message)
            }
            _ => Failure::invalid(message),
        }
    }
}

impl Rule {
    /// The rule that every account begins with: one request a second and five percent of the rest,
    /// <https://docs.aws.amazon.com/xray/latest/devguide/xray-console-sampling.html>.
    pub fn default_rule() -> Self {
        let any = || "*".to_owned();
        Self {
            rule_name: DEFAULT_NAME.to_owned(),
            rule_arn: arn(DEFAULT_NAME),
            resource_arn: any(),
            priority: DEFAULT_PRIORITY,
            fixed_rate: 0.05,
            reservoir_size: 1,
            service_name: any(),
            service_type: any(),
            host: any(),
            http_method: any(),
            url_path: any(),
            version: 1,
            attributes: BTreeMap::new(),
        }
    }

    /// Whether it is the default rule.
    pub fn is_default(&self) -> bool {
        self.rule_name == DEFAULT_NAME
    }

    /// The rule with its own ARN, once every field is within its bounds.
    pub fn checked(mut self) -> Result<Self, RuleError> {
        let wrong =
            |field, problem| Err(RuleError::Field { rule: self.rule_name.clone(), field, problem });
        let is_of_a_name =
            |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
        if !(1..=32).contains(&self.rule_name.len()) || !self.rule_name.chars().all(is_of_a_name) {
            return wrong("RuleName", "has to be 1 to 32 letters, digits, - and _");
        }
        if self.is_default() {
            let default = Self::default_rule();
            let (fixed_rate, reservoir_size) = (self.fixed_rate, self.reservoir_size);
            let rule_arn = self.rule_arn.clone();
            let same = Self { fixed_rate, reservoir_size, rule_arn, ..default };
            if same != self {
                return Err(RuleError::DefaultMatchesAll);
            }
        } else if !(1..DEFAULT_PRIORITY).contains(&self.priority) {
            return wrong("Priority", "has to be from 1 to 9999");
        }
        if !(0.0..=1.0).contains(&self.fixed_rate) {
            return wrong("FixedRate", "has to be from 0 to 1");
        }
        if self.version != 1 {
            return wrong("Version", "has to be 1");
        }
        for (field, value, length_max) in [
            ("ResourceARN", &self.resource_arn, 500),
            ("ServiceName", &self.service_name, 64),
            ("ServiceType", &self.service_type, 64),
            ("Host", &self.host, 64),
            ("HTTPMethod", &self.http_method, 10),
            ("URLPath", &self.url_path, 128),
        ] {
            if value.is_empty() || value.chars().nth(length_max).is_some() {
                return wrong(field, "is empty or too long; * matches all");
            }
        }
        let is_attribute = |(key, value): (&String, &String)| {
            [key, value].iter().all(|text| (1..=32).contains(&text.chars().count()))
        };
        if self.attributes.len() > ATTRIBUTE_COUNT_MAX || !self.attributes.iter().all(is_attribute)
        {
            return wrong("Attributes", "has more than 5 pairs, or some that are too long");
        }
        self.rule_arn = arn(&self.rule_name);
        Ok(self)
    }

    /// The rule with a change.
    pub fn with(&self, update: Update) -> Self {
        let old = self.clone();
        Self {
            resource_arn: update.resource_arn.unwrap_or(old.resource_arn),
            priority: update.priority.unwrap_or(old.priority),
            fixed_rate: update.fixed_rate.unwrap_or(old.fixed_rate),
            reservoir_size: update.reservoir_size.unwrap_or(old.reservoir_size),
            host: update.host.unwrap_or(old.host),
            service_name: update.service_name.unwrap_or(old.service_name),
            service_type: update.service_type.unwrap_or(old.service_type),
            http_method: update.http_method.unwrap_or(old.http_method),
            url_path: update.url_path.unwrap_or(old.url_path),
            attributes: update.attributes.unwrap_or(old.attributes),
            ..old
        }
    }
}

fn arn(name: &str) -> String {
    format!("arn:aws:xray:us-east-1:000000000000:sampling-rule/{name}")
}
