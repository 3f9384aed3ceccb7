//! The command line, by the rules of Go's `flag` package, which the original daemon uses.
//!
//! In: the arguments of the program. Out: an [`Invocation`]. No I/O, no clock. No library for Rust
//! follows the rules of Go: any flag may have one dash or two, a boolean has a value only after
//! `=`, and the parser stops at the first argument that is not a flag.

mod flags;
#[cfg(test)]
mod man;
mod subcommands;
mod surroundings;
#[cfg(test)]
mod tests;
mod usage;

pub use usage::{Topic, help, usage, version_line};

use super::Setting;
use super::kinds::Form;
use flags::{HEALTHCHECK_FLAGS, SANDBOX_FLAGS, Target, VERIFY_FLAGS, daemon_flags};
use serde_json::Value;
use std::collections::BTreeMap;

/// The task of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Command {
    /// Run the daemon.
    #[default]
    Run,
    /// Run the daemon with an X-Ray endpoint in the same process.
    Sandbox,
    /// Follow the segments of a running daemon.
    Tail,
    /// Print how much memory each part of the daemon may use.
    Limits,
    /// Print the effective configuration.
    Config,
    /// Ask a running daemon for its health.
    Healthcheck {
        /// Ask for readiness (`/ready`) instead of liveness (`/health`).
        ready: bool,
    },
    /// Check the way of a segment, from the configuration to the service.
    Verify {
        /// Print the result as JSON.
        json: bool,
        /// Take flags, variables and user of the service of systemd.
        unit: bool,
    },
    /// Print the version.
    Version,
    /// Print the help: that of the program, or the one of a topic.
    Help(Option<Topic>),
}

/// The values of the daemon's flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flags {
    /// The path of the configuration file (`-c`), if given.
    pub config: Option<String>,
    /// The settings that flags give: the key of each setting and its value. The value is a text, a
    /// number or a boolean, like a value in `cfg.yaml`.
    pub values: BTreeMap<&'static str, Value>,
}

impl Flags {
    /// Returns whether there is a flag for this setting with a value that counts as given.
    pub(super) fn has(&self, setting: &Setting) -> bool {
        self.values.get(setting.key).is_some_and(|value| setting.counts(value))
    }

    /// Returns the text of the flag for the setting with this key, if the flag is given.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.as_str()
    }
}

/// The values of the flags of `xray sandbox`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxFlags {
    /// `--demo`: send a few segments at the start.
    pub demo: bool,
    /// `--print`: print each trace as a tree. On by default.
    pub print: bool,
    /// `--keep`: the file that stores the traces, so that the next run has them too.
    pub keep: Option<String>,
    /// `--sampling service`: the default rule has the rates of the service. By default, it samples
    /// every request.
    pub samples_as_service: bool,
    /// `--otlp-http`: the address of the port for OTLP over HTTP, or `off`. By default, port 4318
    /// of the TCP address.
    pub otlp_http: Option<String>,
    /// `--otlp-grpc`: the address of the port for OTLP over gRPC, or `off`. By default, port 4317
    /// of the TCP address.
    pub otlp_grpc: Option<String>,
    /// `--allow-host`, which may be repeated: values that the header `Host` of a request may have,
    /// in addition to the names and addresses of loopback.
    pub allowed_hosts: Vec<String>,
}

impl Default for SandboxFlags {
    fn default() -> Self {
        Self {
            demo: false,
            print: true,
            keep: None,
            samples_as_service: false,
            otlp_http: None,
            otlp_grpc: None,
            allowed_hosts: Vec::new(),
        }
    }
}

/// A parsed command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Invocation {
    /// The command.
    pub command: Command,
    /// The values of the daemon's flags.
    pub flags: Flags,
    /// The values of the sandbox's flags.
    pub sandbox: SandboxFlags,
    /// The first argument that is neither a flag nor a subcommand, and all arguments after it. They
    /// are ignored, as by the original daemon.
    pub ignored: Vec<String>,
}

impl Invocation {
    /// Returns why the first ignored argument is probably a slip: it is nearly a subcommand. Names
    /// the subcommand.
    pub fn slip(&self) -> Option<String> {
        let word = self.ignored.first().filter(|_| self.command == Command::Run)?;
        let name = subcommands::nearest(word)?;
        Some(format!("{word:?} is no subcommand. Did you mean `xray {name}`?"))
    }
}

/// Why a command line is not valid. The error texts follow those of Go's `flag` package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// The flag does not exist
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// The flag's value is missing
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// The flag's value has the wrong form
    #[error("invalid value {value:?} for flag -{flag}: it takes {expected}")]
    Value {
        /// The name of the flag as given, without dashes.
        flag: String,
        /// The value as given.
        value: String,
        /// The form that the flag expects.
        expected: &'static str,
    },
    /// The name of the flag is missing or begins with a dash
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// The help does not cover this word
    #[error("no help about {0:?}. Give a subcommand, a key of cfg.yaml, or cfg.yaml for all keys")]
    Topic(String),
}

/// Returns the names of every flag of the daemon: `-b, --bind`.
#[cfg(test)]
pub(super) fn flag_names() -> impl Iterator<Item = &'static str> {
    daemon_flags().into_iter().map(|flag| flag.names)
}

