//! Runs a plan, and checks the promises of the daemon at its end.
//!
//! In: a plan. Out: a [`Report`] with the history and the first broken promise. After the last step
//! all of the world works again, and then the daemon has to deliver what it holds. Bound: one
//! thread, in virtual time.

use super::daemon::{Daemon, found};
use super::disk::Mood as DiskMood;
use super::documents::SIZE_MIN;
use super::format::older_files;
use super::history::Event;
use super::plan::{Action, End, Plan};
use super::service::{Mood, Source};
use super::world::World;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::sleep;
use xrayd::base::account::Signal;
use xrayd::base::clock::Clock;
use xrayd::pipeline::spool::{Next, Options, Spool};

/// The time in which all must be delivered once all works: pauses after failures, throttling and
/// denied calls, and the longest pause that the simulated service asks for. Each document adds to
/// it, because a daemon that was throttled begins with few documents a second.
const CALM_TIME: Duration = Duration::from_secs(150);
const CALM_TIME_PER_DOCUMENT: Duration = Duration::from_millis(50);

/// The time in which a single document is delivered while all works.
const PROBE_TIME: Duration = Duration::from_secs(4);

/// The time between two drains of an overload.
const OVERLOAD_TICK: Duration = Duration::from_millis(5);

/// The documents a second that the rate limit must have reached one minute after throttling.
const RATE_MIN: f64 = 500.0;

/// The time of an answer at the end of some runs, and the documents that come then each tenth of a
/// second, and for how many tenths. The calls at the start carry 200 documents a second, and would
/// need half a minute more. With more calls, all must be delivered within [`CARRY_TIME`].
const CARRY_ANSWER_MS: u64 = 2_000;
const CARRY_COUNT: u32 = 32;
const CARRY_TENTHS: u32 = 500;
const CARRY_TIME: Duration = Duration::from_secs(18);

/// One of how many runs ends like this, of those in which memory allows enough calls.
const CARRY_EVERY: u64 = 6;

/// The result of a simulation.
#[derive(Debug)]
pub struct Report {
    pub events: Vec<Event>,
    pub failure: Option<String>,
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Report {
    fastrand::seed(plan.seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let world = World::new((plan.signal, plan.to), fastrand::Rng::with_seed(!plan.seed));
        simulate(plan, &world).await;
        let failure = world.ledger().failure();
        Report { events: world.history.take(), failure }
    })
}

async fn simulate(plan: &Plan, world: &World) {
    // No earlier version has spooled spans.
    if plan.first.spool_bytes.is_some() && plan.signal == Signal::Segments {
        put_older(plan, world);
    }
    let mut daemon = Daemon::start(world, plan.first, false);
    let mut has_damage = false;
    for step in plan.steps() {
        sleep(step.pause).await;
        match step.action {
            Action::Send { count, size_bytes } => _ = daemon.send(count, size_bytes, false),
            Action::Overload { count, size_bytes, tick_count } => {
                world.history.note("overload", tick_count.into(), count.into());
                for _ in 0..tick_count {
                    daemon.send(count, size_bytes, false);
                    sleep(OVERLOAD_TICK).await;
                }
            }
            Action::SendRefused => _ = daemon.send(1, SIZE_MIN, true),
            Action::Service(mood) => {
                world.history.note(mood.name(), 0, 0);
                world.service().mood = mood;
            }
            Action::Disk(mood) => {
                world.history.note(mood.name(), 0, 0);
                world.disk.set_mood(mood);
                daemon.note_disk();
            }
            Action::Credentials(source) => world.service().source = source,
            Action::SetDate { seconds } => world.set_host_error(seconds),
            Action::Suspend { time } => {
                world.history.note("suspend", time.as_secs(), 0);
                world.suspend(time);
                daemon.account.clock.advance(time);
            }
            Action::Ask => _ = daemon.held().await,
            Action::End(end, settings) => {
                has_damage |= matches!(end, End::InCall { .. });
                match end {
                    End::Term { time } => daemon.terminate(time, None).await,
                    End::TermTwice { after } => {
                        daemon.terminate(Duration::from_secs(8), Some(after)).await;
                    }
                    End::Kill => daemon.kill().await,
                    End::InCall { call_count, power } => {
                        daemon.kill_in_call(call_count, power).await;
                    }
                }
                // A write that failed may have left a part of a record.
                has_damage |= world.disk.has_failed();
                world.disk.restart();
                if world.ledger().failure().is_some() {
                    return;
                }
                daemon = Daemon::start(world, settings, has_damage);
            }
        }
        if world.ledger().failure().is_some() {
            return;
        }
    }
    finish(daemon, world, plan.seed.is_multiple_of(CARRY_EVERY)).await;
}

/// Puts records onto the disk that an earlier version of xrayd has left.
fn put_older(plan: &Plan, world: &World) {
    let (record_count, settled_count) = plan.older;
    if record_count == 0 {
        return;
    }
    let mut ledger = world.ledger();
    let mut record = |count: usize| -> Vec<(u32, usize)> {
        let size_bytes = SIZE_MIN + 10 * count;
        (0..count).map(|_| (ledger.send(size_bytes, false, 0), size_bytes)).collect()
    };
    let records: Vec<_> = (1..=record_count).map(|index| record(7 * index)).collect();
    let settled = records.iter().take(settled_count).flatten();
    settled.for_each(|(number, _)| ledger.settled_before(*number));
    let created_at = world.true_date().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (data, progress) = older_files(&records, created_at, settled_count);
    world.disk.put("0000000005.spool", data);
    if settled_count > 0 {
        world.disk.put("0000000005.done", progress);
    }
    // A file of a later version, with another suffix. No version touches it.
    world.disk.put("0000000006.spool2", b"a later version".to_vec());
}

