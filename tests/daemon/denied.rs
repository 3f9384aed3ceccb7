//! If the system denies io_uring, locked memory or a large socket queue, the daemon logs that and
//! still delivers.

#![allow(unsafe_code, reason = "a child process can only be restricted between fork and exec")]

use super::endpoint::Endpoint;
use super::process::{Daemon, HEADER, command, config_file, in_own_mounts};
use super::skip::{Need, skip};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use xrayd::pipeline::receive::Backend;

/// The numbers of io_uring's system calls: setup, enter, register.
const IO_URING: std::ops::RangeInclusive<u32> = 425..=427;

#[allow(clippy::cast_possible_truncation, reason = "the codes of BPF have 16 bits")]
const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// The answer of a seccomp filter that makes a call fail with `errno`.
fn fails_with(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()
}

/// Installs a seccomp filter in this process and its children.
fn install(filter: &mut [libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: `program` and its instructions are valid for reads for both calls.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if installed { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The position of the system call's number, and of the low half of one of its arguments, in the
/// data that a filter reads (`struct seccomp_data`).
const NUMBER: u32 = 0;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

const fn load(position: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, position)
}

/// Goes on with the next instruction if `test` with `value` holds. Otherwise skips `count`.
const fn unless_skip(test: u32, value: u32, count: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, 0, count, value)
}

const fn answer(action: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action)
}

/// Answers the system calls of io_uring with `action` in this process and its children, as the
/// seccomp profile of a container does.
fn answer_io_uring(action: u32) -> io::Result<()> {
    install(&mut [
        load(NUMBER),
        unless_skip(libc::BPF_JGE, *IO_URING.start(), 2),
        instruction(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 1, 0, *IO_URING.end()),
        answer(action),
        answer(libc::SECCOMP_RET_ALLOW),
    ])
}

/// Makes the creation of child processes fail, and allows threads. The C library tries `clone3`
/// first, whose flags no filter can read, and takes `clone` where there is none.
fn deny_children() -> io::Result<()> {
    const CLONE3: u32 = 435;
    install(&mut [
        load(NUMBER),
        unless_skip(libc::BPF_JEQ, CLONE3, 1),
        answer(fails_with(libc::ENOSYS)),
        unless_skip(libc::BPF_JEQ, u32::try_from(libc::SYS_clone).unwrap_or_default(), 3),
        load(argument(0)),
        unless_skip(libc::BPF_JSET, libc::CLONE_VFORK.cast_unsigned(), 1),
        answer(fails_with(libc::EAGAIN)),
        answer(libc::SECCOMP_RET_ALLOW),
    ])
}

/// Makes each wait for datagrams in io_uring fail (`io_uring_enter`). The wait of the trial at the
/// start passes: it alone has a timeout, and so the flag `IORING_ENTER_EXT_ARG`.
fn deny_waits() -> io::Result<()> {
    const ENTER: u32 = 426;
    const FLAG_GETEVENTS: u32 = 1;
    install(&mut [
        load(NUMBER),
        unless_skip(libc::BPF_JEQ, ENTER, 5),
        load(argument(2)),
        unless_skip(libc::BPF_JEQ, 1, 3),
        load(argument(3)),
        unless_skip(libc::BPF_JEQ, FLAG_GETEVENTS, 1),
        answer(fails_with(libc::ENOMEM)),
        answer(libc::SECCOMP_RET_ALLOW),
    ])
}

/// Makes the registration of receive buffers fail in a process that has more than a few
/// descriptors: in the daemon, but not in the process of the trial at the start.
fn deny_buffers() -> io::Result<()> {
    const REGISTER: u32 = 427;
    const DESCRIPTOR_MIN: u32 = 10;
    install(&mut [
        load(NUMBER),
        unless_skip(libc::BPF_JEQ, REGISTER, 3),
        load(argument(0)),
        unless_skip(libc::BPF_JGE, DESCRIPTOR_MIN, 1),
        answer(fails_with(libc::ENOMEM)),
        answer(libc::SECCOMP_RET_ALLOW),
    ])
}

