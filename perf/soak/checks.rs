//! The conditions that must hold at the end of a soak.

use super::Run;
use super::watch::{Sample, median};

/// A condition that must hold, whether it held, and the measured numbers.
pub struct Check {
    /// The condition, in words.
    pub name: &'static str,
    /// Whether the condition held.
    pub is_kept: bool,
    /// The measured numbers.
    pub numbers: String,
}

const MEGABYTE: u64 = 1024 * 1024;

/// The last `Account:` line of the daemon.
#[derive(Debug, Default)]
pub struct Account {
    /// The text of the line.
    pub line: String,
}

impl Account {
    /// Returns the number after `name=` in the line, or 0 if the line does not have the name.
    pub fn get(&self, name: &str) -> u64 {
        let mut words = self.line.split([' ', '(', ')']);
        let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or_default()
    }
}

/// Returns all checks.
pub fn all(run: &Run) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut check = |name, is_kept, numbers| checks.push(Check { name, is_kept, numbers });
    let (account, tally) = (&run.account, &run.tally);
    let get = |name: &str| account.get(name);

    let numbers = format!("{}, clean log: {}", run.exit, run.complaints.is_empty());
    check("the daemon ends in order", run.is_success && run.complaints.is_empty(), numbers);

    let incoming = get("received") + get("replayed");
    let settled = get("sent") + get("rejected") + get("dropped") + get("spooled") + get("held");
    let numbers = format!("{incoming} incoming, {settled} accounted for, {} held", get("held"));
    check("the account balances", incoming == settled && get("held") == 0 && incoming > 0, numbers);

    let arrived = get("received") + get("kernel_drops");
    let numbers = format!("{} sent to the daemon, {arrived} counted", run.sent_count);
    check(
        "every datagram is received or dropped by the kernel",
        run.sent_count == arrived,
        numbers,
    );

    let distinct = tally.distinct_count();
    let lost = get("rejected") + get("dropped");
    // If the answer to a request was lost, the endpoint may have accepted segments that the daemon
    // counts as lost.
    let both = (distinct + lost).saturating_sub(get("received"));
    let numbers = format!(
        "{distinct} accepted by the endpoint + {lost} lost by the account, {} received; {both} in \
         both, of {} accepted without an answer",
        get("received"),
        tally.lost_answer_count
    );
    let is_kept = distinct + lost >= get("received") && both <= tally.lost_answer_count.min(lost);
    check("every document is accepted or counted as lost", is_kept, numbers);

    let numbers = format!(
        "{} duplicates, {} accepted without an answer, {} accepted again after an answer",
        tally.accepted_count - distinct,
        tally.lost_answer_count,
        tally.needlessly_doubled_count
    );
    let is_kept = tally.accepted_count - distinct <= tally.lost_answer_count
        && tally.needlessly_doubled_count == 0;
    check("documents arrive twice only if an answer was lost", is_kept, numbers);

    let (refused, poison) = (get("refused"), tally.poison_refused.len() as u64);
    let losses = get("dropped") + get("kernel_drops");
    let numbers = format!(
        "{refused} refused, {} rejected in total, {poison} poison refused alone, {} sent",
        get("rejected"),
        run.poison_count
    );
    let is_kept = refused == get("rejected")
        && refused <= poison
        && poison <= run.poison_count
        && run.poison_count - refused <= losses;
    check("exactly the poison is rejected", is_kept, numbers);

    let numbers = format!("{} requests", tally.malformed_request_count);
    check("no document is changed", tally.malformed_request_count == 0, numbers);

    memory(run, &mut check);
    checks
}

fn memory(run: &Run, check: &mut impl FnMut(&'static str, bool, String)) {
    let fifth = |index: usize| {
        let length = run.samples.len() / 5;
        &run.samples[index * length..(index + 1) * length]
    };
    let resident = |samples: &[Sample]| median(samples.iter().map(|one| one.resident.now_bytes));
    let (second, last) = (resident(fifth(1)), resident(fifth(4)));
    let limit = (second + second / 10).max(second + 4 * MEGABYTE);
    let numbers =
        format!("median {:.1} MB, then {:.1} MB", in_megabytes(second), in_megabytes(last));
    check("memory is flat from the second fifth to the last", last <= limit, numbers);

    let most = run.samples.iter().map(|one| one.resident.most_bytes).max().unwrap_or_default();
    let limit = (run.options.memory_mb + 16) * MEGABYTE;
    let numbers = format!("{:.1} MB at most, {} MB allowed", in_megabytes(most), limit / MEGABYTE);
    check("memory stays within -m plus 16 MB", most > 0 && most <= limit, numbers);
}

/// Converts bytes to megabytes for a table.
pub fn in_megabytes(bytes: u64) -> f64 {
    bytes as f64 / MEGABYTE as f64
}
