//! The threads of the flow: one for each receiver, and the sender thread.
//!
//! In: a socket group and a [`Sender`]. Out: the running threads, and their results. After a panic
//! a thread raises the alarm, which shuts down the daemon in order. Then the thread does its work
//! once more: a receiver empties the queue of its socket, the sender thread settles its segments.
//! This works because the panic does not destroy the receiver, its ring and the sender: their owner
//! is outside the stack frames that the panic unwinds.
//!
//! [`Threads`] makes the threads, and all else that the system may refuse, before the daemon opens
//! a socket. So a refusal ends the start before the first datagram.

use crate::base::account::Account;
use crate::base::memory::ChunkPool;
use crate::base::panics::{self, Alarm, Panicked};
use crate::pipeline::ingest::Ingest;
use crate::pipeline::limits::Limits;
use crate::pipeline::receive::{
    Backend, BackendInUse, ReceiveError, ReceiveSocket, Receiver, SocketGroup, Stop,
};
use crate::pipeline::ring::Rings;
use crate::pipeline::sender::{Deadline, Sender, Source};
use crate::pipeline::shedding::Shedding;
use rustix::thread::CpuSet;
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, warn};

/// The parts of the daemon that all receivers share.
#[derive(Debug)]
pub struct Sinks {
    /// The pool that the chunks of the rings come from.
    pub pool: Arc<ChunkPool>,
    /// The account that counts the segments.
    pub account: Arc<Account>,
    /// The alarm that shuts down the daemon after a panic.
    pub alarm: Alarm,
    /// Whether receivers leave their sockets alone.
    pub shedding: Arc<Shedding>,
}

impl Sinks {
    /// Returns the parts with a shedding that is off.
    pub fn new(pool: &Arc<ChunkPool>, account: &Arc<Account>, alarm: &Alarm) -> Self {
        let (pool, account) = (Arc::clone(pool), Arc::clone(account));
        Self { pool, account, alarm: alarm.clone(), shedding: Arc::default() }
    }
}

/// A thread that waits for its work. It ends when this value is dropped without work for it.
#[derive(Debug)]
pub(super) struct Idle(std::sync::mpsc::Sender<Box<dyn FnOnce() + Send>>);

impl Idle {
    pub(super) fn make(name: String) -> io::Result<Self> {
        let (sender, work) = std::sync::mpsc::channel::<Box<dyn FnOnce() + Send>>();
        thread::Builder::new().name(name).spawn(move || {
            if let Ok(work) = work.recv() {
                work();
            }
        })?;
        Ok(Self(sender))
    }

    pub(super) fn run(self, work: impl FnOnce() + Send + 'static) {
        // The thread waits for its work, so this does not fail.
        let _ = self.0.send(Box::new(work));
    }
}

/// The threads of a flow, which wait for their work, and the descriptors that they need.
#[derive(Debug)]
pub struct Threads {
    /// The threads for [`Receivers::start`].
    pub receivers: ReceiverThreads,
    /// The thread for [`SenderThread::start`].
    pub upload: UploadThread,
    /// The same for the sender of spans; `None` if the daemon takes none.
    pub upload_spans: Option<UploadThread>,
}

/// A waiting thread for each receiver, and their request to stop.
#[derive(Debug)]
pub struct ReceiverThreads {
    idle: Vec<Idle>,
    stop: Stop,
}

/// The waiting sender thread and its runtime.
#[derive(Debug)]
pub struct UploadThread {
    idle: Idle,
    runtime: Runtime,
}

impl UploadThread {
    fn make(name: &str) -> io::Result<Self> {
        Ok(Self { runtime: Runtime::new()?, idle: Idle::make(name.into())? })
    }
}

