//! The ledger of a simulation: what went into the daemon, and what became of it.
//!
//! In: the documents that applications have sent, what the service took, which answers arrived, and
//! what is on the disk at the end. Out: the first promise of the daemon that was broken. The ledger
//! knows nothing of the daemon but its account. Bound: one entry for each document.

use super::format::Found;
use std::ops::Range;
use std::sync::Arc;
use xrayd::base::account::{Account, Counter, DropReason, RejectReason};

/// Another server has to answer this often before a document may be dropped.
const FOREIGN_COUNT_MIN: u32 = 3;

/// The effect of the service on the documents of one request.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Documents that the service processes.
    pub processed: Vec<u32>,
    /// Documents that the answer names as unprocessed, and that are not to be sent again.
    pub rejected: Vec<u32>,
    /// Documents that the answer names as unprocessed for now.
    pub later: Vec<u32>,
    /// Documents of a request that the service refuses as a whole.
    pub refused: Vec<u32>,
    /// Documents of a request that another server answers.
    pub foreign: Vec<u32>,
}

/// One document.
#[derive(Debug)]
struct Document {
    size_bytes: usize,
    /// Whether the service refuses it.
    is_refused: bool,
    /// The true time in seconds at which it was received.
    received_at: i64,
    /// How often the service has processed it.
    processed_count: u32,
    /// How many of these requests had no answer that arrived.
    unanswered_count: u32,
    /// The life of the daemon that was told that the document is processed or rejected.
    settled_in: Option<usize>,
    /// How often another server has answered its requests in a life.
    foreign: (usize, u32),
    /// Whether the disk has lost it with the power.
    is_gone_with_power: bool,
    /// Whether the kernel has dropped it, so that no life has received it.
    is_unreceived: bool,
    /// Whether a life that did not end in order has left more than one copy of it on the disk.
    has_copies: bool,
}

/// The counts that a life of the daemon must have at its end.
#[derive(Debug, Default)]
struct Expected {
    received: u64,
    sent: u64,
    unprocessed: u64,
    /// The largest legal number of documents that are rejected because they were refused alone.
    refused_max: u64,
    /// The largest legal number of documents that are dropped because another server answered.
    foreign_max: u64,
    /// Documents that the kernel has dropped.
    kernel_drops: u64,
}

/// One life of the daemon.
#[derive(Debug)]
struct Life {
    account: Arc<Account>,
    expected: Expected,
    /// Whether it has ended in order, on a disk without faults.
    is_clean: bool,
    /// How many segments it held when it was killed.
    killed_count: u64,
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    documents: Vec<Document>,
    lives: Vec<Life>,
    /// How many documents an earlier version of xrayd has left on the disk.
    older_count: u64,
    /// Whether a life has begun with a wrong date.
    has_wrong_dates: bool,
    failure: Option<String>,
}

impl Ledger {
    /// Notes whether the date of the host is wrong at the start of a life. Returns whether it was
    /// wrong at the start of a life before it.
    pub fn note_date(&mut self, is_wrong: bool) -> bool {
        let was_wrong = self.has_wrong_dates;
        self.has_wrong_dates |= is_wrong;
        was_wrong
    }

    /// Notes a broken promise. The first one counts.
    pub fn fail(&mut self, text: String) {
        self.failure.get_or_insert(text);
    }

    /// Returns the first broken promise.
    pub fn failure(&self) -> Option<String> {
        self.failure.clone()
    }

    /// Begins a life of the daemon. Returns its number.
    pub fn begin(&mut self, account: Arc<Account>) -> usize {
        let expected = Expected::default();
        self.lives.push(Life { account, expected, is_clean: false, killed_count: 0 });
        self.lives.len() - 1
    }

    /// Adds a document that is sent to the daemon now. Returns its number.
    pub fn send(&mut self, size_bytes: usize, is_refused: bool, now: i64) -> u32 {
        if let Some(life) = self.lives.last_mut() {
            life.expected.received += 1;
        } else {
            self.older_count += 1;
        }
        let number = u32::try_from(self.documents.len()).unwrap();
        self.documents.push(Document {
            size_bytes,
            is_refused,
            received_at: now,
            processed_count: 0,
            unanswered_count: 0,
            settled_in: None,
            foreign: (0, 0),
            is_gone_with_power: false,
            is_unreceived: false,
            has_copies: false,
        });
        number
    }

    /// Notes that the kernel has dropped a document, because the queue of the socket was full.
    pub fn dropped_by_kernel(&mut self, number: u32) {
        self.gone_with_socket(number);
        if let Some(life) = self.lives.last_mut() {
            life.expected.kernel_drops += 1;
        }
    }

    /// Notes that a document was in the kernel's queue when the daemon was killed.
    pub fn gone_with_socket(&mut self, number: u32) {
        self.documents[number as usize].is_unreceived = true;
        if let Some(life) = self.lives.last_mut() {
            life.expected.received -= 1;
        }
    }

