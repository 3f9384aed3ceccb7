//! The rules of the code that no compiler checks: one direction, short files, unsafe code where it
//! is said to be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may use beside [`LEAVES`]; a stage knows the stage before it.
const MAY_USE: &[(&str, &[&str])] = &[
    ("receive", &[]),
    ("segment", &[]),
    ("ring", &["segment"]),
    ("batch", &["ring", "segment"]),
    ("upload", &["batch", "identity"]),
    ("intake", &["receive", "ring", "segment"]),
    ("outlet", &["batch", "ring", "upload"]),
    ("identity", &[]),
    ("health", &["receive"]),
    ("metrics", &["health", "receive"]),
    ("local_http", &["health", "metrics"]),
    ("proxy", &["identity", "local_http", "upload"]),
    ("sandbox", &[]),
    ("telemetry", &["identity", "upload"]),
    ("verify", &["cli", "health", "identity", "receive", "upload"]),
    ("cli", &[]),
    ("config", &["cli"]),
];

/// Modules that any other may use. They use each other at most.
const LEAVES: &[&str] = &[
    "account",
    "address",
    "cause",
    "clock",
    "config",
    "endpoint",
    "escape",
    "hash",
    "limits",
    "log",
    "memory",
    "page",
    "panics",
    "spool",
    "status",
    "sync",
    "tail",
    "transport",
];

const LINE_COUNT_MAX: usize = 600;

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("it is text");
                files.push((path.strip_prefix(root).expect("it is below").to_owned(), text));
            }
        }
    }
    assert!(!files.is_empty());
    files
}

/// The module of the top level that a file of `src` belongs to.
fn module(path: &Path) -> String {
    let name = path.components().nth(1).expect("it is below src");
    name.as_os_str().to_str().expect("it is text").trim_end_matches(".rs").to_owned()
}

/// The modules of the top level that a file names.
fn uses(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        let is_name = |character: char| character.is_alphanumeric() || character == '_';
        let name: String = rest.chars().take_while(|&character| is_name(character)).collect();
        assert!(!name.is_empty(), "a list behind `crate::` hides what is used");
        found.insert(name);
    }
    found
}

/// A file without its tests, which may use what they like.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

#[test]
fn data_flows_one_way() {
    for (path, text) in sources("src") {
        let module = module(&path);
        // The assembly knows all, and tests may use what they like.
        let is_test =
            path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
        if ["main", "lib", "daemon"].contains(&module.as_str()) || is_test {
            continue;
        }
        let own = MAY_USE.iter().find(|(name, _)| *name == module).map(|(_, uses)| *uses);
        assert!(own.is_some() || LEAVES.contains(&module.as_str()), "{module} is in no list");
        for used in uses(without_tests(&text)) {
            let allowed = used == module
                || LEAVES.contains(&used.as_str())
                || own.is_some_and(|own| own.contains(&used.as_str()));
            assert!(allowed, "{} uses {used}", path.display());
        }
    }
}

#[test]
fn the_check_of_directions_sees_a_use() {
    let text = "use crate::ring::Parcel;\nlet x = crate::daemon::run();";
    assert_eq!(uses(text), BTreeSet::from(["daemon".to_owned(), "ring".to_owned()]));
}

#[test]
fn files_begin_with_what_they_are_and_can_be_read_in_one_sitting() {
    for folder in [
        "src",
        "benches",
        "tests",
        "fuzz/targets",
        "perf/kit",
        "perf/receive",
        "perf/shared",
        "perf/soak",
    ] {
        for (path, text) in sources(folder) {
            assert!(text.starts_with("//!"), "{} says nothing of itself", path.display());
            let line_count = text.lines().count();
            assert!(line_count <= LINE_COUNT_MAX, "{}: {line_count} lines", path.display());
        }
    }
}

/// Files that may have unsafe code: system calls and vector instructions; in tests what a test
/// can do in no other way.
const MAY_BE_UNSAFE: &[&str] = &[
    "src/escape/avx512.rs",
    "src/escape/x86.rs",
    "src/hash/x86.rs",
    "src/receive/sys",
    "tests/allocations.rs",
    "tests/daemon/denied.rs",
    "tests/daemon/held.rs",
];

/// Whether a file loosens the lint that denies unsafe code, or has some where no lint holds.
fn allows_unsafe(text: &str) -> bool {
    let marks = ["unsafe_code", "unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
    marks.iter().any(|mark| text.contains(mark))
}

#[test]
fn unsafe_code_is_where_it_is_said_to_be() {
    for folder in ["src", "benches", "tests", "fuzz/targets", "perf"] {
        for (path, text) in sources(folder) {
            // This file has the words.
            if path != Path::new("tests/tidy.rs") && allows_unsafe(&text) {
                let is_allowed = MAY_BE_UNSAFE.iter().any(|allowed| path.starts_with(allowed));
                assert!(is_allowed, "{} has unsafe code", path.display());
            }
        }
    }
    for allowed in MAY_BE_UNSAFE {
        let folder = Path::new(allowed).iter().next().expect("it has a folder");
        let files = sources(folder.to_str().expect("it is text"));
        let mut files = files.iter().filter(|(path, _)| path.starts_with(allowed));
        assert!(files.any(|(_, text)| allows_unsafe(text)), "{allowed} has none any more");
    }
}

#[test]
fn the_drawing_in_the_readme_is_the_one_in_the_code() {
    let drawing = |text: &str, prefix: &str| -> Vec<String> {
        let from = text.find("```text").expect("there is a drawing");
        let lines = text[from..].lines().skip(1).take_while(|line| !line.contains("```"));
        lines.map(|line| line.trim_start_matches(prefix).trim_end().to_owned()).collect()
    };
    let code = drawing(include_str!("../src/lib.rs"), "//!");
    let code: Vec<&str> = code.iter().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    assert_eq!(drawing(include_str!("../README.md"), ""), code);
    // Every file that it names is there.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let words = code.iter().flat_map(|line| line.split(|c: char| c.is_whitespace() || c == '│'));
    for word in words.map(|word| word.trim_matches(['(', ')', ':', ','])) {
        let word = word.trim_end_matches("):");
        if word.ends_with(".rs") || word.ends_with('/') {
            let found = [root.join(word), root.join("upload").join(word)];
            assert!(found.iter().any(|path| path.exists()), "{word} is not in src");
        }
    }
}

#[test]
fn every_file_of_the_daemons_tests_is_in_a_list() {
    let lists = [
        include_str!("daemon/mod.rs"),
        include_str!("daemon/by_backend.rs"),
        include_str!("daemon/panics.rs"),
    ];
    let is_listed = |name: &str| lists.iter().any(|list| list.contains(&format!("mod {name};")));
    for (path, _) in sources("tests/daemon") {
        let name = path.file_stem().and_then(|name| name.to_str()).expect("it has a name");
        let is_list = ["mod", "by_backend", "panics"].contains(&name);
        assert!(is_list || is_listed(name), "{name} is in no list");
    }
}
