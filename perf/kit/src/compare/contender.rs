//! The contenders of a comparison: daemons and floors. Starts and stops them.

use super::limit::Cgroup;
use super::process;
use super::span_load::SpanLoad;
use super::template::{self, Values};
use crate::endpoint::Endpoint;
use crate::spans::sender::Protocol;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The longest time that a contender may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Time after the first socket of a contender is there. A daemon with several sockets opens the
/// others and attaches the program that spreads datagrams over them, which takes some milliseconds.
const SETTLE_TIME: Duration = Duration::from_millis(100);

/// How often the kernel is asked whether a daemon listens.
const LISTENING_INTERVAL: Duration = Duration::from_micros(200);

/// The two kinds of contenders: a daemon, or a floor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A daemon: a program and its arguments.
    Daemon(PathBuf, Vec<String>),
    /// The floor: a program of this kit that only receives and uploads.
    Floor {
        /// Whether the floor parses and escapes documents.
        with_parsing: bool,
    },
}

/// A program that takes part in the comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contender {
    /// The name in rows, tables and plots.
    pub name: String,
    /// Whether the contender is a daemon or a floor, and how it is started.
    pub kind: Kind,
    /// Text that its log has when it is ready. `None` if it is ready when it has its UDP socket.
    pub ready_text: Option<String>,
}

impl Contender {
    /// Parses `NAME=PROGRAM ARGUMENTS...`. An argument cannot contain spaces. If an argument has a
    /// placeholder ([`template`]), the program gets these arguments only; otherwise it also gets
    /// the configuration file of an X-Ray daemon (`-c`).
    ///
    /// # Errors
    ///
    /// Fails if the name is missing, or if the program or the file of a placeholder does not exist.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, command) =
            text.split_once('=').ok_or("give a daemon as NAME=PATH [ARGUMENTS]")?;
        let mut words = command.split_whitespace();
        let program = words.next().ok_or_else(|| format!("{name} has no path"))?;
        let program =
            fs::canonicalize(program).map_err(|error| format!("{name}: {program}: {error}"))?;
        let arguments = words.map(template::with_whole_paths).collect::<Result<_, _>>();
        let arguments = arguments.map_err(|error| format!("{name}: {error}"))?;
        let kind = Kind::Daemon(program, arguments);
        Ok(Self { name: name.to_owned(), kind, ready_text: None })
    }

    /// Returns the two floors: without and with parsing.
    pub fn floors() -> [Self; 2] {
        [("floor", false), ("floor-parsing", true)].map(|(name, with_parsing)| Self {
            name: name.into(),
            kind: Kind::Floor { with_parsing },
            ready_text: None,
        })
    }

    /// Returns whether the contender is a daemon and not a floor.
    pub fn is_daemon(&self) -> bool {
        matches!(self.kind, Kind::Daemon(..))
    }

    /// Returns the receive backend that the arguments request, or `None` if they request none.
    pub fn wanted_backend(&self) -> Option<&str> {
        let Kind::Daemon(_, arguments) = &self.kind else { return None };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let word = word.trim_start_matches('-');
            if word == "receiver" {
                return words.next().map(String::as_str);
            }
            if let Some(backend) = word.strip_prefix("receiver=") {
                return Some(backend);
            }
        }
        None
    }

    /// Returns the command as it is written in a row.
    pub fn command_text(&self) -> String {
        match &self.kind {
            Kind::Daemon(program, arguments) => {
                // The row has the program without its folder, which differs between machines.
                let name = program.file_name().unwrap_or_default().to_string_lossy();
                std::iter::once(name.as_ref())
                    .chain(arguments.iter().map(String::as_str))
                    .collect::<Vec<_>>()
                    .join(" ")
            }
            Kind::Floor { with_parsing: false } => "xrayd-perf floor".into(),
            Kind::Floor { with_parsing: true } => "xrayd-perf floor --with-parsing".into(),
        }
    }
}

/// How a contender is started.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// Memory in megabytes (`TotalBufferSizeMB`).
    pub memory_mb: u64,
    /// Whether the contender runs as in a container without privileges; see [`crate::confine`].
    pub is_confined: bool,
    /// The cgroup that the contender runs in, if it is held to a share of a processor.
    pub cgroup: Option<&'a Cgroup>,
    /// The load of spans that it is to take, if it is to take spans.
    pub spans: Option<SpanLoad>,
}

/// The addresses on which a contender listens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    udp: SocketAddr,
    tcp: SocketAddr,
    otlp_http: SocketAddr,
    otlp_grpc: SocketAddr,
}

