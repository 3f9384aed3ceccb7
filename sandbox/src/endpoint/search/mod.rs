//! Decides what a text in the search box of the page means, and searches for words.
//!
//! In: the text. Out: a [`Query`]: an expression, words, or an expression with an error. A text
//! that is a good filter expression is one. A text that begins like one, but is not complete or has
//! an error, is a broken one: the page then says what is wrong. Every other text is words. All
//! words must be in the trace, in upper or lower case. Bound: that of the expression, and
//! [`WORD_COUNT_MAX`] words. No I/O, no clock.

use super::filter::{Error, Expression, keywords};
use super::summary::Summary;
use crate::model::document::{WordKind, number_of};
use memchr::memchr2_iter;
use serde::Serialize;

/// Largest number of words in a search. Further words are ignored.
const WORD_COUNT_MAX: usize = 32;

/// Shortest text that is searched for in the ids of traces. A shorter one is in many ids by chance.
const ID_PART_LENGTH_MIN: usize = 6;

/// Longest text before a found word, in characters. It is short, so that the word is seen in a
/// narrow row.
const BEFORE_LENGTH_MAX: usize = 24;

/// Longest text after a found word, in characters.
const AFTER_LENGTH_MAX: usize = 60;

/// The meaning of a text in the search box.
#[derive(Debug, PartialEq)]
pub enum Query {
    /// No text.
    Nothing,
    /// A filter expression.
    Expression(Expression),
    /// A text that begins like a filter expression, and what is wrong with it.
    Broken(Error),
    /// Words. The keyword is one of the language that the text is the beginning of, or is. The text
    /// may become an expression.
    Words(Vec<Word>, Option<&'static str>),
}

/// A word, or a phrase in quotation marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    text: String,
    lower: String,
}

/// The place in a trace where a word was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Hit {
    /// Kind of the text around the word: `name`, `sql`, `exception` and so on.
    pub kind: &'static str,
    /// The text before the word.
    pub before: String,
    /// The word, as it is in the trace.
    pub word: String,
    /// The text after the word.
    pub after: String,
}

impl Query {
    /// Finds the meaning of a text.
    pub fn of(text: &str) -> Self {
        if text.trim().is_empty() {
            return Self::Nothing;
        }
        match Expression::parse(text) {
            Ok(expression) => Self::Expression(expression),
            Err(error) if begins_like_an_expression(text) => Self::Broken(error),
            Err(_) => {
                let lower = text.trim().to_ascii_lowercase();
                let keyword = keywords().find(|keyword| keyword.starts_with(&lower));
                Self::Words(words(text), keyword)
            }
        }
    }
}

/// Returns whether a text that is not a filter expression begins like one: with a keyword, and with
/// something that only an expression has.
fn begins_like_an_expression(text: &str) -> bool {
    let is_of_a_word = |character: char| character.is_alphanumeric() || "_.".contains(character);
    let split = |text: &str| {
        let text = text.trim_start();
        let end = text.find(|character| !is_of_a_word(character)).unwrap_or(text.len());
        (text[..end].to_ascii_lowercase(), text[end..].to_owned())
    };
    let mut rest = text.trim_start_matches([' ', '(', '!']).to_owned();
    let (mut word, mut after) = split(&rest);
    while word == "not" && !after.trim().is_empty() {
        rest = after.trim_start_matches([' ', '(', '!']).to_owned();
        (word, after) = split(&rest);
    }
    if word.is_empty() {
        return false;
    }
    let next = after.trim_start();
    let has_sign = next.starts_with(['=', '<', '>']) || next.starts_with("!=");
    let (next_word, _) = split(next);
    let is_one_of = |words: &[&str]| words.contains(&&*next_word);
    let is_known = keywords().any(|keyword| keyword == word) || word.starts_with("rootcause.");
    match &*word {
        // These words appear in expressions only: a text hardly contains them.
        "annotation" => after.starts_with(['[', '.']),
        _ if word.starts_with("annotation.") || word.starts_with("rootcause.") => true,
        "service" | "edge" | "group" | "json" => next.starts_with('('),
        "responsetime" | "availabilityzone" | "duration" => true,
        _ if is_known && word.contains('.') => true,
        "ok" | "error" | "fault" | "throttle" | "partial" => {
            has_sign || is_one_of(&["and", "or"]) || next.starts_with([')', '}'])
        }
        _ if is_known => has_sign || is_one_of(&["contains", "beginswith", "endswith"]),
        // An unknown keyword: `size = "large"`, but not `size=large`, which is a word.
        _ => {
            let value = next.trim_start_matches(['=', '<', '>', '!']);
            has_sign && (after != next || value.trim_start().starts_with(['"', '\'']))
        }
    }
}

