//! Rows: one line of JSON for each turn, with all that is needed to tell what it is of.

use super::contender::Contender;
use super::machine::{Machine, load_average};
use super::measure::{Conditions, Turn};
use super::scenario::Scenario;
use crate::sender::Size;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// A turn in the results.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// When it ended, in seconds since 1970.
    pub time: u64,
    /// The commit that was built, as the command line says.
    pub commit: String,
    /// The kernel's release.
    pub kernel: String,
    /// The processors' own name.
    pub cpu: String,
    /// Processors that all of them share.
    pub processors: usize,
    /// `net.core.rmem_max`.
    pub rmem_max: String,
    /// The load averages when it ended.
    pub load_average: String,
    /// The contender's name.
    pub contender: String,
    /// Its program and arguments.
    pub command: String,
    /// The receive backend that its start-up line names; asserted where one was asked for.
    pub backend: Option<String>,
    /// The rest of its start-up line: receivers, the queue that was granted.
    pub start_line: String,
    /// `privileged` or `confined`.
    pub mode: &'static str,
    /// The scenario's name.
    pub scenario: String,
    /// Counted from 0.
    pub round: usize,
    /// What was the same for all.
    pub parameters: BTreeMap<&'static str, serde_json::Value>,
    /// What was seen; the unit is in the name.
    pub figures: BTreeMap<&'static str, f64>,
    /// Seconds and resident megabytes, where memory is what it is about.
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
    /// A new file at `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
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

    /// Adds a turn; returns its row.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(
        &mut self,
        contender: &Contender,
        scenario: Scenario,
        round: usize,
        turn: Turn,
    ) -> io::Result<Row> {
        let mut parameters = self.parameters.clone();
        parameters.insert("memory_mb", scenario.memory_mb().into());
        let has_memory = matches!(scenario, Scenario::Outage | Scenario::Flat);
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
            memory: if has_memory { turn.memory } else { Vec::new() },
        };
        serde_json::to_writer(&mut self.file, &row)?;
        self.file.write_all(b"\n")?;
        Ok(row)
    }
}

/// The word for it in rows and budgets.
pub fn mode(is_confined: bool) -> &'static str {
    if is_confined { "confined" } else { "privileged" }
}

#[cfg(test)]
impl Row {
    /// A row with these figures.
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
            memory: Vec::new(),
        }
    }
}