/// Removes a capability permanently from the programs that this process executes.
fn drop_capability(number: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
    // EPERM means that this process has no privileges, and so no capability to remove.
    if result == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM) {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Returns the command for a daemon with these flags. The child process calls `restrain` before it
/// executes the program.
fn restrained(
    endpoint: &Endpoint,
    arguments: &[&str],
    restrain: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) -> Command {
    let mut all = vec!["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "-n", "us-east-1"];
    all.extend(arguments);
    let mut command = command(&all);
    command
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_ENDPOINT_URL_XRAY", endpoint.url());
    // SAFETY: `restrain` makes system calls and allocates nothing.
    unsafe { command.pre_exec(restrain) };
    command
}

/// Sends 75 segments and asserts that they arrive. Returns the log.
fn delivers(endpoint: &Endpoint, daemon: Daemon) -> String {
    daemon.send((0..75).map(|index| format!("{HEADER}{{\"n\":{}}}", 100 + index)));
    daemon.wait_for_metric("xray_segments_sent_total", 75);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    assert_eq!(endpoint.sorted_documents().len(), 75);
    log
}

#[test]
fn where_io_uring_is_denied_the_daemon_falls_back_says_why_and_delivers() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let endpoint = Endpoint::start();
        let daemon =
            Daemon::spawn(restrained(&endpoint, &[], move || answer_io_uring(fails_with(errno))));
        assert_eq!(daemon.metric("xray_receive_backend_info{backend=\"recvmmsg\"}"), 1);
        let log = delivers(&endpoint, daemon);
        assert!(log.contains("(receive backend recvmmsg, "), "{log}");
        let reason = "Receiving with recvmmsg instead: the receive backend uring does not work";
        assert!(log.contains(reason) && log.contains("seccomp profile"), "{log}");
    }
}

#[test]
fn a_backend_that_is_wanted_and_denied_ends_the_start_and_says_why() {
    for backend in Backend::ALL {
        let endpoint = Endpoint::start();
        let arguments = ["--receiver", backend.name()];
        let mut restrained =
            restrained(&endpoint, &arguments, || answer_io_uring(fails_with(libc::EPERM)));
        if backend == Backend::Recvmmsg {
            let log = delivers(&endpoint, Daemon::spawn(restrained));
            assert!(!log.contains("instead"), "{log}");
            continue;
        }
        let output = restrained.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let denied = format!("the receive backend {backend} does not work here");
        assert!(said.contains(&denied), "{said}");
        assert!(said.contains("seccomp profile") && said.contains("auto"), "{said}");
    }
}

/// The answers of a seccomp filter that end who makes the call: the process, the thread, or the
/// process by the signal SIGSYS.
const KILLS: [u32; 3] =
    [libc::SECCOMP_RET_KILL_PROCESS, libc::SECCOMP_RET_KILL_THREAD, libc::SECCOMP_RET_TRAP];

#[test]
fn where_io_uring_ends_the_process_the_daemon_falls_back_says_why_and_delivers() {
    for action in KILLS {
        let endpoint = Endpoint::start();
        let daemon = Daemon::spawn(restrained(&endpoint, &[], move || answer_io_uring(action)));
        assert_eq!(daemon.metric("xray_receive_backend_info{backend=\"recvmmsg\"}"), 1);
        let log = delivers(&endpoint, daemon);
        let reason = "Receiving with recvmmsg instead: the receive backend uring does not work";
        assert!(log.contains(reason), "{log}");
        assert!(log.contains("SIGSYS") && log.contains("seccomp profile"), "{log}");
    }
}

#[test]
fn a_wanted_backend_that_ends_the_process_ends_the_start_and_says_why() {
    for backend in [Backend::Uring, Backend::TokioUring] {
        let endpoint = Endpoint::start();
        let arguments = ["--receiver", backend.name()];
        let kill = || answer_io_uring(libc::SECCOMP_RET_KILL_PROCESS);
        let output = restrained(&endpoint, &arguments, kill).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("the receive backend {backend} does not work")), "{said}");
        assert!(said.contains("SIGSYS") && said.contains("auto"), "{said}");
    }
}

#[test]
fn without_a_child_process_for_the_trial_the_daemon_falls_back_says_why_and_delivers() {
    let endpoint = Endpoint::start();
    let daemon = Daemon::spawn(restrained(&endpoint, &[], deny_children));
    let log = delivers(&endpoint, daemon);
    assert!(log.contains("(receive backend recvmmsg, "), "{log}");
    let reason = "Receiving with recvmmsg instead: the receive backend uring was not tried";
    assert!(log.contains(reason) && log.contains("Resource temporarily unavailable"), "{log}");
}

#[test]
fn without_proc_nobody_knows_what_a_filter_does_and_the_daemon_delivers() {
    const HIDE: &str = "umount -l /proc";
    let trial = in_own_mounts(&Command::new("true"), HIDE).output();
    if !trial.is_ok_and(|output| output.status.success()) {
        return skip(Need::Mount, "unmounting is not allowed here");
    }
    let endpoint = Endpoint::start();
    let usual = restrained(&endpoint, &[], || Ok(()));
    let hidden = in_own_mounts(&usual, &format!("{HIDE} && exec \"$@\""));
    let log = delivers(&endpoint, Daemon::spawn(hidden));
    let reason = "Receiving with recvmmsg instead: the receive backend uring was not tried";
    assert!(log.contains(reason) && log.contains("No such file"), "{log}");
}

