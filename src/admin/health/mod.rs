//! Liveness (`/health`) and readiness (`/ready`) of the daemon.
//!
//! In: a request of an orchestrator or an operator. Out: [`Health::faults`] lists the threads that
//! make no progress; [`Health::ready`] lists what keeps segments or spans from being delivered.
//! Bound: [`STALL_TIMEOUT`] for an answer. Thread: main. Checks run only on request, so an idle
//! daemon uses no processor time for them.
//!
//! An outage of the X-Ray service does not affect liveness. Otherwise an orchestrator would kill
//! the daemon during an outage, and the segments in its memory would be lost.
//!
//! A receiver is stalled if the queue of one of its sockets has datagrams and the receiver takes
//! none out of it. A receiver with empty queues sleeps and is healthy. The sender's thread is
//! stalled if it does not answer an occupancy query; it normally answers between two steps of its
//! loop.

pub mod ask;

use crate::base::account::{Account, Signal};
use crate::base::conditions::{ActiveCondition, Condition};
use crate::pipeline::receive::ReceiveSocket;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Time without progress after which a thread counts as stalled. Clients of `/health` usually wait
/// for at least 5 s, so they get the answer in time.
const STALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between two checks of a receiver or of the sender, until [`STALL_TIMEOUT`] is over.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// How much the answer to `GET /ready` tells about a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The code, the reason and the age.
    Full,
    /// Only the code.
    Code,
}

/// Checks, on request, whether the daemon's threads make progress and which conditions are active.
#[derive(Debug, Clone)]
pub struct Health {
    account: Arc<Account>,
    /// The account of spans; `None` if the daemon takes none.
    spans: Option<Arc<Account>>,
    /// The sockets of each receiver.
    sockets: Vec<Vec<Weak<ReceiveSocket>>>,
}

impl Health {
    /// Returns a health check for the sender's thread and for the receivers. `sockets` has the
    /// sockets of each receiver.
    pub fn new(account: Arc<Account>, sockets: Vec<Vec<Weak<ReceiveSocket>>>) -> Self {
        Self { account, spans: None, sockets }
    }

    /// Checks the sender's thread of spans too.
    #[must_use]
    pub fn with_spans(self, spans: Option<Arc<Account>>) -> Self {
        Self { spans, ..self }
    }

    /// Returns one text for each thread that makes no progress. The list is empty if the daemon is
    /// healthy.
    pub async fn faults(&self) -> Vec<String> {
        let (mut faults, is_sender_stalled, is_span_sender_stalled) = tokio::join!(
            self.stalled_receivers(self.looks()),
            is_sender_stalled(Some(&self.account)),
            is_sender_stalled(self.spans.as_deref()),
        );
        let seconds = STALL_TIMEOUT.as_secs();
        if is_sender_stalled {
            faults.push(format!("the upload thread has not answered for {seconds} s"));
        }
        if is_span_sender_stalled {
            faults.push(format!("the upload-spans thread has not answered for {seconds} s"));
        }
        faults
    }

    /// Returns a first look at each socket.
    fn looks(&self) -> Vec<Look> {
        let looks = |(receiver_index, sockets): (usize, &Vec<Weak<ReceiveSocket>>)| {
            let look = move |socket: Arc<ReceiveSocket>| Look {
                receiver_index,
                taken_bytes: socket.taken_bytes(),
                shed_us: self.shed_us(receiver_index),
                socket: Arc::downgrade(&socket),
            };
            sockets.iter().filter_map(Weak::upgrade).map(look).collect::<Vec<_>>()
        };
        self.sockets.iter().enumerate().flat_map(looks).collect()
    }

    fn shed_us(&self, receiver_index: usize) -> u64 {
        self.account.receivers[receiver_index].shed_us.get()
    }

