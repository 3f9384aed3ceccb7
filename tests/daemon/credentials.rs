//! The sources of credentials. Each source is faked on 127.0.0.1, and the test checks which access
//! key signs the uploads.
//!
//! The tests give the container endpoint as a full URI. A relative URI uses the same code but a
//! fixed address that is not on loopback; the tests of `aws-config` cover it.

use super::fake::{Answer, Fake, Request};
use super::hostile_frames::{DATA, END_HEADERS, END_STREAM, HEADERS, NO_ERROR, NONE, head};
use super::hostile_peer::{Act, Connection, On, Peer};
use super::process::{Daemon, HEADER, backend, command};
use super::tls::Authority;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// An expiry date far in the future.
pub(super) const LATER: &str = "2099-01-01T00:00:00Z";

/// Starts a service that accepts every request and records the key that signed it.
pub(super) fn service() -> Fake {
    Fake::start(|_| Some(("200 OK", "{}".into())))
}

/// Returns the JSON with which a container endpoint or instance metadata answers.
pub(super) fn keys(key: &str, expiry: &str) -> String {
    format!(
        r#"{{"Code":"Success","Type":"AWS-HMAC","LastUpdated":"2026-01-01T00:00:00Z",
            "AccessKeyId":"{key}","SecretAccessKey":"secret","Token":"token-of-{key}",
            "Expiration":"{expiry}"}}"#
    )
}

/// Returns the answer of STS to the call `action`.
pub(super) fn sts_answer(action: &str, key: &str, expiry: &str) -> Answer {
    let text = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
         <Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
         <SessionToken>token-of-{key}</SessionToken><Expiration>{expiry}</Expiration>\
         </Credentials><AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/r/s</Arn>\
         <AssumedRoleId>A:s</AssumedRoleId></AssumedRoleUser></{action}Result></{action}Response>"
    );
    Some(("200 OK", text))
}

/// Starts a daemon that has only the credentials in `variables` and sends to `service`.
pub(super) fn daemon(service: &Fake, flags: &[&str], variables: &[(&str, &str)]) -> Daemon {
    let backend = backend().name();
    let mut all = vec!["-b", "127.0.0.1:0", "-t", "127.0.0.1:0", "-n", "us-east-1"];
    all.extend(["--receiver", backend]);
    all.extend(flags);
    let mut command = command(&all);
    command.env("AWS_ENDPOINT_URL_XRAY", service.url()).envs(variables.iter().copied());
    Daemon::spawn(command)
}

/// Sends a segment. It must arrive signed with this key, and with the key's session token unless
/// the key is `AKIDPLAIN`.
pub(super) fn is_signed_with(daemon: &Daemon, service: &Fake, key: &str) {
    let before = daemon.metric("xray_segments_sent_total");
    daemon.send([format!("{HEADER}{{}}")]);
    daemon.wait_for_metric("xray_segments_sent_total", before + 1);
    let request = service.requests().pop().unwrap();
    assert_eq!(request.access_key(), key, "{}", daemon.log());
    let token = request.header("x-amz-security-token");
    assert!(token == format!("token-of-{key}") || key == "AKIDPLAIN", "{token}");
}

#[test]
fn the_container_endpoint_is_asked_with_the_token_of_the_variable_or_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "of-file").unwrap();
    for (name, value, expected) in [
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of-variable", "of-variable"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().unwrap(), "of-file"),
    ] {
        let container = Fake::start(|_| Some(("200 OK", keys("AKIDCONTAINER", LATER))));
        let service = service();
        let uri = format!("{}/v2/credentials/x", container.url());
        let variables = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()), (name, value)];
        is_signed_with(&daemon(&service, &[], &variables), &service, "AKIDCONTAINER");
        let request = &container.requests()[0];
        assert_eq!(request.line, "GET /v2/credentials/x");
        assert_eq!(request.header("authorization"), expected);
    }
}

/// The variables of AWS that the daemon or its libraries read, and those of the certificates.
const VARIABLES: [&str; 36] = [
    "AWS_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_DEFAULT_PROFILE",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_EC2_METADATA_V1_DISABLED",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_SSO",
    "AWS_ENDPOINT_URL_STS",
    "AWS_EXECUTION_ENV",
    "AWS_HOSTNAME",
    "AWS_INSTANCE_ID",
    "AWS_MAX_ATTEMPTS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_RETRY_MODE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SDK_UA_APP_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECRET_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "ECS_CONTAINER_METADATA_FILE",
    "ECS_CONTAINER_METADATA_URI_V4",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
];