impl Threads {
    /// Makes the threads of a flow with `receiver_count` receivers, and with spans if
    /// `takes_spans`.
    ///
    /// # Errors
    ///
    /// Fails if the system does not create a thread or a descriptor.
    pub fn make(receiver_count: usize, takes_spans: bool) -> io::Result<Self> {
        let idle = (0..receiver_count).map(|index| Idle::make(format!("receive-{index}")));
        let receivers =
            ReceiverThreads { idle: idle.collect::<Result<_, _>>()?, stop: Stop::new()? };
        let upload = UploadThread::make(SenderThread::NAME)?;
        let upload_spans = takes_spans.then(|| UploadThread::make(SenderThread::SPANS_NAME));
        Ok(Self { receivers, upload, upload_spans: upload_spans.transpose()? })
    }
}

/// The receiver threads.
#[derive(Debug)]
pub struct Receivers {
    stop: Stop,
    ended: mpsc::UnboundedReceiver<Result<(), ReceiveError>>,
    running_count: usize,
    sockets: Vec<Vec<Weak<ReceiveSocket>>>,
    backends: Vec<Arc<BackendInUse>>,
}

impl Receivers {
    /// Gives each receiver of the group to one of `threads`. With `pin` each thread stays on one
    /// processor. Also returns the rings, from which the sender takes the ring entries of the
    /// receivers. The receivers are as many as the threads.
    pub fn start(
        group: SocketGroup,
        (backend, pin): (Backend, bool),
        limits: &Limits,
        sinks: &Sinks,
        threads: ReceiverThreads,
    ) -> (Self, Rings) {
        let ReceiverThreads { idle, stop } = threads;
        let (ended_sender, ended) = mpsc::unbounded_channel();
        let receivers: Vec<_> = (group.into_receivers(limits.receive_slot_count).into_iter())
            .map(|it| it.with_shedding(Arc::clone(&sinks.shedding)))
            .collect();
        // A receiver without a thread would be deaf, and no counter would show it.
        assert_eq!(receivers.len(), idle.len(), "each receiver has a thread");
        let running_count = receivers.len();
        let sockets = receivers.iter().map(Receiver::weak_sockets).collect();
        let mut backends = Vec::new();
        let mut rings = Rings::new(Arc::clone(&sinks.pool), limits.ring_entry_count_max);
        for (index, (mut receiver, thread)) in receivers.into_iter().zip(idle).enumerate() {
            let alarm = sinks.alarm.clone();
            let (producer, account) = (rings.add(), Arc::clone(&sinks.account));
            let mut ingest = Ingest::new(producer, Arc::clone(&account), index, alarm.clone());
            let (stop, ended) = (stop.clone(), ended_sender.clone());
            let in_use = Arc::new(BackendInUse::new(backend));
            backends.push(Arc::clone(&in_use));
            thread.run(move || {
                if pin {
                    keep_to_processor(index);
                }
                let run = |backend: Backend| {
                    if backend != in_use.get() {
                        account.receive_backend_failures.add(1);
                    }
                    in_use.set(backend);
                    panics::catch(|| backend.run(&mut receiver, &stop, &mut ingest))
                };
                let result = run_to_end(index, backend, &alarm, run);
                ingest.close();
                // The send fails only if `Receivers` is gone, at the end of the process.
                let _ = ended.send(result);
            });
        }
        (Self { stop, ended, running_count, sockets, backends }, rings)
    }

    /// Returns the sockets of each receiver. The references are weak: a socket that stays open
    /// after the end of its receiver would still get datagrams from the kernel.
    pub fn sockets(&self) -> Vec<Vec<Weak<ReceiveSocket>>> {
        self.sockets.clone()
    }

    /// Returns the backends in use, by the number of their receiver.
    pub fn backends(&self) -> Vec<Arc<BackendInUse>> {
        self.backends.clone()
    }

    /// Waits until a receiver fails, and returns its error.
    pub async fn failed(&mut self) -> ReceiveError {
        loop {
            match self.ended.recv().await {
                Some(Err(error)) => {
                    self.running_count -= 1;
                    return error;
                }
                Some(Ok(())) => self.running_count -= 1,
                None => std::future::pending().await,
            }
        }
    }

