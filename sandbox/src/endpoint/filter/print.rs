//! Formats a filter expression as text.
//!
//! In: an expression. Out: text that the parser turns into the same expression. No I/O, no clock.

use super::{
    AnnotationTest, COMPARISONS, Expression, FLAGS, NUMBERS, Selector, TEXT_COMPARISONS, TEXTS,
    Test, spelling,
};
use std::fmt::{Display, Formatter, Result, Write};

impl Display for Expression {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        match self {
            Self::All(parts) => join(out, parts, " AND "),
            Self::Any(parts) => join(out, parts, " OR "),
            Self::Not(inner) => {
                out.write_char('!')?;
                operand(out, inner)
            }
            Self::Test(test) => write!(out, "{test}"),
        }
    }
}

fn join(out: &mut Formatter<'_>, parts: &[Expression], between: &str) -> Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.write_str(between)?;
        }
        operand(out, part)?;
    }
    Ok(())
}

/// Writes an operand of `AND`, `OR` or `!`. Parentheses are added if the operand is a list joined
/// by `AND` or `OR`.
fn operand(out: &mut Formatter<'_>, part: &Expression) -> Result {
    match part {
        Expression::All(_) | Expression::Any(_) => write!(out, "({part})"),
        Expression::Not(_) | Expression::Test(_) => write!(out, "{part}"),
    }
}

impl Display for Test {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        match self {
            Self::Flag(flag, true) => out.write_str(spelling(FLAGS, flag)),
            Self::Flag(flag, false) => write!(out, "{} = false", spelling(FLAGS, flag)),
            Self::Number(field, comparison, number) => {
                let sign = spelling(COMPARISONS, comparison);
                write!(out, "{} {sign} {number}", spelling(NUMBERS, field))
            }
            Self::Text(field, comparison, text) => {
                let sign = spelling(TEXT_COMPARISONS, comparison);
                write!(out, "{} {sign} {}", spelling(TEXTS, field), quoted(text))
            }
            Self::Annotation(key, test) => {
                write!(out, "annotation[{}]", quoted(key))?;
                match test {
                    None => Ok(()),
                    Some(AnnotationTest::Flag(is_set)) => write!(out, " = {is_set}"),
                    Some(AnnotationTest::Number(comparison, number)) => {
                        write!(out, " {} {number}", spelling(COMPARISONS, comparison))
                    }
                    Some(AnnotationTest::Text(comparison, text)) => {
                        let sign = spelling(TEXT_COMPARISONS, comparison);
                        write!(out, " {sign} {}", quoted(text))
                    }
                }
            }
            Self::Service(service, filter) => {
                write!(out, "service({service})")?;
                braces(out, filter.as_deref())
            }
            Self::Edge(source, target, filter) => {
                write!(out, "edge({source}, {target})")?;
                braces(out, filter.as_deref())
            }
        }
    }
}

fn braces(out: &mut Formatter<'_>, filter: Option<&Expression>) -> Result {
    filter.map_or(Ok(()), |filter| write!(out, " {{ {filter} }}"))
}

impl Display for Selector {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        let name = self.name.as_ref().map(|name| format!("name: {}", quoted(name)));
        let type_name = self.type_name.as_ref().map(|name| format!("type: {}", quoted(name)));
        let fields: Vec<String> = name.into_iter().chain(type_name).collect();
        write!(out, "id({})", fields.join(", "))
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
