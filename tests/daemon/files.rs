//! The permissions of the log file.

use super::endpoint::Endpoint;
use super::process::{behind_shell, daemon_command, wait_for_text, with_credentials};
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_log_file_has_the_originals_permissions_and_at_debug_level_none_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    // The original daemon creates the file with mode 0666 and its folder if it is missing.
    for (umask, level, expected) in [
        ("0022", "info", 0o644),
        ("0022", "prod", 0o644),
        ("0027", "warn", 0o640),
        ("0077", "error", 0o600),
        ("0022", "debug", 0o640),
        ("0000", "dev", 0o640),
    ] {
        let path = folder.path().join(format!("logs/{umask}-{level}.log"));
        let mut inner = daemon_command(&endpoint.url(), &["-l", level]);
        with_credentials(&mut inner).args(["-f", path.to_str().unwrap()]);
        let mut outer = behind_shell(&inner, &format!("umask {umask}; exec \"$@\""));
        let mut child = outer.spawn().unwrap();
        super::process::wait_until(&format!("{} exists", path.display()), || path.exists());
        // The permissions are changed after the file is made. The first line comes later. At the
        // levels warn and error there is none.
        if !["warn", "error"].contains(&level) {
            wait_for_text(&path, "Initializing AWS X-Ray daemon");
        }
        assert_eq!(mode(&path), expected, "{umask} {level}: {:o}", mode(&path));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // A file of an earlier run with another level.
    let path = folder.path().join("earlier.log");
    std::fs::write(&path, "").unwrap();
    set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let inner = daemon_command(&endpoint.url(), &["-l", "debug", "-f", path.to_str().unwrap()]);
    let mut child = behind_shell(&inner, "exec \"$@\"").spawn().unwrap();
    wait_for_text(&path, "Initializing AWS X-Ray daemon");
    assert_eq!(mode(&path), 0o640);
    child.kill().unwrap();
    child.wait().unwrap();
}
