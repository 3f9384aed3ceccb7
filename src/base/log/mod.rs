//! The log, in the line format of the original daemon or as JSON.
//!
//! In: `tracing` events of this crate, and warnings and errors of libraries. Out: one line for each
//! event, `2026-01-31T12:00:00Z [Info] message` or
//! `{"time":"2026-01-31T12:00:00Z","level":"info","message":"message"}`, on standard output, on
//! standard error or in a file. Bound: [`MESSAGE_BYTES_MAX`] for a message, twice as much for its
//! fields, and [`LINE_COUNT_MAX`] lines that wait to be written. When full: further lines are
//! dropped, and the threads that log do not wait. Thread: any thread can log; the thread `log`
//! writes. If the reader of the output has closed it, lines are dropped, and the daemon continues.
//!
//! An event of this crate can have fields: `info!(segments, "Sent {segments} segments")`. Its
//! message says the same in words. In JSON each field is a field of the object, and numbers are
//! numbers. The text format shows the message only.
//!
//! A datagram or an answer of the service can cause a log line. The number of these lines is
//! limited by a [`LogLimit`].

mod file;
mod level;
mod limit;
mod losses;

pub use file::{LogFile, reopen};
pub use level::{LogFormat, LogLevel};
pub use limit::{LogLimit, Suppressed, unreported_count};
pub use losses::{dropped_line_count, file_failure_count};

use crate::base::panics;
use std::fmt::{self, Write as _};
use std::io;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
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
    let (writer, guard) = writer("log", LINE_COUNT_MAX, Guarded(output))?;
    losses::count_dropped_with(writer.error_counter());
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

/// Starts the thread `name`, which writes lines to `output`, and returns the way to it. Up to
/// `line_count_max` lines wait; further lines are dropped.
///
/// # Errors
///
/// Returns an error if the system refuses to create the thread.
pub fn writer(
    name: &str,
    line_count_max: usize,
    output: impl io::Write + Send + 'static,
) -> io::Result<(NonBlocking, WorkerGuard)> {
    let builder = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(line_count_max)
        .thread_name(name);
    // `tracing-appender` panics here only if it cannot create its thread.
    panics::catch_refusal(|| builder.finish(output)).ok_or_else(|| {
        io::Error::other(format!(
            "the system refuses the thread {name:?}. Allow more threads (TasksMax, pids.max, \
             ulimit -u)"
        ))
    })
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
        let is_own = event.metadata().target().starts_with(env!("CARGO_CRATE_NAME"));
        let mut message = Message::new(self.0, is_own);
        event.record(&mut message);
        let line = self.0.line(OffsetDateTime::now_utc(), *event.metadata().level(), &message);
        out.write_str(&line)
    }
}

impl LogFormat {
    /// Returns the log line of an event, with a line break at its end.
    fn line(self, now: OffsetDateTime, level: Level, message: &Message) -> String {
        let (time, fields, message) = (timestamp(now), &message.fields, &message.text);
        let (name, lower) = match level {
            Level::ERROR => ("Error", "error"),
            Level::WARN => ("Warn", "warn"),
            Level::INFO => ("Info", "info"),
            Level::DEBUG => ("Debug", "debug"),
            Level::TRACE => ("Trace", "trace"),
        };
        match self {
            Self::Text => format!("{time} [{name}] {message}\n"),
            Self::Json => format!(
                "{{\"time\":\"{time}\",\"level\":\"{lower}\",\"message\":\"{message}\"{fields}}}\n"
            ),
        }
    }
}

fn timestamp(now: OffsetDateTime) -> String {
    let whole_seconds = now.replace_nanosecond(0).unwrap_or(now);
    whole_seconds.format(&Rfc3339).unwrap_or_default()
}

/// The message of a log event, on one line of bounded length, and its fields.
struct Message {
    format: LogFormat,
    /// Whether the event is one of this crate. The fields of other events are a part of the text.
    is_own: bool,
    text: String,
    /// The fields in JSON, each with a comma before it. Empty in the text format.
    fields: String,
}

/// Appends `text` to `line`, up to a length of [`MESSAGE_BYTES_MAX`]. Characters that could break
/// the line, control a terminal or change the order of the characters are escaped ([`is_escaped`]).
/// In JSON, quotes and backslashes are escaped too.
fn push_escaped(line: &mut String, format: LogFormat, text: &str) {
    for character in text.chars() {
        if line.len() >= MESSAGE_BYTES_MAX {
            if !line.ends_with('…') {
                line.push('…');
            }
            return;
        }
        match (format, character) {
            (LogFormat::Json, '"' | '\\') => line.extend(['\\', character]),
            (LogFormat::Json, _) if is_escaped(character) => {
                let written = write!(line, "\\u{:04x}", u32::from(character));
                debug_assert!(written.is_ok(), "writing to a string does not fail");
            }
            (LogFormat::Text, _) if is_escaped(character) => {
                line.extend(character.escape_default());
            }
            _ => line.push(character),
        }
    }
}

impl Message {
    fn new(format: LogFormat, is_own: bool) -> Self {
        Self { format, is_own, text: String::with_capacity(128), fields: String::new() }
    }

    fn push(&mut self, text: &str) {
        push_escaped(&mut self.text, self.format, text);
    }

    /// Adds a field of an event of this crate to the JSON object. `value` is JSON already.
    /// Leaves out a field that does not fit into the line.
    fn push_field(&mut self, field: &Field, value: &str) {
        let name = field.name();
        debug_assert!(!["time", "level"].contains(&name), "the line has a field {name} already");
        let length = self.fields.len() + name.len() + value.len();
        if self.format == LogFormat::Json && length <= 2 * MESSAGE_BYTES_MAX {
            self.fields.extend([",\"", name, "\":", value]);
        }
    }

