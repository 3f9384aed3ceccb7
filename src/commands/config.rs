//! `xray config`: every setting, its value, and the source of the value.
//!
//! In: the configuration. Out: a table. No setting is a secret; the address of a proxy is shown
//! without user and password.

use crate::config::{Config, SETTINGS, Source};
use std::fmt::Write as _;

/// Returns the table of `xray config`.
pub(super) fn table(config: &Config) -> String {
    let mut table = format!("{:<30}{:<30}{}\n", "setting", "value", "from");
    for setting in SETTINGS {
        let (key, value) = (setting.key, setting.show(config));
        let source = match config.sources.get(key) {
            None => "default".to_owned(),
            Some(Source::File(path)) => path.display().to_string(),
            Some(Source::Flag(names)) => format!("flag {names}"),
            Some(Source::Variable(name)) => format!("variable {name}"),
        };
        let _ = writeln!(table, "{key:<29} {value:<29} {source}");
    }
    for warning in config.warnings.iter().chain(&super::log_fault(config)) {
        let _ = writeln!(table, "warning: {warning}");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::cli;
    use std::path::Path;

    fn load(line: &str, text: &str, variables: &[(&str, &str)]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cfg.yaml");
        std::fs::write(&path, text).unwrap();
        let invocation = cli::parse(line.split_whitespace().map(str::to_owned)).unwrap();
        let environment = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        table(&Config::load(&invocation, &environment, &[Path::new(&path)]).unwrap())
    }

    fn row<'a>(table: &'a str, key: &str) -> Vec<&'a str> {
        let line = table.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap();
        line.split_whitespace().skip(1).collect()
    }

    #[test]
    fn each_value_is_shown_with_where_it_came_from() {
        let text = "Region: of-file\nTotalBufferSizeMB: 7\nReceive: {Pin: off}\n";
        let table = load("-n of-flag -o=false -l warn", text, &[("AWS_ENDPOINT_URL", "http://e")]);
        assert_eq!(row(&table, "Region"), ["of-flag", "flag", "-n,", "--region"]);
        assert_eq!(row(&table, "LocalMode"), ["false", "flag", "-o,", "--local-mode"]);
        assert_eq!(row(&table, "Logging.LogLevel")[..2], ["warn", "flag"]);
        assert_eq!(row(&table, "TotalBufferSizeMB")[0], "7");
        assert!(row(&table, "TotalBufferSizeMB")[1].ends_with("/cfg.yaml"), "{table}");
        assert_eq!(row(&table, "Receive.Pin")[0], "false");
        assert_eq!(row(&table, "Endpoint"), ["http://e", "variable", "AWS_ENDPOINT_URL"]);
        assert_eq!(row(&table, "Concurrency"), ["0", "(adaptive)", "default"]);
        assert_eq!(row(&table, "Spool.Path"), ["(none)", "default"]);
        let table = load("", "ProxyAddress: 'http://u:secret@h'\n", &[("AWS_REGION", "r")]);
        assert_eq!(row(&table, "Region"), ["r", "variable", "AWS_REGION"]);
        assert!(row(&table, "ProxyAddress")[0].contains('h'), "{table}");
        assert!(!table.contains("secret"), "{table}");
    }
}
