//! The table of all settings. A row defines everything about one setting: the field of [`Config`]
//! with its default, the key of `cfg.yaml`, the flag with its help text, and the kind of its
//! values.
//!
//! The flag parser, the reader of the file, the usage text, `xray config` and the tests of
//! `docs/configuration.md` and `docs/compatibility.md` use the table. No I/O, no clock.

use super::kinds::{
    Address, COMPRESSION, Form, Kind, LOG_FORMAT, Level, OptionalSwitch, Path, Proxy,
    RECEIVE_BACKEND, SPANS_TO, Switch, Text, UrlPaths, Warning, form,
};
use super::numbers::{BufferSize, CallCount, Megabytes, Number, ZeroIsAutomatic};
use crate::aws::endpoint::Variant;
use crate::aws::transport::ProxyAddress;
use crate::aws::{Compression, SpansTo};
use crate::base::log::{LogFormat, LogLevel};
use crate::pipeline::receive::ReceiveBackend;
use crate::pipeline::sockets::SOCKET_COUNT_MAX;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The source of a setting's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The configuration file at this path.
    File(PathBuf),
    /// A flag, by its names: `-b, --bind`.
    Flag(&'static str),
    /// An environment variable, by its name.
    Variable(&'static str),
}

/// A setting: one row of the table, except for the field of [`Config`].
#[derive(Debug)]
pub struct Setting {
    /// The key in `cfg.yaml`, with its section: `Socket.UDPAddress`.
    pub key: &'static str,
    /// The flag, if the setting has one.
    pub flag: Option<SettingFlag>,
    /// The form of the values.
    pub(super) form: Form,
    /// The lines of the description, each with a space at its start.
    description: &'static str,
    set: fn(&mut Config, &Value) -> Result<Warning, String>,
    counts: fn(&Value) -> bool,
    show: fn(&Config) -> String,
    values: fn() -> String,
}

/// The flag of a setting.
#[derive(Debug, Clone, Copy)]
pub struct SettingFlag {
    /// The short name, if there is one, and the long name: `-b, --bind`.
    pub names: &'static str,
    /// The help text. `{}` stands for the default.
    pub help: &'static str,
}

/// Returns the first of a flag's names: `-b` of `-b, --bind`.
pub(super) fn first_name(names: &'static str) -> &'static str {
    names.split(", ").next().unwrap_or_default()
}

impl Setting {
    /// Sets this setting's field in `config` to `value`. Returns a warning if the field got another
    /// value than the one given.
    ///
    /// # Errors
    ///
    /// Returns a text that says what is wrong with the value and what to write instead.
    pub(super) fn set(&self, config: &mut Config, value: &Value) -> Result<Warning, String> {
        (self.set)(config, value)
    }

    /// Returns whether a valid value of this setting counts as given. An empty text does not.
    pub(super) fn counts(&self, value: &Value) -> bool {
        (self.counts)(value)
    }

    /// Returns what the setting is for, in a few sentences.
    pub fn about(&self) -> String {
        self.description.trim().to_owned()
    }

    /// Returns which values are allowed, in a few words.
    pub fn values(&self) -> String {
        (self.values)()
    }

    /// Returns the setting's value as a text, or `(none)` if there is no value. The text never has
    /// a password.
    pub fn show(&self, config: &Config) -> String {
        match (self.show)(config) {
            empty if empty.is_empty() => "(none)".to_owned(),
            value => value,
        }
    }
}

/// Makes [`Config`], its defaults and [`SETTINGS`] from the rows of the table. The comment of a row
/// is the description that operators read (`xray help KEY`, the man page).
macro_rules! settings {
    (
        $({
            $(#[doc = $doc:literal])*
            $field:ident: $type:ty = $default:expr,
            key: $key:literal,
            kind: $kind:expr,
            $(flag: $flag:literal, help: $help:literal,)?
        })*
    ) => {
        /// The effective configuration.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $($(#[doc = $doc])* pub $field: $type,)*
            /// Which endpoint of a region is used if `endpoint` is `None`: FIPS, dual-stack, both
            /// or neither. Set by environment variables only.
            pub endpoint_variant: Variant,
            /// Hosts that are reached without the proxy, in the form of the variable `NO_PROXY`.
            pub no_proxy: String,
            /// The configuration file that was read, if any.
            pub config_path: Option<PathBuf>,
            /// Problems that the operator should know and that do not prevent the start.
            pub warnings: Vec<String>,
            /// The source of each value that is not a default, by the key of its setting.
            pub sources: BTreeMap<&'static str, Source>,
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    endpoint_variant: Variant::default(),
                    no_proxy: String::new(),
                    config_path: None,
                    warnings: Vec::new(),
                    sources: BTreeMap::new(),
                }
            }
        }

        /// All settings, in the order of `xray config`.
        pub const SETTINGS: &[Setting] = &[$(
            Setting {
                key: $key,
                flag: settings!(@flag $($flag, $help)?),
                form: form(&$kind),
                description: concat!($($doc),*),
                set: |config, value| $kind.set(&mut config.$field, value),
                counts: |value| $kind.counts(value),
                show: |config| $kind.show(&config.$field),
                values: || $kind.values(),
            },
        )*];
    };
    (@flag) => { None };
    (@flag $names:literal, $help:literal) => { Some(SettingFlag { names: $names, help: $help }) };
}

