//! The usage text and the version line.

use super::flags::{Flag, HEALTHCHECK_FLAGS, SANDBOX_FLAGS, Target, VERIFY_FLAGS, daemon_flags};
use crate::config::settings::Config;
use std::fmt::Write as _;

/// Returns the text of `-v`. It begins like the text of the original daemon.
pub fn version_line() -> String {
    format!("AWS X-Ray daemon version: {} (xrayd)", env!("CARGO_PKG_VERSION"))
}

/// Returns the usage text, which `-h` and an error of the command line print.
pub fn usage() -> String {
    let mut text = String::from(
        "Usage: xray [flags] [sandbox [flags] | tail | config | limits | healthcheck [--ready] | \
         verify [--json]]

",
    );
    push_flags(&mut text, &daemon_flags());
    text.push_str(
        "\nsandbox: run the daemon and an X-Ray endpoint in one process, without an AWS account\n",
    );
    push_flags(&mut text, SANDBOX_FLAGS);
    text.push_str(
        "tail: print the traces that the daemon on the TCP address receives; needs Tail: true\n\
         config: print every setting, its value and the source of the value\n\
         limits: print how much memory each part of the daemon may use\n\
         healthcheck: ask the daemon on the TCP address for its health; exit 0 or 1 within 5 s\n",
    );
    push_flags(&mut text, HEALTHCHECK_FLAGS);
    text.push_str("verify: check whether segments reach the service, step by step; exit 0 or 1\n");
    push_flags(&mut text, VERIFY_FLAGS);
    text
}

fn push_flags(text: &mut String, flags: &[Flag]) {
    let defaults = Config::default();
    for flag in flags {
        let indent = if flag.names.starts_with("--") { "    " } else { "" };
        let value = if flag.needs_value() { " VALUE" } else { "" };
        let names = format!("{indent}{}{value}", flag.names);
        let help = match flag.target {
            Target::Setting(setting) => {
                let default = setting.show(&defaults);
                flag.help.replace("{}", default.trim_matches(['(', ')']))
            }
            _ => flag.help.to_owned(),
        };
        let _ = writeln!(text, "  {names:<30}{help}");
    }
}
