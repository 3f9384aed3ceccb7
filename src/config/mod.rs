//! What the operator wants: flags over the file over the environment over the defaults.
//!
//! In: an [`Invocation`], the environment, the places where a file may be. Out: a [`Config`] in
//! which every value is within its bounds, or an error that says which flag or key to change.

mod check;
pub mod cli;
mod error;
mod file;
mod keys;
mod show;
#[cfg(test)]
mod tests;
mod values;

pub use error::ConfigError;
pub use show::{SETTINGS, Setting, Source};

use crate::aws::endpoint::Variant;
use crate::aws::transport::ProxyAddress;
use crate::base::log::{LogFormat, LogLevel};
use crate::config::cli::{Flags, Invocation};
use crate::pipeline::limits::Wanted;
use crate::pipeline::receive::ReceiveBackend;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use values::{SPOOL_AGE_HOURS, SPOOL_SIZE_MB, buffer_size, spool_size};

/// Where a file is looked for when none is given.
pub const DEFAULT_PATHS: [&str; 2] = ["/etc/amazon/xray/cfg.yaml", "cfg.yaml"];

/// The address for segments and for pages where none is given.
const DEFAULT_ADDRESS: &str = "127.0.0.1:2000";

/// The effective configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where segments are received, `HOST:PORT`. Containers need `0.0.0.0:2000`.
    pub udp_address: String,
    /// Where pages are served, `HOST:PORT`.
    pub tcp_address: String,
    /// How segments are received. Leave it at auto but for tests and measurements.
    pub receive_backend: ReceiveBackend,
    /// Threads that receive, 0 for one a processor. More help beyond some 200,000 segments a
    /// second, and where the kernel grants only a small queue to each.
    pub receiver_count: usize,
    /// Whether another daemon of the same user may listen on the same UDP port, for a restart
    /// without a gap.
    pub share_port: bool,
    /// Whether each receiver keeps to one processor; `None`: unless in a container.
    pub pin: Option<bool>,
    /// The region, if flag, file or environment has one; else it is looked for.
    pub region: Option<String>,
    /// The service's address; without one it is the region's own. For interface endpoints.
    pub endpoint: Option<String>,
    /// Which of the region's own endpoints is the service's; neither kind by default. For who has
    /// to use FIPS, or has IPv6 alone.
    pub endpoint_variant: Variant,
    /// An HTTP proxy for uploads and for the calls that fetch credentials, but for those to this
    /// host; none by default. For hosts without a way of their own to the service.
    pub proxy: Option<ProxyAddress>,
    /// Hosts that are reached without the proxy, in the form of the variable `NO_PROXY`; none by
    /// default.
    pub no_proxy: String,
    /// Whether certificates are taken unseen. For tests alone: whoever is on the way can read and
    /// change what is sent.
    pub no_verify_ssl: bool,
    /// A role to assume with the credentials found. For sending to another account.
    pub role_arn: Option<String>,
    /// The AWS resource that the daemon runs on, for telemetry.
    pub resource_arn: Option<String>,
    /// Whether the service is told once a minute what was counted. Off where the credentials are
    /// not allowed `xray:PutTelemetryRecords`.
    pub telemetry: bool,
    /// Whether programs on this host may follow the segments (`xray tail`), which may hold secrets;
    /// not by default.
    pub tail: bool,
    /// Whether not to ask the instance metadata. For use outside EC2.
    pub local_mode: bool,
    /// Megabytes for segments, all stages together; 0 is automatic, else 3 at least. More lets
    /// longer outages of the service pass without loss.
    pub buffer_size_mb: u64,
    /// Requests in flight at most, 8 by default. More helps where the service is far away.
    pub concurrency: usize,
    /// Seconds for a connection to be open, 5 by default.
    pub connect_timeout_seconds: u64,
    /// Seconds for a request to be answered, 15 by default. More helps on very slow ways.
    pub request_timeout_seconds: u64,
    /// Seconds of silence after which an HTTP/2 connection is asked whether it lives, 5 by default.
    pub ping_interval_seconds: u64,
    /// Paths that clients may call through the daemon beside those of its policy; `*` is any.
    pub proxy_allowed_paths: Vec<String>,
    /// Seconds for a client's request to be answered by the service, 10 by default.
    pub proxy_timeout_seconds: u64,
    /// A folder for what memory has no room for, or the shutdown no time; without one it is lost.
    pub spool_path: Option<PathBuf>,
    /// Megabytes of the spool at most, 256 by default, 16 at least.
    pub spool_size_mb: u64,
    /// Hours after which what is in the spool is given up, 168 by default.
    pub spool_age_hours: u64,
    /// How much is logged.
    pub log_level: LogLevel,
    /// What its lines look like; JSON for those who collect logs by machine.
    pub log_format: LogFormat,
    /// A file for the log; without one it goes to standard output.
    pub log_path: Option<PathBuf>,
    /// Whether the log file is set aside when it has 50 MB.
    pub log_rotation: bool,
    /// Seconds to send what is left at the end, 8 by default, since `docker stop` kills after 10.
    pub shutdown_seconds: u64,
    /// The file that was read, if any.
    pub config_path: Option<PathBuf>,
    /// What the operator should know and what is no reason not to start.
    pub warnings: Vec<String>,
    /// Where the values that are no defaults came from, by key.
    pub sources: BTreeMap<&'static str, Source>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            udp_address: DEFAULT_ADDRESS.to_owned(),
            tcp_address: DEFAULT_ADDRESS.to_owned(),
            receive_backend: ReceiveBackend::default(),
            receiver_count: 0,
            share_port: false,
            pin: None,
            region: None,
            endpoint: None,
            endpoint_variant: Variant::default(),
            proxy: None,
            no_proxy: String::new(),
            no_verify_ssl: false,
            role_arn: None,
            resource_arn: None,
            telemetry: true,
            tail: false,
            local_mode: false,
            buffer_size_mb: 0,
            concurrency: 8,
            connect_timeout_seconds: 5,
            request_timeout_seconds: 15,
            ping_interval_seconds: 5,
            proxy_allowed_paths: Vec::new(),
            proxy_timeout_seconds: 10,
            spool_path: None,
            spool_size_mb: SPOOL_SIZE_MB,
            spool_age_hours: SPOOL_AGE_HOURS,
            log_level: LogLevel::default(),
            log_format: LogFormat::default(),
            log_path: None,
            log_rotation: true,
            shutdown_seconds: 8,
            config_path: None,
            warnings: Vec::new(),
            sources: BTreeMap::new(),
        }
    }
}

