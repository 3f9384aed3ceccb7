//! Reads requests of HTTP/1.1 and answers them well.
//!
//! In: a [`Connection`]. Out: the body of a request, and the bytes of its good answer.

use super::hostile_peer::{Connection, Done};
use std::io;

impl Connection {
    /// Waits for the head of a request.
    pub(super) fn wait_for_head(&mut self) -> Done {
        while self.head_length().is_none() {
            self.fill()?;
        }
        Ok(())
    }

    fn head_length(&self) -> Option<usize> {
        self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4)
    }

    /// Waits for a whole request, and returns its body.
    pub fn take_request(&mut self) -> io::Result<Vec<u8>> {
        let length = self.take_head()?;
        self.take_bytes(length)
    }

    /// Waits for the head of a request. Returns the length of its body.
    pub fn take_head(&mut self) -> io::Result<usize> {
        self.wait_for_head()?;
        let length = self.head_length().expect("the head is there");
        let head = String::from_utf8(self.take_bytes(length)?).unwrap().to_ascii_lowercase();
        self.count_head();
        let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
        Ok(length.map_or(0, |length| length.trim().parse().unwrap()))
    }

    /// Takes a request, and returns its good answer.
    pub fn reply(&self, body: &[u8]) -> Vec<u8> {
        let body = self.take(body);
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\nx-amzn-requestid: 1\r\ncontent-length: {length}");
        format!("{head}\r\n\r\n{body}").into_bytes()
    }
}
