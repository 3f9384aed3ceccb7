//! The table of the subcommands. The parser, the usage text, the page of each subcommand
//! (`xray help NAME`, `xray NAME -h`) and the man page use it. No I/O, no clock.

use super::Command;
use super::flags::{Flag, HEALTHCHECK_FLAGS, SANDBOX_FLAGS, VERIFY_FLAGS};

/// A subcommand: one row of the table.
#[derive(Debug)]
pub(super) struct Subcommand {
    pub name: &'static str,
    pub command: Command,
    /// The words that may follow the name, as in the usage text.
    pub arguments: &'static str,
    /// The purpose of the subcommand, in one line.
    pub summary: &'static str,
    /// The work of the subcommand, in a few sentences.
    pub about: &'static str,
    /// The flags that only this subcommand has.
    pub flags: &'static [Flag],
    /// The short names of those flags of the daemon that matter here.
    pub daemon_flags: &'static str,
    /// The meaning of the exit codes, from 0 on. All subcommands exit with 2 for a wrong flag.
    pub exit_codes: &'static [&'static str],
    /// Command lines, each with what it is for.
    pub examples: &'static [(&'static str, &'static str)],
    /// The document that says more, below `docs/`.
    pub document: &'static str,
}

/// All subcommands, in the order of the usage text.
pub(super) const SUBCOMMANDS: &[Subcommand] = &[
    Subcommand {
        name: "sandbox",
        command: Command::Sandbox,
        arguments: "[flags]",
        summary: "run the daemon and an X-Ray endpoint in one process, without an AWS account",
        about: "Receives segments as the daemon does, signs them, and sends them to an endpoint in \
                the same process, which checks them as the service does. Each trace is shown as a \
                tree on standard output, and as a waterfall on the page of the TCP address. The \
                endpoint answers the API of X-Ray for SDKs and for the AWS CLI (--endpoint-url). It \
                runs until SIGINT or SIGTERM.",
        flags: SANDBOX_FLAGS,
        daemon_flags: "btcm",
        exit_codes: &["a signal has ended it", "a port or the file of --keep cannot be opened"],
        examples: &[
            ("xray sandbox --demo", "look at a few traces on http://127.0.0.1:2000/"),
            ("xray sandbox --keep traces.jsonl", "have the same traces at the next start"),
        ],
        document: "sandbox.md",
    },
    Subcommand {
        name: "tail",
        command: Command::Tail,
        arguments: "",
        summary: "print the traces that the daemon on the TCP address receives; needs Tail: true",
        about: "Follows a running daemon on this host, and prints each trace as a tree when it has \
                had no new document for a moment. Segments may have secrets, so the daemon allows \
                it only with the line Tail: true in its cfg.yaml, and only to programs on its host. \
                It runs until SIGINT, or until the daemon ends.",
        flags: &[],
        daemon_flags: "tc",
        exit_codes: &[
            "the reader has closed the output",
            "the daemon does not answer, does not allow it, or has ended",
        ],
        examples: &[
            ("xray tail", "follow the daemon of this host"),
            ("xray -t 127.0.0.1:3000 tail", "follow the daemon with this TCP address"),
        ],
        document: "configuration.md",
    },
    Subcommand {
        name: "config",
        command: Command::Config,
        arguments: "",
        summary: "print every setting, its value and the source of the value",
        about: "Reads flags, file and variables as the daemon does, and prints the value of each \
                setting with its source: a flag, the file, a variable or the default. Warnings \
                follow. No secret is printed. `xray help KEY` explains a setting.",
        flags: &[],
        daemon_flags: "c",
        exit_codes: &["the configuration is valid", "the daemon would not start with it"],
        examples: &[
            ("xray config", "the settings with the file that the daemon would read"),
            ("xray -c new.yaml config", "check a file before it is used"),
        ],
        document: "configuration.md",
    },
    Subcommand {
        name: "limits",
        command: Command::Limits,
        arguments: "",
        summary: "print how much memory each part of the daemon may use, and what fits into it",
        about: "Derives every limit from -m and this host, as the daemon does at its start: first \
                in words (the burst that fits, and the outage of the service that memory bridges), \
                then as a table.",
        flags: &[],
        daemon_flags: "cm",
        exit_codes: &["the table is printed", "the configuration is not valid"],
        examples: &[
            ("xray limits", "the limits of a daemon on this host"),
            ("xray -m 256 limits", "what 256 MB would bridge"),
        ],
        document: "configuration.md",
    },
    Subcommand {
        name: "healthcheck",
        command: Command::Healthcheck { ready: false },
        arguments: "[--ready]",
        summary: "ask the daemon on the TCP address for its health; exit 0 or 1 within 5 s",
        about: "Asks the running daemon whether all of its threads make progress (GET /health), or \
                with --ready whether it delivers (GET /ready). For health checks of containers \
                without a shell. Use --ready for people only: an outage of the service must not \
                restart a daemon that holds segments.",
        flags: HEALTHCHECK_FLAGS,
        daemon_flags: "tc",
        exit_codes: &["healthy", "not healthy, or no answer within 4.5 s"],
        examples: &[
            ("xray healthcheck", "the command of a container's health check"),
            ("xray healthcheck --ready", "see why segments wait"),
        ],
        document: "operations.md",
    },
    Subcommand {
        name: "verify",
        command: Command::Verify { json: false, unit: false },
        arguments: "[flags]",
        summary: "check whether segments reach the service, step by step; exit 0 or 1",
        about: "Checks configuration, host, region, credentials and the way to the service, sends a \
                segment through the running daemon, and reads it back from the service. Each line \
                is a check with ok, note or FAIL, and what to do. The last line says whether it \
                works, or what to do first. Run it with the same flags, file and variables as the \
                daemon; with --unit it takes those of the service of systemd.",
        flags: VERIFY_FLAGS,
        daemon_flags: "btcnorp",
        exit_codes: &["no check has failed", "a check has failed"],
        examples: &[
            ("sudo xray verify --unit", "check what the service of systemd does"),
            ("xray -n eu-west-1 verify", "check a daemon with this flag"),
            ("xray verify --json", "the result for a program"),
        ],
        document: "configuration.md",
    },
    Subcommand {
        name: "help",
        command: Command::Help(None),
        arguments: "[SUBCOMMAND | KEY]",
        summary: "print this text, or explain a subcommand or a key of cfg.yaml",
        about: "Without a word it prints what -h prints. With the name of a subcommand it prints \
                what SUBCOMMAND -h prints. With a key of cfg.yaml it explains this setting, and with \
                cfg.yaml all of them.",
        flags: &[],
        daemon_flags: "",
        exit_codes: &["the text is printed"],
        examples: &[
            ("xray help verify", "the page of a subcommand"),
            ("xray help Spool.Path", "a key of cfg.yaml"),
            ("xray help cfg.yaml", "all keys"),
        ],
        document: "configuration.md",
    },
];

