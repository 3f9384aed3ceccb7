//! Whether the daemon lives, and whether it delivers.
//!
//! In: a question, of an orchestrator or an operator. Out: [`Health::faults`], which are empty
//! while receivers and sender thread make progress, whatever the service does: an outage must never
//! make anybody kill a daemon and what it holds. And [`Health::conditions`], which say what keeps
//! it from delivering. Nothing is looked at unless somebody asks, so an idle daemon stays idle.
//! Bound: [`STALL_TIMEOUT`] for an answer. Runs on the main thread.
//!
//! A receiver has no way to say that it is well while it sleeps for want of datagrams, and needs
//! none: one that leaves datagrams in the kernel's queue and takes nothing is wedged. The upload
//! thread is asked to count what it holds, and answers between any two steps.

pub mod ask;

use crate::base::account::Account;
use crate::base::conditions::{ActiveCondition, Condition};
use crate::pipeline::receive::ReceiveSocket;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A thread that has made no progress for so long is wedged. Whoever asks waits for 5 s at least.
const STALL_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a receiver with datagrams in its queue is looked at.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Looks at the daemon's threads when asked.
#[derive(Debug, Clone)]
pub struct Health {
    account: Arc<Account>,
    sockets: Vec<Weak<ReceiveSocket>>,
}

impl Health {
    /// Looks after the receivers of `sockets`, in their order in `account`, and the sender thread.
    pub fn new(account: Arc<Account>, sockets: Vec<Weak<ReceiveSocket>>) -> Self {
        Self { account, sockets }
    }

    /// The threads that make no progress; none of a daemon that lives.
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

    /// Of `receivers`, each with what it has taken so far, those that leave datagrams where they
    /// are.
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
                // At once where the thread has ended: then this goes on to the end of patience.
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        })
        .await
        .is_err()
    }

    /// What keeps the daemon from delivering.
    pub fn conditions(&self) -> Vec<ActiveCondition> {
        self.account.conditions.active()
    }

    /// The answer to `GET /health`.
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

    /// The answer to `GET /ready`.
    pub fn ready(&self) -> (StatusCode, Value) {
        let conditions = self.conditions();
        let reasons: Vec<Value> = conditions
            .iter()
            .map(|ActiveCondition { condition, age, reason }| {
                json!({"code": condition.code(), "reason": reason, "seconds": age.as_secs()})
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

    /// Whether a condition lasts, for the metrics.
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

    /// A daemon of one receiver, of which no thread runs.
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
    async fn a_receiver_that_takes_nothing_is_wedged_only_when_there_is_something_to_take() {
        let (health, account, (_receivers, sender)) = health();
        let receivers = || vec![(0, health.taken_count(0))];
        assert!(health.stalled_receivers(receivers()).await.is_empty());
        sender.send(b"x").unwrap();
        let before = receivers();
        account.receivers[0].datagrams.add(1);
        assert!(health.stalled_receivers(before).await.is_empty(), "it has taken one meanwhile");
        let faults = health.stalled_receivers(receivers()).await;
        assert!(faults[0].starts_with("receiver 0 has left "), "{faults:?}");
    }

    #[tokio::test]
    async fn an_upload_thread_that_answers_late_lives_and_one_that_is_gone_does_not() {
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
    fn what_keeps_it_from_delivering_is_told_with_its_age() {
        let (health, account, _sender) = health();
        assert_eq!(health.ready(), (StatusCode::OK, json!({"status": "ready", "reasons": []})));
        account.conditions.begin(Condition::NoCredentials, "none");
        let (status, body) = health.ready();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let reason = &body["reasons"][0];
        assert_eq!(
            (&reason["code"], &reason["reason"]),
            (&json!("no_credentials"), &json!("none"))
        );
        assert!(reason["seconds"].is_u64(), "{body}");
    }
}
