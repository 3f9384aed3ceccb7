//! The table of the flags and subcommands, for the parser and the usage.

use super::{Command, Flags, SandboxFlags};

#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
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
pub(super) struct Flag {
    pub(super) short: &'static str,
    pub(super) long: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

const fn flag(short: &'static str, long: &'static str, kind: Kind, help: &'static str) -> Flag {
    Flag { short, long, kind, help }
}

/// The daemon's flags, in the order of the usage.
pub(super) const FLAGS: &[Flag] = &[
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
pub(super) const SANDBOX_FLAGS: &[Flag] = &[
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
pub(super) const HEALTHCHECK_FLAGS: &[Flag] =
    &[flag("", "ready", Kind::Ready, "Ask whether it delivers, and not only whether it lives")];

/// The flag of the checklist.
pub(super) const VERIFY_FLAGS: &[Flag] = &[flag("", "json", Kind::Json, "Print one JSON object")];

/// The words that are a command behind the flags.
pub(super) const SUBCOMMANDS: &[(&str, Command)] = &[
    ("sandbox", Command::Sandbox),
    ("tail", Command::Tail),
    ("config", Command::Config),
    ("limits", Command::Limits),
    ("healthcheck", Command::Healthcheck { ready: false }),
    ("verify", Command::Verify { json: false }),
];
