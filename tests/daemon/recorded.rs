//! The documents of datagrams recorded from real senders arrive byte for byte, each of them once.

use super::backend::is_backend_missing;
use super::endpoint::Endpoint;
use super::process::Daemon;
use std::fs;
use std::path::Path;

/// Returns the datagrams of `tests/segments`, in the order of their file names.
fn recorded() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/segments");
    let mut recorded: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .map(|path| (path.display().to_string(), fs::read(path).unwrap()))
        .collect();
    recorded.sort();
    recorded
}

/// Returns the text after the first newline.
fn document(datagram: &[u8]) -> String {
    let newline = datagram.iter().position(|&byte| byte == b'\n').unwrap();
    String::from_utf8(datagram[newline + 1..].to_vec()).unwrap()
}

#[test]
fn every_recorded_datagram_arrives_byte_for_byte_and_once() {
    if is_backend_missing() {
        return;
    }
    let recorded = recorded();
    assert!(recorded.len() >= 47, "{} datagrams", recorded.len());
    let endpoint = Endpoint::start();
    let daemon = Daemon::start(&endpoint.url(), &[], &[]);
    daemon.send(recorded.iter().map(|(_, datagram)| datagram));
    daemon.wait_for_metric("xray_segments_sent_total", recorded.len() as u64);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let mut arrived = endpoint.sorted_documents();
    for (name, datagram) in &recorded {
        let place = arrived.iter().position(|arrived| *arrived == document(datagram));
        arrived.swap_remove(place.unwrap_or_else(|| panic!("{name} has not arrived unchanged")));
    }
    assert!(arrived.is_empty(), "documents that were not sent: {arrived:?}");
}
