//! Data flows one way: which module of `src` may use which.
//!
//! In: every file of `src`. Out: a failure that names the file and what it uses. Tests may use what
//! they like, and so may the assembly (`src/main.rs`, `src/lib.rs`, `src/daemon`).

use crate::source::{Source, is_punct, sources};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::path::Path;

/// What each module may use beside [`LEAVES`]: only what stands before it here.
const STAGES: &[(&str, &[&str])] = &[
    ("receive", &[]),
    ("segment", &[]),
    ("ring", &["segment"]),
    ("batch", &["ring", "segment"]),
    ("identity", &[]),
    ("upload", &["batch", "identity"]),
    ("intake", &["receive", "ring", "segment"]),
    ("outlet", &["batch", "ring", "upload"]),
    ("health", &["receive"]),
    ("metrics", &["health", "receive"]),
    ("pages", &["health", "metrics"]),
    ("proxy", &["pages", "upload"]),
    ("telemetry", &["identity", "upload"]),
    ("cli", &[]),
    ("config", &["cli", "receive"]),
    ("verify", &["cli", "config", "health", "identity", "receive", "upload"]),
];

/// Modules that any stage may use. Each may use those before it.
const LEAVES: &[&str] = &[
    "sync",
    "clock",
    "cause",
    "status",
    "address",
    "escape",
    "hash",
    "endpoint",
    "memory",
    "account",
    "panics",
    "log",
    "local_http",
    "spool",
    "limits",
    "page",
    "transport",
    "tail",
];

/// Modules that know all others.
const ASSEMBLY: &[&str] = &["main", "lib", "daemon"];

/// Whether `module` may use `used`; the error says why not.
fn check(module: &str, used: &str) -> Result<(), String> {
    let leaf = |name: &str| LEAVES.iter().position(|leaf| *leaf == name);
    if module == used {
        return Ok(());
    }
    match (leaf(module), leaf(used)) {
        (Some(own), Some(other)) if other < own => Ok(()),
        (Some(_), Some(_)) => Err(format!("the leaf {used} stands behind {module}")),
        (Some(_), None) => Err(format!("the leaf {module} uses {used}, which is no leaf")),
        (None, Some(_)) => Ok(()),
        (None, None) => {
            let stage = STAGES.iter().find(|(name, _)| *name == module);
            let (_, allowed) = stage.ok_or_else(|| format!("{module} is in no list"))?;
            let is_allowed = allowed.contains(&used);
            is_allowed.then_some(()).ok_or_else(|| format!("{module} may not use {used}"))
        }
    }
}

/// The module of the top level that a file of `src` belongs to, and how deep the file lies in it.
fn place(path: &Path) -> (String, usize) {
    let parts: Vec<_> = path.iter().skip(1).map(|part| part.to_str().expect("text")).collect();
    let module = parts[0].trim_end_matches(".rs").to_owned();
    (module, parts.len() - usize::from(parts.last() == Some(&"mod.rs")))
}

/// The modules of the top level that code at this depth of modules names.
fn uses(tokens: TokenStream, depth: usize, found: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_path = |index: usize| {
        tokens.get(index..index + 2).is_some_and(|pair| pair.iter().all(|it| is_punct(it, ':')))
    };
    let is_word = |index: usize, word: &str| matches!(tokens.get(index), Some(TokenTree::Ident(ident)) if ident == word);
    let mut index = 0;
    while index < tokens.len() {
        let mut next = index + 1;
        if is_word(index, "crate") {
            assert!(!is_word(next, "as"), "`crate as` hides what is used");
            if is_path(next) {
                add(tokens.get(next + 2), found);
            }
        } else if is_word(index, "super") {
            let mut level = 1;
            while is_path(next) && is_word(next + 2, "super") {
                (level, next) = (level + 1, next + 3);
            }
            if level == depth && is_path(next) {
                add(tokens.get(next + 2), found);
            }
        } else if is_word(index, "mod")
            && let Some(TokenTree::Group(body)) = tokens.get(index + 2)
            && body.delimiter() == Delimiter::Brace
        {
            uses(body.stream(), depth + 1, found);
            next = index + 3;
        } else if let TokenTree::Group(group) = &tokens[index] {
            uses(group.stream(), depth, found);
        }
        index = next;
    }
}

