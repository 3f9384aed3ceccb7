//! The kinds of settings: how a value is read, which bounds it has, and how it is shown.
//!
//! In: a value of a flag or of `cfg.yaml`, both as [`Value`]. Out: a field of the configuration, or
//! an error text that says what to write instead. No I/O, no clock.

use crate::aws::transport::ProxyAddress;
use crate::aws::{Compression, SpansTo};
use crate::base::log::{LogFormat, LogLevel};
use crate::pipeline::receive::ReceiveBackend;
use serde_json::Value;
use std::path::PathBuf;

/// The form of a value, as the operator writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A text. An empty text counts as not given.
    Text,
    /// A whole number.
    Number,
    /// A whole number of megabytes.
    Megabytes,
    /// True or false.
    Switch,
    /// A list of texts. Only `cfg.yaml` can have a list, a flag cannot.
    List,
}

/// A note for the operator about a value that is taken, if there is one.
pub(super) type Warning = Option<String>;

/// A kind of setting: how its values are read, checked and shown.
pub(super) trait Kind {
    /// The type of the setting's field.
    type Field;

    /// The form of the setting's values.
    const FORM: Form;

    /// Sets `field` to `value`. If the kind expects a text, an empty text leaves the field
    /// unchanged. Returns a warning if the field got another value than the one given, because the
    /// original daemon takes the value too.
    ///
    /// # Errors
    ///
    /// Returns a text that says what is wrong with the value and what to write instead.
    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String>;

    /// Returns whether a valid value counts as given. If not, [`set`](Self::set) leaves the field
    /// unchanged, and the value is not its source. An empty text never counts.
    fn counts(&self, value: &Value) -> bool {
        value.as_str() != Some("")
    }

    /// Returns the value of the field as a text, or an empty text if the field has no value.
    fn show(&self, field: &Self::Field) -> String;

    /// Returns which values are allowed, in a few words.
    fn values(&self) -> String;
}

/// Returns the form of the values of a kind.
pub(super) const fn form<K: Kind>(_: &K) -> Form {
    K::FORM
}

/// A setting that may have any text.
pub(super) struct Text {
    /// The text that is shown if the setting has no value.
    pub absent: &'static str,
}

impl Kind for Text {
    type Field = Option<String>;
    const FORM: Form = Form::Text;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        let text = text(value)?;
        if !text.is_empty() {
            *field = Some(text.to_owned());
        }
        Ok(None)
    }

    fn show(&self, field: &Self::Field) -> String {
        field.clone().unwrap_or_else(|| self.absent.to_owned())
    }

    fn values(&self) -> String {
        "a text".to_owned()
    }
}

/// A network address, `HOST:PORT`. It is resolved when the port is opened.
pub(super) struct Address;

impl Kind for Address {
    type Field = String;
    const FORM: Form = Form::Text;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        let text = text(value)?;
        if !text.is_empty() {
            text.clone_into(field);
        }
        Ok(None)
    }

    fn show(&self, field: &Self::Field) -> String {
        field.clone()
    }

    fn values(&self) -> String {
        "HOST:PORT".to_owned()
    }
}

/// The path of a file or folder.
pub(super) struct Path;

impl Kind for Path {
    type Field = Option<PathBuf>;
    const FORM: Form = Form::Text;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        let text = text(value)?;
        if !text.is_empty() {
            *field = Some(text.into());
        }
        Ok(None)
    }

    fn show(&self, field: &Self::Field) -> String {
        field.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }

    fn values(&self) -> String {
        "a path".to_owned()
    }
}

/// The address of a proxy, HTTP or SOCKS5. No error shows the value, which may contain a password.
pub(super) struct Proxy;

impl Proxy {
    /// Sets `field` to the address in `text`. If `text` is blank, `field` is unchanged.
    pub(super) fn set_text(field: &mut Option<ProxyAddress>, text: &str) -> Result<(), String> {
        if !text.trim().is_empty() {
            *field = Some(ProxyAddress::parse(text).map_err(|error| error.to_string())?);
        }
        Ok(())
    }
}

