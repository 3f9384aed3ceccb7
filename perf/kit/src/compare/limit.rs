//! Holds a daemon to a share of a processor, with the cpu controller of a cgroup (version 1 or 2).
//!
//! Amazon ECS sets a quota and weights, by the documentation of task definitions and the source of
//! its agent (`task_linux.go` of amazon-ecs-agent): the CPU units of a *task* become a quota for
//! all of its containers, 1,024 units being one processor, in periods of 100 ms. The units of a
//! *container*, as in `cpu: 32`, become a weight only (`cpu.shares`), which says how the containers
//! of a task share the task's quota while they compete; alone a container may use all of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// Period of a quota in microseconds: the default of the kernel, of ECS and of Kubernetes.
const PERIOD_US: u64 = 100_000;

/// The CPU units of one processor in ECS.
const UNITS_PER_PROCESSOR: u32 = 1_024;
/// The units of the smallest task on Fargate, 0.25 vCPU.
const TASK_UNITS: u32 = 256;
/// The least `cpu.shares` of the kernel.
const UNITS_MIN: u32 = 2;

/// A share of a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// A quota of this many percent of one processor.
    Quota(u32),
    /// A container of this many CPU units in the smallest task of Fargate, whose other container
    /// has the rest of the units and is always busy.
    Ecs(u32),
}

impl Limit {
    /// Returns the name of the limit in scenarios.
    pub fn name(self) -> String {
        match self {
            Self::Quota(percent) => format!("quota-{percent}"),
            Self::Ecs(units) => format!("ecs-{units}"),
        }
    }

    /// Returns the limit with this name.
    pub fn parse(name: &str) -> Option<Self> {
        let (kind, number) = name.split_once('-')?;
        let number: u32 = number.parse().ok()?;
        match kind {
            "quota" => (1..=10_000).contains(&number).then_some(Self::Quota(number)),
            "ecs" => {
                (UNITS_MIN..=TASK_UNITS - UNITS_MIN).contains(&number).then_some(Self::Ecs(number))
            }
            _ => None,
        }
    }

    /// Returns the share of one processor that the daemon gets while all others want more.
    pub fn share(self) -> f64 {
        match self {
            Self::Quota(percent) => f64::from(percent) / 100.0,
            Self::Ecs(units) => f64::from(units) / f64::from(UNITS_PER_PROCESSOR),
        }
    }

    /// Returns the quota of the outer cgroup, in microseconds of each period.
    fn quota_us(self) -> u64 {
        match self {
            Self::Quota(percent) => PERIOD_US * u64::from(percent) / 100,
            Self::Ecs(_) => PERIOD_US * u64::from(TASK_UNITS) / u64::from(UNITS_PER_PROCESSOR),
        }
    }
}

/// The place in which cgroups with the cpu controller can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    root: PathBuf,
    is_version_2: bool,
}

impl Place {
    /// Finds the place on this machine.
    ///
    /// # Errors
    ///
    /// Fails if no mounted hierarchy has the cpu controller.
    pub fn find() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let has_cpu = |root: &Path| {
            let controllers = fs::read_to_string(root.join("cgroup.controllers"));
            controllers.is_ok_and(|names| names.split_whitespace().any(|name| name == "cpu"))
        };
        Self::of(&mounts, has_cpu)
            .ok_or_else(|| io::Error::other("no cgroup hierarchy with the cpu controller"))
    }

    /// Finds the place in the text of `/proc/mounts`. A machine may have hierarchies of both
    /// versions; a controller is in one of them.
    fn of(mounts: &str, has_cpu: impl Fn(&Path) -> bool) -> Option<Self> {
        mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (root, kind, options) = (words.next()?, words.next()?, words.next()?);
            let root = PathBuf::from(root);
            let is_version_2 = kind == "cgroup2" && has_cpu(&root);
            let is_version_1 = kind == "cgroup" && options.split(',').any(|option| option == "cpu");
            (is_version_1 || is_version_2).then_some(Self { root, is_version_2 })
        })
    }

    fn quota(&self, quota_us: u64) -> Vec<(&'static str, String)> {
        if self.is_version_2 {
            return vec![("cpu.max", format!("{quota_us} {PERIOD_US}"))];
        }
        vec![
            ("cpu.cfs_period_us", PERIOD_US.to_string()),
            ("cpu.cfs_quota_us", quota_us.to_string()),
        ]
    }

    /// Returns the file of a weight and its content, for a weight in CPU units. The conversion for
    /// version 2 is that of runc.
    fn weight(&self, units: u32) -> (&'static str, String) {
        if self.is_version_2 {
            ("cpu.weight", (1 + ((units - UNITS_MIN) * 9_999) / 262_142).to_string())
        } else {
            ("cpu.shares", units.to_string())
        }
    }
}

/// A cgroup for a daemon. It is removed when it is dropped; its daemon has ended then.
#[derive(Debug)]
pub struct Cgroup {
    /// The outer folder, and those inside of it.
    folders: Vec<PathBuf>,
    /// The busy processes of the other container.
    neighbours: Vec<Child>,
}

/// Makes the names of cgroups of this process differ.
static NEXT: AtomicU32 = AtomicU32::new(0);

