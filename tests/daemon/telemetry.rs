//! The telemetry that the daemon sends to the service. Its counts must be correct from the first
//! segment on.
//!
//! `src/admin/telemetry/tests.rs` tests the interval of one minute between two records. The tests
//! here check the record of the shutdown, which contains all counts since the last record.

use super::answers::Failure;
use super::endpoint::{Endpoint, Way};
use super::fake::Fake;
use super::http_proxy::{self, HttpProxy, Manner};
use super::load::{document, send};
use super::process::{Daemon, HEADER, config_file, daemon_command, with_credentials};
use super::tls::Authority;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// The kinds of failures. Each has its name in a telemetry record, and its name in the metrics.
const KINDS: [(&str, &str); 6] = [
    ("TimeoutCount", "timeout"),
    ("ConnectionRefusedCount", "connection_refused"),
    ("HTTPCode4XXCount", "http_4xx"),
    ("HTTPCode5XXCount", "http_5xx"),
    ("UnknownHostCount", "unknown_host"),
    ("OtherCount", "other"),
];

/// Returns the only telemetry call, and the only record in that call.
fn only(calls: &[Value]) -> (Value, Value) {
    assert_eq!(calls.len(), 1, "{calls:?}");
    let records = calls[0]["TelemetryRecords"].as_array().unwrap();
    assert_eq!(records.len(), 1, "{records:?}");
    (calls[0].clone(), records[0].clone())
}

/// Makes a daemon send a segment and stops it. Returns its log and its only telemetry call.
fn run_once(endpoint: &Endpoint, daemon: Daemon) -> (String, Value) {
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_sent_total", 1);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    (log, only(&endpoint.ledger(|ledger| ledger.telemetry.clone())).0)
}

#[test]
fn the_last_record_has_true_counts_and_names_the_host() {
    let endpoint = Endpoint::start();
    let arguments = ["-a", "arn:aws:ec2:eu-west-1:1:instance/i-1"];
    let host = [("AWS_HOSTNAME", "web-1"), ("AWS_INSTANCE_ID", "i-0123456789abcdef0")];
    let daemon = Daemon::start(&endpoint.url(), &arguments, &host);
    daemon.send((0..10).map(|index| format!("{HEADER}{{\"n\":{index}}}")));
    daemon.send(["no header", "{}\n{}"]);
    daemon.wait_for_metric("xray_segments_sent_total", 10);
    daemon.wait_for_metric("xray_segments_received_total", 12);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let (mut call, mut record) = only(&endpoint.ledger(|ledger| ledger.telemetry.clone()));
    let at = record.as_object_mut().unwrap().remove("Timestamp").unwrap().as_f64().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(at <= now && at > now - 60.0, "{at}");
    let none: serde_json::Map<_, _> =
        KINDS.iter().map(|(name, _)| ((*name).to_owned(), json!(0))).collect();
    assert_eq!(
        record,
        json!({
            "SegmentsReceivedCount": 12,
            "SegmentsSentCount": 10,
            "SegmentsSpilloverCount": 0,
            "SegmentsRejectedCount": 2,
            "BackendConnectionErrors": none,
        })
    );
    call.as_object_mut().unwrap().remove("TelemetryRecords");
    assert_eq!(
        call,
        json!({"EC2InstanceId": "i-0123456789abcdef0", "Hostname": "web-1", "ResourceARN": arguments[1]})
    );
}

#[test]
fn before_a_first_segment_and_where_it_is_switched_off_there_is_none() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let off = config_file(folder.path(), "Telemetry: false");
    for (arguments, datagram_count) in [(&[][..], 0), (&["-c", off.as_str()][..], 3)] {
        let daemon = Daemon::start(&endpoint.url(), arguments, &[]);
        daemon.send((0..datagram_count).map(|index| format!("{HEADER}{{\"n\":{index}}}")));
        daemon.wait_for_metric("xray_segments_sent_total", datagram_count);
        let (status, log) = daemon.stop();
        assert!(status.success(), "{log}");
        assert!(endpoint.ledger(|ledger| ledger.telemetry.is_empty()), "{log}");
    }
}

#[test]
fn segments_that_were_given_up_are_spillover() {
    let endpoint = Endpoint::failing(Failure::status(500));
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), "ResourceARN: arn\nShutdownSeconds: 4");
    let daemon = Daemon::start(&endpoint.url(), &["-c", &config], &[]);
    daemon.send((0..7).map(|index| format!("{HEADER}{{\"n\":{index}}}")));
    daemon.wait_for_metric_of_at_least("xray_request_failures_total{kind=\"http_5xx\"}", 1);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let (call, record) = only(&endpoint.ledger(|ledger| ledger.telemetry.clone()));
    assert_eq!(call["ResourceARN"], "arn");
    assert_eq!(record["SegmentsSpilloverCount"], 7, "{log}");
    assert_eq!(record["SegmentsSentCount"], 0);
    let told_count = record["BackendConnectionErrors"]["HTTPCode5XXCount"].as_u64().unwrap();
    // The end of the shutdown may cancel a call that the service has just answered. The daemon does
    // not count that failure.
    let unheard_count = endpoint.request_count() as u64 - told_count;
    assert!(told_count >= 1 && unheard_count <= 1, "{told_count}, {unheard_count}\n{log}");
}

