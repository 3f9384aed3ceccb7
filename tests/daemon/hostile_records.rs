//! TLS records of any kind on an open connection, which no TLS library would send.
//!
//! In: a session after its handshake. Out: encrypted records. The session is over afterwards: the
//! service can only send.

use rustls::crypto::cipher::{AeadKey, Iv, MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::ring::ALL_CIPHER_SUITES;
use rustls::{
    ConnectionTrafficSecrets, ContentType, ProtocolVersion, ServerConnection, SupportedCipherSuite,
};
use std::io::{self, Write};
use std::net::TcpStream;

/// The sending half of a TLS connection.
pub struct Records {
    encrypter: Box<dyn MessageEncrypter>,
    next_number: u64,
    socket: TcpStream,
}

impl Records {
    /// Takes the keys out of a session whose configuration permits it.
    pub fn new(session: ServerConnection, socket: TcpStream) -> io::Result<Self> {
        let suite = session.negotiated_cipher_suite().expect("the handshake is over");
        let secrets = session.dangerous_extract_secrets().map_err(io::Error::other)?;
        let (next_number, secrets) = secrets.tx;
        let (key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => return Err(io::Error::other("the cipher is not known")),
        };
        Ok(Self { encrypter: encrypter(suite, key, iv), next_number, socket })
    }

    /// Sends a record of this type.
    pub fn send(&mut self, kind: ContentType, payload: &[u8]) -> io::Result<()> {
        let payload = OutboundChunks::Single(payload);
        let message =
            OutboundPlainMessage { typ: kind, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.encrypter.encrypt(message, self.next_number).map_err(io::Error::other)?;
        self.next_number += 1;
        self.socket.write_all(&record.encode())
    }

    /// Sends an alert with this level and this description.
    pub fn alert(&mut self, level: u8, description: u8) -> io::Result<()> {
        self.send(ContentType::Alert, &[level, description])
    }
}

fn encrypter(suite: SupportedCipherSuite, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
    assert!(ALL_CIPHER_SUITES.contains(&suite));
    match suite {
        SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
        SupportedCipherSuite::Tls12(suite) => {
            let shape = suite.aead_alg.key_block_shape();
            let (fixed, explicit) = iv.as_ref().split_at(shape.fixed_iv_len);
            suite.aead_alg.encrypter(key, fixed, explicit)
        }
    }
}
