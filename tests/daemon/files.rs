//! The permissions of files: the log file's, and those of a configuration file that may be another
//! user's.

use super::endpoint::Endpoint;
use super::process::{
    Daemon, behind_shell, command, daemon_command, wait_for_text, with_credentials,
};
use super::skip::{Need, skip};
use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;

/// A user who is neither root nor the one that the daemon runs as.
const OTHER_USER: u32 = 4_242;

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

/// Returns what `xray config` prints in a folder with this mode that has a `cfg.yaml` of this owner
/// and mode. With `link_owner`, `cfg.yaml` is a link of this user to the file, which is in another
/// folder.
fn config_in(folder_mode: u32, owner: u32, file_mode: u32, link_owner: Option<u32>) -> String {
    let (folder, other_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let entry = folder.path().join("cfg.yaml");
    let file = match link_owner {
        None => entry,
        Some(link_owner) => {
            let file = other_folder.path().join("target.yaml");
            symlink(&file, &entry).unwrap();
            lchown(&entry, Some(link_owner), None).unwrap();
            file
        }
    };
    std::fs::write(&file, "Endpoint: https://xray.example\n").unwrap();
    chown(&file, Some(owner), None).unwrap();
    set_permissions(&file, Permissions::from_mode(file_mode)).unwrap();
    set_permissions(folder.path(), Permissions::from_mode(folder_mode)).unwrap();
    let output = command(&["config"]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success());
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// Returns why the tests of `cfg.yaml` cannot run here, or `None` if they can.
fn config_test_hindrance() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root can give a file away");
    }
    let own = Path::new("/etc/amazon/xray/cfg.yaml");
    own.exists().then_some("this machine has a configuration of its own")
}

#[test]
fn a_configuration_of_another_user_in_a_folder_for_everyone_is_not_read() {
    if let Some(hindrance) = config_test_hindrance() {
        return skip(Need::Root, hindrance);
    }
    for (folder_mode, owner, file_mode, is_read) in [
        // As in /tmp.
        (0o1777, OTHER_USER, 0o644, false),
        (0o755, OTHER_USER, 0o666, false),
        (0o775, OTHER_USER, 0o644, false),
        (0o755, OTHER_USER, 0o644, true),
        (0o1777, 0, 0o644, true),
    ] {
        let shown = config_in(folder_mode, owner, file_mode, None);
        let case = format!("{folder_mode:o} {owner} {file_mode:o}: {shown}");
        assert_eq!(shown.contains("https://xray.example"), is_read, "{case}");
        let warning = format!("is not read: user {owner} owns it");
        assert_eq!(shown.contains(&warning), !is_read, "{case}");
    }
}

#[test]
fn a_link_is_trusted_as_little_as_its_owner_and_as_the_file_behind_it() {
    if let Some(hindrance) = config_test_hindrance() {
        return skip(Need::Root, hindrance);
    }
    for (folder_mode, link_owner, owner, file_mode, distrusted) in [
        // Behind the link is a file of another user: in /tmp, and one that everybody may write.
        (0o1777, 0, OTHER_USER, 0o644, Some(OTHER_USER)),
        (0o755, 0, OTHER_USER, 0o666, Some(OTHER_USER)),
        (0o755, 0, OTHER_USER, 0o644, None),
        // The link itself is another user's, who can point it to any file.
        (0o1777, OTHER_USER, 0, 0o644, Some(OTHER_USER)),
        (0o755, OTHER_USER, 0, 0o644, None),
        (0o1777, 0, 0, 0o644, None),
    ] {
        let shown = config_in(folder_mode, owner, file_mode, Some(link_owner));
        let case = format!("{folder_mode:o} {link_owner} {owner} {file_mode:o}: {shown}");
        assert_eq!(shown.contains("https://xray.example"), distrusted.is_none(), "{case}");
        let warning = format!("is not read: user {} owns it", distrusted.unwrap_or_default());
        assert_eq!(shown.contains(&warning), distrusted.is_some(), "{case}");
    }
}

#[test]
fn a_daemon_says_that_it_has_not_read_the_configuration_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        return skip(Need::Root, "only root can give a file away");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cfg.yaml");
    // A file that is not valid would end the start.
    std::fs::write(&file, "Version: [\n").unwrap();
    chown(&file, Some(OTHER_USER), None).unwrap();
    set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
    let endpoint = Endpoint::start();
    let mut command = daemon_command(&endpoint.url(), &[]);
    with_credentials(&mut command).current_dir(folder.path());
    let daemon = Daemon::spawn(command);
    let line = daemon.wait_for_line("is not read: user 4242 owns it");
    assert!(line.contains("[Warn] the configuration file ") && line.contains("-c"), "{line}");
    assert!(daemon.stop().0.success());
}
