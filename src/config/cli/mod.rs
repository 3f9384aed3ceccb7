//! The command line, by the rules of Go's `flag` package, which the original daemon uses.
//!
//! In: the arguments of the program. Out: an [`Invocation`]. Pure code. No library for Rust follows
//! these rules: one dash or two for any flag, the value of a boolean only after `=`, and the parser
//! stops at the first argument that is not a flag.

mod flags;
#[cfg(test)]
mod tests;
mod usage;

pub use usage::{usage, version_line};

use super::kinds::Form;
use flags::{HEALTHCHECK_FLAGS, SANDBOX_FLAGS, SUBCOMMANDS, Target, VERIFY_FLAGS, daemon_flags};
use serde_json::Value;
use std::collections::BTreeMap;

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

/// The values of the daemon's flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flags {
    /// The path of the configuration file (`-c`), if given.
    pub config: Option<String>,
    /// The values of settings that are given by flags, by the key of the setting: a text, a number
    /// or a boolean, as the file would have it.
    pub values: BTreeMap<&'static str, Value>,
}

impl Flags {
    /// Returns the text of the flag for the setting with this key, if the flag is given.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key)?.as_str()
    }
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

/// Returns the names of every flag of the daemon: `-b, --bind`.
#[cfg(test)]
pub(super) fn flag_names() -> impl Iterator<Item = &'static str> {
    daemon_flags().into_iter().map(|flag| flag.names)
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
        let target = find(name, invocation.command)?;
        apply(target, name, value, words, invocation)?;
    }
    Ok(())
}

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
    let number = |text: String, expected| match text.parse::<u64>() {
        Ok(number) => Ok(number),
        Err(_) => Err(wrong(text, expected)),
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
        Target::Help if boolean(value.clone())? => invocation.command = Command::Help,
        Target::Version | Target::Help => {}
        Target::SandboxSwitch(field) => *field(&mut invocation.sandbox) = boolean(value)?,
        Target::Keep => invocation.sandbox.keep = Some(text(value)?),
        Target::AllowHost => invocation.sandbox.allowed_hosts.push(text(value)?),
        Target::Ready => invocation.command = Command::Healthcheck { ready: boolean(value)? },
        Target::Json => invocation.command = Command::Verify { json: boolean(value)? },
    }
    Ok(())
}
