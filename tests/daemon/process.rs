//! The real binary as a child process, with functions that inspect it.

use super::account::Account;
use super::endpoint::Endpoint;
use super::pacing::Pacer;
use super::skip::{Need, skip};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use xrayd::pipeline::receive::Backend;

/// The longest time that a test waits for an event, or for a number to grow. Only a failing test
/// waits this long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Returns the receive backend for the daemons of this test target: the backend in the target's
/// name. The target `daemon` names none: its tests use io_uring, or `recvmmsg` if io_uring does not
/// work.
///
/// # Panics
///
/// Panics if the backend in the target's name does not work. Tests must first call
/// `is_backend_missing` and return if it is true.
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

/// Returns why the backend of this test target does not work, or `None` if it works. If the target
/// uses `recvmmsg` instead, prints the reason once.
pub fn missing() -> Option<&'static str> {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    static REASON: LazyLock<Option<String>> = LazyLock::new(|| {
        let wanted = backend_in_name().unwrap_or(Backend::Uring);
        // The daemon of `XRAY_BINARY` may run in an emulator that lacks what this machine has.
        if wanted != Backend::Recvmmsg && std::env::var_os("XRAY_NO_URING").is_some() {
            return Some("XRAY_NO_URING is set".to_owned());
        }
        wanted.probe().err().map(|error| error.to_string())
    });
    let reason = REASON.as_deref()?;
    if backend_in_name().is_none() && !IS_SAID.load(Ordering::Relaxed) {
        skip(Need::Uring, format!("{reason}. These tests run on recvmmsg"));
        IS_SAID.store(true, Ordering::Relaxed);
    }
    Some(reason)
}

/// The header line that SDKs send, with the newline.
pub const HEADER: &str = "{\"format\":\"json\",\"version\":1}\n";

/// A running daemon. It is killed when this value is dropped.
pub struct Daemon {
    child: Child,
    lines: Arc<Lines>,
    /// The address on which the daemon receives segments.
    pub udp: SocketAddr,
    /// The address of the daemon's TCP port.
    pub tcp: SocketAddr,
    /// The limit of the daemon's memory in MB, from its first log lines.
    pub buffer_size_mb: u64,
}

/// The address of a daemon's metrics.
#[derive(Debug, Clone, Copy)]
pub struct Metrics(SocketAddr);

impl Metrics {
    /// Returns the value of a metric, or 0 if the metric is absent. Labels are part of the name.
    ///
    /// # Errors
    ///
    /// Fails if the daemon has ended, or has closed the connection in favour of others.
    pub fn value(self, name: &str) -> io::Result<u64> {
        let page = get(self.0, "/metrics")?;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        // Only the part before the decimal point is used.
        let whole = value.and_then(|value| value.split('.').next());
        Ok(whole.map_or(0, |whole| whole.parse().unwrap()))
    }
}

/// Sends a GET for `path` to a daemon and returns the whole answer as text.
fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[derive(Default)]
struct Lines {
    /// The log lines so far, and how many of the daemon's two outputs (standard output and standard
    /// error) have ended.
    text: Mutex<(Vec<String>, usize)>,
    changed: Condvar,
}

/// Returns the path of the daemon: `XRAY_BINARY`, or the binary of this build.
fn program() -> OsString {
    std::env::var_os("XRAY_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_xray").into())
}

/// Returns the command for the daemon, without the environment variables of this process.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).env_clear().env("AWS_EC2_METADATA_DISABLED", "true");
    // Without this the daemon would read the configuration files of the user who runs the tests.
    command.env("HOME", "/nonexistent").current_dir(std::env::temp_dir());
    command.stdin(Stdio::null());
    command
}

/// Returns the command for a daemon on free ports with this target's receive backend that sends to
/// `endpoint`. The daemon has no credentials yet.
pub fn daemon_command(endpoint: &str, arguments: &[&str]) -> Command {
    let backend = backend();
    let mut all = vec!["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "-n", "us-east-1"];
    all.extend(["--receiver", backend.name()]);
    all.extend(arguments);
    let mut command = command(&all);
    command.env("AWS_ENDPOINT_URL_XRAY", endpoint);
    command
}

/// Adds the credentials that the tests use.
pub fn with_credentials(command: &mut Command) -> &mut Command {
    command.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "secret")
}

/// Returns the same command behind `/bin/sh -c script`. In the script the command is `"$@"`. The
/// script must `exec` it, so that signals reach the daemon.
pub fn behind_shell(command: &Command, script: &str) -> Command {
    behind(Command::new("/bin/sh"), command, script)
}

