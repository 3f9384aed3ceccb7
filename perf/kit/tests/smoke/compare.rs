//! Tests `xrayd-perf compare` with the floor in the place of a daemon, and for spans with the real
//! daemon.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const KIT: &str = env!("CARGO_BIN_EXE_xrayd-perf");

/// Runs a comparison that writes its results to `folder`.
fn compare(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(KIT);
    command.args(["compare", "--quick", "--rounds", "1", "--seconds", "0.5", "--out"]);
    command.arg(folder).args(arguments).output().unwrap()
}

#[test]
fn a_program_with_its_own_flags_and_file_is_loaded_and_its_documents_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    // The program is a script that starts the floor with the words of a file.
    let (script, words) = (folder.path().join("script"), folder.path().join("words"));
    fs::write(&script, "echo reading\nset -- $(cat $2)\necho ready\nexec \"$@\"\n").unwrap();
    let text = "{kit} floor --listen {udp} --endpoint {endpoint_address} --authority {authority}";
    fs::write(&words, text.replace("{kit}", KIT)).unwrap();
    let daemon = format!("other=/bin/sh {} --words {{file:{}}}", script.display(), words.display());
    let output = compare(
        folder.path(),
        &["--daemon", &daemon, "--ready", "other=ready", "--only", "rate-400-2ms"],
    );
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let rows = fs::read_to_string(folder.path().join("rows.jsonl")).unwrap();
    let row: Value = serde_json::from_str(rows.trim()).unwrap();
    assert_eq!((&row["contender"], &row["scenario"]), (&"other".into(), &"rate-400-2ms".into()));
    assert_eq!(row["parameters"]["memory_mb"], 256);
    let figure = |name: &str| row["figures"][name].as_f64().unwrap();
    assert!(figure("sent") > 0.0 && figure("delivered") > 0.0, "{row}");
    assert_eq!(figure("lost"), figure("sent") - figure("delivered"));
    assert_eq!(figure("sockets"), 1.0);
}

#[test]
fn a_daemon_and_the_floor_get_the_same_spans_and_lose_none() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = format!("xray={}", super::spans::daemon().display());
    let arguments = ["--daemon", &daemon, "--floor", "--only", "spans-grpc-4000-gzip"];
    let output = compare(folder.path(), &arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let rows = fs::read_to_string(folder.path().join("rows.jsonl")).unwrap();
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    for row in &rows {
        let figure = |name: &str| row["figures"][name].as_f64().unwrap_or(f64::NAN);
        assert!(figure("sent") > 0.0 && figure("cpu_us_per_segment") > 0.0, "{row}");
        assert_eq!((figure("lost"), figure("refused")), (0.0, 0.0), "{row}");
        assert_eq!(row["discarded"], Value::Null);
        let bytes = [figure("received_bytes_per_span"), figure("sent_bytes_per_span")];
        assert!(bytes.iter().all(|bytes| (20.0..150.0).contains(bytes)), "{row}");
    }
    let of_daemon = rows.iter().find(|row| row["contender"] == "xray").unwrap();
    assert_eq!(of_daemon["figures"]["unaccounted"], 0.0);
    let report = fs::read_to_string(folder.path().join("summary.md")).unwrap();
    assert!(report.contains("CPU us per span | x floor"), "{report}");
}

#[test]
fn a_wrong_word_ends_the_comparison_before_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = ["--daemon", "x=/bin/sh"];
    for (arguments, message) in [
        (["--only", "rate-20000-fast"], "rate-20000-fast: no scenario"),
        (["--ready", "y=text"], "--ready y: no such daemon"),
        (["--ready", "x"], "give --ready as NAME=TEXT"),
        (["--daemon", "z=/bin/sh {file:/no/such/file}"], "z: /no/such/file"),
    ] {
        let output = compare(folder.path(), &[daemon, arguments].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(message), "{error}");
    }
}
