//! Watches a shared port until the other daemon on it has ended, and then takes it over.
//!
//! In: the kernel's list of UDP sockets. Out: datagrams are spread over all sockets of this daemon.
//! Bound: one look into the list in [`LOOK_INTERVAL`], and none afterwards. Thread: main.

use super::RESTART_PAUSE;
use crate::base::panics;
use crate::pipeline::receive::TakeOver;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// Interval between two looks. The kernel's hash is in use meanwhile, which gives all datagrams of
/// one application to one socket.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Starts to watch the port. After a panic the watch begins again.
pub fn start(take_over: TakeOver) {
    let take_over = Arc::new(take_over);
    tokio::spawn(panics::restarted("Watching the shared port", RESTART_PAUSE, move || {
        let take_over = Arc::clone(&take_over);
        async move { watch(&take_over).await }
    }));
}

/// Waits until the other daemon on the port has ended, and spreads the datagrams over all sockets.
async fn watch(take_over: &TakeOver) {
    loop {
        match is_alone(take_over) {
            Ok(true) => break,
            Ok(false) => tokio::time::sleep(LOOK_INTERVAL).await,
            Err(error) => {
                let path = take_over.table_path();
                warn!(
                    "The end of the other daemon on the port cannot be seen ({path}: {error}): the \
                     kernel's hash gives all datagrams of one application to one socket"
                );
                return;
            }
        }
    }
    match take_over.run() {
        Ok(None) => {}
        Ok(Some(count)) => info!(
            "The other daemon on the port has ended: datagrams are spread over all {count} sockets"
        ),
        Err(error) => warn!(
            "The kernel does not accept the program that spreads datagrams over receivers \
             ({error}): its hash gives all datagrams of one application to one receiver"
        ),
    }
}

/// Returns whether no socket of another daemon has the address.
fn is_alone(take_over: &TakeOver) -> io::Result<bool> {
    // The list may be long, so it is read line by line.
    for line in BufReader::new(File::open(take_over.table_path())?).lines() {
        if take_over.is_other(&line?) {
            return Ok(false);
        }
    }
    Ok(true)
}
