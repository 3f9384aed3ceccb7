//! Shared AWS files with oddities that the original daemon accepts, and the other sources of static
//! keys: a fault in one line, or in another profile, takes no credentials away.

use super::credentials::{LATER, daemon, is_signed_with, service, sts_answer};
use super::fake::Fake;
use super::process::Daemon;
use std::fs;
use tempfile::TempDir;

/// The two shared files in a folder of their own, and the variables that name them.
struct Files(TempDir);

impl Files {
    fn new(config: impl AsRef<[u8]>, credentials: impl AsRef<[u8]>) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        fs::write(files.path("config"), config).unwrap();
        fs::write(files.path("credentials"), credentials).unwrap();
        files
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Starts a daemon that reads these files and has these further variables.
    fn daemon(&self, service: &Fake, variables: &[(&str, &str)]) -> Daemon {
        let (config, credentials) = (self.path("config"), self.path("credentials"));
        let mut all =
            vec![("AWS_CONFIG_FILE", &config[..]), ("AWS_SHARED_CREDENTIALS_FILE", &credentials)];
        all.extend(variables);
        daemon(service, &[], &all)
    }
}

/// The keys of a profile whose access key is `AKIDPLAIN`.
const KEYS: &str = "aws_access_key_id = AKIDPLAIN\naws_secret_access_key = secretexample\n";

#[test]
fn oddities_of_the_shared_files_take_no_credentials_away() {
    let indented = "[default]\n  aws_access_key_id = AKIDPLAIN\n  aws_secret_access_key = secret\n";
    let colons = "[default]\naws_access_key_id: AKIDPLAIN\naws_secret_access_key: secret\n";
    let quotes = "[default]\naws_access_key_id = 'AKIDPLAIN'\naws_secret_access_key = \"secret\"\n";
    let windows = format!("\u{feff}[default]\n{KEYS}").replace('\n', "\r\n");
    let comments = format!("; x\n[default] # y\n  ; z\n{KEYS}  # no part of the value above\n");
    let service = service();
    for credentials in [indented, colons, quotes, &windows, &comments] {
        let files = Files::new("", credentials);
        let daemon = files.daemon(&service, &[]);
        is_signed_with(&daemon, &service, "AKIDPLAIN");
        let log = daemon.log();
        assert!(!log.contains("[Warn]"), "{credentials}: {log}");
    }
}

#[test]
fn a_broken_line_is_named_and_takes_nothing_else_away() {
    let mut other = b"[other]\naws_access_key_id = \xff\0\n".to_vec();
    other.extend(format!("[default]\n{KEYS}").bytes());
    let good = format!("[default]\n{KEYS}");
    let service = service();
    for (config, credentials, file, line) in [
        ("", format!("{good}the line of TOPSECRET\n").as_bytes(), "credentials", 4),
        ("", format!("TOPSECRET = x\n{good}").as_bytes(), "credentials", 1),
        ("[profile other] /* TOPSECRET */\nregion = x\n", good.as_bytes(), "config", 1),
        ("[profile TOPSECRET\nregion = x\n", good.as_bytes(), "config", 1),
        ("", &other, "credentials", 2),
    ] {
        let files = Files::new(config, credentials);
        let daemon = files.daemon(&service, &[]);
        let place = format!("{} line {line}:", files.path(file));
        let warning = daemon.wait_for_line(&place);
        assert!(warning.contains("[Warn]"), "{warning}");
        is_signed_with(&daemon, &service, "AKIDPLAIN");
        assert!(!daemon.log().contains("TOPSECRET"), "{}", daemon.log());
    }
}

