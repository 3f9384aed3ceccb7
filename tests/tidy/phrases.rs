//! Comments and documents use plain English: no phrase of a list of riddles and retired words.
//!
//! In: the comments of Rust, JavaScript, Python, shell, YAML and TOML, the docstrings of Python,
//! and Markdown. Out: a failure that names the file, the line, the phrase and a better wording.
//! Text in backticks and blocks of code in Markdown are not checked.

use crate::source::{Source, files};

/// A phrase that no text may use, and the wording to use instead.
struct Phrase {
    /// The phrase in lower case. It matches whole words only. If it ends with `*`, its last word
    /// may have any ending.
    text: &'static str,
    instead: &'static str,
    place: Place,
}

/// The places where a phrase is not allowed.
#[derive(PartialEq)]
enum Place {
    Anywhere,
    /// The phrase is not allowed at the start of a sentence, except in a question.
    Start,
    /// The phrase is not allowed at the end of a sentence, or before a comma, a colon or a
    /// semicolon.
    End,
}

const fn anywhere(text: &'static str, instead: &'static str) -> Phrase {
    Phrase { text, instead, place: Place::Anywhere }
}

const fn start(text: &'static str, instead: &'static str) -> Phrase {
    Phrase { text, instead, place: Place::Start }
}

const fn end(text: &'static str, instead: &'static str) -> Phrase {
    Phrase { text, instead, place: Place::End }
}

const PHRASES: &[Phrase] = &[
    anywhere("there is nobody to tell", "\"the error is ignored because ...\""),
    anywhere("somebody", "name the program, the caller or the operator"),
    anywhere("anybody", "name the program, the caller or the operator"),
    anywhere("nobody's concern", "\"this is normal and not logged\""),
    anywhere("give way", "\"is evicted\", \"is dropped\" or \"stops\""),
    anywhere("gives way", "\"is evicted\", \"is dropped\" or \"stops\""),
    anywhere("gave way", "\"was evicted\", \"was dropped\" or \"stopped\""),
    anywhere("giving way", "\"evicting\", \"dropping\" or \"stopping\""),
    anywhere("given way", "\"evicted\", \"dropped\" or \"stopped\""),
    anywhere("for want of", "\"because there is no ...\""),
    anywhere("what there is to be seen", "name the metrics, the fields or the lines"),
    anywhere("whoever", "name the program, the caller or the operator"),
    anywhere("to be had", "\"is available\""),
    anywhere("as it came", "\"unchanged\" or \"byte for byte\""),
    anywhere("as they came", "\"unchanged\" or \"byte for byte\""),
    anywhere("sake", "say which effect is wanted, or avoided"),
    end("no more", "\"no longer\""),
    anywhere("is no more", "\"no longer exists\""),
    anywhere("are no more", "\"no longer exist\""),
    start("what", "put a noun first: \"The rest goes ...\", not \"What is left goes ...\""),
    start("who", "put a noun first: \"The caller ...\", not \"Who calls ...\""),
    start("whom", "put a noun first: \"The clients that ...\""),
    anywhere("intake", "\"ingest\""),
    anywhere("outlet*", "\"sender\""),
    anywhere("census", "\"occupancy\""),
    anywhere("gathering", "\"linger\""),
    anywhere("displac*", "\"evict\""),
];

/// The folders and files that must not contain a phrase of the list.
const HELD: &[&str] = &[
    ".ci",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.toml",
    "Dockerfile",
    "README.md",
    "benches",
    "deploy",
    "docs",
    "fuzz",
    "otlp",
    "perf",
    "sandbox",
    "src",
    "tests",
];

/// Prose without line breaks: a comment, a docstring or a paragraph. It is in lower case, with one
/// space between words, and without the text in backticks.
#[derive(Default)]
struct Block {
    text: String,
    /// The byte in `text` at which each line starts, and the number of the line in the file.
    lines: Vec<(usize, usize)>,
    /// Whether the end of the text is inside backticks.
    is_code: bool,
}

impl Block {
    fn add(&mut self, number: usize, line: &str) {
        self.lines.push((self.text.len(), number));
        for word in line.split_whitespace() {
            for c in word.chars() {
                self.is_code ^= c == '`';
                if !self.is_code || c == '`' {
                    self.text.extend(c.to_lowercase());
                }
            }
            self.text.push(' ');
        }
    }

    /// Returns the number of the line that contains the byte at `place`.
    fn line(&self, place: usize) -> usize {
        let line = self.lines.iter().rev().find(|(start, _)| *start <= place);
        line.expect("the first line starts at 0").1
    }

    /// Returns whether a sentence that is not a question starts at the byte `place`. A heading in
    /// Markdown starts with `#`, so it is not a sentence.
    fn is_start_of_statement(&self, place: usize) -> bool {
        let before = self.text[..place].trim_end_matches([' ', '-', '*', '>', '(', '"']);
        let end = self.text[place..].find(['.', '!', '?']).unwrap_or_default();
        (before.is_empty() || before.ends_with(['.', '!', '?']))
            && !self.text[place + end..].starts_with('?')
    }

