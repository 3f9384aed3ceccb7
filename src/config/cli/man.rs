//! Makes the manual pages `docs/man/xray.1` and `docs/man/cfg.yaml.5` from the tables of flags,
//! subcommands, settings, variables and files. The packages install them.
//!
//! In: the tables. Out: the two files, if `XRAY_WRITE_MAN` is set; else a failure if a file is not
//! what the tables say:
//!
//! ```text
//! XRAY_WRITE_MAN=1 cargo test -p xrayd --lib config::cli::man
//! ```

use super::flags::{Flag, daemon_flags};
use super::subcommands::{SUBCOMMANDS, Subcommand};
use super::surroundings::{FILES, VARIABLES};
use super::usage::daemon_flags_of;
use crate::config::settings::{Config, SETTINGS};
use std::fmt::Write as _;
use std::path::Path;

/// A manual page in the language of man(7).
struct Page(String);

impl Page {
    fn new(name: &str, section: u8, title: &str, purpose: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self(format!(
            ".\\\" Made from the tables of src/config by src/config/cli/man.rs.\n\
             .TH {title} {section} \"\" \"xrayd {version}\" \"xrayd\"\n\
             .nh\n.ad l\n\
             .SH NAME\n{name} \\- {}\n",
            escaped(purpose)
        ))
    }

    fn section(&mut self, name: &str) {
        let _ = writeln!(self.0, ".SH {name}");
    }

    /// Adds a paragraph. Text between back quotes is bold.
    fn paragraph(&mut self, text: &str) {
        let _ = writeln!(self.0, ".PP\n{}", marked(text));
    }

    /// Adds an entry: a name, and the text below it.
    fn entry(&mut self, name: &str, text: &str) {
        let _ = writeln!(self.0, ".TP\n{name}\n{}", marked(text));
    }

    fn flags(&mut self, flags: &[Flag]) {
        for flag in flags {
            let value = if flag.needs_value() { " \\fIVALUE\\fR" } else { "" };
            let name = |name: &str| format!("\\fB{}\\fR{value}", escaped(name));
            let names: Vec<_> = flag.names.split(", ").map(name).collect();
            self.entry(&names.join(", "), &flag.full_help());
        }
    }

    /// Adds command lines as they are written.
    fn example(&mut self, lines: &[(&str, &str)]) {
        for (line, purpose) in lines {
            self.paragraph(&format!("{}:", capitalized(purpose)));
            let _ = writeln!(self.0, ".PP\n.RS 4\n.nf\n{}\n.fi\n.RE", escaped(line));
        }
    }
}

fn capitalized(text: &str) -> String {
    text[..1].to_uppercase() + &text[1..]
}

/// Returns a text in which no character has a meaning for man(7).
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

/// Returns the text in lines of one sentence or less, with bold text in the place of back quotes.
fn marked(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut marked = String::new();
    for (index, part) in escaped(&words).split('`').enumerate() {
        let font = if index % 2 == 1 { "\\fB" } else { "\\fR" };
        let _ = write!(marked, "{}{part}", if index == 0 { "" } else { font });
    }
    marked.replace(". ", ".\n")
}