    /// Notes the documents that a life finds on the disk. After a failed fsync the spool makes
    /// copies, and a life that did not end in order may leave them.
    pub fn start_with(&mut self, found: &Found) {
        let is_clean = self.lives.last().is_none_or(|life| life.is_clean);
        for (&number, _) in found.documents.iter().filter(|(_, it)| it.0 > 1 && !is_clean) {
            self.documents[number as usize].has_copies = true;
        }
    }

    /// Notes that an earlier version of xrayd has settled a document.
    pub fn settled_before(&mut self, number: u32) {
        let document = &mut self.documents[number as usize];
        (document.settled_in, document.processed_count) = (Some(0), 1);
        self.older_count -= 1;
    }

    /// Returns the number of documents.
    pub fn document_count(&self) -> usize {
        self.documents.len()
    }

    /// Returns the size of a document in bytes; `None` if there is no such document.
    pub fn size_of(&self, number: u32) -> Option<usize> {
        self.documents.get(number as usize).map(|document| document.size_bytes)
    }

    /// Returns whether the service refuses one of the documents.
    pub fn has_refused(&self, numbers: &[u32]) -> bool {
        numbers.iter().any(|&number| self.documents[number as usize].is_refused)
    }

    /// Returns whether the service has processed a document, or has told the daemon to give it up.
    pub fn is_done(&self, number: u32) -> bool {
        let document = &self.documents[number as usize];
        document.processed_count > 0 || document.settled_in.is_some()
    }

    /// Returns how many documents neither were processed nor settled and were received at least
    /// `age` seconds before `now`. Counts all documents of this age if a life has not ended in
    /// order: records that were settled may then come again.
    pub fn open_count(&self, age: i64, now: i64) -> u64 {
        let last = self.lives.len().saturating_sub(1);
        let may_come_again = self.lives[..last].iter().any(|life| !life.is_clean);
        let is_open =
            |it: &&Document| may_come_again || (it.processed_count == 0 && it.settled_in.is_none());
        let open = self.documents.iter().filter(|it| !it.is_unreceived).filter(is_open);
        open.filter(|document| now - document.received_at >= age).count() as u64
    }

    /// Notes that the service has taken a request of a life, `copy_count` times.
    pub fn taken(&mut self, life: usize, call: u64, verdict: &Verdict, copy_count: u32) {
        for &number in &verdict.processed {
            let document = &mut self.documents[number as usize];
            let settled_in = document.settled_in.filter(|_| !document.has_copies);
            document.processed_count += copy_count;
            document.unanswered_count += 1;
            if let Some(settled_in) = settled_in.filter(|&it| !self.may_come_again(it)) {
                self.fail(format!(
                    "call {call} of life {life} delivers document {number} again, although life \
                     {settled_in} was told that it is settled"
                ));
            }
        }
    }

    /// Returns whether a document may come again that was settled in a life: the life has not ended
    /// in order.
    fn may_come_again(&self, settled_in: usize) -> bool {
        let last = self.lives.len() - 1;
        settled_in < last && self.lives[settled_in..last].iter().any(|life| !life.is_clean)
    }

    /// Notes that the answer to a request has arrived.
    pub fn answered(&mut self, life: usize, verdict: &Verdict) {
        for &number in &verdict.processed {
            let document = &mut self.documents[number as usize];
            document.settled_in = Some(life);
            document.unanswered_count -= 1;
        }
        for &number in &verdict.rejected {
            self.documents[number as usize].settled_in = Some(life);
        }
        let mut foreign_min = u32::MAX;
        for &number in &verdict.foreign {
            let (in_life, count) = &mut self.documents[number as usize].foreign;
            *count = if *in_life == life { *count + 1 } else { 1 };
            *in_life = life;
            foreign_min = foreign_min.min(*count);
        }
        let expected = &mut self.lives[life].expected;
        expected.sent += verdict.processed.len() as u64;
        expected.unprocessed += verdict.rejected.len() as u64;
        expected.refused_max += u64::from(verdict.refused.len() == 1);
        if foreign_min >= FOREIGN_COUNT_MIN {
            expected.foreign_max += verdict.foreign.len() as u64;
        }
    }

    /// Ends the last life in order, after the sender held `held_count` segments. Checks its
    /// account. `is_clean` says that its disk had no fault.
    pub fn end(&mut self, held_count: usize, is_clean: bool) {
        let Some(life) = self.lives.last_mut() else { return };
        life.is_clean = is_clean;
        let (account, expected) = (&life.account, &life.expected);
        let count = |counter: &Counter| counter.get();
        let checks = [
            ("received", count(&account.received), expected.received),
            ("kernel_drops", count(&account.kernel_drops), expected.kernel_drops),
            ("sent", count(&account.sent), expected.sent),
            (
                "unprocessed",
                count(account.rejected(RejectReason::Unprocessed)),
                expected.unprocessed,
            ),
            ("held", held_count as u64, 0),
        ];
        let wrong = checks.iter().find(|(_, counted, expected)| counted != expected);
        let wrong =
            wrong.map(|(name, counted, expected)| format!("{name} is {counted}, not {expected}"));
        let imbalance = account.imbalance(held_count);
        let unbalanced = (imbalance != 0).then(|| format!("{imbalance} segments are not counted"));
        let text = wrong.or(unbalanced).map(|text| format!("{text}: {}", account.summary(0)));
        if let Some(text) = text {
            self.fail(text);
        }
    }

