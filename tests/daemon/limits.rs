//! A daemon holds as many segments as `xray limits` promises in words.

use super::process::{Daemon, HEADER, command};

/// A segment of 1,000 bytes, with as many quotes as segments have.
fn segment(number: u64) -> String {
    let start = format!(
        "{HEADER}{{\"trace_id\":\"1-6b02f126-{number:024x}\",\"id\":\"{number:016x}\",\
         \"name\":\"shop.example\",\"start_time\":1795354918.5,\"end_time\":1795354918.75,\
         \"annotations\":{{\"customer\":\"c{number:08}\",\"plan\":\"trial\"}},\"metadata\":{{\"text\":\""
    );
    let length = HEADER.len() + 1_000 - start.len() - 4;
    format!("{start}{}\"}}}}", "x".repeat(length + 1))
}

/// Returns the number of segments that `xray limits` promises to hold.
fn promised(megabytes: &str) -> u64 {
    let output = command(&["-m", megabytes, "-n", "us-east-1", "limits"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find(|line| line.contains("is bridged up to")).unwrap();
    let number = line.split("up to ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    number.replace(',', "").parse().unwrap()
}

#[test]
fn memory_holds_as_many_segments_in_an_outage_as_limits_promises_and_not_many_more() {
    let promised = promised("10");
    assert_eq!(segment(7).len(), HEADER.len() + 1_000);
    // No program listens there.
    let daemon = Daemon::start("http://127.0.0.1:1", &["-m", "10"], &[]);
    daemon.send((0..promised).map(segment));
    daemon.wait_for_metric("xray_segments_received_total", promised);
    assert_eq!(daemon.metric("xray_segments_held"), promised, "{}", daemon.log());
    // Twice as many do not fit: the promise is not much too small.
    daemon.send((promised..2 * promised).map(segment));
    daemon.wait_for_metric("xray_segments_received_total", 2 * promised);
    daemon.wait_until("segments are dropped for want of memory", || {
        daemon.metric("xray_segments_dropped_total{reason=\"memory\"}") > 0
    });
    daemon.kill();
}
