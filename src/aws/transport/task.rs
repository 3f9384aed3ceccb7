//! Runs the background tasks of hyper clients. For example, a task sends and receives the data of a
//! connection.
//!
//! In: futures of hyper. Out: tasks on the current runtime. Thread: the thread of the runtime. A
//! panic in a task closes the connection of the task. The calls on this connection fail and are
//! retried. The panic is logged here, because no other code waits for the result of the task.

use crate::base::log::LogLimit;
use crate::base::panics;
use hyper::rt;
use tracing::error;

static PANICKED: LogLimit = LogLimit::once_a_minute();

/// Runs background tasks of hyper on the current tokio runtime.
#[derive(Debug, Clone, Copy, Default)]
pub struct Executor;

impl<F: Future<Output: Send + 'static> + Send + 'static> rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        let task = async {
            panics::inject("connection");
            task.await;
        };
        tokio::spawn(async {
            if let Err(panicked) = panics::caught(task).await {
                PANICKED
                    .log(|more| error!("A connection met {panicked}; its calls are retried{more}"));
            }
        });
    }
}
