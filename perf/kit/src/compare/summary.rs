//! Combines the rounds of each scenario into one number per figure, and formats tables.

use super::row::Row;
use std::fmt::Write;

/// Columns of the tables for rates: figure, heading, decimal places.
const RATE_COLUMNS: [(&str, &str, usize); 17] = [
    ("memory_mb", "-m MB", 0),
    ("cpu_us_per_segment", "CPU us per segment", 2),
    ("floor_ratio", "x floor", 2),
    ("floor_parsing_ratio", "x floor with parsing", 2),
    ("delivered_per_s", "delivered /s", 0),
    ("offered_per_s", "offered /s", 0),
    ("goodput_share", "of the peak", 2),
    ("overload_share", "of 200,000/s", 2),
    ("delivered_share", "delivered", 4),
    ("lost", "lost", 0),
    ("kernel_drops", "kernel drops", 0),
    ("calls_per_s", "calls /s", 0),
    ("calls_at_once_max", "calls at once", 0),
    ("latency_p50_ms", "p50 ms", 1),
    ("latency_p99_ms", "p99 ms", 1),
    ("wake_ups_per_s", "wake-ups /s", 0),
    ("peak_mb", "peak MB", 1),
];

/// Columns of the table for loads of spans.
const SPAN_COLUMNS: [(&str, &str, usize); 17] = [
    ("memory_mb", "-m MB", 0),
    ("cpu_us_per_segment", "CPU us per span", 2),
    ("floor_ratio", "x floor", 2),
    ("collector_ratio", "x collector", 2),
    ("received_bytes_per_span", "bytes in", 0),
    ("sent_bytes_per_span", "bytes out", 0),
    ("delivered_per_s", "delivered /s", 0),
    ("offered_per_s", "offered /s", 0),
    ("refused", "refused", 0),
    ("lost", "lost", 0),
    ("calls_per_s", "calls /s", 1),
    ("segments_per_request", "spans a call", 0),
    ("latency_p50_ms", "p50 ms", 1),
    ("latency_p99_ms", "p99 ms", 1),
    ("wake_ups_per_s", "wake-ups /s", 0),
    ("machine_busy_share", "machine busy", 2),
    ("peak_mb", "peak MB", 1),
];

const OTHER_COLUMNS: [(&str, &str, usize); 15] = [
    ("memory_mb", "-m MB", 0),
    ("binary_mb", "program MB", 1),
    ("stripped_mb", "stripped MB", 1),
    ("delivered_share", "delivered", 4),
    ("offered_per_s", "offered /s", 0),
    ("lost", "lost", 0),
    ("kernel_drops", "kernel drops", 0),
    ("sockets", "sockets", 0),
    ("queues_mb", "queues MB", 1),
    ("latency_max_ms", "all within ms", 0),
    ("start_ms", "start ms", 1),
    ("idle_cpu_ms_per_minute", "CPU ms a minute", 2),
    ("wake_ups_per_s", "wake-ups /s", 2),
    ("resident_mb", "resident MB", 1),
    ("peak_mb", "peak MB", 1),
];

/// The name of an OpenTelemetry Collector among the contenders. The others are compared with it.
pub const COLLECTOR: &str = "collector";

/// The load that overload is compared with, in documents a second.
const REFERENCE_RATE: u32 = 200_000;

/// All rows of a run.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// The rows in the order of the run.
    pub rows: Vec<Row>,
}

impl Summary {
    /// Returns one number for all rounds: the worst round for losses and memory, the median for all
    /// other figures. Rows that do not count are left out. `floor_ratio` and `floor_parsing_ratio`
    /// are the CPU time per segment divided by the CPU time of the floor in the same round, and
    /// `collector_ratio` by that of the collector.
    /// `overload_share` is the delivered rate of a load above 200,000/s, divided by that at
    /// 200,000/s in the same round.
    pub fn figure(&self, scenario: &str, contender: &str, figure: &str) -> Option<f64> {
        let numbers = match figure {
            "floor_ratio" => self.ratios(scenario, contender, "floor"),
            "floor_parsing_ratio" => self.ratios(scenario, contender, "floor-parsing"),
            "collector_ratio" => self.ratios(scenario, contender, COLLECTOR),
            "overload_share" => self.overload_shares(scenario, contender),
            _ => {
                let rows = self.of(scenario, contender);
                rows.filter_map(|row| row.figures.get(figure).copied()).collect()
            }
        };
        match figure {
            "delivered_share" | "goodput_share" | "overload_share" => {
                numbers.into_iter().reduce(f64::min)
            }
            "peak_mb" | "latency_max_ms" | "kernel_drops" | "lost" | "refused" => {
                numbers.into_iter().reduce(f64::max)
            }
            _ => median(numbers),
        }
    }

