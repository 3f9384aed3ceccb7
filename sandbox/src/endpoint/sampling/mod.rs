//! Stores the sampling rules, and shares the reservoir of each rule among its clients.
//!
//! In: rules to add, change and remove, and the statistics of clients. Out: records of rules, and
//! [`Target`]s. Bound: [`RULE_COUNT_MAX`] rules, [`CLIENT_COUNT_MAX`] clients of a rule. When full:
//! a new rule is refused; a new client gets a quota but is not counted. Thread: any; the caller
//! holds the lock of the sandbox and passes the time.
//!
//! The reservoir of a rule is the number of requests that all clients together sample each second
//! before the fixed rate applies. Each client that has asked recently gets a part of the reservoir.

mod rule;

pub use rule::{Rule, RuleError, Update};

use rule::DEFAULT_NAME;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Largest number of rules besides the default rule. It is the limit of the service.
pub const RULE_COUNT_MAX: usize = 25;

/// Largest number of clients that share the reservoir of one rule.
pub const CLIENT_COUNT_MAX: usize = 1_000;

/// Interval at which a client should ask for its targets, in seconds. A quota is valid for the same
/// time. SDKs use this interval by default.
const INTERVAL_SECONDS: u32 = 10;

/// Number of intervals without a request after which a client is removed. See [`INTERVAL_SECONDS`].
const INTERVAL_COUNT_MAX: u32 = 3;

/// Time of the last change, in seconds since 1970, that is reported while no rule was changed.
/// Clients fetch the rules again if this time is later than their last fetch. So this time must be
/// in the past.
const MODIFIED_AT: f64 = 1_530_000_000.0;

/// A rule with the times of its creation and last change, in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the fields have the names of the API")]
pub struct Record {
    pub sampling_rule: Rule,
    pub created_at: f64,
    pub modified_at: f64,
}

/// The statistics of a client for one rule. Only the fields that the sandbox uses are parsed.
#[derive(Debug, Default, Deserialize)]
pub struct Statistics {
    /// Name of the rule.
    #[serde(rename = "RuleName")]
    pub rule_name: String,
    /// Id of the client.
    #[serde(rename = "ClientID", default)]
    pub client_id: String,
    /// Number of requests that matched the rule since the last statistics of the client.
    #[serde(rename = "RequestCount", default)]
    pub request_count: u32,
    /// Number of these requests that were sampled.
    #[serde(rename = "SampledCount", default)]
    pub sampled_count: u32,
}

/// The requests that clients reported for one rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Reported {
    /// Number of requests that matched the rule.
    pub request_count: u64,
    /// Number of these requests that were sampled.
    pub sampled_count: u64,
}

impl Reported {
    fn add(&mut self, asked: &Statistics) {
        let (requests, sampled) = (asked.request_count, asked.sampled_count);
        self.request_count = self.request_count.saturating_add(requests.into());
        // A client with wrong numbers must not hide the requests of another one.
        self.sampled_count = self.sampled_count.saturating_add(sampled.min(requests).into());
    }

    /// Returns the number of requests that were not sampled.
    pub fn unsampled_count(&self) -> u64 {
        self.request_count - self.sampled_count
    }
}

/// The rates of the default rule at the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sampling {
    /// Every request is sampled.
    #[default]
    All,
    /// One request a second and five percent of the other requests are sampled, as in the service.
    Service,
}

/// The rate and the quota of a client for one rule, for a limited time.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the fields have the names of the API")]
pub struct Target {
    pub rule_name: String,
    pub fixed_rate: f64,
    pub reservoir_quota: u32,
    #[serde(rename = "ReservoirQuotaTTL")]
    pub reservoir_quota_ttl: u64,
    pub interval: u32,
}

/// The list of all rules. It always contains the default rule.
#[derive(Debug)]
pub struct RuleSet {
    /// The rules in the order in which SDKs try them.
    records: Vec<Record>,
    /// Time at which each client last asked for its target, in seconds since 1970. The keys are the
    /// name of the rule and the id of the client.
    clients: BTreeMap<String, BTreeMap<String, f64>>,
    /// The requests that clients reported for each rule. A deleted rule keeps its numbers in the
    /// sum.
    reported: BTreeMap<String, Reported>,
    reported_sum: Reported,
    modified_at: f64,
}

