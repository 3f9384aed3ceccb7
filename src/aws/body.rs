//! A request's body as hyper takes it: its pieces one after the other, without a
//! copy.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of one request.
#[derive(Debug)]
pub struct RequestBody {
    pieces: std::vec::IntoIter<Bytes>,
    rest_bytes: u64,
}

impl RequestBody {
    /// A body of these pieces, which are `length_bytes` long together.
    pub fn new(pieces: Vec<Bytes>, length_bytes: usize) -> Self {
        Self { pieces: pieces.into_iter(), rest_bytes: length_bytes as u64 }
    }
}

/// A body in one piece, for what is no batch.
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

    /// Exact, so that hyper sends a Content-Length and not chunks.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest_bytes)
    }
}
