//! `xray limits`: how much memory each part of the daemon may use.
//!
//! In: the configuration and this host. Out: a table.

use crate::base::host::Host;
use crate::config::Config;
use crate::pipeline::limits::{Limits, Wanted};

/// Returns the table of `xray limits`.
pub(super) fn table(config: &Config) -> String {
    Limits::derive(Wanted::from(config), Host::read()).to_string()
}
