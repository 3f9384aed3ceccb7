//! Reports that a test is skipped: one line on standard error, or a failure.
//!
//! In: a need of the test that this machine does not meet. Out: `skipped: TEST: REASON`, written
//! directly to standard error, because the test harness hides what a test prints. If the variable
//! `XRAY_REQUIRE` names the need, as in `XRAY_REQUIRE=uring,root,mount`, the test fails instead.

use std::fmt::Display;
use std::io::Write;
use std::panic::Location;

/// A need of a test that not every machine meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A kernel and a container that allow io_uring.
    Uring,
    /// Root privileges.
    Root,
    /// Permission to mount file systems.
    Mount,
}

impl Need {
    const ALL: [Self; 3] = [Self::Uring, Self::Root, Self::Mount];

    fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Root => "root",
            Self::Mount => "mount",
        }
    }
}

/// Reports that the calling test is skipped because this machine does not meet `need`. The test
/// must return after that.
///
/// # Panics
///
/// Panics if `XRAY_REQUIRE` contains this need, or an unknown need.
#[track_caller]
pub fn skip(need: Need, reason: impl Display) {
    let caller = Location::caller();
    let place = format!("{}:{}", caller.file(), caller.line());
    let thread = std::thread::current();
    // With one thread the harness runs tests on its main thread.
    let test = thread.name().filter(|name| *name != "main").unwrap_or(&place);
    let required = std::env::var("XRAY_REQUIRE").unwrap_or_default();
    assert!(!is_required(need, &required), "XRAY_REQUIRE={required}, but {reason}");
    // `eprintln` is not used, because the harness captures its output.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
}

fn is_required(need: Need, list: &str) -> bool {
    let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    for name in &names {
        let is_known = Need::ALL.iter().any(|known| known.name() == *name);
        assert!(is_known, "XRAY_REQUIRE={list}: {name} is not one of uring, root and mount");
    }
    names.contains(&need.name())
}

#[test]
fn a_named_need_is_required_and_an_unknown_name_is_an_error() {
    for (list, expected) in [("", false), ("root", false), ("mount", true), ("uring, mount", true)]
    {
        assert_eq!(is_required(Need::Mount, list), expected, "{list}");
    }
    assert!(std::panic::catch_unwind(|| is_required(Need::Mount, "mounts")).is_err());
}