impl Ports {
    /// Finds free ports.
    fn find() -> io::Result<Self> {
        let any = (Ipv4Addr::LOCALHOST, 0);
        let udp = UdpSocket::bind(any)?.local_addr()?;
        // All are open at the same time, so that no port is found twice.
        let listeners = [TcpListener::bind(any)?, TcpListener::bind(any)?, TcpListener::bind(any)?];
        let [tcp, otlp_http, otlp_grpc] = listeners.map(|listener| listener.local_addr());
        Ok(Self { udp, tcp: tcp?, otlp_http: otlp_http?, otlp_grpc: otlp_grpc? })
    }
}

/// A running contender. Its process is killed when this value is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Address on which the contender receives.
    pub udp: SocketAddr,
    /// Time from the start until the contender was ready.
    pub start_time: Duration,
    ports: Ports,
    /// Whether it is a floor, which takes spans over HTTP only.
    is_floor: bool,
    folder: TempDir,
}

impl Running {
    /// Starts the contender on free ports in a clean environment, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// Fails if the contender does not get ready (the error contains its log), or if it does not
    /// run on the requested backend.
    pub fn start(
        contender: &Contender,
        endpoint: &Endpoint,
        setting: Setting<'_>,
    ) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        // A user without privileges must be able to read the folder.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(folder.path(), open)?;
        let ports = Ports::find()?;
        let mut command = command(contender, endpoint, setting, &folder, ports)?;
        let log = File::create(folder.path().join("log"))?;
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/nonexistent")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .env("AWS_CA_BUNDLE", folder.path().join("authority.pem"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let start = Instant::now();
        let child = command.spawn()?;
        let (udp, is_floor) = (ports.udp, !contender.is_daemon());
        let start_time = Duration::ZERO;
        let mut running = Self { child, udp, start_time, ports, is_floor, folder };
        let ready_text = contender.ready_text.as_deref().unwrap_or_default();
        while !running.listens(setting.spans) || !running.log().contains(ready_text) {
            if start.elapsed() > PATIENCE || running.has_ended() {
                let name = &contender.name;
                let log = running.log();
                return Err(io::Error::other(format!("{name} does not get ready:\n{log}")));
            }
            thread::sleep(LISTENING_INTERVAL);
        }
        running.start_time = start.elapsed();
        thread::sleep(SETTLE_TIME);
        Ok(running)
    }

    /// Returns whether the contender listens for its load: for spans on the port of the protocol,
    /// otherwise for datagrams.
    fn listens(&self, spans: Option<SpanLoad>) -> bool {
        match spans {
            Some(load) => TcpStream::connect(self.spans(load)).is_ok(),
            None => process::udp_sockets(self.udp.port()).count > 0,
        }
    }

    /// Returns the protocol in which the contender gets a load of spans. A floor gets the same
    /// requests over HTTP/1.1, whatever the protocol.
    pub fn span_protocol(&self, load: SpanLoad) -> Protocol {
        if self.is_floor { Protocol::Http } else { load.protocol }
    }

    /// Returns the address on which the contender gets a load of spans.
    pub fn spans(&self, load: SpanLoad) -> SocketAddr {
        match self.span_protocol(load) {
            Protocol::Http => self.ports.otlp_http,
            Protocol::Grpc => self.ports.otlp_grpc,
        }
    }

    /// Returns the process id of the contender.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether the contender has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Returns everything that the contender has printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Returns the log line that says where the contender listens, or an empty string.
    pub fn start_line(&self) -> String {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("Listening on UDP"));
        line.unwrap_or_default().to_owned()
    }

    /// Returns the receive backend that the contender names in its start-up line.
    ///
    /// # Errors
    ///
    /// Fails if the backend differs from the requested one.
    pub fn backend(&self, contender: &Contender) -> io::Result<Option<String>> {
        let start = Instant::now();
        let wanted = contender.wanted_backend();
        let mut found = backend_in(&self.start_line());
        // The contender listens shortly before it logs this line.
        while wanted.is_some() && found.is_none() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
            found = backend_in(&self.start_line());
        }
        match wanted {
            Some(wanted) if found.as_deref() != Some(wanted) => Err(io::Error::other(format!(
                "{} was to run on {wanted} and runs on {found:?}",
                contender.name
            ))),
            _ => Ok(found),
        }
    }

    /// Stops the contender with SIGTERM, and kills it if it does not end. Returns whether it ended
    /// after SIGTERM with exit code 0.
    pub fn stop(&mut self) -> bool {
        let id = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.success();
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the backend in a start-up line of xrayd.
fn backend_in(line: &str) -> Option<String> {
    let rest = line.split_once("receive backend ")?.1;
    Some(rest.split([',', ')']).next()?.to_owned())
}

/// Returns the command of a contender. A daemon gets a `cfg.yaml` with keys that the original
/// daemon also knows, or what its own arguments say.
fn command(
    contender: &Contender,
    endpoint: &Endpoint,
    setting: Setting<'_>,
    folder: &TempDir,
    ports: Ports,
) -> io::Result<Command> {
    let authority = folder.path().join("authority.pem");
    fs::write(&authority, endpoint.authority.as_deref().unwrap_or_default())?;
    let itself = std::env::current_exe()?;
    let mut words: Vec<std::ffi::OsString> = Vec::new();
    if let Some(cgroup) = setting.cgroup {
        let enter = "echo $$ >\"$0\" && exec \"$@\"";
        words.extend(["/bin/sh".into(), "-c".into(), enter.into(), cgroup.entrance().into()]);
    }
    if setting.is_confined {
        words.extend([itself.clone().into(), "confine".into()]);
    }
    match &contender.kind {
        Kind::Floor { with_parsing } => {
            words.extend([itself.into(), "floor".into()]);
            let listen = if setting.spans.is_some() { ports.otlp_http } else { ports.udp };
            words.extend(["--listen".into(), listen.to_string().into()]);
            words.extend(["--endpoint".into(), endpoint.address.to_string().into()]);
            words.extend(["--authority".into(), authority.into()]);
            words.extend(with_parsing.then(|| "--with-parsing".into()));
            words.extend(setting.spans.map(|_| "--spans".into()));
            words.extend(setting.spans.filter(|load| load.is_gzip).map(|_| "--gzip".into()));
        }
        Kind::Daemon(program, arguments) => {
            let values = Values {
                udp: ports.udp,
                tcp: ports.tcp,
                otlp_http: ports.otlp_http,
                otlp_grpc: ports.otlp_grpc,
                compression: setting.spans.map_or("none", SpanLoad::compression),
                endpoint: endpoint.url(),
                endpoint_address: endpoint.address,
                authority,
                memory_mb: setting.memory_mb,
                folder: folder.path().to_owned(),
            };
            words.push(program.into());
            if !arguments.iter().any(|word| template::has_placeholder(word)) {
                let config = folder.path().join("cfg.yaml");
                let spans = if setting.spans.is_some() { SPANS_CONFIG } else { "" };
                fs::write(&config, values.fill(&format!("{CONFIG}{spans}")))?;
                words.extend(["-c".into(), config.into()]);
            }
            for word in arguments {
                words.push(values.argument(word)?.into());
            }
        }
    }
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    Ok(command)
}

/// The configuration file of an X-Ray daemon.
const CONFIG: &str = "\
Version: 2
Region: us-east-1
LocalMode: true
Endpoint: {endpoint}
NoVerifySSL: true
TotalBufferSizeMB: {memory_mb}
Socket:
  UDPAddress: {udp}
  TCPAddress: {tcp}
";

/// The end of the file for a daemon that takes spans.
const SPANS_CONFIG: &str = "\
Otlp:
  HttpAddress: {otlp_http}
  GrpcAddress: {otlp_grpc}
  Compression: {compression}
";

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(arguments: &[&str]) -> Contender {
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        let kind = Kind::Daemon("xray".into(), arguments);
        Contender { name: "x".into(), kind, ready_text: None }
    }

    #[test]
    fn the_wanted_backend_is_that_of_the_flag_in_any_form() {
        assert_eq!(daemon(&["-l", "dev", "--receiver", "uring"]).wanted_backend(), Some("uring"));
        assert_eq!(daemon(&["-receiver=recvmmsg"]).wanted_backend(), Some("recvmmsg"));
        assert_eq!(daemon(&["-l", "dev"]).wanted_backend(), None);
        assert_eq!(Contender::floors()[0].wanted_backend(), None);
    }

    #[test]
    fn the_backend_is_read_from_the_start_up_line() {
        let line =
            "[Info] Listening on UDP 127.0.0.1:2000 (receive backend tokio-uring, 2 receivers)";
        assert_eq!(backend_in(line).as_deref(), Some("tokio-uring"));
        assert_eq!(backend_in("[Info] Starting proxy http server on 127.0.0.1:2000"), None);
    }

    #[test]
    fn a_daemon_is_a_name_a_program_and_its_arguments() {
        let contender = Contender::parse("old=/bin/sh --receiver uring").unwrap();
        assert_eq!((contender.name.as_str(), contender.wanted_backend()), ("old", Some("uring")));
        assert!(contender.command_text().ends_with("sh --receiver uring"));
        assert!(Contender::parse("/bin/sh").is_err());
        assert!(Contender::parse("x=/no/such/program").is_err());
    }
}
