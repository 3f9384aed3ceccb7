//! Forbids certain calls, and unsafe code outside of the listed files.
//!
//! In: the code of every file. Out: a failure that names the file and the call. A listed file
//! without unsafe code is a failure too.

use crate::source::{Source, sources};
use proc_macro2::{TokenStream, TokenTree};

/// Calls that the daemon must not make. The second text says why, or what to do instead.
const FORBIDDEN: &[(&str, &str)] = &[
    // Calls that create a thread. The first two panic if the system creates none, so the daemon
    // creates its threads at the start.
    ("spawn_blocking", "make the thread at the start"),
    ("thread :: spawn (", "make it with a Builder, which returns the error"),
    ("tokio :: fs ::", "it makes a thread for each call"),
    ("lookup_host", "it makes a thread for each call"),
    ("GaiResolver", "it makes a thread for each call"),
    ("HttpConnector :: new (", "it resolves names with GaiResolver"),
    // These macros panic if the output is closed or full.
    ("print !", "write, and decide what an error means"),
    ("println !", "write, and decide what an error means"),
    ("eprint !", "write, and decide what an error means"),
    ("eprintln !", "write, and decide what an error means"),
    ("dbg !", "it is for trials"),
];

/// Calls to the clock and to the disk that the rooms of [`BEHIND_SEAMS`] must not make. These rooms
/// use a `Clock` and a `Disk`, which tests replace by simulated ones.
const SEAMS: &[(&str, &str)] = &[
    ("Instant :: now", "ask Clock::instant"),
    ("SystemTime :: now", "ask Clock::host_date"),
    // A method of Instant and of SystemTime, which asks the clock of the system.
    (". elapsed (", "subtract from Clock::instant"),
    ("std :: fs", "ask the Disk of the spool"),
    ("std :: os :: unix :: fs", "ask the Disk of the spool"),
    ("rustix :: fs", "ask the Disk of the spool"),
];

/// The only file of these rooms that may call the file system: it contains the real `Disk`.
const DISK: &str = "src/pipeline/spool/disk.rs";

/// The rooms in which the calls of [`SEAMS`] are forbidden.
const BEHIND_SEAMS: &[&str] = &["src/pipeline", "src/aws"];

/// Adds the words and signs of code to `text`, with a space after each. `_` stands for a literal.
fn words(tokens: TokenStream, text: &mut String) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                text.push_str("( ");
                words(group.stream(), text);
                text.push_str(") ");
            }
            TokenTree::Literal(_) => text.push_str("_ "),
            // Two tokens `:` become one `::`.
            TokenTree::Punct(sign) if sign.as_char() == ':' && text.ends_with(" : ") => {
                text.truncate(text.len() - 2);
                text.push_str(":: ");
            }
            other => {
                text.push_str(&other.to_string());
                text.push(' ');
            }
        }
    }
}

/// Returns the forbidden calls in a file, with the second text of each.
fn calls(source: &Source) -> Vec<(&'static str, &'static str)> {
    let mut text = String::from(" ");
    if !source.is_test() {
        words(source.code(), &mut text);
    }
    let is_made = |call: &str| text.contains(&format!(" {call} "));
    let is_behind = BEHIND_SEAMS.iter().any(|room| source.path.starts_with(room));
    let is_disk = source.path.starts_with(DISK);
    let is_allowed = |call: &str| is_disk && call.ends_with(":: fs");
    let seams = SEAMS.iter().filter(|(call, _)| is_behind && !is_allowed(call));
    FORBIDDEN.iter().chain(seams).filter(|(call, _)| is_made(call)).copied().collect()
}

#[test]
fn no_file_makes_a_call_that_is_forbidden() {
    for source in ["src", "otlp", "sandbox"].into_iter().flat_map(sources) {
        assert_eq!(calls(&source), [], "{}", source.path.display());
    }
}

