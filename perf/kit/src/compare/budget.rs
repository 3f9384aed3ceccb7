//! Budgets: upper and lower limits of figures (`perf/budgets.toml`).

use super::summary::Summary;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The content of the budgets file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// The factor by which a backend may exceed a limit; 1 for a backend that is not listed.
    #[serde(default)]
    slack: BTreeMap<String, f64>,
    /// Limits for a daemon that gets the queue size it requests.
    privileged: Vec<Budget>,
    /// Limits for a daemon in a container without privileges.
    confined: Vec<Budget>,
}

/// The limit of one figure in one scenario. Without `most` and `least` the figure is shown but not
/// limited.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    scenario: String,
    figure: String,
    most: Option<f64>,
    least: Option<f64>,
    /// Whether the limit is only checked in a run that has its figure for some daemon.
    #[serde(default)]
    optional: bool,
    /// Whether a backend's slack applies to this limit.
    #[serde(default = "yes")]
    slack: bool,
}

fn yes() -> bool {
    true
}

/// The result of checking a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Kept,
    Over,
    Missing,
    NotSet,
}

impl Budgets {
    /// Parses the text of `perf/budgets.toml`.
    ///
    /// # Errors
    ///
    /// Fails if the text is not TOML or contains an unknown key.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Leaves out the limits of scenarios that did not run, for a run of chosen scenarios.
    pub fn keep_those_that_ran(&mut self, summary: &Summary) {
        let scenarios = summary.scenarios();
        for budgets in [&mut self.privileged, &mut self.confined] {
            budgets.retain(|budget| scenarios.contains(&budget.scenario.as_str()));
        }
    }

    /// Compares a run with the limits of its mode. Returns a table in Markdown and the number of
    /// exceeded limits; a figure that was not measured counts as exceeded.
    pub fn check(&self, summary: &Summary, daemons: &[&str], mode: &str) -> (String, usize) {
        let budgets = if mode == "confined" { &self.confined } else { &self.privileged };
        let mut text =
            String::from("| | | figure | measured | budget | |\n|---|---|---|---|---|---|\n");
        let mut over_count = 0;
        let is_due = |budget: &&Budget| {
            let has_figure =
                |daemon| summary.figure(&budget.scenario, daemon, &budget.figure).is_some();
            !budget.optional || daemons.iter().copied().any(has_figure)
        };
        for budget in budgets.iter().filter(is_due) {
            for daemon in daemons {
                let slack = summary.backend(daemon).and_then(|name| self.slack.get(name));
                let measured = summary.figure(&budget.scenario, daemon, &budget.figure);
                let limit = budget.limit(slack.copied().unwrap_or(1.0));
                let verdict = judge(measured, limit);
                over_count += usize::from(matches!(verdict, Verdict::Over | Verdict::Missing));
                let (scenario, figure) = (&budget.scenario, &budget.figure);
                let measured = measured.map_or("-".into(), short);
                let (limit, word) = (limit.text(), verdict.text());
                let _ = writeln!(
                    text,
                    "| {scenario} | {daemon} | {figure} | {measured} | {limit} | {word} |"
                );
            }
        }
        (text, over_count)
    }
}

/// The upper or lower limit of a figure, if it has one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    Most(f64),
    Least(f64),
    None,
}

impl Budget {
    fn limit(&self, slack: f64) -> Limit {
        let slack = if self.slack { slack } else { 1.0 };
        match (self.most, self.least) {
            (Some(most), _) => Limit::Most(most * slack),
            (None, Some(least)) => Limit::Least(least / slack),
            (None, None) => Limit::None,
        }
    }
}

impl Limit {
    fn text(self) -> String {
        match self {
            Self::Most(number) => format!("at most {}", short(number)),
            Self::Least(number) => format!("at least {}", short(number)),
            Self::None => "none set".into(),
        }
    }
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Kept => "ok",
            Self::Over => "**OVER**",
            Self::Missing => "**not measured**",
            Self::NotSet => "",
        }
    }
}

fn judge(measured: Option<f64>, limit: Limit) -> Verdict {
    match (measured, limit) {
        (_, Limit::None) => Verdict::NotSet,
        (None, _) => Verdict::Missing,
        (Some(number), Limit::Most(most)) if number <= most => Verdict::Kept,
        (Some(number), Limit::Least(least)) if number >= least => Verdict::Kept,
        (Some(_), _) => Verdict::Over,
    }
}

