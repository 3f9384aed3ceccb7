//! Asks a SOCKS5 proxy for a connection to a host (RFC 1928, RFC 1929).
//!
//! In: an open connection to the proxy, the login, and the host. Out: the same connection, which
//! now leads to the host, or the reason why it does not. Bound: the caller's timeout; 262 bytes of
//! the proxy's answers. Thread: the caller's.
//!
//! The bytes are those of Go's `net/http`, with which the original daemon does this. A client with
//! a login also offers to go without it, and a password may be empty. The connector of hyper-util
//! (0.1) offers the login alone, has room for 256 bytes of it, and hides the type of its errors.
//! The crate `tokio-socks` (0.5) refuses an empty password.

use super::proxy::SocksLogin;
use crate::base::account::RequestFailure;
use std::io;
use std::net::IpAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The version of the protocol, in the first byte of most messages.
const VERSION: u8 = 5;

/// The version of the messages with user and password.
const LOGIN_VERSION: u8 = 1;

/// The ways to log in: none, with user and password, and the answer that no offered way is allowed.
const WITHOUT_LOGIN: u8 = 0;
const WITH_LOGIN: u8 = 2;
const NO_WAY: u8 = 0xff;

/// The request for a connection.
const CONNECT: u8 = 1;

/// The kinds of addresses.
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Why a SOCKS5 proxy refuses a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SocksRefusal {
    /// The proxy wants a login, and its address has none.
    #[error(
        "it wants a login. Give it a user and a password in its address, \
         socks5://USER:PASSWORD@HOST:PORT"
    )]
    NeedsLogin,
    /// The proxy accepts neither a login with user and password nor a client without login.
    #[error("it serves clients neither with a user and a password nor without")]
    NoWay,
    /// User or password are wrong.
    #[error("it does not accept the login. Correct the user and the password in its address")]
    Login,
    /// The proxy's answer to the request for the connection.
    #[error("{}", answer_text(*.0))]
    Answer(u8),
}

impl SocksRefusal {
    /// Returns the kind of failure that telemetry and the metrics count.
    pub(super) fn kind(self) -> RequestFailure {
        match self {
            Self::Answer(5) => RequestFailure::ConnectionRefused,
            _ => RequestFailure::Other,
        }
    }
}

/// Returns the meaning of an answer other than success, with advice where there is one.
fn answer_text(code: u8) -> String {
    let text = match code {
        1 => "a failure of the proxy itself. Look into the log of the proxy",
        2 => "its rules do not allow it. Allow this host in the rules of the proxy",
        3 => "it cannot reach the network of the host",
        4 => "it cannot reach the host, or does not find its name",
        5 => "connection refused: no program listens there",
        6 => "the packets do not reach the host (TTL expired)",
        7 => "it does not make connections for its clients (command not supported)",
        8 => "it does not support this kind of address",
        code => return format!("its code is {code}"),
    };
    text.to_owned()
}

/// The reason why the proxy has not connected to the host.
#[derive(Debug)]
pub(super) enum SocksError {
    /// The proxy refuses it.
    Refused(SocksRefusal),
    /// The proxy closes the connection, or does not speak SOCKS5.
    Broken(String),
}

impl From<SocksRefusal> for SocksError {
    fn from(refusal: SocksRefusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<io::Error> for SocksError {
    fn from(error: io::Error) -> Self {
        Self::Broken(match error.kind() {
            io::ErrorKind::UnexpectedEof => "it closes the connection".to_owned(),
            _ => error.to_string(),
        })
    }
}

/// Asks the proxy at the other end of `wire` for a connection to `host`, a name or an IP address
/// without brackets. The proxy looks up a name.
///
/// # Errors
///
/// Returns an error if the proxy refuses, breaks off or does not speak SOCKS5.
pub(super) async fn ask<W: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut W,
    login: Option<&SocksLogin>,
    host: &str,
    port: u16,
) -> Result<(), SocksError> {
    let offer: &[u8] = match login {
        Some(_) => &[VERSION, 2, WITHOUT_LOGIN, WITH_LOGIN],
        None => &[VERSION, 1, WITHOUT_LOGIN],
    };
    wire.write_all(offer).await?;
    wire.flush().await?;
    let mut choice = [0; 2];
    wire.read_exact(&mut choice).await?;
    match (choice, login) {
        ([VERSION, WITHOUT_LOGIN], _) => {}
        ([VERSION, WITH_LOGIN], Some(login)) => log_in(wire, login).await?,
        ([VERSION, NO_WAY], Some(_)) => return Err(SocksRefusal::NoWay.into()),
        ([VERSION, NO_WAY], None) => return Err(SocksRefusal::NeedsLogin.into()),
        _ => return Err(foreign(choice)),
    }
    wire.write_all(&request(host, port)?).await?;
    wire.flush().await?;
    let mut answer = [0; 2];
    wire.read_exact(&mut answer).await?;
    match answer {
        [VERSION, 0] => {}
        // The rest of a refusal is not read: some proxies do not send it.
        [VERSION, code] => return Err(SocksRefusal::Answer(code).into()),
        _ => return Err(foreign(answer)),
    }
    let mut kind = [0; 2];
    wire.read_exact(&mut kind).await?;
    // The address of the proxy's own end of the connection, and its port. It has no use here.
    let address_bytes = match kind {
        [0, IPV4] => 4,
        [0, IPV6] => 16,
        [0, NAME] => usize::from(wire.read_u8().await?),
        _ => return Err(foreign(answer)),
    };
    let mut address = [0; u8::MAX as usize + 2];
    wire.read_exact(&mut address[..address_bytes + 2]).await?;
    Ok(())
}

async fn log_in<W: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut W,
    login: &SocksLogin,
) -> Result<(), SocksError> {
    let mut message = vec![LOGIN_VERSION];
    for text in [&login.user, &login.password] {
        message.push(length(text)?);
        message.extend(text.as_bytes());
    }
    wire.write_all(&message).await?;
    wire.flush().await?;
    let mut answer = [0; 2];
    wire.read_exact(&mut answer).await?;
    match answer {
        [LOGIN_VERSION, 0] => Ok(()),
        [LOGIN_VERSION, _] => Err(SocksRefusal::Login.into()),
        _ => Err(foreign(answer)),
    }
}

