//! Messages to the service manager (systemd, `Type=notify`): ready, alive, stopping.
//!
//! In: the health of the daemon. Out: datagrams to `NOTIFY_SOCKET`, or nothing if the variable is
//! not set. The daemon says that it is alive twice in each watchdog timeout (`WatchdogSec=`).
//! Thread: main.

use crate::admin::health::Health;
use crate::base::panics;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tracing::{error, warn};

/// Tells the service manager that the shutdown has begun.
pub fn stopping() {
    tell(&NotifyState::Stopping);
}

/// Tells the service manager that the daemon is ready, then serves the watchdog until the end.
///
/// The daemon is ready as soon as it has tried to open the TCP port (`is_tried`), even if the port
/// is in use: segments are received and sent without the port.
pub async fn keep_informed(mut is_tried: watch::Receiver<bool>, health: Health) {
    // An error means that the TCP address is not valid. The daemon will not try to open the port,
    // so there is nothing to wait for.
    let _ = is_tried.wait_for(|is_tried| *is_tried).await;
    panics::inject("manager");
    tell(&NotifyState::Ready);
    keep_watchdog(health).await;
}

async fn keep_watchdog(health: Health) {
    let Some(timeout) = sd_notify::watchdog_enabled() else { return };
    let mut interval = tokio::time::interval(timeout / 2);
    loop {
        interval.tick().await;
        let faults = health.faults().await;
        match faults.is_empty() {
            true => tell(&NotifyState::Watchdog),
            false => {
                error!("The daemon sends no keep-alive to the watchdog: {}", faults.join("; "))
            }
        }
    }
}

fn tell(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        warn!("Cannot send {state} to the service manager (NOTIFY_SOCKET): {error}");
    }
}
