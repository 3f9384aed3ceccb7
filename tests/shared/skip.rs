//! How a test says that it is skipped: one line on standard error, or a failure.
//!
//! In: what the test wants and this machine does not give. Out: `skipped: TEST: REASON`, past the
//! test harness, which would hide it. Where the variable `XRAY_REQUIRE` names what is wanted, as in
//! `XRAY_REQUIRE=uring,root,mount`, the test fails.

use std::fmt::Display;
use std::io::Write;
use std::panic::Location;

/// What a test may want that not every machine gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A kernel and a sandbox that allow io_uring.
    Uring,
    /// The rights of root.
    Root,
    /// The right to mount file systems.
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

/// Says that the calling test is skipped for want of `need`. The test has to return then.
///
/// # Panics
///
/// Where `XRAY_REQUIRE` names the need, or something that no test knows.
#[track_caller]
pub fn skip(need: Need, reason: impl Display) {
    let caller = Location::caller();
    let place = format!("{}:{}", caller.file(), caller.line());
    let thread = std::thread::current();
    // With one thread the harness runs tests on its own.
    let test = thread.name().filter(|name| *name != "main").unwrap_or(&place);
    let required = std::env::var("XRAY_REQUIRE").unwrap_or_default();
    assert!(!is_required(need, &required), "XRAY_REQUIRE={required}, and {reason}");
    // Not `eprintln`, whose lines the harness keeps to itself.
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
fn what_is_named_is_required_and_a_name_that_no_test_knows_is_an_error() {
    for (list, expected) in [("", false), ("root", false), ("mount", true), ("uring, mount", true)]
    {
        assert_eq!(is_required(Need::Mount, list), expected, "{list}");
    }
    assert!(std::panic::catch_unwind(|| is_required(Need::Mount, "mounts")).is_err());
}
