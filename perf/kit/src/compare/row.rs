//! Rows: one line of JSON for each turn, with all data that identifies the measurement.

use super::contender::Contender;
use super::machine::{Machine, load_average};
use super::measure::Conditions;
use super::scenario::Scenario;
use super::turn::Turn;
use crate::sender::Size;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// The result of one turn (a contender in one scenario and round), as a row of the results.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Time of the end of the turn, in seconds since 1970.
    pub time: u64,
    /// Commit of the measured build, from the command line.
    pub commit: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Model name of the processors.
    pub cpu: String,
    /// Number of processors that sender, contender and endpoint share.
    pub processors: usize,
    /// Value of `net.core.rmem_max`.
    pub rmem_max: String,
    /// Load averages at the end of the turn.
    pub load_average: String,
    /// Name of the contender.
    pub contender: String,
    /// Program and arguments of the contender.
    pub command: String,
    /// Receive backend in the start-up line. If a backend was requested, it is equal to this one.
    pub backend: Option<String>,
    /// Rest of the start-up line: receivers and granted queue size.
    pub start_line: String,
    /// The mode of the run: `privileged` or `confined`.
    pub mode: &'static str,
    /// Name of the scenario.
    pub scenario: String,
    /// Number of the round, from 0.
    pub round: usize,
    /// Parameters that are the same for all contenders.
    pub parameters: BTreeMap<&'static str, serde_json::Value>,
    /// Measured figures by name. The name contains the unit.
    pub figures: BTreeMap<&'static str, f64>,
    /// Why the row does not count, if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discarded: Option<String>,
    /// Memory over time (seconds and resident megabytes), for scenarios that record it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub memory: Vec<(f64, f64)>,
}

/// Writes rows to a file.
#[derive(Debug)]
pub struct Writer {
    file: File,
    machine: Machine,
    commit: String,
    mode: &'static str,
    parameters: BTreeMap<&'static str, serde_json::Value>,
}

impl Writer {
    /// Creates a file at `path`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be created.
    pub fn create(
        path: &Path,
        commit: &str,
        conditions: &Conditions,
        http: &str,
    ) -> io::Result<Self> {
        let size = match &conditions.size {
            Size::Fixed(bytes) => (*bytes).into(),
            Size::Mix(_) => "mix".into(),
        };
        Ok(Self {
            file: File::create(path)?,
            machine: Machine::read(),
            commit: commit.to_owned(),
            mode: mode(conditions.is_confined),
            parameters: BTreeMap::from([
                ("document_bytes", size),
                ("sockets", conditions.socket_count.into()),
                ("seed", conditions.seed.into()),
                ("gso", conditions.gso.into()),
                ("http", http.into()),
                ("quick", conditions.is_quick.into()),
            ]),
        })
    }

    /// Writes the row of a turn to the file, and returns the row.
    ///
    /// # Errors
    ///
    /// Fails if the row cannot be written.
    pub fn write(
        &mut self,
        contender: &Contender,
        scenario: Scenario,
        round: usize,
        turn: Turn,
    ) -> io::Result<Row> {
        let mut parameters = self.parameters.clone();
        let memory_mb = scenario.memory_mb(self.mode == mode(true));
        parameters.insert("memory_mb", memory_mb.into());
        let has_memory = matches!(scenario, Scenario::Outage | Scenario::Flat | Scenario::Slowing);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let row = Row {
            time: now.map_or(0, |time| time.as_secs()),
            commit: self.commit.clone(),
            kernel: self.machine.kernel.clone(),
            cpu: self.machine.processor.clone(),
            processors: self.machine.processor_count,
            rmem_max: self.machine.queue_bytes_max.clone(),
            load_average: load_average(),
            contender: contender.name.clone(),
            command: contender.command_text(),
            backend: turn.backend,
            start_line: turn.start_line,
            mode: self.mode,
            scenario: scenario.name(),
            round,
            parameters,
            figures: turn.figures,
            discarded: turn.discarded,
            memory: if has_memory { turn.memory } else { Vec::new() },
        };
        serde_json::to_writer(&mut self.file, &row)?;
        self.file.write_all(b"\n")?;
        Ok(row)
    }
}

/// Returns the name of the mode in rows and budgets.
pub fn mode(is_confined: bool) -> &'static str {
    if is_confined { "confined" } else { "privileged" }
}

#[cfg(test)]
impl Row {
    /// Returns a row with these figures, for tests.
    pub fn example(
        contender: &str,
        scenario: &str,
        round: usize,
        figures: &[(&'static str, f64)],
    ) -> Self {
        Self {
            time: 0,
            commit: String::new(),
            kernel: String::new(),
            cpu: String::new(),
            processors: 0,
            rmem_max: String::new(),
            load_average: String::new(),
            contender: contender.into(),
            command: String::new(),
            backend: None,
            start_line: String::new(),
            mode: mode(false),
            scenario: scenario.into(),
            round,
            parameters: BTreeMap::new(),
            figures: figures.iter().copied().collect(),
            discarded: None,
            memory: Vec::new(),
        }
    }
}