fn xray() -> String {
    let mut page = Page::new("xray", 1, "XRAY", "daemon that sends trace segments to AWS X-Ray");
    page.section("SYNOPSIS");
    page.0.push_str(".B xray\n[\\fIFLAGS\\fR] [\\fISUBCOMMAND\\fR [\\fIFLAGS\\fR]]\n");
    page.section("DESCRIPTION");
    page.paragraph(
        "Receives trace segments over UDP and sends them to AWS X-Ray. It replaces the AWS X-Ray \
         daemon, with the same flags, the same file `cfg.yaml` and the same ports. Its TCP port \
         answers `GET /health`, `/ready` and `/metrics`, and signs the calls with which SDKs get \
         their sampling rules.",
    );
    page.paragraph(
        "A flag has one dash or two. Its value follows after a space or `=`; a boolean takes a \
         value only after `=`. Flags win over the file, and the file over the environment. The \
         first word without a dash ends the flags. The daemon ignores a word that is not a \
         subcommand, and logs a warning.",
    );
    page.section("OPTIONS");
    page.flags(&daemon_flags());
    page.section("SUBCOMMANDS");
    page.paragraph("The flags of the daemon may stand before or after the name.");
    for row in SUBCOMMANDS {
        let Subcommand { name, arguments, summary, about, .. } = row;
        let _ = writeln!(page.0, ".SS {} {}", escaped(name), escaped(arguments));
        page.paragraph(&format!("{}. {about}", capitalized(summary)));
        page.flags(row.flags);
        let of_daemon = daemon_flags_of(row);
        let names: Vec<_> = of_daemon.iter().map(|flag| format!("`{}`", flag.names)).collect();
        if !names.is_empty() {
            page.paragraph(&format!("Flags of the daemon that matter here: {}.", names.join("; ")));
        }
        let codes: Vec<_> =
            (0..).zip(row.exit_codes).map(|(code, it): (u8, _)| format!("{code}: {it}")).collect();
        page.paragraph(&format!("Exit status {}.", codes.join("; ")));
        page.example(row.examples);
    }
    page.section("\"EXIT STATUS\"");
    page.entry("0", "A signal has ended the daemon, or a subcommand has succeeded.");
    page.entry(
        "1",
        "The daemon cannot start, a part of it has failed, or a subcommand has failed.",
    );
    page.entry("2", "The command line is wrong.");
    page.section("SIGNALS");
    page.entry("SIGTERM, SIGINT", "End the daemon, after it has sent what it holds.");
    page.entry("SIGHUP", "Reopens the log file.");
    page.section("ENVIRONMENT");
    for (names, purpose) in VARIABLES {
        page.entry(&format!("\\fB{}\\fR", escaped(names)), &format!("{purpose}."));
    }
    page.section("FILES");
    for (names, purpose) in FILES {
        page.entry(&format!("\\fI{}\\fR", escaped(names)), &format!("{purpose}."));
    }
    page.section("\"SEE ALSO\"");
    page.0.push_str(".BR cfg.yaml (5)\n");
    page.paragraph("The documents in `/usr/share/doc/xrayd`.");
    page.0
}

fn cfg_yaml() -> String {
    let purpose = "configuration of the X-Ray daemon xray";
    let mut page = Page::new("cfg.yaml", 5, "CFG.YAML", purpose);
    page.section("DESCRIPTION");
    page.paragraph(
        "The daemon reads the file that `-c` names, else `/etc/amazon/xray/cfg.yaml`, else \
         `cfg.yaml` in the working directory. A key with a dot is a key in a section: \
         `Socket.UDPAddress` is the key `UDPAddress` in the section `Socket`. An empty key or \
         section has the default. In a file that `-c` names, an unknown key is an error, and \
         `Version` is required; elsewhere an unknown key is a warning.",
    );
    page.paragraph("`xray config` prints the value of each key and its source.");
    page.section("KEYS");
    page.entry("\\fBVersion\\fR", "Version of the format. Values: 1 or 2.");
    let defaults = Config::default();
    for setting in SETTINGS {
        page.entry(&format!("\\fB{}\\fR", escaped(setting.key)), &setting.about());
        let (values, default) = (setting.values(), setting.show(&defaults));
        let flag = setting.flag.map(|flag| format!(" Flag: `{}`.", flag.names));
        let text = format!("Values: {values}. Default: {default}.{}", flag.unwrap_or_default());
        let _ = writeln!(page.0, ".IP\n{}", marked(&text));
    }
    page.section("EXAMPLE");
    let lines = "Version: 2\nRegion: eu\\-west\\-1\nTotalBufferSizeMB: 64\nSocket:\n  \
                 UDPAddress: 0.0.0.0:2000\nSpool: {Path: /var/lib/xray/spool}";
    let _ = writeln!(page.0, ".PP\n.RS 4\n.nf\n{lines}\n.fi\n.RE");
    page.section("\"SEE ALSO\"");
    page.0.push_str(".BR xray (1)\n");
    page.0
}

#[test]
fn the_manual_pages_are_what_the_tables_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man");
    for (name, page) in [("xray.1", xray()), ("cfg.yaml.5", cfg_yaml())] {
        let path = folder.join(name);
        if std::env::var_os("XRAY_WRITE_MAN").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &page).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        let advice = "run XRAY_WRITE_MAN=1 cargo test -p xrayd --lib config::cli::man";
        assert!(found == page, "docs/man/{name} is old: {advice}");
    }
}
