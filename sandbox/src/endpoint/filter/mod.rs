//! Filter expressions: which traces are meant.
//!
//! In: the text of an expression, such as
//! `service("shop") { fault } AND http.url CONTAINS "/cart"`. Out: an [`Expression`] that says of a
//! trace whether it is meant, or an [`Error`] with the position. The language is that of
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-console-filters.html>; root causes and
//! groups are left out. Bounds: [`LENGTH_MAX`] and [`DEPTH_MAX`]. Pure code.
//!
//! ```text
//! any     = all { OR all }
//! all     = one { [AND] one }
//! one     = ( "!" | NOT ) one | "(" any ")" | test
//! test    = flag [ ( = | != ) ( true | false ) ]
//!         | number ( = | != | < | <= | > | >= ) digits
//!         | text ( = | != | CONTAINS | BEGINSWITH | ENDSWITH ) string
//!         | ( annotation.key | annotation[key] ) [ any of these comparisons ]
//!         | service( [node] ) [ "{" any "}" ]
//!         | edge( [node] [ "," node ] ) [ "{" any "}" ]
//! node    = string | id( [ name: string ] [ "," type: string ] )
//! ```

mod evaluate;
mod parse;
mod print;

pub use parse::Error;

/// Longest expression, in bytes.
pub const LENGTH_MAX: usize = 4_096;

/// Parentheses, braces and negations inside of each other.
pub const DEPTH_MAX: usize = 32;

/// What is asked of a trace.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// All of two or more.
    All(Vec<Expression>),
    /// At least one of two or more.
    Any(Vec<Expression>),
    /// Not this one.
    Not(Box<Expression>),
    /// A single test.
    Test(Test),
}

/// A single test. Of a trace it asks the segment that the trace began with, inside of braces the
/// segment or call at hand.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// Whether a flag is as given.
    Flag(Flag, bool),
    /// How a number compares.
    Number(NumberField, Comparison, f64),
    /// How a text compares.
    Text(TextField, TextComparison, String),
    /// How an annotation with this key compares, or that there is one which is not false.
    Annotation(String, Option<AnnotationTest>),
    /// That a service was reached, with a segment or call that the filter is true of.
    Service(Selector, Option<Box<Expression>>),
    /// That one service was called by another, with a call that the filter is true of.
    Edge(Selector, Selector, Option<Box<Expression>>),
}

/// What is true or false.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// Neither error nor fault, and a status of 2xx if there is one.
    Ok,
    /// 4xx.
    Error,
    /// 429.
    Throttle,
    /// 5xx.
    Fault,
    /// Something is in progress.
    Partial,
}

/// What is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberField {
    /// Seconds to the response.
    ResponseTime,
    /// Seconds to the end of all work.
    Duration,
    /// The status of the response.
    HttpStatus,
}

/// What is a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextField {
    /// The whole address of the request.
    HttpUrl,
    /// `GET` and the like.
    HttpMethod,
    /// What the client calls itself.
    HttpUserAgent,
    /// The client's address.
    HttpClientIp,
    /// The user of any segment.
    User,
    /// The trace's id.
    Id,
    /// The service's name.
    Name,
    /// The service's type.
    Type,
    /// The zone that any segment ran in.
    AvailabilityZone,
    /// The instance that any segment ran on.
    InstanceId,
    /// The resource that any segment ran on.
    ResourceArn,
}

/// How numbers compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// How texts compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum TextComparison {
    Equal,
    Unequal,
    Contains,
    BeginsWith,
    EndsWith,
}

/// How an annotation compares, which has one of three types.
#[derive(Debug, Clone, PartialEq)]
pub enum AnnotationTest {
    /// With true or false.
    Flag(bool),
    /// With a number.
    Number(Comparison, f64),
    /// With a text.
    Text(TextComparison, String),
}

/// Which services are meant: those with this name and this type, where one is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// The name.
    pub name: Option<String>,
    /// The type.
    pub type_name: Option<String>,
}

const FLAGS: &[(&str, Flag)] = &[
    ("ok", Flag::Ok),
    ("error", Flag::Error),
    ("throttle", Flag::Throttle),
    ("fault", Flag::Fault),
    ("partial", Flag::Partial),
];

const NUMBERS: &[(&str, NumberField)] = &[
    ("responsetime", NumberField::ResponseTime),
    ("duration", NumberField::Duration),
    ("http.status", NumberField::HttpStatus),
];

const TEXTS: &[(&str, TextField)] = &[
    ("http.url", TextField::HttpUrl),
    ("http.method", TextField::HttpMethod),
    ("http.useragent", TextField::HttpUserAgent),
    ("http.clientip", TextField::HttpClientIp),
    ("user", TextField::User),
    ("id", TextField::Id),
    ("name", TextField::Name),
    ("type", TextField::Type),
    ("availabilityzone", TextField::AvailabilityZone),
    ("instance.id", TextField::InstanceId),
    ("resource.arn", TextField::ResourceArn),
];

/// The longer ones first, since a shorter one may begin them.
const COMPARISONS: &[(&str, Comparison)] = &[
    ("!=", Comparison::Unequal),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

const TEXT_COMPARISONS: &[(&str, TextComparison)] = &[
    ("!=", TextComparison::Unequal),
    ("=", TextComparison::Equal),
    ("CONTAINS", TextComparison::Contains),
    ("BEGINSWITH", TextComparison::BeginsWith),
    ("ENDSWITH", TextComparison::EndsWith),
];

/// The spelling of a value in one of these tables.
fn spelling<T: PartialEq>(table: &'static [(&'static str, T)], value: &T) -> &'static str {
    let found = table.iter().find(|(_, known)| known == value);
    found.map(|(name, _)| *name).expect("every value has a spelling")
}

#[cfg(test)]
mod tests;
