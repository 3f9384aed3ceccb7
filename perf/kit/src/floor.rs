//! The floor: the cost of receiving and uploading on this machine without any other work.
//!
//! Every 10 ms the floor receives all waiting datagrams with `recvmmsg`. For every 50 datagrams it
//! hashes a prepared body of 50 documents, sends the body over one TLS connection and reads the
//! answer. It does not check, parse, escape, sign, count or buffer anything. It copies the mark of
//! each datagram (44 bytes) into the body, so that the endpoint can count documents. With
//! `with_parsing` the floor parses each document with the daemon's parser (simd-json) and escapes
//! it into the body, which is the least that a correct daemon must do.

use super::document::{MARK_BYTES, Mark};
use super::upload::{Target, Upload};
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};
use std::error::Error;
use std::hint::black_box;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use xrayd::pipeline::batch::escape;
use xrayd::pipeline::segment::{Parser, split};

const WAKE_INTERVAL: Duration = Duration::from_millis(10);
/// Number of wake-ups without a datagram after which the floor sends an incomplete body, so that
/// these documents do not count as lost.
const SILENCE: u32 = 100;
const DOCUMENT_COUNT: usize = 50;
/// The queue size that the daemon requests with `-m 256`.
const QUEUE_BYTES: usize = 16 << 20;
const SLOT_COUNT: usize = 64;
const SLOT_BYTES: usize = 65_536 + 64;

const BODY_START: &[u8] = br#"{"TraceSegmentDocuments":["#;
const BODY_END: &[u8] = b"]}";

/// The call that uploads documents.
const TARGET: Target =
    Target { path: "/TraceSegments", headers: "content-type: application/json\r\n" };

/// The options of the floor.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address on which the floor receives.
    pub listen: SocketAddr,
    /// Address of the endpoint.
    pub endpoint: SocketAddr,
    /// PEM file with the certificate of the endpoint's authority.
    pub authority: PathBuf,
    /// Whether documents are parsed and escaped.
    pub with_parsing: bool,
}

/// Runs until the process is killed.
///
/// # Errors
///
/// Fails if a socket cannot be opened or the connection breaks.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind(options.listen)?;
    let handle = socket2::SockRef::from(&socket);
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES).is_err() {
        handle.set_recv_buffer_size(QUEUE_BYTES)?;
    }
    let mut upload = Upload::connect(options.endpoint, &options.authority, TARGET)?;
    let mut body = Body::new(options.with_parsing);
    let mut parser = options.with_parsing.then(Parser::default);
    let mut buffers = vec![0; SLOT_COUNT * SLOT_BYTES];
    let mut lengths = [0; SLOT_COUNT];
    let mut silence = 0;
    loop {
        let taken = receive(&socket, &mut buffers, &mut lengths)?;
        let datagrams = buffers.chunks_exact(SLOT_BYTES).zip(lengths);
        for (slot, length) in datagrams.take(taken) {
            let datagram = &slot[..length];
            match &mut parser {
                None => body.add_mark(datagram),
                Some(parser) => body.add_document(parser, datagram),
            }
            if body.count == DOCUMENT_COUNT {
                upload.send(&[body.finish()])?;
                body.begin_again();
            }
        }
        silence = if taken == 0 { silence + 1 } else { 0 };
        if silence == SILENCE && body.count > 0 {
            upload.send(&[&body.part()])?;
            body.begin_again();
        }
        if taken < SLOT_COUNT {
            thread::sleep(WAKE_INTERVAL);
        }
    }
}

/// Receives waiting datagrams, at most one per slot.
fn receive(
    socket: &UdpSocket,
    buffers: &mut [u8],
    lengths: &mut [usize; SLOT_COUNT],
) -> io::Result<usize> {
    let mut headers = MultiHeaders::<()>::preallocate(SLOT_COUNT, None);
    let mut slices: Vec<_> =
        buffers.chunks_exact_mut(SLOT_BYTES).map(|slot| [IoSliceMut::new(slot)]).collect();
    let flags = MsgFlags::MSG_DONTWAIT;
    match recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None) {
        Ok(messages) => {
            let mut count = 0;
            for (message, length) in messages.zip(lengths) {
                *length = message.bytes;
                count += 1;
            }
            Ok(count)
        }
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// A body of 50 documents. Without parsing it is built from the first 50 documents and then reused.
/// With parsing it is built for each request.
struct Body {
    /// Memory for 50 documents of the largest size. The kernel provides only the part in use.
    bytes: Vec<u8>,
    length: usize,
    /// Number of documents in the body.
    count: usize,
    /// The offsets in `bytes` of the documents' marks, and the offsets of the documents' ends.
    marks: Vec<usize>,
    ends: Vec<usize>,
    is_made_anew: bool,
    is_ready: bool,
}

impl Body {
    fn new(is_made_anew: bool) -> Self {
        let document_bytes = SLOT_BYTES * escape::EXPANSION_MAX;
        let mut bytes = vec![0; DOCUMENT_COUNT * document_bytes];
        bytes[..BODY_START.len()].copy_from_slice(BODY_START);
        Self {
            bytes,
            length: BODY_START.len(),
            count: 0,
            marks: Vec::new(),
            ends: Vec::new(),
            is_made_anew,
            is_ready: false,
        }
    }

    /// Copies the mark of a datagram into the body. The first 50 documents are copied completely.
    fn add_mark(&mut self, datagram: &[u8]) {
        let Some(mark) = Mark::find(datagram) else { return };
        if self.is_ready {
            let place = self.marks[self.count];
            self.bytes[place..place + MARK_BYTES].copy_from_slice(&datagram[mark..][..MARK_BYTES]);
            self.count += 1;
            return;
        }
        let start = self.length;
        self.append(split(datagram).unwrap_or_default());
        self.marks.push(start + Mark::find(&self.bytes[start..self.length]).unwrap_or_default());
    }

    /// Parses a document and escapes it into the body.
    fn add_document(&mut self, parser: &mut Parser, datagram: &[u8]) {
        if let Ok(segment) = parser.parse(datagram) {
            black_box(segment.fields);
            self.append(segment.document);
        }
    }

    fn append(&mut self, document: &[u8]) {
        self.put(if self.count == 0 { b"\"" } else { b",\"" });
        self.length += escape::escape(document, &mut self.bytes[self.length..]).written;
        self.put(b"\"");
        self.ends.push(self.length);
        self.count += 1;
    }

    fn put(&mut self, text: &[u8]) {
        self.bytes[self.length..self.length + text.len()].copy_from_slice(text);
        self.length += text.len();
    }

    /// Returns the body of 50 documents.
    fn finish(&mut self) -> &[u8] {
        if !self.is_ready {
            self.put(BODY_END);
            self.is_ready = !self.is_made_anew;
        }
        &self.bytes[..self.length]
    }

    /// Returns a body with the documents so far.
    fn part(&self) -> Vec<u8> {
        [&self.bytes[..self.ends[self.count - 1]], BODY_END].concat()
    }

    /// Starts the next body.
    fn begin_again(&mut self) {
        self.count = 0;
        if !self.is_ready {
            self.length = BODY_START.len();
            self.marks.clear();
            self.ends.clear();
        }
    }
}