/// Splits a text into words, at spaces. A phrase in quotation marks counts as one word.
fn words(text: &str) -> Vec<Word> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() && found.len() < WORD_COUNT_MAX {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        if !word.is_empty() {
            found.push(Word { text: word.to_owned(), lower: word.to_lowercase() });
        }
        rest = after.trim_start();
    }
    found
}

impl Word {
    /// Returns the position of the word in a text, in upper or lower case.
    fn find_in(&self, text: &str) -> Option<usize> {
        if !self.lower.is_ascii() {
            // Lower case may have another length, so this position is only one in most texts.
            return text.to_lowercase().find(&self.lower).map(|at| text.floor_char_boundary(at));
        }
        let needle = self.lower.as_bytes();
        let (bytes, first) = (text.as_bytes(), *needle.first()?);
        memchr2_iter(first, first.to_ascii_uppercase(), bytes).find(|&at| {
            let there = bytes.get(at..at + needle.len());
            there.is_some_and(|there| there.eq_ignore_ascii_case(needle))
        })
    }

    /// Returns whether the word is in what the list shows of a trace anyway.
    fn is_seen(&self, summary: &Summary<'_>) -> bool {
        let http = summary.http();
        let texts = [
            summary.root.map(|root| root.name.as_str()),
            http.and_then(|http| http.url.as_deref()),
            http.and_then(|http| http.method.as_deref()),
        ];
        let status = http.and_then(|http| http.status).map(|status| status.to_string());
        let all = texts.into_iter().flatten().chain(status.as_deref());
        all.into_iter().any(|text| self.find_in(text).is_some())
    }

    /// Returns whether the word is in a trace, and where, if the list does not show it anyway.
    fn hit(&self, summary: &Summary<'_>) -> Option<Option<Hit>> {
        if self.is_seen(summary) {
            return Some(None);
        }
        for document in &summary.trace.documents {
            let words = &document.facts.words;
            if let Some(at) = self.find_in(words.text()) {
                return Some(words.line_at(at).map(|(kind, line, at)| self.shown(kind, line, at)));
            }
        }
        let is_id = self.text.len() >= ID_PART_LENGTH_MIN
            && self.find_in(&summary.trace.id).is_some()
            || number_of(&self.text).is_some_and(|id| {
                let mut parts = summary.trace.documents.iter().flat_map(|it| &it.facts.parts);
                parts.any(|part| part.id == Some(id))
            });
        is_id.then_some(None)
    }

    fn shown(&self, kind: WordKind, line: &str, at: usize) -> Hit {
        let end = line.floor_char_boundary((at + self.text.len()).min(line.len()));
        let before: Vec<char> = line[..at].chars().rev().take(BEFORE_LENGTH_MAX).collect();
        let cut = |is_cut: bool| if is_cut { "…" } else { "" };
        let is_cut_before = line[..at].chars().count() > before.len();
        let after: String = line[end..].chars().take(AFTER_LENGTH_MAX).collect();
        let is_cut_after = line[end..].len() > after.len();
        Hit {
            kind: match kind {
                WordKind::Name => "name",
                WordKind::Http => "http",
                WordKind::Aws => "aws",
                WordKind::Sql => "sql",
                WordKind::Exception => "exception",
                WordKind::Annotation => "annotation",
                WordKind::User => "user",
            },
            before: format!("{}{}", cut(is_cut_before), before.iter().rev().collect::<String>()),
            word: line[at..end].to_owned(),
            after: format!("{after}{}", cut(is_cut_after)),
        }
    }
}

/// Returns `None` if a word is not in the trace. Otherwise returns where the first word was found
/// that the list does not show anyway, if there is one.
pub fn find(words: &[Word], summary: &Summary<'_>) -> Option<Option<Hit>> {
    let mut shown = None;
    for word in words {
        let hit = word.hit(summary)?;
        shown = shown.or(hit);
    }
    Some(shown)
}

#[cfg(test)]
mod tests;