    /// Stops the receivers. Each receiver first takes the datagrams that the kernel has queued for
    /// its socket. Returns when all receivers have ended.
    pub async fn stop(&mut self) {
        self.stop.request();
        while self.running_count > 0 && self.ended.recv().await.is_some() {
            self.running_count -= 1;
        }
    }
}

/// Runs receiver `index` with `backend` until it ends, by calling `run`. If the backend fails or
/// panics, the receiver goes on with `recvmmsg` on the same socket: that uses no state of the
/// backend before. A panic raises `alarm` too.
///
/// # Errors
///
/// Returns the error of `recvmmsg`, or the second panic.
fn run_to_end(
    index: usize,
    mut backend: Backend,
    alarm: &Alarm,
    mut run: impl FnMut(Backend) -> Result<Result<(), ReceiveError>, Panicked>,
) -> Result<(), ReceiveError> {
    let mut has_panicked = false;
    loop {
        match run(backend) {
            Ok(Err(error)) if backend != Backend::Recvmmsg => warn!(
                "Receiver {index} goes on with {} on the same socket: {error} ({backend})",
                Backend::Recvmmsg
            ),
            Ok(result) => return result,
            Err(panicked) if has_panicked => return Err(ReceiveError::Panic(panicked)),
            Err(panicked) => {
                alarm.raise(panicked);
                has_panicked = true;
            }
        }
        backend = Backend::Recvmmsg;
    }
}

/// Binds the calling thread to one processor: the one at `index` among the processors that the
/// thread may use.
fn keep_to_processor(index: usize) {
    let kept = rustix::thread::sched_getaffinity(None).and_then(|allowed| {
        let allowed: Vec<usize> =
            (0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)).collect();
        let mut one = CpuSet::new();
        one.set(allowed[index % allowed.len().max(1)]);
        rustix::thread::sched_setaffinity(None, &one)
    });
    if let Err(error) = kept {
        warn!("Receiver {index} cannot be bound to one processor (Receive.Pin): {error}");
    }
}