    /// Ends the last life at once. All that it held is lost.
    pub fn kill(&mut self) {
        let Some(life) = self.lives.last_mut() else { return };
        let held = life.account.imbalance(0);
        life.killed_count = u64::try_from(held).unwrap_or_default();
        let text = (held < 0).then(|| format!("{} were counted twice", -held));
        let sent = life.account.sent.get();
        let expected = life.expected.sent;
        let text = text.or((sent > expected).then(|| format!("sent is {sent}, not {expected}")));
        if let Some(text) = text {
            self.fail(text);
        }
    }

    /// Notes what the disk has lost with the power. A record that was written within `synced_ms`
    /// must not be lost.
    pub fn lose_power(&mut self, before: &Found, after: &Found, synced_ms: Range<u64>) {
        for (&number, &(_, written_ms)) in &before.documents {
            if after.documents.contains_key(&number) {
                continue;
            }
            self.documents[number as usize].is_gone_with_power = true;
            if synced_ms.contains(&written_ms) {
                self.fail(format!(
                    "document {number} was lost with the power, although its record was written \
                     at {written_ms} ms and all of {synced_ms:?} ms must be on the disk"
                ));
            }
        }
    }

    /// Checks the reasons of a life that allow a certain number of losses.
    fn check_reasons(&mut self) {
        let mut texts = Vec::new();
        for Life { account, expected, .. } in &self.lives {
            let (refused, foreign) = (
                account.rejected(RejectReason::Refused).get(),
                account.dropped(DropReason::NotXRay).get(),
            );
            if refused > expected.refused_max {
                let most = expected.refused_max;
                texts.push(format!("{refused} are refused, but only {most} were refused alone"));
            }
            if foreign > expected.foreign_max {
                let most = expected.foreign_max;
                texts.push(format!(
                    "{foreign} are dropped as not_x_ray, but only {most} had three such answers"
                ));
            }
            if account.dropped(DropReason::Panic).get() > 0 {
                texts.push("segments were lost to a panic".to_owned());
            }
        }
        texts.into_iter().for_each(|text| self.fail(text));
    }

    /// Checks at the end of the simulation that each document was delivered, is counted, or is on
    /// the disk.
    pub fn verify(&mut self, found: &Found) {
        self.check_reasons();
        let is_on_disk = |number: usize| {
            u32::try_from(number).is_ok_and(|number| found.documents.contains_key(&number))
        };
        let sum = |count: fn(&Life) -> u64| self.lives.iter().map(count).sum::<u64>();
        let dropped = sum(|life| life.account.dropped_total())
            + sum(|life| life.account.rejected(RejectReason::Refused).get());
        let killed = sum(|life| life.killed_count);
        let (mut lost, mut ambiguous, mut texts) = (Vec::new(), 0, Vec::new());
        for (number, document) in self.documents.iter().enumerate() {
            let is_done = document.processed_count > 0 || document.settled_in.is_some();
            if document.is_unreceived {
                if is_done || is_on_disk(number) {
                    texts.push(format!("the kernel has dropped {number}, and the daemon has it"));
                }
                continue;
            }
            if !is_done && !is_on_disk(number) && !document.is_gone_with_power {
                lost.push(number);
            }
            ambiguous += u64::from(document.unanswered_count > 0);
        }
        let lost_count = lost.len() as u64;
        if lost_count > dropped + killed {
            let silent = lost_count - dropped - killed;
            texts.push(format!("{silent} of the documents {lost:?} vanished uncounted"));
        }
        let is_clean = self.lives.iter().all(|life| life.is_clean);
        let on_disk: u64 = found.documents.values().map(|it| it.0 as u64).sum();
        let spooled = sum(|life| life.account.spooled.get()) + self.older_count;
        let replayed = sum(|life| life.account.replayed.get());
        if is_clean && lost_count + ambiguous < dropped {
            texts.push(format!("{dropped} are counted as lost, but only {lost_count} are missing"));
        }
        if is_clean && spooled != on_disk + replayed {
            texts.push(format!(
                "{spooled} were spooled and {replayed} replayed, but {on_disk} are on the disk"
            ));
        }
        for (number, (count, _)) in &found.documents {
            let settled_in = self.documents[*number as usize].settled_in;
            let is_settled =
                settled_in.is_some_and(|it| self.lives[it..].iter().all(|life| life.is_clean));
            if is_settled || (is_clean && *count > 1) {
                texts.push(format!("document {number} is on the disk and settled, or twice there"));
            }
        }
        texts.into_iter().for_each(|text| self.fail(text));
    }
}