#[test]
fn failures_are_counted_by_their_kind() {
    let endpoint = Endpoint::start();
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), "Upload: {RequestTimeoutSeconds: 3}");
    let daemon = Daemon::start(&endpoint.url(), &["-c", &config], &[]);
    let metric =
        |kind: &str| daemon.metric(&format!("xray_request_failures_total{{kind=\"{kind}\"}}"));
    send(daemon.udp, (0..10).map(document));
    daemon.wait_for_metric("xray_segments_sent_total", 10);
    let mut sent_count = 10;
    let mut fails_as = |kind: &str, begin: &dyn Fn(), end: &dyn Fn()| {
        let before = KINDS.map(|(_, kind)| metric(kind));
        begin();
        send(daemon.udp, [document(sent_count)]);
        daemon.wait_until(&format!("a request fails: {kind}"), || {
            KINDS.map(|(_, kind)| metric(kind)) != before
        });
        end();
        sent_count += 1;
        daemon.wait_for_metric("xray_segments_sent_total", sent_count as u64);
        // Only this kind is checked. A request in flight at the end of the fault may fail with
        // another kind.
        assert!(metric(kind) > before[KINDS.iter().position(|(_, it)| *it == kind).unwrap()]);
    };
    let way = |way: Way| {
        let endpoint = &endpoint;
        move || endpoint.set_way(way)
    };
    fails_as("connection_refused", &way(Way::Down), &way(Way::Open));
    fails_as("timeout", &way(Way::BlackHole), &way(Way::Open));
    fails_as("other", &way(Way::Half("HTTP/1.1 200 OK\r\n")), &way(Way::Open));
    let failure = |failure: Option<Failure>| {
        let endpoint = &endpoint;
        move || endpoint.change(|rules| rules.failure = failure.clone())
    };
    let throttled = Failure::code(429, "ThrottledException");
    fails_as("http_4xx", &failure(Some(throttled)), &failure(None));
    fails_as("http_5xx", &failure(Some(Failure::status(503))), &failure(None));
    let counted = KINDS.map(|(_, kind)| metric(kind));
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    let (_, record) = only(&endpoint.ledger(|ledger| ledger.telemetry.clone()));
    let told = KINDS.map(|(name, _)| record["BackendConnectionErrors"][name].as_u64().unwrap());
    assert_eq!(told, counted, "{log}");
    assert!(counted.iter().zip(KINDS).all(|(n, (_, kind))| (*n > 0) == (kind != "unknown_host")));
}

/// Sends a segment to an endpoint that cannot be reached. Asserts that all failures have this kind.
fn fails_only_as(kind: &str, url: &str, keys: &str, variables: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), &format!("ShutdownSeconds: 1\n{keys}"));
    let daemon = Daemon::start(url, &["-c", &config], variables);
    daemon.send([format!("{HEADER}{{}}")]);
    let metric =
        |kind: &str| daemon.metric(&format!("xray_request_failures_total{{kind=\"{kind}\"}}"));
    daemon.wait_until("a request fails", || KINDS.iter().any(|(_, kind)| metric(kind) > 0));
    let counted: Vec<_> = KINDS.iter().filter(|(_, it)| metric(it) > 0).map(|it| it.1).collect();
    assert_eq!(counted, [kind], "{}", daemon.log());
}

#[test]
fn a_connection_that_is_not_open_in_time_is_a_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let endpoint = Endpoint::start_tls(authority.server("127.0.0.1", &[b"h2"]));
    endpoint.set_way(Way::Unread);
    let bundle = authority.path.to_str().unwrap();
    let keys = "Upload: {ConnectTimeoutSeconds: 1}";
    fails_only_as("timeout", &endpoint.url(), keys, &[("AWS_CA_BUNDLE", bundle)]);
}

