//! Where the region comes from when nobody has named one: metadata services, faked on 127.0.0.1.

use super::endpoint::{Endpoint, Reply};
use super::process::{Daemon, HEADER, backend, command, run_to_end_with};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How the fake of the instance metadata service behaves.
#[derive(Clone, Copy)]
enum Metadata {
    /// Gives tokens, and the region to those who have one.
    Answers(&'static str),
    /// Takes connections and answers nothing, as when the answer's hop limit is too low.
    Hangs,
}

/// Starts the fake; returns its address and the request lines that it has seen.
fn start(metadata: Metadata) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            match metadata {
                Metadata::Answers(region) => {
                    let seen = Arc::clone(&seen);
                    thread::spawn(move || serve(stream, region, &seen));
                }
                Metadata::Hangs => held.push(stream),
            }
        }
    });
    (address, lines)
}

fn serve(stream: TcpStream, region: &str, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let head: Vec<String> = reader
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .collect();
        let Some(line) = head.first() else { return };
        seen.lock().unwrap().push(line.clone());
        let has_token = head
            .iter()
            .any(|line| line.to_ascii_lowercase() == "x-aws-ec2-metadata-token: of-test");
        let (status, body) = if line.starts_with("PUT /latest/api/token ") {
            ("200 OK", "of-test")
        } else if line.starts_with("GET /latest/meta-data/placement/region ") && has_token {
            ("200 OK", region)
        } else {
            ("404 Not Found", "")
        };
        let length = body.len();
        let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 600";
        let answer =
            format!("HTTP/1.1 {status}\r\n{ttl}\r\nContent-Length: {length}\r\n\r\n{body}");
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A daemon that has to find its region, with instance metadata at `metadata`.
fn daemon(
    endpoint: &str,
    metadata: SocketAddr,
    variables: &[(&str, &str)],
) -> std::process::Command {
    let backend = backend().name();
    let mut command = command(&["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "--receiver", backend]);
    command
        .env_remove("AWS_EC2_METADATA_DISABLED")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{metadata}"))
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_ENDPOINT_URL_XRAY", endpoint)
        .envs(variables.iter().copied());
    command
}

#[test]
fn the_instance_knows_its_region_and_is_asked_with_a_token() {
    let endpoint = Endpoint::start(|_| Reply::Accept);
    let (metadata, lines) = start(Metadata::Answers("ca-central-1\n"));
    let daemon = Daemon::spawn(daemon(&endpoint.url(), metadata, &[]));
    daemon.wait_for_line("in region ca-central-1");
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let lines = lines.lock().unwrap();
    assert!(lines[0].starts_with("PUT /latest/api/token"), "{lines:?}");
}

#[test]
fn the_environment_comes_before_the_instance() {
    let endpoint = Endpoint::start(|_| Reply::Accept);
    let (metadata, lines) = start(Metadata::Answers("ca-central-1"));
    let variables = [("AWS_DEFAULT_REGION", "eu-south-2")];
    let daemon = Daemon::spawn(daemon(&endpoint.url(), metadata, &variables));
    daemon.wait_for_line("in region eu-south-2");
    drop(daemon);
    assert!(lines.lock().unwrap().is_empty());
}

#[test]
fn a_metadata_service_that_does_not_answer_is_given_up_with_a_hint_at_the_hop_limit() {
    let (metadata, _) = start(Metadata::Hangs);
    let start = Instant::now();
    let (code, log) = run_to_end_with(daemon("http://127.0.0.1:1", metadata, &[]));
    assert_eq!(code, Some(1), "{log}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    for part in ["no region was found", "instance metadata: ", "hop-limit 2", "AWS_REGION: not set"]
    {
        assert!(log.contains(part), "{part} is not in\n{log}");
    }
}

#[test]
fn segments_are_accepted_while_the_region_is_looked_for() {
    let (metadata, _) = start(Metadata::Hangs);
    let daemon = Daemon::spawn(daemon("http://127.0.0.1:1", metadata, &[]));
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_received_total", 1);
    let (status, log) = daemon.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("dropped=1 (shutdown=1)"), "{log}");
}