impl From<&Config> for Wanted {
    fn from(config: &Config) -> Self {
        Self {
            buffer_size_mb: config.buffer_size_mb,
            receiver_count: config.receiver_count,
            has_spool: config.spool_path.is_some(),
        }
    }
}

impl Config {
    /// Puts the configuration together. The file is the one given with `-c`, and then it must be
    /// there, else the first of `default_paths` that is.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or understood, or a value is out of its bounds.
    pub fn load(
        invocation: &Invocation,
        environment: &dyn Fn(&str) -> Option<String>,
        default_paths: &[&Path],
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let flags = &invocation.flags;
        match flags.config.as_ref().filter(|path| !path.is_empty()) {
            Some(path) => {
                config.apply_file(Path::new(path), &file::read(Path::new(path))?, true)?
            }
            None => {
                for path in default_paths {
                    if let Some(text) = file::read_if_there(path)? {
                        config.apply_file(path, &text, false)?;
                        break;
                    }
                }
            }
        }
        config.apply_flags(flags)?;
        config.note_flags(flags);
        config.apply_environment(environment)?;
        config.check()?;
        if !invocation.ignored.is_empty() {
            // The address of a proxy may be among them, with a password in it.
            let shown = |word: &String| if word.contains('@') { "..." } else { word }.to_owned();
            let words: Vec<_> = invocation.ignored.iter().map(shown).collect();
            let words = words.join(" ");
            config.warnings.push(format!("ignored on the command line: {words}"));
        }
        Ok(config)
    }