#[test]
fn a_variable_that_is_set_but_empty_counts_as_not_set() {
    let role = "arn:aws:iam::123456789012:role/xray";
    for empty in ["", " \n"] {
        let container = Fake::start(|_| Some(("200 OK", keys("AKIDCONTAINER", LATER))));
        let sts = Fake::start(|_| sts_answer("AssumeRole", "ASIAROLE", LATER));
        let (service, uri) = (service(), format!("{}/x", container.url()));
        let mut variables = VARIABLES.map(|name| (name, empty)).to_vec();
        variables.push(("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri));
        let without_role = daemon(&service, &[], &variables);
        is_signed_with(&without_role, &service, "AKIDCONTAINER");
        assert_eq!(container.requests()[0].header("authorization"), "");
        let log = without_role.log();
        assert!(!log.contains("[Warn]") && !log.contains("[Error]"), "{log}");
        let sts_url = sts.url();
        variables.push(("AWS_ENDPOINT_URL_STS", &sts_url));
        is_signed_with(&daemon(&service, &["-r", role], &variables), &service, "ASIAROLE");
    }
}

#[test]
fn keys_that_are_not_ascii_are_refused_in_words_and_segments_wait() {
    for (key, secret, token, part) in [
        ("AKIDÉ", "hush-secret", "hush-token", "the access key has"),
        ("AKIDPLAIN", "hush-sécret", "hush-token", "the secret key has"),
        ("AKIDPLAIN", "hush-secret", "hush-tokén", "the session token has"),
    ] {
        let service = service();
        let sts = Fake::start(|_| sts_answer("AssumeRole", "ASIAROLE", LATER));
        let sts_url = sts.url();
        let variables = [
            ("AWS_ENDPOINT_URL_STS", &sts_url[..]),
            ("AWS_ACCESS_KEY_ID", key),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_SESSION_TOKEN", token),
        ];
        // The role is never asked for with such keys.
        let flags = ["-r", "arn:aws:iam::123456789012:role/xray", "-l", "dev"];
        let daemon = daemon(&service, &flags, &variables);
        daemon.send([format!("{HEADER}{{}}")]);
        let line = daemon.wait_for_line(part);
        assert!(line.contains("a character that is not ASCII"), "{line}");
        daemon.wait_for_metric("xray_segments_held", 1);
        let (status, log) = daemon.stop();
        assert!(status.success(), "{log}");
        assert!(sts.requests().is_empty(), "{log}");
        assert!(!log.contains("panic") && !log.contains("hush"), "{log}");
    }
}

#[test]
fn the_instance_gives_the_credentials_of_its_role_to_those_with_a_token() {
    let metadata = Fake::start(|request: &Request| {
        let has_token = request.header("x-aws-ec2-metadata-token") == "of-test";
        let path = request.line.trim_end_matches('/');
        Some(match path.rsplit(' ').next().unwrap() {
            "/latest/api/token" => ("200 OK", "of-test".into()),
            _ if !has_token => ("401 Unauthorized", String::new()),
            "/latest/meta-data/iam/security-credentials"
            | "/latest/meta-data/iam/security-credentials-extended" => ("200 OK", "role".into()),
            "/latest/meta-data/iam/security-credentials/role"
            | "/latest/meta-data/iam/security-credentials-extended/role" => {
                ("200 OK", keys("AKIDINSTANCE", LATER))
            }
            _ => ("404 Not Found", String::new()),
        })
    });
    let service = service();
    let variables = [
        ("AWS_EC2_METADATA_DISABLED", "false"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url()),
    ];
    is_signed_with(&daemon(&service, &[], &variables), &service, "AKIDINSTANCE");
}

#[test]
fn an_instance_that_does_not_answer_is_named_with_a_hint_at_the_hop_limit() {
    let (metadata, service) = (Fake::start(|_| None), service());
    let variables = [
        ("AWS_EC2_METADATA_DISABLED", "false"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url()),
    ];
    let daemon = daemon(&service, &[], &variables);
    let line = daemon.wait_for_line("No credentials");
    assert!(line.contains("--http-put-response-hop-limit 2"), "{line}");
}

#[test]
fn a_web_identity_is_exchanged_for_credentials_of_its_role() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "jwt-of-test").unwrap();
    let sts = Fake::start(|_| sts_answer("AssumeRoleWithWebIdentity", "ASIAWEB", LATER));
    let service = service();
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/web"),
        ("AWS_ENDPOINT_URL_STS", &sts.url()),
    ];
    is_signed_with(&daemon(&service, &[], &variables), &service, "ASIAWEB");
    let body = sts.requests()[0].body.clone();
    assert!(body.contains("Action=AssumeRoleWithWebIdentity"), "{body}");
    assert!(body.contains("WebIdentityToken=jwt-of-test"), "{body}");
}

