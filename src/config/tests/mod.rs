//! Tests of the configuration: precedence of flags, file and variables; values out of bounds.

mod docs;
mod peer;

use super::*;
use crate::aws::endpoint::Variant;
use crate::base::log::LogLevel;
use crate::config::cli;
use crate::config::kinds::Form;

fn load(line: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let invocation = cli::parse(line.split_whitespace().map(str::to_owned)).unwrap();
    let environment = |name: &str| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Config::load(&invocation, &environment, &[])
}

#[test]
fn the_defaults_apply_without_flags_file_and_variables() {
    assert_eq!(load("", &[]).unwrap(), Config::default());
}

#[test]
fn flags_win_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cfg.yaml");
    let text = "Version: 2\nRegion: file\nTotalBufferSizeMB: 10\nSocket:\n  UDPAddress: f:1\n";
    std::fs::write(&path, text).unwrap();
    let config = load(&format!("-c {} -n flag -m 20", path.display()), &[]).unwrap();
    assert_eq!(config.region.as_deref(), Some("flag"));
    assert_eq!(config.buffer_size_mb, 20);
    assert_eq!(config.udp_address, "f:1");
    assert_eq!(config.config_path, Some(path));
}

#[test]
fn the_variable_for_xray_beats_the_file_which_beats_the_variable_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cfg.yaml");
    std::fs::write(&path, "Version: 2\nEndpoint: http://file\n").unwrap();
    let with_file = format!("-c {}", path.display());
    let all = ("AWS_ENDPOINT_URL", "http://all");
    let xray = ("AWS_ENDPOINT_URL_XRAY", "http://xray");
    let endpoint = |line: &str, variables: &[(&str, &str)]| {
        load(line, variables).unwrap().endpoint.unwrap_or_default()
    };
    assert_eq!(endpoint(&with_file, &[all, xray]), "http://xray");
    assert_eq!(endpoint(&with_file, &[all]), "http://file");
    assert_eq!(endpoint("", &[all]), "http://all");
    assert_eq!(endpoint("", &[("AWS_ENDPOINT_URL_XRAY", "")]), "");
}

#[test]
fn variables_choose_among_the_endpoints_of_a_region() {
    let variant = |variables: &[(&str, &str)]| load("", variables).unwrap().endpoint_variant;
    let (fips, dual_stack) = ("AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT");
    assert_eq!(variant(&[(fips, "true")]), Variant { fips: true, dual_stack: false });
    assert_eq!(variant(&[(dual_stack, "TRUE")]), Variant { fips: false, dual_stack: true });
    assert_eq!(variant(&[(fips, "false"), (dual_stack, "")]), Variant::default());
    for name in [fips, dual_stack] {
        let error = load("", &[(name, "yes")]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("neither true nor false"), "{error}");
    }
}

#[test]
fn the_proxy_is_the_flags_or_the_files_or_the_variables() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cfg.yaml");
    std::fs::write(&path, "Version: 2\nProxyAddress: http://file:1\n").unwrap();
    let file = format!("-c {}", path.display());
    let upper = ("HTTPS_PROXY", "http://upper:1");
    let lower = ("https_proxy", "lower:1");
    let proxy = |line: &str, variables: &[(&str, &str)]| {
        load(line, variables).unwrap().proxy.map(|proxy| proxy.to_string())
    };
    let some = |address: &str| Some(address.to_owned());
    assert_eq!(proxy(&format!("{file} -p flag:1"), &[upper]), some("http://flag:1"));
    assert_eq!(proxy(&format!("{file} -p="), &[upper]), some("http://file:1"));
    assert_eq!(proxy("", &[lower, upper]), some("http://upper:1"));
    assert_eq!(proxy("", &[("HTTPS_PROXY", "socks5h://u:p@proxy")]), some("socks5h://proxy:1080"));
    assert_eq!(proxy("", &[lower, ("HTTPS_PROXY", " ")]), some("http://lower:1"));
    assert_eq!(proxy("", &[("HTTP_PROXY", "http://other:1")]), None);
    let no_proxy = |variables: &[(&str, &str)]| load("", variables).unwrap().no_proxy;
    assert_eq!(no_proxy(&[("NO_PROXY", "a"), ("no_proxy", "b")]), "a");
    assert_eq!(no_proxy(&[("no_proxy", "b")]), "b");
}

#[test]
fn a_bad_address_of_a_proxy_is_named_by_its_place_and_never_shown() {
    for (line, variables, place) in [
        ("-p ftp://user:hush@proxy:1", &[][..], "flag -p: "),
        ("", &[("HTTPS_PROXY", "socks4://user:hush@proxy:1")], "HTTPS_PROXY cannot be used"),
        ("", &[("https_proxy", "http://user:hu#sh@proxy:1")], "https_proxy cannot be used"),
    ] {
        let error = load(line, variables).unwrap_err();
        for shown in [error.to_string(), format!("{error:?}")] {
            assert!(!shown.contains("hush") && !shown.contains("user:hu"), "{shown}");
        }
        assert!(error.to_string().starts_with(place), "{error}");
    }
    for line in ["-p http://user:hush@proxy:1", "-o true -p http://user:hush@proxy:1"] {
        let config = load(line, &[]).unwrap();
        assert!(!format!("{config:?}").contains("hush"), "{config:?}");
    }
}

/// A file with another value than the default for each setting that has a flag.
const FILE_FOR_FLAGS: &str = "Version: 2\nTotalBufferSizeMB: 7\nRegion: eu-west-1\n\
     Socket: {UDPAddress: \"f:1\", TCPAddress: \"f:2\"}\nProxyAddress: f:3\n\
     ResourceARN: f\nRoleARN: \"arn:aws:iam::123456789012:role/f\"\nLocalMode: true\n\
     Receive: {Backend: recvmmsg}\nSpool: {Path: /f, MaxSizeMB: 17}\n\
     Logging: {LogLevel: error, LogPath: /f}\n";

