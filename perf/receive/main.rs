//! The receive backends side by side: what a datagram costs, and what a burst loses.
//!
//! Run: `cargo bench --bench receive_backends [-- [--quick] [SECTION ...]]`, on a quiet machine
//! with two processors or more, with CAP_NET_ADMIN for the large queues. Out: Markdown tables, of
//! which `perf/results` keeps some.
//!
//! Receive only: the sink counts and touches the first byte. CPU time is the receiver threads' own
//! (`CLOCK_THREAD_CPUTIME_ID`), from the first drain to the end. The variants of a table take
//! turns in each round. Each one names its backend itself and is refused where that does not work.

#![allow(clippy::print_stdout, reason = "the tables are what it is for")]

mod bench;
#[path = "../shared/machine.rs"]
mod machine;
mod sections;

use machine::Machine;

/// What a section takes from the command line.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// A short run that shows that it works; its numbers mean little.
    pub is_quick: bool,
}

impl Effort {
    /// The first where the run is a real one.
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