#[test]
fn the_name_of_a_profile_may_have_spaces() {
    let service = service();
    let sts = Fake::start(|_| sts_answer("AssumeRole", "ASIATOP", LATER));
    let role = "role_arn = arn:aws:iam::123456789012:role/top\nsource_profile = my  base\n";
    let config = format!("[profile 'top of all']\n{role}[profile  my base ]\nregion = x\n");
    let files = Files::new(config, format!("[my base]\n{KEYS}"));
    for (name, profile, key) in [
        ("AWS_PROFILE", "my base", "AKIDPLAIN"),
        ("AWS_DEFAULT_PROFILE", "my base", "AKIDPLAIN"),
        ("AWS_PROFILE", "top of all", "ASIATOP"),
    ] {
        let variables = [(name, profile), ("AWS_ENDPOINT_URL_STS", &sts.url())];
        is_signed_with(&files.daemon(&service, &variables), &service, key);
    }
    assert_eq!(sts.requests()[0].access_key(), "AKIDPLAIN");
}

#[test]
fn keys_of_a_profile_come_before_its_other_sources_as_in_the_original() {
    let service = service();
    let sso = "sso_start_url = https://x.invalid/start\nsso_region = us-east-1\n\
               sso_account_id = 123456789012\nsso_role_name = dev\n";
    let process = "credential_process = /nonexistent\n";
    for source in [sso, process, "login_session = arn:aws:iam::123456789012:user/x\n"] {
        let files = Files::new(format!("[default]\n{source}"), format!("[default]\n{KEYS}"));
        is_signed_with(&files.daemon(&service, &[]), &service, "AKIDPLAIN");
    }
}

#[test]
fn a_role_without_a_source_is_assumed_with_the_keys_of_its_own_profile() {
    let service = service();
    let sts = Fake::start(|_| sts_answer("AssumeRole", "ASIATOP", LATER));
    let role = "[default]\nrole_arn = arn:aws:iam::123456789012:role/top\n";
    let files = Files::new(role, format!("[default]\n{KEYS}"));
    let variables = [("AWS_ENDPOINT_URL_STS", sts.url())];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    is_signed_with(&files.daemon(&service, &variables), &service, "ASIATOP");
    assert_eq!(sts.requests()[0].access_key(), "AKIDPLAIN");
}

#[test]
fn the_older_names_of_the_variables_count_and_line_breaks_at_their_end_do_not() {
    let service = service();
    for variables in [
        [("AWS_ACCESS_KEY", "AKIDPLAIN"), ("AWS_SECRET_KEY", "secret")],
        [("AWS_ACCESS_KEY_ID", "AKIDPLAIN\n"), ("AWS_SECRET_ACCESS_KEY", "secret\r\n")],
    ] {
        is_signed_with(&daemon(&service, &[], &variables), &service, "AKIDPLAIN");
    }
    // A variable that is set but empty counts as not set.
    let files = Files::new("", format!("[default]\n{KEYS}"));
    let empty =
        ["AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ACCESS_KEY_ID"].map(|it| (it, ""));
    is_signed_with(&files.daemon(&service, &empty), &service, "AKIDPLAIN");
}

#[test]
fn line_breaks_at_the_end_of_keys_of_any_source_are_left_out() {
    let service = service();
    let container = Fake::start(|_| {
        let text = r#"{"AccessKeyId":"AKIDCONTAINER\n","SecretAccessKey":"secret\n",
            "Token":"token-of-AKIDCONTAINER\n","Expiration":"2099-01-01T00:00:00Z"}"#;
        Some(("200 OK", text.into()))
    });
    let uri = container.url();
    let daemon = daemon(&service, &[], &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)]);
    is_signed_with(&daemon, &service, "AKIDCONTAINER");
}

#[test]
fn a_profile_of_aws_login_is_told_with_its_remedy() {
    let service = service();
    let login = "login_session = arn:aws:iam::123456789012:user/x\n";
    let role = "role_arn = arn:aws:iam::123456789012:role/top\nsource_profile = console\n";
    let config = format!("[profile console]\n{login}[profile top]\n{role}");
    let files = Files::new(config, "");
    for profile in ["console", "top"] {
        let daemon = files.daemon(&service, &[("AWS_PROFILE", profile)]);
        let line = daemon.wait_for_line("No credentials");
        let remedy = "aws configure export-credentials --profile console --format process";
        assert!(line.contains(remedy), "{line}");
        assert!(!line.contains("cargo"), "{line}");
    }
}
