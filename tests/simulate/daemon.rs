//! One life of the simulated daemon: the production code between its seams.
//!
//! In: the settings of the life, and the world. Out: the running sender, its spool and its
//! identity, and the ways in which a life ends. The receivers are replaced by [`Daemon::send`],
//! which calls the production code behind the sockets. Bound: the time of a shutdown is checked.

use super::calls::Calls;
use super::documents;
use super::door::Door;
use super::format::scan;
use super::kernel::Kernel;
use super::plan::Settings;
use super::service::SimulatedService;
use super::watch::{Watch, Watched};
use super::world::World;
use super::{disk, format};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout_at};
use xrayd::base::account::{Account, Signal};
use xrayd::base::clock::Clock;
use xrayd::base::host::{Host, QueueGrant};
use xrayd::base::memory::{CHUNK_BYTES, ChunkPool};
use xrayd::base::panics::{Alarm, Panicked};
use xrayd::pipeline::call_limit::CallLimit;
use xrayd::pipeline::ingest::Ingest;
use xrayd::pipeline::limits::{Limits, Wanted};
use xrayd::pipeline::ring::Rings;
use xrayd::pipeline::sender::{Deadline, Sender, SpoolThread};
use xrayd::pipeline::shedding::Shedding;
use xrayd::pipeline::sockets::SocketWish;
use xrayd::pipeline::spans::SpanQueue;
use xrayd::pipeline::spans::door::Ports;
use xrayd::pipeline::spool::Options;
use xrayd::pipeline::upload::Uploader;

/// A shutdown ends this long after its deadline at the latest: a second until the receivers have
/// ended, and the job that is running.
const END_SLACK: Duration = Duration::from_millis(2_500);

/// The time within which a record is on stable storage: a second, and the jobs until then.
const SYNC_TIME_MS: u64 = 1_500;

/// The time after the last failed call of the disk within which the spool has synced all records: a
/// pause after the failure, and the jobs until then.
const RECOVERY_TIME_MS: u64 = 8_000;

/// A spool with less room than this many bodies may be too small for what is left at the end.
const SPOOL_BODY_COUNT_MIN: u64 = 3;

/// A host with one processor and as much memory as any `-m` of a world needs.
const HOST: Host = Host {
    memory_bytes: 1 << 40,
    cgroup_limit_bytes: None,
    processor_count: 1,
    descriptor_count_max: 1024,
    queues: QueueGrant::ANY,
};

/// A running life.
pub struct Daemon {
    pub world: World,
    pub account: Arc<Account>,
    pub pool: Arc<ChunkPool>,
    settings: Settings,
    door: Door,
    sender: JoinHandle<Result<usize, Panicked>>,
    tasks: Vec<JoinHandle<()>>,
    deadline: watch::Sender<Option<Deadline>>,
    watch: Arc<Mutex<Watch>>,
    started_ms: u64,
    /// Whether the disk has been slow, so that a job may not end in time.
    is_slow: bool,
}

fn limits(settings: Settings, signal: Signal) -> Limits {
    let wanted = Wanted {
        // Half of it is for spans.
        buffer_size_mb: settings.memory_mb * if signal == Signal::Spans { 2 } else { 1 },
        receiver_count: 1,
        sockets: SocketWish::One,
        has_spool: settings.spool_bytes.is_some(),
        takes_spans: signal == Signal::Spans,
        span_ports: Ports::default(),
        concurrency: settings.concurrency,
        concurrency_max: settings.concurrency_max,
    };
    Limits::derive(wanted, HOST)
}

/// Returns an empty account with the clock of the host.
fn account(world: &World) -> Arc<Account> {
    let mut account = match world.signal {
        Signal::Segments => Account::new(1),
        Signal::Spans => Account::for_spans(),
    };
    account.clock = Clock::simulated(1_000 + world.seconds(), world.host_date());
    Arc::new(account)
}

