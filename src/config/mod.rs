//! The configuration. Flags win over the file, the file over the environment, and the environment
//! over the defaults.
//!
//! In: an [`Invocation`], the environment, and the paths where the file may be. Out: a [`Config`]
//! with all values within their bounds, or an error that names the flag, key or variable to change.
//! One variable is an exception: `AWS_ENDPOINT_URL_XRAY` wins over the file.
//!
//! ```text
//!   settings.rs      the table: one row for each setting
//!   kinds.rs         reads, checks and shows the values
//!   numbers.rs       the kinds that are numbers
//!   cli/             the flags, by the rules of Go
//!   file.rs          cfg.yaml
//!   trust.rs         decides whether a cfg.yaml in the working directory may be read
//!   yaml.rs          YAML by the rules of the original daemon
//!   environment.rs   the variables
//!   check.rs         checks of the loaded values
//! ```

mod check;
pub mod cli;
mod environment;
mod error;
mod file;
mod kinds;
mod numbers;
mod settings;
#[cfg(test)]
mod tests;
mod trust;
mod yaml;

pub use error::ConfigError;
pub use settings::{Config, SETTINGS, Setting, SettingFlag, Source};

use crate::config::cli::{Flags, Invocation};
use crate::pipeline::limits::Wanted;
use crate::pipeline::receive::ReceiveBackend;
use crate::pipeline::sockets::SocketWish;
use crate::pipeline::spans::door::Ports;
use settings::first_name;
use std::path::Path;

/// The paths where the configuration file is searched if `-c` is not given.
pub const DEFAULT_PATHS: [&str; 2] = ["/etc/amazon/xray/cfg.yaml", "cfg.yaml"];

impl From<&Config> for Wanted {
    fn from(config: &Config) -> Self {
        Self {
            buffer_size_mb: config.buffer_size_mb,
            receiver_count: config.receiver_count,
            sockets: match (config.receive_backend, config.socket_count) {
                (ReceiveBackend::Uring | ReceiveBackend::TokioUring, _) => SocketWish::One,
                (ReceiveBackend::Auto | ReceiveBackend::Recvmmsg, 0) => SocketWish::Automatic,
                (ReceiveBackend::Auto | ReceiveBackend::Recvmmsg, count) => {
                    SocketWish::Count(count)
                }
            },
            has_spool: config.spool_path.is_some(),
            takes_spans: config.takes_spans(),
            span_ports: Ports {
                http: config.otlp_http_address.is_some(),
                grpc: config.otlp_grpc_address.is_some(),
            },
            concurrency: config.concurrency,
            concurrency_max: config.concurrency_max,
        }
    }
}

impl Config {
    /// Returns whether the daemon takes spans of OpenTelemetry.
    pub fn takes_spans(&self) -> bool {
        self.otlp_http_address.is_some() || self.otlp_grpc_address.is_some()
    }

    /// Loads the configuration. The file that `-c` names must exist. Without `-c`, the first of
    /// `default_paths` that exists is read.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or parsed, or a value is not allowed.
    pub fn load(
        invocation: &Invocation,
        environment: &dyn Fn(&str) -> Option<String>,
        default_paths: &[&Path],
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let flags = &invocation.flags;
        match flags.config.as_ref().filter(|path| !path.is_empty()) {
            Some(path) => {
                config.apply_file(Path::new(path), &file::read(Path::new(path))?, true, flags)?
            }
            None => {
                for path in default_paths {
                    // The working directory may belong to other users.
                    let text = if path.is_relative() {
                        trust::read_if_trusted(path, &mut config.warnings)?
                    } else {
                        file::read_if_there(path)?
                    };
                    if let Some(text) = text {
                        config.apply_file(path, &text, false, flags)?;
                        break;
                    }
                }
            }
        }
        config.apply_flags(flags)?;
        config.apply_environment(environment)?;
        config.check()?;
        if !invocation.ignored.is_empty() {
            // One of the words may be the address of a proxy, with a password.
            let shown = |word: &String| if word.contains('@') { "..." } else { word }.to_owned();
            let words: Vec<_> = invocation.ignored.iter().map(shown).collect();
            let words = words.join(" ");
            let slip = invocation.slip().map(|slip| format!(". {slip}")).unwrap_or_default();
            config.warnings.push(format!("ignored on the command line: {words}{slip}"));
        }
        Ok(config)
    }

    fn apply_flags(&mut self, flags: &Flags) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            let (Some(flag), Some(value)) = (setting.flag, flags.values.get(setting.key)) else {
                continue;
            };
            let name = first_name(flag.names);
            let wrong = |problem| ConfigError::Flag { flag: name, problem };
            let warning = setting.set(self, value).map_err(wrong)?;
            self.warnings.extend(warning.map(|it| format!("flag {name}: {it}")));
            if setting.counts(value) {
                self.sources.insert(setting.key, Source::Flag(flag.names));
            }
        }
        Ok(())
    }
}