/// The default of the UDP address and of the TCP address, as in the original daemon.
const DEFAULT_ADDRESS: &str = "127.0.0.1:2000";

settings! {
    {
        /// The UDP address that receives segments, `HOST:PORT`. Containers need `0.0.0.0:2000`.
        udp_address: String = DEFAULT_ADDRESS.to_owned(),
        key: "Socket.UDPAddress",
        kind: Address,
        flag: "-b, --bind",
        help: "UDP address that receives segments (default {})",
    }
    {
        /// The TCP address for the daemon's HTTP pages and for the calls of applications,
        /// `HOST:PORT`.
        tcp_address: String = DEFAULT_ADDRESS.to_owned(),
        key: "Socket.TCPAddress",
        kind: Address,
        flag: "-t, --bind-tcp",
        help: "TCP address for HTTP requests (default {})",
    }
    {
        /// The region of the service. If neither a flag, the file nor the environment has it, the
        /// daemon looks for the region at the start.
        region: Option<String> = None,
        key: "Region",
        kind: Text { absent: "(looked for at the start)" },
        flag: "-n, --region",
        help: "Region of the service, for example eu-west-1",
    }
    {
        /// The URL of the service, for example of an interface endpoint. Without it, the daemon
        /// uses the endpoint of the region.
        endpoint: Option<String> = None,
        key: "Endpoint",
        kind: Text { absent: "(the region's own)" },
    }
    {
        /// The proxy for uploads and for the calls that fetch credentials. Calls to this host,
        /// the instance metadata and the container credentials never use the proxy.
        proxy: Option<ProxyAddress> = None,
        key: "ProxyAddress",
        kind: Proxy,
        flag: "-p, --proxy-address",
        help: "HTTP or SOCKS5 proxy on the way to the service (default $HTTPS_PROXY)",
    }
    {
        /// Whether the daemon accepts any certificate. For tests only: an attacker on the network
        /// path can then read and change what the daemon sends.
        no_verify_ssl: bool = false,
        key: "NoVerifySSL",
        kind: Switch,
    }
    {
        /// The ARN of the AWS resource that the daemon runs on. Sent with telemetry.
        resource_arn: Option<String> = None,
        key: "ResourceARN",
        kind: Text { absent: "" },
        flag: "-a, --resource-arn",
        help: "ARN of the AWS resource that the daemon runs on, for telemetry",
    }
    {
        /// Whether the daemon sends its counters to the service once a minute. Switch this off if
        /// the credentials do not allow `xray:PutTelemetryRecords`.
        telemetry: bool = true,
        key: "Telemetry",
        kind: Switch,
    }
    {
        /// Whether programs on this host may follow the segments (`xray tail`). Segments may
        /// contain secrets.
        tail: bool = false,
        key: "Tail",
        kind: Switch,
    }
    {
        /// The role that the daemon assumes with the credentials that it finds, for example to send
        /// to another account.
        role_arn: Option<String> = None,
        key: "RoleARN",
        kind: Text { absent: "" },
        flag: "-r, --role-arn",
        help: "ARN of a role to assume, for example to send to another account",
    }
    {
        /// If true, the daemon does not ask the EC2 instance metadata. This is for hosts outside
        /// EC2.
        local_mode: bool = false,
        key: "LocalMode",
        kind: Switch,
        flag: "-o, --local-mode",
        help: "Do not ask the EC2 instance metadata",
    }
    {
        /// Memory for segments in all stages together, in megabytes; 0 means automatic. With more
        /// memory, no segment is lost in longer outages of the service.
        buffer_size_mb: u64 = 0,
        key: "TotalBufferSizeMB",
        kind: ZeroIsAutomatic(BufferSize),
        flag: "-m, --buffer-memory",
        help: "Memory for segments in MB, 3 or more (default 0: 1 % of the memory)",
    }
    {
        /// The maximum number of requests in flight, if it is to be fixed; 0 means that the daemon
        /// adapts the number to the time of the answers. Set a number if something between the
        /// daemon and the service allows only so many requests.
        concurrency: usize = 0,
        key: "Concurrency",
        kind: CallCount { high: 1000 },
    }
    {
        /// The largest number of requests in flight that the daemon may choose if `Concurrency` is
        /// not set. Memory and descriptors may allow fewer; `xray limits` shows how many.
        concurrency_max: usize = 256,
        key: "ConcurrencyMax",
        kind: Number { low: 1, high: 1000 },
    }
    {
        /// Seconds for the shutdown to send the segments that are left. The default is below the
        /// 10 s after which `docker stop` kills a container.
        shutdown_seconds: u64 = 8,
        key: "ShutdownSeconds",
        kind: Number { low: 0, high: 3600 },
    }
    {
        /// The receive backend. Values other than `auto` are for tests and measurements only.
        receive_backend: ReceiveBackend = ReceiveBackend::Auto,
        key: "Receive.Backend",
        kind: RECEIVE_BACKEND,
        flag: "--receiver",
        help: "Receive backend: auto, uring, recvmmsg, tokio-uring (default {})",
    }
    {
        /// The number of receivers; 0 means one for each processor. More receivers help above about
        /// 200,000 segments a second.
        receiver_count: usize = 0,
        key: "Receive.Receivers",
        kind: ZeroIsAutomatic(Number { low: 0, high: 256 }),
    }
    {
        /// The number of sockets of each receiver; 0 means one where the kernel grants a large
        /// queue, and else as many as fit into the memory for queues. More sockets hold longer
        /// bursts, and need more calls. More than one need the backend `recvmmsg`.
        socket_count: usize = 0,
        key: "Receive.Sockets",
        kind: ZeroIsAutomatic(Number { low: 0, high: SOCKET_COUNT_MAX }),
    }
    {
        /// Whether another daemon of the same user may listen on the same UDP port, for a restart
        /// without a gap.
        share_port: bool = false,
        key: "Receive.SharePort",
        kind: Switch,
    }
    {
        /// Whether each receiver stays on one processor. By default, receivers stay on one
        /// processor unless the daemon runs in a container.
        pin: Option<bool> = None,
        key: "Receive.Pin",
        kind: OptionalSwitch { absent: "(unless in a container)" },
    }
    {
        /// Timeout for opening a connection, in seconds.
        connect_timeout_seconds: u64 = 5,
        key: "Upload.ConnectTimeoutSeconds",
        kind: Number { low: 1, high: 300 },
    }
    {
        /// Timeout for a request and its answer, in seconds. A longer timeout helps on a very slow
        /// network.
        request_timeout_seconds: u64 = 15,
        key: "Upload.RequestTimeoutSeconds",
        kind: Number { low: 1, high: 300 },
    }
    {
        /// Seconds without data after which the daemon sends a ping on an HTTP/2 connection.
        ping_interval_seconds: u64 = 5,
        key: "Upload.PingIntervalSeconds",
        kind: Number { low: 1, high: 300 },
    }
    {
        /// URL paths that applications may call through the daemon, in addition to the paths that
        /// X-Ray SDKs use. `*` allows all paths.
        proxy_allowed_paths: Vec<String> = Vec::new(),
        key: "ProxyServer.AllowedPaths",
        kind: UrlPaths,
    }
    {
        /// Timeout for a call of an application, in seconds.
        // `base::http_server` expects each answer within 60 s.
        proxy_timeout_seconds: u64 = 10,
        key: "ProxyServer.TimeoutSeconds",
        kind: Number { low: 1, high: 60 },
    }
    {
        /// The folder of the spool, the queue on disk. Without it there is no spool: segments that
        /// are evicted from memory, or are left at the end of the shutdown, are dropped.
        spool_path: Option<PathBuf> = None,
        key: "Spool.Path",
        kind: Path,
        flag: "--spool-path",
        help: "Folder for segments that do not fit into memory (default {})",
    }
    {
        /// The maximum size of the spool, in megabytes.
        spool_size_mb: u64 = 256,
        key: "Spool.MaxSizeMB",
        kind: Megabytes(Number { low: 16, high: 1024 * 1024 }),
        flag: "--spool-size-mb",
        help: "Maximum size of that folder in MB, 16 or more (default {})",
    }
    {
        /// Hours after which segments in the spool are dropped. At most a month: the service
        /// rejects older segments.
        spool_age_hours: u64 = 168,
        key: "Spool.MaxAgeHours",
        kind: Number { low: 1, high: 720 },
    }
    {
        /// The address that takes spans of OpenTelemetry over HTTP, `HOST:PORT`. Without this and
        /// the address for gRPC the daemon takes no spans.
        otlp_http_address: Option<String> = None,
        key: "Otlp.HttpAddress",
        kind: Text { absent: "(off)" },
    }
    {
        /// The address that takes spans of OpenTelemetry over gRPC, `HOST:PORT`.
        otlp_grpc_address: Option<String> = None,
        key: "Otlp.GrpcAddress",
        kind: Text { absent: "(off)" },
    }
    {
        /// The operation of X-Ray that gets the spans: its endpoint for OpenTelemetry, or
        /// `PutTraceSegments`, which is experimental.
        otlp_to: SpansTo = SpansTo::Endpoint,
        key: "Otlp.To",
        kind: SPANS_TO,
    }
    {
        /// The compression of the spans on the way to X-Ray's endpoint for OpenTelemetry.
        otlp_compression: Compression = Compression::Gzip,
        key: "Otlp.Compression",
        kind: COMPRESSION,
    }
    {
        /// The log level, which decides which lines are logged.
        log_level: LogLevel = LogLevel::Prod,
        key: "Logging.LogLevel",
        kind: Level,
        flag: "-l, --log-level",
        help: "dev, debug, info, warn, error or prod (default {})",
    }
    {
        /// The log file. Without it, the log goes to standard output.
        log_path: Option<PathBuf> = None,
        key: "Logging.LogPath",
        kind: Path,
        flag: "-f, --log-file",
        help: "Log to this file instead of standard output",
    }
    {
        /// The format of log lines: text, or JSON for log collectors.
        log_format: LogFormat = LogFormat::Text,
        key: "Logging.Format",
        kind: LOG_FORMAT,
    }
    {
        /// Whether the log file is rotated when it has 50 MB.
        log_rotation: bool = true,
        key: "Logging.LogRotation",
        kind: Switch,
    }
}
