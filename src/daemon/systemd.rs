//! What the service manager is told (systemd, `Type=notify`): ready, alive, stopping.
//!
//! In: the daemon's own moments, and its health for the watchdog, as often as the manager asks for
//! it. Out: datagrams to `NOTIFY_SOCKET`; nothing where there is none. Runs on the main thread.

use crate::admin::health::Health;
use crate::base::panics;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tracing::{error, warn};

/// What is left is being sent.
pub fn stopping() {
    tell(&NotifyState::Stopping);
}

/// Says that the daemon is ready: segments are accepted, and clients too, or the TCP port
/// `is_tried` at least, since one that is taken may stay so. Then says for as long as it lives that
/// it does.
pub async fn keep_informed(mut is_tried: watch::Receiver<bool>, health: Health) {
    // Where the address is none there is no word of a try, and nothing to wait for.
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
                error!("The watchdog is not told that the daemon lives: {}", faults.join("; "))
            }
        }
    }
}

fn tell(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        warn!("The service manager (NOTIFY_SOCKET) cannot be told {state}: {error}");
    }
}
