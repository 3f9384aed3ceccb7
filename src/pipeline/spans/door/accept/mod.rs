//! Decides which spans of a request are accepted, and puts them into the queue.
//!
//! In: the uncompressed body of a request. Out: one request in the queue, or several if it was
//! split; and how many spans were refused, with the reason of the first one. Bound: the memory of
//! the queue. When full: the whole request is refused, and its client may try again. Thread: that
//! of the ports. No I/O; the caller knows the time.
//!
//! The limits are those of X-Ray's OTLP endpoint, which refuses a whole request for one span beyond
//! them, see
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html>.
//! If all spans are accepted, which is usual, the body is forwarded as it is. Otherwise refused
//! spans are cut out. A request with more spans, or a larger time between them, than the endpoint
//! takes is split.

use crate::base::account::SpanRefusal;
use crate::base::clock::Moment;
use crate::pipeline::spans::queue::{Closed, NoRoom, Reservation, SpanRequest, SpanWriter, Times};
use std::ops::Range;
use xrayd_otlp::{
    DecodeError, Encoding, FoundSpan, SPAN_BYTES_MAX, SPAN_COUNT_MAX, SpanTimes, cut, scan,
};

const SECOND_NS: u64 = 1_000_000_000;
const HOUR_NS: u64 = 3600 * SECOND_NS;

/// Largest age of a span, from its start.
const AGE_NS_MAX: u64 = 14 * 24 * HOUR_NS;

/// Largest time between now and the end of a span in the future.
const FUTURE_NS_MAX: u64 = 2 * HOUR_NS;

/// Largest time between two spans of a request.
const GAP_NS_MAX: u64 = 24 * HOUR_NS;

/// A request whose spans are further apart is split into spans that started in the same window of
/// this length. It is half the allowed gap, because a span also has an end.
const WINDOW_NS: u64 = GAP_NS_MAX / 2;

/// Number of windows in which an accepted span can have started, and one for the rounding.
const WINDOW_COUNT: usize = ((AGE_NS_MAX + FUTURE_NS_MAX) / WINDOW_NS) as usize + 2;

/// The result for a request that was taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Number of spans that are in the queue now.
    pub accepted_count: usize,
    /// Number of spans that were refused, by reason, in the order of [`SpanRefusal::ALL`].
    pub refused_counts: [usize; SpanRefusal::ALL.len()],
    /// Why the first of them was refused. Empty if none was.
    pub why: String,
}

impl Taken {
    /// Returns the number of spans that were refused.
    pub fn refused_count(&self) -> usize {
        self.refused_counts.iter().sum()
    }
}

/// Why no span of a request was taken
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The body is not what its content type says
    #[error(transparent)]
    Invalid(#[from] DecodeError),
    /// There is no room in the queue
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The daemon ends
    #[error("{0}; try again")]
    Closed(#[from] Closed),
}

/// The rules for the spans of a request that came at a certain time.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// The earliest start that X-Ray takes.
    oldest_ns: u64,
    /// The latest end that X-Ray takes.
    newest_ns: u64,
}

impl Rules {
    /// Returns the rules at `now`. Until an answer of the service has confirmed the date, no span
    /// is too old or too new: the host may have started with a wrong date, and a refused span is
    /// lost.
    fn at(now: Moment) -> Self {
        if !now.is_confirmed {
            return Self { oldest_ns: 1, newest_ns: u64::MAX };
        }
        let now_ns = now.unix_seconds().saturating_mul(SECOND_NS);
        Self {
            oldest_ns: now_ns.saturating_sub(AGE_NS_MAX).max(1),
            newest_ns: now_ns.saturating_add(FUTURE_NS_MAX),
        }
    }

    /// Returns the times of an accepted span, or why the span is refused.
    fn check(self, span: &FoundSpan) -> Result<SpanTimes, SpanRefusal> {
        let times = span.times.ok_or(SpanRefusal::Broken)?;
        if span.size_bytes > SPAN_BYTES_MAX {
            Err(SpanRefusal::Size)
        } else if times.start_ns < self.oldest_ns {
            Err(SpanRefusal::Old)
        } else if latest(times) > self.newest_ns {
            Err(SpanRefusal::Future)
        } else {
            Ok(times)
        }
    }

    /// Returns the window in which a span started. While the date is not confirmed, it is the same
    /// for all spans, and the service decides.
    fn window(self, times: SpanTimes) -> usize {
        let window = times.start_ns.saturating_sub(self.oldest_ns) / WINDOW_NS;
        usize::try_from(window).unwrap_or(usize::MAX).min(WINDOW_COUNT - 1)
    }

    fn sentence(span: &FoundSpan, refusal: SpanRefusal) -> String {
        let what = match refusal {
            SpanRefusal::Broken => "it cannot be read".to_owned(),
            SpanRefusal::Size => {
                format!("it has {} bytes, and X-Ray takes {SPAN_BYTES_MAX}", span.size_bytes)
            }
            SpanRefusal::Old if span.times.is_some_and(|times| times.start_ns == 0) => {
                "it has no start time".to_owned()
            }
            SpanRefusal::Old => "it started more than 14 days ago, and X-Ray takes none".to_owned(),
            SpanRefusal::Future => {
                "it ends more than 2 hours in the future, and X-Ray takes none".to_owned()
            }
        };
        format!("a span was refused: {what}")
    }
}

