//! Compares the receive backends: CPU time per datagram, and losses in a burst.
//!
//! Run: `cargo bench --bench receive_backends [-- [--quick] [SECTION ...]]`, on an idle machine
//! with at least two processors, with CAP_NET_ADMIN for the large queues. Out: Markdown tables;
//! `perf/results` keeps some of them.
//!
//! This measures receiving only: the sink counts datagrams and touches their first byte. The tables
//! show the CPU time of the receiver threads (`CLOCK_THREAD_CPUTIME_ID`), from the first drain to
//! the end. The variants of a table take turns in each round. If a backend does not work on this
//! machine, the run fails.

#![allow(clippy::print_stdout, reason = "the program prints tables")]

mod bench;
#[path = "../shared/machine.rs"]
mod machine;
mod sections;

use machine::Machine;

/// How long the benchmark measures, from the command line.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Whether the run is short. A short run only shows that the benchmark works.
    pub is_quick: bool,
}

impl Effort {
    /// Returns `full` for a real run and `quick` for a short one.
    pub fn choose<T>(self, full: T, quick: T) -> T {
        if self.is_quick { quick } else { full }
    }
}

type Section = fn(Effort);

const SECTIONS: &[(&str, Section)] = &[
    ("drain", sections::drain),
    ("paced", sections::paced),
    ("flat", sections::flat),
    ("burst", sections::burst),
    ("silence", sections::silence),
    ("many", sections::many),
    ("spread", sections::spread),
    ("idle", sections::idle),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let is_quick = words.iter().any(|word| word == "--quick");
    let names: Vec<&String> = words.iter().filter(|word| !word.starts_with("--")).collect();
    println!("{}\n", Machine::read());
    for (name, section) in SECTIONS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            section(Effort { is_quick });
            println!();
        }
    }
}