impl RuleSet {
    /// Returns a list that contains only the default rule.
    pub fn new(sampling: Sampling) -> Self {
        let sampling_rule = Rule::default_rule(sampling);
        let record = Record { sampling_rule, created_at: 0.0, modified_at: MODIFIED_AT };
        Self {
            records: vec![record],
            clients: BTreeMap::new(),
            reported: BTreeMap::new(),
            reported_sum: Reported::default(),
            modified_at: MODIFIED_AT,
        }
    }

    /// Returns what clients reported for each rule. A rule that no client reported is left out.
    pub fn reported(&self) -> &BTreeMap<String, Reported> {
        &self.reported
    }

    /// Returns what clients reported for all rules together.
    pub fn reported_sum(&self) -> Reported {
        self.reported_sum
    }

    /// Forgets what clients have reported.
    pub fn forget_reported(&mut self) {
        self.reported.clear();
        self.reported_sum = Reported::default();
    }

    /// Returns the rules with their times, in the order in which SDKs try them.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Returns the rules without their times.
    pub fn all(&self) -> Vec<&Rule> {
        self.records.iter().map(|record| &record.sampling_rule).collect()
    }

    /// Returns the time of the last change of any rule, in seconds since 1970.
    pub fn modified_at(&self) -> f64 {
        self.modified_at
    }

    /// Adds a rule.
    ///
    /// # Errors
    ///
    /// Returns an error if a field is not valid, the name exists already, or there are too many
    /// rules.
    pub fn create(&mut self, rule: Rule, now_seconds: f64) -> Result<&Record, RuleError> {
        let rule = rule.checked()?;
        if self.find(&rule.rule_name).is_some() {
            return Err(RuleError::Twice(rule.rule_name));
        }
        if self.records.len() > RULE_COUNT_MAX {
            return Err(RuleError::TooMany(RULE_COUNT_MAX));
        }
        let name = rule.rule_name.clone();
        self.records.push(Record {
            sampling_rule: rule,
            created_at: now_seconds,
            modified_at: now_seconds,
        });
        self.changed(now_seconds);
        let index = self.find(&name).ok_or(RuleError::Unknown)?;
        Ok(&self.records[index])
    }

    /// Changes a rule.
    ///
    /// # Errors
    ///
    /// Returns an error if the rule does not exist, or would not be valid after the change.
    pub fn update(&mut self, mut update: Update, now_seconds: f64) -> Result<&Record, RuleError> {
        let (name, arn) = (update.rule_name.take(), update.rule_arn.take());
        let index = self.find_by(name.as_deref(), arn.as_deref())?;
        let rule = self.records[index].sampling_rule.with(update).checked()?;
        let name = rule.rule_name.clone();
        self.records[index].sampling_rule = rule;
        self.records[index].modified_at = now_seconds;
        self.changed(now_seconds);
        let index = self.find(&name).ok_or(RuleError::Unknown)?;
        Ok(&self.records[index])
    }

    /// Removes the rule with this name or this ARN.
    ///
    /// # Errors
    ///
    /// Returns an error if the rule does not exist or is the default rule.
    pub fn delete(
        &mut self,
        name: Option<&str>,
        arn: Option<&str>,
        now_seconds: f64,
    ) -> Result<Record, RuleError> {
        let index = self.find_by(name, arn)?;
        if self.records[index].sampling_rule.is_default() {
            return Err(RuleError::DefaultStays);
        }
        let record = self.records.remove(index);
        self.clients.remove(&record.sampling_rule.rule_name);
        self.reported.remove(&record.sampling_rule.rule_name);
        self.changed(now_seconds);
        Ok(record)
    }