/// Returns the request for a connection to `host`.
fn request(host: &str, port: u16) -> Result<Vec<u8>, SocksError> {
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend(address.octets());
        }
        Err(_) => {
            request.extend([NAME, length(host)?]);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}

/// Returns the length of a text in the one byte that the protocol has for it.
fn length(text: &str) -> Result<u8, SocksError> {
    let too_long = |_| SocksError::Broken("SOCKS5 has no room for more than 255 bytes".to_owned());
    u8::try_from(text.len()).map_err(too_long)
}

/// Returns the error for an answer that begins with `bytes` and is not one of SOCKS5.
fn foreign(bytes: [u8; 2]) -> SocksError {
    SocksError::Broken(match &bytes {
        b"HT" => "it does not speak SOCKS5. It may be an HTTP proxy: give its address as \
                  http://HOST:PORT"
            .to_owned(),
        _ => "it does not speak SOCKS5".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    /// Asks a proxy that says `answers` for a connection to `host`. Returns the client's bytes, and
    /// the bytes behind the proxy's answers, which come from the host.
    async fn asked(host: &str, answers: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut client, mut proxy) = tokio::io::duplex(1_024);
        proxy.write_all(answers).await.unwrap();
        ask(&mut client, None, host, 443).await.unwrap();
        let (mut said, mut rest) = (Vec::new(), Vec::new());
        proxy.shutdown().await.unwrap();
        client.read_to_end(&mut rest).await.unwrap();
        drop(client);
        proxy.read_to_end(&mut said).await.unwrap();
        (said, rest)
    }

    #[tokio::test]
    async fn the_proxys_own_address_may_be_of_each_kind_and_what_follows_it_is_of_the_host() {
        let of_kinds = [&b"\x01\x7f\0\0\x01"[..], b"\x04abcdefghijklmnop", b"\x03\x01x", b"\x03\0"];
        for address in of_kinds {
            let answers = [b"\x05\0\x05\0\0", address, b"\x04\x38of the host"].concat();
            let (_, rest) = asked("xray.test", &answers).await;
            assert_eq!(String::from_utf8_lossy(&rest), "of the host", "{address:?}");
        }
    }

    #[tokio::test]
    async fn a_host_is_asked_for_by_address_or_by_name() {
        let v6 = [&[4][..], &Ipv6Addr::LOCALHOST.octets()].concat();
        let hosts =
            [("127.0.0.1", &b"\x01\x7f\0\0\x01"[..]), ("::1", &v6), ("a.test", b"\x03\x06a.test")];
        for (host, expected) in hosts {
            let (said, _) = asked(host, b"\x05\0\x05\0\0\x01\0\0\0\0\0\0").await;
            assert_eq!(said, [b"\x05\x01\0\x05\x01\0", expected, b"\x01\xbb"].concat(), "{host}");
        }
    }

    /// The codes of RFC 1928, section 6.
    #[test]
    fn each_code_of_a_refusal_is_told_by_its_meaning() {
        let meanings =
            ["failure", "rules", "network", "host", "refused", "TTL", "command", "address"];
        for (code, meaning) in (1..).zip(meanings) {
            let text = SocksRefusal::Answer(code).to_string();
            assert!(text.contains(meaning), "{code}: {text}");
        }
        assert_eq!(SocksRefusal::Answer(9).to_string(), "its code is 9");
    }
}
