//! The plan of a simulation: all that the world does, drawn from the seed.
//!
//! In: a seed. Out: the settings of each life of the daemon, and the steps of the world, each with
//! the pause before it. A step can be left out, which changes nothing of the others. Bound: four
//! lives.

use super::disk;
use super::documents::{SIZE_MAX, SIZE_MIN};
use super::service;
use std::time::Duration;
use xrayd::aws::SpansTo;
use xrayd::base::account::Signal;

/// The seed of the overloads differs from that of all else in this.
const OVERLOAD_SEED: u64 = 0x6f76_6572;

/// In one of this many plans for spans, they become documents of `PutTraceSegments`.
const DOCUMENTS_EVERY: u64 = 4;

/// The settings of one life of the daemon, from its start to its end.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub memory_mb: u64,
    /// The number of calls in flight; 0 if it adapts.
    pub concurrency: usize,
    pub concurrency_max: usize,
    /// The largest size of the spool in bytes; `None` for a daemon without a spool.
    pub spool_bytes: Option<u64>,
    pub spool_age: Duration,
    /// The time until the region is known; `None` if it is never known.
    pub route_after: Option<Duration>,
}

/// How a life of the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// SIGTERM, with this time for the shutdown.
    Term { time: Duration },
    /// SIGTERM, and a second one after this time.
    TermTwice { after: Duration },
    /// SIGKILL.
    Kill,
    /// SIGKILL, or a loss of power, before the call of the disk after this number of calls.
    InCall { call_count: u64, power: bool },
}

/// The work of the world in a step.
#[derive(Debug, Clone, Copy)]
pub enum Action {
    /// Applications send this many documents of this size.
    Send { count: u32, size_bytes: usize },
    /// Applications send this many documents of this size every few milliseconds.
    Overload { count: u32, size_bytes: usize, tick_count: u32 },
    /// Applications send one document that the service refuses.
    SendRefused,
    /// The service behaves like this from now on.
    Service(service::Mood),
    /// The disk behaves like this from now on.
    Disk(disk::Mood),
    /// The source of credentials behaves like this from now on.
    Credentials(service::Source),
    /// The host's date jumps.
    SetDate { seconds: i64 },
    /// The machine is suspended for this time.
    Suspend { time: Duration },
    /// A client asks how much the daemon holds.
    Ask,
    /// The life of the daemon ends, and the next one begins.
    End(End, Settings),
}

/// A step: a pause, then an action.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    pub pause: Duration,
    pub action: Action,
}

/// All that the world does.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// The signal that applications send.
    pub signal: Signal,
    /// Where the daemon sends spans.
    pub to: SpansTo,
    pub first: Settings,
    /// How many records an earlier version of xrayd has left in the spool, and how many of them it
    /// has settled.
    pub older: (usize, usize),
    pub steps: Vec<Step>,
    /// The numbers of the steps that are left out.
    pub without: Vec<usize>,
}

impl Plan {
    /// Draws the plan of `seed`.
    pub fn draw(seed: u64) -> Self {
        let mut draw = Draw { random: fastrand::Rng::with_seed(seed), steps: Vec::new(), size: 0 };
        draw.size = draw.size_bytes();
        let first = draw.settings();
        let mut settings = first;
        let older = match draw.one_in(6) {
            true => (draw.random.usize(1..6), draw.random.usize(0..3)),
            false => (0, 0),
        };
        let life_count = draw.random.usize(1..=4);
        // Drawn apart, so that all else of a plan stays as it was without overloads. One of three
        // lives with little memory and no spool ends with one, and a few others.
        let mut random = fastrand::Rng::with_seed(seed ^ OVERLOAD_SEED);
        for life in 1..=life_count {
            draw.life();
            let is_small = settings.memory_mb <= 4 && settings.spool_bytes.is_none();
            if random.u32(..if is_small { 3 } else { 60 }) == 0 {
                draw.overload(&mut random);
            }
            if life < life_count {
                let end = draw.end();
                settings = draw.settings();
                draw.step(100, Action::End(end, settings));
            }
        }
        Self {
            seed,
            signal: Signal::Segments,
            to: SpansTo::Endpoint,
            first,
            older,
            steps: draw.steps,
            without: Vec::new(),
        }
    }