    /// Replaces all rules. A rule that did not change keeps its times.
    ///
    /// # Errors
    ///
    /// Returns an error if a rule is not valid, a name appears twice, there are too many rules, or
    /// the default rule is missing. The rules then stay unchanged.
    pub fn replace(&mut self, rules: Vec<Rule>, now_seconds: f64) -> Result<(), RuleError> {
        if rules.len() > RULE_COUNT_MAX + 1 {
            return Err(RuleError::TooMany(RULE_COUNT_MAX));
        }
        let mut records: Vec<Record> = Vec::with_capacity(rules.len());
        for rule in rules {
            let rule = rule.checked()?;
            if records.iter().any(|record| record.sampling_rule.rule_name == rule.rule_name) {
                return Err(RuleError::Twice(rule.rule_name));
            }
            let old = self.find(&rule.rule_name).map(|index| &self.records[index]);
            let is_same = old.is_some_and(|old| old.sampling_rule == rule);
            records.push(Record {
                created_at: old.map_or(now_seconds, |old| old.created_at),
                modified_at: old.filter(|_| is_same).map_or(now_seconds, |old| old.modified_at),
                sampling_rule: rule,
            });
        }
        if !records.iter().any(|record| record.sampling_rule.is_default()) {
            return Err(RuleError::DefaultStays);
        }
        let is_left = |name: &str| records.iter().any(|it| it.sampling_rule.rule_name == name);
        self.clients.retain(|name, _| is_left(name));
        self.reported.retain(|name, _| is_left(name));
        self.records = records;
        self.changed(now_seconds);
        Ok(())
    }

    /// Returns the target of a client for one rule, and adds the requests that it reports. Returns
    /// `None` if the rule does not exist.
    pub fn target(&mut self, asked: &Statistics, now_seconds: f64) -> Option<Target> {
        // A client may report a rule that was deleted in the meantime.
        self.reported_sum.add(asked);
        let rule = &self.records[self.find(&asked.rule_name)?].sampling_rule;
        self.reported.entry(asked.rule_name.clone()).or_default().add(asked);
        let clients = self.clients.entry(asked.rule_name.clone()).or_default();
        let oldest = now_seconds - f64::from(INTERVAL_SECONDS * INTERVAL_COUNT_MAX);
        clients.retain(|_, asked_at| *asked_at >= oldest);
        if clients.len() < CLIENT_COUNT_MAX {
            clients.insert(asked.client_id.clone(), now_seconds);
        }
        let count = u32::try_from(clients.len()).unwrap_or(u32::MAX).max(1);
        // If the reservoir cannot be divided evenly, the first clients in the order of their ids
        // get one request more. So the quotas add up to the size of the reservoir.
        let before = (Bound::Unbounded, Bound::Excluded(&*asked.client_id));
        let rank = clients.range::<str, _>(before).count();
        let has_one_more = rank < (rule.reservoir_size % count) as usize;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds")]
        let expires_at = now_seconds.max(0.0) as u64 + u64::from(INTERVAL_SECONDS);
        Some(Target {
            rule_name: rule.rule_name.clone(),
            fixed_rate: rule.fixed_rate,
            reservoir_quota: rule.reservoir_size / count + u32::from(has_one_more),
            reservoir_quota_ttl: expires_at,
            interval: INTERVAL_SECONDS,
        })
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.records.iter().position(|record| record.sampling_rule.rule_name == name)
    }

    fn find_by(&self, name: Option<&str>, arn: Option<&str>) -> Result<usize, RuleError> {
        let found = match (name, arn) {
            (Some(name), None) => self.find(name),
            (None, Some(arn)) => {
                self.records.iter().position(|record| record.sampling_rule.rule_arn == arn)
            }
            _ => return Err(RuleError::Unnamed),
        };
        found.ok_or(RuleError::Unknown)
    }

    fn changed(&mut self, now_seconds: f64) {
        self.modified_at = now_seconds;
        // The default rule has the highest priority number, so it comes last.
        let order = |record: &Record| {
            (record.sampling_rule.priority, record.sampling_rule.rule_name.clone())
        };
        self.records.sort_by_key(order);
        debug_assert_eq!(
            self.records.last().map(|it| &*it.sampling_rule.rule_name),
            Some(DEFAULT_NAME)
        );
    }
}

#[cfg(test)]
mod tests;
