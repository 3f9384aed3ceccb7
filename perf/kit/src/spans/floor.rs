//! The floor for spans: what no program can leave out that takes the same bytes and passes them on.
//!
//! For each request: reads it from the connection and inflates it if it is gzip. Then answers it.
//! Requests of one second, or of 5 MB, become one: their bodies are put one behind the other, which
//! in protobuf is one request. This request is compressed with gzip at level 1 (with `is_gzip`),
//! hashed with SHA-256 and sent over one TLS connection, and the answer is read. The floor inflates
//! and compresses with the daemon's library. It checks, looks at, signs, counts and bounds nothing,
//! and does not try again. It speaks HTTP/1.1 only.
//!
//! Threads: one for each connection, and one that uploads.

use crate::upload::{Target, Upload, header};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use xrayd_otlp::{BODY_BYTES_MAX, SPAN_COUNT_MAX, coding};

/// The longest time from the first request of an upload to the upload, as in the daemon.
const AGE_MAX: Duration = Duration::from_secs(1);
/// The largest number of requests of an upload: X-Ray's limit of spans, in batches of the kit.
const REQUEST_COUNT_MAX: usize = SPAN_COUNT_MAX / super::SPAN_COUNT;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";

const PLAIN: Target =
    Target { path: "/v1/traces", headers: "content-type: application/x-protobuf\r\n" };
const GZIP: Target = Target {
    path: "/v1/traces",
    headers: "content-type: application/x-protobuf\r\ncontent-encoding: gzip\r\n",
};

/// Space for the head of a request, and the least space for a read.
const READ_BYTES: usize = 256 * 1024;

/// The options of the floor for spans.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address on which the floor receives.
    pub listen: SocketAddr,
    /// Address of the endpoint.
    pub endpoint: SocketAddr,
    /// PEM file with the certificate of the endpoint's authority.
    pub authority: PathBuf,
    /// Whether uploads are compressed.
    pub is_gzip: bool,
}

/// Buffers that can be used again, so that the kernel need not provide fresh memory each time.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// Runs until the process is killed.
///
/// # Errors
///
/// Fails if a socket cannot be opened or the connection to the endpoint breaks.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let target = if options.is_gzip { GZIP } else { PLAIN };
    let upload = Upload::connect(options.endpoint, &options.authority, target)?;
    let listener = TcpListener::bind(options.listen)?;
    let (spare, is_gzip) = (Spare::default(), options.is_gzip);
    let (sender, bodies) = channel();
    let spare_too = Arc::clone(&spare);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (sender, spare) = (sender.clone(), Arc::clone(&spare_too));
            // This ends when the client closes the connection.
            thread::spawn(move || receive(stream, &sender, &spare));
        }
    });
    Uploads { upload, is_gzip, spare, compressed: Vec::new() }.run(&bodies)?;
    Ok(())
}

/// Receives the requests of a connection.
fn receive(mut stream: TcpStream, bodies: &Sender<Vec<u8>>, spare: &Spare) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut bytes, mut filled) = (vec![0; READ_BYTES], 0);
    loop {
        let head_bytes = loop {
            if let Some(end) = memchr::memmem::find(&bytes[..filled], b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut bytes[filled..])? {
                0 => return Ok(()),
                count => filled += count,
            }
        };
        let head = String::from_utf8_lossy(&bytes[..head_bytes]);
        let length = header(&head, "content-length").and_then(|value| value.parse().ok());
        let length: usize = length.ok_or_else(|| io::Error::other("a request has no length"))?;
        let encoding = header(&head, "content-encoding").map(str::to_owned);
        let end = head_bytes + length;
        if bytes.len() < end {
            bytes.resize(end + READ_BYTES, 0);
        }
        if filled < end {
            stream.read_exact(&mut bytes[filled..end])?;
        }
        let body = &bytes[head_bytes..end];
        let mut whole = spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let whole = whole.get_or_insert_default();
        // The kit's sender never writes `identity`, which would not be in the buffer.
        match encoding {
            None => {
                whole.clear();
                whole.extend_from_slice(body);
            }
            Some(encoding) => {
                coding::decode(Some(encoding.as_bytes()), body, BODY_BYTES_MAX, whole)
                    .map_err(io::Error::other)?;
            }
        }
        if bodies.send(std::mem::take(whole)).is_err() {
            return Ok(());
        }
        stream.write_all(ANSWER)?;
        // The client waits for each answer, so nothing of the next request is there.
        filled = 0;
    }
}

/// The thread that uploads.
struct Uploads {
    upload: Upload,
    is_gzip: bool,
    spare: Spare,
    compressed: Vec<u8>,
}

impl Uploads {
    /// Merges requests and uploads them until no connection can follow.
    fn run(&mut self, bodies: &Receiver<Vec<u8>>) -> io::Result<()> {
        let mut open: Vec<Vec<u8>> = Vec::new();
        let (mut length, mut due) = (0, Instant::now());
        loop {
            let next = match open.is_empty() {
                true => bodies.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => bodies.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let next = match next {
                Ok(body) => Some(body),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let added = next.as_ref().map_or(0, Vec::len);
            let is_full = length + added > BODY_BYTES_MAX || open.len() == REQUEST_COUNT_MAX;
            if !open.is_empty() && (next.is_none() || is_full) {
                self.send(&mut open)?;
                length = 0;
            }
            if let Some(body) = next {
                if open.is_empty() {
                    due = Instant::now() + AGE_MAX;
                }
                length += body.len();
                open.push(body);
            }
        }
    }

    fn send(&mut self, open: &mut Vec<Vec<u8>>) -> io::Result<()> {
        if self.is_gzip {
            self.compressed.clear();
            let mut encoder = GzEncoder::new(&mut self.compressed, Compression::fast());
            open.iter().try_for_each(|body| encoder.write_all(body))?;
            encoder.finish()?;
            self.upload.send(&[&self.compressed])?;
        } else {
            let pieces: Vec<&[u8]> = open.iter().map(Vec::as_slice).collect();
            self.upload.send(&pieces)?;
        }
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).append(open);
        Ok(())
    }
}
