//! Tests of the trace file: reading it again, incomplete and invalid lines, and rewriting it.

use super::*;
use proptest::prelude::*;
use std::fs;
use tempfile::TempDir;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("traces.jsonl");
    (folder, path)
}

/// Returns the documents that a new process reads from the file.
fn reopened(path: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    TraceFile::open(path).unwrap().read(|text| {
        texts.push(text.to_owned());
        true
    });
    texts
}

#[test]
fn appended_documents_are_there_at_the_next_start_for_this_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, path) = folder();
    let mut file = TraceFile::open(&path).unwrap();
    file.read(|_| panic!("a new file has no lines"));
    file.append(["{\n}", "größe \u{0}\""].into_iter());
    file.append(["c"].into_iter());
    drop(file);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(reopened(&path), ["{\n}", "größe \u{0}\"", "c"]);
}

#[test]
fn half_a_line_at_the_end_is_cut_off_and_the_next_one_stands_alone() {
    let (_folder, path) = folder();
    fs::write(&path, "\"a\"\n\"b").unwrap();
    let mut file = TraceFile::open(&path).unwrap();
    file.read(|_| true);
    file.append(["c"].into_iter());
    drop(file);
    assert_eq!(reopened(&path), ["a", "c"]);
}

#[test]
fn lines_that_are_no_documents_are_skipped() {
    let (_folder, path) = folder();
    let long = "x".repeat(usize::try_from(LINE_BYTES_MAX).unwrap() * 3);
    fs::write(&path, format!("\"a\"\n{{}}\n\n\"{long}\"\n\u{0}\n\"b\"\n\"{long}")).unwrap();
    assert_eq!(reopened(&path), ["a", "b"]);
    assert!(fs::metadata(&path).unwrap().len() < 4 * LINE_BYTES_MAX);
}

#[test]
fn the_longest_document_fits_into_a_line() {
    let (_folder, path) = folder();
    let text = "\u{1}".repeat(DOCUMENT_SIZE_BYTES_MAX);
    let mut file = TraceFile::open(&path).unwrap();
    file.append([&*text].into_iter());
    drop(file);
    assert_eq!(reopened(&path), [text]);
}

#[test]
fn two_processes_do_not_write_one_file() {
    let (_folder, path) = folder();
    let _file = TraceFile::open(&path).unwrap();
    assert!(TraceFile::open(&path).unwrap_err().to_string().contains("another process"));
}

#[test]
fn a_file_that_has_grown_is_rewritten() {
    let (_folder, path) = folder();
    let mut file = TraceFile::open(&path).unwrap();
    let large = "x".repeat(1024 * 1024);
    for _ in 0..17 {
        file.append([&*large].into_iter());
    }
    assert!(file.is_grown(1024));
    assert!(!file.is_grown(64 * 1024 * 1024));
    file.rewrite(["a", "b"].into_iter());
    assert!(!file.is_grown(1024));
    file.append(["c"].into_iter());
    // This process still holds the lock.
    assert!(TraceFile::open(&path).is_err());
    drop(file);
    assert_eq!(reopened(&path), ["a", "b", "c"]);
}

#[test]
fn a_file_that_cannot_be_written_is_left_as_it_is() {
    let path = PathBuf::from("/dev/full");
    let file = options().open(&path).unwrap();
    let mut file = TraceFile { path, file, size_bytes: 0, is_broken: false };
    file.append(["a"].into_iter());
    assert!(file.is_broken);
    file.append(["b"].into_iter());
    file.rewrite(["c"].into_iter());
    assert!(!Path::new("/dev/full.new").exists());
}

#[test]
fn another_file_is_neither_cut_nor_written_to() {
    let (_folder, path) = folder();
    for bytes in [&b"\x89PNG\r\n\x1a\n rest"[..], b"no line at all", b"one line\n", b"{}\n\"x"] {
        fs::write(&path, bytes).unwrap();
        let mut file = TraceFile::open(&path).unwrap();
        file.read(|_| true);
        file.append(["a"].into_iter());
        file.rewrite(["b"].into_iter());
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_file_that_is_not_regular_is_refused() {
    let error = TraceFile::open(Path::new("/dev/full")).unwrap_err();
    assert_eq!(error.to_string(), "it is not a regular file");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_that_is_cut_anywhere_gives_back_the_whole_lines(
        texts in prop::collection::vec(".{0,20}", 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let (_folder, path) = folder();
        let mut file = TraceFile::open(&path).unwrap();
        file.append(texts.iter().map(String::as_str));
        drop(file);
        let bytes = fs::read(&path).unwrap();
        let cut = cut.index(bytes.len() + 1);
        fs::write(&path, &bytes[..cut]).unwrap();
        let whole_count = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
        prop_assert_eq!(reopened(&path), &texts[..whole_count]);
    }
}