#[test]
fn a_profile_assumes_its_role_with_the_keys_of_its_source_profile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    let text = "[profile base]\naws_access_key_id = AKIDBASE\naws_secret_access_key = secret\n\
         [profile top]\nrole_arn = arn:aws:iam::123456789012:role/top\nsource_profile = base\n";
    fs::write(&path, text).unwrap();
    let sts = Fake::start(|_| sts_answer("AssumeRole", "ASIATOP", LATER));
    let service = service();
    let variables = [
        ("AWS_CONFIG_FILE", path.to_str().unwrap()),
        ("AWS_PROFILE", "top"),
        ("AWS_ENDPOINT_URL_STS", &sts.url()),
    ];
    is_signed_with(&daemon(&service, &[], &variables), &service, "ASIATOP");
    assert_eq!(sts.requests()[0].access_key(), "AKIDBASE");
}

#[test]
fn a_profile_that_takes_its_keys_from_the_environment_takes_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    let text = "[profile top]\nrole_arn = arn:aws:iam::123456789012:role/top\n\
         credential_source = Environment\n";
    fs::write(&path, text).unwrap();
    let sts = Fake::start(|_| sts_answer("AssumeRole", "ASIATOP", LATER));
    let container = Fake::start(|_| Some(("200 OK", keys("AKIDCONTAINER", LATER))));
    let (service, sts_url, container_url) = (service(), sts.url(), container.url());
    let mut variables = vec![
        ("AWS_CONFIG_FILE", path.to_str().unwrap()),
        ("AWS_PROFILE", "top"),
        ("AWS_ENDPOINT_URL_STS", &sts_url),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container_url),
    ];
    let without_keys = daemon(&service, &[], &variables);
    without_keys.send([format!("{HEADER}{{}}")]);
    let line = without_keys.wait_for_line("No credentials");
    assert!(line.contains("credential_source = Environment"), "{line}");
    assert!(line.contains("AWS_ACCESS_KEY_ID is not set"), "{line}");
    without_keys.wait_for_metric("xray_segments_held", 1);
    // Keys in the environment come before every profile, as in the original.
    variables.extend([("AWS_ACCESS_KEY_ID", "AKIDPLAIN"), ("AWS_SECRET_ACCESS_KEY", "secret")]);
    is_signed_with(&daemon(&service, &[], &variables), &service, "AKIDPLAIN");
    assert!(sts.requests().is_empty() && container.requests().is_empty());
}

#[test]
fn the_role_of_the_flag_is_assumed_on_top_as_the_original_does() {
    let sts = Fake::start(|_| sts_answer("AssumeRole", "ASIAROLE", LATER));
    let service = service();
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIDBASE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ENDPOINT_URL_STS", &sts.url()),
    ];
    let role = "arn:aws:iam::123456789012:role/r";
    is_signed_with(&daemon(&service, &["-r", role], &variables), &service, "ASIAROLE");
    let request = &sts.requests()[0];
    assert_eq!(request.access_key(), "AKIDBASE");
    // The daemon calls STS in the region that it uses for X-Ray.
    assert!(request.header("authorization").contains("/us-east-1/sts/"), "{request:?}");
    for part in ["RoleSessionName=xray-daemon", "DurationSeconds=900", "role%2Fr"] {
        assert!(request.body.contains(part), "{part} is not in {}", request.body);
    }
}

