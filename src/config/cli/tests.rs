//! Tests of the parser: command lines, and the settings and commands that they give.

use super::subcommands::SUBCOMMANDS;
use super::*;
use crate::config::SETTINGS;
use proptest::prelude::*;

fn parse_line(line: &str) -> Result<Invocation, UsageError> {
    parse(line.split_whitespace().map(str::to_owned))
}

#[test]
fn flags_have_one_dash_or_two_and_a_value_after_a_space_or_an_equals_sign() {
    for line in ["-b X", "-b=X", "--b X", "--b=X", "-bind X", "--bind=X", "--bind X"] {
        let flags = parse_line(line).unwrap().flags;
        assert_eq!(flags.text("Socket.UDPAddress"), Some("X"), "{line}");
    }
    let line = "-a A -t T -c C -n N -o -m 9 -l L -f F -p P -r R --receiver E -spool-path=s --spool-size-mb 20";
    let values: [(&'static str, Value); 12] = [
        ("Socket.TCPAddress", "T".into()),
        ("Region", "N".into()),
        ("LocalMode", true.into()),
        ("ResourceARN", "A".into()),
        ("TotalBufferSizeMB", 9.into()),
        ("Logging.LogLevel", "L".into()),
        ("Logging.LogPath", "F".into()),
        ("ProxyAddress", "P".into()),
        ("RoleARN", "R".into()),
        ("Receive.Backend", "E".into()),
        ("Spool.Path", "s".into()),
        ("Spool.MaxSizeMB", 20.into()),
    ];
    let expected = Flags { config: Some("C".to_owned()), values: values.into() };
    assert_eq!(parse_line(line).unwrap().flags, expected);
}

#[test]
fn a_value_may_look_like_a_flag_or_be_empty_and_the_last_one_counts() {
    for (line, region) in [("-n -o", "-o"), ("-n=", ""), ("-n a=b -n c=d", "c=d")] {
        assert_eq!(parse_line(line).unwrap().flags.text("Region"), Some(region), "{line}");
    }
}

#[test]
fn a_boolean_takes_its_value_only_after_an_equals_sign() {
    let invocation = parse_line("-o true -b X").unwrap();
    assert_eq!(invocation.flags.values["LocalMode"], true);
    assert_eq!(invocation.flags.text("Socket.UDPAddress"), None);
    assert_eq!(invocation.ignored, ["true", "-b", "X"]);
    for (value, expected) in [("true", true), ("T", true), ("1", true), ("f", false)] {
        let flags = parse_line(&format!("-o={value}")).unwrap().flags;
        assert_eq!(flags.values["LocalMode"], expected);
    }
    assert!(matches!(parse_line("-o=yes"), Err(UsageError::Value { .. })));
}

#[test]
fn parsing_stops_at_two_dashes_and_at_a_single_one() {
    assert_eq!(parse_line("-n x -- -b X").unwrap().ignored, ["-b", "X"]);
    assert_eq!(parse_line("- -b X").unwrap().ignored, ["-", "-b", "X"]);
}

#[test]
fn errors_name_the_flag_and_never_show_a_password() {
    for (line, text) in [
        ("-x", "flag provided but not defined: -x"),
        ("--demo", "flag provided but not defined: -demo"),
        ("--ready", "flag provided but not defined: -ready"),
        ("-n", "flag needs an argument: -n"),
        ("-m x", "invalid value \"x\" for flag -m: it takes a whole number of megabytes"),
        ("-m 3.0", "invalid value \"3.0\" for flag -m"),
        ("-m=", "invalid value \"\" for flag -m"),
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
         --otlp-http H --otlp-grpc=off --sampling service \
         -n N more";
    let invocation = parse_line(line).unwrap();
    assert_eq!(invocation.command, Command::Sandbox);
    assert_eq!(
        invocation.sandbox,
        SandboxFlags {
            demo: true,
            print: false,
            keep: Some("F".to_owned()),
            samples_as_service: true,
            otlp_http: Some("H".to_owned()),
            otlp_grpc: Some("off".to_owned()),
            allowed_hosts: vec!["a".to_owned(), "b".to_owned()],
        }
    );
    assert_eq!(invocation.flags.text("Socket.UDPAddress"), Some("B"));
    assert_eq!(invocation.flags.text("Region"), Some("N"));
    assert_eq!(invocation.ignored, ["more"]);
    assert_eq!(parse_line("sandbox").unwrap().sandbox, SandboxFlags::default());
    assert!(parse_line("sandbox --print").unwrap().sandbox.print);
    assert!(!parse_line("sandbox --sampling=all").unwrap().sandbox.samples_as_service);
    let error = parse_line("sandbox --sampling 100").unwrap_err().to_string();
    assert_eq!(error, "invalid value \"100\" for flag -sampling: it takes all or service");
    assert_eq!(parse_line("-t T tail").unwrap().command, Command::Tail);
    assert_eq!(parse_line("-m 9 limits").unwrap().command, Command::Limits);
    let healthcheck = |line| parse_line(line).unwrap().command;
    assert_eq!(healthcheck("-t T healthcheck"), Command::Healthcheck { ready: false });
    assert_eq!(healthcheck("healthcheck --ready -c C"), Command::Healthcheck { ready: true });
    assert!(parse_line("sandbox --ready").is_err());
    let verify = parse_line("-c C verify --json -n N").unwrap();
    assert_eq!(verify.command, Command::Verify { json: true, unit: false });
    assert_eq!(verify.flags.text("Region"), Some("N"));
    assert!(parse_line("--json").is_err() && parse_line("healthcheck --json").is_err());
    assert_eq!(parse_line("-v sandbox").unwrap().command, Command::Version);
    assert_eq!(parse_line("sandbox -h").unwrap().command, of_topic("sandbox"));
}

#[test]
fn an_empty_value_of_a_flag_of_a_command_counts_as_not_given_or_is_an_error() {
    let line = "sandbox --keep F --keep= --allow-host= --allow-host a";
    let sandbox = parse_line(line).unwrap().sandbox;
    let allowed_hosts = vec!["a".to_owned()];
    assert_eq!(sandbox, SandboxFlags { allowed_hosts, ..SandboxFlags::default() });
    for line in
        ["sandbox --demo=", "sandbox --print=", "healthcheck --ready=", "verify --json=", "-v="]
    {
        let error = parse_line(line).unwrap_err().to_string();
        assert!(error.starts_with("invalid value \"\" for flag -"), "{line}: {error}");
    }
    assert_eq!(parse_line("-h=").unwrap().command, Command::Help(None));
    assert_eq!(parse_line("-c=").unwrap().flags.config.as_deref(), Some(""));
}

#[test]
fn the_usage_names_every_flag_and_subcommand_and_each_page_its_own() {
    let usage = usage();
    for flag in daemon_flags() {
        assert!(usage.contains(&format!(" {}", flag.names)), "{usage}");
    }
    let help = help(None);
    assert!(help.starts_with(&usage) && !help.contains('{'), "{help}");
    for part in ["\nEnvironment:\n", "\nFiles:\n", "\nExamples:\n", "\nDocumentation:\n"] {
        assert!(help.contains(part), "{part} {help}");
    }
    for row in SUBCOMMANDS {
        assert!(usage.contains(&format!("\n  {} ", row.name)), "{} {usage}", row.name);
        let page = super::help(Some(Topic::Subcommand(row.name)));
        let parts = [row.summary, "\nExit codes:\n  0  ", "\nExamples:\n  "];
        let flags = row.flags.iter().map(|flag| flag.names);
        for part in parts.into_iter().chain(flags) {
            assert!(page.contains(part), "{part} {page}");
        }
        let is_narrow = |line: &&str| line.chars().count() <= 110;
        assert_eq!(page.lines().find(|line| !is_narrow(line)), None);
    }
}

fn of_topic(name: &'static str) -> Command {
    Command::Help(Some(Topic::Subcommand(name)))
}

#[test]
fn a_subcommand_is_explained_by_its_flag_for_help_and_by_the_subcommand_help() {
    for row in SUBCOMMANDS.iter().filter(|row| row.name != "help") {
        for line in ["X -h", "X --help", "help X", "-c C X -n N -h", "-c C help X"] {
            let line = line.replace('X', row.name);
            assert_eq!(parse_line(&line).unwrap().command, of_topic(row.name), "{line}");
        }
    }
    assert_eq!(parse_line("verify --json --unit -h").unwrap().command, of_topic("verify"));
    assert_eq!(parse_line("healthcheck --ready -h").unwrap().command, of_topic("healthcheck"));
    assert_eq!(parse_line("help help").unwrap().command, of_topic("help"));
    assert_eq!(parse_line("help").unwrap().command, Command::Help(None));
    assert_eq!(parse_line("help cfg.yaml").unwrap().command, Command::Help(Some(Topic::File)));
    let key = Command::Help(Some(Topic::Key("Spool.Path")));
    assert_eq!(parse_line("help spool.path").unwrap().command, key);
    let error = parse_line("help spool").unwrap_err().to_string();
    assert!(error.starts_with("no help about \"spool\""), "{error}");
}

#[test]
fn every_key_is_explained_with_its_values_and_its_default() {
    let file = help(Some(Topic::File));
    for setting in SETTINGS {
        let text = help(Some(Topic::Key(setting.key)));
        assert!(text.starts_with(&format!("{}\n  ", setting.key)), "{text}");
        for part in ["\n  values:   ", "\n  default:  "] {
            assert!(text.contains(part), "{text}");
        }
        assert!(file.contains(&text) && !text.contains("None"), "{text}");
        assert!(setting.about().ends_with('.') && !setting.about().contains("  "), "{text}");
    }
}

#[test]
fn a_word_that_is_nearly_a_subcommand_is_a_slip_and_other_words_are_not() {
    let slip = |line: &str| parse_line(line).unwrap().slip();
    let said = "\"verfy\" is no subcommand. Did you mean `xray verify`?";
    for line in ["verfy", "-n x verfy --json", "-o=true verfy -h", "-- verfy"] {
        assert_eq!(slip(line).as_deref(), Some(said), "{line}");
    }
    for line in ["", "-o true -b X", "daemon", "verify verfy", "-v verfy", "config verfy"] {
        assert_eq!(slip(line), None, "{line}");
    }
}

#[test]
fn the_flag_for_help_counts_whatever_its_value_and_what_follows() {
    for line in ["-h", "--help=x", "-h=false", "-n x -h -x", "-v -h"] {
        assert_eq!(parse_line(line).unwrap().command, Command::Help(None), "{line}");
    }
    assert!(parse_line("-x -h").is_err());
}

#[test]
fn numbers_are_those_of_go() {
    for (text, number) in [
        ("16", 16),
        ("+16", 16),
        ("-3", -3),
        ("0", 0),
        ("0x1F", 31),
        ("-0X1f", -31),
        ("0b101", 5),
        ("0o17", 15),
        ("017", 15),
        ("1_000", 1000),
        ("0x_10", 16),
        ("0_17", 15),
    ] {
        assert_eq!(integer(text), Some(number), "{text}");
    }
    for text in [
        "",
        "-",
        "+",
        "x",
        "1.0",
        "1e3",
        "0x",
        "08",
        "0b2",
        "1__0",
        "_1",
        "1_",
        "--1",
        "0x-1",
        " 1",
        "0x__1",
        "9223372036854775808",
    ] {
        assert_eq!(integer(text), None, "{text}");
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
