//! The command line, by the rules of Go's `flag` package, which the original uses.
//!
//! In: the words after the program's name. Out: an [`Invocation`]. Pure code. No library follows
//! these rules: one dash or two for any flag, a boolean that takes its value only after `=`,
//! parsing that stops at the first word that is no flag. One table serves parser and usage.

mod flags;
#[cfg(test)]
mod tests;

use flags::{FLAGS, Flag, HEALTHCHECK_FLAGS, Kind, SANDBOX_FLAGS, SUBCOMMANDS, VERIFY_FLAGS};
use std::fmt::Write as _;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Command {
    /// Run the daemon.
    #[default]
    Run,
    /// Run the daemon against the endpoint in its own process.
    Sandbox,
    /// Follow the segments of a running daemon.
    Tail,
    /// Print what each holder of memory may hold.
    Limits,
    /// Print the configuration in force.
    Config,
    /// Ask a running daemon how it is.
    Healthcheck {
        /// Whether it delivers, and not only whether it lives.
        ready: bool,
    },
    /// Check everything from the configuration to a segment that the service has.
    Verify {
        /// Whether for a machine to read.
        json: bool,
    },
    /// Print the version.
    Version,
    /// Print the usage.
    Help,
}

/// Values given by flags; `None` where a flag is not given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flags {
    /// `--bind`
    pub bind: Option<String>,
    /// `--bind-tcp`
    pub bind_tcp: Option<String>,
    /// `--config`
    pub config: Option<String>,
    /// `--resource-arn`
    pub resource_arn: Option<String>,
    /// `--region`
    pub region: Option<String>,
    /// `--local-mode`
    pub local_mode: Option<bool>,
    /// `--buffer-memory`, in megabytes
    pub buffer_memory: Option<u64>,
    /// `--log-level`
    pub log_level: Option<String>,
    /// `--log-file`
    pub log_file: Option<String>,
    /// `--proxy-address`
    pub proxy_address: Option<String>,
    /// `--role-arn`
    pub role_arn: Option<String>,
    /// `--receiver`
    pub receiver: Option<String>,
    /// `--spool-path`
    pub spool_path: Option<String>,
    /// `--spool-size-mb`
    pub spool_size_mb: Option<u64>,
}

/// The sandbox's own flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxFlags {
    /// `--demo`: send a few segments at the start.
    pub demo: bool,
    /// `--print`: print each trace as a tree.
    pub print: bool,
    /// `--keep`: a file that traces are kept in from one run to the next.
    pub keep: Option<String>,
    /// `--allow-host`, once for each: names that it answers to beside those of loopback.
    pub allowed_hosts: Vec<String>,
}

impl Default for SandboxFlags {
    fn default() -> Self {
        Self { demo: false, print: true, keep: None, allowed_hosts: Vec::new() }
    }
}

/// A command line as understood.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Invocation {
    /// What is to be done.
    pub command: Command,
    /// The daemon's flags.
    pub flags: Flags,
    /// The sandbox's flags.
    pub sandbox: SandboxFlags,
    /// Words that the original ignores too: everything from the first that is no flag on.
    pub ignored: Vec<String>,
}

/// Why a command line is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// There is no such flag
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// The flag's value is missing
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// The flag's value is not of its kind
    #[error("invalid value {value:?} for flag -{flag}: it takes {expected}")]
    Value {
        /// As written.
        flag: String,
        /// As written.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// No name follows the dashes
    #[error("bad flag syntax: {0}")]
    Syntax(String),
}

/// The short and the long name of every flag of the daemon; a short one may be empty.
pub fn flag_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    FLAGS.iter().map(|flag| (flag.short, flag.long))
}

/// Understands the words after the program's name.
///
/// The first word that is no flag may be a subcommand, since an image's entry point puts flags
/// first; flags go on behind it.
///
/// # Errors
///
/// Names the flag that is unknown, incomplete or has a wrong value.
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Invocation, UsageError> {
    let mut words = words.into_iter().peekable();
    let mut invocation = Invocation::default();
    parse_flags(&mut words, &mut invocation)?;
    let found = words.peek().and_then(|word| SUBCOMMANDS.iter().find(|(name, _)| name == word));
    if let Some((_, command)) = found {
        words.next();
        if invocation.command == Command::Run {
            invocation.command = *command;
        }
        parse_flags(&mut words, &mut invocation)?;
    }
    invocation.ignored = words.collect();
    Ok(invocation)
}