impl Cgroup {
    /// Makes a cgroup with a limit, and starts what competes with the daemon.
    ///
    /// # Errors
    ///
    /// Fails if this machine has no cpu controller, or this user may not use it.
    pub fn new(limit: Limit) -> io::Result<Self> {
        let place = Place::find()?;
        if place.is_version_2 {
            allow_cpu(&place.root)?;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let outer = place.root.join(format!("xrayd-perf-{}-{number}", std::process::id()));
        let mut cgroup = Self { folders: Vec::new(), neighbours: Vec::new() };
        cgroup.add(outer.clone(), &place.quota(limit.quota_us()))?;
        if let Limit::Ecs(units) = limit {
            if place.is_version_2 {
                allow_cpu(&outer)?;
            }
            let application = outer.join("application");
            cgroup.add(application.clone(), &[place.weight(TASK_UNITS - units)])?;
            cgroup.add(outer.join("daemon"), &[place.weight(units)])?;
            for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
                let mut busy = Command::new("/bin/sh");
                // It ends with this process, also if this process is killed.
                busy.args(["-c", "echo $$ >\"$0\"; while kill -0 $PPID; do :; done"]);
                busy.arg(application.join("cgroup.procs"))
                    .stdin(Stdio::null())
                    .stderr(Stdio::null());
                cgroup.neighbours.push(busy.spawn()?);
            }
        }
        Ok(cgroup)
    }

    fn add(&mut self, folder: PathBuf, files: &[(&str, String)]) -> io::Result<()> {
        fs::create_dir(&folder)?;
        self.folders.push(folder.clone());
        for (name, text) in files {
            fs::write(folder.join(name), text)?;
        }
        Ok(())
    }

    /// Returns the file that a process writes its id to, in order to enter.
    pub fn entrance(&self) -> PathBuf {
        self.folders[self.folders.len() - 1].join("cgroup.procs")
    }

    /// Returns how often the daemon, or its task, had to wait because its quota was used up.
    pub fn throttled_count(&self) -> u64 {
        let text = fs::read_to_string(self.folders[0].join("cpu.stat")).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

/// Makes the cpu controller usable in the cgroups below `folder`.
fn allow_cpu(folder: &Path) -> io::Result<()> {
    let file = folder.join("cgroup.subtree_control");
    let has_cpu = fs::read_to_string(&file)?.split_whitespace().any(|name| name == "cpu");
    if has_cpu { Ok(()) } else { fs::write(file, "+cpu") }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for neighbour in &mut self.neighbours {
            let _ = neighbour.kill();
            let _ = neighbour.wait();
        }
        for folder in self.folders.iter().rev() {
            // The kernel needs a moment to forget a process.
            for _ in 0..100 {
                if fs::remove_dir(folder).is_ok() {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_with_the_cpu_controller_is_found_in_either_version() {
        let first = "tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0\n\
                     cgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n\
                     cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
                     cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0\n";
        let found = Place::of(first, |_| false).unwrap();
        assert_eq!(found.root, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert!(!found.is_version_2);
        let second = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let found = Place::of(second, |root| root == Path::new("/sys/fs/cgroup")).unwrap();
        assert!(found.is_version_2);
        assert_eq!(Place::of(second, |_| false), None);
        assert_eq!(Place::of("cgroup /x cgroup rw,cpuset,cpuacct 0 0\n", |_| true), None);
    }

    #[test]
    fn a_limit_has_the_files_of_its_version() {
        let place = |is_version_2| Place { root: PathBuf::new(), is_version_2 };
        let texts = |files: Vec<(&'static str, String)>| {
            files.into_iter().map(|(name, text)| format!("{name} {text}")).collect::<Vec<_>>()
        };
        let quota_us = Limit::Quota(20).quota_us();
        assert_eq!(texts(place(true).quota(quota_us)), ["cpu.max 20000 100000"]);
        assert_eq!(
            texts(place(false).quota(quota_us)),
            ["cpu.cfs_period_us 100000", "cpu.cfs_quota_us 20000"]
        );
        // A task of 256 units is held to a quarter of a processor; `cpu: 32` is only a weight.
        assert_eq!(Limit::Ecs(32).quota_us(), 25_000);
        assert_eq!(Limit::Ecs(32).share(), 1.0 / 32.0);
        assert_eq!(
            texts(vec![place(false).weight(32), place(false).weight(224)]),
            ["cpu.shares 32", "cpu.shares 224"]
        );
        assert_eq!(
            texts(vec![place(true).weight(32), place(true).weight(224)]),
            ["cpu.weight 2", "cpu.weight 9"]
        );
    }

    #[test]
    fn a_limit_is_found_by_its_name() {
        for limit in [Limit::Quota(20), Limit::Ecs(32)] {
            assert_eq!(Limit::parse(&limit.name()), Some(limit));
        }
        for name in ["quota-0", "quota", "ecs-1", "ecs-256", "ecs-x", "share-5"] {
            assert_eq!(Limit::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_busy_process_in_a_cgroup_is_held_to_its_share() {
        for limit in [Limit::Quota(5), Limit::Ecs(32)] {
            let cgroup = match Cgroup::new(limit) {
                Ok(cgroup) => cgroup,
                Err(error) => {
                    let required = std::env::var("XRAY_REQUIRE").unwrap_or_default();
                    assert!(!required.contains("root"), "{error}");
                    let test = thread::current().name().unwrap_or_default().to_owned();
                    // Not with `eprintln`, whose output the harness captures.
                    let line = format!("skipped: {test}: {error}\n");
                    io::Write::write_all(&mut io::stderr(), line.as_bytes()).unwrap();
                    return;
                }
            };
            let folder = cgroup.folders[0].clone();
            let mut busy = Command::new("/bin/sh");
            busy.args(["-c", "echo $$ >\"$0\"; while :; do :; done"]).arg(cgroup.entrance());
            let mut busy = busy.spawn().unwrap();
            while cgroup.throttled_count() == 0 {
                thread::sleep(Duration::from_millis(10));
            }
            busy.kill().unwrap();
            busy.wait().unwrap();
            drop(cgroup);
            assert!(!folder.exists());
        }
    }
}
