//! Each oddity of a shared file, with what the daemon reads and what it says about it.

use super::*;
use aws_config::profile;
use aws_types::os_shim_internal::{Env, Fs};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The two files, and the variables of the process.
#[derive(Default)]
struct Case<'a> {
    config: &'a [u8],
    credentials: &'a [u8],
    variables: &'a [(&'a str, &'a str)],
}

impl Case<'_> {
    /// Reads the files. The remarks have the names of the files only.
    fn read(&self) -> (SharedFiles, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".aws")).unwrap();
        std::fs::write(folder.path().join(".aws/config"), self.config).unwrap();
        std::fs::write(folder.path().join(".aws/credentials"), self.credentials).unwrap();
        let home = folder.path().to_str().unwrap().to_owned();
        let environment = |name: &str| {
            let found = self.variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned()).or((name == "HOME").then(|| home.clone()))
        };
        let files = SharedFiles::read(&environment);
        let prefix = format!("{home}/.aws/");
        let remarks = files.remarks().iter().map(|remark| remark.replace(&prefix, "")).collect();
        (files, remarks)
    }
}

fn credentials(text: &[u8]) -> (SharedFiles, Vec<String>) {
    Case { credentials: text, ..Case::default() }.read()
}

fn config(text: &str) -> (SharedFiles, Vec<String>) {
    Case { config: text.as_bytes(), ..Case::default() }.read()
}

/// Returns the pair of keys of the selected profile, or two empty texts.
fn pair(files: &SharedFiles) -> [&str; 2] {
    ["aws_access_key_id", "aws_secret_access_key"].map(|key| files.get(key).unwrap_or_default())
}

/// Returns the profiles as `aws-config` reads them from the text that it gets.
async fn of_sdk(files: &SharedFiles) -> BTreeMap<String, String> {
    let nothing = (Fs::from_slice(&[]), Env::from_slice(&[]));
    let (profiles, selected) = (files.sdk_files(), files.sdk_profile());
    let set = profile::load(&nothing.0, &nothing.1, &profiles, Some(selected.into()));
    let set = set.await.unwrap();
    let keys = parse::USED_KEYS.iter();
    keys.filter_map(|key| Some(((*key).to_owned(), set.get(key)?.to_owned()))).collect()
}

#[test]
fn what_the_original_reads_is_read_without_a_remark() {
    for text in [
        "[default]\naws_access_key_id = A\naws_secret_access_key = S",
        "[default]\r\naws_access_key_id = A\r\naws_secret_access_key = S\r\n",
        "\u{feff}[default]\naws_access_key_id = A\naws_secret_access_key = S\n",
        "[default]\n  aws_access_key_id = A\n  aws_secret_access_key = S\n",
        "[default]\n\taws_access_key_id = A\n  \taws_secret_access_key = S\n",
        "[default]\naws_access_key_id = A\n  aws_secret_access_key = S\n",
        "  [ default ]  \naws_access_key_id=A\naws_secret_access_key=S\n",
        "[default]\naws_access_key_id: A\naws_secret_access_key : S\n",
        "[default]\nAWS_Access_Key_Id = A\nAWS_SECRET_ACCESS_KEY = S\n",
        "[default]\naws_access_key_id = \"A\"\naws_secret_access_key = 'S'\n",
        "# c\n; c\n[default] ; c\n # c\naws_access_key_id = A # c\naws_secret_access_key = S\t; c\n",
        "[default]\naws_access_key_id = A\n[other]\nx = y\n[default]\naws_secret_access_key = S\n",
        "[default]\naws_access_key_id = X\naws_access_key_id = A\naws_secret_access_key = S\n",
        "[default]\ns3 =\n  x = y\n  z\nunknown\t= a\n  b\naws_access_key_id = A\n\
         aws_secret_access_key = S\n",
        "[default]\n  aws_session_token =\n  aws_access_key_id = A\n  aws_secret_access_key = S\n",
    ] {
        let (files, remarks) = credentials(text.as_bytes());
        assert_eq!((pair(&files), &remarks[..]), (["A", "S"], &[][..]), "{text:?}");
    }
}

