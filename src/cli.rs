//! The command line, by the rules of Go's `flag` package, which the original uses.
//!
//! In: the words after the program's name. Out: an [`Invocation`]. Pure code. No library follows
//! these rules: one dash or two for any flag, a boolean that takes its value only after `=`,
//! parsing that stops at the first word that is no flag. One table serves parser and usage.

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

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text(fn(&mut Flags) -> &mut Option<String>),
    LocalMode,
    Megabytes(fn(&mut Flags) -> &mut Option<u64>),
    Version,
    Help,
    SandboxSwitch(fn(&mut SandboxFlags) -> &mut bool),
    Keep,
    AllowHost,
    Ready,
    Json,
}

#[derive(Clone, Copy)]
struct Flag {
    short: &'static str,
    long: &'static str,
    kind: Kind,
    help: &'static str,
}

const fn flag(short: &'static str, long: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { short, long, kind, help }
}

/// The daemon's flags, in the order of the usage.
const FLAGS: &[Flag] = &[
    flag(
        "a",
        "resource-arn",
        Kind::Text(|flags| &mut flags.resource_arn),
        "ARN of the AWS resource that the daemon runs on, for telemetry",
    ),
    flag("b", "bind", Kind::Text(|flags| &mut flags.bind), "UDP address (127.0.0.1:2000)"),
    flag("t", "bind-tcp", Kind::Text(|flags| &mut flags.bind_tcp), "TCP address (127.0.0.1:2000)"),
    flag("c", "config", Kind::Text(|flags| &mut flags.config), "Configuration file"),
    flag("f", "log-file", Kind::Text(|flags| &mut flags.log_file), "Log to this file"),
    flag(
        "l",
        "log-level",
        Kind::Text(|flags| &mut flags.log_level),
        "dev, debug, info, warn, error or prod (prod)",
    ),
    flag(
        "m",
        "buffer-memory",
        Kind::Megabytes(|flags| &mut flags.buffer_memory),
        "Megabytes for segments, 3 at least (0: 1 % of the memory)",
    ),
    flag("n", "region", Kind::Text(|flags| &mut flags.region), "Region of the service"),
    flag("o", "local-mode", Kind::LocalMode, "Do not ask the EC2 instance metadata"),
    flag(
        "p",
        "proxy-address",
        Kind::Text(|flags| &mut flags.proxy_address),
        "HTTP proxy on the way to the service (HTTPS_PROXY)",
    ),
    flag("r", "role-arn", Kind::Text(|flags| &mut flags.role_arn), "Role to assume"),
    flag(
        "",
        "receiver",
        Kind::Text(|flags| &mut flags.receiver),
        "auto, uring, recvmmsg or tokio-uring (auto)",
    ),
    flag(
        "",
        "spool-path",
        Kind::Text(|flags| &mut flags.spool_path),
        "Folder for what memory has no room for (none)",
    ),
    flag(
        "",
        "spool-size-mb",
        Kind::Megabytes(|flags| &mut flags.spool_size_mb),
        "Megabytes of the spool at most (256)",
    ),
    flag("v", "version", Kind::Version, "Print the version"),
    flag("h", "help", Kind::Help, "Print this text"),
];

/// The sandbox's own flags.
const SANDBOX_FLAGS: &[Flag] = &[
    flag(
        "",
        "demo",
        Kind::SandboxSwitch(|flags| &mut flags.demo),
        "Send a few segments at the start",
    ),
    flag(
        "",
        "print",
        Kind::SandboxSwitch(|flags| &mut flags.print),
        "Print each trace as a tree (true)",
    ),
    flag("", "keep", Kind::Keep, "Keep traces in this file, for the next run too"),
    flag(
        "",
        "allow-host",
        Kind::AllowHost,
        "A name of this host that others ask for, such as one in a compose file",
    ),
];

/// The flag of the health check.
const HEALTHCHECK_FLAGS: &[Flag] =
    &[flag("", "ready", Kind::Ready, "Ask whether it delivers, and not only whether it lives")];

/// The flag of the checklist.
const VERIFY_FLAGS: &[Flag] = &[flag("", "json", Kind::Json, "Print one JSON object")];

