//! Tests of a spool of spans, as far as it differs from one of segments.

use super::*;

#[test]
fn what_is_said_about_a_spool_of_spans_names_its_files() {
    let folder = folder();
    let path = folder.path().join("otlp");
    let open = || {
        let options = Options { path: path.clone(), ..options(folder.path(), 1_000_000) };
        Spool::open_for(Signal::Spans, Arc::new(SystemDisk), options, at(NOW)).unwrap().0
    };
    let mut spool = open();
    let _ = append(&mut spool, 0);
    drop(spool);
    let file = path.join("0000000001.spans");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let Next::Damaged(name, _) = open().next(at(NOW)) else { panic!("the file is torn") };
    assert_eq!(name, "0000000001.spans");
    std::fs::write(&file, bytes).unwrap();
    let mut spool = open();
    // Even root cannot read the file now: the spool never follows a link.
    std::fs::rename(&file, path.join("aside")).unwrap();
    symlink("aside", &file).unwrap();
    let Next::Unreadable(error) = spool.next(at(NOW)) else { panic!("the file cannot be read") };
    assert!(error.to_string().contains("cannot read its file 0000000001.spans: "), "{error}");
}