#[test]
fn failures_of_a_proxy_have_the_kind_of_their_cause() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let endpoint = Endpoint::start_tls(authority.server("127.0.0.1", &[b"h2"]));
    let bundle = authority.path.to_str().unwrap();
    let keys = "Upload: {ConnectTimeoutSeconds: 1}";
    let port = http_proxy::port();
    let down = format!("http://{}", http_proxy::address(&port));
    let silent = HttpProxy::start(Manner::Hang);
    let refusing = HttpProxy::start(Manner::Refuse("407 Proxy Authentication Required"));
    for (kind, proxy) in [
        ("connection_refused", down),
        ("timeout", silent.url()),
        ("http_4xx", refusing.url()),
        ("unknown_host", format!("http://{}.invalid:1", "x".repeat(64))),
    ] {
        let variables = [("AWS_CA_BUNDLE", bundle), ("HTTPS_PROXY", &proxy)];
        fails_only_as(kind, &endpoint.url(), keys, &variables);
    }
}

#[test]
fn a_name_without_an_address_is_an_unknown_host() {
    // A label of 64 characters is too long for DNS, so no name server is asked.
    let url = format!("http://{}.invalid", "x".repeat(64));
    let folder = tempfile::tempdir().unwrap();
    let config = config_file(folder.path(), "ShutdownSeconds: 1");
    let daemon = Daemon::start(&url, &["-c", &config], &[]);
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric_of_at_least("xray_request_failures_total{kind=\"unknown_host\"}", 1);
    assert_eq!(daemon.metric("xray_request_failures_total{kind=\"other\"}"), 0);
    daemon.stop();
}

#[test]
fn the_sandbox_verifies_and_takes_telemetry() {
    let mut command = daemon_command(
        "http://127.0.0.1:9",
        &["-l", "debug", "sandbox", "--otlp-http=off", "--otlp-grpc=off"],
    );
    command.env_remove("AWS_ENDPOINT_URL_XRAY");
    let daemon = Daemon::spawn(command);
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_received_total", 1);
    let (status, log) = daemon.stop();
    assert!(status.success() && log.contains("Sent 1 telemetry records"), "{log}");
}

/// Starts an instance metadata service that only supports version 2 (IMDSv2, with a token).
fn metadata() -> Fake {
    Fake::start(|request| {
        let has_token = request.header("x-aws-ec2-metadata-token") == "token-of-the-test";
        Some(match request.line.as_str() {
            "PUT /latest/api/token" => ("200 OK", "token-of-the-test".into()),
            _ if !has_token => ("401 Unauthorized", String::new()),
            "GET /latest/meta-data/instance-id" => ("200 OK", "i-0123456789abcdef0".into()),
            "GET /latest/meta-data/local-hostname" => ("200 OK", "ip-10-0-0-1.ec2.internal".into()),
            _ => ("404 Not Found", String::new()),
        })
    })
}

/// Starts a daemon that may call this metadata service.
fn beside(metadata: &Fake, endpoint: &Endpoint, arguments: &[&str]) -> Daemon {
    let mut command = daemon_command(&endpoint.url(), arguments);
    with_credentials(&mut command).env_remove("AWS_EC2_METADATA_DISABLED");
    command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.url());
    Daemon::spawn(command)
}

#[test]
fn the_instance_metadata_names_the_host() {
    let (endpoint, metadata) = (Endpoint::start(), metadata());
    let daemon = beside(&metadata, &endpoint, &["-l", "debug"]);
    daemon.wait_for_line("Telemetry uses host");
    let (log, call) = run_once(&endpoint, daemon);
    assert_eq!(call["EC2InstanceId"], "i-0123456789abcdef0", "{log}");
    assert_eq!(call["Hostname"], "ip-10-0-0-1.ec2.internal", "{log}");
    // The metadata service is called once for each value.
    assert_eq!(metadata.requests().len(), 3, "{:?}", metadata.requests());
}

#[test]
fn in_local_mode_the_instance_metadata_is_not_asked_and_the_kernel_names_the_host() {
    let (endpoint, metadata) = (Endpoint::start(), metadata());
    let daemon = beside(&metadata, &endpoint, &["-o"]);
    let (log, call) = run_once(&endpoint, daemon);
    let name = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    assert_eq!(call["Hostname"], name, "{log}");
    assert_eq!(call["EC2InstanceId"], Value::Null);
    assert!(metadata.requests().is_empty());
}

#[test]
fn a_metadata_service_that_hangs_delays_nothing() {
    let (endpoint, metadata) = (Endpoint::start(), Fake::start(|_| None));
    let daemon = beside(&metadata, &endpoint, &[]);
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_received_total", 1);
    let (status, log) = daemon.stop();
    assert!(status.success(), "{log}");
    // The shutdown cancelled the call to the metadata service, so telemetry has the kernel's host
    // name.
    let (call, _) = only(&endpoint.ledger(|ledger| ledger.telemetry.clone()));
    assert!(call["Hostname"].is_string() && call["EC2InstanceId"].is_null(), "{call}");
}
