//! The patches that plant faults fit the code: a check whose patch does not apply checks nothing.
//!
//! In: the patches of the simulator and of the model check. Out: a failure that names the patch.

use crate::source::root;
use std::fs;

/// The folders with patches.
const FOLDERS: [&str; 2] = ["tests/simulate/faults", "tests/model/mutations"];

/// Returns the file that a patch changes and the lines that it expects there, a text for each hunk.
fn expected(patch: &str) -> Vec<(&str, String)> {
    let (mut hunks, mut file) = (Vec::new(), "");
    for line in patch.lines() {
        if let Some(path) = line.strip_prefix("--- a/") {
            file = path;
        } else if line.starts_with("@@ ") {
            hunks.push((file, String::new()));
        } else if let Some((_, text)) = hunks.last_mut().filter(|_| !line.starts_with('+')) {
            text.push_str(line.get(1..).unwrap_or_default());
            text.push('\n');
        }
    }
    hunks
}

#[test]
fn patches_fit_the_code() {
    for folder in FOLDERS {
        let mut count = 0;
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "patch") {
                continue;
            }
            let patch = fs::read_to_string(&path).unwrap();
            let hunks = expected(&patch);
            assert!(!hunks.is_empty(), "{} changes nothing", path.display());
            for (file, text) in hunks {
                let code = fs::read_to_string(root().join(file)).unwrap();
                let fits = code.contains(&text);
                assert!(fits, "{} does not fit {file}:\n{text}", path.display());
            }
            count += 1;
        }
        assert!(count > 0, "{folder} has no patch");
    }
}

#[test]
fn a_planted_patch_is_read() {
    let patch =
        "Why.\n\n--- a/x.rs\n+++ b/x.rs\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n@@ -9,2 +9,1 @@\n-d\n\n";
    assert_eq!(expected(patch), [("x.rs", "a\nb\n".into()), ("x.rs", "d\n\n".into())]);
}
