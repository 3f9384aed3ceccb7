//! Calls to the service through a SOCKS5 proxy that a test controls and that records its requests.

use super::credentials::service;
use super::endpoint::Endpoint;
use super::http_proxy::{self, Service, run};
use super::process::{Daemon, config_file, daemon_command};
use super::proxy::{arrives, told_and_kept};
use super::proxy_identity::ROLE_KEYS;
use super::tls::Authority;
use super::verify::Verified;
use socket2::Socket;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

/// How the proxy treats its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Serves all clients.
    Open,
    /// Serves all clients, and sends each byte of its answers alone.
    Drip,
    /// Serves clients that give this user and this password.
    Password(&'static str, &'static str),
    /// Accepts none of the ways to log in that the client offers.
    NoWay,
    /// Answers each request with this code.
    Refuse(u8),
    /// Answers the first bytes of a client with these bytes, and closes the connection.
    Say(&'static [u8]),
    /// Never answers.
    Hang,
}

/// A request that the proxy received.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    /// The ways to log in that the client offered.
    methods: Vec<u8>,
    /// The user and the password, if the client was asked for them.
    login: Option<(String, String)>,
    /// `name`, `IPv4` or `IPv6`, and the target.
    target: String,
}

/// Returns the record of a request without a login.
fn asked(target: impl Into<String>) -> Asked {
    Asked { methods: vec![0], login: None, target: target.into() }
}

/// A running proxy. It resolves every host name to 127.0.0.1.
struct SocksProxy {
    address: SocketAddr,
    state: Arc<Mutex<(Manner, Vec<Asked>)>>,
    /// The proxy's thread ends when this field is dropped.
    _running: tokio::sync::oneshot::Sender<()>,
}

impl SocksProxy {
    fn start(manner: Manner) -> Self {
        Self::start_on(http_proxy::port(), manner)
    }

    fn start_on(port: Socket, manner: Manner) -> Self {
        let address = http_proxy::address(&port);
        let state = Arc::new(Mutex::new((manner, Vec::new())));
        let shared = Arc::clone(&state);
        let running = run(port, move |stream| {
            let state = Arc::clone(&shared);
            async move {
                // An error means that one side closed its connection.
                let _ = serve(stream, &state).await;
            }
        });
        Self { address, state, _running: running }
    }

    fn url(&self) -> String {
        format!("socks5://{}", self.address)
    }

    fn set_manner(&self, manner: Manner) {
        self.state.lock().unwrap().0 = manner;
    }

    /// Returns the requests so far. Equal requests that follow each other are listed once.
    fn asked(&self) -> Vec<Asked> {
        let mut asked = self.state.lock().unwrap().1.clone();
        asked.dedup();
        asked
    }
}

async fn say(stream: &mut TcpStream, manner: Manner, bytes: &[u8]) -> io::Result<()> {
    if manner != Manner::Drip {
        return stream.write_all(bytes).await;
    }
    for byte in bytes {
        stream.write_all(&[*byte]).await?;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Reads a text whose length is in the byte before it.
async fn text(stream: &mut TcpStream) -> io::Result<String> {
    let mut bytes = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(String::from_utf8(bytes).unwrap())
}

/// Serves one connection, in the form of RFC 1928 and RFC 1929.
async fn serve(mut stream: TcpStream, state: &Mutex<(Manner, Vec<Asked>)>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    assert_eq!(stream.read_u8().await?, 5, "the version");
    let mut methods = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut methods).await?;
    let manner = state.lock().unwrap().0;
    let mut login = None;
    match manner {
        Manner::Hang => pending().await,
        Manner::Say(bytes) => {
            stream.write_all(bytes).await?;
            stream.shutdown().await?;
            // The client's bytes are read, so that its end sees no reset.
            return tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop);
        }
        Manner::NoWay => return stream.write_all(&[5, 0xff]).await,
        Manner::Password(..) if !methods.contains(&2) => {
            return stream.write_all(&[5, 0xff]).await;
        }
        Manner::Password(user, password) => {
            stream.write_all(&[5, 2]).await?;
            assert_eq!(stream.read_u8().await?, 1, "the version of the login");
            let given = (text(&mut stream).await?, text(&mut stream).await?);
            let is_right = given == (user.to_owned(), password.to_owned());
            login = Some(given);
            stream.write_all(&[1, u8::from(!is_right)]).await?;
        }
        Manner::Open | Manner::Drip | Manner::Refuse(_) => {
            say(&mut stream, manner, &[5, 0]).await?
        }
    }
    let mut head = [0; 3];
    stream.read_exact(&mut head).await?;
    assert_eq!(head, [5, 1, 0], "the version, and a request for a connection");
    let host = match stream.read_u8().await? {
        1 => format!("IPv4 {}", Ipv4Addr::from_bits(stream.read_u32().await?)),
        3 => format!("name {}", text(&mut stream).await?),
        4 => format!("IPv6 {}", Ipv6Addr::from_bits(stream.read_u128().await?)),
        kind => panic!("kind of address {kind}"),
    };
    let port = stream.read_u16().await?;
    let asked = Asked { methods, login, target: format!("{host}:{port}") };
    state.lock().unwrap().1.push(asked);
    if let Manner::Refuse(code) = manner {
        return stream.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await;
    }
    let mut upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    // The address of the proxy's own end may be a name, and of any length.
    say(&mut stream, manner, b"\x05\0\0\x03\x09localhost\0\x07").await?;
    copy_bidirectional(&mut stream, &mut upstream).await.map(drop)
}