#[test]
fn half_an_answer_over_http2_gives_no_credentials() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let sts = Peer::start(Some(authority.server("127.0.0.1", &[b"h2"])), true);
    let call_count = AtomicUsize::new(0);
    let act: Act = Arc::new(move |it: &mut Connection| {
        let stream = it.request()?;
        let is_half = call_count.fetch_add(1, Ordering::Relaxed) == 0;
        let key = if is_half { "ASIAHALF" } else { "ASIAWHOLE" };
        let (_, body) = sts_answer("AssumeRole", key, LATER).unwrap();
        it.frame(HEADERS, END_HEADERS, stream, &head("200", &[("content-type", "text/xml")]))?;
        if is_half {
            // The text is whole, but the service has not said that it is.
            it.frame(DATA, NONE, stream, body.as_bytes())?;
            return it.reset_stream(stream, NO_ERROR);
        }
        it.frame(DATA, END_STREAM, stream, body.as_bytes())
    });
    sts.arm(&act, On::NewConnection, u32::MAX);
    let (service, sts_url) = (service(), sts.url());
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIDBASE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ENDPOINT_URL_STS", &sts_url),
        ("AWS_CA_BUNDLE", authority.path.to_str().unwrap()),
    ];
    let role = "arn:aws:iam::123456789012:role/r";
    is_signed_with(&daemon(&service, &["-r", role], &variables), &service, "ASIAWHOLE");
    assert_eq!(sts.state(|state| state.unfinished.clone()), [""; 0]);
}

#[test]
fn a_role_that_is_refused_is_told_with_the_code_of_sts() {
    let sts = Fake::start(|_| {
        let text = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
                    <Message>nobody may</Message></Error></ErrorResponse>";
        Some(("403 Forbidden", text.into()))
    });
    let service = service();
    let variables = [
        ("AWS_ACCESS_KEY_ID", "AKIDBASE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ENDPOINT_URL_STS", &sts.url()),
    ];
    let daemon = daemon(&service, &["-r", "arn:aws:iam::123456789012:role/r"], &variables);
    daemon.wait_until("the code is told", || {
        daemon.get("/ready").contains("STS refuses the role: AccessDenied")
    });
}

#[test]
fn the_token_of_a_single_sign_on_is_exchanged_for_credentials() {
    let home = tempfile::tempdir().unwrap();
    let sso = Fake::start(|_| {
        let text = r#"{"roleCredentials":{"accessKeyId":"ASIASSO","secretAccessKey":"secret",
            "sessionToken":"token-of-ASIASSO","expiration":4070908800000}}"#;
        Some(("200 OK", text.into()))
    });
    let cache = home.path().join(".aws/sso/cache");
    fs::create_dir_all(&cache).unwrap();
    let text = "[default]\nsso_start_url = https://start.example/start\nsso_region = us-east-1\n\
         sso_account_id = 123456789012\nsso_role_name = dev\n";
    fs::write(home.path().join(".aws/config"), text).unwrap();
    // The name of the file is the SHA-1 of the start URL.
    let name = "58b18e2cde391127c3492e1eba984431065982b0.json";
    let token =
        format!(r#"{{"accessToken":"of-test","expiresAt":"{LATER}","region":"us-east-1"}}"#);
    fs::write(cache.join(name), token).unwrap();
    let service = service();
    let home = home.path().to_str().unwrap();
    let variables = [("HOME", home), ("AWS_ENDPOINT_URL_SSO", &sso.url())];
    is_signed_with(&daemon(&service, &[], &variables), &service, "ASIASSO");
    let request = &sso.requests()[0];
    assert!(request.line.contains("account_id=123456789012"), "{request:?}");
    assert_eq!(request.header("x-amz-sso_bearer_token"), "of-test");
}