/// Values of a flag that count as not given.
fn no_values(setting: &Setting) -> &'static [&'static str] {
    match setting.key {
        "ProxyAddress" => &["", " "],
        "Logging.LogLevel" => &["", " ", "loud"],
        _ => &[""],
    }
}

#[test]
fn an_empty_value_of_a_flag_counts_as_not_given_or_is_an_error_and_is_no_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cfg.yaml");
    std::fs::write(&path, FILE_FOR_FLAGS).unwrap();
    let load = |words: &[&str], file: &str| {
        let all = words.iter().copied().chain(["-c", file]).map(str::to_owned);
        cli::parse(all).map(|invocation| {
            let mut config = Config::load(&invocation, &|_| None, &[]).unwrap();
            config.warnings.clear();
            config
        })
    };
    let file = path.to_str().unwrap();
    let without_flag = load(&[], file).unwrap();
    for (setting, flag) in SETTINGS.iter().filter_map(|setting| Some((setting, setting.flag?))) {
        let source = Source::File(path.clone());
        assert_eq!(without_flag.sources.get(setting.key), Some(&source), "{}", setting.key);
        for name in flag.names.split(", ") {
            let empty = format!("{name}=");
            if setting.form != Form::Text {
                let error = load(&[&empty], file).unwrap_err().to_string();
                assert!(error.starts_with("invalid value \"\" for flag -"), "{empty}: {error}");
                continue;
            }
            for value in no_values(setting) {
                let word = format!("{name}={value}");
                assert_eq!(load(&[&word], file).unwrap(), without_flag, "{word}");
                assert_eq!(load(&[name, value], file).unwrap(), without_flag, "{name} {value:?}");
                // The last flag counts, also if it is empty.
                let words = [name, "f:9", &word];
                assert_eq!(load(&words, file).unwrap(), without_flag, "{words:?}");
            }
        }
    }
    assert_eq!(load(&["-c="], "").unwrap(), Config::default());
}

#[test]
fn a_blank_flag_makes_no_error_of_the_file_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cfg.yaml");
    std::fs::write(&path, "Version: 2\nProxyAddress: ftp://f\n").unwrap();
    let words = ["-p", " ", "-c", path.to_str().unwrap()].map(str::to_owned);
    let error = Config::load(&cli::parse(words).unwrap(), &|_| None, &[]).unwrap_err();
    assert!(error.to_string().contains("cfg.yaml cannot be used: ProxyAddress"), "{error}");
}

#[test]
fn sizes_and_levels_out_of_bounds_name_the_flag() {
    for (line, text) in [
        ("-m 1", "-m"),
        ("-m 2", "3 or more"),
        ("--receiver epoll", "--receiver: \"epoll\" is no receive backend"),
        ("--spool-size-mb 5", "--spool-size-mb: 5 is out of bounds; write a number from 16"),
    ] {
        let error = load(line, &[]).unwrap_err().to_string();
        assert!(error.contains(text), "{line}: {error}");
    }
    assert_eq!(load("-m 0 -l DEBUG", &[]).unwrap().log_level, LogLevel::Debug);
}

#[test]
fn a_flag_over_a_bad_value_of_the_file_makes_the_value_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cfg.yaml");
    std::fs::write(&path, "Version: 2\nTotalBufferSizeMB: 2\n").unwrap();
    let file = format!("-c {}", path.display());
    let config = load(&format!("{file} -m 24"), &[]).unwrap();
    assert_eq!(config.buffer_size_mb, 24);
    assert!(config.warnings[0].contains("TotalBufferSizeMB: 2 MB is too little"));
    let error = load(&file, &[]).unwrap_err().to_string();
    assert!(error.contains("TotalBufferSizeMB: 2 MB is too little"), "{error}");
}

#[test]
fn an_unknown_log_level_of_a_flag_leaves_that_of_the_file_with_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cfg.yaml");
    std::fs::write(&path, "Version: 2\nLogging: {LogLevel: error}\n").unwrap();
    let file = format!("-c {}", path.display());
    let config = load(&format!("{file} -l loud"), &[]).unwrap();
    assert_eq!(config.log_level, LogLevel::Error);
    assert!(config.warnings[0].starts_with("flag -l: \"loud\" is no log level"));
    assert_eq!(load(&format!("{file} -l warning"), &[]).unwrap().log_level, LogLevel::Warn);
    assert_eq!(load("-m -5", &[]).unwrap().buffer_size_mb, 0);
}

#[test]
fn an_address_that_is_not_host_and_port_is_an_error_that_names_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cfg.yaml");
    std::fs::write(&path, "Version: 2\nSocket: {TCPAddress: localhost}\n").unwrap();
    let file = format!("-c {}", path.display());
    for (line, place) in [
        ("-t 2000", "flag -t: \"2000\" is not HOST:PORT"),
        ("-b localhost", "flag -b: \"localhost\" is not HOST:PORT"),
        (file.as_str(), "cfg.yaml cannot be used: Socket.TCPAddress: \"localhost\" is not"),
    ] {
        let error = load(line, &[]).unwrap_err().to_string();
        assert!(error.contains(place), "{line}: {error}");
    }
    // Only the address that counts is checked, and names are looked up later.
    let config = load(&format!("{file} -t no-such-name:2000"), &[]).unwrap();
    assert_eq!(config.tcp_address, "no-such-name:2000");
}

#[test]
fn ignored_words_are_a_warning() {
    let warnings = load("-o true -b X", &[]).unwrap().warnings;
    assert_eq!(warnings, ["ignored on the command line: true -b X"]);
}
