//! Runs a program with the restrictions of a container without privileges, without changes to the
//! machine.
//!
//! `confine PROGRAM ARGUMENTS...` drops root, installs a seccomp filter that denies io_uring like
//! the default profiles of Docker, containerd and Fargate, and makes the kernel keep
//! `net.core.rmem_default` (208 KiB) as the queue of each socket: `SO_RCVBUF` succeeds and does
//! nothing, as if `net.core.rmem_max` were no larger. Then the process executes the program, under
//! the same process id.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The user id of `nobody`.
const USER: u32 = 65_534;

/// System call numbers, from asm/unistd.h. The numbers of io_uring are the same on all processors.
const IO_URING: [i64; 3] = [425, 426, 427];
#[cfg(target_arch = "x86_64")]
const SETSOCKOPT: i64 = 54;
#[cfg(target_arch = "aarch64")]
const SETSOCKOPT: i64 = 208;

const SOL_SOCKET: u64 = 1;
/// `SO_RCVBUF` and `SO_RCVBUFFORCE`, from asm-generic/socket.h.
const SO_RCVBUF: [u64; 2] = [8, 33];

const EPERM: u32 = 1;

/// Executes the program in place of this process. Returns only if that fails.
///
/// # Errors
///
/// Fails if the kernel rejects the filter, or if the program cannot be executed.
pub fn become_confined(mut words: impl Iterator<Item = OsString>) -> Result<(), Box<dyn Error>> {
    let program = words.next().ok_or("confine needs a program")?;
    let mut command = Command::new(program);
    command.args(words);
    // The user id changes on `exec`, after the filters are installed. The filters also apply to the
    // new user.
    if rustix::process::geteuid().is_root() {
        command.uid(USER).gid(USER);
    }
    for filter in filters()? {
        apply_filter(&filter)?;
    }
    Err(command.exec().into())
}

/// Returns two seccomp filters. The first denies io_uring. With the second, `SO_RCVBUF` succeeds
/// without effect.
fn filters() -> Result<[BpfProgram; 2], Box<dyn Error>> {
    let denied = IO_URING.map(|number| (number, Vec::new()));
    let level = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, SOL_SOCKET)?;
    let rules = SO_RCVBUF.map(|option| {
        let option = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, option)?;
        SeccompRule::new(vec![level.clone(), option])
    });
    let rules = rules.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok([filter(BTreeMap::from(denied), EPERM)?, filter(BTreeMap::from([(SETSOCKOPT, rules)]), 0)?])
}

fn filter(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: u32,
) -> Result<BpfProgram, Box<dyn Error>> {
    let processor = std::env::consts::ARCH.try_into()?;
    let (other, matching) = (SeccompAction::Allow, SeccompAction::Errno(errno));
    Ok(SeccompFilter::new(rules, other, matching, processor)?.try_into()?)
}
