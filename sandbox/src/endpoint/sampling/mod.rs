//! The sampling rules and the quotas given out of them.
//!
//! In: rules to add, change and take away, and the statistics of clients. Out: records of rules,
//! and [`Target`]s. Bounds: [`RULE_COUNT_MAX`] rules, [`CLIENT_COUNT_MAX`] clients of a rule.
//! Pure code: the caller holds the lock and says what time it is.
//!
//! A rule's reservoir is for all clients together, so each that has asked lately gets its part.

mod rule;

pub use rule::{Rule, RuleError, Update};

use rule::DEFAULT_NAME;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Rules beside the default one; the service's own limit.
pub const RULE_COUNT_MAX: usize = 25;

/// Clients of one rule that quotas are worked out for.
pub const CLIENT_COUNT_MAX: usize = 1_000;

/// Seconds between two calls of one client for targets, and how long a quota holds; the SDKs'
/// own interval is the same.
const INTERVAL_SECONDS: u32 = 10;

/// A client that has not asked for so many intervals has gone.
const INTERVAL_COUNT_MAX: u32 = 3;

/// When the rules were changed last, while nobody has. In the past for good, or clients would
/// fetch the rules again with every call for targets.
const MODIFIED_AT: f64 = 1_530_000_000.0;

/// A rule with its times, in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the fields are the service's")]
pub struct Record {
    pub sampling_rule: Rule,
    pub created_at: f64,
    pub modified_at: f64,
}

/// What a client says of its use of a rule.
#[derive(Debug, Deserialize)]
pub struct Statistics {
    /// The rule.
    #[serde(rename = "RuleName")]
    pub rule_name: String,
    /// The client's own id.
    #[serde(rename = "ClientID", default)]
    pub client_id: String,
}

/// What a client may sample of a rule for a while.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(missing_docs, reason = "the fields are the service's")]
pub struct Target {
    pub rule_name: String,
    pub fixed_rate: f64,
    pub reservoir_quota: u32,
    #[serde(rename = "ReservoirQuotaTTL")]
    pub reservoir_quota_ttl: u64,
    pub interval: u32,
}

/// All rules.
#[derive(Debug)]
pub struct RuleSet {
    records: Vec<Record>,
    /// When each client of a rule has asked last, by rule and client.
    clients: BTreeMap<String, BTreeMap<String, f64>>,
    modified_at: f64,
}

impl Default for RuleSet {
    /// The default rule alone.
    fn default() -> Self {
        let sampling_rule = Rule::default_rule();
        let record = Record { sampling_rule, created_at: 0.0, modified_at: MODIFIED_AT };
        Self { records: vec![record], clients: BTreeMap::new(), modified_at: MODIFIED_AT }
    }
}

impl RuleSet {
    /// The rules with their times, in the order in which samplers try them.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The rules alone.
    pub fn all(&self) -> Vec<&Rule> {
        self.records.iter().map(|record| &record.sampling_rule).collect()
    }

    /// When they were changed last, in seconds since 1970.
    pub fn modified_at(&self) -> f64 {
        self.modified_at
    }

    /// Adds a rule.
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

    /// Takes a rule away.
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
        self.changed(now_seconds);
        Ok(record)
    }

    /// Puts `rules` in the place of all; one that was there and is the same keeps its times.
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
        self.clients.retain(|name, _| records.iter().any(|it| it.sampling_rule.rule_name == *name));
        self.records = records;
        self.changed(now_seconds);
        Ok(())
    }

    /// The part of a rule that a client gets; none of a rule that is not there.
    pub fn target(&mut self, asked: &Statistics, now_seconds: f64) -> Option<Target> {
        let rule = &self.records[self.find(&asked.rule_name)?].sampling_rule;
        let clients = self.clients.entry(asked.rule_name.clone()).or_default();
        let oldest = now_seconds - f64::from(INTERVAL_SECONDS * INTERVAL_COUNT_MAX);
        clients.retain(|_, asked_at| *asked_at >= oldest);
        if clients.len() < CLIENT_COUNT_MAX {
            clients.insert(asked.client_id.clone(), now_seconds);
        }
        let count = u32::try_from(clients.len()).unwrap_or(u32::MAX).max(1);
        // What does not divide goes to the first ones, so that the parts make up the whole.
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
        // The default rule has the highest priority number, and is last.
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
