//! The tasks that a hyper client starts beside its calls, such as those that drive connections.
//!
//! In: hyper's futures. Out: the same, on the current runtime. A panic in one of them ends its
//! connection, whose calls fail and are tried again; it is logged here, since no one else waits for
//! the task.

use crate::base::log::LogLimit;
use crate::base::panics;
use hyper::rt;
use tracing::error;

static PANICKED: LogLimit = LogLimit::once_a_minute();

/// Runs hyper's tasks on the current runtime.
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
                PANICKED.log(|more| {
                    error!("A connection met {panicked}; its calls are tried again{more}")
                });
            }
        });
    }
}
