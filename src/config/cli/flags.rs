//! The tables of flags, for the parser and the usage text. The flags of settings come from the
//! table of settings.

use super::SandboxFlags;
use crate::config::kinds::Form;
use crate::config::settings::{SETTINGS, Setting};

/// The field that a flag sets.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// The flag sets this setting of the configuration.
    Setting(&'static Setting),
    /// The flag `-c` sets the path of the configuration file.
    ConfigPath,
    /// The flag sets the command to [`Command::Version`].
    Version,
    /// The flag sets the command to [`Command::Help`].
    Help,
    /// The flag sets a switch of the sandbox.
    SandboxSwitch(fn(&mut SandboxFlags) -> &mut bool),
    /// The flag `--keep` sets the file that stores the sandbox's traces.
    Keep,
    /// The flag `--sampling` sets the rates of the sandbox's default rule.
    Sampling,
    /// The flag sets the address of a port for OpenTelemetry's exporters.
    OtlpAddress(fn(&mut SandboxFlags) -> &mut Option<String>),
    /// The flag `--allow-host` adds a host name that requests to the sandbox may have.
    AllowHost,
    /// The flag `--ready` sets whether `xray healthcheck` asks for readiness.
    Ready,
    /// The flag `--json` sets whether `xray verify` prints JSON.
    Json,
    /// The flag `--unit` sets whether `xray verify` uses the environment of the service.
    Unit,
}

/// A flag of the command line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flag {
    /// The short name, if there is one, and the long name: `-b, --bind`.
    pub(super) names: &'static str,
    /// The field that the flag sets.
    pub(super) target: Target,
    /// The help text. If the flag is for a setting, `{}` stands for the default.
    pub(super) help: &'static str,
}

impl Flag {
    /// Whether the flag has this name, given without dashes.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.names.split(", ").any(|it| it.trim_start_matches('-') == name)
    }

    /// Whether the flag needs a value. A switch has a value only after `=`.
    pub(super) fn needs_value(&self) -> bool {
        match self.target {
            Target::Setting(setting) => setting.form != Form::Switch,
            Target::ConfigPath
            | Target::Keep
            | Target::Sampling
            | Target::AllowHost
            | Target::OtlpAddress(_) => true,
            Target::Version
            | Target::Help
            | Target::SandboxSwitch(_)
            | Target::Ready
            | Target::Json
            | Target::Unit => false,
        }
    }
}

const fn flag(names: &'static str, target: Target, help: &'static str) -> Flag {
    Flag { names, target, help }
}

/// The short names of the flags in the usage text, in order. Flags without a short name follow, in
/// the order of the table of settings.
const SHORT_NAMES: &str = "abtcflmnopr";

/// Returns the flags of the daemon, in the order of the usage text.
pub(super) fn daemon_flags() -> Vec<Flag> {
    let of_setting = |setting: &'static Setting| {
        let names = setting.flag?;
        Some(flag(names.names, Target::Setting(setting), names.help))
    };
    let mut flags: Vec<Flag> = SETTINGS.iter().filter_map(of_setting).collect();
    flags.push(flag(
        "-c, --config",
        Target::ConfigPath,
        "Configuration file (default /etc/amazon/xray/cfg.yaml, then cfg.yaml)",
    ));
    let place =
        |flag: &Flag| SHORT_NAMES.chars().position(|name| flag.names[1..].starts_with(name));
    flags.sort_by_key(|flag| place(flag).unwrap_or(usize::MAX));
    flags.push(flag("-v, --version", Target::Version, "Print the version"));
    flags.push(flag("-h, --help", Target::Help, "Print this text"));
    flags
}

/// The flags of `xray sandbox`.
pub(super) const SANDBOX_FLAGS: &[Flag] = &[
    flag(
        "--demo",
        Target::SandboxSwitch(|flags| &mut flags.demo),
        "Send a few segments at the start",
    ),
    flag(
        "--print",
        Target::SandboxSwitch(|flags| &mut flags.print),
        "Print each trace as a tree (default true)",
    ),
    flag("--keep", Target::Keep, "Keep the traces in this file, also for the next run"),
    flag(
        "--sampling",
        Target::Sampling,
        "What SDKs sample: all (default), or service: one request a second and 5 %",
    ),
    flag(
        "--otlp-http",
        Target::OtlpAddress(|flags| &mut flags.otlp_http),
        "Address for OTLP over HTTP (default port 4318 of the TCP address), or off",
    ),
    flag(
        "--otlp-grpc",
        Target::OtlpAddress(|flags| &mut flags.otlp_grpc),
        "Address for OTLP over gRPC (default port 4317 of the TCP address), or off",
    ),
    flag(
        "--allow-host",
        Target::AllowHost,
        "Accept requests with this host name, such as a service of a compose file",
    ),
];

/// The flags of `xray healthcheck`.
pub(super) const HEALTHCHECK_FLAGS: &[Flag] = &[flag(
    "--ready",
    Target::Ready,
    "Ask whether the daemon can deliver, not only whether it is alive",
)];

/// The flags of `xray verify`.
pub(super) const VERIFY_FLAGS: &[Flag] = &[
    flag("--json", Target::Json, "Print the result as one JSON object"),
    flag("--unit", Target::Unit, "Take flags, variables and user of the service of systemd"),
];