/// Returns the thread of the spool, as a task, if the settings have a spool.
fn spool(
    world: &World,
    settings: Settings,
    pool: &Arc<ChunkPool>,
    account: &Arc<Account>,
) -> Option<(SpoolThread, impl Future<Output = ()> + use<>)> {
    let options = Options {
        path: PathBuf::from("spool"),
        size_bytes_max: settings.spool_bytes?,
        age_max: settings.spool_age,
    };
    let disk = world.disk.clone();
    let pause = move || Duration::from_millis(disk.pause_ms());
    let (pool, account) = (Arc::clone(pool), Arc::clone(account));
    let disk = Arc::new(world.disk.clone());
    Some(SpoolThread::on_runtime(disk, options, pool, account, pause))
}

/// Returns the pool and the limit of calls of the signal.
fn pool(limits: &Limits) -> (Arc<ChunkPool>, CallLimit) {
    let (count, reserve_count, call_limit) = match &limits.spans {
        None => (limits.chunk_count_max, limits.batch_reserve_count, limits.call_limit),
        Some(spans) => (spans.chunk_count_max, spans.batch_reserve_count, spans.call_limit),
    };
    (ChunkPool::new(count, reserve_count), call_limit)
}

/// The parts of a sender.
struct Parts<'a> {
    world: &'a World,
    shedding: Arc<Shedding>,
    limits: Limits,
    uploader: Uploader,
    spool: Option<SpoolThread>,
    pool: &'a Arc<ChunkPool>,
    account: &'a Arc<Account>,
}

type Running = JoinHandle<Result<usize, Panicked>>;

impl Parts<'_> {
    /// Starts the sender. Returns the way into it too.
    fn start(
        self,
        mut deadline: watch::Receiver<Option<Deadline>>,
        watch: Arc<Mutex<Watch>>,
    ) -> (Door, Running) {
        let Self { world, shedding, limits, uploader, spool, pool, account } = self;
        let (pools, accounts) = (Arc::clone(pool), Arc::clone(account));
        let Some(spans) = &limits.spans else {
            let mut rings = Rings::new(Arc::clone(pool), limits.ring_entry_count_max);
            let producer = rings.add();
            let ingest = Ingest::new(producer, Arc::clone(account), 0, Alarm::default());
            let kernel = Kernel::start(world, ingest, Arc::clone(&watch), Arc::clone(&shedding));
            let sender = Sender::new(&limits, rings, uploader, spool, pools, accounts);
            let mut sender = sender.with_shedding(shedding);
            let run = async move { sender.run(&mut deadline).await };
            let running = spawn_local(Watched { future: Box::pin(run), watch });
            return (Door::Segments(kernel), running);
        };
        let (writer, queue) = SpanQueue::new(Arc::clone(pool), Arc::clone(account));
        let to = (spans, world.to);
        let mut sender = Sender::for_spans(to, queue, uploader, spool, pools, accounts);
        let run = async move { sender.run(&mut deadline).await };
        (Door::Spans(Some(writer)), spawn_local(Watched { future: Box::pin(run), watch }))
    }
}

impl Daemon {
    /// Starts a life. `has_damage` says that the disk may be damaged.
    pub fn start(world: &World, settings: Settings, has_damage: bool) -> Self {
        let limits = limits(settings, world.signal);
        let (pool, call_limit) = pool(&limits);
        let account = account(world);
        let left = found(world, &world.disk);
        world.ledger().start_with(&left);
        let number = world.ledger().begin(Arc::clone(&account));
        world.history.note("start", number as u64, settings.memory_mb);
        world.service().calls = Calls::of_life(number);
        let shedding = Arc::<Shedding>::default();
        let has_wrong_dates = world.ledger().note_date(world.has_wrong_date());
        let mut watch = Watch::new(
            world.clone(),
            Arc::clone(&account),
            Arc::clone(&pool),
            limits,
            Arc::clone(&shedding),
            has_wrong_dates,
        );
        watch.spool_bytes = settings.spool_bytes;
        watch.age_max = i64::try_from(settings.spool_age.as_secs()).unwrap();
        watch.has_damage = has_damage;
        let watch = Arc::new(Mutex::new(watch));
        let mut tasks = Vec::new();
        let (route, arrival) = oneshot::channel();
        if let Some(after) = settings.route_after {
            let world = world.clone();
            tasks.push(spawn_local(async move {
                sleep(after).await;
                let service = SimulatedService::new(world, number);
                let _ = route.send(Box::new(service) as Box<dyn xrayd::aws::Service>);
            }));
        }
        let uploader = Uploader::new(arrival, call_limit, Arc::clone(&account));
        let spool = spool(world, settings, &pool, &account).map(|(thread, work)| {
            tasks.push(spawn_local(work));
            thread
        });
        let (deadline, receiver) = watch::channel(None);
        let parts =
            Parts { world, shedding, limits, uploader, spool, pool: &pool, account: &account };
        let (door, sender) = parts.start(receiver, Arc::clone(&watch));
        Self {
            world: world.clone(),
            account,
            pool,
            settings,
            door,
            sender,
            tasks,
            deadline,
            watch,
            started_ms: world.history.now_ms(),
            is_slow: world.disk.is_slow(),
        }
    }