/// Takes flags up to the first word that is none, or past `--`.
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
            // A value may be the address of a proxy, with a password in it.
            let name_end = word[1..].find('=').map_or(word.len(), |index| index + 1);
            return Err(UsageError::Syntax(word[..name_end].to_owned()));
        }
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let kind = find(name, invocation.command)?;
        apply(kind, name, value, words, invocation)?;
    }
    Ok(())
}

fn find(name: &str, command: Command) -> Result<Kind, UsageError> {
    let of_command = match command {
        Command::Sandbox => SANDBOX_FLAGS,
        Command::Healthcheck { .. } => HEALTHCHECK_FLAGS,
        Command::Verify { .. } => VERIFY_FLAGS,
        _ => &[],
    };
    FLAGS
        .iter()
        .chain(of_command)
        .find(|flag| [flag.short, flag.long].contains(&name))
        .map(|flag| flag.kind)
        .ok_or_else(|| UsageError::Unknown(name.to_owned()))
}

fn apply(
    kind: Kind,
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
    let mut text = |value: Option<String>| {
        value.or_else(|| words.next()).ok_or_else(|| UsageError::NoValue(name.to_owned()))
    };
    match kind {
        Kind::Text(field) => *field(&mut invocation.flags) = Some(text(value)?),
        Kind::LocalMode => invocation.flags.local_mode = Some(boolean(value)?),
        Kind::Megabytes(field) => {
            let value = text(value)?;
            match value.parse() {
                Ok(megabytes) => *field(&mut invocation.flags) = Some(megabytes),
                Err(_) => return Err(wrong(value, "a whole number of megabytes")),
            }
        }
        Kind::Version if boolean(value.clone())? => invocation.command = Command::Version,
        Kind::Help if boolean(value.clone())? => invocation.command = Command::Help,
        Kind::SandboxSwitch(field) => *field(&mut invocation.sandbox) = boolean(value)?,
        Kind::Keep => invocation.sandbox.keep = Some(text(value)?),
        Kind::AllowHost => invocation.sandbox.allowed_hosts.push(text(value)?),
        Kind::Ready => invocation.command = Command::Healthcheck { ready: boolean(value)? },
        Kind::Json => invocation.command = Command::Verify { json: boolean(value)? },
        Kind::Version | Kind::Help => {}
    }
    Ok(())
}

/// What `-v` prints; it begins as the original's line does.
pub fn version_line() -> String {
    format!("AWS X-Ray daemon version: {} (xrayd)", env!("CARGO_PKG_VERSION"))
}

/// What `-h` prints, and a usage error.
pub fn usage() -> String {
    let mut text = String::from(
        "Usage: xray [flags] [sandbox [flags] | tail | config | limits | healthcheck [--ready] | \
         verify [--json]]

",
    );
    push_flags(&mut text, FLAGS);
    text.push_str(
        "\nsandbox: run the daemon and an X-Ray endpoint in one process, without an AWS account\n",
    );
    push_flags(&mut text, SANDBOX_FLAGS);
    text.push_str(
        "tail: follow the segments of the daemon on the TCP address, which needs Tail: true\n\
         config: print the configuration in force and where it came from, and end\n\
         limits: print what each holder of memory may hold, and end\n\
         healthcheck: ask the daemon on the TCP address how it is; exit 0 or 1 within 5 s\n",
    );
    push_flags(&mut text, HEALTHCHECK_FLAGS);
    text.push_str(
        "verify: check everything from the configuration to a segment that the service has; exit 0 \
         or 1\n",
    );
    push_flags(&mut text, VERIFY_FLAGS);
    text
}

fn push_flags(text: &mut String, flags: &[Flag]) {
    for flag in flags {
        let value = match flag.kind {
            Kind::Text(_) | Kind::Megabytes(_) | Kind::Keep | Kind::AllowHost => " VALUE",
            _ => "",
        };
        let short = if flag.short.is_empty() { "  " } else { &format!("-{},", flag.short) };
        let names = format!("{short:<3} --{}{value}", flag.long);
        let _ = writeln!(text, "  {names:<30}{}", flag.help);
    }
}
