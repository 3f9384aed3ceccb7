//! Evaluates a filter expression for a trace.
//!
//! In: an expression and the summary of a trace. Out: whether the expression matches the trace.
//! Bound: the depth of the expression, and the size of the trace. No I/O, no clock.

use super::{
    AnnotationTest, Comparison, Expression, Flag, NumberField, Selector, Test, TextComparison,
    TextField,
};
use crate::endpoint::graph::{Hop, Service, Source, hops};
use crate::endpoint::summary::Summary;
use crate::model::document::{Annotation, Document, Facts, Flags, Http, Part};
use std::cell::OnceCell;

impl Expression {
    /// Returns whether the expression matches the trace.
    pub fn is_true_of(&self, summary: &Summary<'_>) -> bool {
        let trace = Trace { summary, hops: OnceCell::new() };
        self.holds(&trace, Subject::Trace)
    }

    /// Evaluates the expression recursively. The parser has bounded the depth.
    fn holds<'a>(&self, trace: &Trace<'a>, subject: Subject<'a>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(trace, subject)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(trace, subject)),
            Self::Not(inner) => !inner.holds(trace, subject),
            Self::Test(test) => test.holds(trace, subject),
        }
    }
}

/// A trace, and the calls between its services.
struct Trace<'a> {
    summary: &'a Summary<'a>,
    /// The calls between the services. They are computed only if the expression needs them, which
    /// is rare.
    hops: OnceCell<Vec<Hop<'a>>>,
}

impl<'a> Trace<'a> {
    fn hops(&self) -> &[Hop<'a>] {
        self.hops.get_or_init(|| hops(&self.summary.trace.documents))
    }
}

/// The trace or the call that a test is about.
#[derive(Clone, Copy)]
enum Subject<'a> {
    /// The whole trace. Most fields are those of its root segment.
    Trace,
    /// A call to a service: the segment of the called service (`None` if it sent no segment), and
    /// the segment or subsegment with the tested fields.
    Reached(Option<&'a Document>, &'a Part),
}

impl Test {
    fn holds<'a>(&self, trace: &Trace<'a>, subject: Subject<'a>) -> bool {
        match self {
            Self::Flag(flag, is_set) => subject.flag(trace, *flag) == *is_set,
            Self::Number(field, comparison, number) => {
                let value = subject.number(trace, *field);
                value.is_some_and(|value| compare(value, *comparison, *number))
            }
            Self::Text(field, comparison, text) => {
                compare_texts(&subject.texts(trace, *field), *comparison, text)
            }
            Self::Annotation(key, test) => {
                let values = subject.annotations(trace, key);
                test.as_ref().map_or_else(
                    || values.iter().any(|value| **value != Annotation::Boolean(false)),
                    |test| test.holds(&values),
                )
            }
            Self::Service(service, filter) => trace.hops().iter().any(|hop| {
                service.is_of(hop.target) && holds_at(filter.as_deref(), trace, hop, hop.own())
            }),
            Self::Edge(source, target, filter) => trace.hops().iter().any(|hop| {
                let is_from_there = match hop.source {
                    Source::Service(service) => source.is_of(service),
                    Source::Client => source.is_of(hop.client()),
                    Source::Unknown => false,
                };
                let is_it = is_from_there && target.is_of(hop.target);
                is_it && holds_at(filter.as_deref(), trace, hop, hop.seen())
            }),
        }
    }
}

fn holds_at<'a>(
    filter: Option<&Expression>,
    trace: &Trace<'a>,
    hop: &Hop<'a>,
    part: Option<&'a Part>,
) -> bool {
    let Some(filter) = filter else { return true };
    part.is_some_and(|part| filter.holds(trace, Subject::Reached(hop.segment, part)))
}

impl Selector {
    fn is_of(&self, service: Service<'_>) -> bool {
        self.name.as_ref().is_none_or(|name| name == service.name)
            && self.type_name.as_ref().is_none_or(|name| name == service.type_name)
    }
}