/// Returns the same command behind a shell script, as [`behind_shell`] does, in a new mount
/// namespace.
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

/// Runs a daemon that is expected to fail at startup. Returns its exit code and its output.
pub fn run_to_end(arguments: &[&str]) -> (Option<i32>, String) {
    run_to_end_with(command(arguments))
}

/// Runs a command that is expected to fail at startup. Returns its exit code and its output.
pub fn run_to_end_with(mut command: Command) -> (Option<i32>, String) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (status, log) = Daemon::watch(child, any).wait();
    (status.code(), log)
}

/// Writes a file `cfg.yaml` with these keys into `folder`. Returns the path of the file.
pub fn config_file(folder: &Path, keys: &str) -> String {
    let path = folder.join("cfg.yaml");
    std::fs::write(&path, format!("Version: 2\n{keys}\n")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Waits until the file contains `text`.
pub fn wait_for_text(path: &Path, text: &str) {
    wait_until(&format!("{text:?} is in {}", path.display()), || {
        std::fs::read_to_string(path).unwrap_or_default().contains(text)
    });
}

/// Waits until `is_true` returns true. `what` describes the condition.
pub fn wait_until(what: &str, is_true: impl FnMut() -> bool) {
    wait_and_look(Duration::from_millis(10), what, is_true);
}

/// Waits until `is_true` returns true, with `interval` between two checks. `what` describes the
/// condition.
pub fn wait_and_look(interval: Duration, what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < PATIENCE, "timed out: {what}");
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

    /// Runs `command` and waits until the daemon can receive. Its TCP port may not be open yet.
    pub fn spawn_without_tcp(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut daemon = Self::watch(child, ([127, 0, 0, 1], 0).into());
        daemon.udp = daemon.listening("Listening on UDP ");
        let line = daemon.wait_for_line(" MB)");
        let size = line.split("buffers ").nth(1).and_then(|rest| rest.split(' ').next());
        daemon.buffer_size_mb = size.unwrap().parse().unwrap();
        daemon
    }

    /// Runs `command` and waits for a log line that contains `text`. If the daemon ends before,
    /// returns its exit status and its whole log.
    pub fn spawn_or_end(mut command: Command, text: &str) -> Result<Self, (ExitStatus, String)> {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut daemon = Self::watch(child, ([127, 0, 0, 1], 0).into());
        let runs = |lines: &[String], ended_count| {
            let runs = lines.iter().any(|line| line.contains(text));
            (runs || ended_count == 2).then_some(runs)
        };
        match daemon.lines.wait(runs) {
            Ok(true) => {
                daemon.udp = daemon.listening("Listening on UDP ");
                Ok(daemon)
            }
            _ => Err(daemon.wait()),
        }
    }

    /// Runs `command` on free ports of its own, and waits until both are open. For a daemon whose
    /// log does not name its ports, because of its level.
    pub fn spawn_silent(command: &mut Command) -> Self {
        loop {
            let free = |socket: io::Result<SocketAddr>| socket.unwrap().to_string();
            let udp = free(UdpSocket::bind("127.0.0.1:0").and_then(|it| it.local_addr()));
            let tcp = free(TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()));
            command.args(["-b", &udp, "-t", &tcp]).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut daemon = Self::watch(command.spawn().unwrap(), udp.parse().unwrap());
            daemon.tcp = tcp.parse().unwrap();
            wait_until("the TCP port is open, or the daemon has ended", || {
                TcpStream::connect(daemon.tcp).is_ok() || daemon.has_ended()
            });
            // Another process may have taken one of the ports meanwhile.
            if !daemon.has_ended() {
                return daemon;
            }
        }
    }

    /// Waits until the TCP port is open.
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
        // In a JSON log, the end of the JSON object follows the address.
        address.trim_end_matches(['"', '}']).parse().unwrap()
    }

    /// Waits for a log line that contains `text`, and returns the line.
    pub fn wait_for_line(&self, text: &str) -> String {
        let found = self.lines.wait(|lines, _| lines.iter().find(|l| l.contains(text)).cloned());
        found.unwrap_or_else(|lines| panic!("no line with {text:?} in\n{}", lines.join("\n")))
    }

    /// Returns all log lines so far.
    pub fn log(&self) -> String {
        self.lines.text.lock().unwrap().0.join("\n")
    }

    /// Sends datagrams, no faster than the daemon reads them from its socket.
    pub fn send<D: AsRef<[u8]>>(&self, datagrams: impl IntoIterator<Item = D>) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.udp).unwrap();
        let mut pacer = Pacer::of_queue(self.udp);
        for datagram in datagrams {
            pacer.wait(datagram.as_ref().len());
            socket.send(datagram.as_ref()).unwrap();
        }
    }

    /// Returns the address of the metrics, for use on another thread.
    pub fn metrics(&self) -> Metrics {
        Metrics(self.tcp)
    }

    /// Returns the value of a metric, or 0 if the metric is absent. Labels are part of the name.
    pub fn metric(&self, name: &str) -> u64 {
        let value = self.metrics().value(name);
        value.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Waits until a metric has reached `value`, and asserts that the metric is not above it.
    pub fn wait_for_metric(&self, name: &str, value: u64) {
        self.wait_for_metric_of_at_least(name, value);
        assert_eq!(self.metric(name), value, "{name}");
    }

    /// Waits until a metric is at least `value`.
    pub fn wait_for_metric_of_at_least(&self, name: &str, value: u64) {
        self.wait_for_count(name, value, || self.metric(name));
    }

    /// Waits until `count` returns at least `value`. `what` names what is counted. However slow the
    /// machine is, this waits as long as the number grows.
    pub fn wait_for_count(&self, what: &str, value: u64, mut count: impl FnMut() -> u64) {
        let (mut largest, mut grown_at) = (count(), Instant::now());
        while largest < value {
            thread::sleep(Duration::from_millis(20));
            let now = count();
            if now > largest {
                (largest, grown_at) = (now, Instant::now());
            } else if grown_at.elapsed() > PATIENCE {
                let account = self.account();
                panic!("{what} is {now} and not {value}: {account}\n{}", self.log());
            }
        }
    }

    /// Waits until at least this many different documents have arrived, as long as more arrive.
    pub fn wait_for_arrivals(&self, endpoint: &Endpoint, count: usize) {
        self.wait_for_count("arrived", count as u64, || endpoint.arrived_count() as u64);
    }

    /// Waits until `is_true` returns true. `what` describes the condition. On a timeout the panic
    /// shows the log.
    pub fn wait_until(&self, what: &str, mut is_true: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_true() {
            assert!(start.elapsed() < PATIENCE, "timed out: {what}\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a GET for `path` to the TCP port and returns the whole answer as text.
    pub fn get(&self, path: &str) -> String {
        get(self.tcp, path).unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Returns the account on the metrics page and asserts that it balances. Use this for an idle
    /// daemon only.
    pub fn balance(&self) -> Account {
        let account = self.account();
        assert_eq!(account.imbalance(), 0, "{account}\n{}", self.log());
        account
    }

    /// Returns the account on the metrics page. The counters may still change.
    pub fn account(&self) -> Account {
        Account::of_metrics(&self.get("/metrics"))
    }

    /// Returns whether the daemon has closed its outputs, which it does at its end.
    pub fn has_ended(&self) -> bool {
        self.lines.text.lock().unwrap().1 == 2
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the first word of a field in `/proc/PID/status`.
    pub fn status_field(&self, name: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// Returns the largest resident memory of the daemon so far, in bytes.
    pub fn peak_memory_bytes(&self) -> u64 {
        self.status_field("VmHWM:").parse::<u64>().unwrap() * 1024
    }

    /// Returns whether the daemon has an open file descriptor with this text in its `/proc/PID/fd`
    /// link.
    pub fn has_descriptor(&self, name: &str) -> bool {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap();
        let targets = folder.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        targets.into_iter().any(|target| target.to_string_lossy().contains(name))
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Kills the daemon with SIGKILL, which simulates a machine failure. Returns its whole log.
    pub fn kill(self) -> String {
        self.signal(rustix::process::Signal::KILL);
        self.wait().1
    }

    /// Stops the daemon with SIGTERM. Returns its exit status and its whole log.
    pub fn stop(self) -> (ExitStatus, String) {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Waits until the daemon has ended. Returns its exit status and its whole log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "the daemon does not end:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        };
        // Both outputs end when the daemon ends.
        let ended = self.lines.wait(|_, ended_count| (ended_count == 2).then_some(()));
        assert!(ended.is_ok(), "the daemon's outputs stay open");
        let log = self.log();
        // The account is checked for every daemon that a test waits for.
        let account = Account::of_log(&log);
        if let Some(account) = &account {
            assert_eq!(account.imbalance(), 0, "{account}\n{log}");
        }
        // A process that aborts writes its account to standard error, in another form.
        let needs_none = log.contains(": aborted in ") || !log.contains("Got shutdown signal");
        assert!(account.is_some() || needs_none, "no account in\n{log}");
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
