//! Occupancy: what is held at this moment, counted by the sender on request.
//!
//! In: a query, from any thread. Out: [`Held`]. The sender answers, because it is the only thread
//! that can reach every holder of segments. It counts only when there is a query. Bound: one queue
//! entry for each task that waits for an answer. Thread: any asks, the sender's thread answers.

use tokio::sync::{mpsc, oneshot};

/// The segments and the memory that are held at one moment, by holder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Segments in rings, in batches, in calls, and on their way to or from the spool.
    pub segment_count: usize,
    /// Batches that wait for an attempt.
    pub waiting_batch_count: usize,
    /// Batches in a call.
    pub in_flight_batch_count: usize,
    /// Memory of the segments in the rings, in bytes.
    pub ring_bytes: usize,
    /// Memory of the batches that are being filled, in bytes.
    pub open_batch_bytes: usize,
    /// Memory of the batches that wait for an attempt, in bytes.
    pub waiting_bytes: usize,
    /// Memory of the batches in a call, in bytes.
    pub in_flight_bytes: usize,
    /// Memory of the batches on their way to or from the spool, in bytes.
    pub spool_bytes: usize,
}

/// A query for what is held. It carries the channel for its answer.
#[derive(Debug)]
pub struct OccupancyQuery(oneshot::Sender<Held>);

impl OccupancyQuery {
    /// Returns a query, and the receiving end of its answer.
    pub(super) fn new() -> (Self, oneshot::Receiver<Held>) {
        let (sender, answer) = oneshot::channel();
        (Self(sender), answer)
    }

    /// Answers the query.
    pub fn answer(self, held: Held) {
        // An error means that the asking task no longer waits. This is normal.
        let _ = self.0.send(held);
    }
}

/// The receiving end of all occupancy queries; the sender owns it.
#[derive(Debug)]
pub struct OccupancyQueries(pub(super) mpsc::UnboundedReceiver<OccupancyQuery>);

impl OccupancyQueries {
    /// Waits for the next query.
    pub async fn next(&mut self) -> OccupancyQuery {
        match self.0.recv().await {
            Some(query) => query,
            // The account was dropped, so there will be no more queries.
            None => std::future::pending().await,
        }
    }
}