/// What stands behind a path to the top level: a name, or a list of names.
fn add(target: Option<&TokenTree>, found: &mut BTreeSet<String>) {
    match target {
        Some(TokenTree::Ident(name)) => {
            found.insert(name.to_string());
        }
        Some(TokenTree::Group(list)) => {
            let list: Vec<TokenTree> = list.stream().into_iter().collect();
            for entry in list.split(|token| is_punct(token, ',')).filter(|entry| !entry.is_empty())
            {
                add(entry.first(), found);
            }
        }
        other => panic!("{other:?} behind the name of the crate hides what is used"),
    }
}

/// What a file uses and may not.
fn faults(source: &Source) -> Vec<String> {
    let (module, depth) = place(&source.path);
    let mut found = BTreeSet::new();
    if !source.is_test() && !ASSEMBLY.contains(&module.as_str()) {
        uses(source.code(), depth, &mut found);
    }
    let faults = found.iter().filter_map(|used| check(&module, used).err());
    faults.map(|fault| format!("{}: {fault}", source.path.display())).collect()
}

#[test]
fn data_flows_one_way() {
    let faults: Vec<String> = sources("src").iter().flat_map(faults).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_lists_have_an_order_and_name_what_is_there_and_in_use() {
    for (index, (stage, allowed)) in STAGES.iter().enumerate() {
        for used in *allowed {
            let is_before = STAGES[..index].iter().any(|(name, _)| name == used);
            assert!(is_before, "{stage} may use {used}, which does not stand before it");
        }
    }
    let mut edges = BTreeSet::new();
    let mut modules = BTreeSet::new();
    for source in sources("src") {
        let (module, depth) = place(&source.path);
        if !source.is_test() {
            let mut found = BTreeSet::new();
            uses(source.code(), depth, &mut found);
            edges.extend(found.into_iter().map(|used| (module.clone(), used)));
        }
        modules.insert(module);
    }
    let listed = STAGES.iter().map(|(name, _)| name).chain(LEAVES).chain(ASSEMBLY);
    let listed: BTreeSet<String> = listed.map(|&name| name.to_owned()).collect();
    assert_eq!(listed, modules);
    for (stage, allowed) in STAGES {
        for &used in *allowed {
            let edge = ((*stage).to_owned(), used.to_owned());
            assert!(edges.contains(&edge), "{stage} does not use {used} any more");
        }
    }
}

/// A file of the repository with a line more, before its first `use`.
fn planted(path: &str, line: &str) -> Source {
    let mut source = sources("src").into_iter().find(|it| it.path == Path::new(path)).expect(path);
    let at = source.text.find("\nuse ").expect("it uses something");
    source.text.insert_str(at + 1, &format!("{line}\n"));
    source
}

#[test]
fn a_planted_use_is_seen_wherever_it_stands() {
    for (path, line, used) in [
        // Its tests are named before anything is used.
        ("src/outlet/mod.rs", "use crate::verify::verify;", "verify"),
        ("src/outlet/mod.rs", "use crate::{cause, verify::verify};", "verify"),
        ("src/ring/mod.rs", "use super::outlet::Outlet;", "outlet"),
        ("src/ring/mod.rs", "use super::{batch, sync::Arc};", "batch"),
        ("src/ring/parcel.rs", "use super::super::batch::Batch;", "batch"),
        ("src/ring/parcel.rs", "mod x { fn y() { z(&super::super::super::batch::Z) } }", "batch"),
        ("src/config/mod.rs", "fn x() { info!(\"{}\", crate::daemon::run()) }", "daemon"),
        ("src/proxy/mod.rs", "pub use crate::verify;", "verify"),
        ("src/memory.rs", "use super::account::Account;", "account"),
        ("src/log/mod.rs", "use crate::config::Config;", "config"),
        ("src/cause.rs", "use crate::transport::Transport;", "transport"),
    ] {
        let faults = faults(&planted(path, line));
        assert!(faults.len() == 1 && faults[0].contains(used), "{path}, {line}: {faults:?}");
    }
    for (path, line) in [
        ("src/outlet/mod.rs", "// use crate::verify::verify;"),
        ("src/outlet/mod.rs", "#[cfg(test)]\nuse crate::verify::verify;"),
        ("src/ring/parcel.rs", "use super::handover::Rings;"),
        ("src/ring/mod.rs", "pub(crate) fn x(x: &'static str) -> crate::memory::Pool {}"),
    ] {
        assert_eq!(faults(&planted(path, line)), [""; 0], "{path}, {line}");
    }
}

#[test]
#[should_panic(expected = "hides what is used")]
fn a_use_of_everything_is_refused() {
    faults(&planted("src/ring/mod.rs", "use crate::*;"));
}
