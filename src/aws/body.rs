//! The body of an HTTP request to the service. It consists of several pieces of memory, which hyper
//! sends without copying them into one buffer.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of an HTTP request, as a list of pieces.
#[derive(Debug)]
pub struct RequestBody {
    pieces: std::vec::IntoIter<Bytes>,
    rest_bytes: u64,
}

impl RequestBody {
    /// Returns a body of `pieces`. `length_bytes` is the sum of their lengths.
    pub fn new(pieces: Vec<Bytes>, length_bytes: usize) -> Self {
        Self { pieces: pieces.into_iter(), rest_bytes: length_bytes as u64 }
    }
}

/// Makes a body of one piece, for requests that carry no batch.
impl From<Bytes> for RequestBody {
    fn from(body: Bytes) -> Self {
        let rest_bytes = body.len() as u64;
        Self { pieces: vec![body].into_iter(), rest_bytes }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.pieces.next();
        self.rest_bytes -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest_bytes == 0
    }

    /// Returns the exact length, so that hyper sends `Content-Length` instead of a chunked body.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest_bytes)
    }
}
