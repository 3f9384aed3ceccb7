//! The real binary as a child process, and the questions that a test asks it.

use super::account::Account;
use super::pacing::Pacer;
use super::skip::{Need, skip};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use xrayd::pipeline::receive::Backend;

/// How long a test waits for what must come. Only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The receive backend that this target's daemons run on: the one in its name. In a target whose
/// tests do not depend on it: io_uring, or recvmmsg where io_uring does not work.
///
/// # Panics
///
/// Where the backend in the target's name does not work; see `backend.rs`.
pub fn backend() -> Backend {
    match (backend_in_name(), missing()) {
        (Some(backend), None) => backend,
        (Some(_), Some(reason)) => panic!("the test is not skipped, and {reason}"),
        (None, None) => Backend::Uring,
        (None, Some(_)) => Backend::Recvmmsg,
    }
}

fn backend_in_name() -> Option<Backend> {
    let name = env!("CARGO_CRATE_NAME").strip_prefix("daemon_")?.replace('_', "-");
    let named = Backend::ALL.into_iter().find(|backend| backend.name() == name);
    Some(named.unwrap_or_else(|| panic!("{name} is not the name of a backend")))
}

/// Why the wanted backend does not work, if so. Where that costs no test it is said here, once.
pub fn missing() -> Option<&'static str> {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    static REASON: LazyLock<Option<String>> = LazyLock::new(|| {
        let wanted = backend_in_name().unwrap_or(Backend::Uring);
        wanted.probe().err().map(|error| error.to_string())
    });
    let reason = REASON.as_deref()?;
    if backend_in_name().is_none() && !IS_SAID.load(Ordering::Relaxed) {
        skip(Need::Uring, format!("{reason}. These tests run on recvmmsg"));
        IS_SAID.store(true, Ordering::Relaxed);
    }
    Some(reason)
}

/// The header line that SDKs send, with its newline.
pub const HEADER: &str = "{\"format\":\"json\",\"version\":1}\n";

/// A running daemon; it is killed when the test ends early.
pub struct Daemon {
    child: Child,
    lines: Arc<Lines>,
    /// Where it receives segments.
    pub udp: SocketAddr,
    /// Where it serves its pages.
    pub tcp: SocketAddr,
    /// The memory that it may use, as its first lines say it.
    pub buffer_size_mb: u64,
}

/// Where a daemon serves its metrics.
#[derive(Debug, Clone, Copy)]
pub struct Metrics(SocketAddr);

impl Metrics {
    /// The value of a metric, with its labels as they are written; 0 when it is not there. An error
    /// where the daemon has ended.
    pub fn value(self, name: &str) -> io::Result<u64> {
        let page = get(self.0, "/metrics")?;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        // Its whole part.
        let whole = value.and_then(|value| value.split('.').next());
        Ok(whole.map_or(0, |whole| whole.parse().unwrap()))
    }
}

/// A page of a daemon.
fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[derive(Default)]
struct Lines {
    /// The lines, and how many of the two outputs have ended.
    text: Mutex<(Vec<String>, usize)>,
    changed: Condvar,
}

/// The daemon: the one of the same build as the tests, or the one that `XRAY_BINARY` names.
fn program() -> OsString {
    std::env::var_os("XRAY_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_xray").into())
}

/// The command for the daemon in an environment of its own.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).env_clear().env("AWS_EC2_METADATA_DISABLED", "true");
    // No file of the machine's user takes part.
    command.env("HOME", "/nonexistent").current_dir(std::env::temp_dir());
    command.stdin(Stdio::null());
    command
}

/// The command for a daemon on free ports with this target's receive backend, sending to
/// `endpoint`. It has no credentials yet.
pub fn daemon_command(endpoint: &str, arguments: &[&str]) -> Command {
    let backend = backend();
    let mut all = vec!["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "-n", "us-east-1"];
    all.extend(["--receiver", backend.name()]);
    all.extend(arguments);
    let mut command = command(&all);
    command.env("AWS_ENDPOINT_URL_XRAY", endpoint);
    command
}

/// Gives a command the keys that the tests use.
pub fn with_credentials(command: &mut Command) -> &mut Command {
    command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "secret")
}

