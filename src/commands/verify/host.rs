//! Checks of this host: configuration, receive backend, socket queue, memory, open files.
//!
//! In: the configuration and the kernel. Out: lines of the checklist.

use super::Checklist;
use crate::base::host::Host;
use crate::config::{Config, Source};
use crate::pipeline::limits::{Limits, MEGABYTE, Wanted};
use crate::pipeline::receive::{Binding, Choice, SocketGroup};
use rustix::process::{Resource, getrlimit};

/// Number of open files that is enough for the daemon: connections, sockets, files of the spool.
const FILE_COUNT: u64 = 1024;

pub(super) fn check(config: &Config, list: &mut Checklist<'_>) {
    check_configuration(config, list);
    let host = Host::read();
    let limits = Limits::derive(Wanted::from(config), host);
    check_backend(config, &limits, list);
    check_queue(&limits, list);
    check_memory(&limits, host, list);
    let rlimit = |resource| getrlimit(resource).current;
    match rlimit(Resource::Nofile) {
        Some(count) if count < FILE_COUNT => list.note(
            "files",
            format!("this process may have {count} files open"),
            "If hundreds of applications call the daemon, raise the limit (ulimit -n, LimitNOFILE)",
        ),
        count => list.ok("files", format!("{} may be open", shown(count))),
    }
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or("any number".to_owned(), |limit| limit.to_string())
}

fn check_configuration(config: &Config, list: &mut Checklist<'_>) {
    let file = match &config.config_path {
        Some(path) => format!("the file {}", path.display()),
        None => "no file".to_owned(),
    };
    let count = |is_it: fn(&Source) -> bool| config.sources.values().filter(|it| is_it(it)).count();
    let flag_count = count(|source| matches!(source, Source::Flag(_)));
    let variable_count = count(|source| matches!(source, Source::Variable(_)));
    let text = format!("{file}; settings by flags {flag_count}, by variables {variable_count}");
    list.ok("configuration", text);
    for warning in config.warnings.iter().chain(&crate::commands::log_fault(config)) {
        list.note("configuration", warning, "");
    }
}

fn check_backend(config: &Config, limits: &Limits, list: &mut Checklist<'_>) {
    // Before Linux 5.12 the memory of io_uring counts as locked memory, so this limit applies to
    // it.
    let locked = getrlimit(Resource::Memlock).current;
    let locked = locked.map_or("any".to_owned(), |bytes| format!("{} kB of", bytes / 1024));
    match Choice::make(config.receive_backend, limits.sockets.count > 1) {
        Ok(Choice { backend, fallback: None }) => list
            .ok("receive", format!("the backend {backend} works ({locked} memory may be locked)")),
        Ok(Choice { backend, fallback: Some(reason) }) => list.note(
            "receive",
            format!("{backend} is used: {reason}"),
            "No segment is lost; a busy daemon needs a little more CPU",
        ),
        Err(reason) => list.fail(
            "receive",
            reason.to_string(),
            "Or leave the choice to the daemon: --receiver auto",
        ),
    }
}

/// Opens a UDP socket on a free port. Checks whether the kernel grants the queue size that the
/// daemon requests.
fn check_queue(limits: &Limits, list: &mut Checklist<'_>) {
    let binding = Binding {
        receiver_count: 1,
        socket_count: 1,
        queue_bytes: limits.sockets.queue_bytes,
        share_port: false,
    };
    let queue = match SocketGroup::bind("127.0.0.1:0", binding) {
        Ok(group) => group.queue(),
        Err(error) => {
            let advice =
                "The system does not allow a UDP socket: look for a limit or a security module";
            return list.fail("queue", error.to_string(), advice);
        }
    };
    let text = format!(
        "the kernel grants {} of {} bytes for each of {} sockets",
        queue.granted_bytes,
        queue.asked_bytes,
        limits.receiver_count * limits.sockets.count
    );
    if queue.granted_bytes < queue.asked_bytes {
        let advice =
            "With a larger net.core.rmem_max, or CAP_NET_ADMIN, longer bursts are received";
        list.note("queue", text, advice);
    } else {
        list.ok("queue", text);
    }
}

fn check_memory(limits: &Limits, host: Host, list: &mut Checklist<'_>) {
    let memory_bytes = host.cgroup_limit_bytes.unwrap_or(host.memory_bytes);
    let text = format!(
        "buffers of at most {} MB; {} MB of memory",
        limits.total_bytes / MEGABYTE,
        memory_bytes / MEGABYTE
    );
    if limits.total_bytes > memory_bytes {
        let advice = "The kernel may kill the daemon before the buffers are full: give a smaller \
                      -m, or more memory";
        list.fail("memory", text, advice);
    } else {
        list.ok("memory", text);
    }
}
