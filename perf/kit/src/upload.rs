//! The upload of the floors: one TLS connection with one request at a time.
//!
//! In: bodies. Out: requests to the endpoint, with the SHA-256 of the body as a signed request has
//! it, but without a signature. Thread: that of the caller, which waits for the answer.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sha2::{Digest, Sha256};
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

/// The call that a floor makes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Path of the call.
    pub path: &'static str,
    /// Headers of the call; each ends with CR and LF.
    pub headers: &'static str,
}

/// One TLS connection with one request at a time.
pub struct Upload {
    stream: StreamOwned<ClientConnection, TcpStream>,
    host: SocketAddr,
    target: Target,
    header: String,
    answer: Vec<u8>,
}

impl Upload {
    /// Opens a connection. `authority` is a PEM file with the certificate of the endpoint's
    /// authority.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or the endpoint does not listen.
    pub fn connect(
        endpoint: SocketAddr,
        authority: &Path,
        target: Target,
    ) -> Result<Self, Box<dyn Error>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(authority)? {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(endpoint)?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(endpoint.ip());
        let connection = ClientConnection::new(Arc::new(config), name)?;
        let stream = StreamOwned::new(connection, stream);
        let (header, answer) = (String::new(), vec![0; 4096]);
        Ok(Self { stream, host: endpoint, target, header, answer })
    }

    /// Sends a body in pieces, and waits for the answer.
    ///
    /// # Errors
    ///
    /// Fails if the connection breaks, or the endpoint does not answer with success.
    pub fn send(&mut self, body: &[&[u8]]) -> io::Result<()> {
        let mut hash = Sha256::new();
        body.iter().for_each(|piece| hash.update(piece));
        let length: usize = body.iter().map(|piece| piece.len()).sum();
        let Target { path, headers } = self.target;
        self.header.clear();
        let _ = write!(
            self.header,
            "POST {path} HTTP/1.1\r\nhost: {}\r\n{headers}\
             content-length: {length}\r\nx-amz-content-sha256: ",
            self.host,
        );
        for byte in hash.finalize() {
            let _ = write!(self.header, "{byte:02x}");
        }
        self.header.push_str("\r\n\r\n");
        self.stream.write_all(self.header.as_bytes())?;
        for piece in body {
            self.stream.write_all(piece)?;
        }
        self.stream.flush()?;
        // The endpoint's answers are short and have a Content-Length; usually one read is enough.
        let mut filled = 0;
        loop {
            let count = self.stream.read(&mut self.answer[filled..])?;
            filled += count;
            if count == 0 || !self.answer.starts_with(b"HTTP/1.1 200") {
                return Err(io::Error::other("the endpoint does not answer with success"));
            }
            if is_whole(&self.answer[..filled]) {
                return Ok(());
            }
        }
    }
}

/// Returns whether the answer is complete.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = header(head, "content-length").and_then(|value| value.parse().ok());
    length.is_none_or(|length: usize| body.len() >= length)
}

/// Returns the value of a header in the head of a request or an answer.
pub fn header<'a>(head: &'a str, wanted: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(wanted).then(|| value.trim())
    })
}
