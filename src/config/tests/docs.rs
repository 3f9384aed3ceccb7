//! Tests that the documents name every setting, every key and every flag.

use crate::config::file::VERSION;
use crate::config::{Config, SETTINGS, cli};

/// Flag names as the documents write them: "`-b`, `--bind`".
fn quoted(names: &str) -> String {
    let names: Vec<_> = names.split(", ").map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[test]
fn every_setting_has_a_row_with_its_flag_key_and_default() {
    let document = include_str!("../../../docs/configuration.md");
    let defaults = Config::default();
    for setting in SETTINGS {
        let key = format!("`{}`", setting.key);
        let row =
            document.lines().find(|line| line.split('|').nth(2).is_some_and(|it| it.trim() == key));
        let row = row.unwrap_or_else(|| panic!("{key} has no row"));
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let names = setting.flag.map(|flag| quoted(flag.names)).unwrap_or_default();
        assert_eq!(cells[1], names, "{row}");
        let default = setting.show(&defaults);
        let default = default.split(" (").next().unwrap_or_default();
        // If the default is not a fixed value, the document explains it in words.
        let is_fixed = !default.starts_with('(') && !default.is_empty();
        assert_eq!(cells[3].starts_with('`'), is_fixed, "{row}");
        assert!(!is_fixed || cells[3] == format!("`{default}`"), "{row}");
    }
}

#[test]
fn every_flag_is_in_the_document_and_in_the_table_of_compatibility() {
    for document in [
        include_str!("../../../docs/configuration.md"),
        include_str!("../../../docs/compatibility.md"),
    ] {
        for names in cli::flag_names() {
            assert!(document.contains(&quoted(names)), "{names} is missing");
        }
        for key in SETTINGS.iter().map(|setting| setting.key).chain([VERSION]) {
            assert!(document.contains(&format!("`{key}`")), "{key} is missing");
        }
    }
}