    /// Returns the places of a phrase, in bytes.
    fn places<'a>(&'a self, phrase: &'a Phrase) -> impl Iterator<Item = usize> + 'a {
        let word = phrase.text.trim_end_matches('*');
        let is_open = phrase.text.ends_with('*');
        let is_letter = |c: char| c.is_alphanumeric() || c == '_';
        self.text.match_indices(word).map(|(place, _)| place).filter(move |&place| {
            let rest = &self.text[place + word.len()..];
            let is_whole = !self.text[..place].ends_with(is_letter)
                && (is_open || !rest.starts_with(is_letter));
            is_whole
                && match phrase.place {
                    Place::Anywhere => true,
                    Place::Start => self.is_start_of_statement(place),
                    Place::End => {
                        let rest = rest.trim_start();
                        rest.is_empty() || rest.starts_with(['.', ',', ';', ':', ')', '!', '?'])
                    }
                }
        })
    }
}

/// Returns whether a line of prose starts a block: a list item, a heading, or a row of a table.
fn starts_block(line: &str) -> bool {
    let line = line.trim_start();
    let is_numbered = line.split_once(". ").is_some_and(|(n, _)| n.parse::<u8>().is_ok());
    is_numbered || ["- ", "* ", "#", "|"].iter().any(|mark| line.starts_with(mark))
}

/// Returns the prose of a file.
fn blocks(source: &Source) -> Vec<Block> {
    let ending = source.path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let signs: &[&str] =
        if matches!(ending, "rs" | "js") { &["//!", "///", "//"] } else { &["#!", "#"] };
    let (mut is_fenced, mut is_docstring) = (false, false);
    let mut blocks = vec![Block::default()];
    for (number, line) in (1..).zip(source.text.lines()) {
        let quote_count = if ending == "py" { line.matches("\"\"\"").count() } else { 0 };
        let is_prose = ending == "md" || is_docstring || quote_count > 0;
        is_docstring ^= quote_count % 2 == 1;
        let mut prose = line.trim_start();
        if !is_prose {
            prose = signs.iter().find_map(|sign| prose.strip_prefix(sign)).unwrap_or_default();
        }
        let is_fence = prose.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        if is_fenced || is_fence || prose.trim().is_empty() || starts_block(prose) {
            blocks.push(Block::default());
        }
        if let (false, Some(block)) = (is_fenced || is_fence, blocks.last_mut()) {
            block.add(number, &prose.replace("\"\"\"", ""));
        }
    }
    blocks
}

/// Returns a text for each phrase of the list in a file: the line, and a better wording.
fn faults(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for block in blocks(source) {
        for phrase in PHRASES {
            faults.extend(block.places(phrase).map(|place| {
                let (path, line) = (source.path.display(), block.line(place));
                format!("{path}:{line}: not \"{}\" but {}", phrase.text, phrase.instead)
            }));
        }
    }
    faults
}

/// Returns the files with prose at or below some places.
fn held(places: &[&str]) -> Vec<Source> {
    const ENDINGS: &[&str] = &["", "js", "md", "py", "rs", "service", "spec", "toml", "yaml"];
    let is_prose = |name: &str| {
        // A name without a dot is the name of a script.
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        ENDINGS.contains(&ending)
    };
    places.iter().flat_map(|place| files(place, is_prose)).collect()
}

#[test]
fn no_text_has_a_phrase_of_the_list() {
    let found: Vec<String> = held(HELD).iter().flat_map(faults).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_planted_phrase_is_seen_in_each_language() {
    let planted = |path: &str, text: &str| {
        let source = Source { path: path.into(), text: text.to_owned() };
        let faults = faults(&source).into_iter();
        let phrase = |fault: String| {
            fault.split_once(": not ").map(|(at, rest)| {
                let phrase = rest.split('"').nth(1).unwrap_or_default();
                format!("{} {phrase}", at.rsplit(':').next().unwrap_or_default())
            })
        };
        faults.filter_map(phrase).collect::<Vec<_>>()
    };
    for (path, text, expected) in [
        ("x.rs", "//! X.\n//!\n//! Y: whoever asks.", "3 whoever"),
        ("x.rs", "    // There is room. Batches give\n    // way then.", "1 give way"),
        ("x.rs", "    // For\n    // want of room.", "1 for want of"),
        ("x.rs", "/// What is left goes first.", "1 what"),
        ("x.rs", "/// It ends. Who asks\n/// again waits.", "1 who"),
        ("x.rs", "/// It runs no\n/// more.\nfn x() {}", "1 no more"),
        ("x.rs", "/// Displaces a batch.", "1 displac*"),
        ("x.js", "// As it came.", "1 as it came"),
        ("x.py", "x = 1\n\"\"\"A title.\n\nWhat is left.\n\"\"\"", "4 what"),
        ("x.py", "# The census.", "1 census"),
        ("x.yaml", "a: b\n  # For its sake.", "2 sake"),
        ("run", "#!/bin/sh\n# The outlets.", "2 outlet*"),
        ("x.md", "# X\n\n- One\n- What is left is sent.", "4 what"),
        ("x.md", "One `what`\nor whoever.", "2 whoever"),
    ] {
        assert_eq!(planted(path, text), [expected], "{text}");
    }
    for (path, text) in [
        ("x.rs", "let x = \"whoever\";"),
        ("x.rs", "// What is left? No more than one, and no more room. `Outlet`."),
        ("x.rs", "// It knows what is left and who asked."),
        ("x.py", "x = 'whoever'"),
        ("x.md", "## What it costs\n\n```text\nwhoever\n```\n"),
    ] {
        assert_eq!(planted(path, text), [""; 0], "{text}");
    }
}
