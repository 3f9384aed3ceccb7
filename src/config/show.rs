//! `xray config`: every setting, its value in force, and where that came from.
//!
//! No setting is a secret; an address that may have a password in it is shown without.

use super::Config;
use crate::base::log::{LogFormat, LogLevel};
use crate::config::cli::Flags;
use crate::pipeline::receive::ReceiveBackend;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The file.
    File(PathBuf),
    /// A flag, by its names.
    Flag(&'static str),
    /// An environment variable.
    Variable(&'static str),
}

/// A setting: its key in the file, its flag if it has one, and how to look at it.
#[derive(Debug)]
pub struct Setting {
    /// With its section.
    pub key: &'static str,
    /// Names of the flag, empty for none.
    pub flag: &'static str,
    /// Whether the flag was given.
    given: fn(&Flags) -> bool,
    /// Its value; empty for none.
    pub show: fn(&Config) -> String,
}

const fn setting(
    key: &'static str,
    flag: &'static str,
    given: fn(&Flags) -> bool,
    show: fn(&Config) -> String,
) -> Setting {
    Setting { key, flag, given, show }
}

const fn key(key: &'static str, show: fn(&Config) -> String) -> Setting {
    setting(key, "", |_| false, show)
}

/// Whether a flag has a text; an empty one is as good as none.
fn has_text(value: &Option<String>) -> bool {
    value.as_ref().is_some_and(|value| !value.is_empty())
}

fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}

/// What a value that is not given stands for.
fn or<T: ToString>(value: Option<&T>, otherwise: &str) -> String {
    value.map_or_else(|| otherwise.to_owned(), T::to_string)
}

fn automatic(value: u64) -> String {
    if value == 0 { "0 (see xray limits)".to_owned() } else { value.to_string() }
}