/// The words that are a command behind the flags.
const SUBCOMMANDS: &[(&str, Command)] = &[
    ("sandbox", Command::Sandbox),
    ("tail", Command::Tail),
    ("config", Command::Config),
    ("limits", Command::Limits),
    ("healthcheck", Command::Healthcheck { ready: false }),
    ("verify", Command::Verify { json: false }),
];

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_line(line: &str) -> Result<Invocation, UsageError> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_have_one_dash_or_two_and_a_value_after_a_space_or_an_equals_sign() {
        for line in ["-b X", "-b=X", "--b X", "--b=X", "-bind X", "--bind=X", "--bind X"] {
            assert_eq!(parse_line(line).unwrap().flags.bind.as_deref(), Some("X"), "{line}");
        }
        let line = "-a A -t T -c C -n N -o -m 9 -l L -f F -p P -r R --receiver E -spool-path=s --spool-size-mb 20";
        let text = |value: &str| Some(value.to_owned());
        let expected = Flags {
            bind: None,
            bind_tcp: text("T"),
            config: text("C"),
            region: text("N"),
            local_mode: Some(true),
            resource_arn: text("A"),
            buffer_memory: Some(9),
            log_level: text("L"),
            log_file: text("F"),
            proxy_address: text("P"),
            role_arn: text("R"),
            receiver: text("E"),
            spool_path: Some("s".into()),
            spool_size_mb: Some(20),
        };
        assert_eq!(parse_line(line).unwrap().flags, expected);
    }

    #[test]
    fn a_value_may_look_like_a_flag_or_be_empty_and_the_last_one_counts() {
        assert_eq!(parse_line("-n -o").unwrap().flags.region.as_deref(), Some("-o"));
        assert_eq!(parse_line("-n=").unwrap().flags.region.as_deref(), Some(""));
        assert_eq!(parse_line("-n a=b -n c=d").unwrap().flags.region.as_deref(), Some("c=d"));
    }

    #[test]
    fn a_boolean_takes_its_value_only_after_an_equals_sign() {
        let invocation = parse_line("-o true -b X").unwrap();
        assert_eq!(invocation.flags.local_mode, Some(true));
        assert_eq!(invocation.flags.bind, None);
        assert_eq!(invocation.ignored, ["true", "-b", "X"]);
        for (value, expected) in [("true", true), ("T", true), ("1", true), ("f", false)] {
            let flags = parse_line(&format!("-o={value}")).unwrap().flags;
            assert_eq!(flags.local_mode, Some(expected));
        }
        assert!(matches!(parse_line("-o=yes"), Err(UsageError::Value { .. })));
    }

    #[test]
    fn parsing_stops_at_two_dashes_and_at_a_single_one() {
        assert_eq!(parse_line("-n x -- -b X").unwrap().ignored, ["-b", "X"]);
        assert_eq!(parse_line("- -b X").unwrap().ignored, ["-", "-b", "X"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, text) in [
            ("-x", "flag provided but not defined: -x"),
            ("--demo", "flag provided but not defined: -demo"),
            ("--ready", "flag provided but not defined: -ready"),
            ("-n", "flag needs an argument: -n"),
            ("-m x", "invalid value \"x\" for flag -m: it takes a whole number of megabytes"),
            ("-m -3", "invalid value \"-3\" for flag -m"),
            ("---b", "bad flag syntax: ---b"),
            ("-=b", "bad flag syntax: -"),
            ("---p=http://u:hush@p", "bad flag syntax: ---p"),
        ] {
            let error = parse_line(line).unwrap_err().to_string();
            assert!(error.contains(text) && !error.contains("hush"), "{line}: {error}");
        }
        assert!(parse_line("-p=").is_ok());
    }

    #[test]
    fn the_sandbox_takes_flags_on_both_sides() {
        let line = "-t T -b B sandbox --demo --print=false --keep F --allow-host a --allow-host=b \
             -n N more";
        let invocation = parse_line(line).unwrap();
        assert_eq!(invocation.command, Command::Sandbox);
        assert_eq!(
            invocation.sandbox,
            SandboxFlags {
                demo: true,
                print: false,
                keep: Some("F".to_owned()),
                allowed_hosts: vec!["a".to_owned(), "b".to_owned()],
            }
        );
        assert_eq!(invocation.flags.bind.as_deref(), Some("B"));
        assert_eq!(invocation.flags.region.as_deref(), Some("N"));
        assert_eq!(invocation.ignored, ["more"]);
        assert_eq!(parse_line("sandbox").unwrap().sandbox, SandboxFlags::default());
        assert!(parse_line("sandbox --print").unwrap().sandbox.print);
        assert_eq!(parse_line("-t T tail").unwrap().command, Command::Tail);
        assert_eq!(parse_line("-m 9 limits").unwrap().command, Command::Limits);
        let healthcheck = |line| parse_line(line).unwrap().command;
        assert_eq!(healthcheck("-t T healthcheck"), Command::Healthcheck { ready: false });
        assert_eq!(healthcheck("healthcheck --ready -c C"), Command::Healthcheck { ready: true });
        assert!(parse_line("sandbox --ready").is_err());
        let verify = parse_line("-c C verify --json -n N").unwrap();
        assert_eq!(verify.command, Command::Verify { json: true });
        assert_eq!(verify.flags.region.as_deref(), Some("N"));
        assert!(parse_line("--json").is_err() && parse_line("healthcheck --json").is_err());
        assert_eq!(parse_line("-v sandbox").unwrap().command, Command::Version);
        assert_eq!(parse_line("sandbox -h").unwrap().command, Command::Help);
    }

    #[test]
    fn the_usage_names_every_flag() {
        let usage = usage();
        for flag in [FLAGS, SANDBOX_FLAGS, HEALTHCHECK_FLAGS, VERIFY_FLAGS].concat() {
            assert!(usage.contains(&format!(" --{}", flag.long)), "{usage}");
            assert!(usage.contains(&format!("-{}", flag.short)), "{usage}");
        }
    }

    proptest! {
        #[test]
        fn no_command_line_ends_in_a_panic(
            words in proptest::collection::vec("(-{0,3}[a-z=]{0,4}|sandbox|.{0,5})", 0..8),
        ) {
            let _ = parse(words);
        }
    }
}
