//! The texts of the help, and the version line.
//!
//! In: the tables of flags, subcommands, settings, variables and files. Out: the usage text, which
//! an error of the command line prints; the help of `-h`, which has more; and a page for each
//! subcommand and each key of `cfg.yaml`. No I/O, no clock.

use super::Command;
use super::flags::{Flag, Target, daemon_flags};
use super::subcommands::{self, SUBCOMMANDS, Subcommand};
use super::surroundings::{FILES, VARIABLES};
use crate::config::settings::{Config, SETTINGS, Setting};
use std::fmt::Write as _;

/// Largest width of a text that is wrapped, in characters.
const WIDTH: usize = 80;

/// Where the documents are.
const DOCUMENTS: &str = "Documentation:\n  man xray, man cfg.yaml\n  \
                         docs/ in the repository, /usr/share/doc/xrayd in the packages:";

/// A subject of `xray help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// The subcommand with this name.
    Subcommand(&'static str),
    /// The setting with this key in `cfg.yaml`.
    Key(&'static str),
    /// All settings.
    File,
}

impl Topic {
    /// Returns the topic that a word names. The case of a key does not matter.
    pub(super) fn find(word: &str) -> Option<Self> {
        if word == "cfg.yaml" {
            return Some(Self::File);
        }
        let of_key = || SETTINGS.iter().find(|it| it.key.eq_ignore_ascii_case(word));
        let subcommand = subcommands::find(word).map(|it| Self::Subcommand(it.name));
        subcommand.or_else(|| Some(Self::Key(of_key()?.key)))
    }

    /// Returns the topic of a command that is a subcommand.
    pub(super) fn of(command: Command) -> Option<Self> {
        let is_same = |row: &&Subcommand| {
            std::mem::discriminant(&row.command) == std::mem::discriminant(&command)
        };
        SUBCOMMANDS.iter().find(is_same).map(|row| Self::Subcommand(row.name))
    }
}

/// Returns the text of `-v`. It begins like the text of the original daemon.
pub fn version_line() -> String {
    format!("AWS X-Ray daemon version: {} (xrayd)", env!("CARGO_PKG_VERSION"))
}

/// Returns the usage text, which an error of the command line prints.
pub fn usage() -> String {
    let mut text = String::from(
        "Usage: xray [flags] [SUBCOMMAND [flags]]\n\n\
         Receives trace segments over UDP and sends them to AWS X-Ray. Flags win over the file, and\n\
         the file over the environment.\n\n\
         Flags:\n",
    );
    push_flags(&mut text, &daemon_flags());
    text.push_str(
        "\nSubcommands (`xray help SUBCOMMAND` explains one; other words are ignored):\n",
    );
    for Subcommand { name, arguments, summary, .. } in SUBCOMMANDS {
        let name = format!("{name} {arguments}");
        let _ = writeln!(text, "  {:<30}{summary}", name.trim_end());
    }
    text
}

/// Returns the text of `xray help`, or of a topic.
pub fn help(topic: Option<Topic>) -> String {
    match topic {
        None => whole(),
        Some(Topic::Subcommand(name)) => subcommands::find(name).map(page).unwrap_or_default(),
        Some(Topic::Key(key)) => SETTINGS.iter().filter(|it| it.key == key).map(explain).collect(),
        Some(Topic::File) => SETTINGS.iter().map(explain).collect::<Vec<_>>().join("\n"),
    }
}

fn whole() -> String {
    let mut text = usage();
    text.push_str("\nEnvironment:\n");
    push_rows(&mut text, VARIABLES);
    text.push_str("\nFiles:\n");
    push_rows(&mut text, FILES);
    text.push_str(
        "\nExit codes:\n  \
         0  a signal has ended the daemon\n  \
         1  the daemon cannot start, or a part of it has failed\n  \
         2  the command line is wrong\n\n\
         Examples:\n  \
         xray -n eu-west-1 -m 64               # send to this region, with 64 MB for segments\n  \
         xray -n eu-west-1 verify              # check whether segments arrive\n\n",
    );
    let _ = writeln!(text, "{DOCUMENTS} configuration.md, operations.md");
    text
}

/// Returns the page of a subcommand.
fn page(row: &Subcommand) -> String {
    let Subcommand { name, arguments, summary, about, .. } = row;
    let mut text = format!("xray {name}: {summary}\n\nUsage: xray [flags of the daemon] {name}");
    if !arguments.is_empty() {
        let _ = write!(text, " {arguments}");
    }
    let _ = writeln!(text, "\n\n{}", wrapped(about, ""));
    if !row.flags.is_empty() {
        text.push_str("Flags:\n");
        push_flags(&mut text, row.flags);
        text.push('\n');
    }
    let of_daemon = daemon_flags_of(row);
    if !of_daemon.is_empty() {
        text.push_str("Flags of the daemon that matter here, before or after the word:\n");
        push_flags(&mut text, &of_daemon);
        text.push('\n');
    }
    text.push_str("Exit codes:\n");
    for (code, meaning) in (0..).zip(row.exit_codes) {
        let _ = writeln!(text, "  {code}  {meaning}");
    }
    text.push_str("  2  the command line is wrong\n\nExamples:\n");
    for (line, purpose) in row.examples {
        let _ = writeln!(text, "  {line:<38}# {purpose}");
    }
    let _ = writeln!(text, "\n{DOCUMENTS} {}", row.document);
    text
}

/// Returns those flags of the daemon that matter to a subcommand.
pub(super) fn daemon_flags_of(row: &Subcommand) -> Vec<Flag> {
    let matters = |flag: &Flag| row.daemon_flags.chars().any(|name| flag.is_short(name));
    daemon_flags().into_iter().filter(matters).collect()
}

/// Returns what there is to know about a setting.
fn explain(setting: &Setting) -> String {
    let mut text = format!("{}\n{}", setting.key, wrapped(&setting.about(), "  "));
    if let Some(flag) = setting.flag {
        let _ = writeln!(text, "  flag:     {}", flag.names);
    }
    let (values, default) = (setting.values(), setting.show(&Config::default()));
    let _ = writeln!(text, "  values:   {values}\n  default:  {default}");
    text
}

/// Returns a text in lines of at most [`WIDTH`] characters, each with `indent` at its start.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = indent.to_owned();
    for word in text.split_whitespace() {
        if line.len() > indent.len() && line.len() + word.len() >= WIDTH {
            let _ = writeln!(lines, "{}", line.trim_end());
            indent.clone_into(&mut line);
        }
        let _ = write!(line, "{word} ");
    }
    let _ = writeln!(lines, "{}", line.trim_end());
    lines
}

/// Adds rows of names and their purpose. The names of a row come first, on lines of their own.
fn push_rows(text: &mut String, rows: &[(&str, &str)]) {
    for (names, purpose) in rows {
        text.push_str(&wrapped(names, "  "));
        text.push_str(&wrapped(purpose, "      "));
    }
}

fn push_flags(text: &mut String, flags: &[Flag]) {
    for flag in flags {
        let indent = if flag.names.starts_with("--") { "    " } else { "" };
        let value = if flag.needs_value() { " VALUE" } else { "" };
        let names = format!("{indent}{}{value}", flag.names);
        let _ = writeln!(text, "  {names:<30}{}", flag.full_help());
    }
}

impl Flag {
    /// Returns the help text with the default in it.
    pub(super) fn full_help(&self) -> String {
        match self.target {
            Target::Setting(setting) => {
                let default = setting.show(&Config::default());
                self.help.replace("{}", default.trim_matches(['(', ')']))
            }
            _ => self.help.to_owned(),
        }
    }

    /// Whether the flag has this short name.
    fn is_short(&self, name: char) -> bool {
        self.names.strip_prefix('-').is_some_and(|it| it.starts_with(name))
    }
}
