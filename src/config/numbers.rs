//! The kinds of settings that are numbers.
//!
//! In: a value of a flag or of `cfg.yaml`. Out: a number within its bounds, or an error text that
//! says what to write instead. No I/O, no clock.

use super::kinds::{Form, Kind, Warning, shown};
use serde_json::Value;
use std::fmt::Display;

/// A whole number within bounds.
pub(super) struct Number<T> {
    /// The smallest allowed number.
    pub low: T,
    /// The largest allowed number.
    pub high: T,
}

impl<T: Copy + PartialOrd + Display + TryFrom<i64>> Kind for Number<T> {
    type Field = T;
    const FORM: Form = Form::Number;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        let (number, warning) = whole_number(value)?;
        let within = T::try_from(number).ok().filter(|it| (self.low..=self.high).contains(it));
        *field = within.ok_or_else(|| {
            let Self { low, high } = self;
            format!("{number} is out of bounds; write a number from {low} to {high}")
        })?;
        Ok(warning)
    }

    fn show(&self, field: &Self::Field) -> String {
        field.to_string()
    }

    fn values(&self) -> String {
        format!("a whole number from {} to {}", self.low, self.high)
    }
}

/// A whole number of megabytes within bounds.
pub(super) struct Megabytes(pub Number<u64>);

impl Kind for Megabytes {
    type Field = u64;
    const FORM: Form = Form::Megabytes;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        self.0.set(field, value)
    }

    fn show(&self, field: &Self::Field) -> String {
        self.0.show(field)
    }

    fn values(&self) -> String {
        format!("{}, in megabytes", self.0.values())
    }
}

/// Memory for segments in megabytes: 3 or more, or 0. With 0 `pipeline::limits` chooses.
pub(super) struct BufferSize;

impl BufferSize {
    /// The smallest allowed number of megabytes other than 0, as with the original daemon.
    const MIN: u64 = 3;
}

impl Kind for BufferSize {
    type Field = u64;
    const FORM: Form = Form::Megabytes;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        let (megabytes, warning) = whole_number(value)?;
        let megabytes_or_none = u64::try_from(megabytes).unwrap_or_default();
        if (1..Self::MIN).contains(&megabytes_or_none) {
            return Err(format!(
                "{megabytes} MB is too little. Give {} or more, or 0 for 1 % of the memory",
                Self::MIN
            ));
        }
        *field = megabytes_or_none;
        Ok(if megabytes < 0 { Some(format!("{megabytes} counts as 0")) } else { warning })
    }

    fn show(&self, field: &Self::Field) -> String {
        field.to_string()
    }

    fn values(&self) -> String {
        format!("0, or a whole number of megabytes from {}", Self::MIN)
    }
}

/// The number of calls in flight, which is brought into its bounds, because the original daemon
/// takes any number. With 0, and with the numbers below, the uploader adapts the number.
pub(super) struct CallCount {
    /// The largest number.
    pub high: usize,
}

impl Kind for CallCount {
    type Field = usize;
    const FORM: Form = Form::Number;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        let (number, warning) = whole_number(value)?;
        let high = self.high;
        *field = usize::try_from(number).unwrap_or_default().min(high);
        let is_changed = usize::try_from(number) != Ok(*field);
        let changed = || format!("{number} is not a number from 1 to {high}; it counts as {field}");
        Ok(is_changed.then(changed).or(warning))
    }

    fn show(&self, field: &Self::Field) -> String {
        match field {
            0 => "0 (adaptive)".to_owned(),
            count => count.to_string(),
        }
    }

    fn values(&self) -> String {
        format!("a whole number from 0 to {}", self.high)
    }
}

/// A number that may be 0. With 0 `pipeline::limits` chooses; `xray limits` shows its choice.
pub(super) struct ZeroIsAutomatic<K>(pub K);

impl<K: Kind> Kind for ZeroIsAutomatic<K> {
    type Field = K::Field;
    const FORM: Form = K::FORM;

    fn set(&self, field: &mut Self::Field, value: &Value) -> Result<Warning, String> {
        self.0.set(field, value)
    }

    fn show(&self, field: &Self::Field) -> String {
        match self.0.show(field) {
            zero if zero == "0" => "0 (see xray limits)".to_owned(),
            number => number,
        }
    }

    fn values(&self) -> String {
        self.0.values()
    }
}

/// Reads a whole number. A fraction is cut off with a warning, as the original daemon does.
pub(super) fn whole_number(value: &Value) -> Result<(i64, Warning), String> {
    if let Some(number) = value.as_i64() {
        return Ok((number, None));
    }
    let number = value.as_f64().filter(|_| !value.is_u64());
    // From 2^53 on, an f64 does not have each whole number.
    let number = number.filter(|number| number.abs() < 2f64.powi(53));
    let number = number.ok_or_else(|| format!("{} is not a whole number", shown(value)))?;
    #[expect(clippy::cast_possible_truncation, reason = "it is below 2^53")]
    let whole = number.trunc() as i64;
    let cut = || format!("{number} is not a whole number; it counts as {whole}");
    Ok((whole, (number.fract() != 0.0).then(cut)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fractions_are_cut_off_with_a_warning_and_whole_ones_without() {
        assert_eq!(whole_number(&json!(24.0)), Ok((24, None)));
        let (number, warning) = whole_number(&json!(24.7)).unwrap();
        assert!(number == 24 && warning.unwrap().contains("24.7 is not a whole number"));
        for value in [json!(u64::MAX), json!(1e300), json!("8"), json!(true), json!([1])] {
            assert!(whole_number(&value).unwrap_err().contains("is not a whole number"));
        }
    }

    #[test]
    fn a_number_outside_the_bounds_of_concurrency_is_brought_into_them_with_a_warning() {
        for (value, expected, is_changed) in
            [(0, 0, false), (1, 1, false), (1000, 1000, false), (-1, 0, true), (1001, 1000, true)]
        {
            let mut field = 5;
            let kind = CallCount { high: 1000 };
            let warning = kind.set(&mut field, &json!(value)).unwrap();
            assert_eq!((field, warning.is_some()), (expected, is_changed), "{value}: {warning:?}");
        }
    }

    #[test]
    fn a_negative_buffer_size_counts_as_automatic_with_a_warning() {
        let mut field = 5;
        let warning = BufferSize.set(&mut field, &json!(-3)).unwrap();
        assert!(field == 0 && warning.unwrap().contains("-3 counts as 0"));
        assert!(BufferSize.set(&mut field, &json!(2)).is_err());
    }
}
