//! The condition `memory_full`: segments are dropped because memory is full, or spans are refused.
//!
//! In: the account's count of segments that were dropped for memory, by the sender and by
//! receivers; whether receivers leave datagrams to the kernel. Spans are not dropped: for them,
//! whether memory is almost full. Out: the beginning and the end of the condition. Thread: the
//! sender's.

use crate::base::account::{Account, DropReason, Signal};
use crate::base::conditions::Condition;
use crate::base::memory::ChunkPool;

/// Follows whether segments are dropped because memory is full.
#[derive(Debug, Default)]
pub struct Losses {
    /// How many segments were dropped before the last call of [`look`](Self::look).
    noted_count: u64,
    /// Whether segments were dropped, or receivers left their sockets alone, since half of the
    /// memory was last free.
    is_losing: bool,
}

impl Losses {
    /// Begins the condition if segments were dropped since the last call, or if receivers leave
    /// their sockets alone (`is_shedding`). Ends the condition if half of the memory is free and
    /// neither is the case.
    pub fn look(&mut self, account: &Account, pool: &ChunkPool, is_shedding: bool) {
        let count = account.dropped(DropReason::Memory).get();
        let is_refusing = account.signal == Signal::Spans && pool.is_low();
        if count > self.noted_count || is_refusing {
            self.noted_count = count;
            self.is_losing = true;
            let reason = match account.signal {
                Signal::Segments => {
                    "the memory limit (-m) is reached and the oldest unsent segments are dropped"
                }
                Signal::Spans => {
                    "the memory for spans (half of -m) is full, and exporters are told to wait"
                }
            };
            account.conditions.begin(Condition::MemoryFull, reason);
        } else if is_shedding {
            if !std::mem::replace(&mut self.is_losing, true) {
                let reason = "the memory limit (-m) is reached although calls are answered, and \
                              receivers leave datagrams to the kernel until half of it is free";
                account.conditions.begin(Condition::MemoryFull, reason);
            }
        } else if self.is_losing && !pool.is_half_used() {
            self.is_losing = false;
            account.conditions.end(Condition::MemoryFull);
        }
    }
}