impl Kind for Proxy {
    type Field = Option<ProxyAddress>;
    const FORM: Form = Form::Text;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        Self::set_text(field, value.as_str().ok_or("it is not a text; quote it")?)?;
        Ok(None)
    }

    fn counts(&self, value: &Value) -> bool {
        value.as_str().is_none_or(|text| !text.trim().is_empty())
    }

    /// Shows the address without user and password.
    fn show(&self, field: &Self::Field) -> String {
        field.as_ref().map(ProxyAddress::to_string).unwrap_or_default()
    }

    fn values(&self) -> String {
        "the address of a proxy: http://, https:// or socks5://HOST:PORT".to_owned()
    }
}

/// True or false.
pub(super) struct Switch;

impl Kind for Switch {
    type Field = bool;
    const FORM: Form = Form::Switch;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        *field = boolean(value)?;
        Ok(None)
    }

    fn show(&self, field: &Self::Field) -> String {
        field.to_string()
    }

    fn values(&self) -> String {
        "true or false".to_owned()
    }
}

/// A switch with three states: true, false, or left to the daemon.
pub(super) struct OptionalSwitch {
    /// The text that is shown if the daemon chooses.
    pub absent: &'static str,
}

impl Kind for OptionalSwitch {
    type Field = Option<bool>;
    const FORM: Form = Form::Switch;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        *field = Some(boolean(value)?);
        Ok(None)
    }

    fn show(&self, field: &Self::Field) -> String {
        field.map_or_else(|| self.absent.to_owned(), |value| value.to_string())
    }

    fn values(&self) -> String {
        "true or false".to_owned()
    }
}

/// One word out of a fixed list.
pub(super) struct Word<T> {
    /// The words that are allowed.
    pub words: &'static str,
    /// Converts a word to a value. The error names the words that are allowed.
    pub parse: fn(&str) -> Result<T, String>,
    /// Returns the word for a value.
    pub name: fn(&T) -> &'static str,
}

impl<T> Kind for Word<T> {
    type Field = T;
    const FORM: Form = Form::Text;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        let text = text(value)?;
        if !text.is_empty() {
            *field = (self.parse)(text)?;
        }
        Ok(None)
    }

    fn show(&self, field: &Self::Field) -> String {
        (self.name)(field).to_owned()
    }

    fn values(&self) -> String {
        self.words.to_owned()
    }
}

/// The words for receive backends.
pub(super) const RECEIVE_BACKEND: Word<ReceiveBackend> = Word {
    words: "auto, uring, recvmmsg or tokio-uring",
    parse: ReceiveBackend::parse,
    name: |backend| match backend {
        ReceiveBackend::Auto => "auto",
        ReceiveBackend::Uring => "uring",
        ReceiveBackend::Recvmmsg => "recvmmsg",
        ReceiveBackend::TokioUring => "tokio-uring",
    },
};

/// The words for the operation that gets spans.
pub(super) const SPANS_TO: Word<SpansTo> = Word {
    words: "endpoint or segments",
    parse: |word| match word {
        "endpoint" => Ok(SpansTo::Endpoint),
        "segments" => Ok(SpansTo::Segments),
        _ => Err(format!("{word:?} is not known; write endpoint or segments")),
    },
    name: |to| match to {
        SpansTo::Endpoint => "endpoint",
        SpansTo::Segments => "segments",
    },
};

/// The words for the compression of spans.
pub(super) const COMPRESSION: Word<Compression> = Word {
    words: "gzip or none",
    parse: |word| match word {
        "gzip" => Ok(Compression::Gzip),
        "none" => Ok(Compression::None),
        _ => Err(format!("{word:?} is not known; write gzip or none")),
    },
    name: |compression| match compression {
        Compression::Gzip => "gzip",
        Compression::None => "none",
    },
};

