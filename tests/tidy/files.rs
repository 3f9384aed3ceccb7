//! The shape of files: they say what they are, can be read in one sitting, and keep to the width.
//!
//! In: every file of Rust, the README. Out: a failure that names the file and the line.

use crate::source::{Source, root, sources};

const LINE_COUNT_MAX: usize = 600;

/// Columns of a line that is a comment; `cargo fmt` sees to the code.
const COLUMN_COUNT_MAX: usize = 100;

/// All folders of ours with Rust.
pub const FOLDERS: &[&str] = &["src", "sandbox", "benches", "tests", "fuzz", "perf"];

/// The comments of a file that are too wide.
fn wide_comments(source: &Source) -> Vec<String> {
    let wide = source.comments().filter(|(_, line)| line.chars().count() > COLUMN_COUNT_MAX);
    wide.map(|(number, _)| format!("{}:{number}", source.path.display())).collect()
}

#[test]
fn files_begin_with_what_they_are_and_can_be_read_in_one_sitting() {
    for source in FOLDERS.iter().flat_map(|folder| sources(folder)) {
        let path = source.path.display();
        assert!(source.text.starts_with("//!"), "{path} says nothing of itself");
        let line_count = source.text.lines().count();
        assert!(line_count <= LINE_COUNT_MAX, "{path}: {line_count} lines");
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
        let from = text.find("```text").expect("there is a drawing");
        let lines = text[from..].lines().skip(1).take_while(|line| !line.contains("```"));
        lines.map(|line| line.trim_start_matches(prefix).trim_end().to_owned()).collect()
    };
    let code = drawing(include_str!("../../src/lib.rs"), "//!");
    let code: Vec<&str> = code.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    assert_eq!(drawing(include_str!("../../README.md"), ""), code);
    // Every file that it names is there.
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
    ];
    let is_listed = |name: &str| lists.iter().any(|list| list.contains(&format!("mod {name};")));
    for source in sources("tests/daemon") {
        let name = source.path.file_stem().and_then(|name| name.to_str()).expect("it has a name");
        let is_list = ["mod", "by_backend", "panics"].contains(&name);
        assert!(is_list || is_listed(name), "{name} is in no list");
    }
}
