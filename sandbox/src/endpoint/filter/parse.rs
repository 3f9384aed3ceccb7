//! Parses the text of a filter expression, by recursive descent.
//!
//! In: text. Out: an [`Expression`], or an [`Error`] with a position. Bound: [`LENGTH_MAX`] bytes
//! and a recursion of [`DEPTH_MAX`] levels. No I/O, no clock.

use super::{
    AnnotationTest, COMPARISONS, Comparison, DEPTH_MAX, Expression, FLAGS, LEFT_OUT, LENGTH_MAX,
    NUMBERS, Selector, TEXT_COMPARISONS, TEXTS, Test, TextComparison,
};

/// A syntax error in a filter expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid filter expression at character {position}: {problem}")]
pub struct Error {
    /// Position of the error, in characters, counted from 1.
    pub position: usize,
    /// Description of the error.
    pub problem: String,
}

impl Expression {
    /// Parses an expression.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not an expression, is too long, or is nested too deeply.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut parser = Parser { text, at: 0, depth: 0, is_inside: false };
        if text.len() > LENGTH_MAX {
            return parser.fail(format!("the expression is longer than {LENGTH_MAX} bytes"));
        }
        let expression = parser.any()?;
        parser.skip_space();
        if parser.at < text.len() {
            return parser.fail("unexpected text after the expression");
        }
        Ok(expression)
    }

    /// Joins expressions with `AND`. A single expression is returned unchanged.
    pub(super) fn all(parts: Vec<Self>) -> Self {
        let flat = |part| if let Self::All(parts) = part { parts } else { vec![part] };
        let mut parts: Vec<Self> = parts.into_iter().flat_map(flat).collect();
        if parts.len() == 1 { parts.remove(0) } else { Self::All(parts) }
    }

    /// Joins expressions with `OR`. A single expression is returned unchanged.
    pub(super) fn any(parts: Vec<Self>) -> Self {
        let flat = |part| if let Self::Any(parts) = part { parts } else { vec![part] };
        let mut parts: Vec<Self> = parts.into_iter().flat_map(flat).collect();
        if parts.len() == 1 { parts.remove(0) } else { Self::Any(parts) }
    }
}

/// Returns whether a keyword is about root causes or groups. The service supports these keywords,
/// but the sandbox does not.
fn is_left_out(keyword: &str) -> bool {
    keyword.starts_with("rootcause") || keyword.starts_with("group") || LEFT_OUT.contains(&keyword)
}