/// Formats a number with a suitable number of digits.
fn short(number: f64) -> String {
    let digits = if number.abs() >= 1_000.0 {
        0
    } else if number.abs() >= 100.0 {
        1
    } else {
        3
    };
    let text = format!("{number:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::row::Row;
    use super::*;

    const BUDGETS: &str = r#"
        [slack]
        recvmmsg = 1.25
        [[privileged]]
        scenario = "rate-100"
        figure = "cpu_us_per_segment"
        most = 60
        [[privileged]]
        scenario = "rate-100"
        figure = "delivered_share"
        least = 1.0
        slack = false
        [[confined]]
        scenario = "rate-100"
        figure = "cpu_us_per_segment"
    "#;

    fn summary(contender: &str, figures: &[(&'static str, f64)]) -> Summary {
        let row = Row::example(contender, "rate-100", 0, figures);
        Summary { rows: vec![Row { backend: Some(contender.into()), ..row }] }
    }

    fn over_count(contender: &str, cost: f64, share: f64) -> usize {
        let figures = [("cpu_us_per_segment", cost), ("delivered_share", share)];
        let summary = summary(contender, &figures);
        let budgets = Budgets::parse(BUDGETS).unwrap();
        budgets.check(&summary, &[contender], "privileged").1
    }

    #[test]
    fn what_is_beyond_a_limit_is_counted() {
        assert_eq!(over_count("uring", 60.0, 1.0), 0);
        assert_eq!(over_count("uring", 60.1, 1.0), 1);
        assert_eq!(over_count("uring", 60.1, 0.999), 2);
        assert_eq!(over_count("uring", f64::NAN, 1.0), 1);
    }

    #[test]
    fn a_backend_has_its_slack_where_it_applies() {
        assert_eq!(over_count("recvmmsg", 75.0, 1.0), 0);
        assert_eq!(over_count("recvmmsg", 75.1, 1.0), 1);
        assert_eq!(over_count("recvmmsg", 75.0, 0.999), 1);
    }

    #[test]
    fn what_was_not_measured_is_not_kept_and_what_has_no_limit_is_shown() {
        let budgets = Budgets::parse(BUDGETS).unwrap();
        let summary = summary("uring", &[("cpu_us_per_segment", 5.0)]);
        let (table, count) = budgets.check(&summary, &["uring"], "privileged");
        assert_eq!(count, 1, "{table}");
        let (table, count) = budgets.check(&summary, &["uring"], "confined");
        assert_eq!(count, 0);
        assert!(table.contains("| 5 | none set |"), "{table}");
    }

    #[test]
    fn a_run_of_chosen_scenarios_is_judged_by_their_limits_alone() {
        let flat = r#"
            [[privileged]]
            scenario = "flat"
            figure = "delivered_per_s"
            least = 1
        "#;
        let mut budgets = Budgets::parse(&format!("{BUDGETS}{flat}")).unwrap();
        let summary = summary("uring", &[("cpu_us_per_segment", 5.0)]);
        assert_eq!(budgets.check(&summary, &["uring"], "privileged").1, 2);
        budgets.keep_those_that_ran(&summary);
        let (table, count) = budgets.check(&summary, &["uring"], "privileged");
        assert_eq!((count, table.contains("flat")), (1, false), "{table}");
    }

    #[test]
    fn an_optional_limit_is_checked_where_its_figure_was_measured() {
        let optional = BUDGETS.replace("most = 60", "most = 60\n        optional = true");
        let budgets = Budgets::parse(&optional).unwrap();
        let without = Summary { rows: vec![Row::example("uring", "flat", 0, &[])] };
        assert_eq!(budgets.check(&without, &["uring"], "privileged").1, 1);
        let with = summary("uring", &[("cpu_us_per_segment", 61.0), ("delivered_share", 1.0)]);
        assert_eq!(budgets.check(&with, &["uring"], "privileged").1, 1);
    }

    #[test]
    fn the_projects_own_budgets_are_read_and_name_what_is_measured() {
        let budgets = Budgets::parse(include_str!("../../../budgets.toml")).unwrap();
        for budget in budgets.privileged.iter().chain(&budgets.confined) {
            let name = &budget.scenario;
            let limited = super::super::scenario::MULTIPLES
                .iter()
                .find_map(|multiple| name.strip_suffix(&format!("-{multiple}p")));
            assert!(super::super::Scenario::parse(limited.unwrap_or(name)).is_some(), "{name}");
        }
        assert!(budgets.privileged.iter().all(|budget| budget.limit(1.0) != Limit::None));
    }

    #[test]
    fn a_word_that_nobody_reads_is_refused() {
        assert!(Budgets::parse(&BUDGETS.replace("most", "at_most")).is_err());
    }

    #[test]
    fn numbers_are_short() {
        let texts = [4.8, 226_000.0, 0.99912, 60.0, 123.456].map(short);
        assert_eq!(texts, ["4.8", "226000", "0.999", "60", "123.5"]);
    }
}