#[test]
fn a_line_that_is_passed_over_is_named_and_all_others_are_read() {
    let good = "[default]\naws_access_key_id = A\naws_secret_access_key = S\n";
    let bytes = |text: &str| text.as_bytes().to_vec();
    for (text, remark) in [
        (bytes(&format!("{good}stray\n")), "line 4: it has neither `=` nor `:`"),
        (bytes(&format!("{good}  stray\n")), "line 4: it has neither `=` nor `:`"),
        (bytes(&format!("{good} = x\n")), "line 4: there is no key before the separator"),
        (bytes(&format!("{good}export AWS_X=y\n")), "line 4: the key has a space"),
        (bytes(&format!("x = y\n{good}")), "line 1: it stands before the first [section]"),
        (bytes(&format!("[other] x\ny = z\n{good}")), "line 1: there is text behind the bracket"),
        (bytes(&format!("{good}[other\nregion = z\n")), "line 4: the closing bracket is missing"),
        (bytes(&format!("{good}[]\nregion = z\n")), "line 4: the section has no name"),
        (
            bytes(&format!("{good}[profile x]\nregion = z\n")),
            "line 4: in this file a profile is written [NAME]; the section is passed over",
        ),
        (
            [&b"[other]\nregion = \xff\xfe\n"[..], good.as_bytes()].concat(),
            "line 2: it has a control character, or is not UTF-8",
        ),
        (
            [good.as_bytes(), b"region = \0\n"].concat(),
            "line 4: it has a control character, or is not UTF-8",
        ),
        ([good.as_bytes(), b"\0\0\0\0"].concat(), "line 4: it has neither `=` nor `:`"),
    ] {
        let (files, remarks) = credentials(&text);
        assert_eq!(pair(&files), ["A", "S"], "{remark}");
        assert_eq!(files.get("region"), None, "{remark}");
        assert_eq!(remarks, [format!("credentials {remark}")]);
    }
    let (files, remarks) = config("[default]\nregion = a\n[other]\nregion = b\n");
    assert_eq!(files.region(), Some("a"));
    assert!(remarks[0].contains("written [profile NAME]"), "{remarks:?}");
}

#[test]
fn remarks_contain_no_text_of_the_file_and_are_limited() {
    let (_, remarks) = credentials(&b"TOPSECRET\n[TOPSECRET\nTOPSECRET\n".repeat(100));
    assert_eq!(remarks.len(), REMARK_COUNT_MAX);
    assert!(!remarks.concat().contains("TOPSECRET"), "{remarks:?}");
    assert!(remarks[REMARK_COUNT_MAX - 1].ends_with("further lines have faults too"));
    let (files, remarks) = credentials(b"\xff\xfe[\0d\0");
    assert!(remarks[0].contains("save it as UTF-8"), "{remarks:?}");
    assert_eq!(pair(&files), ["", ""]);
}

#[test]
fn a_file_that_cannot_be_read_counts_as_empty_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let case = Case {
        credentials: b"[default]\naws_access_key_id = A\naws_secret_access_key = S\n",
        variables: &[("AWS_CONFIG_FILE", &path)],
        ..Case::default()
    };
    let (files, remarks) = case.read();
    assert_eq!(pair(&files), ["A", "S"]);
    assert!(remarks[0].starts_with(&format!("{path} cannot be read: ")), "{remarks:?}");
    let case = Case { variables: &[("AWS_CONFIG_FILE", "/nonexistent/x")], ..case };
    let (_, remarks) = case.read();
    assert_eq!(remarks, [""; 0]);
    let (files, _) = Case { credentials: b"", ..case }.read();
    assert!(files.why_none().contains("/nonexistent/x (No such file"), "{}", files.why_none());
}

#[test]
fn names_of_profiles_may_have_spaces_quotes_and_any_letters() {
    let keys = "aws_access_key_id = A\naws_secret_access_key = S\nregion = r\n";
    for (header, name) in [
        ("[profile a b]", "a b"),
        ("[profile   a   b ]", "a b"),
        ("[profile 'a b']", "a  b"),
        ("[profile \"a b\"]", "a b "),
        ("[profile é%[]", "é%["),
        ("[profile a#b]", "a#b"),
        ("[profile\ta]", "a"),
        ("[profile a", "a"),
        ("[default]", ""),
        ("[profile default]", "default"),
    ] {
        let text = format!("{header}\n{keys}[profile other]\nregion = x\n");
        let case = Case {
            config: text.as_bytes(),
            variables: &[("AWS_PROFILE", name)],
            ..Case::default()
        };
        let (files, _) = case.read();
        assert_eq!(pair(&files), ["A", "S"], "{header}");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sdk = runtime.block_on(of_sdk(&files));
        assert_eq!(sdk.get("aws_access_key_id").map(String::as_str), Some("A"), "{header}");
    }
}

