//! Seeds that have found a fault. Each fault is mended, and its seed stays here.
//!
//! In: a plan. Out: a failure if the fault is back.

use super::plan::Plan;
use super::run::run;

/// Runs a seed without the steps of these numbers.
fn check(seed: u64, without: &[usize]) {
    super::hide_panics();
    let plan = Plan { without: without.to_vec(), ..Plan::draw(seed) };
    assert_eq!(run(&plan).failure, None, "seed {seed}");
}

#[test]
fn what_the_disk_has_not_taken_at_first_is_settled_there_later() {
    check(963, &[]);
}

#[test]
fn a_copy_that_could_not_be_removed_after_a_failed_fsync_is_removed_later() {
    check(558, &[2, 3, 18, 19, 20]);
}