    fn apply_flags(&mut self, flags: &Flags) -> Result<(), ConfigError> {
        let wrong = |flag: &'static str, problem| ConfigError::Flag { flag, problem };
        set_address(&mut self.udp_address, flags.bind.as_ref());
        set_address(&mut self.tcp_address, flags.bind_tcp.as_ref());
        set_text(&mut self.region, flags.region.as_ref());
        set_text(&mut self.role_arn, flags.role_arn.as_ref());
        set_text(&mut self.resource_arn, flags.resource_arn.as_ref());
        if let Some(path) = flags.log_file.as_ref().filter(|path| !path.is_empty()) {
            self.log_path = Some(path.into());
        }
        if let Some(local_mode) = flags.local_mode {
            self.local_mode = local_mode;
        }
        if let Some(megabytes) = flags.buffer_memory {
            self.buffer_size_mb = buffer_size(megabytes).map_err(|problem| wrong("-m", problem))?;
        }
        if let Some(path) = flags.spool_path.as_ref().filter(|path| !path.is_empty()) {
            self.spool_path = Some(path.into());
        }
        if let Some(megabytes) = flags.spool_size_mb {
            self.spool_size_mb =
                spool_size(megabytes).map_err(|problem| wrong("--spool-size-mb", problem))?;
        }
        if let Some(address) = &flags.proxy_address {
            set_proxy(&mut self.proxy, address).map_err(|problem| wrong("-p", problem))?;
        }
        if let Some(backend) = &flags.receiver {
            self.receive_backend =
                ReceiveBackend::parse(backend).map_err(|problem| wrong("--receiver", problem))?;
        }
        if let Some(level) = &flags.log_level {
            self.log_level = LogLevel::parse(level).map_err(|problem| wrong("-l", problem))?;
        }
        Ok(())
    }

    /// `AWS_ENDPOINT_URL_XRAY` beats the file, which beats `AWS_ENDPOINT_URL`, as in the AWS SDKs.
    fn apply_environment(
        &mut self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        let variable = |name| environment(name).filter(|value| !value.trim().is_empty());
        if self.region.is_none() {
            let names = ["AWS_REGION", "AWS_DEFAULT_REGION"];
            let found = names.into_iter().find_map(|name| Some((name, variable(name)?)));
            if let Some((name, region)) = found {
                self.region = Some(region.trim().to_owned());
                self.sources.insert("Region", Source::Variable(name));
            }
        }
        let name = match (variable("AWS_ENDPOINT_URL_XRAY"), &self.endpoint) {
            (Some(_), _) => Some("AWS_ENDPOINT_URL_XRAY"),
            (None, Some(_)) => None,
            (None, None) => Some("AWS_ENDPOINT_URL"),
        };
        if let Some((name, value)) = name.and_then(|name| Some((name, variable(name)?))) {
            self.endpoint = Some(value);
            self.sources.insert("Endpoint", Source::Variable(name));
        }
        if self.proxy.is_none() {
            let names = ["HTTPS_PROXY", "https_proxy"];
            let found = names.into_iter().find_map(|name| Some((name, variable(name)?)));
            if let Some((name, address)) = found {
                set_proxy(&mut self.proxy, &address)
                    .map_err(|problem| ConfigError::Variable { name, problem })?;
                self.sources.insert("ProxyAddress", Source::Variable(name));
            }
        }
        let no_proxy = variable("NO_PROXY").or_else(|| variable("no_proxy"));
        self.no_proxy = no_proxy.unwrap_or_default();
        let is_true = |name| match variable(name).map(|value| value.trim().to_ascii_lowercase()) {
            None => Ok(false),
            Some(value) if value == "true" => Ok(true),
            Some(value) if value == "false" => Ok(false),
            Some(value) => {
                let problem = format!("{value:?} is neither true nor false");
                Err(ConfigError::Variable { name, problem })
            }
        };
        self.endpoint_variant = Variant {
            fips: is_true("AWS_USE_FIPS_ENDPOINT")?,
            dual_stack: is_true("AWS_USE_DUALSTACK_ENDPOINT")?,
        };
        Ok(())
    }
}

/// Empty means: not given.
fn set_text(field: &mut Option<String>, value: Option<&String>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        *field = Some(value.clone());
    }
}

/// Empty means: not given. The error does not show the address, which may have a password in it.
fn set_proxy(field: &mut Option<ProxyAddress>, value: &str) -> Result<(), String> {
    if !value.trim().is_empty() {
        *field = Some(ProxyAddress::parse(value).map_err(|error| error.to_string())?);
    }
    Ok(())
}

fn set_address(field: &mut String, value: Option<&String>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        field.clone_from(value);
    }
}
