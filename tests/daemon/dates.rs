//! Reads and writes the date formats of requests and answers.

use http::HeaderValue;
use std::time::{SystemTime, UNIX_EPOCH};
use time::{Date, Month, OffsetDateTime};

/// Reads the date of a request, such as `20261125T072106Z`. Returns 1970-01-01 for text that is not
/// a date.
pub fn amazon_date(text: &str) -> OffsetDateTime {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u8>().ok();
    let parse = || {
        let month = Month::try_from(number(4..6)?).ok()?;
        let date = Date::from_calendar_date(text.get(..4)?.parse().ok()?, month, number(6..8)?);
        let at = date.ok()?.with_hms(number(9..11)?, number(11..13)?, number(13..15)?);
        Some(at.ok()?.assume_utc())
    };
    parse().unwrap_or(UNIX_EPOCH.into())
}

/// Formats the date of an answer, such as `Wed, 25 Nov 2026 07:21:06 GMT`.
pub fn http_date(at: OffsetDateTime) -> HeaderValue {
    let (day, month) = (at.weekday().to_string(), at.month().to_string());
    let (year, date) = (at.year(), at.day());
    let (hour, minute, second) = at.to_hms();
    let text = format!(
        "{}, {date:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT",
        &day[..3],
        &month[..3]
    );
    text.parse().unwrap()
}

#[test]
fn dates_are_read_and_written_as_on_the_wire() {
    let at = amazon_date("20261125T072106Z");
    assert_eq!(SystemTime::from(at).duration_since(UNIX_EPOCH).unwrap().as_secs(), 1_795_591_266);
    assert_eq!(http_date(at), "Wed, 25 Nov 2026 07:21:06 GMT");
}