#[test]
fn the_name_of_a_session_of_single_sign_on_may_have_spaces_and_quotes() {
    let keys_of = "sso_account_id = 123456789012\nsso_role_name = dev\n";
    let session = "sso_start_url = https://start.example/start\nsso_region = us-east-1\n";
    for (named, header, profile, key) in [
        ("my own", "my own", "", "ASIASSO"),
        ("'my own'", "\"my  own\"", "", "ASIASSO"),
        ("my own", "'my own'", "role_arn = arn:aws:iam::1:role/x\n", "ASIAROLE"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let sso = Fake::start(|_| {
            let text = r#"{"roleCredentials":{"accessKeyId":"ASIASSO","secretAccessKey":"secret",
                "sessionToken":"token-of-ASIASSO","expiration":4070908800000}}"#;
            Some(("200 OK", text.into()))
        });
        let sts = Fake::start(|_| sts_answer("AssumeRole", "ASIAROLE", LATER));
        let cache = home.path().join(".aws/sso/cache");
        fs::create_dir_all(&cache).unwrap();
        let text = format!(
            "[default]\nsso_session = {named}\n{keys_of}{profile}[sso-session {header}]\n{session}"
        );
        fs::write(home.path().join(".aws/config"), text).unwrap();
        // The name of the file is the SHA-1 of `my own`.
        let name = "b8036671759b0371579fe14a5b9b6b62c7b8fc54.json";
        let token =
            format!(r#"{{"accessToken":"of-test","expiresAt":"{LATER}","region":"us-east-1"}}"#);
        fs::write(cache.join(name), token).unwrap();
        let service = service();
        let home = home.path().to_str().unwrap();
        let (sso_url, sts_url) = (sso.url(), sts.url());
        let variables = [
            ("HOME", home),
            ("AWS_ENDPOINT_URL_SSO", &sso_url[..]),
            ("AWS_ENDPOINT_URL_STS", &sts_url),
        ];
        is_signed_with(&daemon(&service, &[], &variables), &service, key);
        assert_eq!(sso.requests()[0].header("x-amz-sso_bearer_token"), "of-test");
    }
}

/// Creates a program that prints the file `answer` in its folder. Returns the path of an AWS
/// configuration file that names the program.
fn program(folder: &Path) -> String {
    let path = folder.join("program");
    fs::write(&path, "#!/bin/sh\ncat \"$(dirname \"$0\")/answer\"\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let config = folder.join("config");
    fs::write(&config, format!("[default]\ncredential_process = {}\n", path.display())).unwrap();
    config.to_str().unwrap().to_owned()
}

fn process_answer(key: &str, expiry: &str) -> String {
    format!(
        r#"{{"Version":1,"AccessKeyId":"{key}","SecretAccessKey":"secret",
            "SessionToken":"token-of-{key}","Expiration":"{expiry}"}}"#
    )
}

#[test]
fn a_program_gives_credentials_and_its_failures_are_said_and_pass() {
    let folder = tempfile::tempdir().unwrap();
    let config = program(folder.path());
    fs::write(folder.path().join("answer"), "{ not JSON").unwrap();
    let service = service();
    let daemon = daemon(&service, &[], &[("AWS_CONFIG_FILE", &config)]);
    daemon.wait_for_line("No credentials");
    fs::write(folder.path().join("answer"), process_answer("AKIDPROGRAM", LATER)).unwrap();
    is_signed_with(&daemon, &service, "AKIDPROGRAM");
}

#[test]
fn credentials_are_renewed_before_they_expire() {
    let count = AtomicUsize::new(0);
    // The first credentials are valid for 4 s; the daemon renews them after half of that time.
    let soon = OffsetDateTime::now_utc() + Duration::from_secs(4);
    let soon = soon.format(&Rfc3339).unwrap();
    let container = Fake::start(move |_| {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        let (key, expiry) = if first { ("AKIDFIRST", &soon[..]) } else { ("AKIDSECOND", LATER) };
        Some(("200 OK", keys(key, expiry)))
    });
    let service = service();
    let uri = container.url();
    let daemon = daemon(&service, &[], &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)]);
    daemon.wait_until("they are renewed", || container.requests().len() >= 2);
    is_signed_with(&daemon, &service, "AKIDSECOND");
}

#[test]
fn a_source_that_hangs_or_fails_is_tried_again_and_segments_wait() {
    let count = AtomicUsize::new(0);
    let container = Fake::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Some(("500 Internal Server Error", String::new())),
        1 => Some(("200 OK", "{\"AccessKeyId\":".into())),
        2 => None,
        _ => Some(("200 OK", keys("AKIDLATE", LATER))),
    });
    let service = service();
    let uri = container.url();
    let daemon = daemon(&service, &[], &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)]);
    is_signed_with(&daemon, &service, "AKIDLATE");
    let (status, log) = daemon.stop();
    assert!(status.success() && log.contains("No credentials"), "{log}");
    assert!(log.contains("sent=1 rejected=0 dropped=0"), "{log}");
}
