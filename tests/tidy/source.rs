//! Reads the files that the rules check: their text, their code without tests, and their comments.
//!
//! In: folders of the repository. Out: text, tokens and comment lines. Bound: the files of the
//! repository; folders that a build or a test fills are left out. Thread: the thread of the test.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that a build or a test fills. They are not part of the repository.
const NOT_OURS: &[&str] = &["target", "node_modules", ".cache", "__pycache__"];

/// A file of the repository.
pub struct Source {
    /// The path relative to the root of the repository.
    pub path: PathBuf,
    pub text: String,
}

/// Returns the root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the Rust files below `folder`.
pub fn sources(folder: &str) -> Vec<Source> {
    files(folder, |name| name.ends_with(".rs"))
}

/// Returns the files at or below `place`, if `is_wanted` returns true for their names.
pub fn files(place: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<Source> {
    let mut paths = vec![root().join(place)];
    let mut files = Vec::new();
    while let Some(path) = paths.pop() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !NOT_OURS.contains(&name) {
                let entries = fs::read_dir(path).expect("the folder can be read");
                paths.extend(entries.map(|entry| entry.expect("the folder can be read").path()));
            }
        } else if is_wanted(name) {
            let text = fs::read_to_string(&path).expect("the file is UTF-8 text");
            let path = path.strip_prefix(root()).expect("the path is below the root").to_owned();
            files.push(Source { path, text });
        }
    }
    assert!(!files.is_empty(), "{place} has no such files");
    files
}

impl Source {
    /// Returns whether the whole file is test code.
    pub fn is_test(&self) -> bool {
        self.path.iter().any(|part| part == "tests" || part == "tests.rs")
    }

    /// Returns the code without comments and without code that is only built for tests.
    pub fn code(&self) -> TokenStream {
        let tokens: TokenStream = self.text.parse().unwrap_or_else(|error| {
            panic!("{} cannot be read: {error}", self.path.display());
        });
        without_tests(tokens)
    }

    /// Returns the lines that are comments, with their numbers.
    pub fn comments(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = (1..).zip(self.text.lines());
        lines.filter(|(_, line)| line.trim_start().starts_with("//"))
    }
}

/// Removes each item, statement or field with `#[cfg(test)]`, at any depth.
fn without_tests(tokens: TokenStream) -> TokenStream {
    let mut rest = tokens.into_iter().peekable();
    let mut kept = Vec::new();
    while let Some(token) = rest.next() {
        let is_mark = is_punct(&token, '#')
            && matches!(rest.peek(), Some(TokenTree::Group(group)) if is_cfg_test(group));
        if is_mark {
            rest.next();
            skip_item(&mut rest);
        } else if let TokenTree::Group(group) = token {
            kept.push(Group::new(group.delimiter(), without_tests(group.stream())).into());
        } else {
            kept.push(token);
        }
    }
    kept.into_iter().collect()
}

fn is_cfg_test(group: &Group) -> bool {
    group.stream().to_string().replace(' ', "") == "cfg(test)"
}

/// Skips an item to its end: a semicolon, a comma, or the braces of a body.
fn skip_item(rest: &mut impl Iterator<Item = TokenTree>) {
    // In `use`, `static` and `let` braces are not a body, and a semicolon follows.
    let mut has_no_body = false;
    for token in rest {
        match token {
            TokenTree::Ident(word) => {
                has_no_body |= word == "use" || word == "static" || word == "let";
            }
            TokenTree::Punct(mark) if matches!(mark.as_char(), ';' | ',') => return,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && !has_no_body => {
                return;
            }
            _ => {}
        }
    }
}

/// Returns whether a token is this punctuation mark.
pub fn is_punct(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

#[test]
fn code_of_tests_is_removed_and_nothing_else() {
    let text = r#"
        #[cfg(test)]
        mod tests;
        use a::kept_one;
        #[cfg(test)]
        use b::{left, out};
        // a comment with b::left
        #[cfg(test)]
        #[derive(Debug)]
        pub struct Left { field: b::left }
        struct Kept { #[cfg(test)] field: left, other: kept_two }
        impl Kept {
            #[cfg(test)]
            fn left(&self) -> [u8; 2] where Self: left { left }
            fn kept_three() { #[cfg(test)] let x = { left }; kept_four() }
        }
        #[cfg(not(test))]
        fn kept_five() {}
        #[cfg(test)]
        mod more { fn left() {} }
        fn kept_six() {}
    "#;
    let source = Source { path: "x.rs".into(), text: text.to_owned() };
    let code = source.code().to_string();
    assert!(!code.to_ascii_lowercase().replace("kept", "").contains("left"), "{code}");
    for kept in ["one", "two", "three", "four", "five", "six"] {
        assert!(code.contains(&format!("kept_{kept}")), "{kept}: {code}");
    }
}
