//! Evicts the oldest waiting batches if memory is short: writes them to the spool, or drops them.
//! Spans are never dropped: they wait until the spool has room for them.
//!
//! In: the batches that wait in the uploader. Out: batches for the spool, and the account of the
//! dropped segments. Bound: evicts until memory is not short any more. Thread: the sender's.

use super::spool_client::SpoolClient;
use crate::base::account::{Account, DropReason, PerSignal};
use crate::base::clock::Clock;
use crate::base::log::LogLimit;
use crate::base::memory::ChunkPool;
use crate::pipeline::upload::Uploader;
use tracing::{info, warn};

static DROPPED: LogLimit = LogLimit::new();
static TO_SPOOL: PerSignal<LogLimit> = PerSignal::new(LogLimit::new(), LogLimit::new());

/// Returns whether the oldest waiting batches have to be evicted. With a spool this begins when
/// half of the memory is used, so that there is room left while the disk is slow.
pub(super) fn is_room_short(spool_client: Option<&SpoolClient>, pool: &ChunkPool) -> bool {
    match spool_client {
        Some(spool_client) if spool_client.is_working() => pool.is_half_used(),
        _ => pool.is_low(),
    }
}

/// Evicts the oldest waiting batches until memory is not short any more. With `keeps_all` nothing
/// is dropped.
pub(super) fn evict(
    uploader: &mut Uploader,
    mut spool_client: Option<&mut SpoolClient>,
    pool: &ChunkPool,
    account: &Account,
    keeps_all: bool,
) {
    let (mut spooled_count, mut dropped_count, signal) = (0, 0, account.signal);
    while is_room_short(spool_client.as_deref(), pool) {
        // Evicts no more batches now: the batches that are being written free their memory soon.
        if spool_client
            .as_ref()
            .is_some_and(|spool_client| spool_client.is_working() && !spool_client.has_room())
        {
            break;
        }
        let may_write = spool_client.as_ref().is_some_and(|it| it.has_room());
        if keeps_all && !may_write {
            break;
        }
        // Batches that were read from the spool are evicted only if memory is almost full.
        let pending = match pool.is_low() {
            true if may_write => uploader.evict_oldest(),
            true => uploader.evict_oldest_unshared(),
            false => uploader.evict_oldest_unspooled(),
        };
        let Some(pending) = pending else { break };
        let segment_count = pending.batch.item_count();
        match &mut spool_client {
            Some(spool_client) if may_write || pending.is_in_spool() => {
                spooled_count += segment_count;
                spool_client.write(pending);
            }
            _ => dropped_count += segment_count,
        }
    }
    if let Some(spool_client) = spool_client {
        spool_client.start_due(Clock::instant());
    }
    account.dropped(DropReason::Memory).add(dropped_count as u64);
    if spooled_count > 0 {
        TO_SPOOL.of(signal).log(|more| {
            info!(
                "Spilling over {spooled_count} {signal} to the spool: half of the memory (-m) is \
                 used, so the oldest unsent {signal} are evicted{more}"
            );
        });
    }
    if dropped_count > 0 {
        DROPPED.log(|more| {
            warn!(
                "Spilling over {dropped_count} segments: the memory limit (-m) is reached, so the \
                 oldest unsent segments are dropped{more}"
            );
        });
    }
}
