//! The log, in the line format of the original daemon or as JSON.
//!
//! In: `tracing` events of this crate, and warnings and errors of libraries. Out: one line for each
//! event, `2026-01-31T12:00:00Z [Info] message` or
//! `{"time":"2026-01-31T12:00:00Z","level":"info","message":"message"}`, on standard output, on
//! standard error or in a file. Bound: [`MESSAGE_BYTES_MAX`] for a message, and [`LINE_COUNT_MAX`]
//! lines that wait to be written. When full: further lines are dropped, and the threads that log do
//! not wait. Thread: any thread can log; the thread `log` writes. If the reader of the output has
//! closed it, lines are dropped, and the daemon continues.
//!
//! A datagram or an answer of the service can cause a log line. The number of these lines is
//! limited by a [`LogLimit`].

mod file;
mod level;
mod limit;

pub use file::{LogFile, reopen};
pub use level::{LogFormat, LogLevel};
pub use limit::{LogLimit, Suppressed, unreported_count};

use crate::base::panics;
use std::fmt::{self, Write as _};
use std::io;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

/// Longest message of a log line, in bytes. The rest of a longer message is cut off.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Largest number of log lines that wait for the thread that writes the log.
const LINE_COUNT_MAX: usize = 4096;

/// Starts the log of the process. When the returned guard is dropped, all waiting lines are
/// written.
///
/// # Errors
///
/// Returns an error if the system refuses to create a thread.
///
/// # Panics
///
/// Panics if the log of the process has been started already.
pub fn start(
    level: LogLevel,
    format: LogFormat,
    output: impl io::Write + Send + 'static,
) -> io::Result<WorkerGuard> {
    let builder = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINE_COUNT_MAX)
        .thread_name("log");
    let started = panics::catch(|| builder.finish(Guarded(output)));
    // `tracing-appender` panics here only if it cannot create its thread.
    let refused = |_| io::Error::other("the system refuses a thread for the log");
    let (writer, guard) = started.map_err(refused)?;
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Line(format))
        // By default, `tracing-subscriber` prints its own errors to standard error, and panics if
        // that fails.
        .log_internal_errors(false)
        .with_writer(writer);
    // Debug lines of libraries can contain headers of signed requests, so they are never logged.
    let filter = Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), level_filter(level))
        .with_default(LevelFilter::WARN.min(level_filter(level)));
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    tracing::subscriber::set_global_default(subscriber).expect("the log is started once");
    Ok(guard)
}

/// An output for log lines. If writing a line panics, the panic becomes an error: this line is
/// dropped, and the thread that writes the log continues.
struct Guarded<W>(W);

impl<W: io::Write> io::Write for Guarded<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = panics::catch(|| {
            panics::inject("log");
            self.0.write(line)
        });
        written.unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
    }

    fn flush(&mut self) -> io::Result<()> {
        // The error is ignored. If it were returned, the library `tracing-appender` would print it
        // to standard error, and panic if that fails too.
        let _ = panics::catch(|| self.0.flush());
        Ok(())
    }
}

fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Dev => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info | LogLevel::Prod => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}

/// Formats a log event as one line, in the configured format.
struct Line(LogFormat);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = Message::new(self.0);
        event.record(&mut message);
        let line = self.0.line(OffsetDateTime::now_utc(), *event.metadata().level(), &message);
        out.write_str(&line)
    }
}

impl LogFormat {
    /// Returns the log line of an event, with a line break at its end.
    fn line(self, now: OffsetDateTime, level: Level, message: &Message) -> String {
        let (time, message) = (timestamp(now), &message.text);
        let (name, lower) = match level {
            Level::ERROR => ("Error", "error"),
            Level::WARN => ("Warn", "warn"),
            Level::INFO => ("Info", "info"),
            Level::DEBUG => ("Debug", "debug"),
            Level::TRACE => ("Trace", "trace"),
        };
        match self {
            Self::Text => format!("{time} [{name}] {message}\n"),
            Self::Json => {
                format!("{{\"time\":\"{time}\",\"level\":\"{lower}\",\"message\":\"{message}\"}}\n")
            }
        }
    }
}

fn timestamp(now: OffsetDateTime) -> String {
    let whole_seconds = now.replace_nanosecond(0).unwrap_or(now);
    whole_seconds.format(&Rfc3339).unwrap_or_default()
}

/// The message of a log event, on one line of bounded length. Control characters are escaped,
/// because they could break the line or control a terminal. In JSON, quotes and backslashes are
/// escaped too.
struct Message {
    format: LogFormat,
    text: String,
}

impl Message {
    fn new(format: LogFormat) -> Self {
        Self { format, text: String::with_capacity(128) }
    }

    fn push(&mut self, text: &str) {
        for character in text.chars() {
            if self.text.len() >= MESSAGE_BYTES_MAX {
                if !self.text.ends_with('…') {
                    self.text.push('…');
                }
                return;
            }
            match (self.format, character) {
                (LogFormat::Json, '"' | '\\') => self.text.extend(['\\', character]),
                (LogFormat::Json, _) if character.is_control() => {
                    let written = write!(self.text, "\\u{:04x}", u32::from(character));
                    debug_assert!(written.is_ok(), "writing to a string does not fail");
                }
                (LogFormat::Text, _) if character.is_control() => {
                    self.text.extend(character.escape_default());
                }
                _ => self.text.push(character),
            }
        }
    }
}

impl fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self, "{value:?}"),
            // Events of the crate `log` have fields named `log.*`, which repeat where the event
            // comes from. They are left out.
            name if name.starts_with("log.") => Ok(()),
            name => write!(self, " {name}={value:?}"),
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_lines_are_bounded() {
        let mut message = Message::new(LogFormat::Text);
        message.push("a\nb\x1b[31m é");
        assert_eq!(message.text, r"a\nb\u{1b}[31m é");
        message.push(&"x".repeat(3 * MESSAGE_BYTES_MAX));
        message.push("more");
        assert!(message.text.len() < MESSAGE_BYTES_MAX + 10);
        assert!(message.text.ends_with("x…"));
    }

    #[test]
    fn a_line_of_json_can_be_parsed_and_has_the_same_bound() {
        let now = OffsetDateTime::from_unix_timestamp(1_769_860_800).unwrap();
        let said = "a \"b\" \\ c:\n\x1b[31m\u{85}\u{7f} é";
        let mut message = Message::new(LogFormat::Json);
        message.push(said);
        let line = LogFormat::Json.line(now, Level::WARN, &message);
        assert!(!line.trim_end().contains(char::is_control), "{line:?}");
        let expected =
            serde_json::json!({"time": "2026-01-31T12:00:00Z", "level": "warn", "message": said});
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), expected);
        assert_eq!(
            LogFormat::Text.line(now, Level::WARN, &message).split_once("] ").unwrap().0,
            "2026-01-31T12:00:00Z [Warn"
        );
        message.push(&"\0".repeat(MESSAGE_BYTES_MAX));
        assert!(message.text.len() < MESSAGE_BYTES_MAX + 10);
        let line = LogFormat::Json.line(now, Level::WARN, &message);
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{line}");
    }

    #[test]
    fn the_time_is_in_whole_seconds() {
        let time = OffsetDateTime::from_unix_timestamp_nanos(1_769_860_800_123_456_789).unwrap();
        assert_eq!(timestamp(time), "2026-01-31T12:00:00Z");
    }
}
