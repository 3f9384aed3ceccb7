//! The shape of files: each has a header, a bounded length and a bounded width.
//!
//! In: every Rust file, and the README. Out: a failure that names the file and the line.

use crate::source::{Source, root, sources};
use std::path::Path;

/// The maximal length of a file, for the folders that are not in [`SHORTER`].
const LINE_COUNT_MAX: usize = 600;

/// Folders and files with a maximal length that differs from [`LINE_COUNT_MAX`]. If several entries
/// match a path, the last one counts. An entry for a single file is an exception: the file must
/// shrink, and its entry with it.
const SHORTER: &[(&str, usize)] = &[("src", 450)];

/// The maximal width of a line that is a comment. `cargo fmt` bounds the width of code.
const COLUMN_COUNT_MAX: usize = 100;

/// All folders with Rust files.
pub const FOLDERS: &[&str] = &["src", "otlp", "sandbox", "benches", "tests", "fuzz", "perf"];

fn line_count_max(path: &Path) -> usize {
    let is_below = |(place, _): &&(&str, usize)| path.starts_with(place);
    SHORTER.iter().rev().find(is_below).map_or(LINE_COUNT_MAX, |(_, max)| *max)
}

/// Returns the comments of a file that are too wide.
fn wide_comments(source: &Source) -> Vec<String> {
    let wide = source.comments().filter(|(_, line)| line.chars().count() > COLUMN_COUNT_MAX);
    wide.map(|(number, _)| format!("{}:{number}", source.path.display())).collect()
}

#[test]
fn files_have_a_header_and_a_bounded_length() {
    for source in FOLDERS.iter().flat_map(|folder| sources(folder)) {
        let path = source.path.display();
        assert!(source.text.starts_with("//!"), "{path} has no header");
        let (line_count, max) = (source.text.lines().count(), line_count_max(&source.path));
        assert!(line_count <= max, "{path} has {line_count} lines; {max} are allowed");
    }
}

#[test]
fn files_that_may_be_longer_need_it() {
    let src_max = line_count_max(Path::new("src"));
    for (path, max) in SHORTER.iter().filter(|(path, _)| path.ends_with(".rs")) {
        let text = std::fs::read_to_string(root().join(path)).expect("the file is there");
        let line_count = text.lines().count();
        assert!(line_count > src_max, "{path} has {line_count} lines: remove it from the list");
        assert!(line_count + 20 > *max, "{path} has {line_count} lines: lower its {max}");
    }
}

#[test]
fn comments_keep_to_the_width() {
    let sources = FOLDERS.iter().flat_map(|folder| sources(folder));
    let wide: Vec<String> = sources.flat_map(|source| wide_comments(&source)).collect();
    assert!(wide.is_empty(), "wider than {COLUMN_COUNT_MAX} columns: {wide:#?}");
}

#[test]
fn a_planted_wide_comment_is_seen() {
    let text = format!("    // {}\n    // {}é\nlet x = 1;", "x".repeat(94), "x".repeat(92));
    let source = Source { path: "src/x.rs".into(), text };
    assert_eq!(wide_comments(&source), ["src/x.rs:1"]);
}

#[test]
fn the_drawing_in_the_readme_is_the_one_in_the_code() {
    let drawing = |text: &str, prefix: &str| -> Vec<String> {
        let from = text.find("```text").expect("the text has a drawing");
        let lines = text[from..].lines().skip(1).take_while(|line| !line.contains("```"));
        lines.map(|line| line.trim_start_matches(prefix).trim_end().to_owned()).collect()
    };
    let code = drawing(include_str!("../../src/lib.rs"), "//!");
    let code: Vec<&str> = code.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    assert_eq!(drawing(include_str!("../../README.md"), ""), code);
    // Every file that the drawing names exists.
    let bases = [root().join("src"), root().join("src/pipeline")];
    let words = code.iter().flat_map(|line| line.split(|c: char| c.is_whitespace() || c == '│'));
    for word in words.map(|word| word.trim_matches(['(', ')', ':', ','])) {
        let word = word.trim_end_matches("):");
        if word.ends_with(".rs") || word.ends_with('/') {
            let is_there = bases.iter().any(|base| base.join(word).exists());
            assert!(is_there, "{word} is not in src");
        }
    }
}

#[test]
fn every_file_of_the_daemons_tests_is_in_a_list() {
    let lists = [
        include_str!("../daemon/mod.rs"),
        include_str!("../daemon/by_backend.rs"),
        include_str!("../daemon/panics.rs"),
        include_str!("../daemon/syscalls.rs"),
    ];
    let is_listed = |name: &str| lists.iter().any(|list| list.contains(&format!("mod {name};")));
    for source in sources("tests/daemon") {
        let name = source.path.file_stem().and_then(|name| name.to_str()).expect("it has a name");
        let is_list = ["mod", "by_backend", "panics", "syscalls"].contains(&name);
        assert!(is_list || is_listed(name), "{name} is in no list");
    }
}

#[test]
fn no_profile_changes_what_a_panic_does() {
    // `tests/run panics` tests one profile. All profiles unwind only if none has this setting.
    let manifest = include_str!("../../Cargo.toml");
    let setting =
        manifest.lines().find(|line| line.split('=').next().unwrap_or("").trim() == "panic");
    assert_eq!(setting, None, "a panic must unwind in each profile");
}