/// Returns the later one of start and end. A span without an end has only its start.
fn latest(times: SpanTimes) -> u64 {
    times.start_ns.max(times.end_ns)
}

/// Some spans of a request, which will be a request of their own.
#[derive(Debug)]
struct Part {
    /// The window in which they started; `None` for all windows.
    window: Option<usize>,
    /// The places of the spans among all spans of the request.
    indices: Range<usize>,
    count: usize,
    times: Times,
}

impl Part {
    fn new(window: Option<usize>, index: usize) -> Self {
        let times = Times { earliest_ns: u64::MAX, latest_ns: 0 };
        Self { window, indices: index..usize::MAX, count: 0, times }
    }

    fn add(&mut self, times: SpanTimes) {
        self.count += 1;
        // A span can end before it starts, if the clock of its host was set.
        let end_ns = if times.end_ns == 0 { times.start_ns } else { times.end_ns };
        let earliest_ns = self.times.earliest_ns.min(times.start_ns).min(end_ns);
        self.times = Times { earliest_ns, latest_ns: self.times.latest_ns.max(latest(times)) };
    }

    fn has(&self, rules: Rules, span: &FoundSpan) -> bool {
        self.indices.contains(&span.index)
            && rules
                .check(span)
                .is_ok_and(|times| self.window.is_none_or(|window| window == rules.window(times)))
    }

    fn gap_ns(&self) -> u64 {
        self.times.latest_ns.saturating_sub(self.times.earliest_ns)
    }
}

/// Puts the spans of a request into the queue of `writer`, except for those that are refused.
///
/// # Errors
///
/// Returns an error if the body is not what `encoding` says, or the queue has no room or is closed.
/// Then no span is in the queue.
pub fn take(
    writer: &SpanWriter,
    (encoding, body): (Encoding, &[u8]),
    now: Moment,
) -> Result<Taken, NotTaken> {
    let rules = Rules::at(now);
    let (mut taken, mut all) = (Taken::default(), Part::new(None, 0));
    scan(encoding, body, |span| match rules.check(span) {
        Ok(times) => all.add(times),
        Err(refusal) => {
            taken.refused_counts[refusal as usize] += 1;
            if taken.why.is_empty() {
                taken.why = Rules::sentence(span, refusal);
            }
        }
    })?;
    taken.accepted_count = all.count;
    if all.count == 0 {
        return Ok(taken);
    }
    let is_whole = all.count <= SPAN_COUNT_MAX && all.gap_ns() <= GAP_NS_MAX;
    let requests = if is_whole && taken.refused_count() == 0 {
        let mut reservation = writer.reserve(body.len())?;
        reservation.write(body);
        vec![request(reservation, encoding, &all)]
    } else {
        let parts = if is_whole { vec![all] } else { split(rules, (encoding, body), &all)? };
        let made = parts.iter().map(|part| cut_out(writer, rules, (encoding, body), part));
        made.collect::<Result<_, _>>()?
    };
    writer.push(requests)?;
    Ok(taken)
}

fn request(reservation: Reservation, encoding: Encoding, part: &Part) -> SpanRequest {
    let count = u32::try_from(part.count).unwrap_or(u32::MAX);
    reservation.into_request(encoding, count, part.times)
}

/// Returns the parts of a request, each within the limits for a request.
fn split(
    rules: Rules,
    (encoding, body): (Encoding, &[u8]),
    all: &Part,
) -> Result<Vec<Part>, DecodeError> {
    let by_window = all.gap_ns() > GAP_NS_MAX;
    let mut parts: Vec<Part> = Vec::new();
    // The part of each window that is being filled.
    let mut open: [Option<usize>; WINDOW_COUNT] = [None; WINDOW_COUNT];
    scan(encoding, body, |span| {
        let Ok(times) = rules.check(span) else { return };
        let window = by_window.then(|| rules.window(times));
        let place = &mut open[window.unwrap_or_default()];
        let index = match *place {
            Some(index) if parts[index].count < SPAN_COUNT_MAX => index,
            before => {
                if let Some(before) = before {
                    parts[before].indices.end = span.index;
                }
                parts.push(Part::new(window, span.index));
                *place.insert(parts.len() - 1)
            }
        };
        parts[index].add(times);
    })?;
    Ok(parts)
}

/// Returns a request with the spans of `part`.
fn cut_out(
    writer: &SpanWriter,
    rules: Rules,
    (encoding, body): (Encoding, &[u8]),
    part: &Part,
) -> Result<SpanRequest, NotTaken> {
    let has = |span: &FoundSpan| part.has(rules, span);
    let mut length_bytes = 0;
    cut(encoding, body, has, |piece| length_bytes += piece.len())?;
    let mut reservation = writer.reserve(length_bytes)?;
    cut(encoding, body, has, |piece| reservation.write(piece))?;
    Ok(request(reservation, encoding, part))
}

#[cfg(test)]
mod tests;
