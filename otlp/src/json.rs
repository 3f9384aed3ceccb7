//! Reads the JSON form of OTLP.
//!
//! It differs from the usual JSON form of protobuf, see
//! <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>: ids are hexadecimal, and
//! enumerations are numbers. Integers of 64 bits are text or numbers. `null` stands for a missing
//! value. Bytes are in base64. Bound: the size of the text, and 128 levels, the limit of
//! serde_json.

use crate::message;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;

/// `ExportTraceServiceRequest`. Its parts are not parsed.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Export<'a> {
    #[serde(borrow, default)]
    pub resource_spans: Option<Vec<&'a RawValue>>,
}

/// `ResourceSpans`. Its parts are not parsed.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceSpans<'a> {
    #[serde(borrow, default)]
    pub resource: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub scope_spans: Option<Vec<&'a RawValue>>,
}

/// `ScopeSpans`. Its parts are not parsed.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScopeSpans<'a> {
    #[serde(borrow, default)]
    pub scope: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub spans: Option<Vec<&'a RawValue>>,
}

/// An attribute's value: an object with one field, which names the type.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AnyValue {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Option<Number>,
    double_value: Option<Number>,
    array_value: Option<message::ArrayValue>,
    kvlist_value: Option<message::KeyValueList>,
    bytes_value: Option<Base64>,
}

impl From<AnyValue> for message::AnyValue {
    fn from(json: AnyValue) -> Self {
        use message::Any;
        let value = (json.string_value.map(Any::Text))
            .or(json.bool_value.map(Any::Bool))
            .or(json.int_value.map(|it| Any::Int(it.integer())))
            .or(json.double_value.map(|it| Any::Double(it.double())))
            .or(json.array_value.map(Any::List))
            .or(json.kvlist_value.map(Any::Object))
            .or(json.bytes_value.map(|it| Any::Bytes(it.0)));
        Self { value }
    }
}

/// A number, or a text with a number: `"NaN"` and `"Infinity"` too.
#[derive(Debug)]
enum Number {
    Integer(i64),
    Unsigned(u64),
    Double(f64),
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        (text.parse().map(Self::Integer).ok())
            .or_else(|| text.parse().map(Self::Unsigned).ok())
            .or_else(|| text.parse().map(Self::Double).ok())
    }

    #[expect(clippy::cast_possible_truncation, reason = "`as` saturates")]
    fn integer(&self) -> i64 {
        match *self {
            Self::Integer(value) => value,
            Self::Unsigned(_) => i64::MAX,
            Self::Double(value) => value as i64,
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    fn unsigned(&self) -> u64 {
        match *self {
            Self::Integer(value) => u64::try_from(value).unwrap_or(0),
            Self::Unsigned(value) => value,
            Self::Double(value) => value as u64,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a double has no more digits")]
    fn double(&self) -> f64 {
        match *self {
            Self::Integer(value) => value as f64,
            Self::Unsigned(value) => value as f64,
            Self::Double(value) => value,
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Number;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a number, or a text with a number")
            }

            fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
                Ok(Number::Integer(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
                Ok(i64::try_from(value).map_or(Number::Unsigned(value), Number::Integer))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Number, E> {
                Ok(Number::Double(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                Number::parse(text).ok_or_else(|| E::custom("a text is not a number"))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Bytes in base64.
#[derive(Debug)]
struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map(Self).map_err(|_| D::Error::custom("bytes without base64"))
    }
}

/// Reads a value. `null` stands for the default value.
pub fn nullable<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads the bytes of an id from hexadecimal digits.
pub fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text: String = nullable(deserializer)?;
    hex::decode(text).map_err(|_| D::Error::custom("an id is not hexadecimal"))
}

/// Reads an integer of 64 bits.
pub fn unsigned<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number: Option<Number> = Deserialize::deserialize(deserializer)?;
    Ok(number.map_or(0, |number| number.unsigned()))
}

/// Reads a count or flags.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    unsigned(deserializer).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// Reads the number of an enumeration.
pub fn small<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    unsigned(deserializer).map(|number| i32::try_from(number).unwrap_or(0))
}