/// A tokio runtime that may be dropped inside another runtime, where a plain tokio runtime would
/// panic. This drop happens if the sender thread cannot be created, or a socket cannot be opened.
#[derive(Debug)]
pub(super) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Some(tokio::runtime::Builder::new_current_thread().enable_all().build()?)))
    }

    pub(super) fn get(&self) -> &tokio::runtime::Runtime {
        self.0.as_ref().expect("present until the drop")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The sender thread, which makes batches and sends them.
#[derive(Debug)]
pub struct SenderThread {
    deadline: watch::Sender<Option<Deadline>>,
    ended: oneshot::Receiver<usize>,
    /// The number of segments that the sender still held when its thread ended. `None` until
    /// [`ended`](Self::ended) has returned.
    held_count: Option<usize>,
}

impl SenderThread {
    /// The name of the thread, as in the label `thread` of `xray_panics_total`.
    pub const NAME: &str = "upload";

    /// The name of the thread of the sender of spans.
    pub const SPANS_NAME: &str = "upload-spans";

    /// Runs `sender` on `thread`.
    pub fn start<S: Source + Send + 'static>(
        mut sender: Sender<S>,
        alarm: Alarm,
        thread: UploadThread,
    ) -> Self {
        let (deadline, mut deadline_receiver) = watch::channel(None);
        let (ended_sender, ended) = oneshot::channel();
        let UploadThread { idle, runtime } = thread;
        idle.run(move || {
            let mut run = || {
                let run = || runtime.get().block_on(sender.run(&mut deadline_receiver));
                panics::catch(run).flatten()
            };
            let held_count = run().or_else(|panicked| {
                alarm.raise(panicked);
                run()
            });
            let held_count = held_count.unwrap_or_else(|panicked| {
                error!("Settling the remaining segments met {panicked}");
                0
            });
            let _ = ended_sender.send(held_count);
        });
        Self { deadline, ended, held_count: None }
    }

    /// Sets the deadline of the shutdown. Segments that are not sent by then go to the spool, or
    /// are dropped.
    pub fn set_deadline(&self, deadline: Deadline) {
        self.deadline.send_replace(Some(deadline));
    }

    /// Waits until the thread has ended: everything is settled, or the deadline has passed. Returns
    /// the number of segments that the sender still held, counted one by one.
    pub async fn ended(&mut self) -> usize {
        if self.held_count.is_none() {
            // An error means that the thread ended without a result. Its segments are gone.
            self.held_count = Some((&mut self.ended).await.unwrap_or_default());
        }
        self.held_count.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::host::{Host, QueueGrant};
    use crate::pipeline::limits::Wanted;
    use std::io::ErrorKind;

    /// Runs a receiver with io_uring whose attempts end with these results. Returns the backends of
    /// the attempts, and the result.
    fn run_with(
        results: Vec<Result<Result<(), ReceiveError>, Panicked>>,
        alarm: &Alarm,
    ) -> (Vec<Backend>, Result<(), ReceiveError>) {
        let (mut results, mut backends) = (results.into_iter(), Vec::new());
        let result = run_to_end(0, Backend::Uring, alarm, |backend| {
            backends.push(backend);
            results.next().unwrap()
        });
        assert_eq!(results.count(), 0);
        (backends, result)
    }

    #[test]
    fn a_receiver_whose_backend_fails_or_panics_goes_on_with_recvmmsg() {
        const BOTH: [Backend; 2] = [Backend::Uring, Backend::Recvmmsg];
        let failed = || Ok(Err(ReceiveError::Setup(ErrorKind::OutOfMemory.into())));
        let panicked = || Err(panics::catch(|| panic!("x")).unwrap_err());
        let alarm = Alarm::default();
        let (backends, result) = run_with(vec![failed(), Ok(Ok(()))], &alarm);
        assert_eq!((&backends[..], result.is_ok()), (&BOTH[..], true));
        let (backends, result) = run_with(vec![failed(), failed()], &alarm);
        assert_eq!((&backends[..], result.is_ok()), (&BOTH[..], false));
        assert_eq!(alarm.fault(), None);
        let (backends, result) = run_with(vec![panicked(), Ok(Ok(()))], &alarm);
        assert_eq!((&backends[..], result.is_ok()), (&BOTH[..], true));
        assert!(alarm.fault().is_some());
        let (backends, result) = run_with(vec![failed(), panicked(), Ok(Ok(()))], &alarm);
        assert_eq!((backends.len(), result.is_ok()), (3, true));
        let (_, result) = run_with(vec![panicked(), panicked()], &alarm);
        assert!(matches!(result, Err(ReceiveError::Panic(_))));
    }

    #[tokio::test]
    async fn a_receiver_that_fails_is_noticed_and_its_ring_is_closed() {
        let host = Host {
            memory_bytes: 1 << 30,
            cgroup_limit_bytes: None,
            descriptor_count_max: 1024,
            processor_count: 1,
            queues: QueueGrant::ANY,
        };
        let wanted = Wanted { buffer_size_mb: 3, receiver_count: 1, ..Wanted::default() };
        let limits = Limits::derive(wanted, host);
        let sinks = Sinks {
            pool: ChunkPool::new(limits.chunk_count_max, limits.batch_reserve_count),
            account: Arc::new(Account::new(1)),
            alarm: Alarm::default(),
            shedding: Arc::default(),
        };
        let group = SocketGroup::broken();
        let threads = Threads::make(1, false).unwrap().receivers;
        let how = (Backend::Recvmmsg, false);
        let (mut receivers, rings) = Receivers::start(group, how, &limits, &sinks, threads);
        let error = receivers.failed().await;
        assert!(matches!(error, ReceiveError::Read(_)), "{error}");
        receivers.stop().await;
        assert!(rings.is_closed());
    }
}