    /// Returns whether the daemon has a spool.
    pub fn has_spool(&self) -> bool {
        self.settings.spool_bytes.is_some()
    }

    /// Returns whether the daemon will ever be able to call the service.
    pub fn has_route(&self) -> bool {
        self.settings.route_after.is_some()
    }

    /// Returns whether memory and settings allow far more calls than at the start.
    pub fn has_many_calls(&self) -> bool {
        let limits = self.watch.lock().unwrap().limits;
        let limit = limits.spans.map_or(limits.call_limit, |spans| spans.call_limit);
        matches!(limit, CallLimit::Adaptive { count_max, .. } if count_max >= 40)
    }

    /// Notes that the disk behaves in another way.
    pub fn note_disk(&mut self) {
        self.is_slow |= self.world.disk.is_slow();
    }

    /// Receives `count` documents or spans. Returns the number of the last one; `None` if the queue
    /// of spans has refused it.
    pub fn send(&mut self, count: u32, size_bytes: usize, is_refused: bool) -> Option<u32> {
        self.door.send(&self.world, &self.watch, count, (size_bytes, is_refused))
    }

    /// Returns how many datagrams the kernel holds for the daemon.
    pub fn queued_count(&self) -> usize {
        self.door.queued_count()
    }

    /// Asks how many segments the daemon holds. Checks that the account balances at that moment.
    pub async fn held(&self) -> Option<usize> {
        let mut last = 0;
        // The sender may count more between its answer and the look at the account here.
        for _ in 0..5 {
            let Some(held) = self.account.held().await else {
                self.world.ledger().fail("the sender does not answer a question".to_owned());
                return None;
            };
            last = self.account.imbalance(held.segment_count);
            if last == 0 {
                self.world.history.note("held", held.segment_count as u64, 0);
                return Some(held.segment_count);
            }
            sleep(Duration::from_millis(1)).await;
        }
        let text = format!("{last} segments are not counted: {}", self.account.summary(0));
        self.world.ledger().fail(text);
        None
    }

    /// Ends the life in order: with a deadline after `time`, and with a second signal after
    /// `second` if there is one.
    pub async fn terminate(mut self, time: Duration, second: Option<Duration>) {
        let now = Clock::instant();
        self.world.history.note("SIGTERM", time.as_secs(), 0);
        let mut deadline = Deadline::within(time, self.has_spool(), now);
        self.set_deadline(deadline);
        // The receivers go on until no datagram has come for this time.
        sleep(Duration::from_millis(100)).await;
        self.door.stop();
        if let Some(second) = second {
            let again_at = now + second;
            while !self.sender.is_finished() && Clock::instant() < again_at {
                sleep(Duration::from_millis(20)).await;
            }
            if !self.sender.is_finished() {
                self.world.history.note("SIGTERM again", 0, 0);
                deadline = Deadline::at_once(Clock::instant());
                self.set_deadline(deadline);
            }
        }
        self.join(deadline).await;
    }

