//! Reads the account that a daemon logs on shutdown and exports on `/metrics`, and checks that the
//! account balances.

use std::collections::BTreeMap;
use std::fmt;

/// The terms of the account. `CAME` counts incoming segments, and `WENT` counts what became of
/// them.
const CAME: [&str; 2] = ["received", "replayed"];
const WENT: [&str; 5] = ["sent", "rejected", "dropped", "spooled", "held"];

/// The account of a daemon: a count of segments for each term, such as `sent`. An absent term has
/// the count 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    totals: BTreeMap<String, u64>,
    /// The count of each pair of a term and a reason, such as `rejected` and `header`.
    reasons: BTreeMap<(String, String), u64>,
}

impl Account {
    /// Returns the last account in a log, or `None` if the log has no account.
    pub fn of_log(log: &str) -> Option<Self> {
        Self::after(log, "Account: ")
    }

    /// Returns the last account of spans in a log.
    pub fn of_spans(log: &str) -> Option<Self> {
        Self::after(log, "Account of spans: ")
    }

    fn after(log: &str, name: &str) -> Option<Self> {
        let line = log.lines().rfind(|line| line.contains(name))?;
        Some(Self::of_line(line.split(name).nth(1)?))
    }

    /// Reads an account from the end of a log line, such as `received=520 sent=500 rejected=20
    /// (header=15 no_document=5) dropped=0 kernel_drops=0`.
    fn of_line(line: &str) -> Self {
        let mut account = Self::default();
        let mut term = String::new();
        let mut in_reasons = false;
        // In a JSON log, the end of the JSON object follows the account.
        for word in line.trim_end_matches(['"', '}']).split_whitespace() {
            in_reasons |= word.starts_with('(');
            if let Some((name, count)) = word.trim_matches(['(', ')', ',']).split_once('=') {
                let count = count.parse().unwrap_or_else(|_| panic!("{word} in {line}"));
                if in_reasons {
                    account.reasons.insert((term.clone(), name.to_owned()), count);
                } else {
                    term = name.to_owned();
                    account.totals.insert(term.clone(), count);
                }
            }
            in_reasons &= !word.ends_with(')');
        }
        account
    }

    /// Reads the account from a page of metrics.
    pub fn of_metrics(page: &str) -> Self {
        let mut account = Self::default();
        let values = page.lines().filter_map(|line| line.rsplit_once(' '));
        for (name, value) in values {
            let (name, label) = name.split_once("{reason=\"").unwrap_or((name, ""));
            let term = name.strip_prefix("xray_segments_").or(name.strip_prefix("xray_"));
            let Some(term) = term.map(|term| term.strip_suffix("_total").unwrap_or(term)) else {
                continue;
            };
            if !CAME.iter().chain(&WENT).chain(&["kernel_drops"]).any(|known| *known == term) {
                continue;
            }
            let count = value.parse().unwrap_or_else(|_| panic!("{name} {value}"));
            *account.totals.entry(term.to_owned()).or_default() += count;
            if !label.is_empty() {
                let reason = label.trim_end_matches("\"}").to_owned();
                account.reasons.insert((term.to_owned(), reason), count);
            }
        }
        account
    }

    /// Returns the count of a term over all reasons, or 0 if the term is absent.
    pub fn get(&self, term: &str) -> u64 {
        self.totals.get(term).copied().unwrap_or_default()
    }

    /// Returns the count of a term for this reason only, or 0 if there is none.
    pub fn reason(&self, term: &str, reason: &str) -> u64 {
        let key = (term.to_owned(), reason.to_owned());
        self.reasons.get(&key).copied().unwrap_or_default()
    }

    /// Returns the incoming segments minus the segments with a known end: a positive value means
    /// that segments are missing, a negative value that segments were counted twice. If that
    /// difference is 0, returns the difference between the totals of `rejected` and `dropped` and
    /// the sums of their reasons.
    pub fn imbalance(&self) -> i64 {
        let sum = |terms: &[&str]| terms.iter().map(|term| self.get(term)).sum::<u64>();
        let difference = sum(&CAME).cast_signed() - sum(&WENT).cast_signed();
        let unexplained = ["rejected", "dropped"].map(|term| {
            let reasons = self.reasons.iter().filter(|((of, _), _)| of == term);
            self.get(term).cast_signed()
                - reasons.map(|(_, count)| count).sum::<u64>().cast_signed()
        });
        if difference != 0 { difference } else { unexplained.into_iter().sum() }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?} {:?}", self.totals, self.reasons)
    }
}

#[test]
fn an_account_of_today_and_one_with_a_spool_are_read_alike() {
    let old = Account::of_log(
        "x Account: received=520 sent=500 rejected=20 (header=15 no_document=5) dropped=0 \
         kernel_drops=3\ny",
    );
    let new = Account::of_log(
        "x Account: received=520 replayed=0 sent=500 rejected=20 (header=15 no_document=5) \
         dropped=0 spooled=0 held=0 kernel_drops=3",
    );
    for account in [old.unwrap(), new.unwrap()] {
        assert_eq!(account.imbalance(), 0);
        assert_eq!(account.reason("rejected", "no_document"), 5);
        assert_eq!((account.get("kernel_drops"), account.get("held")), (3, 0));
    }
}

#[test]
fn a_segment_that_is_missing_or_counted_twice_unbalances_an_account() {
    for (line, imbalance) in [
        ("received=2 replayed=3 sent=1 rejected=0 dropped=0 spooled=4 held=0", 0),
        ("received=2 replayed=3 sent=1 rejected=0 dropped=0 spooled=3 held=0", 1),
        ("received=2 sent=1 rejected=1 (header=1) dropped=1 (memory=1)", -1),
        ("received=2 sent=1 rejected=1 (header=1) dropped=0 held=0", 0),
        ("received=2 sent=1 rejected=1 dropped=0 held=0", 1),
    ] {
        assert_eq!(Account::of_line(line).imbalance(), imbalance, "{line}");
    }
}

#[test]
fn a_page_of_metrics_is_an_account() {
    let page = "# TYPE xray_segments_sent counter\nxray_segments_received_total 9\n\
                xray_segments_sent_total 4\nxray_segments_rejected_total{reason=\"header\"} 2\n\
                xray_segments_dropped_total{reason=\"memory\"} 1\nxray_segments_held 2\n\
                xray_kernel_drops_total 7\nxray_build_info{version=\"0.1.0\"} 1\n";
    let account = Account::of_metrics(page);
    assert_eq!(account.imbalance(), 0, "{account}");
    assert_eq!((account.get("kernel_drops"), account.reason("dropped", "memory")), (7, 1));
}