/// Lets all work again, waits until all is delivered, and ends the daemon.
async fn finish(mut daemon: Daemon, world: &World, carries: bool) {
    world.history.note("all works", 0, 0);
    world.service().mood = Mood::Works;
    world.service().source = Source::Gives { seconds: 3_600 };
    world.disk.set_mood(DiskMood::Works);
    if daemon.has_route() {
        if !deliver(&mut daemon, world).await {
            return;
        }
        if daemon.account.rate_limit() > 0.0 {
            for _ in 0..70 {
                daemon.send(1, SIZE_MIN, false);
                sleep(Duration::from_secs(1)).await;
            }
            let rate = daemon.account.rate_limit();
            if rate > 0.0 && rate < RATE_MIN {
                let text = format!("after a minute the rate limit is {rate} documents a second");
                world.ledger().fail(text);
            }
        }
        for pause_ms in [0, 1_300, 2_700] {
            sleep(Duration::from_millis(pause_ms)).await;
            let number = daemon.send(1, SIZE_MIN, false);
            sleep(PROBE_TIME).await;
            let Some(number) = number else {
                world.ledger().fail("a probe is refused, although all works".to_owned());
                continue;
            };
            if !world.ledger().is_done(number) {
                let text = format!("document {number} is not delivered within {PROBE_TIME:?}");
                world.ledger().fail(text);
            }
        }
    }
    if carries && daemon.has_route() && daemon.has_many_calls() {
        carry(&mut daemon, world).await;
    }
    daemon.terminate(Duration::from_secs(8), None).await;
    if world.ledger().failure().is_none() {
        let left = found(world, &world.disk);
        let on_disk = left.documents.values().map(|it| it.0).sum();
        check_fresh_open(world, on_disk);
        world.ledger().verify(&left);
    }
}

/// Lets the answers take longer than before for good, and sends more than the calls at the start
/// carry. Nothing may be lost, and little may wait at the end.
async fn carry(daemon: &mut Daemon, world: &World) {
    world.history.note("answers take longer", CARRY_ANSWER_MS, 0);
    world.service().mood = Mood::Slow { ms: CARRY_ANSWER_MS };
    let dropped_count = daemon.account.dropped_total();
    for _ in 0..CARRY_TENTHS {
        daemon.send(CARRY_COUNT, SIZE_MIN, false);
        sleep(Duration::from_millis(100)).await;
    }
    sleep(CARRY_TIME).await;
    let Some(held_count) = daemon.held().await else { return };
    let dropped_count = daemon.account.dropped_total() - dropped_count;
    if held_count > 0 || dropped_count > 0 {
        let limit = daemon.account.calls.limit();
        world.ledger().fail(format!(
            "with answers after {CARRY_ANSWER_MS} ms, {held_count} segments are left and \
             {dropped_count} are dropped; up to {limit} calls are in flight"
        ));
    }
    world.service().mood = Mood::Works;
}

/// Waits until the daemon holds nothing and its spool has nothing. Returns whether that happens in
/// time, and whether all chunks are back in the pool.
async fn deliver(daemon: &mut Daemon, world: &World) -> bool {
    let count = u32::try_from(world.ledger().document_count()).unwrap();
    let end_at = Clock::instant() + CALM_TIME + CALM_TIME_PER_DOCUMENT * count;
    for round in 1.. {
        sleep(Duration::from_secs(2)).await;
        if round % 15 == 0 {
            // A document that is refused alone is kept until the service accepts another one.
            daemon.send(1, SIZE_MIN, false);
        }
        let Some(held_count) = daemon.held().await else { return false };
        let on_disk = match (held_count, daemon.has_spool()) {
            (0, true) => found(world, &world.disk).documents.len(),
            _ => 0,
        };
        if held_count == 0 && on_disk == 0 && daemon.queued_count() == 0 {
            break;
        }
        if Clock::instant() >= end_at {
            world.ledger().fail(format!(
                "although all works, {held_count} segments are held and {on_disk} are on the disk: \
                 {}",
                daemon.account.summary(held_count)
            ));
            return false;
        }
    }
    let used = daemon.pool.used();
    if used > 0 {
        world.ledger().fail(format!("{used} chunks are in use, although nothing is held"));
    }
    used == 0
}

/// Checks that a spool that is opened afresh finds as many documents as there are on the disk.
fn check_fresh_open(world: &World, on_disk: usize) {
    let options = Options {
        path: PathBuf::from("spool"),
        size_bytes_max: u64::MAX,
        age_max: Duration::from_secs(u64::MAX / 4),
    };
    let clock = Clock::simulated(1_000, world.true_date());
    let opened = Spool::open_for(world.signal, Arc::new(world.disk.copy()), options, clock.now());
    let mut spool = match opened {
        Ok((spool, _)) => spool,
        Err(error) => return world.ledger().fail(format!("the spool does not open: {error}")),
    };
    let mut count = 0;
    loop {
        match spool.next(clock.now()) {
            Next::Record(record) => count += record.taken.len(),
            Next::Damaged(..) => {}
            Next::Empty => break,
            other => return world.ledger().fail(format!("a fresh spool returns {other:?}")),
        }
    }
    if count != on_disk {
        let text = format!("a fresh spool finds {count} documents, and {on_disk} are on the disk");
        world.ledger().fail(text);
    }
}
