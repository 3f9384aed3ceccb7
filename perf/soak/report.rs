//! Prints the results of a soak as Markdown.

#![allow(clippy::print_stdout, reason = "the program prints a report")]

use super::Run;
use super::checks::{Check, in_megabytes};
use super::machine::{Machine, load_average};
use std::collections::HashMap;
use std::time::Duration;

/// Prints the whole report.
pub fn print(run: &Run, checks: &[Check]) {
    let options = &run.options;
    println!("{}, load average at the end {}\n", Machine::read(), load_average());
    println!(
        "{} s of faults at {} documents of {} bytes a second, seed {}, `-m {}`, {}; {} profile.\n",
        options.seconds,
        options.rate,
        super::document::DOCUMENT_BYTES,
        options.seed,
        options.memory_mb,
        if options.has_spool { "with a spool" } else { "no spool" },
        if cfg!(debug_assertions) { "debug" } else { "bench" },
    );
    println!("Start-up line: `{}`\n", run.start_line);
    println!("Account: `{}`\n", run.account.line);
    println!("| | | |\n|---|---|---|");
    for check in checks {
        let verdict = if check.is_kept { "OK" } else { "FAILED" };
        println!("| {} | {verdict} | {} |", check.name, check.numbers);
    }
    println!();
    costs(run);
    faults(run);
    over_time(run);
    for line in &run.complaints {
        println!("In the log: `{line}`\n");
    }
    if !run.tally.malformed_example.is_empty() {
        println!("A changed body: `{}`\n", run.tally.malformed_example);
    }
}

/// Prints CPU time and latency.
fn costs(run: &Run) {
    let (Some(first), Some(last)) = (run.samples.first(), run.samples.last()) else { return };
    let segment_count =
        last.metric("xray_segments_received_total") - first.metric("xray_segments_received_total");
    let each = |seconds: f64| 1e6 * seconds / segment_count.max(1.0);
    let cpu_time = last.cpu_time().saturating_sub(first.cpu_time()).as_secs_f64();
    println!(
        "CPU time: {:.2} us per segment, including faults and retries; {:.1} % of one \
         processor.",
        each(cpu_time),
        100.0 * cpu_time / (last.time - first.time).as_secs_f64()
    );
    let mut threads: Vec<_> = last.cpu_times.iter().collect();
    threads.sort_by_key(|(_, time)| std::cmp::Reverse(**time));
    let parts = threads.iter().filter_map(|(name, time)| {
        let before = first.cpu_times.get(*name).copied().unwrap_or_default();
        let time = time.saturating_sub(before);
        (time.as_millis() > 10).then(|| format!("{name} {:.2}", each(time.as_secs_f64())))
    });
    println!("By thread: {} us.\n", parts.collect::<Vec<_>>().join(", "));
    let held_most = run.samples.iter().filter_map(super::Sample::held_count).fold(0.0, f64::max);
    println!(
        "Held at most: {held_most} segments. After the end of the load the remaining segments were \
         sent in {:.1} s. \
         The endpoint's own longest pause: {:.0} ms.\n",
        run.drain_time.as_secs_f64(),
        run.tally.lag_max.as_secs_f64() * 1e3,
    );
}

fn faults(run: &Run) {
    let total: f64 = run.tally.fault_times.values().map(Duration::as_secs_f64).sum();
    // Sums for each fault. The fault at the beginning of a second counts for the whole second.
    let (mut sent, mut dropped) = (HashMap::new(), HashMap::new());
    let (mut silence, mut silence_longest) = (Duration::ZERO, Duration::ZERO);
    for pair in run.samples.windows(2) {
        let [before, after] = pair else { continue };
        let gain = |name: &str| after.metric(name) - before.metric(name);
        let sent_count = gain("xray_segments_sent_total");
        *sent.entry(before.fault_name).or_insert(0.0) += sent_count;
        let dropped_count = gain("xray_segments_dropped_total");
        *dropped.entry(before.fault_name).or_insert(0.0) += dropped_count;
        let is_calm = before.fault_name == "none" && after.fault_name == "none";
        silence = if is_calm && sent_count <= 0.0 {
            silence + (after.time - before.time)
        } else {
            Duration::ZERO
        };
        silence_longest = silence_longest.max(silence);
    }
    println!(
        "| fault | share of the time | sent meanwhile | dropped meanwhile |\n|---|---|---|---|"
    );
    for (name, time) in &run.tally.fault_times {
        let share = 100.0 * time.as_secs_f64() / total;
        let of = |counts: &HashMap<&str, f64>| counts.get(name).copied().unwrap_or_default();
        println!("| {name} | {share:.1} % | {} | {} |", of(&sent), of(&dropped));
    }
    println!(
        "\nThe longest time without a delivery while there was no fault: {:.0} s.",
        silence_longest.as_secs_f64()
    );
    println!("\n| requests, including the outage at the start | |\n|---|---|");
    for (outcome, count) in &run.tally.requests {
        println!("| {outcome} | {count} |");
    }
    println!();
}

fn over_time(run: &Run) {
    println!(
        "| s | fault | resident MB | pool MB | received | sent | dropped | kernel drops | held | \
         retried | throttled | refused | limit /s |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    let step = run.samples.len().div_ceil(run.options.row_count.max(1)).max(1);
    let last = run.samples.len().saturating_sub(1);
    for (index, sample) in run.samples.iter().enumerate() {
        if index % step != 0 && index != last {
            continue;
        }
        let metric = |name: &str| sample.metric(name);
        println!(
            "| {} | {} | {:.1} | {:.1} | {} | {} | {} | {} | {} | {} | {} | {} | {:.0} |",
            sample.time.as_secs(),
            sample.fault_name,
            in_megabytes(sample.resident.now_bytes),
            metric("xray_memory_used_bytes") / 1024.0 / 1024.0,
            metric("xray_segments_received_total"),
            metric("xray_segments_sent_total"),
            metric("xray_segments_dropped_total"),
            metric("xray_kernel_drops_total"),
            sample.held_count().map_or("?".to_owned(), |count| count.to_string()),
            metric("xray_requests_retried_total"),
            metric("xray_requests_throttled_total"),
            metric("xray_requests_refused_total"),
            metric("xray_upload_rate_limit"),
        );
    }
    println!();
}