    /// Returns the names of the scenarios, in the order of the run.
    pub fn scenarios(&self) -> Vec<&str> {
        in_order(self.rows.iter().map(|row| row.scenario.as_str()))
    }

    /// Returns the names of the contenders, sorted.
    pub fn contenders(&self) -> Vec<&str> {
        let mut names = in_order(self.rows.iter().map(|row| row.contender.as_str()));
        names.sort_unstable();
        names
    }

    /// Returns the backend that a contender runs on.
    pub fn backend(&self, contender: &str) -> Option<&str> {
        let mut rows = self.rows.iter().filter(|row| row.contender == contender);
        rows.find_map(|row| row.backend.as_deref())
    }

    fn of<'a>(&'a self, scenario: &'a str, contender: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| {
            row.scenario == scenario && row.contender == contender && row.discarded.is_none()
        })
    }

    /// Returns a line for each row that does not count.
    pub fn discarded(&self) -> Vec<String> {
        let line = |row: &Row| {
            let reason = row.discarded.as_deref()?;
            let (scenario, contender, round) = (&row.scenario, &row.contender, row.round + 1);
            Some(format!("- {scenario}, {contender}, round {round}, does not count: {reason}"))
        };
        self.rows.iter().filter_map(line).collect()
    }

    fn overload_shares(&self, scenario: &str, contender: &str) -> Vec<f64> {
        const DELIVERED: &str = "delivered_per_s";
        let rate = scenario.strip_prefix("rate-").and_then(|rate| rate.parse::<u32>().ok());
        if scenario != "flat" && rate.is_none_or(|rate| rate <= REFERENCE_RATE) {
            return Vec::new();
        }
        let reference = format!("rate-{REFERENCE_RATE}");
        let share = |row: &Row| {
            let mut rows = self.of(&reference, contender);
            let reference = rows.find(|reference| reference.round == row.round)?;
            Some(row.figures.get(DELIVERED)? / reference.figures.get(DELIVERED)?)
        };
        self.of(scenario, contender).filter_map(share).collect()
    }

    fn ratios(&self, scenario: &str, contender: &str, floor: &str) -> Vec<f64> {
        const COST: &str = "cpu_us_per_segment";
        let ratio = |row: &Row| {
            let floor = self.of(scenario, floor).find(|floor| floor.round == row.round)?;
            Some(row.figures.get(COST)? / floor.figures.get(COST)?)
        };
        self.of(scenario, contender).filter_map(ratio).collect()
    }

    /// Returns the tables in Markdown.
    pub fn tables(&self) -> String {
        let is_steady = |name: &&str| {
            let mut rows = self.rows.iter().filter(|row| row.scenario == *name);
            rows.any(|row| row.figures.contains_key("cpu_us_per_segment"))
        };
        let (spans, segments): (Vec<&str>, Vec<&str>) =
            self.scenarios().into_iter().partition(|name| name.starts_with("spans-"));
        let (steady, other): (Vec<&str>, _) = segments.into_iter().partition(is_steady);
        let mut text = String::new();
        self.table(&spans, &SPAN_COLUMNS, &mut text);
        self.table(&steady, &RATE_COLUMNS, &mut text);
        self.table(&other, &OTHER_COLUMNS, &mut text);
        text
    }

    fn table(&self, scenarios: &[&str], columns: &[(&str, &str, usize)], text: &mut String) {
        let has_one = |figure: &str| {
            let contenders = self.contenders();
            let mut pairs = scenarios.iter().flat_map(|s| contenders.iter().map(move |c| (s, c)));
            pairs.any(|(scenario, contender)| self.figure(scenario, contender, figure).is_some())
        };
        let columns: Vec<_> = columns.iter().filter(|(figure, ..)| has_one(figure)).collect();
        if columns.is_empty() {
            return;
        }
        let headings: Vec<_> = columns.iter().map(|(_, heading, _)| *heading).collect();
        let _ = writeln!(text, "| | | {} |", headings.join(" | "));
        let _ = writeln!(text, "|---|---|{}", "---|".repeat(columns.len()));
        for scenario in scenarios {
            for contender in self.contenders() {
                if self.of(scenario, contender).next().is_none() {
                    continue;
                }
                let cell = |(figure, _, digits): &&(&str, &str, usize)| {
                    let number = self.figure(scenario, contender, figure);
                    number.map_or(String::new(), |number| format!("{number:.digits$}"))
                };
                let cells: Vec<String> = columns.iter().map(cell).collect();
                let _ = writeln!(text, "| {scenario} | {contender} | {} |", cells.join(" | "));
            }
        }
        text.push('\n');
    }
}

/// Returns the median. For an even count, this is the mean of the middle two numbers.
pub fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    if numbers.len() % 2 == 1 {
        return numbers.get(middle).copied();
    }
    Some((numbers.get(middle.checked_sub(1)?)? + numbers.get(middle)?) / 2.0)
}

