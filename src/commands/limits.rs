//! `xray limits`: how much memory each part of the daemon may use, and what fits into it.
//!
//! In: the configuration and this host. Out: a few sentences, then a table.

use crate::base::host::Host;
use crate::config::Config;
use crate::pipeline::capacity::Capacity;
use crate::pipeline::limits::{Limits, Wanted};

/// Returns the text of `xray limits`.
pub(super) fn table(config: &Config) -> String {
    let limits = Limits::derive(Wanted::from(config), Host::read());
    format!("{}\n{limits}", Capacity::of(&limits))
}