struct Parser<'a> {
    text: &'a str,
    /// Position in bytes. It is always at the beginning of a character.
    at: usize,
    depth: usize,
    /// Whether the position is inside the braces of `service` or `edge`.
    is_inside: bool,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Expression, Error> {
        let mut parts = vec![self.all()?];
        while self.take_word("OR") {
            parts.push(self.all()?);
        }
        Ok(Expression::any(parts))
    }

    fn all(&mut self) -> Result<Expression, Error> {
        let mut parts = vec![self.one()?];
        // `AND` is optional.
        while self.take_word("AND") || self.begins_another() {
            parts.push(self.one()?);
        }
        Ok(Expression::all(parts))
    }

    fn begins_another(&mut self) -> bool {
        self.skip_space();
        !self.rest().is_empty() && !self.rest().starts_with([')', '}']) && self.word() != "OR"
    }

    fn one(&mut self) -> Result<Expression, Error> {
        if self.take("!") || self.take_word("NOT") {
            return self.deeper(|parser| Ok(Expression::Not(Box::new(parser.one()?))));
        }
        if self.take("(") {
            let inner = self.deeper(Self::any)?;
            self.expect(")")?;
            return Ok(inner);
        }
        self.test().map(Expression::Test)
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == DEPTH_MAX {
            return self.fail(format!("the expression has more than {DEPTH_MAX} levels"));
        }
        self.depth += 1;
        let parsed = inner(self);
        self.depth -= 1;
        parsed
    }

    fn test(&mut self) -> Result<Test, Error> {
        self.skip_space();
        let start = self.at;
        let word = self.word();
        let keyword = word.to_ascii_lowercase();
        if keyword == "annotation" || keyword.starts_with("annotation.") {
            return self.annotation();
        }
        self.at += word.len();
        if let Some((_, flag)) = FLAGS.iter().find(|(name, _)| *name == keyword) {
            let is_set = self.take_boolean()?.unwrap_or(true);
            return Ok(Test::Flag(*flag, is_set));
        }
        if let Some((_, field)) = NUMBERS.iter().find(|(name, _)| *name == keyword) {
            let comparison = self.comparison()?;
            return Ok(Test::Number(*field, comparison, self.number()?));
        }
        if let Some((_, field)) = TEXTS.iter().find(|(name, _)| *name == keyword) {
            let comparison = self.text_comparison()?;
            return Ok(Test::Text(*field, comparison, self.string()?));
        }
        match &*keyword {
            "service" | "edge" if self.is_inside => {
                self.at = start;
                self.fail(format!("{keyword} is not allowed inside braces"))
            }
            "service" => {
                let [service] = self.selectors()?;
                Ok(Test::Service(service, self.filter()?))
            }
            "edge" => {
                let [source, target] = self.selectors()?;
                Ok(Test::Edge(source, target, self.filter()?))
            }
            _ => {
                self.at = start;
                if word.is_empty() {
                    self.fail("a keyword is missing, such as ok, responsetime or service")
                } else if is_left_out(&keyword) {
                    self.fail(format!(
                        "the sandbox does not have {word}: it has no root causes and no groups"
                    ))
                } else {
                    let hint = "for an annotation, write annotation.";
                    self.fail(format!("{word:?} is not a known keyword; {hint}{word}"))
                }
            }
        }
    }

    fn annotation(&mut self) -> Result<Test, Error> {
        self.at += "annotation".len();
        let key = if self.take("[") {
            self.skip_space();
            let key = if self.rest().starts_with(['"', '\'']) {
                self.string()?
            } else {
                let end = self.rest().find(']').unwrap_or(self.rest().len());
                let key = self.rest()[..end].trim_end().to_owned();
                self.at += end;
                key
            };
            self.expect("]")?;
            key
        } else if self.take(".") {
            let key = self.word().to_owned();
            self.at += key.len();
            key
        } else {
            String::new()
        };
        if key.is_empty() {
            return self.fail(
                "the key of the annotation is missing: write annotation.key or annotation[key]",
            );
        }
        Ok(Test::Annotation(key, self.annotation_test()?))
    }

    fn annotation_test(&mut self) -> Result<Option<AnnotationTest>, Error> {
        self.skip_space();
        let start = self.at;
        if let Ok(Some(is_set)) = self.take_boolean() {
            return Ok(Some(AnnotationTest::Flag(is_set)));
        }
        self.at = start;
        let Ok(comparison) = self.text_comparison().map(Some).or_else(|error| {
            self.at = start;
            if self.comparison().is_ok() { Ok(None) } else { Err(error) }
        }) else {
            self.at = start;
            return Ok(None);
        };
        self.skip_space();
        match comparison {
            Some(comparison) if self.rest().starts_with(['"', '\'']) => {
                Ok(Some(AnnotationTest::Text(comparison, self.string()?)))
            }
            Some(
                TextComparison::Contains | TextComparison::BeginsWith | TextComparison::EndsWith,
            ) => self.string().map(|_| None),
            _ => {
                self.at = start;
                let comparison = self.comparison()?;
                let number = self.number().map_err(|error| {
                    let problem =
                        "a value is missing: a text in quotation marks, a number, true or false";
                    Error { problem: problem.to_owned(), ..error }
                });
                Ok(Some(AnnotationTest::Number(comparison, number?)))
            }
        }
    }

    /// Parses at most `COUNT` selectors in parentheses. A missing selector matches every service.
    fn selectors<const COUNT: usize>(&mut self) -> Result<[Selector; COUNT], Error> {
        let mut selectors = std::array::from_fn(|_| Selector::default());
        self.expect("(")?;
        if self.take(")") {
            return Ok(selectors);
        }
        for (index, selector) in selectors.iter_mut().enumerate() {
            if index > 0 {
                if self.take(")") {
                    return Ok(selectors);
                }
                self.expect(",")?;
            }
            *selector = self.selector()?;
        }
        self.expect(")")?;
        Ok(selectors)
    }

    fn selector(&mut self) -> Result<Selector, Error> {
        if !self.take_word("id") {
            return Ok(Selector { name: Some(self.string()?), type_name: None });
        }
        let mut selector = Selector::default();
        self.expect("(")?;
        while !self.take(")") {
            self.skip_space();
            let key = self.word();
            let field = match key {
                "name" => &mut selector.name,
                "type" => &mut selector.type_name,
                // The sandbox has only one account, so the account id is ignored.
                "account.id" => &mut None,
                _ => return self.fail("name:, type: or account.id: is missing"),
            };
            self.at += key.len();
            self.expect(":")?;
            *field = Some(self.string()?);
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(selector)
    }

    /// Parses the optional expression in braces.
    fn filter(&mut self) -> Result<Option<Box<Expression>>, Error> {
        if !self.take("{") {
            return Ok(None);
        }
        self.is_inside = true;
        let inner = self.deeper(Self::any)?;
        self.is_inside = false;
        self.expect("}")?;
        Ok(Some(Box::new(inner)))
    }

    /// Parses an optional comparison with `true` or `false`, such as `= true`.
    fn take_boolean(&mut self) -> Result<Option<bool>, Error> {
        let is_equal = if self.take("!=") {
            false
        } else if self.take("=") {
            true
        } else {
            return Ok(None);
        };
        for (word, value) in [("true", true), ("false", false)] {
            if self.take_word(word) {
                return Ok(Some(value == is_equal));
            }
        }
        self.fail("true or false is missing")
    }

    fn comparison(&mut self) -> Result<Comparison, Error> {
        let found = COMPARISONS.iter().find(|(sign, _)| self.take(sign));
        found
            .map(|(_, comparison)| *comparison)
            .map_or_else(|| self.fail("=, !=, <, <=, > or >= is missing"), Ok)
    }

    fn text_comparison(&mut self) -> Result<TextComparison, Error> {
        let found = TEXT_COMPARISONS.iter().find(|(sign, _)| {
            let is_word = sign.starts_with(char::is_alphabetic);
            if is_word { self.take_word(sign) } else { self.take(sign) }
        });
        found
            .map(|(_, comparison)| *comparison)
            .map_or_else(|| self.fail("=, !=, CONTAINS, BEGINSWITH or ENDSWITH is missing"), Ok)
    }

    fn number(&mut self) -> Result<f64, Error> {
        self.skip_space();
        let is_of_it =
            |character: char| character.is_ascii_alphanumeric() || "+-.".contains(character);
        let end = self.rest().find(|character| !is_of_it(character)).unwrap_or(self.rest().len());
        let word = &self.rest()[..end];
        let begins =
            word.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
        match word.parse() {
            Ok(number) if begins && f64::is_finite(number) => {
                self.at += end;
                Ok(number)
            }
            _ => self.fail("a number is missing"),
        }
    }

    /// Parses a text in quotation marks. A backslash escapes the next character.
    fn string(&mut self) -> Result<String, Error> {
        self.skip_space();
        let mut characters = self.rest().char_indices();
        let Some((_, quote @ ('"' | '\''))) = characters.next() else {
            return self.fail("a text in quotation marks is missing");
        };
        let mut text = String::new();
        while let Some((index, character)) = characters.next() {
            match character {
                '\\' => text.extend(characters.next().map(|(_, escaped)| escaped)),
                _ if character == quote => {
                    self.at += index + 1;
                    return Ok(text);
                }
                _ => text.push(character),
            }
        }
        self.fail("the closing quotation mark is missing")
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Returns the word at the position: letters, digits, underscores and dots.
    fn word(&self) -> &'a str {
        let rest = self.rest();
        let is_of_it = |character: char| character.is_alphanumeric() || "_.".contains(character);
        &rest[..rest.find(|character| !is_of_it(character)).unwrap_or(rest.len())]
    }

    /// Skips `sign` if the text continues with it. Returns whether the sign was skipped.
    fn take(&mut self, sign: &str) -> bool {
        self.skip_space();
        let is_there = self.rest().starts_with(sign);
        self.at += if is_there { sign.len() } else { 0 };
        is_there
    }

    /// Skips the whole word `word`, in upper or lower case, if the text continues with it. Returns
    /// whether the word was skipped.
    fn take_word(&mut self, word: &str) -> bool {
        self.skip_space();
        let is_there = self.word().eq_ignore_ascii_case(word);
        self.at += if is_there { word.len() } else { 0 };
        is_there
    }

    fn expect(&mut self, sign: &str) -> Result<(), Error> {
        if self.take(sign) { Ok(()) } else { self.fail(format!("{sign} is missing")) }
    }

    fn fail<T>(&self, problem: impl Into<String>) -> Result<T, Error> {
        let position = self.text[..self.at].chars().count() + 1;
        Err(Error { position, problem: problem.into() })
    }
}