/// Returns the subcommand with this name.
pub(super) fn find(name: &str) -> Option<&'static Subcommand> {
    SUBCOMMANDS.iter().find(|subcommand| subcommand.name == name)
}

/// The shortest word that counts as the beginning of a subcommand's name.
const BEGINNING_LENGTH_MIN: usize = 4;

/// Returns the subcommand that a misspelt word means: one that differs by one letter, or by two if
/// the name is long, or that begins or ends with the word. Two letters that changed places count as
/// one difference.
pub(super) fn nearest(word: &str) -> Option<&'static str> {
    let word = word.to_lowercase();
    let distance = |name: &str| {
        let is_part = word.len() >= BEGINNING_LENGTH_MIN
            && (name.starts_with(&word) || name.ends_with(&word));
        let distance = strsim::osa_distance(name, &word);
        let distance_max = if name.len() > 4 { 2 } else { 1 };
        (is_part || distance <= distance_max).then_some(distance)
    };
    let near = SUBCOMMANDS.iter().filter_map(|it| Some((distance(it.name)?, it.name)));
    near.min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_means_a_subcommand_and_another_word_does_not() {
        for (word, name) in [
            ("verfy", Some("verify")),
            ("Verify", Some("verify")),
            ("verfiy", Some("verify")),
            ("conf", Some("config")),
            ("configure", None),
            ("limit", Some("limits")),
            ("health", Some("healthcheck")),
            ("healthchek", Some("healthcheck")),
            ("check", Some("healthcheck")),
            ("tial", Some("tail")),
            ("tails", Some("tail")),
            ("hepl", Some("help")),
            ("sandobx", Some("sandbox")),
            ("true", None),
            ("false", None),
            ("start", None),
            ("daemon", None),
            ("run", None),
            ("log", None),
            ("test", None),
            ("", None),
            ("eu-west-1", None),
        ] {
            assert_eq!(nearest(word), name, "{word}");
        }
    }

    #[test]
    fn every_row_is_complete_and_its_examples_are_valid_command_lines() {
        for row in SUBCOMMANDS {
            assert!(!row.examples.is_empty() && !row.exit_codes.is_empty(), "{}", row.name);
            assert!(row.about.ends_with('.') && !row.summary.ends_with('.'), "{}", row.name);
            for (line, _) in row.examples {
                let mut words = line.split_whitespace().map(str::to_owned).peekable();
                words.next_if(|word| word == "sudo");
                assert_eq!(words.next().as_deref(), Some("xray"), "{line}");
                let parsed = super::super::parse(words).unwrap();
                let of_row = std::mem::discriminant(&row.command);
                assert_eq!(std::mem::discriminant(&parsed.command), of_row, "{line}");
                assert!(parsed.ignored.is_empty(), "{line}");
            }
        }
    }
}
