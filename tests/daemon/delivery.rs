//! Compares the documents that were sent with the documents that arrived.

use super::account::Account;
use super::endpoint::Endpoint;
use super::load::Sent;
use super::process::Daemon;
use std::collections::BTreeSet;

/// The difference between the sent documents and the documents that arrived.
#[derive(Debug)]
pub struct Delivery {
    /// Sent documents that did not arrive, in the order of sending.
    pub missing: Vec<String>,
    /// Documents that arrived more than once.
    pub doubled: Vec<String>,
}

impl Delivery {
    /// Compares the documents in `sent` with those that the endpoint accepted. Panics if a document
    /// arrived that was not sent, or if the endpoint received a malformed request.
    pub fn of<'a>(endpoint: &Endpoint, sent: impl IntoIterator<Item = &'a Sent>) -> Self {
        endpoint.ledger(|ledger| {
            assert!(ledger.violations.is_empty(), "{:?}", ledger.violations);
            let sent: Vec<&String> = sent.into_iter().map(|sent| &sent.document).collect();
            let missing = sent.iter().filter(|sent| !ledger.arrivals.contains_key(**sent));
            let missing = missing.map(|sent| (*sent).clone()).collect();
            let known: BTreeSet<&String> = sent.into_iter().collect();
            let stranger = ledger.arrivals.keys().find(|arrived| !known.contains(arrived));
            assert_eq!(stranger, None, "this document was not sent");
            let doubled = ledger.arrivals.iter().filter(|(_, arrival)| arrival.count > 1);
            let doubled = doubled.map(|(document, _)| document.clone()).collect();
            Self { missing, doubled }
        })
    }

    /// Asserts that no document arrived more than once.
    pub fn has_none_twice(self, log: &str) -> Self {
        let count = self.doubled.len();
        assert_eq!(count, 0, "doubled, the first: {}\n{log}", self.doubled[0]);
        self
    }

    /// Asserts that this many documents are missing.
    pub fn misses(self, count: usize, log: &str) -> Self {
        let first = self.missing.first();
        assert_eq!(self.missing.len(), count, "missing, the first: {first:?}\n{log}");
        self
    }
}

/// Waits until `daemon` has received as many segments as were sent. This requires that the kernel
/// drops none: a load sends no faster than the daemon reads.
pub fn wait_until_received(daemon: &Daemon, sent: &[Sent]) {
    daemon.wait_for_count("received", sent.len() as u64, || {
        let account = daemon.account();
        assert_eq!(account.get("kernel_drops"), 0, "{account}\n{}", daemon.log());
        account.get("received")
    });
    let account = daemon.account();
    assert_eq!(account.get("received"), sent.len() as u64, "{account}\n{}", daemon.log());
}

/// Waits until every received segment is sent, then stops the daemon. Asserts that all documents
/// arrived and that the account shows this. Returns the log, and the account that the daemon logged
/// on shutdown.
pub fn settle(daemon: Daemon, endpoint: &Endpoint, sent: &[Sent]) -> (String, Account) {
    wait_until_received(&daemon, sent);
    daemon.wait_for_count("arrived", sent.len() as u64, || {
        let account = daemon.account();
        let lost_count = account.get("dropped") + account.get("rejected");
        let (arrived_count, log) = (endpoint.arrived_count(), daemon.log());
        assert_eq!(lost_count, 0, "{arrived_count} of {}: {account}\n{log}", sent.len());
        arrived_count as u64
    });
    daemon.wait_for_metric_of_at_least("xray_segments_sent_total", sent.len() as u64);
    daemon.balance();
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let account = Account::of_log(&log).unwrap();
    assert_eq!(account.get("dropped") + account.get("rejected"), 0, "{account}\n{log}");
    Delivery::of(endpoint, sent).misses(0, &log);
    (log, account)
}

/// Waits until each document of `sent` is delivered or dropped, then stops the daemon. Asserts that
/// the daemon counted each missing document as dropped, and that no document arrived twice.
pub fn settle_with_losses(daemon: Daemon, endpoint: &Endpoint, sent: &[Sent]) -> (String, Account) {
    wait_until_received(&daemon, sent);
    daemon.wait_for_count("sent and dropped", sent.len() as u64, || {
        let account = daemon.account();
        account.get("sent") + account.get("dropped")
    });
    daemon.balance();
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let account = Account::of_log(&log).unwrap();
    let dropped_count = usize::try_from(account.get("dropped")).unwrap();
    Delivery::of(endpoint, sent).misses(dropped_count, &log).has_none_twice(&log);
    (log, account)
}

/// Does what [`settle`] does, and asserts that no document arrived more than once.
pub fn settle_once(daemon: Daemon, endpoint: &Endpoint, sent: &[Sent]) -> (String, Account) {
    let (log, account) = settle(daemon, endpoint, sent);
    Delivery::of(endpoint, sent).has_none_twice(&log);
    assert_eq!(account.get("sent"), sent.len() as u64, "{log}");
    (log, account)
}