/// A log level. An unknown word leaves the field unchanged, as in the original daemon: a daemon
/// must not fail to start because of its log.
pub(super) struct Level;

impl Kind for Level {
    type Field = LogLevel;
    const FORM: Form = Form::Text;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        let text = text(value)?;
        if text.is_empty() {
            return Ok(None);
        }
        let unknown = match LogLevel::parse(text.trim()) {
            Ok(level) => {
                *field = level;
                return Ok(None);
            }
            Err(unknown) => unknown,
        };
        Ok(Some(format!("{unknown}. The level is {}", self.show(field))))
    }

    fn counts(&self, value: &Value) -> bool {
        value.as_str().is_some_and(|text| LogLevel::parse(text.trim()).is_ok())
    }

    fn show(&self, field: &Self::Field) -> String {
        let name = match field {
            LogLevel::Dev => "dev",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
            LogLevel::Prod => "prod",
        };
        name.to_owned()
    }

    fn values(&self) -> String {
        "dev, debug, info, warn, error or prod".to_owned()
    }
}

/// The words for log formats.
pub(super) const LOG_FORMAT: Word<LogFormat> = Word {
    words: "text or json",
    parse: LogFormat::parse,
    name: |format| match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    },
};

/// A list of URL paths; `*` stands for every path. A path is compared with a request's path without
/// decoding, so a path with characters that need encoding would never match and is an error.
pub(super) struct UrlPaths;

impl Kind for UrlPaths {
    type Field = Vec<String>;
    const FORM: Form = Form::List;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        let one = |value: &Value| {
            let path = text(value)?;
            let is_plain = path.starts_with('/') && !path.contains(['?', '#', '%', ' ', '*']);
            if is_plain || path == "*" {
                Ok(path.to_owned())
            } else {
                Err(format!(
                    "{path:?} is not a path; write one such as /GetTraceSummaries, or \"*\""
                ))
            }
        };
        *field = match value.as_array() {
            Some(paths) => paths.iter().map(one).collect::<Result<_, _>>()?,
            None => {
                return Err(format!(
                    "{} is not a list of paths; write [/PATH, /PATH]",
                    shown(value)
                ));
            }
        };
        Ok(None)
    }

    fn show(&self, field: &Self::Field) -> String {
        field.join(" ")
    }

    fn values(&self) -> String {
        "a list of paths: [/PATH, /PATH], or [\"*\"] for all".to_owned()
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{} is not a text; quote it", shown(value)))
}

/// Reads a boolean. Words of YAML 1.1 such as `yes` and `off` are booleans too, because the
/// original daemon reads YAML 1.1.
fn boolean(value: &Value) -> Result<bool, String> {
    if let Some(value) = value.as_bool() {
        return Ok(value);
    }
    match value.as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("yes" | "on" | "y" | "true") => Ok(true),
        Some("no" | "off" | "n" | "false") => Ok(false),
        _ => Err(format!("{} is neither true nor false", shown(value))),
    }
}

/// Returns the first 100 characters of a value, for an error text.
pub(super) fn shown(value: &Value) -> String {
    value.to_string().chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T>(word: &Word<T>) {
        let listed = word.words.replace(" or ", ", ");
        for name in listed.split(", ") {
            let value = (word.parse)(name).unwrap();
            assert_eq!((word.name)(&value), name, "of {}", word.words);
        }
        assert!((word.parse)("something-else").is_err(), "of {}", word.words);
        assert_eq!(word.values(), word.words);
    }

    #[test]
    fn each_word_of_a_list_is_read_and_is_shown_as_it_was_written() {
        check(&RECEIVE_BACKEND);
        check(&SPANS_TO);
        check(&COMPRESSION);
        check(&LOG_FORMAT);
        for name in Level.values().replace(" or ", ", ").split(", ") {
            let mut level = LogLevel::Prod;
            assert_eq!(Level.set(&mut level, &Value::from(name.to_owned())), Ok(None), "{name}");
            assert_eq!(Level.show(&level), name);
        }
    }
}