/// Asserts that all receivers go on with `recvmmsg`, and that the metrics name it for each.
fn goes_on_with_recvmmsg(deny: fn() -> io::Result<()>, reason: &str) {
    if let Err(error) = Backend::Uring.probe() {
        skip(Need::Uring, error);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), "Receive: {Receivers: 2}");
    let endpoint = Endpoint::start();
    let daemon = Daemon::spawn(restrained(&endpoint, &["-c", &config, "-m", "16"], deny));
    for index in 0..2 {
        let line = format!("Receiver {index} goes on with recvmmsg on the same socket: ");
        assert!(daemon.wait_for_line(&line).contains(reason), "{}", daemon.log());
        // The receiver logs the change before it makes it.
        let labels = format!("{{receiver=\"{index}\",backend=\"recvmmsg\"}}");
        daemon.wait_for_metric(&format!("xray_receiver_backend_info{labels}"), 1);
    }
    daemon.wait_for_metric("xray_receive_backend_info{backend=\"recvmmsg\"}", 1);
    assert_eq!(daemon.metric("xray_receive_backend_failures_total"), 2);
    assert_eq!(daemon.metric("xray_receive_backend_info{backend=\"uring\"}"), 0);
    let log = delivers(&endpoint, daemon);
    assert!(log.contains("(receive backend uring, 2 receivers"), "{log}");
}

#[test]
fn where_the_trial_passes_and_the_set_up_fails_a_receiver_goes_on_with_recvmmsg() {
    goes_on_with_recvmmsg(deny_buffers, "cannot be set up: Cannot allocate memory");
}

#[test]
fn where_the_trial_passes_and_a_wait_fails_a_receiver_goes_on_with_recvmmsg() {
    goes_on_with_recvmmsg(deny_waits, "waiting for datagrams failed: Cannot allocate memory");
}

#[test]
fn with_few_descriptors_the_daemon_delivers_or_says_why_it_does_not() {
    let mut delivered_count = 0;
    for count in [8, 12, 16, 20, 28, 40] {
        let endpoint = Endpoint::start();
        let restrain = move || {
            let few = libc::rlimit { rlim_cur: count, rlim_max: count };
            // SAFETY: `few` is valid for reads for the call.
            match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        match Daemon::spawn_or_end(
            restrained(&endpoint, &["-m", "16"], restrain),
            "Credentials found",
        ) {
            Ok(daemon) => {
                daemon.send((0..75).map(|index| format!("{HEADER}{{\"n\":{}}}", 100 + index)));
                let has_arrived = || endpoint.sorted_documents().len() == 75;
                daemon.wait_until("an end", || has_arrived() || daemon.log().contains("error 24"));
                delivered_count += usize::from(has_arrived());
                let (status, log) = daemon.stop();
                assert!(status.success() && log.contains("received=75"), "{count}: {log}");
            }
            Err((status, log)) => {
                assert_eq!(status.code(), Some(1), "{count}: {log}");
                assert!(log.contains("os error 24"), "{count}: {log}");
            }
        }
    }
    assert!(delivered_count > 0);
}

#[test]
fn with_little_memory_to_lock_it_delivers_and_says_what_it_runs_on() {
    const CAP_IPC_LOCK: libc::c_ulong = 14;
    let endpoint = Endpoint::start();
    let restrain = || {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `none` is valid for reads for the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) } != 0 {
            return Err(io::Error::last_os_error());
        }
        drop_capability(CAP_IPC_LOCK)
    };
    let daemon = Daemon::spawn(restrained(&endpoint, &[], restrain));
    let says =
        |name: &str| daemon.metric(&format!("xray_receive_backend_info{{backend={name:?}}}"));
    let runs_on_uring = says("uring") == 1;
    assert_eq!(says("recvmmsg") == 1, !runs_on_uring);
    // With the backend `uring` the process has the descriptor of an io_uring, as soon as a receiver
    // has begun. With `recvmmsg` it has none.
    daemon.wait_until("the descriptor is that of the backend", || {
        daemon.has_descriptor("[io_uring]") == runs_on_uring
    });
    let log = delivers(&endpoint, daemon);
    assert_eq!(log.contains("Receiving with recvmmsg instead"), !runs_on_uring, "{log}");
    assert!(runs_on_uring || log.contains("memlock") || log.contains("io_uring"), "{log}");
}

