//! The last lines of the log: the accounts, and lines that were left out.
//!
//! In: the accounts at the end of the shutdown. Out: log lines. Thread: main.

use crate::base::account::{Account, DropReason, Signal};
use crate::base::log;
use tracing::{error, info, warn};

/// Counts as dropped the segments that a panic has destroyed. A thread was processing them when it
/// panicked. No part of the flow holds them, so the account lacks exactly their number.
pub(super) fn count_unwound(account: &Account, held_count: usize) {
    let Ok(count @ 1..) = u64::try_from(account.imbalance(held_count)) else { return };
    account.dropped(DropReason::Panic).add(count);
    let signal = account.signal;
    error!("{count} {signal} are dropped: a thread panicked while it processed them");
}

/// Logs how many lines were not logged.
pub(super) fn log_lines() {
    match log::unreported_count() {
        0 => {}
        count => info!("{count} lines were not logged, since there were too many similar lines"),
    }
    match log::dropped_line_count() {
        0 => {}
        count => warn!("{count} lines were dropped: too many waited to be written"),
    }
}

/// Logs an account, and by how many segments or spans it does not balance.
pub(super) fn log_account(account: &Account, held_count: usize) {
    let (name, signal) = match account.signal {
        Signal::Segments => ("Account", Signal::Segments),
        Signal::Spans => ("Account of spans", Signal::Spans),
    };
    info!("{name}: {}", account.summary(held_count));
    let imbalance = account.imbalance(held_count);
    if imbalance != 0 {
        error!("The account does not balance: {imbalance} {signal}. This is a fault of xrayd");
    }
}