#[test]
fn an_https_endpoint_is_reached_by_a_name_that_only_the_socks_proxy_knows() {
    for (scheme, protocol) in [("socks5", &b"http/1.1"[..]), ("socks5h", b"h2"), ("SOCKS5", b"h2")]
    {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "private");
        let endpoint = Endpoint::start_tls(authority.server("xray.test", &[protocol]));
        let proxy = SocksProxy::start(Manner::Open);
        let host = format!("xray.test:{}", endpoint.address.port());
        let bundle = authority.path.to_str().unwrap();
        let url = format!("{scheme}://{}", proxy.address);
        let variables = [("AWS_CA_BUNDLE", bundle), ("HTTPS_PROXY", &url)];
        let daemon = Daemon::start(&format!("https://{host}"), &[], &variables);
        let log = arrives(daemon, &endpoint);
        assert_eq!(proxy.asked(), [asked(format!("name {host}"))]);
        let through = format!("in region us-east-1 through {}", url.to_lowercase());
        assert!(log.contains(&through), "{log}");
        // The telemetry of the shutdown has no other way than the proxy either.
        assert!(endpoint.ledger(|ledger| !ledger.telemetry.is_empty()), "{log}");
    }
}

#[test]
fn a_plain_endpoint_is_reached_through_a_connection_too_as_by_the_original() {
    for manner in [Manner::Open, Manner::Drip] {
        let endpoint = Endpoint::start();
        let proxy = SocksProxy::start(manner);
        arrives(Daemon::start(&endpoint.url(), &["-p", &proxy.url()], &[]), &endpoint);
        assert_eq!(proxy.asked(), [asked(format!("IPv4 {}", endpoint.address))]);
    }
}

#[test]
fn a_login_goes_to_the_socks_proxy_alone_if_it_asks_for_one_and_into_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let long: &'static str = "hush".repeat(63).leak();
    for (manner, user, password, written) in [
        (Manner::Open, "user", "hush", "user:hush"),
        (Manner::Password("user", "hush:hush@"), "user", "hush:hush@", "user:hush%3Ahush%40"),
        (Manner::Password("user-hush", ""), "user-hush", "", "user-hush"),
        (Manner::Password(long, long), long, long, &format!("{long}:{long}")),
    ] {
        let endpoint = Endpoint::start();
        let proxy = SocksProxy::start(manner);
        let address = format!("socks5://{written}@{}", proxy.address);
        let config = config_file(folder.path(), &format!("ProxyAddress: \"{address}\""));
        let daemon = Daemon::start(&endpoint.url(), &["-c", &config, "-l", "dev"], &[]);
        let log = arrives(daemon, &endpoint);
        let login = (manner != Manner::Open).then(|| (user.to_owned(), password.to_owned()));
        let target = format!("IPv4 {}", endpoint.address);
        assert_eq!(proxy.asked(), [Asked { methods: vec![0, 2], login, target }]);
        assert!(!log.contains("hush"), "{log}");
    }
}