fn in_order<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(costs: &[(&str, usize, f64)]) -> Summary {
        let row = |&(contender, round, cost): &(&str, usize, f64)| {
            Row::example(contender, "rate-100", round, &[("cpu_us_per_segment", cost)])
        };
        Summary { rows: costs.iter().map(row).collect() }
    }

    #[test]
    fn a_cost_is_the_median_of_its_rounds() {
        let summary = summary(&[("a", 0, 3.0), ("a", 1, 100.0), ("a", 2, 1.0), ("b", 0, 7.0)]);
        assert_eq!(summary.figure("rate-100", "a", "cpu_us_per_segment"), Some(3.0));
        assert_eq!(summary.figure("rate-100", "c", "cpu_us_per_segment"), None);
        assert_eq!(summary.figure("flat", "a", "cpu_us_per_segment"), None);
    }

    #[test]
    fn a_ratio_is_to_the_floor_of_the_same_round() {
        // In this example the machine is half as fast in the second round.
        let rows = [("floor", 0, 2.0), ("a", 0, 3.0), ("a", 1, 6.0), ("floor", 1, 4.0)];
        let summary = summary(&rows);
        assert_eq!(summary.figure("rate-100", "a", "floor_ratio"), Some(1.5));
        assert_eq!(summary.figure("rate-100", "a", "floor_parsing_ratio"), None);
        assert_eq!(summary.figure("rate-100", "a", "collector_ratio"), None);
    }

    #[test]
    fn a_load_of_spans_has_its_own_table_with_the_ratio_to_the_collector() {
        let row = |contender, scenario, cost| {
            Row::example(contender, scenario, 0, &[("cpu_us_per_segment", cost)])
        };
        let name = "spans-http-10000";
        let rows = vec![row("a", name, 3.0), row("collector", name, 12.0), row("a", "flat", 5.0)];
        let text = Summary { rows }.tables();
        let expected = "| | | CPU us per span | x collector |\n|---|---|---|---|\n\
                        | spans-http-10000 | a | 3.00 | 0.25 |\n\
                        | spans-http-10000 | collector | 12.00 | 1.00 |\n\n\
                        | | | CPU us per segment |\n|---|---|---|\n\
                        | flat | a | 5.00 |\n\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn losses_and_memory_are_those_of_the_worst_round() {
        let figures = |share, peak| [("delivered_share", share), ("peak_mb", peak)];
        let rows = [(0, 1.0, 5.0), (1, 0.5, 9.0), (2, 0.9, 7.0)];
        let rows = rows
            .map(|(round, share, peak)| Row::example("a", "flat", round, &figures(share, peak)));
        let summary = Summary { rows: rows.into() };
        assert_eq!(summary.figure("flat", "a", "delivered_share"), Some(0.5));
        assert_eq!(summary.figure("flat", "a", "peak_mb"), Some(9.0));
    }

    #[test]
    fn overload_is_compared_with_200000_of_the_same_round() {
        let row = |scenario, round, delivered| {
            Row::example("a", scenario, round, &[("delivered_per_s", delivered)])
        };
        let rows = vec![
            row("rate-200000", 0, 200.0),
            row("rate-200000", 1, 100.0),
            row("rate-300000", 0, 190.0),
            row("rate-300000", 1, 50.0),
            row("flat", 1, 110.0),
        ];
        let summary = Summary { rows };
        assert_eq!(summary.figure("rate-300000", "a", "overload_share"), Some(0.5));
        assert_eq!(summary.figure("flat", "a", "overload_share"), Some(1.1));
        assert_eq!(summary.figure("rate-200000", "a", "overload_share"), None);
        assert_eq!(summary.figure("rate-300000", "b", "overload_share"), None);
    }

    #[test]
    fn a_row_that_does_not_count_is_named_and_changes_no_figure() {
        let mut summary = summary(&[("a", 0, 3.0), ("a", 1, 5.0), ("b", 0, 7.0)]);
        summary.rows[1].discarded = Some("the sender was busy".into());
        assert_eq!(summary.figure("rate-100", "a", "cpu_us_per_segment"), Some(3.0));
        let lines = summary.discarded();
        assert_eq!(lines, ["- rate-100, a, round 2, does not count: the sender was busy"]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![2.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn a_table_has_a_row_for_each_that_took_part_and_no_empty_column() {
        let text = summary(&[("a", 0, 3.0), ("b", 0, 7.0)]).tables();
        let expected = "| | | CPU us per segment |\n|---|---|---|\n\
                        | rate-100 | a | 3.00 |\n| rate-100 | b | 7.00 |\n\n";
        assert_eq!(text, expected);
    }
}
