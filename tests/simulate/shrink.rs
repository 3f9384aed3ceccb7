//! Makes a plan that fails smaller: leaves out steps while it still fails.
//!
//! In: a plan that fails. Out: a plan with fewer steps that fails, perhaps for another reason.
//! Bound: [`RUN_COUNT_MAX`] runs.

use super::plan::Plan;
use super::run::run;

/// The largest number of runs.
const RUN_COUNT_MAX: usize = 300;

/// Leaves out as many steps as possible: first half of them at once, at last single ones.
pub fn shrink(mut plan: Plan) -> Plan {
    let mut run_count = 0;
    let mut length = plan.steps.len() / 2;
    while length > 0 {
        let mut has_shrunk = false;
        let mut start = 0;
        while start < plan.steps.len() && run_count < RUN_COUNT_MAX {
            let mut smaller = plan.clone();
            let more = (start..plan.steps.len()).filter(|index| !plan.without.contains(index));
            smaller.without.extend(more.take(length));
            start += length;
            if smaller.without.len() == plan.without.len() {
                break;
            }
            run_count += 1;
            if run(&smaller).failure.is_some() {
                plan = smaller;
                has_shrunk = true;
            }
        }
        if !has_shrunk {
            length /= 2;
        }
        if run_count >= RUN_COUNT_MAX {
            break;
        }
    }
    plan.without.sort_unstable();
    plan
}
