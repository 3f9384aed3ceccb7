//! Reads the CPU time, the memory and the sockets of a process from the kernel.

use nix::time::ClockId;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;

/// Returns the CPU time of a process in nanoseconds, from the scheduler's accounting. It includes
/// all threads, also threads that have ended and io_uring's workers, and is exact at the moment of
/// the call.
///
/// # Errors
///
/// Fails if the process no longer exists.
pub fn cpu_ns(id: u32) -> io::Result<u64> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(id.cast_signed()))?;
    let time = clock.now()?;
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    Ok(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0))
}

/// Returns the CPU time of the live threads in nanoseconds, from `/proc/ID/task/*/schedstat`. For a
/// running thread the value is behind by at most one tick.
pub fn schedstat_ns(id: u32) -> u64 {
    tasks(id, "schedstat").filter_map(|(_, text)| first(text)).sum()
}

/// Returns the CPU time of all child processes that have ended and were waited for, in nanoseconds
/// (`getrusage`).
pub fn ended_children_cpu_ns() -> u64 {
    use nix::sys::resource::{UsageWho, getrusage};
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return 0 };
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| {
            let microseconds = time.tv_sec() * 1_000_000 + time.tv_usec();
            u64::try_from(microseconds).unwrap_or(0) * 1_000
        })
        .sum()
}

/// How often each thread of a process went to sleep voluntarily. Each sleep ends with a wake-up.
#[derive(Debug, Clone, Default)]
pub struct Sleeps(BTreeMap<OsString, u64>);

impl Sleeps {
    /// Reads the number of sleeps of each live thread of the process `id`.
    pub fn of(id: u32) -> Self {
        let count = |(thread, text): (_, String)| {
            Some((thread, number(&text, "voluntary_ctxt_switches:")?))
        };
        Self(tasks(id, "status").filter_map(count).collect())
    }

    /// Returns the number of sleeps since `before`. Only threads that are alive now count.
    pub fn since(&self, before: &Self) -> u64 {
        let known = |thread| before.0.get(thread).copied().unwrap_or(0);
        self.0.iter().map(|(thread, count)| count.saturating_sub(known(thread))).sum()
    }
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resident {
    /// Resident memory now (`VmRSS`).
    pub now_bytes: u64,
    /// Largest resident memory so far (`VmHWM`).
    pub most_bytes: u64,
}

/// Returns the memory of a process.
pub fn resident(id: u32) -> Resident {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let bytes = |name: &str| 1024 * number(&status, name).unwrap_or(0);
    Resident { now_bytes: bytes("VmRSS:"), most_bytes: bytes("VmHWM:") }
}

/// The UDP sockets on a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UdpSockets {
    /// Number of sockets.
    pub count: u64,
    /// Number of datagrams that these sockets have dropped.
    pub drop_count: u64,
    /// Bytes in the queues of these sockets, including the kernel's overhead.
    pub waiting_bytes: u64,
}

/// Reads the UDP sockets on a port, for IPv4 and IPv6.
pub fn udp_sockets(port: u16) -> UdpSockets {
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(fs::read_to_string);
    tables.iter().flatten().fold(UdpSockets::default(), |sum, table| {
        let found = sockets_in(table, port);
        UdpSockets {
            count: sum.count + found.count,
            drop_count: sum.drop_count + found.drop_count,
            waiting_bytes: sum.waiting_bytes + found.waiting_bytes,
        }
    })
}

/// Sums the sockets on a port in a table of the kernel. The columns of a row are local address,
/// remote address, state, queues, and more. The last column is the number of drops.
fn sockets_in(table: &str, port: u16) -> UdpSockets {
    let end = format!(":{port:04X}");
    let mut sockets = UdpSockets::default();
    for line in table.lines().skip(1) {
        let mut words = line.split_whitespace();
        if !words.nth(1).is_some_and(|address| address.ends_with(&end)) {
            continue;
        }
        let waiting = words.nth(2).and_then(|queues| queues.split_once(':'));
        let waiting = waiting.and_then(|(_, bytes)| u64::from_str_radix(bytes, 16).ok());
        sockets.count += 1;
        sockets.waiting_bytes += waiting.unwrap_or(0);
        sockets.drop_count += words.last().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    sockets
}

/// Returns the sizes of the queues of all UDP sockets that a process has on a port, together: the
/// most that the kernel charges to them. `None` if this process may not look at them.
pub fn queue_bytes(id: u32, port: u16) -> Option<u64> {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let process = Pid::from_raw(id.cast_signed())?;
    let process = pidfd_open(process, PidfdFlags::empty()).ok()?;
    // Several descriptors may be of one socket.
    let mut sizes = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{id}/fd")).ok()?.flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let (Some(number), true) = (number, target.to_string_lossy().starts_with("socket:")) else {
            continue;
        };
        let copy = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?;
        let socket = socket2::Socket::from(copy);
        let is_datagram = socket.r#type().is_ok_and(|kind| kind == socket2::Type::DGRAM);
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        if is_datagram && address.is_some_and(|address| address.port() == port) {
            sizes.insert(target, socket.recv_buffer_size().ok()? as u64);
        }
    }
    Some(sizes.into_values().sum())
}

/// The time of all processors since the start of the machine, in clock ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MachineTime {
    busy: u64,
    all: u64,
}

impl MachineTime {
    /// Returns the share of the time since `before` in which the processors were busy, or NaN if no
    /// tick has passed.
    pub fn busy_share_since(self, before: Self) -> f64 {
        (self.busy - before.busy) as f64 / (self.all - before.all) as f64
    }
}

