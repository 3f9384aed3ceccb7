//! Parses and evaluates filter expressions, which select traces.
//!
//! In: the text of an expression, such as
//! `service("shop") { fault } AND http.url CONTAINS "/cart"`. Out: an [`Expression`] that can be
//! evaluated for a trace, or an [`Error`] with a position. The language is documented in
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-console-filters.html>. Root causes and
//! groups are not supported. Bound: [`LENGTH_MAX`] and [`DEPTH_MAX`]. No I/O, no clock.
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

/// Longest text of a filter expression, in bytes.
pub const LENGTH_MAX: usize = 4_096;

/// Largest number of nested parentheses, braces and negations.
pub const DEPTH_MAX: usize = 32;

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// All of two or more expressions must be true.
    All(Vec<Expression>),
    /// At least one of two or more expressions must be true.
    Any(Vec<Expression>),
    /// The expression must be false.
    Not(Box<Expression>),
    /// A single test.
    Test(Test),
}

/// A single test.
///
/// Outside of braces, the test is about the trace, and most fields are those of its root segment.
/// Inside the braces of `service` or `edge`, the test is about that segment or call.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// A flag must have the given value.
    Flag(Flag, bool),
    /// The comparison of a number must hold.
    Number(NumberField, Comparison, f64),
    /// The comparison of a text must hold.
    Text(TextField, TextComparison, String),
    /// The test of an annotation with this key must hold. Without a test, the annotation must exist
    /// and must not be `false`.
    Annotation(String, Option<AnnotationTest>),
    /// The trace must contain a call to a selected service. If there is an expression, it must be
    /// true for the segment of this service, or without a segment for the call.
    Service(Selector, Option<Box<Expression>>),
    /// A service of the first selector must call a service of the second selector. If there is an
    /// expression, it must be true for this call.
    Edge(Selector, Selector, Option<Box<Expression>>),
}

/// A field that is true or false.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// No flag is set, and the HTTP status (if any) is 2xx.
    Ok,
    /// A client error (4xx).
    Error,
    /// A throttled request (429).
    Throttle,
    /// A server fault (5xx).
    Fault,
    /// The trace or the segment is in progress.
    Partial,
}

/// A field with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberField {
    /// Duration of the root segment, in seconds.
    ResponseTime,
    /// Duration of the whole trace, in seconds.
    Duration,
    /// HTTP status of the response.
    HttpStatus,
}

/// A field with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextField {
    /// Full URL of the request.
    HttpUrl,
    /// HTTP method, such as `GET`.
    HttpMethod,
    /// User agent of the client.
    HttpUserAgent,
    /// IP address of the client.
    HttpClientIp,
    /// User of any segment.
    User,
    /// Id of the trace.
    Id,
    /// Name of the service.
    Name,
    /// Type of the service.
    Type,
    /// Availability zone of any segment.
    AvailabilityZone,
    /// EC2 instance of any segment.
    InstanceId,
    /// ARN of the resource of any segment.
    ResourceArn,
}

/// A comparison of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names explain the variants")]
pub enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A comparison of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names explain the variants")]
pub enum TextComparison {
    Equal,
    Unequal,
    Contains,
    BeginsWith,
    EndsWith,
}

/// A test of an annotation. The value of an annotation has one of three types.
#[derive(Debug, Clone, PartialEq)]
pub enum AnnotationTest {
    /// The value must be this boolean.
    Flag(bool),
    /// The comparison with a number must hold.
    Number(Comparison, f64),
    /// The comparison with a text must hold.
    Text(TextComparison, String),
}

/// Selects services by name and type. A field that is `None` matches every service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// Name of the service.
    pub name: Option<String>,
    /// Type of the service.
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

/// The signs of the comparisons. `<=` comes before `<`, because the parser takes the first sign
/// that fits.
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

/// The keywords besides those of the tables that the sandbox has.
const OTHER_KEYWORDS: &[&str] = &["service", "edge", "annotation"];

/// The keywords of the service that the sandbox does not have, because it has no root causes and no
/// groups. Keywords that begin with `rootcause` or `group` are among them.
const LEFT_OUT: &[&str] = &[
    "first",
    "last",
    "remote",
    "root",
    "inferred",
    "index",
    "coverage",
    "message",
    "rootcause",
    "group",
    "group.name",
    "group.arn",
];

/// Returns all keywords of the language, also those that the sandbox does not have.
pub fn keywords() -> impl Iterator<Item = &'static str> {
    let flags = FLAGS.iter().map(|(name, _)| *name);
    let numbers = NUMBERS.iter().map(|(name, _)| *name);
    let texts = TEXTS.iter().map(|(name, _)| *name);
    let others = OTHER_KEYWORDS.iter().chain(LEFT_OUT).copied();
    flags.chain(numbers).chain(texts).chain(others)
}

/// Returns the text of a value in a filter expression. `table` is a table such as [`FLAGS`].
///
/// # Panics
///
/// Panics if the table does not contain the value. The tables contain all values of their types.
fn spelling<T: PartialEq>(table: &'static [(&'static str, T)], value: &T) -> &'static str {
    let found = table.iter().find(|(_, known)| known == value);
    found.map(|(name, _)| *name).expect("every value has a spelling")
}

#[cfg(test)]
mod tests;
