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
        tokio::spawn(watched(task));
    }
}

/// Returns `task` with its panics logged. The task is boxed first: a task of hyper over HTTP/2 has
/// the size of a connection, even if it only sends a body, and each async block around it would
/// hold and copy it twice.
fn watched<F: Future>(task: F) -> impl Future<Output = ()> {
    let task = Box::pin(task);
    async {
        let task = async {
            panics::inject("connection");
            task.await;
        };
        if let Err(panicked) = panics::caught(task).await {
            PANICKED.log(|more| error!("A connection met {panicked}; its calls are retried{more}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_task_is_not_copied_into_the_tasks_around_it() {
        let large = [0_u8; 10_000];
        let task = watched(async move {
            tokio::task::yield_now().await;
            std::hint::black_box(large);
        });
        assert!(size_of_val(&task) < 500, "{} bytes", size_of_val(&task));
    }
}
