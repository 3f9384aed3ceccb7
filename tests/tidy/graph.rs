//! Finds out which file of `src` uses which other file.
//!
//! In: the code of every file, without its tests. Out: for each file the modules that its paths
//! lead to: `crate::a::b::Name` and `super::b::Name` lead to the file of `b`, and a `pub use` leads
//! on to the file that has the name. A use between `ring/mod.rs` and a file below `ring` does not
//! count: they are one module.

use crate::source::{Source, is_punct};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The path of a module from the root of the crate: `["pipeline", "ring"]`.
pub type Module = Vec<String>;

/// The modules of `src`, and which modules they use.
pub struct Graph {
    /// For each module with a file of its own: the modules that it uses.
    pub uses: BTreeMap<Module, BTreeSet<Module>>,
}

/// Returns the module of the file at `path`.
pub fn module(path: &Path) -> Module {
    let parts = path.iter().skip(1).map(|part| part.to_str().expect("text"));
    let mut module: Module = parts.map(|part| part.trim_end_matches(".rs").to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

impl Graph {
    /// Returns the graph of these files of `src`, without tests, `main.rs` and `lib.rs`.
    pub fn of(sources: &[Source]) -> Self {
        let production = sources.iter().filter(|source| !source.is_test());
        let is_root =
            |module: &Module| matches!(module[..], [ref it] if it == "main" || it == "lib");
        let files: BTreeMap<Module, &Source> = production
            .map(|source| (module(&source.path), source))
            .filter(|(module, _)| !is_root(module))
            .collect();
        let handed_on = files.iter().map(|(module, source)| (module, handed_on(source.code())));
        let handed_on: BTreeMap<&Module, BTreeMap<String, Module>> = handed_on.collect();
        let uses = files.iter().map(|(module, source)| {
            let paths = paths(&source.code(), module);
            let used = paths.into_iter().filter_map(|path| resolve(&path, &files, &handed_on));
            let is_apart = |used: &Module| !used.starts_with(module) && !module.starts_with(used);
            (module.clone(), used.filter(is_apart).collect())
        });
        Self { uses: uses.collect() }
    }

    /// Returns which module uses which, with the path of each module cut to `depth` names. With
    /// depth 1 these are the uses between rooms. Uses inside one module of that depth are left out.
    pub fn arrows(&self, depth: usize) -> BTreeSet<(Module, Module)> {
        let cut = |module: &Module| module[..module.len().min(depth)].to_vec();
        let all =
            self.uses.iter().flat_map(|(module, used)| used.iter().map(move |it| (module, it)));
        let arrows = all.map(|(module, used)| (cut(module), cut(used)));
        arrows.filter(|(from, to)| !from.starts_with(to) && !to.starts_with(from)).collect()
    }

    /// Returns the groups of files that use each other in a circle.
    pub fn circles(&self) -> BTreeSet<BTreeSet<Module>> {
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.uses.keys().map(|module| (module, self.reached(module))).collect();
        let together = |module: &Module| -> BTreeSet<Module> {
            let others = reached[module].iter().filter(|it| reached[**it].contains(module));
            others.map(|&it| it.clone()).collect()
        };
        self.uses.keys().map(together).filter(|circle| circle.len() > 1).collect()
    }

    /// Returns all modules that a module uses, directly or through other modules.
    fn reached(&self, module: &Module) -> BTreeSet<&Module> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&Module> = self.uses[module].iter().collect();
        while let Some(used) = next.pop() {
            if reached.insert(used) {
                next.extend(self.uses.get(used).into_iter().flatten());
            }
        }
        reached
    }
}

/// Returns the module of the file that has the item at `path`, or `None` if no file has it.
fn resolve(
    path: &[String],
    files: &BTreeMap<Module, &Source>,
    handed_on: &BTreeMap<&Module, BTreeMap<String, Module>>,
) -> Option<Module> {
    let length = (1..=path.len()).rev().find(|&length| files.contains_key(&path[..length]))?;
    let found = path[..length].to_vec();
    let name = path.get(length);
    let behind = name.and_then(|name| handed_on.get(&found)?.get(name));
    let behind = behind.map(|child| found.iter().chain(child).cloned().collect::<Module>());
    Some(behind.filter(|it| files.contains_key(it)).unwrap_or(found))
}

/// Returns the names that `pub use child::Name` exports, each with the module `child`.
fn handed_on(code: TokenStream) -> BTreeMap<String, Module> {
    let tokens: Vec<TokenTree> = code.into_iter().collect();
    let is_word = |index: usize, word: &str| matches!(tokens.get(index), Some(TokenTree::Ident(it)) if it == word);
    let mut names = BTreeMap::new();
    for index in 0..tokens.len() {
        let is_scope = matches!(tokens.get(index + 1), Some(TokenTree::Group(_)));
        let at = index + 1 + usize::from(is_scope);
        if is_word(index, "pub") && is_word(at, "use") {
            for mut path in tree(&tokens[at + 1..], &[]) {
                if let Some(name) = path.pop() {
                    names.insert(name, path);
                }
            }
        }
    }
    names
}

/// Returns the paths in the code of `module` that begin with `crate::` or `super::`.
pub fn paths(code: &TokenStream, module: &[String]) -> Vec<Module> {
    let tokens: Vec<TokenTree> = code.clone().into_iter().collect();
    let word = |index: usize| match tokens.get(index) {
        Some(TokenTree::Ident(word)) => word.to_string(),
        _ => String::new(),
    };
    let is_path = |index: usize| is_path(&tokens[index.min(tokens.len())..]);
    let mut found = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        match word(index).as_str() {
            "crate" => {
                assert!(word(index + 1) != "as", "`crate as` hides what is used");
                if is_path(index + 1) {
                    found.extend(tree(&tokens[index + 3..], &[]));
                }
            }
            "super" if is_path(index + 1) => {
                let mut level = 1;
                while word(index + 3) == "super" && is_path(index + 4) {
                    (level, index) = (level + 1, index + 3);
                }
                let above = &module[..module.len().saturating_sub(level)];
                found.extend(tree(&tokens[index + 3..], above));
            }
            "mod" => {
                if let Some(TokenTree::Group(body)) = tokens.get(index + 2) {
                    let inner: Module = module.iter().cloned().chain([word(index + 1)]).collect();
                    found.extend(paths(&body.stream(), &inner));
                    index += 2;
                }
            }
            _ => {
                if let TokenTree::Group(group) = &tokens[index] {
                    found.extend(paths(&group.stream(), module));
                }
            }
        }
        index += 1;
    }
    found
}

/// Returns the paths in a tree of names, such as `{a::B, c::{D, E}}` after `use crate::`. There is
/// one path for each name at the end of a branch.
fn tree(tokens: &[TokenTree], above: &[String]) -> Vec<Module> {
    match tokens.first() {
        Some(TokenTree::Ident(name)) => {
            let mut path = above.to_vec();
            if name != "self" {
                path.push(name.to_string());
            }
            match is_path(&tokens[1..]) {
                true => tree(&tokens[3..], &path),
                false => vec![path],
            }
        }
        Some(TokenTree::Group(list)) if list.delimiter() == Delimiter::Brace => {
            let list: Vec<TokenTree> = list.stream().into_iter().collect();
            let entries = list.split(|token| is_punct(token, ','));
            entries.filter(|it| !it.is_empty()).flat_map(|entry| tree(entry, above)).collect()
        }
        // A path with arguments, such as `crate::a::<B>`.
        Some(token) if is_punct(token, '<') => vec![above.to_vec()],
        other => panic!("{other:?} behind the name of a module hides what is used"),
    }
}

fn is_path(tokens: &[TokenTree]) -> bool {
    tokens.get(..2).is_some_and(|pair| pair.iter().all(|token| is_punct(token, ':')))
}
