//! The result of a turn.

use std::collections::BTreeMap;

/// The result of a turn: one contender in one scenario and round.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// The measured numbers by name. The name contains the unit.
    pub figures: BTreeMap<&'static str, f64>,
    /// Receive backend that the start-up line names, if it names one.
    pub backend: Option<String>,
    /// The start-up line.
    pub start_line: String,
    /// Resident memory over time: seconds and megabytes.
    pub memory: Vec<(f64, f64)>,
    /// Why the turn does not count, if it does not.
    pub discarded: Option<String>,
}

impl Turn {
    /// Records a figure.
    pub fn put(&mut self, name: &'static str, value: f64) {
        self.figures.insert(name, value);
    }
}

/// Returns a number of bytes in megabytes.
pub fn in_megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}
