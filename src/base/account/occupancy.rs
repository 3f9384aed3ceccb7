//! How much is held: asked of the one thread that can walk all that holds something.
//!
//! In: a query, from any thread. Out: [`Held`], counted one by one. Nothing is counted unless
//! somebody asks.

use tokio::sync::{mpsc, oneshot};

/// What is held at the moment, by who holds it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Segments in rings, batches, calls and on their way to or from the spool.
    pub segment_count: usize,
    /// Batches that wait for an attempt.
    pub waiting_batch_count: usize,
    /// Batches in flight.
    pub in_flight_batch_count: usize,
    /// Memory of what waits in the rings.
    pub ring_bytes: usize,
    /// Memory of the batches that are being filled.
    pub open_batch_bytes: usize,
    /// Memory of the batches that wait for an attempt.
    pub waiting_bytes: usize,
    /// Memory of the bodies in flight.
    pub in_flight_bytes: usize,
    /// Memory of what is on its way to or from the spool.
    pub spool_bytes: usize,
}

/// Somebody wants to know what is held.
#[derive(Debug)]
pub struct OccupancyQuery(oneshot::Sender<Held>);

impl OccupancyQuery {
    /// A query, and where its answer comes to.
    pub(super) fn new() -> (Self, oneshot::Receiver<Held>) {
        let (sender, answer) = oneshot::channel();
        (Self(sender), answer)
    }

    /// Answers it.
    pub fn answer(self, held: Held) {
        // Whoever has asked may have given up.
        let _ = self.0.send(held);
    }
}

/// Where the questions come to: the one who can walk all that holds segments.
#[derive(Debug)]
pub struct OccupancyQueries(pub(super) mpsc::UnboundedReceiver<OccupancyQuery>);

impl OccupancyQueries {
    /// Waits until somebody asks.
    pub async fn next(&mut self) -> OccupancyQuery {
        match self.0.recv().await {
            Some(query) => query,
            // The account is gone, and with it everybody who could ask.
            None => std::future::pending().await,
        }
    }
}
