//! The calls that fetch credentials use the same proxy, the same root certificates and the same
//! kind of endpoints as uploads. Only calls to this host do not.

use super::delivery::settle_once;
use super::endpoint::Endpoint;
use super::http_proxy::{Asked, HttpProxy, Manner, Service};
use super::load::{document, send};
use super::process::{Daemon, HEADER, config_file, daemon_command, with_credentials};
use super::proxy::{AUTHORIZATION, arrives, tunnel};
use super::tls::Authority;

const CONTAINER_KEYS: &str = r#"{"AccessKeyId":"AKIDCONTAINER","SecretAccessKey":"secret",
    "Token":"token","Expiration":"2099-01-01T00:00:00Z"}"#;

/// The answer of STS to a request for a role.
pub const ROLE_KEYS: &str = "<AssumeRoleResponse><AssumeRoleResult><Credentials>\
    <AccessKeyId>AKIDROLE</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
    <SessionToken>token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
    </AssumeRoleResult></AssumeRoleResponse>";

#[test]
fn sts_is_asked_through_the_proxy_and_container_credentials_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let container = Service::start(CONTAINER_KEYS, None);
    let sts = Service::start(ROLE_KEYS, Some(authority.server("sts.test", &[b"http/1.1"])));
    let endpoint = Endpoint::start();
    // The service only accepts the keys of the role.
    endpoint.change(|rules| rules.expired_key = Some("AKIDCONTAINER"));
    let proxy = HttpProxy::start(Manner::Password(AUTHORIZATION));
    let role = "arn:aws:iam::123456789012:role/xray";
    let address = format!("http://user:hush%3Ahush@{}", proxy.address);
    let arguments = ["-r", role, "-p", &address, "-l", "dev"];
    let mut command = daemon_command(&endpoint.url(), &arguments);
    let host = format!("sts.test:{}", sts.address.port());
    command.env("AWS_ENDPOINT_URL_STS", format!("https://{host}"));
    let uri = format!("http://{}/keys", container.address);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri);
    command.env("AWS_CA_BUNDLE", &authority.path).env("NO_PROXY", endpoint.address.to_string());
    let daemon = Daemon::spawn(command);
    let sent = send(daemon.udp, (0..100).map(document));
    let (log, _) = settle_once(daemon, &endpoint, &sent);
    let authorization = Some(AUTHORIZATION.to_owned());
    assert_eq!(proxy.asked(), [Asked { authorization, ..tunnel(host) }]);
    assert_eq!(container.requests(), ["/keys "]);
    let asked = sts.requests().join("\n");
    assert!(asked.contains("Action=AssumeRole") && asked.contains("xray-daemon"), "{asked}");
    assert!(!log.contains("hush") && !log.contains("dXNlcj"), "{log}");
}

const WEB_IDENTITY_KEYS: &str = "<AssumeRoleWithWebIdentityResponse>\
    <AssumeRoleWithWebIdentityResult><Credentials>\
    <AccessKeyId>AKIDWEB</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>\
    <SessionToken>token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
    </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";

#[test]
fn a_web_identity_is_shown_through_the_proxy_under_any_certificate_where_the_file_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = Authority::new(folder.path(), "foreign");
    let tls = foreign.server("other.example", &[b"http/1.1"]);
    let sts = Service::start(WEB_IDENTITY_KEYS, Some(tls));
    let endpoint = Endpoint::start();
    let proxy = HttpProxy::start(Manner::Open);
    let token = folder.path().join("token");
    std::fs::write(&token, "of-the-cluster").unwrap();
    let keys = format!("NoVerifySSL: true\nProxyAddress: {}", proxy.url());
    let mut command = daemon_command(&endpoint.url(), &["-c", &config_file(folder.path(), &keys)]);
    let host = format!("sts.test:{}", sts.address.port());
    command.env("AWS_ENDPOINT_URL_STS", format!("https://{host}"));
    command.env("AWS_WEB_IDENTITY_TOKEN_FILE", &token).env("AWS_ROLE_ARN", "arn:aws:iam::1:role/x");
    let log = arrives(Daemon::spawn(command), &endpoint);
    assert!(proxy.asked().contains(&tunnel(host)), "{log}");
    assert!(sts.requests()[0].contains("WebIdentityToken=of-the-cluster"), "{log}");
    assert!(!log.contains("of-the-cluster"), "{log}");
}

