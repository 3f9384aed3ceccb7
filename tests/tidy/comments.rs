//! Every file that a comment names exists.
//!
//! In: the comments of every file of Rust. Out: a failure that names the line and the missing file.
//! A word is the name of a file if it ends with `.rs`, `.md` or `.toml`. Text in backticks is also
//! the name of a file if it is a path and the first part of the path exists. The rule searches for
//! the file in the folder of the comment's file, below its module, in its parent folders and in
//! `src`.

use crate::files::FOLDERS;
use crate::source::{Source, root, sources};
use std::path::{Path, PathBuf};

/// A word in a comment with one of these endings is the name of a file of the repository.
const ENDINGS: &[&str] = &[".rs", ".md", ".toml"];

/// Returns the folders in which a name is searched, if a comment of the file at `path` has it.
fn bases(path: &Path) -> Vec<PathBuf> {
    let mut bases = vec![
        root().join("src"),
        root().join("src/pipeline"),
        root().join("sandbox/src"),
        root().join("otlp/src"),
        root().join(path).with_extension(""),
    ];
    bases.extend(path.ancestors().skip(1).map(|folder| root().join(folder)));
    bases
}

/// Returns the names of files in a line of a comment.
fn names<'a>(line: &'a str, bases: &[PathBuf]) -> Vec<&'a str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let mut names = Vec::new();
    for (index, quoted) in line.split('`').enumerate() {
        // Inside backticks a line number or arguments may follow a name.
        for word in quoted.split(|c| !is_part(c)) {
            let word = word.trim_end_matches('.');
            // Skip absolute paths, URLs and patterns: they name no file of the repository.
            if word.starts_with(['/', '.', '-']) || quoted.contains("://") {
                continue;
            }
            let stem = ENDINGS.iter().find_map(|ending| word.strip_suffix(ending));
            let is_file = stem.is_some_and(|stem| !stem.is_empty());
            let is_path = index % 2 == 1
                && word
                    .split_once('/')
                    .is_some_and(|(first, _)| bases.iter().any(|base| base.join(first).is_dir()));
            if is_file || is_path {
                names.push(word);
            }
        }
    }
    names
}

/// Returns the names of missing files in the comments of a file.
fn missing(source: &Source) -> Vec<String> {
    let bases = bases(&source.path);
    let mut missing = Vec::new();
    for (number, line) in source.comments() {
        let lost = names(line, &bases);
        let lost = lost.iter().filter(|name| !bases.iter().any(|base| base.join(name).exists()));
        missing.extend(lost.map(|name| format!("{}:{number}: {name}", source.path.display())));
    }
    missing
}

#[test]
fn every_file_that_a_comment_names_exists() {
    let sources = FOLDERS.iter().flat_map(|folder| sources(folder));
    let missing: Vec<String> = sources.flat_map(|source| missing(&source)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn a_planted_name_of_no_file_is_seen() {
    let lost = |line: &str| {
        missing(&Source { path: "src/pipeline/ring/entry.rs".into(), text: format!("// {line}\n") })
    };
    for (line, name) in [
        ("as design.md has it", "design.md"),
        ("see `src/sender.rs`.", "src/sender.rs"),
        ("the loop in sender/loop.rs", "sender/loop.rs"),
        ("`tests/models` has all", "tests/models"),
        ("`src/pipeline/ring/tests.rs` and `ring/test.rs:12`", "ring/test.rs"),
    ] {
        assert_eq!(lost(line), [format!("src/pipeline/ring/entry.rs:1: {name}")], "{line}");
    }
    for line in [
        "handover.rs, `src/pipeline/ring/handover.rs`, ring/tally.rs and `tests/model` are there",
        "`tests/model/mutations/run NAME`, `src/pipeline/ring/`, Cargo.toml and README.md too",
        "`application/json`, `/proc/self/x.rs`, `a / b` and https://a.example/x.rs are not ours",
    ] {
        assert_eq!(lost(line), [""; 0], "{line}");
    }
}