    /// Returns one text for each receiver that takes no datagrams out of a socket although its
    /// queue has some. `looks` has a look at each socket. A receiver that leaves its sockets alone
    /// on purpose (shedding) counts the time for which it does so.
    async fn stalled_receivers(&self, mut looks: Vec<Look>) -> Vec<String> {
        let deadline = Instant::now() + STALL_TIMEOUT;
        loop {
            looks.retain(|look| {
                look.left_bytes() > 0 && self.shed_us(look.receiver_index) == look.shed_us
            });
            if looks.is_empty() || Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        let seconds = STALL_TIMEOUT.as_secs();
        let fault = |looks: &[Look]| {
            let (index, stalled_count) = (looks[0].receiver_index, looks.len());
            let socket_count = self.sockets[index].len();
            let bytes: u64 = looks.iter().map(Look::left_bytes).sum();
            format!(
                "receiver {index} has left {bytes} bytes in the queues of {stalled_count} of its \
                 {socket_count} sockets for {seconds} s"
            )
        };
        looks.chunk_by(|one, next| one.receiver_index == next.receiver_index).map(fault).collect()
    }

    /// Returns the answer to `GET /health`: status 200, or 503 with the stalled threads.
    pub async fn live(&self) -> (StatusCode, Value) {
        let faults = self.faults().await;
        let version = env!("CARGO_PKG_VERSION");
        match faults.is_empty() {
            true => (StatusCode::OK, json!({"status": "alive", "version": version})),
            false => (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({"status": "wedged", "version": version, "reasons": faults}),
            ),
        }
    }

    /// Returns the answer to `GET /ready`: status 200, or 503 with the active conditions. With
    /// `Detail::Code`, the answer has only their codes: a reason can name hosts, roles and files.
    pub fn ready(&self, detail: Detail) -> (StatusCode, Value) {
        let of = |account: &Account| -> Vec<Value> {
            let shown = |ActiveCondition { condition, age, reason }| {
                let mut shown = match detail {
                    Detail::Full => json!({
                        "code": condition.code(), "reason": reason, "seconds": age.as_secs(),
                    }),
                    Detail::Code => json!({"code": condition.code()}),
                };
                if account.signal != Signal::Segments {
                    shown["signal"] = account.signal.label().into();
                }
                shown
            };
            account.conditions.active().into_iter().map(shown).collect()
        };
        let mut reasons = of(&self.account);
        reasons.extend(self.spans.iter().flat_map(|spans| of(spans)));
        match reasons.is_empty() {
            true => (StatusCode::OK, json!({"status": "ready", "reasons": []})),
            false => (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({"status": "not_ready", "reasons": reasons}),
            ),
        }
    }

    /// Returns whether `condition` is active.
    pub fn has(&self, condition: Condition) -> bool {
        let spans = self.spans.as_ref();
        self.account.conditions.has(condition)
            || spans.is_some_and(|spans| spans.conditions.has(condition))
    }
}

/// Returns whether the sender's thread with this account does not answer.
async fn is_sender_stalled(account: Option<&Account>) -> bool {
    let Some(account) = account else { return false };
    let answer = async {
        while account.held().await.is_none() {
            // If the sender's thread has ended, `held` returns `None` immediately. Without this
            // pause, the loop would then use a whole processor until the timeout.
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    };
    tokio::time::timeout(STALL_TIMEOUT, answer).await.is_err()
}

/// A first look at a socket.
#[derive(Debug)]
struct Look {
    receiver_index: usize,
    socket: Weak<ReceiveSocket>,
    /// [`ReceiveSocket::taken_bytes`] at that time.
    taken_bytes: u64,
    /// For how long the receiver had left its sockets alone at that time, in microseconds.
    shed_us: u64,
}

impl Look {
    /// Returns the bytes in the queue of the socket. 0 if the receiver has taken a datagram since
    /// the first look, or has ended.
    fn left_bytes(&self) -> u64 {
        let socket = self.socket.upgrade();
        let socket = socket.filter(|socket| socket.taken_bytes() == self.taken_bytes);
        socket.map_or(0, |socket| u64::from(socket.queued_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::account::Held;
    use crate::pipeline::receive::{
        Backend, Binding, DropCause, Queue, Receiver, Sink, SocketGroup, Stop,
    };
    use std::net::UdpSocket;

    /// Returns a health check for one receiver with two sockets. No thread of a daemon runs.
    fn health() -> (Health, Arc<Account>, (Vec<Receiver>, UdpSocket)) {
        let account = Arc::new(Account::new(1));
        let binding =
            Binding { receiver_count: 1, socket_count: 2, queue_bytes: 100_000, share_port: false };
        let group = SocketGroup::bind("127.0.0.1:0", binding).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(group.local_address()).unwrap();
        let receivers = group.into_receivers(4);
        let sockets = receivers.iter().map(Receiver::weak_sockets).collect();
        let health = Health::new(Arc::clone(&account), sockets);
        (health, account, (receivers, sender))
    }

    #[tokio::test]
    async fn a_receiver_that_takes_nothing_is_stalled_only_if_there_is_a_datagram() {
        let (health, account, (mut receivers, sender)) = health();
        assert!(health.stalled_receivers(health.looks()).await.is_empty());
        // Enough that neither socket stays without one.
        (0..64).for_each(|_| assert_eq!(sender.send(b"x").unwrap(), 1));
        let before = health.looks();
        let (stop, mut sink) = (Stop::new().unwrap(), Count::default());
        stop.request();
        Backend::Recvmmsg.run(&mut receivers[0], &stop, &mut sink).unwrap();
        assert_eq!(sink.0, 64);
        (0..64).for_each(|_| assert_eq!(sender.send(b"x").unwrap(), 1));
        assert!(health.stalled_receivers(before).await.is_empty(), "it has taken datagrams");
        let before = health.looks();
        account.receivers[0].shed_us.add(5_000);
        assert!(health.stalled_receivers(before).await.is_empty(), "it has left them on purpose");
        let faults = health.stalled_receivers(health.looks()).await;
        assert!(faults[0].starts_with("receiver 0 has left "), "{faults:?}");
        assert!(faults[0].ends_with(" of 2 of its 2 sockets for 3 s"), "{faults:?}");
        assert_eq!(faults.len(), 1);
    }

    /// Counts datagrams.
    #[derive(Default)]
    struct Count(usize);

    impl Sink for Count {
        fn drain<'a>(&mut self, datagrams: impl Iterator<Item = &'a [u8]>) {
            self.0 += datagrams.count();
        }

        fn kernel_dropped(&mut self, _count: u32, _queue: Queue, _cause: DropCause) {}

        fn buffers_exhausted(&mut self, _count: u32) {}

        fn shed(&mut self, _time: Duration) {}
    }

    #[tokio::test]
    async fn a_sender_that_answers_late_is_alive_and_one_that_has_ended_is_not() {
        let (health, account, _sender) = health();
        let mut queries = account.occupancy_queries();
        let (is_stalled, ()) = tokio::join!(is_sender_stalled(Some(&account)), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            queries.next().await.answer(Held::default());
        });
        assert!(!is_stalled);
        drop(queries);
        assert!(is_sender_stalled(Some(&account)).await);
        assert_eq!(health.live().await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn a_condition_of_spans_says_that_it_is_theirs() {
        let (health, _account, _sender) = health();
        let spans = Arc::new(Account::for_spans());
        let health = health.with_spans(Some(Arc::clone(&spans)));
        assert_eq!(health.ready(Detail::Full).0, StatusCode::OK);
        spans.conditions.begin(Condition::TransactionSearchOff, "off");
        let (status, body) = health.ready(Detail::Code);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let reason = json!([{"code": "transaction_search_off", "signal": "spans"}]);
        assert_eq!(body["reasons"], reason);
        assert!(health.has(Condition::TransactionSearchOff) && !health.has(Condition::NoRegion));
    }

    #[test]
    fn an_active_condition_is_reported_with_its_age() {
        let (health, account, _sender) = health();
        let ready = (StatusCode::OK, json!({"status": "ready", "reasons": []}));
        assert_eq!(health.ready(Detail::Full), ready);
        account.conditions.begin(Condition::NoCredentials, "none");
        let (status, body) = health.ready(Detail::Full);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let reason = &body["reasons"][0];
        assert_eq!(
            (&reason["code"], &reason["reason"]),
            (&json!("no_credentials"), &json!("none"))
        );
        assert!(reason["seconds"].is_u64(), "{body}");
        let (status, body) = health.ready(Detail::Code);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body["reasons"], json!([{"code": "no_credentials"}]));
    }
}