    async fn join(mut self, deadline: Deadline) {
        let end_at = deadline.for_uploads.max(deadline.for_spool) + END_SLACK;
        let is_slow = self.is_slow;
        let ended = timeout_at(end_at.into(), &mut self.sender).await;
        match ended {
            Ok(Ok(Ok(held_count))) => {
                let is_clean = !is_slow && !self.world.disk.has_failed();
                self.stop_tasks().await;
                self.world.ledger().end(held_count, is_clean);
            }
            Ok(error) => self.world.ledger().fail(format!("the sender panicked: {error:?}")),
            Err(_) => self.world.ledger().fail("the shutdown does not end in time".to_owned()),
        }
    }

    fn set_deadline(&self, deadline: Deadline) {
        self.world.service().calls.begin_anew();
        let mut watch = self.watch.lock().unwrap();
        let now = Clock::instant();
        watch.over_at = Some(if self.has_route() { deadline.for_uploads } else { now });
        let body_bytes =
            watch.limits.body_bytes_max as u64 * 9 / 8 + 2 * documents::SIZE_MAX as u64;
        let has_room =
            self.settings.spool_bytes.is_some_and(|it| it > SPOOL_BODY_COUNT_MIN * body_bytes);
        // A spool of spans evicts nothing, so what is in it already counts.
        let has_room = has_room
            && (self.world.signal == Signal::Segments || {
                let files = self.world.disk.files();
                let used: usize = files.iter().map(|(_, bytes, _)| bytes.len()).sum();
                let held = (self.pool.chunk_count_max() * CHUNK_BYTES) as u64 * 5 / 4;
                self.settings.spool_bytes.is_some_and(|it| it > used as u64 + held)
            });
        watch.is_spool_safe = has_room && !self.is_slow;
        drop(watch);
        self.deadline.send_replace(Some(deadline));
    }

    async fn stop_tasks(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }

    /// Ends the life at once.
    pub async fn kill(mut self) {
        self.world.history.note("SIGKILL", 0, 0);
        self.door.kill();
        self.sender.abort();
        match (&mut self.sender).await {
            Err(error) if error.is_panic() => {
                self.world.ledger().fail(format!("the sender panicked: {error:?}"));
            }
            _ => {}
        }
        self.stop_tasks().await;
        self.world.ledger().kill();
    }

    /// Ends the life in a call of the disk: before the call after the next `call_count` calls, or
    /// after three seconds. `power` says that the machine loses power.
    pub async fn kill_in_call(self, call_count: u64, power: bool) {
        let world = self.world.clone();
        let now_ms = world.history.now_ms();
        // A record that is taken when an fsync fails is copied to another file only after it is put
        // back.
        let has_taken = self.account.replayed.get() > 0;
        let has_recovered = world
            .disk
            .failed_at_ms()
            .is_none_or(|at_ms| at_ms + RECOVERY_TIME_MS < now_ms && !has_taken);
        let is_synced = !self.is_slow && has_recovered && !world.disk.has_lied();
        world.disk.cut_after(call_count);
        tokio::select! {
            biased;
            () = world.disk.cut() => {}
            () = sleep(Duration::from_secs(3)) => {}
        }
        let (started_ms, now_ms) = (self.started_ms, world.history.now_ms());
        self.kill().await;
        if power {
            world.history.note("power lost", 0, 0);
            let before = found(&world, &world.disk);
            world.disk.lose_power_at_random();
            let after = found(&world, &world.disk);
            let synced_ms = if is_synced { now_ms.saturating_sub(SYNC_TIME_MS) } else { 0 };
            world.ledger().lose_power(&before, &after, started_ms..synced_ms);
        }
    }
}

/// Returns the documents in the files of a disk.
pub fn found(world: &World, disk: &disk::MemoryDisk) -> format::Found {
    let size_of = |number: u32| world.ledger().size_of(number);
    let found = scan(&disk.files(), size_of);
    found.unwrap_or_else(|text| {
        world.ledger().fail(format!("on the disk: {text}"));
        format::Found::default()
    })
}