#[test]
fn what_a_socks_proxy_refuses_is_named_with_what_to_do_and_arrives_when_it_is_allowed() {
    let refuses = "refuses a connection to";
    let breaks = "breaks off a connection to";
    for (manner, login, what, text) in [
        (Manner::Password("u", "p"), "", refuses, "Give it a user and a password"),
        (Manner::Password("u", "p"), "user:hush@", refuses, "Correct the user and the password"),
        (Manner::NoWay, "user:hush@", refuses, "neither with a user and a password nor without"),
        (Manner::Refuse(1), "", refuses, "a failure of the proxy"),
        (Manner::Refuse(2), "", refuses, "Allow this host in the rules of the proxy"),
        (Manner::Refuse(4), "", refuses, "it cannot reach the host"),
        (Manner::Refuse(5), "", refuses, "no program listens there"),
        (Manner::Refuse(77), "", refuses, "its code is 77"),
        (Manner::Say(b""), "", breaks, "it closes the connection"),
        (Manner::Say(b"\x05"), "", breaks, "it closes the connection"),
        (Manner::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "", breaks, "It may be an HTTP proxy"),
        (Manner::Say(b"\x05\x09"), "", breaks, "it does not speak SOCKS5"),
        (Manner::Say(b"\x05\x00\x05\x00\x00\x07"), "", breaks, "it does not speak SOCKS5"),
        (Manner::Say(b"\x05\x00\x04\x00\x00\x01"), "", breaks, "it does not speak SOCKS5"),
    ] {
        let endpoint = Endpoint::start();
        let proxy = SocksProxy::start(manner);
        let address = format!("socks5://{login}{}", proxy.address);
        let daemon = Daemon::start(&endpoint.url(), &["-p", &address], &[]);
        let line = told_and_kept(daemon, &endpoint, || proxy.set_manner(Manner::Open));
        let named = format!("the proxy {} {what} {}", proxy.url(), endpoint.address);
        assert!(line.contains(&named) && line.contains(text), "{manner:?}: {line}");
        assert!(!line.contains("hush"), "{line}");
    }
}

#[test]
fn a_socks_proxy_that_is_down_is_named_and_nothing_is_lost() {
    let endpoint = Endpoint::start();
    let port = http_proxy::port();
    let address = format!("socks5h://{}", http_proxy::address(&port));
    let daemon = Daemon::start(&endpoint.url(), &["-p", &address], &[]);
    let line = told_and_kept(daemon, &endpoint, || SocksProxy::start_on(port, Manner::Open));
    let text = format!("the proxy {address} cannot be reached: connection refused");
    assert!(line.contains(&text), "{line}");
}

#[test]
fn a_socks_proxy_that_does_not_answer_is_given_up_after_the_time_for_a_connection() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::start();
    let proxy = SocksProxy::start(Manner::Hang);
    let keys = format!("Upload: {{ConnectTimeoutSeconds: 1}}\nProxyAddress: {}", proxy.url());
    let config = config_file(folder.path(), &keys);
    let daemon = Daemon::start(&endpoint.url(), &["-c", &config], &[]);
    let line = told_and_kept(daemon, &endpoint, || proxy.set_manner(Manner::Open));
    let text = format!("through the proxy {} within 1 s", proxy.url());
    assert!(line.contains(&text), "{line}");
}

#[test]
fn sts_is_asked_through_the_socks_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "private");
    let sts = Service::start(ROLE_KEYS, Some(authority.server("sts.test", &[b"http/1.1"])));
    let endpoint = Endpoint::start();
    let proxy = SocksProxy::start(Manner::Password("user", "hush"));
    let address = format!("socks5h://user:hush@{}", proxy.address);
    let role = "arn:aws:iam::123456789012:role/xray";
    let arguments = ["-r", role, "-p", &address, "-l", "dev"];
    let mut command = daemon_command(&endpoint.url(), &arguments);
    super::process::with_credentials(&mut command);
    let host = format!("sts.test:{}", sts.address.port());
    command.env("AWS_ENDPOINT_URL_STS", format!("https://{host}"));
    command.env("AWS_CA_BUNDLE", &authority.path).env("NO_PROXY", endpoint.address.to_string());
    let log = arrives(Daemon::spawn(command), &endpoint);
    let login = Some(("user".to_owned(), "hush".to_owned()));
    let target = format!("name {host}");
    assert_eq!(proxy.asked(), [Asked { methods: vec![0, 2], login, target }]);
    assert!(sts.requests().join("\n").contains("Action=AssumeRole"), "{log}");
    assert!(!log.contains("hush"), "{log}");
}

#[test]
fn verify_names_the_step_through_the_socks_proxy() {
    for (manner, verdict, part) in
        [(Manner::Open, "ok", "opens a tunnel"), (Manner::Refuse(2), "FAIL", "its rules")]
    {
        let service = service();
        let proxy = SocksProxy::start(manner);
        Verified::run(&service.url(), &["-p", &proxy.url()], &[]).has("proxy", verdict, part);
    }
}