#[test]
fn without_the_right_to_a_large_queue_it_says_what_was_granted() {
    const CAP_NET_ADMIN: libc::c_ulong = 12;
    let endpoint = Endpoint::start();
    // With `-m 512` (MB) the daemon asks the kernel for queues of 32 MB.
    let daemon =
        Daemon::spawn(restrained(&endpoint, &["-m", "512"], || drop_capability(CAP_NET_ADMIN)));
    let log = delivers(&endpoint, daemon);
    let allowed = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
    let allowed: usize = allowed.trim().parse().unwrap();
    let is_short = allowed < 32 << 20;
    // Where a queue is small, several sockets are opened.
    let said = match 2 * allowed < 4 << 20 {
        true => format!("The kernel grants {} bytes at most for the queue", 2 * allowed),
        false => format!("The kernel granted {} of", 2 * allowed),
    };
    assert_eq!(log.contains(&said), is_short, "{log}");
    assert_eq!(log.contains("net.core.rmem_max, or CAP_NET_ADMIN"), is_short, "{log}");
}

/// Makes each wish for a queue of another size than the default fail (`SO_RCVBUF` and
/// `SO_RCVBUFFORCE`).
fn deny_queue_sizes() -> io::Result<()> {
    install(&mut [
        load(NUMBER),
        unless_skip(libc::BPF_JEQ, u32::try_from(libc::SYS_setsockopt).unwrap_or_default(), 6),
        load(argument(1)),
        unless_skip(libc::BPF_JEQ, libc::SOL_SOCKET.cast_unsigned(), 4),
        load(argument(2)),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, SO_RCVBUFFORCE),
        unless_skip(libc::BPF_JEQ, libc::SO_RCVBUF.cast_unsigned(), 1),
        answer(fails_with(libc::EPERM)),
        answer(libc::SECCOMP_RET_ALLOW),
    ])
}

/// From asm-generic/socket.h.
const SO_RCVBUFFORCE: u32 = 33;

#[test]
fn where_small_queues_are_granted_several_sockets_use_up_the_share_and_it_delivers() {
    const SHARE_BYTES: u64 = (64 << 20) / 3;
    let default = std::fs::read_to_string("/proc/sys/net/core/rmem_default").unwrap();
    let granted_bytes: u64 = default.trim().parse().unwrap();
    if granted_bytes > SHARE_BYTES / 64 {
        return skip(Need::Root, "net.core.rmem_default is large here");
    }
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), "Receive: {Receivers: 2}");
    let arguments = ["-c", &config, "-m", "64"];
    // The TCP port does not open: its connections have small queues.
    let command = restrained(&endpoint, &arguments, deny_queue_sizes);
    let daemon = Daemon::spawn_without_tcp(command);
    daemon.send((0..75).map(|index| format!("{HEADER}{{\"n\":{}}}", 100 + index)));
    daemon.wait_until("all segments arrive", || endpoint.sorted_documents().len() == 75);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    // The bound of the descriptors is far above this number. io_uring may work, but reads one
    // socket.
    let socket_count = SHARE_BYTES / 2 / granted_bytes;
    let said = format!(
        "(receive backend recvmmsg, 2 receivers, {} sockets, socket queue {granted_bytes} bytes each",
        2 * socket_count
    );
    assert!(log.contains(&said), "{log}");
    let said = format!(
        "The kernel grants {granted_bytes} bytes at most for the queue of a socket, so each \
         receiver has {socket_count} sockets. A larger net.core.rmem_max, or CAP_NET_ADMIN"
    );
    assert!(log.contains(&said) && !log.contains("instead"), "{log}");
    assert!(!log.contains("The kernel granted "), "{log}");
}

#[test]
fn a_failed_allocation_writes_the_account_and_ends_the_daemon_with_exit_code_1() {
    let endpoint = Endpoint::start();
    // The TCP port may use an eighth of this, more than the allocator can have free.
    let daemon = Daemon::spawn(restrained(&endpoint, &["-m", "64"], || Ok(())));
    daemon.send((0..3).map(|index| format!("{HEADER}{{\"n\":{index}}}")));
    daemon.wait_for_metric("xray_segments_sent_total", 3);
    let none = Rlimit { current: Some(1), maximum: Some(1) };
    let id = Pid::from_raw(daemon.id().cast_signed()).unwrap();
    // Unlike `Resource::As`, this limit also denies the use of address space that glibc has
    // reserved for threads that have ended.
    prlimit(Some(id), Resource::Data, none).unwrap();
    // Each connection needs memory for the request that it has begun.
    let begun = format!("GET /health HTTP/1.1\r\nX: {}", "x".repeat(15_000));
    let mut connections = Vec::new();
    daemon.wait_until("the daemon ends", || {
        if let Ok(mut connection) = TcpStream::connect(daemon.tcp) {
            let _ = connection.write_all(begun.as_bytes());
            connections.push(connection);
        }
        daemon.has_ended()
    });
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("memory allocation of "), "{log}");
    let counts = "; received=3 replayed=0 sent=3 rejected=0 dropped=0 spooled=0";
    let line = log.lines().find(|line| line.contains("aborted in thread ")).expect(&log);
    assert!(line.starts_with("xrayd ") && line.ends_with(counts), "{line}");
}