/// Parses the arguments of the program.
///
/// The first argument that is not a flag may be a subcommand, and flags may follow it. Flags may
/// also come first, since the entry point of a container image often has flags.
///
/// # Errors
///
/// Fails if a flag is unknown, has no value, or has a value of the wrong form.
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Invocation, UsageError> {
    let mut words = words.into_iter().peekable();
    let mut invocation = Invocation::default();
    parse_flags(&mut words, &mut invocation)?;
    if let Some(found) = words.peek().and_then(|word| subcommands::find(word)) {
        words.next();
        if invocation.command == Command::Run {
            invocation.command = found.command;
        }
        parse_flags(&mut words, &mut invocation)?;
        if invocation.command == Command::Help(None)
            && let Some(word) = words.next()
        {
            let topic = Topic::find(&word).ok_or(UsageError::Topic(word))?;
            invocation.command = Command::Help(Some(topic));
        }
    }
    invocation.ignored = words.collect();
    Ok(invocation)
}

/// Parses flags up to the first argument that is not a flag, or up to and including `--`.
fn parse_flags(
    words: &mut std::iter::Peekable<impl Iterator<Item = String>>,
    invocation: &mut Invocation,
) -> Result<(), UsageError> {
    while let Some(word) = words.next_if(|word| word.len() > 1 && word.starts_with('-')) {
        if word == "--" {
            break;
        }
        let name = word.strip_prefix("--").or(word.strip_prefix('-')).unwrap_or_default();
        if name.is_empty() || name.starts_with('-') || name.starts_with('=') {
            // The value is not shown: it may be the address of a proxy, with a password.
            let name_end = word[1..].find('=').map_or(word.len(), |index| index + 1);
            return Err(UsageError::Syntax(word[..name_end].to_owned()));
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let target = find(name, invocation.command)?;
        apply(target, name, value, words, invocation)?;
        if matches!(target, Target::Help) {
            // The rest of the command line does not matter, as in Go.
            words.for_each(drop);
        }
    }
    Ok(())
}

/// Returns the target of the flag with this name, given without dashes.
fn find(name: &str, command: Command) -> Result<Target, UsageError> {
    let of_command = match command {
        Command::Sandbox => SANDBOX_FLAGS,
        Command::Healthcheck { .. } => HEALTHCHECK_FLAGS,
        Command::Verify { .. } => VERIFY_FLAGS,
        _ => &[],
    };
    daemon_flags()
        .iter()
        .chain(of_command)
        .find(|flag| flag.is_called(name))
        .map(|flag| flag.target)
        .ok_or_else(|| UsageError::Unknown(name.to_owned()))
}

/// Reads the value of a flag and sets the flag's target. `value` is the text after `=`, if any.
fn apply(
    target: Target,
    name: &str,
    value: Option<String>,
    words: &mut impl Iterator<Item = String>,
    invocation: &mut Invocation,
) -> Result<(), UsageError> {
    let wrong =
        |value: String, expected| UsageError::Value { flag: name.to_owned(), value, expected };
    let boolean = |value: Option<String>| match value.as_deref() {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(_) => Err(wrong(value.unwrap_or_default(), "true or false")),
    };
    let number = |text: String, expected| match integer(&text) {
        Some(number) => Ok(number),
        None => Err(wrong(text, expected)),
    };
    let mut text = |value: Option<String>| {
        value.or_else(|| words.next()).ok_or_else(|| UsageError::NoValue(name.to_owned()))
    };
    match target {
        Target::Setting(setting) => {
            let value = match setting.form {
                Form::Text | Form::List => text(value)?.into(),
                Form::Number => number(text(value)?, "a whole number")?.into(),
                Form::Megabytes => number(text(value)?, "a whole number of megabytes")?.into(),
                Form::Switch => boolean(value)?.into(),
            };
            invocation.flags.values.insert(setting.key, value);
        }
        Target::ConfigPath => invocation.flags.config = Some(text(value)?),
        Target::Version if boolean(value.clone())? => invocation.command = Command::Version,
        Target::Version => {}
        // In Go, any value asks for the help.
        Target::Help => invocation.command = Command::Help(Topic::of(invocation.command)),
        Target::SandboxSwitch(field) => *field(&mut invocation.sandbox) = boolean(value)?,
        Target::Keep => {
            invocation.sandbox.keep = Some(text(value)?).filter(|path| !path.is_empty());
        }
        Target::Sampling => {
            let rates = text(value)?;
            invocation.sandbox.samples_as_service = match &*rates {
                "all" => false,
                "service" => true,
                _ => return Err(wrong(rates, "all or service")),
            };
        }
        Target::OtlpAddress(field) => {
            *field(&mut invocation.sandbox) = Some(text(value)?).filter(|it| !it.is_empty());
        }
        Target::AllowHost => {
            let host = Some(text(value)?).filter(|host| !host.is_empty());
            invocation.sandbox.allowed_hosts.extend(host);
        }
        Target::Ready => invocation.command = Command::Healthcheck { ready: boolean(value)? },
        Target::Json | Target::Unit => {
            let value = boolean(value)?;
            if let Command::Verify { json, unit } = &mut invocation.command {
                *(if matches!(target, Target::Json) { json } else { unit }) = value;
            }
        }
    }
    Ok(())
}

/// Parses an integer as Go's `flag` package does: with a sign, and in the forms `16`, `0x10`,
/// `0o20`, `020` and `0b1_0000`. A single `_` may stand between two digits and after the prefix.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    // The prefix counts as a digit: a `_` may follow it.
    let has_prefix = digits.len() < lower.len();
    let digits = digits.strip_prefix('_').filter(|_| has_prefix).unwrap_or(digits);
    if digits.starts_with(['_', '+', '-']) || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{}", digits.replace('_', "")), base).ok()
}