#[test]
fn the_credentials_file_comes_before_the_configuration_file() {
    let case = Case {
        config: b"[profile default]\nregion = r\naws_access_key_id = A\n\
                  aws_secret_access_key = S\n[default]\nregion = not\n",
        credentials: b"[default]\naws_access_key_id = B\naws_secret_access_key = T\n",
        ..Case::default()
    };
    let (files, _) = case.read();
    assert_eq!((pair(&files), files.region()), (["B", "T"], Some("r")));
    // Half a pair is no pair, also together with half of the other file's.
    let case = Case { credentials: b"[default]\naws_access_key_id = B\n", ..case };
    assert_eq!(pair(&case.read().0), ["B", ""]);
}

/// Returns the keys of the default profile as `aws-config` gets them.
async fn sdk(text: &str, variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    let case = Case { config: text.as_bytes(), variables, ..Case::default() };
    of_sdk(&case.read().0).await
}

fn keys<const N: usize>(keys: [(&str, &str); N]) -> BTreeMap<String, String> {
    keys.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

#[tokio::test]
async fn sources_of_a_profile_have_the_order_of_the_original() {
    let pair = "aws_access_key_id = A\naws_secret_access_key = S\n";
    let of_pair = [("aws_access_key_id", "A"), ("aws_secret_access_key", "S")];
    let own = format!("[default]\n{pair}sso_region = x\ncredential_process = y\nlogin_session = z");
    assert_eq!(sdk(&own, &[]).await, keys(of_pair));
    let [key, secret] = of_pair;
    let role = ("role_arn", "r");
    let own = format!("[default]\n{pair}role_arn = r\ncredential_source = Environment\n");
    assert_eq!(sdk(&own, &[]).await, keys([key, secret, role, ("source_profile", "default")]));
    let process = "[default]\nrole_arn = r\ncredential_process = p\n  --x 'y z'\n";
    let expected = [role, ("credential_process", "p\n--x 'y z'"), ("source_profile", "default")];
    assert_eq!(sdk(process, &[]).await, keys(expected));
    let alone = "[default]\nrole_arn = r\nsource_profile =\n";
    let source = |name| keys([role, ("credential_source", name)]);
    assert_eq!(sdk(alone, &[]).await, source("Ec2InstanceMetadata"));
    let container = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1/")];
    assert_eq!(sdk(alone, &container).await, source("EcsContainer"));
    let sso = "[default]\nsso_session = s\nsso_region = x\nsso_start_url = u\n[sso-session s]\n";
    assert_eq!(sdk(sso, &[]).await, keys([("sso_session", "s")]));
    // A session that is not there, and one without its role: `aws-config` says so.
    let sso = "[default]\nsso_session = 'a b'\n";
    assert_eq!(sdk(sso, &[]).await, keys([("sso_session", "a%20b")]));
    let sso = "[default]\nsso_session = a b\n[sso-session a b]\nsso_region = x\n";
    assert_eq!(sdk(sso, &[]).await, keys([("sso_session", "a%20b")]));
    let sso = "[default]\nsso_session = a  b\nsso_account_id = 1\nsso_role_name = n\n\
               [sso-session 'a b']\nsso_region = x\nsso_start_url = u\n";
    let source = ("credential_source", "SsoSession/default");
    assert_eq!(sdk(sso, &[]).await, keys([source]));
    assert_eq!(sdk(&format!("[default]\nrole_arn = r\n{sso}"), &[]).await, keys([role, source]));
    assert_eq!(config(sso).0.odd_sessions().len(), 1);
    let named = "[default]\nrole_arn = r\nsource_profile = 'a  b'\n[profile a b]\n";
    assert_eq!(sdk(named, &[]).await, keys([role, ("source_profile", "a%20b")]));
}

#[test]
fn settings_of_single_services_reach_the_sdk() {
    let text =
        "[default]\nservices = my own\n[services my own]\nsts =\n  endpoint_url = http://x\n";
    let (files, remarks) = config(text);
    assert_eq!(remarks, [""; 0]);
    let expected = "[profile default]\nservices = my%20own\n[services my%20own]\nsts = \n \
                    endpoint_url = http://x\n";
    assert_eq!(files.profiles.sdk_text(""), expected);
}

#[test]
fn a_session_of_aws_login_is_known_at_the_end_of_a_chain_and_not_beside_other_sources() {
    let chain = "[default]\nrole_arn = r\nsource_profile = x y\n[profile x y]\nlogin_session = l\n";
    let remedy = config(chain).0.login_remedy().unwrap();
    assert!(remedy.contains("export-credentials --profile 'x y' --format process"), "{remedy}");
    let both = "[default]\nlogin_session = l\ncredential_process = p\n";
    assert_eq!(config(both).0.login_remedy(), None);
    let endless = "[default]\nsource_profile = default\n";
    assert_eq!((config(endless).0.login_remedy(), config(endless).0.region()), (None, None));
}

#[test]
fn a_web_identity_of_the_environment_keeps_the_settings_of_endpoints_and_no_keys() {
    let text =
        "[default]\naws_access_key_id = A\naws_secret_access_key = S\nendpoint_url = http://x\n";
    let mut files = config(text).0;
    files.select_web_identity(WebIdentity {
        token_file: "/t".into(),
        role_arn: "r".into(),
        session_name: None,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let expected =
        [("endpoint_url", "http://x"), ("role_arn", "r"), ("web_identity_token_file", "/t")];
    assert_eq!(runtime.block_on(of_sdk(&files)), keys(expected));
}

proptest! {
    /// The profile of the last lines is found whatever stands before it, and `aws-config` accepts
    /// the text that it gets.
    #[test]
    fn a_good_profile_is_found_behind_any_lines(
        lines in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>().prop_filter("", |byte| *byte != b'\n'), 0..12),
                prop::sample::select(&[
                    "[", "]", "[x", "[a] b", "[a#b]", "[profile 'a b']", "[sso-session a#]b]",
                    "[services é]", "sts =", "  endpoint_url = x", " ; y", "  z", "region = \"",
                    "credential_process = p", "  # q", "   = r", "role_arn: s", "sso_session=a#]b",
                ][..]).prop_map(|line| line.as_bytes().to_vec()),
            ],
            0..12,
        ),
    ) {
        let mut text = lines.join(&b'\n');
        text.extend(b"\n[profile good]\naws_access_key_id = A\naws_secret_access_key = S\n");
        let case = Case {
            config: &text,
            variables: &[("AWS_PROFILE", "good")],
            ..Case::default()
        };
        let (files, remarks) = case.read();
        prop_assert!(remarks.len() <= REMARK_COUNT_MAX);
        if !text.starts_with(b"\xff\xfe") && !text.starts_with(b"\xfe\xff") {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let sdk = runtime.block_on(of_sdk(&files));
            prop_assert_eq!(sdk.get("aws_access_key_id").map(String::as_str), Some("A"));
        }
    }
}