    /// Draws the plan of `seed` for `signal`. In one of [`DOCUMENTS_EVERY`] plans for spans, the
    /// daemon sends them through `PutTraceSegments`.
    pub fn draw_for(signal: Signal, seed: u64) -> Self {
        let has_documents = signal == Signal::Spans && seed.is_multiple_of(DOCUMENTS_EVERY);
        let to = if has_documents { SpansTo::Segments } else { SpansTo::Endpoint };
        Self { signal, to, ..Self::draw(seed) }
    }

    /// Returns the steps that are not left out.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        let steps = self.steps.iter().enumerate();
        steps.filter(|(index, _)| !self.without.contains(index)).map(|(_, step)| step)
    }
}

struct Draw {
    random: fastrand::Rng,
    steps: Vec<Step>,
    /// The usual size of a document in this plan.
    size: usize,
}

impl Draw {
    fn one_in(&mut self, count: u32) -> bool {
        self.random.u32(..count) == 0
    }

    /// Adds a step after a random pause of up to `pause_ms`.
    fn step(&mut self, pause_ms: u64, action: Action) {
        let pause = Duration::from_millis(self.random.u64(0..=pause_ms));
        self.steps.push(Step { pause, action });
    }

    fn size_bytes(&mut self) -> usize {
        match self.random.u32(..10) {
            0..5 => self.random.usize(SIZE_MIN..1_500),
            5..8 => self.random.usize(1_500..12_000),
            _ => self.random.usize(12_000..=SIZE_MAX),
        }
    }

    fn settings(&mut self) -> Settings {
        // A small memory is full soon, so most lives have one.
        let memory_mb = match self.random.u32(..10) {
            0..6 => 3,
            6..8 => self.random.u64(4..8),
            8 => self.random.u64(8..64),
            _ => self.random.u64(64..=256),
        };
        let spool_bytes = match self.random.u32(..10) {
            0..3 => None,
            3..7 => Some(self.random.u64(200_000..1_200_000)),
            _ => Some(self.random.u64(2_000_000..64_000_000)),
        };
        let hours = if self.one_in(3) { 24 * 7 } else { self.random.u64(1..4) };
        let route_after = match self.random.u32(..40) {
            0 => None,
            1..5 => Some(Duration::from_millis(self.random.u64(..20_000))),
            _ => Some(Duration::from_millis(self.random.u64(..50))),
        };
        Settings {
            memory_mb,
            concurrency: [1, 2, 8, 0, 0, 0][self.random.usize(..6)],
            concurrency_max: 256,
            spool_bytes,
            spool_age: Duration::from_secs(3600 * hours),
            route_after,
        }
    }

    fn end(&mut self) -> End {
        match self.random.u32(..10) {
            0..4 => End::Term { time: Duration::from_millis(self.random.u64(1_000..9_000)) },
            4 => End::TermTwice { after: Duration::from_millis(self.random.u64(..2_000)) },
            5..7 => End::Kill,
            _ => End::InCall { call_count: self.random.u64(..40), power: self.random.bool() },
        }
    }

    /// Draws the steps of one life.
    fn life(&mut self) {
        let scene_count = self.random.u32(2..6);
        for _ in 0..scene_count {
            match self.random.u32(..20) {
                0..9 => {
                    let mood = service::Mood::draw(&mut self.random);
                    self.step(500, Action::Service(mood));
                }
                9..13 => {
                    let mood = self.disk_mood();
                    self.step(500, Action::Disk(mood));
                    if self.one_in(2) {
                        // The disk fails for a while only.
                        self.traffic();
                        self.step(500, Action::Disk(disk::Mood::Works));
                        self.step(20_000, Action::Ask);
                    }
                }
                13 => self.step(500, Action::Service(service::Mood::Works)),
                14 => self.step(500, Action::Disk(disk::Mood::Works)),
                15 => {
                    let source = service::Source::draw(&mut self.random);
                    self.step(500, Action::Credentials(source));
                }
                16 => {
                    let seconds = match self.random.u32(..3) {
                        0 => self.random.i64(-600..600),
                        1 => self.random.i64(-40 * 365 * 86_400..0),
                        _ => self.random.i64(0..20 * 86_400),
                    };
                    self.step(500, Action::SetDate { seconds });
                }
                17 => {
                    let time = Duration::from_secs(self.random.u64(60..4 * 3_600));
                    self.step(2_000, Action::Suspend { time });
                }
                18 => self.step(500, Action::SendRefused),
                _ => self.step(500, Action::Ask),
            }
            self.traffic();
        }
        match self.random.u32(..32) {
            0 => self.flood(),
            1 | 2 => self.failed_fsync(),
            _ => {}
        }
    }

