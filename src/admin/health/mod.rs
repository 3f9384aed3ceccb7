//! Liveness (`/health`) and readiness (`/ready`) of the daemon.
//!
//! In: a request of an orchestrator or an operator. Out: [`Health::faults`] lists the threads that
//! make no progress; [`Health::conditions`] lists what keeps segments from being delivered. Bound:
//! [`STALL_TIMEOUT`] for an answer. Thread: main. Checks run only on request, so an idle daemon
//! uses no processor time for them.
//!
//! An outage of the X-Ray service does not affect liveness. Otherwise an orchestrator would kill
//! the daemon during an outage, and the segments in its memory would be lost.
//!
//! A receiver is stalled if its socket's queue has datagrams and the receiver takes none. A
//! receiver with an empty queue sleeps and is healthy. The sender's thread is stalled if it does
//! not answer an occupancy query; it normally answers between two steps of its loop.

pub mod ask;

use crate::base::account::Account;
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
    sockets: Vec<Weak<ReceiveSocket>>,
}

impl Health {
    /// Returns a health check for the sender's thread and for the receivers of `sockets`. The
    /// sockets must be in the same order as the receivers in `account`.
    pub fn new(account: Arc<Account>, sockets: Vec<Weak<ReceiveSocket>>) -> Self {
        Self { account, sockets }
    }

    /// Returns one text for each thread that makes no progress. The list is empty if the daemon is
    /// healthy.
    pub async fn faults(&self) -> Vec<String> {
        let receivers = (0..self.sockets.len()).map(|index| (index, self.taken_count(index)));
        let (mut faults, is_sender_stalled) =
            tokio::join!(self.stalled_receivers(receivers.collect()), self.is_sender_stalled());
        if is_sender_stalled {
            faults.push(format!(
                "the upload thread has not answered for {} s",
                STALL_TIMEOUT.as_secs()
            ));
        }
        faults
    }

    /// Returns one text for each receiver that takes no datagrams although its queue has some. Each
    /// entry of `receivers` is the index of a receiver and its count of datagrams so far.
    async fn stalled_receivers(&self, mut receivers: Vec<(usize, u64)>) -> Vec<String> {
        let deadline = Instant::now() + STALL_TIMEOUT;
        loop {
            receivers.retain(|&(index, count)| {
                self.queued_bytes(index) > 0 && self.taken_count(index) == count
            });
            if receivers.is_empty() || Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        let fault = |(index, _): &(usize, u64)| {
            let bytes = self.queued_bytes(*index);
            let seconds = STALL_TIMEOUT.as_secs();
            format!("receiver {index} has left {bytes} bytes in its socket's queue for {seconds} s")
        };
        receivers.iter().map(fault).collect()
    }

    fn queued_bytes(&self, index: usize) -> u32 {
        self.sockets[index].upgrade().map_or(0, |socket| socket.queued_bytes())
    }

    fn taken_count(&self, index: usize) -> u64 {
        let counts = &self.account.receivers[index];
        counts.datagrams.get() + counts.kernel_drops.get()
    }

    async fn is_sender_stalled(&self) -> bool {
        tokio::time::timeout(STALL_TIMEOUT, async {
            while self.account.held().await.is_none() {
                // If the sender's thread has ended, `held` returns `None` immediately. Without
                // this pause, the loop would then use a whole processor until the timeout.
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        })
        .await
        .is_err()
    }

    /// Returns the conditions that keep segments from being delivered.
    pub fn conditions(&self) -> Vec<ActiveCondition> {
        self.account.conditions.active()
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
        let conditions = self.conditions();
        let reasons: Vec<Value> = conditions
            .iter()
            .map(|ActiveCondition { condition, age, reason }| match detail {
                Detail::Full => {
                    json!({"code": condition.code(), "reason": reason, "seconds": age.as_secs()})
                }
                Detail::Code => json!({"code": condition.code()}),
            })
            .collect();
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
        self.account.conditions.has(condition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::account::Held;
    use crate::pipeline::receive::{Binding, Receiver, SocketGroup};
    use std::net::UdpSocket;

    /// Returns a health check for one receiver and its socket. No thread of a daemon runs.
    fn health() -> (Health, Arc<Account>, (Vec<Receiver>, UdpSocket)) {
        let account = Arc::new(Account::new(1));
        let binding = Binding { socket_count: 1, queue_bytes: 100_000, share_port: false };
        let group = SocketGroup::bind("127.0.0.1:0", binding).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(group.local_address()).unwrap();
        let receivers = group.into_receivers(4);
        let sockets = receivers.iter().map(|it| Arc::downgrade(it.socket())).collect();
        let health = Health::new(Arc::clone(&account), sockets);
        (health, account, (receivers, sender))
    }

    #[tokio::test]
    async fn a_receiver_that_takes_nothing_is_stalled_only_if_there_is_a_datagram() {
        let (health, account, (_receivers, sender)) = health();
        let receivers = || vec![(0, health.taken_count(0))];
        assert!(health.stalled_receivers(receivers()).await.is_empty());
        sender.send(b"x").unwrap();
        let before = receivers();
        account.receivers[0].datagrams.add(1);
        assert!(health.stalled_receivers(before).await.is_empty(), "it has taken a datagram");
        let faults = health.stalled_receivers(receivers()).await;
        assert!(faults[0].starts_with("receiver 0 has left "), "{faults:?}");
    }

    #[tokio::test]
    async fn a_sender_that_answers_late_is_alive_and_one_that_has_ended_is_not() {
        let (health, account, _sender) = health();
        let mut queries = account.occupancy_queries();
        let (is_stalled, ()) = tokio::join!(health.is_sender_stalled(), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            queries.next().await.answer(Held::default());
        });
        assert!(!is_stalled);
        drop(queries);
        assert!(health.is_sender_stalled().await);
        assert_eq!(health.live().await.0, StatusCode::SERVICE_UNAVAILABLE);
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
