//! Compares the configuration with answers that were recorded from the original daemon.
//!
//! `tests/peer/run` has recorded the answers. A line is a case: its place and class, where the file
//! is, the flags, the file, and the answers. The first answer is that of the original daemon. The
//! last one is that of xrayd, and is another one only where docs/compatibility.md says so.

use super::*;
use serde_json::{Map, Value};

/// Place, class, `given` (by `-c`) or `found`, flags, file, answers.
type Case = (String, String, String, Vec<String>, Option<String>, Vec<Value>);

/// The settings that are compared, with their default in the cases.
const DEFAULTS: [(&str, &str); 9] = [
    ("TotalBufferSizeMB", "0"),
    ("Concurrency", "8"),
    ("Region", "env-1"),
    ("Endpoint", ""),
    ("ResourceARN", ""),
    ("ProxyAddress", ""),
    ("LocalMode", "false"),
    ("RoleARN", ""),
    ("NoVerifySSL", "false"),
];

/// Texts of `xray config` for a setting without a value.
const ABSENT: [&str; 3] = ["(none)", "(the region's own)", "(looked for at the start)"];

#[test]
fn the_configuration_is_read_as_recorded_from_the_original_daemon() {
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peer/recorded/config.jsonl");
    let recorded = std::fs::read_to_string(recorded).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cfg.yaml");
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in recorded.lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let mut expected = case.5.last().unwrap().clone();
        if let Some(values) = expected.as_object_mut() {
            // The ports are opened after the configuration is read.
            values.retain(|name, _| name != "UDP" && name != "TCP");
        }
        let answer = answer(&case, &path);
        if answer != expected {
            wrong.push(format!("{case:?}: {answer}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 5_000, "{count}");
}

/// Returns the answer of xrayd: how it ends, or the settings that are not the defaults.
fn answer((place, _, way, flags, file, _): &Case, path: &Path) -> Value {
    if let Some(text) = file {
        std::fs::write(path, text).unwrap();
    }
    let asks_level = place.contains("-l") || place.contains("LogLevel");
    let mut words = Vec::new();
    if !asks_level {
        words.extend(["-l".to_owned(), "debug".to_owned()]);
    }
    let is_found = way == "found";
    if file.is_some() && !is_found {
        words.extend(["-c".to_owned(), path.display().to_string()]);
    }
    words.extend(flags.iter().cloned());
    let Ok(invocation) = cli::parse(words) else { return "usage".into() };
    if matches!(invocation.command, cli::Command::Version | cli::Command::Help(_)) {
        return "shown".into();
    }
    let variable = |name: &str| (name == "AWS_REGION").then(|| "env-1".to_owned());
    let found_path: &[&Path] = if file.is_some() && is_found { &[path] } else { &[] };
    let Ok(config) = Config::load(&invocation, &variable, found_path) else {
        return "refused".into();
    };
    let mut values = Map::new();
    if asks_level {
        let level = match config.log_level {
            LogLevel::Dev | LogLevel::Debug => return values.into(),
            LogLevel::Info | LogLevel::Prod => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        };
        values.insert("Logging.LogLevel".to_owned(), level.into());
        return values.into();
    }
    for (key, default) in DEFAULTS {
        let shown = SETTINGS.iter().find(|it| it.key == key).unwrap().show(&config);
        let value = match shown.trim() {
            "0 (see xray limits)" => "0",
            // The default of the original daemon is a fixed number.
            "0 (adaptive)" => "8",
            absent if ABSENT.contains(&absent) => "",
            value => value,
        };
        let is_compared = match key {
            "Endpoint" => !place.contains("NoVerifySSL"),
            "NoVerifySSL" => place.contains("NoVerifySSL"),
            "LocalMode" => place.starts_with("LocalMode") || place.starts_with("-o"),
            "RoleARN" => place.contains("RoleARN") || place.starts_with("-r"),
            _ => true,
        };
        if value != default && is_compared {
            values.insert(key.to_owned(), value.into());
        }
    }
    values.into()
}