    /// Adds a field to the JSON object, or, if the event is one of a library, to the text.
    fn push_number(&mut self, field: &Field, value: &dyn fmt::Display) {
        if self.is_own {
            self.push_field(field, &value.to_string());
        } else {
            self.record_debug(field, &format_args!("{value}"));
        }
    }
}

/// Returns whether a character can break a line, control a terminal, or change the order in which a
/// line is shown.
///
/// These are the control characters, the separators of lines and paragraphs, the bidirectional
/// formatting characters with the deprecated ones (U+206A to U+206F), and the characters for
/// interlinear annotations. See <https://www.unicode.org/reports/tr9/#Directional_Formatting_Codes>
/// and <https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing>.
fn is_escaped(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}')
}

impl fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

impl Visit for Message {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no numbers for infinity and NaN.
        if value.is_finite() {
            self.push_number(field, &value);
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push_number(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push_number(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push_number(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if self.is_own && field.name() != "message" {
            self.record_debug(field, &format_args!("{value}"));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self, "{value:?}"),
            // Events of the crate `log` have fields named `log.*`, which repeat where the event
            // comes from. They are left out.
            name if name.starts_with("log.") => Ok(()),
            _ if self.is_own => {
                let mut json = String::from('"');
                push_escaped(&mut json, LogFormat::Json, &format!("{value:?}"));
                json.push('"');
                self.push_field(field, &json);
                Ok(())
            }
            name => write!(self, " {name}={value:?}"),
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn control_characters_are_escaped_and_lines_are_bounded() {
        let mut message = Message::new(LogFormat::Text, true);
        message.push("a\nb\x1b[31m é");
        assert_eq!(message.text, r"a\nb\u{1b}[31m é");
        message.push(&"x".repeat(3 * MESSAGE_BYTES_MAX));
        message.push("more");
        assert!(message.text.len() < MESSAGE_BYTES_MAX + 10);
        assert!(message.text.ends_with("x…"));
    }

    #[test]
    fn characters_that_turn_the_order_of_a_line_around_are_escaped() {
        let hostile = "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\
                       \u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{206a}\u{206f}\u{fff9}\u{fffb}";
        for character in hostile.chars() {
            let code = u32::from(character);
            for (format, expected) in [
                (LogFormat::Text, format!("a\\u{{{code:x}}}b")),
                (LogFormat::Json, format!("a\\u{code:04x}b")),
            ] {
                let mut message = Message::new(format, true);
                message.push(&format!("a{character}b"));
                assert_eq!(message.text, expected);
            }
        }
        let mut message = Message::new(LogFormat::Text, true);
        message.push("שלום 日本 e\u{301} 👩\u{200d}🚀");
        assert_eq!(message.text, "שלום 日本 e\u{301} 👩\u{200d}🚀");
    }

    #[test]
    fn a_line_of_json_can_be_parsed_and_has_the_same_bound() {
        let now = OffsetDateTime::from_unix_timestamp(1_769_860_800).unwrap();
        let said = "a \"b\" \\ c:\n\x1b[31m\u{85}\u{7f} é";
        let mut message = Message::new(LogFormat::Json, true);
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
    /// An output that several writers share.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the lines of the events that `log` logs.
    fn lines(format: LogFormat, log: impl FnOnce()) -> String {
        let output = Shared::default();
        let writer = output.clone();
        let lines = tracing_subscriber::fmt::layer()
            .event_format(Line(format))
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(output.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn one_call_gives_a_line_of_text_and_a_json_object_with_typed_fields() {
        let log = || {
            let (segments, status, none) = (3, Some(200_u16), None::<u64>);
            let request_id = tracing::field::display("1-\"a\"\n");
            tracing::info!(segments, status, none, seconds = 0.25, ok = true, request_id, "Sent 3");
            tracing::info!(seconds = f64::NAN, source = "a\\b", "Odd");
            tracing::info!(target: "library", count = 3, name = "x", "of a library");
        };
        let text = lines(LogFormat::Text, log);
        let messages: Vec<_> = text.lines().map(|line| line.split_once("] ").unwrap().1).collect();
        assert_eq!(messages, ["Sent 3", "Odd", "of a library count=3 name=\"x\""]);
        let json = lines(LogFormat::Json, log);
        let objects = json.lines().map(|line| {
            let mut object: serde_json::Value = serde_json::from_str(line).unwrap();
            object.as_object_mut().unwrap().remove("time").unwrap();
            object
        });
        let expected = [
            serde_json::json!({"level": "info", "message": "Sent 3", "segments": 3, "status": 200,
                "seconds": 0.25, "ok": true, "request_id": "1-\"a\"\n"}),
            serde_json::json!({"level": "info", "message": "Odd", "seconds": "NaN",
                "source": "a\\b"}),
            serde_json::json!({"level": "info", "message": "of a library count=3 name=\"x\""}),
        ];
        assert_eq!(objects.collect::<Vec<_>>(), expected, "{json}");
    }

    #[test]
    fn fields_of_any_length_leave_a_line_that_can_be_parsed() {
        let long = "\u{1}".repeat(3 * MESSAGE_BYTES_MAX);
        let json = lines(LogFormat::Json, || {
            tracing::info!(first = long, second = long, third = 3, "Long");
        });
        assert!(json.len() < 4 * MESSAGE_BYTES_MAX, "{}", json.len());
        let object: serde_json::Value = serde_json::from_str(json.trim_end()).unwrap();
        assert!(object["first"].as_str().unwrap().ends_with('…'));
        assert_eq!(object["third"], 3);
    }
}
