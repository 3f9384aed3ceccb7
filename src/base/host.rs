//! Reads how much memory, how many processors and how large queues this process may use.
//!
//! In: `sysinfo`(2), the processor affinity, the cgroup files of versions 1 and 2, and `SO_RCVBUF`
//! of a socket. Out: a [`Host`]. Bound: the one of [`read_text`] for each file. Thread: any;
//! reading files blocks.

use super::files::read_text;
use socket2::{Domain, Socket, Type};
use std::io;
use std::path::{Path, PathBuf};

/// The memory, the processors and the queues that this process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// Memory of the machine, in bytes.
    pub memory_bytes: u64,
    /// Smallest memory limit of the process's cgroups, in bytes. `None` if no cgroup has a limit
    /// that is smaller than the memory of the machine.
    pub cgroup_limit_bytes: Option<u64>,
    /// Number of file descriptors that this process may have open (the soft limit of
    /// `RLIMIT_NOFILE`).
    pub descriptor_count_max: u64,
    /// Number of processors that the affinity mask and the cgroup's quota allow.
    pub processor_count: usize,
    /// The queues that the kernel grants to a UDP socket.
    pub queues: QueueGrant,
}

/// The smallest and the largest size that the daemon asks for the queue of a socket, in bytes. The
/// kernel doubles the number for its own overhead (`SO_RCVBUF` in socket(7)). A queue of 32 MiB
/// holds about 29,000 segments.
pub const SOCKET_QUEUE_BYTES_MIN: usize = 64 * 1024;
/// See [`SOCKET_QUEUE_BYTES_MIN`].
pub const SOCKET_QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The queues that the kernel grants to a UDP socket of this process, with its own overhead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueGrant {
    /// Granted to a socket that asks for [`SOCKET_QUEUE_BYTES_MIN`], in bytes.
    pub least_bytes: u64,
    /// Granted to a socket that asks for [`SOCKET_QUEUE_BYTES_MAX`], in bytes.
    pub most_bytes: u64,
}

impl QueueGrant {
    /// All that a socket asks for: a process with CAP_NET_ADMIN gets it.
    pub const ANY: Self = Self {
        least_bytes: 2 * SOCKET_QUEUE_BYTES_MIN as u64,
        most_bytes: 2 * SOCKET_QUEUE_BYTES_MAX as u64,
    };

    /// Asks the kernel, with a socket that is not bound. If there is no socket, the start of the
    /// daemon fails later; until then [`ANY`](Self::ANY) is as good as any other answer.
    fn read() -> Self {
        Self::asked().unwrap_or(Self::ANY)
    }

    fn asked() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        let grant = |bytes| {
            set_queue_bytes(&socket, bytes);
            Ok::<_, io::Error>(socket.recv_buffer_size()? as u64)
        };
        Ok(Self {
            most_bytes: grant(SOCKET_QUEUE_BYTES_MAX)?,
            least_bytes: grant(SOCKET_QUEUE_BYTES_MIN)?,
        })
    }
}

/// Asks for a queue of `bytes` for `socket`. More than `net.core.rmem_max` needs CAP_NET_ADMIN
/// (`SO_RCVBUFFORCE` in socket(7)). Without it the kernel grants `net.core.rmem_max` at most. If
/// both calls fail the queue has the system's default size, like the original daemon's.
pub fn set_queue_bytes(socket: &Socket, bytes: usize) {
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_err() {
        let _ = socket.set_recv_buffer_size(bytes);
    }
}

impl Host {
    /// Reads what this process may use, from the kernel.
    pub fn read() -> Self {
        let info = rustix::system::sysinfo();
        let memory_bytes = info.totalram * u64::from(info.mem_unit);
        let own = read_text(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let limits = limit_files(&own).into_iter().filter_map(|path| read_limit(&path));
        Self {
            memory_bytes,
            cgroup_limit_bytes: limits.min().filter(|&limit| limit < memory_bytes),
            descriptor_count_max: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .current
                .unwrap_or(u64::MAX),
            processor_count: std::thread::available_parallelism().map_or(1, usize::from),
            queues: QueueGrant::read(),
        }
    }
}

/// Reads a memory limit from a cgroup file, in bytes. Returns `None` if the file is missing or does
/// not contain a number. For example, the text `max` means that there is no limit.
fn read_limit(path: &Path) -> Option<u64> {
    read_text(path).ok()?.trim().parse().ok()
}

/// Returns the files that can contain a memory limit for this process. `own` is the text of
/// `/proc/self/cgroup`. There is one file for the process's own cgroup and one for each cgroup
/// above it, in version 1 and version 2. The root is included, because inside a container the
/// container's own cgroup is mounted there.
fn limit_files(own: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let path = Path::new(path.trim_start_matches('/'));
        files.extend(path.ancestors().map(|folder| Path::new(root).join(folder).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_looked_for_from_the_own_cgroup_up_to_the_root() {
        let own = "5:cpu,cpuacct:/a\n4:memory:/docker/x\n0::/kube/pod\n";
        let expected = [
            "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/kube/pod/memory.max",
            "/sys/fs/cgroup/kube/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(limit_files(own), expected.map(PathBuf::from));
        assert!(limit_files("").is_empty() && limit_files("garbage\n:\n").is_empty());
    }

    #[test]
    fn the_kernel_is_asked_for_the_queues_that_it_grants() {
        let QueueGrant { least_bytes, most_bytes } = QueueGrant::asked().unwrap();
        assert!((1..=most_bytes).contains(&least_bytes), "{least_bytes} {most_bytes}");
        assert!(most_bytes <= QueueGrant::ANY.most_bytes, "{most_bytes}");
    }

    #[test]
    fn a_limit_is_a_number_and_no_other_word() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("memory.max");
        for (text, expected) in [("67108864\n", Some(64 << 20)), ("max\n", None), ("", None)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read_limit(&file), expected);
        }
        assert_eq!(read_limit(&folder.path().join("missing")), None);
    }
}