const SSO_KEYS: &str = r#"{"roleCredentials":{"accessKeyId":"AKIDSSO","secretAccessKey":"secret",
    "sessionToken":"token","expiration":4070908800000}}"#;

#[test]
fn a_session_of_sso_is_shown_through_the_proxy_under_a_private_authority() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::new(home.path(), "private");
    let sso = Service::start(SSO_KEYS, Some(authority.server("sso.test", &[b"http/1.1"])));
    let endpoint = Endpoint::start();
    let proxy = HttpProxy::start(Manner::Open);
    let cache = home.path().join(".aws/sso/cache");
    std::fs::create_dir_all(&cache).unwrap();
    let token = r#"{"accessToken":"hush-hush","expiresAt":"2099-01-01T00:00:00Z","region":
        "us-east-1","startUrl":"https://x.awsapps.com/start"}"#;
    // The name of the file is the SHA-1 of the session's name, `test`.
    let file = cache.join("a94a8fe5ccb19ba61c4c0873d391e987982fbbd3.json");
    std::fs::write(file, token).unwrap();
    let config = "[default]\nsso_session = test\nsso_account_id = 1\nsso_role_name = x\n\
                  [sso-session test]\nsso_region = us-east-1\n\
                  sso_start_url = https://x.awsapps.com/start\n";
    std::fs::write(home.path().join(".aws/config"), config).unwrap();
    let mut command = daemon_command(&endpoint.url(), &["-p", &proxy.url(), "-l", "dev"]);
    let host = format!("sso.test:{}", sso.address.port());
    command.env("HOME", home.path()).env("AWS_ENDPOINT_URL_SSO", format!("https://{host}"));
    command.env("AWS_CA_BUNDLE", &authority.path);
    let log = arrives(Daemon::spawn(command), &endpoint);
    assert!(proxy.asked().contains(&tunnel(host)), "{log}");
    assert_eq!(sso.requests(), ["/federation/credentials "]);
    assert!(!log.contains("hush"), "{log}");
}

#[test]
fn uploads_and_sts_go_to_the_endpoints_of_the_region_that_the_variables_choose() {
    for (region, variables, xray, sts) in [
        (
            "cn-north-1",
            &[][..],
            "xray.cn-north-1.amazonaws.com.cn",
            "sts.cn-north-1.amazonaws.com.cn",
        ),
        (
            "us-east-1",
            &[("AWS_USE_FIPS_ENDPOINT", "true")],
            "xray-fips.us-east-1.amazonaws.com",
            "sts-fips.us-east-1.amazonaws.com",
        ),
        (
            "eu-west-1",
            &[("AWS_USE_FIPS_ENDPOINT", "true"), ("AWS_USE_DUALSTACK_ENDPOINT", "true")],
            "xray-fips.eu-west-1.api.aws",
            "sts-fips.eu-west-1.api.aws",
        ),
    ] {
        for (arguments, host) in [(&[][..], xray), (&["-r", "arn:aws:iam::1:role/x"], sts)] {
            let proxy = HttpProxy::start(Manner::Refuse("502 Bad Gateway"));
            let proxy_url = proxy.url();
            let mut all = vec!["-n", region, "-p", &proxy_url];
            all.extend(arguments);
            let mut command = daemon_command("", &all);
            with_credentials(&mut command).envs(variables.iter().copied());
            let daemon = Daemon::spawn(command);
            daemon.send([format!("{HEADER}{{}}")]);
            let wanted = tunnel(format!("{host}:443"));
            daemon.wait_until(host, || proxy.asked().contains(&wanted));
            assert_eq!(proxy.asked(), [wanted]);
        }
    }
}
