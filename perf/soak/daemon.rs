//! Starts the daemon as a child process, and observes it from outside.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The longest time that the daemon may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Timeout for reading `/metrics` of the daemon.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// A running daemon. Its process is killed when the soak ends early.
pub struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    outputs: Vec<thread::JoinHandle<()>>,
    /// For each thread's folder in `/proc`: the thread's name, and its CPU time when last read.
    threads: RefCell<HashMap<PathBuf, (String, Duration)>>,
    /// Address on which the daemon receives segments.
    pub udp: SocketAddr,
    tcp: SocketAddr,
}

/// Resident memory, now and at most, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resident {
    /// Resident memory now (`VmRSS`).
    pub now_bytes: u64,
    /// Largest resident memory so far (`VmHWM`).
    pub most_bytes: u64,
}

impl Daemon {
    /// Starts the daemon on free ports with credentials, in a clean environment.
    pub fn start(endpoint: SocketAddr, arguments: &[String]) -> io::Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_xray"))
            .args(["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "-n", "us-east-1"])
            .args(arguments)
            .env_clear()
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_ENDPOINT_URL_XRAY", format!("http://{endpoint}"))
            .env("HOME", "/nonexistent")
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let outputs = [
            child.stdout.take().map(|output| collect(output, Arc::clone(&lines))),
            child.stderr.take().map(|output| collect(output, Arc::clone(&lines))),
        ];
        let outputs = outputs.into_iter().flatten().collect();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut daemon =
            Self { child, lines, outputs, threads: RefCell::default(), udp: nowhere, tcp: nowhere };
        daemon.udp = daemon.listening("Listening on UDP ")?;
        daemon.tcp = daemon.listening("Listening on TCP ")?;
        Ok(daemon)
    }

    fn listening(&self, text: &str) -> io::Result<SocketAddr> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let found = self
                .lines_with(text)
                .first()
                .and_then(|line| line.split(text).nth(1)?.split_whitespace().next()?.parse().ok());
            if let Some(address) = found {
                return Ok(address);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other(format!(
            "the daemon does not start:\n{}",
            self.lines_with("").join("\n")
        )))
    }

    /// Returns the log lines that contain `text`.
    pub fn lines_with(&self, text: &str) -> Vec<String> {
        let lines = self.lines.lock().expect("nobody panics with them");
        lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Returns whether the daemon has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns the metrics by name. Labels are part of the name.
    pub fn metrics(&self) -> io::Result<HashMap<String, f64>> {
        let mut stream = TcpStream::connect_timeout(&self.tcp, PAGE_TIMEOUT)?;
        stream.set_read_timeout(Some(PAGE_TIMEOUT))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        let lines = page.lines().filter(|line| line.starts_with("xray_"));
        let pairs = lines.filter_map(|line| line.rsplit_once(' '));
        Ok(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
    }

    /// Returns the memory of the daemon.
    pub fn resident(&self) -> Resident {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            1024 * kilobytes.unwrap_or(0_u64)
        };
        Resident { now_bytes: bytes("VmRSS:"), most_bytes: bytes("VmHWM:") }
    }

    /// Returns the CPU time by thread name. For threads that have ended, this is the last value
    /// read.
    pub fn cpu_times(&self) -> HashMap<String, Duration> {
        let mut threads = self.threads.borrow_mut();
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        for folder in tasks.into_iter().flatten().flatten().map(|task| task.path()) {
            let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
            let time = read("schedstat").split(' ').next().and_then(|word| word.parse().ok());
            if let Some(time) = time.map(Duration::from_nanos) {
                threads.insert(folder.clone(), (read("comm").trim().to_owned(), time));
            }
        }
        let mut times = HashMap::new();
        for (name, time) in threads.values() {
            *times.entry(name.clone()).or_default() += *time;
        }
        times
    }

    /// Stops the daemon with SIGTERM and returns its exit status.
    pub fn stop(&mut self) -> io::Result<ExitStatus> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                // The threads that read the daemon's output end when the daemon has ended.
                self.outputs.drain(..).for_each(|output| drop(output.join()));
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::other("the daemon does not end"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(
    output: impl Read + Send + 'static,
    lines: Arc<Mutex<Vec<String>>>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.lock().expect("nobody panics with them").push(line);
        }
    })
}
