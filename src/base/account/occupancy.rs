//! Occupancy: the segments and the memory that the daemon holds at this moment. The sender counts
//! them on request.
//!
//! In: a query, from any thread. Out: [`Held`]. The sender answers, because it is the only thread
//! that can reach all rings, batches and calls. It counts only when there is a query. Bound: one
//! queue entry for each task that waits for an answer. Thread: any thread can send a query; the
//! sender's thread answers.

use tokio::sync::{mpsc, oneshot};

/// The segments and the memory that the daemon holds at one moment, for each part of the pipeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Number of segments in rings, in batches, in calls, and on their way to or from the spool.
    pub segment_count: usize,
    /// Number of batches that wait for a call.
    pub waiting_batch_count: usize,
    /// Number of batches in a call.
    pub in_flight_batch_count: usize,
    /// Memory of the segments in the rings, in bytes.
    pub ring_bytes: usize,
    /// Memory of the batches that are being filled, in bytes.
    pub open_batch_bytes: usize,
    /// Memory of the batches that wait for a call, in bytes.
    pub waiting_bytes: usize,
    /// Memory of the batches in a call, in bytes.
    pub in_flight_bytes: usize,
    /// Memory of the batches on their way to or from the spool, in bytes.
    pub spool_bytes: usize,
}

/// An occupancy query. It contains the channel for its answer.
#[derive(Debug)]
pub struct OccupancyQuery(oneshot::Sender<Held>);

impl OccupancyQuery {
    /// Returns a query, and the channel that receives its answer.
    pub(super) fn new() -> (Self, oneshot::Receiver<Held>) {
        let (sender, answer) = oneshot::channel();
        (Self(sender), answer)
    }

    /// Answers the query with `held`.
    pub fn answer(self, held: Held) {
        // An error means that the task with the query no longer waits. This is normal.
        let _ = self.0.send(held);
    }
}

/// The queue of occupancy queries. The sender owns it and answers the queries.
#[derive(Debug)]
pub struct OccupancyQueries(pub(super) mpsc::UnboundedReceiver<OccupancyQuery>);

impl OccupancyQueries {
    /// Waits for the next query.
    pub async fn next(&mut self) -> OccupancyQuery {
        match self.0.recv().await {
            Some(query) => query,
            // The account was dropped, so no further query can arrive.
            None => std::future::pending().await,
        }
    }
}