#[test]
fn a_planted_call_is_seen_wherever_it_stands() {
    let planted = |text: &str| {
        let text = format!("#[cfg(test)]\nmod tests;\nfn x() {{\n{text}\n}}");
        let calls = calls(&Source { path: "src/pipeline/x.rs".into(), text });
        calls.into_iter().map(|(call, _)| call).collect::<Vec<_>>()
    };
    for (text, call) in [
        ("tokio::task::spawn_blocking(|| 1);", "spawn_blocking"),
        ("select! { x = runtime.spawn_blocking(y) => {} }", "spawn_blocking"),
        ("std::thread::spawn(|| 1)", "thread :: spawn ("),
        ("println!(\"x\");", "println !"),
        ("std::eprintln!()", "eprintln !"),
        ("HttpConnector::new()", "HttpConnector :: new ("),
        ("let now = std::time::Instant::now();", "Instant :: now"),
        ("ages.map_or_else(SystemTime::now, f)", "SystemTime :: now"),
        ("if start.elapsed() > second {}", ". elapsed ("),
        ("std::fs::read(path)", "std :: fs"),
        ("use std::os::unix::fs::FileExt;", "std :: os :: unix :: fs"),
        ("use rustix::fs::{openat, statat};", "rustix :: fs"),
    ] {
        assert_eq!(planted(text), [call], "{text}");
    }
    for text in [
        "// println!()",
        "info!(\"println!\")",
        "HttpConnector::new_with_resolver(x)",
        "SharedHttpConnector::new(x)",
        "#[cfg(test)] println!();",
    ] {
        assert_eq!(planted(text), [""; 0], "{text}");
    }
}

#[test]
fn the_disk_of_the_spool_may_ask_the_file_system_and_nothing_else() {
    let text = "use rustix::fs::openat; use std::fs::File; use std::os::unix::fs::FileExt;";
    let source = |text: &str| Source { path: DISK.into(), text: text.to_owned() };
    assert_eq!(calls(&source(text)), []);
    assert_eq!(calls(&source("Instant::now()")).len(), 1);
}

/// Files and folders that may have unsafe code. In `src` it makes system calls, uses vector
/// instructions, and removes variables. In `perf` it makes system calls. In tests it does what safe
/// code cannot do.
const MAY_BE_UNSAFE: &[&str] = &[
    "perf/kit/src/confine/listener.rs",
    "src/base/aborts.rs",
    "src/main.rs",
    "src/pipeline/batch/escape/x86.rs",
    "src/pipeline/batch/hash/x86.rs",
    "src/pipeline/receive/sys",
    "tests/allocations.rs",
    "tests/daemon/denied.rs",
    "tests/daemon/held.rs",
];

/// Returns whether a file has unsafe code, or changes the lint that denies it.
fn allows_unsafe(source: &Source) -> bool {
    let mut text = String::from(" ");
    words(source.text.parse().expect("it is Rust"), &mut text);
    // The spaces exclude longer names, such as other lints.
    [" unsafe ", " unsafe_code "].iter().any(|mark| text.contains(mark))
}

#[test]
fn unsafe_code_is_where_it_is_said_to_be() {
    let folders = ["src", "otlp", "sandbox", "benches", "tests", "fuzz/targets", "perf"];
    let sources: Vec<Source> = folders.into_iter().flat_map(sources).collect();
    let is_below = |source: &Source, allowed: &str| source.path.starts_with(allowed);
    for source in sources.iter().filter(|source| allows_unsafe(source)) {
        let is_allowed = MAY_BE_UNSAFE.iter().any(|allowed| is_below(source, allowed));
        assert!(is_allowed, "{} has unsafe code", source.path.display());
    }
    for allowed in MAY_BE_UNSAFE {
        let mut files = sources.iter().filter(|source| is_below(source, allowed));
        assert!(files.any(allows_unsafe), "{allowed} has none any more");
    }
}

#[test]
fn planted_unsafe_code_is_seen() {
    for (text, expected) in [
        ("fn x() { unsafe { y() } }", true),
        ("#![allow(unsafe_code)]", true),
        ("unsafe extern \"C\" {}", true),
        ("// unsafe { }", false),
        ("fn unsafe_x() { f(\"unsafe { }\") }", false),
    ] {
        let source = Source { path: "src/x.rs".into(), text: text.to_owned() };
        assert_eq!(allows_unsafe(&source), expected, "{text}");
    }
}
