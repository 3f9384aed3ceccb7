//! The names of the files of a spool.
//!
//! In: the number and the kind of a file, or its name. Out: its name, or the number and the kind.
//! Bound: a name has ten digits and a suffix. Thread: any.

/// The largest number that has ten digits. At one file a second it is reached after 300 years.
pub const SEQUENCE_MAX: u64 = 9_999_999_999;

const SEQUENCE_DIGIT_COUNT: usize = 10;

/// The kind of a spool file. A data file and its progress file share a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The data file, which has the records.
    Data,
    /// The data file of a spool of spans.
    Spans,
    /// The progress file, which lists the settled records of the data file.
    Progress,
}

/// Returns the name of a file.
pub fn name(sequence: u64, kind: Kind) -> String {
    let suffix = match kind {
        Kind::Data => "spool",
        Kind::Spans => "spans",
        Kind::Progress => "done",
    };
    format!("{sequence:010}.{suffix}")
}

/// Returns the number and the kind of the file with this name; `None` if the name is not one that
/// [`name`] returns.
pub fn parse(name: &str) -> Option<(u64, Kind)> {
    let (digits, suffix) = name.split_once('.')?;
    let kind = match suffix {
        "spool" => Kind::Data,
        "spans" => Kind::Spans,
        "done" => Kind::Progress,
        _ => return None,
    };
    let is_number =
        digits.len() == SEQUENCE_DIGIT_COUNT && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten().map(|sequence| (sequence, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written_and_others_are_not_ours() {
        for kind in [Kind::Data, Kind::Spans, Kind::Progress] {
            for sequence in [0, 1, SEQUENCE_MAX] {
                assert_eq!(parse(&name(sequence, kind)), Some((sequence, kind)));
            }
        }
        let foreign =
            ["lock", "1.spool", "00000000001.spool", "+000000001.spool", "0000000001.spool.x"];
        assert!(foreign.iter().all(|name| parse(name).is_none()));
    }
}