/// Every setting, in the order of the table.
pub const SETTINGS: &[Setting] = &[
    setting(
        "Socket.UDPAddress",
        "-b, --bind",
        |flags| has_text(&flags.bind),
        |config| config.udp_address.clone(),
    ),
    setting(
        "Socket.TCPAddress",
        "-t, --bind-tcp",
        |flags| has_text(&flags.bind_tcp),
        |config| config.tcp_address.clone(),
    ),
    setting(
        "Region",
        "-n, --region",
        |flags| has_text(&flags.region),
        |config| or(config.region.as_ref(), "(looked for at the start)"),
    ),
    key("Endpoint", |config| or(config.endpoint.as_ref(), "(the region's own)")),
    setting(
        "ProxyAddress",
        "-p, --proxy-address",
        |flags| has_text(&flags.proxy_address),
        |config| text(config.proxy.as_ref()),
    ),
    key("NoVerifySSL", |config| config.no_verify_ssl.to_string()),
    setting(
        "ResourceARN",
        "-a, --resource-arn",
        |flags| has_text(&flags.resource_arn),
        |config| text(config.resource_arn.as_ref()),
    ),
    key("Telemetry", |config| config.telemetry.to_string()),
    key("Tail", |config| config.tail.to_string()),
    setting(
        "RoleARN",
        "-r, --role-arn",
        |flags| has_text(&flags.role_arn),
        |config| text(config.role_arn.as_ref()),
    ),
    setting(
        "LocalMode",
        "-o, --local-mode",
        |flags| flags.local_mode.is_some(),
        |config| config.local_mode.to_string(),
    ),
    setting(
        "TotalBufferSizeMB",
        "-m, --buffer-memory",
        |flags| flags.buffer_memory.is_some(),
        |config| automatic(config.buffer_size_mb),
    ),
    key("Concurrency", |config| config.concurrency.to_string()),
    key("ShutdownSeconds", |config| config.shutdown_seconds.to_string()),
    setting(
        "Receive.Backend",
        "--receiver",
        |flags| has_text(&flags.receiver),
        |config| {
            let name = match config.receive_backend {
                ReceiveBackend::Auto => "auto",
                ReceiveBackend::Uring => "uring",
                ReceiveBackend::Recvmmsg => "recvmmsg",
                ReceiveBackend::TokioUring => "tokio-uring",
            };
            name.to_owned()
        },
    ),
    key("Receive.Receivers", |config| automatic(config.receiver_count as u64)),
    key("Receive.SharePort", |config| config.share_port.to_string()),
    key("Receive.Pin", |config| or(config.pin.as_ref(), "(unless in a container)")),
    key("Upload.ConnectTimeoutSeconds", |config| config.connect_timeout_seconds.to_string()),
    key("Upload.RequestTimeoutSeconds", |config| config.request_timeout_seconds.to_string()),
    key("Upload.PingIntervalSeconds", |config| config.ping_interval_seconds.to_string()),
    key("ProxyServer.AllowedPaths", |config| config.proxy_allowed_paths.join(" ")),
    key("ProxyServer.TimeoutSeconds", |config| config.proxy_timeout_seconds.to_string()),
    setting(
        "Spool.Path",
        "--spool-path",
        |flags| has_text(&flags.spool_path),
        |config| text(config.spool_path.as_ref().map(|path| path.display()).as_ref()),
    ),
    setting(
        "Spool.MaxSizeMB",
        "--spool-size-mb",
        |flags| flags.spool_size_mb.is_some(),
        |config| config.spool_size_mb.to_string(),
    ),
    key("Spool.MaxAgeHours", |config| config.spool_age_hours.to_string()),
    setting(
        "Logging.LogLevel",
        "-l, --log-level",
        |flags| has_text(&flags.log_level),
        |config| {
            let name = match config.log_level {
                LogLevel::Dev => "dev",
                LogLevel::Debug => "debug",
                LogLevel::Info => "info",
                LogLevel::Warn => "warn",
                LogLevel::Error => "error",
                LogLevel::Prod => "prod",
            };
            name.to_owned()
        },
    ),
    setting(
        "Logging.LogPath",
        "-f, --log-file",
        |flags| has_text(&flags.log_file),
        |config| text(config.log_path.as_ref().map(|path| path.display()).as_ref()),
    ),
    key("Logging.Format", |config| {
        let name = match config.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        name.to_owned()
    }),
    key("Logging.LogRotation", |config| config.log_rotation.to_string()),
];

impl Config {
    /// Notes which settings the flags have set.
    pub(super) fn note_flags(&mut self, flags: &Flags) {
        for setting in SETTINGS.iter().filter(|setting| (setting.given)(flags)) {
            self.sources.insert(setting.key, Source::Flag(setting.flag));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::KEYS;
    use super::*;
    use crate::config::cli;

    #[test]
    fn every_key_of_the_file_and_every_flag_is_in_the_table() {
        let shown: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        let not_yet = ["Version"];
        for (key, _) in KEYS.iter().filter(|(key, _)| !not_yet.contains(key)) {
            assert!(shown.contains(key), "{key} is not shown");
        }
        let flags: Vec<_> = SETTINGS.iter().flat_map(|setting| setting.flag.split(", ")).collect();
        for (short, long) in cli::flag_names() {
            let has_no_setting = ["config", "version", "help"].contains(&long);
            let is_there = flags.contains(&format!("--{long}").as_str());
            assert!(is_there != has_no_setting, "--{long}");
            assert!(!is_there || short.is_empty() || flags.contains(&format!("-{short}").as_str()));
        }
    }

    #[test]
    fn every_key_and_every_flag_is_in_the_table_of_compatibility() {
        let table = include_str!("../../docs/compatibility.md");
        for (key, _) in KEYS {
            assert!(table.contains(&format!("`{key}`")), "{key} is missing");
        }
        for (short, long) in cli::flag_names() {
            let names = if short.is_empty() {
                format!("`--{long}`")
            } else {
                format!("`-{short}`, `--{long}`")
            };
            assert!(table.contains(&names), "{names} is missing");
        }
    }
}