    /// Draws a flood: more bytes at once than the smallest memory holds.
    fn flood(&mut self) {
        let size_bytes = self.random.usize(12_000..=SIZE_MAX);
        let count = u32::try_from(1_700_000 / size_bytes).unwrap();
        self.step(100, Action::Send { count, size_bytes });
        self.step(20_000, Action::Ask);
    }

    /// Draws documents that come faster than they are sent, while the service answers slowly or is
    /// in another mood.
    fn overload(&mut self, random: &mut fastrand::Rng) {
        let mut step = |pause_ms: u64, action| {
            self.steps.push(Step { pause: Duration::from_millis(pause_ms), action });
        };
        for _ in 0..2 {
            let mood = match random.u32(..3) {
                0 => service::Mood::draw(random),
                _ => service::Mood::Slow { ms: random.u64(20..1_500) },
            };
            step(random.u64(..200), Action::Service(mood));
            let (count, size_bytes) = (random.u32(5..12), random.usize(800..3_000));
            let tick_count = random.u32(50..100);
            step(random.u64(..50), Action::Overload { count, size_bytes, tick_count });
        }
        step(random.u64(..3_000), Action::Ask);
    }

    /// Draws a failure of fsync for some seconds, while the service fails and memory is full, and a
    /// pause in which the spool can mend it.
    fn failed_fsync(&mut self) {
        let (status, retry_after) = (503, None);
        self.step(100, Action::Service(service::Mood::Fails { status, retry_after }));
        self.step(100, Action::Disk(disk::Mood::Fails { read: 0, write: 0, sync: 100 }));
        self.flood();
        self.step(4_000, Action::Disk(disk::Mood::Works));
        self.step(30_000, Action::Ask);
    }

    fn disk_mood(&mut self) -> disk::Mood {
        match self.random.u32(..8) {
            0 | 1 => disk::Mood::Full { capacity_bytes: self.random.u64(..900_000) },
            2 | 3 => {
                let mut percent = || if self.random.bool() { self.random.u8(..60) } else { 0 };
                disk::Mood::Fails { read: percent(), write: percent(), sync: percent() }
            }
            4 => disk::Mood::Fails { read: 0, write: 0, sync: 100 },
            5 => disk::Mood::Lies,
            6 => disk::Mood::Slow { pause_ms: self.random.u64(100..2_000) },
            _ => disk::Mood::Slow { pause_ms: self.random.u64(2_000..20_000) },
        }
    }

    /// Draws what applications send in one scene: a burst, a steady stream, or single documents.
    fn traffic(&mut self) {
        let size_bytes = if self.one_in(4) { self.size_bytes() } else { self.size };
        // About as many bytes in each scene.
        let most = u32::try_from(200_000 / size_bytes).unwrap().clamp(4, 120);
        let (count, parts, pause_ms) = match self.random.u32(..4) {
            0 => (most, 4, 5),
            1 => (most, 8, 400),
            2 => (most / 4, 4, 3_000),
            _ => (most / 2, 1, 10_000),
        };
        for _ in 0..parts {
            let count = self.random.u32(1..=count.div_ceil(parts).max(1));
            self.step(pause_ms, Action::Send { count, size_bytes });
        }
        if self.one_in(5) {
            self.step(30, Action::SendRefused);
        }
        self.step(20_000, Action::Ask);
    }
}