#[test]
fn half_a_pair_of_keys_is_named_with_its_file_and_line() {
    let (id, secret) = ("aws_access_key_id", "aws_secret_access_key");
    for (text, line, there, missing) in [
        (format!("[default]\n\n{id} = a\n"), 3, id, secret),
        (format!("[default]\n{secret} = s\n"), 2, secret, id),
        (format!("[default]\n{id} =\n{secret} = s\n"), 2, secret, id),
        (format!("[default]\n{secret}\n{id} = a\n"), 3, id, secret),
    ] {
        let (_, remarks) = credentials(text.as_bytes());
        let said = format!("the profile \"default\" has {there}, but no value of {missing}");
        assert_eq!(remarks.last(), Some(&format!("credentials line {line}: {said}")), "{text}");
    }
    for text in [format!("[default]\n{id} = a\n{secret} = s\n"), format!("[other]\n{id} = a\n")] {
        assert_eq!(credentials(text.as_bytes()).1, [""; 0], "{text}");
    }
    // The files may share the pair.
    let config = format!("[default]\n{id} = a\n");
    let credentials = format!("[default]\n{secret} = s\n");
    let case =
        Case { config: config.as_bytes(), credentials: credentials.as_bytes(), ..Case::default() };
    assert_eq!(case.read().1, [""; 0]);
}
