//! The body of an HTTP request to the service, and the body of its answer.
//!
//! The body of a request consists of several pieces of memory, which hyper sends without copying
//! them into one buffer. The body of an answer is hyper's, with one more check of its end.

use bytes::Bytes;
use http::{Extensions, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The form of the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Media {
    /// The JSON of an operation of the X-Ray API.
    #[default]
    Json,
    /// Spans of OpenTelemetry, as the protobuf of an `ExportTraceServiceRequest`.
    SpansProtobuf,
    /// Spans of OpenTelemetry, as the JSON of an `ExportTraceServiceRequest`.
    SpansJson,
}

impl Media {
    /// Returns the content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::SpansJson => "application/json",
            Self::SpansProtobuf => "application/x-protobuf",
        }
    }
}

/// The body of an HTTP request, as a list of pieces.
#[derive(Debug)]
pub struct RequestBody {
    pieces: std::vec::IntoIter<Bytes>,
    rest_bytes: u64,
    media: Media,
}

impl RequestBody {
    /// Returns a body of `pieces`. `length_bytes` is the sum of their lengths.
    pub fn new(pieces: Vec<Bytes>, length_bytes: usize) -> Self {
        Self { pieces: pieces.into_iter(), rest_bytes: length_bytes as u64, media: Media::Json }
    }

    /// Says that the body is of the form `media`.
    #[must_use]
    pub fn of(self, media: Media) -> Self {
        Self { media, ..self }
    }

    /// Returns the form of the body.
    pub fn media(&self) -> Media {
        self.media
    }

    /// Returns the pieces that were not sent yet.
    pub fn pieces(&self) -> &[Bytes] {
        self.pieces.as_slice()
    }
}

/// Makes a body of one piece, for requests that carry no batch.
impl From<Bytes> for RequestBody {
    fn from(body: Bytes) -> Self {
        let rest_bytes = body.len() as u64;
        Self { pieces: vec![body].into_iter(), rest_bytes, media: Media::Json }
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

/// The body of an answer of the service.
///
/// A server ends a stream of HTTP/2 with the code `NO_ERROR`, or the connection with a GOAWAY of
/// this code, also in the middle of an answer. hyper takes this for the end of the body. So here a
/// body is complete only if the server has said so (END_STREAM).
#[derive(Debug)]
pub struct ReceivedBody {
    body: Incoming,
    is_http2: bool,
    /// A copy of the extensions of the answer. Over HTTP/2 it keeps the place of the stream on its
    /// connection until the body is dropped.
    _extensions: Extensions,
}

/// The reason why a body has no end.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The connection broke, or the body is not valid HTTP.
    #[error("{0}")]
    Broken(#[from] hyper::Error),
    /// The server stopped in the middle of the body, without an error.
    #[error("the server ends the answer before it is complete")]
    CutOff,
}

impl ReceivedBody {
    /// Returns an answer with this body in place of hyper's.
    pub fn of(answer: Response<Incoming>) -> Response<Self> {
        let is_http2 = answer.version() == Version::HTTP_2;
        let extensions = answer.extensions().clone();
        answer.map(|body| Self { body, is_http2, _extensions: extensions })
    }
}

impl Body for ReceivedBody {
    type Data = Bytes;
    type Error = ReceiveError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(frame) => Poll::Ready(Some(Ok(frame?))),
            None if self.is_http2 && !self.body.is_end_stream() => {
                Poll::Ready(Some(Err(ReceiveError::CutOff)))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_body_keeps_the_extensions_of_its_answer_until_it_is_dropped() {
        let (client, mut server) = tokio::io::duplex(1024);
        let (mut sender, connection) = http1::handshake(TokioIo::new(client)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::new(RequestBody::from(Bytes::new()));
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let serve = async {
            assert!(server.read(&mut [0; 1024]).await.unwrap() > 0);
            server.write_all(answer).await.unwrap();
        };
        let (answer, ()) = tokio::join!(sender.send_request(request), serve);
        let (mut answer, place) = (answer.unwrap(), Arc::new(()));
        answer.extensions_mut().insert(Arc::clone(&place));
        let (parts, body) = ReceivedBody::of(answer).into_parts();
        drop(parts);
        assert_eq!(Arc::strong_count(&place), 2);
        drop(body);
        assert_eq!(Arc::strong_count(&place), 1);
    }
}