impl<'a> Subject<'a> {
    fn part(self, trace: &Trace<'a>) -> Option<&'a Part> {
        match self {
            Self::Trace => trace.summary.root_part(),
            Self::Reached(_, part) => Some(part),
        }
    }

    fn http(self, trace: &Trace<'a>) -> Option<&'a Http> {
        self.part(trace).and_then(|part| part.http.as_deref())
    }

    fn flag(self, trace: &Trace<'a>, flag: Flag) -> bool {
        let flags = self.part(trace).map(|part| part.flags).unwrap_or_default();
        match (flag, self) {
            (Flag::Error, _) => flags.error,
            (Flag::Fault, _) => flags.fault,
            // The flag may be set in any segment, as for HasThrottle in `GetTraceSummaries`.
            (Flag::Throttle, Self::Trace) => trace.summary.flags.throttle,
            (Flag::Throttle, Self::Reached(..)) => flags.throttle,
            (Flag::Partial, Self::Trace) => trace.summary.in_progress,
            (Flag::Partial, Self::Reached(_, part)) => part.in_progress,
            (Flag::Ok, _) => {
                let status = self.http(trace).and_then(|http| http.status);
                let is_good = status.is_none_or(|status| (200..300).contains(&status));
                is_good && flags == Flags::default()
            }
        }
    }

    fn number(self, trace: &Trace<'a>, field: NumberField) -> Option<f64> {
        match (field, self) {
            (NumberField::HttpStatus, _) => self.http(trace)?.status.map(f64::from),
            (NumberField::Duration, Self::Trace) => trace.summary.duration_seconds(),
            _ => self.part(trace)?.duration_seconds(),
        }
    }

    /// Returns the values of a field. Some fields have a value for each segment of a trace.
    fn texts(self, trace: &Trace<'a>, field: TextField) -> Vec<&'a str> {
        let http = self.http(trace);
        let one = match field {
            TextField::HttpUrl => http.and_then(|http| http.url.as_deref()),
            TextField::HttpMethod => http.and_then(|http| http.method.as_deref()),
            TextField::HttpUserAgent => http.and_then(|http| http.user_agent.as_deref()),
            TextField::HttpClientIp => http.and_then(|http| http.client_ip.as_deref()),
            TextField::Id => Some(&*trace.summary.trace.id),
            TextField::Name => self.part(trace).map(|part| &*part.name),
            TextField::Type => self.part(trace).map(|part| &*part.type_name),
            TextField::User => return self.of_documents(trace, |facts| &facts.user),
            TextField::AvailabilityZone => {
                return self.of_documents(trace, |facts| &facts.availability_zone);
            }
            TextField::InstanceId => return self.of_documents(trace, |facts| &facts.instance_id),
            TextField::ResourceArn => return self.of_documents(trace, |facts| &facts.resource_arn),
        };
        one.into_iter().collect()
    }

    fn of_documents(
        self,
        trace: &Trace<'a>,
        field: impl Fn(&'a Facts) -> &'a Option<Box<str>>,
    ) -> Vec<&'a str> {
        let documents = self.documents(trace);
        documents.filter_map(|document| field(&document.facts).as_deref()).collect()
    }

    fn annotations(self, trace: &Trace<'a>, key: &str) -> Vec<&'a Annotation> {
        let all = self.documents(trace).flat_map(|document| &document.facts.annotations);
        all.filter(|(known, _)| **known == *key).map(|(_, value)| value).collect()
    }

    fn documents(self, trace: &Trace<'a>) -> Box<dyn Iterator<Item = &'a Document> + 'a> {
        match self {
            Self::Trace => Box::new(trace.summary.trace.documents.iter().map(|it| &**it)),
            Self::Reached(segment, _) => Box::new(segment.into_iter()),
        }
    }
}

impl AnnotationTest {
    /// Returns whether the values of an annotation pass the test. If the type of a value differs
    /// from the type in the test, the value passes only the comparison `!=`.
    fn holds(&self, values: &[&Annotation]) -> bool {
        let number = |value: &Annotation| match value {
            Annotation::Number(number) => Some(*number),
            _ => None,
        };
        match self {
            Self::Flag(is_set) => values.contains(&&Annotation::Boolean(*is_set)),
            Self::Number(Comparison::Unequal, other) => {
                !values.is_empty() && values.iter().all(|value| number(value) != Some(*other))
            }
            Self::Number(comparison, other) => {
                let mut numbers = values.iter().filter_map(|value| number(value));
                numbers.any(|value| compare(value, *comparison, *other))
            }
            Self::Text(comparison, other) => {
                let texts: Vec<&str> = values
                    .iter()
                    .filter_map(|value| match value {
                        Annotation::Text(text) => Some(&**text),
                        _ => None,
                    })
                    .collect();
                let has_none = texts.is_empty() && !values.is_empty();
                (has_none && *comparison == TextComparison::Unequal)
                    || compare_texts(&texts, *comparison, other)
            }
        }
    }
}

#[expect(clippy::float_cmp, reason = "`=` in an expression compares numbers exactly")]
fn compare(value: f64, comparison: Comparison, other: f64) -> bool {
    match comparison {
        Comparison::Equal => value == other,
        Comparison::Unequal => value != other,
        Comparison::Less => value < other,
        Comparison::LessOrEqual => value <= other,
        Comparison::Greater => value > other,
        Comparison::GreaterOrEqual => value >= other,
    }
}

/// Returns whether the comparison holds for any of the values. `!=` must hold for all values.
/// Without a value, no comparison holds, not even `!=`.
fn compare_texts(values: &[&str], comparison: TextComparison, other: &str) -> bool {
    let holds = |value: &&str| match comparison {
        TextComparison::Equal => *value == other,
        TextComparison::Unequal => *value != other,
        TextComparison::Contains => value.contains(other),
        TextComparison::BeginsWith => value.starts_with(other),
        TextComparison::EndsWith => value.ends_with(other),
    };
    match comparison {
        TextComparison::Unequal => !values.is_empty() && values.iter().all(holds),
        _ => values.iter().any(holds),
    }
}