/// The same command behind `/bin/sh -c script`, where it is `"$@"`. The script has to `exec` it, so
/// that signals reach the daemon.
pub fn behind_shell(command: &Command, script: &str) -> Command {
    behind(Command::new("/bin/sh"), command, script)
}

/// The same in a mount namespace of its own.
pub fn in_own_mounts(command: &Command, script: &str) -> Command {
    let mut outer = Command::new("/usr/bin/unshare");
    outer.args(["--mount", "/bin/sh"]);
    behind(outer, command, script)
}

fn behind(mut outer: Command, command: &Command, script: &str) -> Command {
    outer.args(["-c", script, "sh"]);
    outer.arg(command.get_program()).args(command.get_args()).env_clear();
    outer.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer.current_dir(std::env::temp_dir());
    outer
}

/// Runs a daemon that is expected not to start; returns its exit code and what it said.
pub fn run_to_end(arguments: &[&str]) -> (Option<i32>, String) {
    run_to_end_with(command(arguments))
}

/// The same with a command that a test has made.
pub fn run_to_end_with(mut command: Command) -> (Option<i32>, String) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (status, log) = Daemon::watch(child, any).wait();
    (status.code(), log)
}

/// A file `cfg.yaml` in `folder` with these keys; returns its path.
pub fn config_file(folder: &Path, keys: &str) -> String {
    let path = folder.join("cfg.yaml");
    std::fs::write(&path, format!("Version: 2\n{keys}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Waits until a file has `text` in it.
pub fn wait_for_text(path: &Path, text: &str) {
    wait_until(&format!("{text:?} is in {}", path.display()), || {
        std::fs::read_to_string(path).unwrap_or_default().contains(text)
    });
}

/// Waits until `is_true`, which says `what`.
pub fn wait_until(what: &str, is_true: impl FnMut() -> bool) {
    wait_and_look(Duration::from_millis(10), what, is_true);
}

/// The same with this time between two looks.
pub fn wait_and_look(interval: Duration, what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(interval);
    }
}

impl Daemon {
    /// Starts the daemon on free ports with credentials, sending to `endpoint`.
    pub fn start(endpoint: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = daemon_command(endpoint, arguments);
        with_credentials(&mut command).envs(environment.iter().copied());
        let daemon = Self::spawn(command);
        daemon.wait_for_line(&format!("(receive backend {}, ", backend()));
        daemon
    }

    /// Runs `command` and waits until both ports are open.
    pub fn spawn(command: Command) -> Self {
        Self::spawn_without_tcp(command).with_tcp()
    }

    /// Runs `command` and waits until it can receive; it cannot be asked yet.
    pub fn spawn_without_tcp(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut daemon = Self::watch(child, ([127, 0, 0, 1], 0).into());
        daemon.udp = daemon.listening("Listening on UDP ");
        let line = daemon.wait_for_line(" MB)");
        let size = line.split("buffers ").nth(1).and_then(|rest| rest.split(' ').next());
        daemon.buffer_size_mb = size.unwrap().parse().unwrap();
        daemon
    }

    /// Waits until its pages are served too.
    pub fn with_tcp(mut self) -> Self {
        self.tcp = self.listening("Listening on TCP ");
        self
    }

    fn watch(mut child: Child, address: SocketAddr) -> Self {
        let lines = Arc::new(Lines::default());
        collect(child.stdout.take().unwrap(), Arc::clone(&lines));
        collect(child.stderr.take().unwrap(), Arc::clone(&lines));
        Self { child, lines, udp: address, tcp: address, buffer_size_mb: 0 }
    }

    fn listening(&self, text: &str) -> SocketAddr {
        let line = self.wait_for_line(text);
        let address = line.split(text).nth(1).unwrap().split_whitespace().next().unwrap();
        // A line of JSON goes on behind it.
        address.trim_end_matches(['"', '}']).parse().unwrap()
    }

    /// Waits for a line with `text` in the log; returns it.
    pub fn wait_for_line(&self, text: &str) -> String {
        let found = self.lines.wait(|lines, _| lines.iter().find(|l| l.contains(text)).cloned());
        found.unwrap_or_else(|lines| panic!("no line with {text:?} in\n{}", lines.join("\n")))
    }

    /// All lines so far.
    pub fn log(&self) -> String {
        self.lines.text.lock().unwrap().0.join("\n")
    }

    /// Sends datagrams, no faster than the daemon takes them off its socket.
    pub fn send<D: AsRef<[u8]>>(&self, datagrams: impl IntoIterator<Item = D>) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.udp).unwrap();
        let mut pacer = Pacer::of_queue(self.udp);
        for datagram in datagrams {
            pacer.wait(datagram.as_ref().len());
            socket.send(datagram.as_ref()).unwrap();
        }
    }

    /// Where its metrics are, for another thread.
    pub fn metrics(&self) -> Metrics {
        Metrics(self.tcp)
    }

    /// The value of a metric, with its labels as they are written; 0 when it is not there.
    pub fn metric(&self, name: &str) -> u64 {
        let value = self.metrics().value(name);
        value.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Waits until a metric has reached `value`.
    pub fn wait_for_metric(&self, name: &str, value: u64) {
        let start = Instant::now();
        while self.metric(name) < value {
            let account = self.account();
            let log = self.log();
            assert!(start.elapsed() < PATIENCE, "{name} is not {value}: {account}\n{log}");
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.metric(name), value, "{name}");
    }

    /// Waits until a metric has reached `value` or passed it.
    pub fn wait_for_metric_of_at_least(&self, name: &str, value: u64) {
        self.wait_until(&format!("{name} is {value}"), || self.metric(name) >= value);
    }

    /// Waits until `is_true`, which says `what`; shows the log where it is in vain.
    pub fn wait_until(&self, what: &str, mut is_true: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_true() {
            assert!(start.elapsed() < PATIENCE, "waited in vain: {what}\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// A page of the TCP port.
    pub fn get(&self, path: &str) -> String {
        get(self.tcp, path).unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// The account on its metrics page, which has to balance; for a daemon at rest.
    pub fn balance(&self) -> Account {
        let account = self.account();
        assert_eq!(account.imbalance(), 0, "{account}\n{}", self.log());
        account
    }

    /// The account on its metrics page, which may be in motion.
    pub fn account(&self) -> Account {
        Account::of_metrics(&self.get("/metrics"))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The first word of a field of its `/proc/PID/status`.
    pub fn status_field(&self, name: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// The most memory that it has had resident, in bytes.
    pub fn peak_memory_bytes(&self) -> u64 {
        self.status_field("VmHWM:").parse::<u64>().unwrap() * 1024
    }

    /// Whether one of its descriptors is for something of this name.
    pub fn has_descriptor(&self, name: &str) -> bool {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap();
        let targets = folder.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        targets.into_iter().any(|target| target.to_string_lossy().contains(name))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Kills it, as a machine that fails would; returns its whole log.
    pub fn kill(self) -> String {
        self.signal(rustix::process::Signal::KILL);
        self.wait().1
    }

    /// Ends it with SIGTERM; returns its exit status and its whole log.
    pub fn stop(self) -> (ExitStatus, String) {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Waits until it has ended; returns its exit status and its whole log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "the daemon does not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        };
        // Its outputs end with it.
        let ended = self.lines.wait(|_, ended_count| (ended_count == 2).then_some(()));
        assert!(ended.is_ok(), "its outputs stay open");
        let log = self.log();
        // Every test of the suite checks this with every daemon that it ends in order.
        let account = Account::of_log(&log);
        if let Some(account) = &account {
            assert_eq!(account.imbalance(), 0, "{account}\n{log}");
        }
        assert!(account.is_some() || !log.contains("Got shutdown signal"), "no account in\n{log}");
        (status, log)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lines {
    fn wait<T>(&self, find: impl Fn(&[String], usize) -> Option<T>) -> Result<T, Vec<String>> {
        let start = Instant::now();
        let mut text = self.text.lock().unwrap();
        loop {
            if let Some(found) = find(&text.0, text.1) {
                return Ok(found);
            }
            if text.1 == 2 || start.elapsed() > PATIENCE {
                return Err(text.0.clone());
            }
            text = self.changed.wait_timeout(text, Duration::from_millis(200)).unwrap().0;
        }
    }
}

fn collect(output: impl Read + Send + 'static, lines: Arc<Lines>) {
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { break };
            lines.text.lock().unwrap().0.push(String::from_utf8_lossy(&line).into_owned());
            lines.changed.notify_all();
        }
        lines.text.lock().unwrap().1 += 1;
        lines.changed.notify_all();
    });
}
