//! The lines of the start that say how segments are received, and which settings do not fit.
//!
//! In: the open sockets, the chosen backend, the limits. Out: log lines. Thread: main.

use crate::base::host::Host;
use crate::config::Config;
use crate::pipeline::limits::{Limits, MEGABYTE, Wanted};
use crate::pipeline::receive::{Choice, SocketGroup, Spread};
use crate::pipeline::sockets::SocketWish;
use tracing::{info, warn};

/// Logs how segments are received: backend, receivers, size of the socket queues, and steering.
pub fn receiving(
    group: &SocketGroup,
    choice: &Choice,
    limits: &Limits,
    host: Host,
    config: &Config,
) {
    let queue = group.queue();
    info!(
        "Listening on UDP {} (receive backend {}, {} receivers, {} sockets, socket queue {} bytes \
         each, buffers {} MB)",
        group.local_address(),
        choice.backend,
        limits.receiver_count,
        group.socket_count(),
        queue.granted_bytes,
        limits.total_bytes / MEGABYTE
    );
    if let Some(reason) = &choice.fallback {
        warn!("Receiving with {} instead: {reason}", choice.backend);
    }
    if limits.sockets.count > 1 && config.socket_count == 0 {
        info!(
            "The kernel grants {} bytes at most for the queue of a socket, so each receiver has {} \
             sockets. A larger net.core.rmem_max, or CAP_NET_ADMIN, allows one large queue",
            host.queues.most_bytes, limits.sockets.count
        );
    } else if queue.granted_bytes < queue.asked_bytes {
        info!(
            "The kernel granted {} of the {} bytes that the daemon wants for the queue of each \
             socket. {}, so that longer bursts are received",
            queue.granted_bytes,
            queue.asked_bytes,
            queue.advice()
        );
    }
    match group.spread() {
        Spread::Single | Spread::Program => {}
        Spread::Hash(error) => warn!(
            "The kernel does not accept the program that spreads datagrams over receivers \
             ({error}): its hash gives all datagrams of one application to one receiver"
        ),
        Spread::Shared => info!(
            "Another daemon listens on the port too (Receive.SharePort): that daemon may get all \
             datagrams until it ends"
        ),
    }
}

/// Logs a warning for each setting that does not fit into the memory of this host.
pub fn unfit(limits: &Limits, host: Host, config: &Config) {
    let Config { receiver_count, socket_count, .. } = *config;
    let memory_bytes = host.cgroup_limit_bytes.unwrap_or(host.memory_bytes);
    if limits.total_bytes > memory_bytes {
        warn!(
            "The buffers (-m) may grow to {} MB, but there are only {} MB of memory: the kernel \
             may kill the daemon before the buffers are full, and the segments in memory are then \
             lost",
            limits.total_bytes / MEGABYTE,
            memory_bytes / MEGABYTE
        );
    }
    if limits.receiver_count < receiver_count {
        warn!(
            "{} receivers are started instead of {receiver_count} (Receive.Receivers): more do not \
             fit into half of the buffers (-m)",
            limits.receiver_count
        );
    }
    let has_many = Wanted::from(config).sockets == SocketWish::Count(socket_count);
    if has_many && limits.sockets.count < socket_count {
        warn!(
            "{} sockets are opened for each receiver instead of {socket_count} (Receive.Sockets): \
             more do not fit into the memory for queues (-m), or into the limit of descriptors \
             (ulimit -n)",
            limits.sockets.count
        );
    }
}
