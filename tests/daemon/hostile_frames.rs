//! Writes and reads frames of HTTP/2, also frames that break the protocol (RFC 9113).
//!
//! In: the fields of a frame. Out: its bytes on a [`Connection`]. Headers are written without
//! compression, and headers of the daemon are not read: its requests differ by their bodies.

use super::hostile_peer::{Connection, Done};
use std::io;

/// The types of frames.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// The flags of frames. `ACK` is that of SETTINGS and PING.
pub const NONE: u8 = 0;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITIZED: u8 = 0x20;

/// The parameters of SETTINGS.
pub const HEADER_TABLE_SIZE: u16 = 1;
pub const ENABLE_PUSH: u16 = 2;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;
pub const MAX_HEADER_LIST_SIZE: u16 = 6;
pub const ENABLE_CONNECT: u16 = 8;

/// Some error codes.
pub const NO_ERROR: u32 = 0;
pub const REFUSED_STREAM: u32 = 7;

/// The largest id of a stream, and the largest window.
pub const MOST: u32 = 0x7fff_ffff;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The `:status` pseudo-header 200 in HPACK.
pub const OK: &[u8] = &[0x88];

/// Returns the bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame_of_length(payload.len(), kind, flags, stream, payload)
}

/// Returns the bytes of a frame whose head states another length.
pub fn frame_of_length(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Returns a header in HPACK, without compression.
pub fn header(name: &str, value: &[u8]) -> Vec<u8> {
    [&[0][..], &text(name.as_bytes()), &text(value)].concat()
}

/// Returns a header block with this status and these headers.
pub fn head(status: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let headers = headers.iter().map(|(name, value)| header(name, value.as_bytes()));
    [header(":status", status.as_bytes())].into_iter().chain(headers).flatten().collect()
}

/// Returns a text in HPACK: its length as an integer with a prefix of 7 bits, and the text.
fn text(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if text.len() < 127 {
        bytes.push(u8::try_from(text.len()).unwrap());
    } else {
        bytes.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).unwrap() | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).unwrap());
    }
    [&bytes, text].concat()
}

/// Returns the payload of a SETTINGS frame.
pub fn settings(parameters: &[(u16, u32)]) -> Vec<u8> {
    let bytes = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    parameters.iter().flat_map(bytes).collect()
}

/// Returns the payload of a GOAWAY frame.
pub fn goaway(last: u32, code: u32, debug: &[u8]) -> Vec<u8> {
    [&last.to_be_bytes()[..], &code.to_be_bytes(), debug].concat()
}

/// The headers of an answer of X-Ray.
pub const ID: (&str, &str) = ("x-amzn-requestid", "1-2-3");

impl Connection {
    /// Sends a frame.
    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Done {
        self.say(&frame(kind, flags, stream, payload))
    }

    /// Sends the first SETTINGS of the service, with these parameters.
    pub fn begin(&mut self, parameters: &[(u16, u32)]) -> Done {
        self.is_begun = true;
        self.frame(SETTINGS, NONE, 0, &settings(parameters))
    }

    /// Sends a GOAWAY frame.
    pub fn goaway(&mut self, last: u32, code: u32, debug: &[u8]) -> Done {
        self.frame(GOAWAY, NONE, 0, &goaway(last, code, debug))
    }

    /// Resets a stream.
    pub fn reset_stream(&mut self, stream: u32, code: u32) -> Done {
        self.forget_stream(stream);
        self.frame(RST_STREAM, NONE, stream, &code.to_be_bytes())
    }

    fn forget_stream(&mut self, stream: u32) {
        self.bodies.remove(&stream);
        self.whole.retain(|whole| *whole != stream);
    }

    /// Sends the headers of a good answer.
    pub fn good_head(&mut self, stream: u32) -> Done {
        self.frame(HEADERS, END_HEADERS, stream, &head("200", &[ID]))
    }

    /// Takes a request, and returns the body of its answer.
    pub fn take_stream(&mut self, stream: u32) -> String {
        let body = self.bodies.remove(&stream).expect("the request is whole");
        self.take(&body)
    }

    /// Takes a request, and answers it well.
    pub fn answer(&mut self, stream: u32) -> Done {
        let body = self.take_stream(stream);
        self.good_head(stream)?;
        self.frame(DATA, END_STREAM, stream, body.as_bytes())
    }

    /// Waits for a whole request, and returns its stream.
    pub fn request(&mut self) -> io::Result<u32> {
        self.wait_for_request()?;
        Ok(self.whole.pop_front().expect("a request is there"))
    }

    /// Waits for a whole request.
    pub(super) fn wait_for_request(&mut self) -> Done {
        if !self.is_begun {
            self.begin(&[])?;
        }
        while self.whole.is_empty() {
            self.read_frame()?;
        }
        Ok(())
    }

    /// Waits for the head of a request, whose body need not have arrived. Returns its stream.
    pub fn request_head(&mut self) -> io::Result<u32> {
        if !self.is_begun {
            self.begin(&[])?;
        }
        loop {
            let open = self.bodies.keys().find(|stream| !self.whole.contains(stream));
            if let Some(stream) = self.whole.front().or(open) {
                return Ok(*stream);
            }
            self.read_frame()?;
        }
    }

    /// Waits until the client knows the SETTINGS of the service and then begins a request whose
    /// body it cannot send, because of its window. Returns the stream of this request. Requests
    /// that arrived whole before are answered well.
    pub fn starved_request(&mut self) -> io::Result<u32> {
        loop {
            let open = self.bodies.keys().find(|stream| !self.whole.contains(stream));
            if self.is_confirmed
                && let Some(stream) = open
            {
                return Ok(*stream);
            }
            self.read_frame()?;
            while let Some(stream) = self.whole.pop_front() {
                self.answer(stream)?;
            }
        }
    }

    /// Waits until the client has confirmed the SETTINGS of the service.
    pub fn wait_for_confirmation(&mut self) -> Done {
        while !self.is_confirmed {
            self.read_frame()?;
        }
        Ok(())
    }

    /// Reads a frame. Returns its type.
    pub fn read_frame(&mut self) -> io::Result<u8> {
        if !self.has_preface {
            let preface = self.take_bytes(PREFACE.len())?;
            assert_eq!(preface, PREFACE);
            self.has_preface = true;
        }
        let head = self.take_bytes(9)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & MOST;
        let payload = self.take_bytes(usize::try_from(length).unwrap())?;
        let (kind, flags) = (head[3], head[4]);
        match kind {
            SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[])?,
            SETTINGS => self.is_confirmed = true,
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload)?,
            HEADERS => {
                self.count_head();
                self.bodies.insert(stream, Vec::new());
            }
            DATA => {
                if let Some(body) = self.bodies.get_mut(&stream) {
                    body.extend_from_slice(&payload);
                }
                if length > 0 {
                    self.frame(WINDOW_UPDATE, NONE, 0, &length.to_be_bytes())?;
                }
            }
            RST_STREAM => self.forget_stream(stream),
            _ => {}
        }
        if [HEADERS, DATA].contains(&kind)
            && flags & END_STREAM != 0
            && self.bodies.contains_key(&stream)
        {
            self.whole.push_back(stream);
        }
        Ok(kind)
    }
}