/// Reads the time of all processors.
pub fn machine_time() -> MachineTime {
    machine_time_in(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// Reads the first line of `/proc/stat`: user, nice, system, idle, waiting for disks, interrupts
/// (two), and what other guests of the host took. Time of guests follows, which user time includes.
fn machine_time_in(text: &str) -> MachineTime {
    let numbers = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = numbers.take(8).filter_map(|number| number.parse().ok()).collect();
    let all = ticks.iter().sum();
    MachineTime { busy: all - ticks.iter().skip(3).take(2).sum::<u64>(), all }
}

/// The times of threads, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ThreadTime {
    /// Time on a processor.
    pub cpu_ns: u64,
    /// Time in which a thread was ready to run and had no processor.
    pub waiting_ns: u64,
}

/// Returns the times of the threads of this process that have the name `name`, together.
pub fn own_thread_time(name: &str) -> ThreadTime {
    let id = std::process::id();
    let names: BTreeMap<_, _> = tasks(id, "comm").collect();
    let times = tasks(id, "schedstat")
        .filter(|(thread, _)| names.get(thread).is_some_and(|found| found.trim() == name));
    times.fold(ThreadTime::default(), |sum, (_, text)| {
        let mut numbers = text.split_whitespace().map(|word| word.parse().unwrap_or(0));
        ThreadTime {
            cpu_ns: sum.cpu_ns + numbers.next().unwrap_or(0),
            waiting_ns: sum.waiting_ns + numbers.next().unwrap_or(0),
        }
    })
}

/// Returns the text of the file `name` in the folder `/proc/ID/task/THREAD` of each thread, with
/// the thread's id.
fn tasks(id: u32, name: &'static str) -> impl Iterator<Item = (OsString, String)> {
    let folders = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    folders.filter_map(move |folder| {
        let text = fs::read_to_string(folder.path().join(name)).ok()?;
        Some((folder.file_name(), text))
    })
}

/// Returns the first number of a line.
fn first(text: String) -> Option<u64> {
    text.split(' ').next()?.parse().ok()
}

fn number(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn drops_and_what_waits_are_those_of_the_port_alone() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   \
                     uid  timeout inode ref pointer drops\n\
                     1: 0100007F:07D0 00000000:0000 07 00000000:00000900 00:00000000 00000000     \
                     0        0 123 2 0000000000000000 17\n\
                     2: 0100007F:07D0 00000000:0000 07 00000000:00000100 00:00000000 00000000     \
                     0        0 124 2 0000000000000000 3\n\
                     3: 0100007F:17D0 00000000:07D0 07 00000000:00000001 00:00000000 00000000     \
                     0        0 125 2 0000000000000000 99\n";
        let expected = UdpSockets { count: 2, drop_count: 20, waiting_bytes: 0xa00 };
        assert_eq!(sockets_in(table, 2000), expected);
    }

    #[test]
    fn a_socket_of_ours_is_seen_with_what_waits_on_it() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        socket.send_to(b"waits", ("127.0.0.1", port)).unwrap();
        let sockets = udp_sockets(port);
        assert_eq!((sockets.count, sockets.drop_count), (1, 0));
        assert!(sockets.waiting_bytes > 0);
    }

    #[test]
    fn the_queues_of_a_port_are_added_up() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let id = std::process::id();
        let size = socket2::SockRef::from(&socket).recv_buffer_size().unwrap() as u64;
        assert_eq!(queue_bytes(id, port), Some(size));
        let again = socket.try_clone().unwrap();
        assert_eq!(queue_bytes(id, port), Some(size));
        drop((again, other));
    }

    #[test]
    fn a_processor_is_busy_when_it_is_neither_idle_nor_waits_for_a_disk() {
        let before = machine_time_in("cpu  10 1 9 100 20 1 2 7 5 0\ncpu0 1 1 1\n");
        assert_eq!(before, MachineTime { busy: 30, all: 150 });
        let after = MachineTime { busy: 80, all: 250 };
        assert_eq!(after.busy_share_since(before), 0.5);
        assert!(before.busy_share_since(before).is_nan());
        assert!(machine_time().all > 0);
    }

    #[test]
    fn the_two_accounts_of_cpu_time_agree() {
        let id = std::process::id();
        let before = cpu_ns(id).unwrap();
        while cpu_ns(id).unwrap() < before + 20_000_000 {}
        // Threads of other tests may have ended. Only `cpu_ns` includes the time of ended threads.
        assert!(schedstat_ns(id) <= cpu_ns(id).unwrap());
        assert!(schedstat_ns(id) > 10_000_000);
    }

    #[test]
    fn memory_and_wake_ups_are_read() {
        let id = std::process::id();
        let memory = resident(id);
        assert!(memory.now_bytes > 1 << 16 && memory.most_bytes >= memory.now_bytes, "{memory:?}");
        let before = Sleeps::of(id);
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(Sleeps::of(id).since(&before) > 0);
    }

    #[test]
    fn a_thread_that_ends_or_begins_takes_nothing_away() {
        let sleeps = |pairs: &[(&str, u64)]| {
            Sleeps(pairs.iter().map(|&(thread, count)| (thread.into(), count)).collect())
        };
        let (before, after) = (sleeps(&[("1", 100), ("2", 50)]), sleeps(&[("2", 53), ("3", 4)]));
        assert_eq!(after.since(&before), 7);
    }
}
