//! A simulator of the daemon in virtual time. One seed is one run: a random world, which breaks in
//! all the ways that it knows, and the production code from the rings to the spool's disk.
//!
//! ```text
//!   plan ──► run ──► daemon: Ingest ► Rings ► Sender ► Uploader ──► service   throttles, hangs ...
//!               kernel ───────►│               │                             and credentials
//!               drops          │               └─► SpoolThread ──► disk      fills, lies ...
//!                              ▼
//!   ledger, watch: each document is delivered, counted for a true reason, or on the disk
//! ```
//!
//! Each seed has a run with segments and one with spans. Spans come through their queue, which
//! refuses them if memory is full, and nothing that it has accepted may be dropped for memory.
//!
//! All tasks of a run share one thread and a tokio runtime with paused time, so a seed always gives
//! the same history. A failing seed is shrunk, and its command is printed:
//!
//! ```text
//! XRAY_SIMULATE_SEED=17 XRAY_SIMULATE_WITHOUT=3,4 cargo test --test simulate promises
//! XRAY_SIMULATE_SEEDS=100000 XRAY_SIMULATE_FROM=5000 cargo test --test simulate promises
//! ```

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod calls;
mod daemon;
mod disk;
mod documents;
mod door;
mod format;
mod history;
mod kernel;
mod ledger;
mod plan;
mod power;
mod run;
mod seeds;
mod service;
mod shrink;
mod spans;
mod watch;
mod world;

use history::text;
use plan::Plan;
use run::run;
use std::fmt::Write as _;
use std::panic::PanicHookInfo;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;
use xrayd::base::account::Signal;

/// How many seeds run without XRAY_SIMULATE_SEEDS.
const SEED_COUNT: u64 = 2_000;

/// The same with spans. They pass through the same sender, so fewer seeds keep CI short.
const SPAN_SEED_COUNT: u64 = 500;

/// How many events a run has at least, on average.
const EVENT_COUNT_MIN: u64 = 200;

/// In one of this many runs, at least, receivers leave so much to the kernel that it drops.
const SHED_EVERY: u64 = 50;

/// Returns the number in an environment variable.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Hides the panics that the simulated service causes.
fn hide_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if info.payload_as_str() != Some(service::PANIC) {
                usual(info);
            }
        }));
    });
}

/// Runs a plan. A panic is a failure too.
fn failure(plan: &Plan) -> (Vec<history::Event>, Option<String>) {
    match std::panic::catch_unwind(|| run(plan)) {
        Ok(report) => (report.events, report.failure),
        Err(_) => (Vec::new(), Some("a panic, see above".to_owned())),
    }
}

/// Shrinks a plan that fails, and returns all that is needed to understand it.
fn explain(plan: &Plan) -> String {
    let (events, reason) = failure(plan);
    let (seed, signal) = (plan.seed, plan.signal);
    let mut explained = format!("seed {seed}: {signal}: {}\n", reason.unwrap_or_default());
    if events.is_empty() {
        return explained;
    }
    let small = if plan.without.is_empty() { shrink::shrink(plan.clone()) } else { plan.clone() };
    let (events, reason) = failure(&small);
    let _ = writeln!(explained, "{:#?}\nan earlier version left {:?}", small.first, small.older);
    for step in small.steps() {
        let _ = writeln!(explained, "after {:?}: {:?}", step.pause, step.action);
    }
    explained += &text(&events);
    let without: Vec<String> = small.without.iter().map(ToString::to_string).collect();
    let _ = writeln!(
        explained,
        "{}\nXRAY_SIMULATE_SEED={seed} XRAY_SIMULATE_WITHOUT={} cargo test --test simulate \
         promises_for_{signal}",
        reason.unwrap_or_default(),
        without.join(",")
    );
    explained
}

#[test]
fn the_daemon_keeps_its_promises_for_segments_with_every_seed() {
    check(Signal::Segments);
}

#[test]
fn the_daemon_keeps_its_promises_for_spans_with_every_seed() {
    check(Signal::Spans);
}

#[allow(clippy::print_stdout, reason = "the rate is for the person who runs the seeds")]
fn check(signal: Signal) {
    hide_panics();
    let draw = |seed| Plan::draw_for(signal, seed);
    if let Some(seed) = number("XRAY_SIMULATE_SEED") {
        let mut plan = draw(seed);
        let without = std::env::var("XRAY_SIMULATE_WITHOUT").unwrap_or_default();
        plan.without = without.split(',').filter_map(|index| index.parse().ok()).collect();
        let (events, reason) = failure(&plan);
        println!("{} events", events.len());
        assert!(reason.is_none(), "{}", explain(&plan));
        return;
    }
    let first = number("XRAY_SIMULATE_FROM").unwrap_or_default();
    let usual = if signal == Signal::Spans { SPAN_SEED_COUNT } else { SEED_COUNT };
    let end = first + number("XRAY_SIMULATE_SEEDS").unwrap_or(usual);
    let (next, failed) = (AtomicU64::new(first), AtomicU64::new(u64::MAX));
    let (event_count, shed_count) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || failed.load(Ordering::Relaxed) < seed {
                        return;
                    }
                    let (events, reason) = failure(&draw(seed));
                    event_count.fetch_add(events.len() as u64, Ordering::Relaxed);
                    let has_shed = events.iter().any(|event| event.name == "kernel drops");
                    shed_count.fetch_add(u64::from(has_shed), Ordering::Relaxed);
                    if reason.is_some() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (count, seconds) = (end - first, start.elapsed().as_secs_f64());
    let failed = failed.into_inner();
    assert!(failed == u64::MAX, "{}", explain(&draw(failed)));
    let events = event_count.into_inner() / count;
    let shed_count = shed_count.into_inner();
    println!(
        "{count} seeds of {signal}, {:.1} seeds/s, {events} events a run, the kernel drops in \
         {shed_count}",
        count as f64 / seconds
    );
    let sheds_enough = shed_count * SHED_EVERY >= count || signal == Signal::Spans;
    assert!(count < 200 || sheds_enough, "the kernel drops in {shed_count}");
    assert!(events >= EVENT_COUNT_MIN, "{events} events a run");
}

#[test]
fn a_seed_always_has_the_same_history() {
    hide_panics();
    for (seed, signal) in (0..40).flat_map(|seed| [(seed, Signal::Segments), (seed, Signal::Spans)])
    {
        let plan = Plan::draw_for(signal, seed);
        let (first, second) = (run(&plan), run(&plan));
        let differs = first.events.iter().zip(&second.events).position(|(a, b)| a != b);
        if let Some(place) = differs {
            panic!("seed {seed}: {:?} and {:?}", first.events[place], second.events[place]);
        }
        assert_eq!(first.events.len(), second.events.len(), "seed {seed}");
    }
}
