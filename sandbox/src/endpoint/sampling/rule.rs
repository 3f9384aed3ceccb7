//! Checks one sampling rule.
//!
//! In: a rule from a client or from the page. Out: the checked rule, or a [`RuleError`] that names
//! the field. The bounds of the fields are from the API model (`SamplingRule`). No I/O, no clock.

use super::super::answer::Failure;
use super::Sampling;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the default rule. This rule always exists, and matches the requests that no other rule
/// matches.
pub const DEFAULT_NAME: &str = "Default";

/// Priority of the default rule. All other rules have a lower number and are tried first.
pub const DEFAULT_PRIORITY: u32 = 10_000;

/// Largest number of attributes in one rule.
const ATTRIBUTE_COUNT_MAX: usize = 5;

/// A sampling rule, with the fields of the service's API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the fields have the names of the API")]
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

/// A change of a rule. A field that is `None` stays unchanged.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the fields have the names of the API")]
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

/// The reason why a change of the rules is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A field is not valid.
    #[error("{field} of the rule {rule:?} {problem}")]
    Field {
        /// Name of the rule.
        rule: String,
        /// Name of the field.
        field: &'static str,
        /// Description of the valid values.
        problem: &'static str,
    },
    /// A rule with the same name exists, or two rules of a list have the same name.
    #[error("there is more than one rule with the name {0:?}")]
    Twice(String),
    /// The request names a rule that does not exist.
    #[error("the rule does not exist")]
    Unknown,
    /// The request gave neither a name nor an ARN, or gave both.
    #[error("give either RuleName or RuleARN")]
    Unnamed,
    /// The change would delete the default rule.
    #[error("the rule Default cannot be deleted")]
    DefaultStays,
    /// The change would affect a field of the default rule that must stay unchanged.
    #[error("only FixedRate and ReservoirSize of the rule Default can be changed")]
    DefaultMatchesAll,
    /// The change would make more rules than allowed.
    #[error("at most {0} rules besides Default are allowed")]
    TooMany(usize),
}

impl RuleError {
    /// Returns the HTTP answer, with the error type of the service.
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
    /// Returns the default rule. That of every AWS account samples one request a second and five
    /// percent of the other requests, see
    /// <https://docs.aws.amazon.com/xray/latest/devguide/xray-console-sampling.html>.
    pub fn default_rule(sampling: Sampling) -> Self {
        let any = || "*".to_owned();
        Self {
            rule_name: DEFAULT_NAME.to_owned(),
            rule_arn: arn(DEFAULT_NAME),
            resource_arn: any(),
            priority: DEFAULT_PRIORITY,
            fixed_rate: match sampling {
                Sampling::All => 1.0,
                Sampling::Service => 0.05,
            },
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

    /// Returns whether this is the default rule.
    pub fn is_default(&self) -> bool {
        self.rule_name == DEFAULT_NAME
    }

    /// Checks every field, and returns the rule with its ARN.
    ///
    /// # Errors
    ///
    /// Returns an error that names the first field that is not valid.
    pub fn checked(mut self) -> Result<Self, RuleError> {
        let wrong =
            |field, problem| Err(RuleError::Field { rule: self.rule_name.clone(), field, problem });
        let is_of_a_name =
            |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
        if !(1..=32).contains(&self.rule_name.len()) || !self.rule_name.chars().all(is_of_a_name) {
            return wrong("RuleName", "must have 1 to 32 characters: letters, digits, - and _");
        }
        if self.is_default() {
            let default = Self::default_rule(Sampling::Service);
            let (fixed_rate, reservoir_size) = (self.fixed_rate, self.reservoir_size);
            let rule_arn = self.rule_arn.clone();
            let same = Self { fixed_rate, reservoir_size, rule_arn, ..default };
            if same != self {
                return Err(RuleError::DefaultMatchesAll);
            }
        } else if !(1..DEFAULT_PRIORITY).contains(&self.priority) {
            return wrong("Priority", "must be from 1 to 9999");
        }
        if !(0.0..=1.0).contains(&self.fixed_rate) {
            return wrong("FixedRate", "must be from 0 to 1");
        }
        if self.version != 1 {
            return wrong("Version", "must be 1");
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
                return wrong(field, "is empty or too long. Use * to match everything");
            }
        }
        let is_attribute = |(key, value): (&String, &String)| {
            [key, value].iter().all(|text| (1..=32).contains(&text.chars().count()))
        };
        if self.attributes.len() > ATTRIBUTE_COUNT_MAX || !self.attributes.iter().all(is_attribute)
        {
            return wrong(
                "Attributes",
                "must have at most 5 pairs, of texts of 1 to 32 characters",
            );
        }
        self.rule_arn = arn(&self.rule_name);
        Ok(self)
    }

    /// Returns a changed copy of the rule.
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
