//! The body of an answer: whole, or a stream of pieces.
//!
//! In: the body of the handler. Out: the body for hyper, which keeps what belongs to the request
//! (its turn, its memory) until the last piece is taken or the connection is closed. Bound: none of
//! its own; the maker of a stream bounds it. Thread: main.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::any::Any;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// An error that ends a stream early. The connection is then closed, so that the client notices.
pub type StreamError = Box<dyn Error + Send + Sync>;

type Stream = Pin<Box<dyn Body<Data = Bytes, Error = StreamError> + Send>>;

/// The body of an answer.
pub struct AnswerBody {
    pieces: Pieces,
    /// Values that are dropped at the end of the body.
    kept: Vec<Box<dyn Any + Send>>,
}

enum Pieces {
    Whole(Bytes),
    Stream(Stream),
}

impl AnswerBody {
    /// Returns a body whose pieces come from `stream`.
    pub fn stream(stream: impl Body<Data = Bytes, Error = StreamError> + Send + 'static) -> Self {
        Self { pieces: Pieces::Stream(Box::pin(stream)), kept: Vec::new() }
    }

    /// Returns the same body, which keeps `value` until its end.
    #[must_use]
    pub fn keeping(mut self, value: impl Any + Send) -> Self {
        self.kept.push(Box::new(value));
        self
    }
}

impl From<Bytes> for AnswerBody {
    fn from(whole: Bytes) -> Self {
        Self { pieces: Pieces::Whole(whole), kept: Vec::new() }
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AnswerBody").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let polled = match &mut self.pieces {
            Pieces::Whole(whole) => {
                let whole = std::mem::take(whole);
                Poll::Ready((!whole.is_empty()).then(|| Ok(Frame::data(whole))))
            }
            Pieces::Stream(stream) => stream.as_mut().poll_frame(context),
        };
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.kept.clear();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.pieces {
            Pieces::Whole(whole) => whole.is_empty(),
            Pieces::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.pieces {
            Pieces::Whole(whole) => SizeHint::with_exact(whole.len() as u64),
            Pieces::Stream(stream) => stream.size_hint(),
        }
    }
}
