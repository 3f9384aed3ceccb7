//! Gathers the frames that a connection over HTTP/2 writes, so that they leave in few system calls.
//!
//! In: frames, which the library h2 writes and flushes one by one. Out: TLS records, which the
//! kernel gets together. A body of 50 documents has four frames. Each was a system call, and a
//! packet that the peer was woken for; now the body is one. Bound: [`WAITING_BYTES_MAX`] for the
//! records that wait; then they are written. Thread: the caller's. Without TLS nothing is gathered.

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::MaybeHttpsStream;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The largest number of bytes of records that wait to be written together: two bodies of 50
/// documents of 1,000 bytes.
const WAITING_BYTES_MAX: usize = 128 * 1024;

/// A connection whose written frames wait for the last flush of their task's turn.
pub(super) struct Gathered<T> {
    /// Boxed, because hyper has tasks of the size of a connection for each request.
    stream: Box<MaybeHttpsStream<T>>,
    /// Whether something was written since the last flush.
    is_fresh: bool,
}

impl<T> Gathered<T> {
    pub(super) fn new(mut stream: MaybeHttpsStream<T>) -> Self {
        if let MaybeHttpsStream::Https(tls) = &mut stream {
            tls.inner_mut().get_mut().1.set_buffer_limit(Some(WAITING_BYTES_MAX));
        }
        Self { stream: Box::new(stream), is_fresh: false }
    }
}

impl<T: Read + Write + Unpin> Read for Gathered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_read(context, buffer)
    }
}

impl<T: Read + Write + Unpin> Write for Gathered<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            let MaybeHttpsStream::Https(tls) = &mut *self.stream else {
                return Pin::new(&mut *self.stream).poll_write_vectored(context, pieces);
            };
            let (_, session) = tls.inner_mut().get_mut();
            let count = session.writer().write_vectored(pieces)?;
            if count > 0 {
                self.is_fresh = true;
                return Poll::Ready(Ok(count));
            }
            // As many records wait as rustls takes.
            ready!(Pin::new(&mut *self.stream).poll_flush(context))?;
        }
    }

    /// Puts the flush of a fresh frame off. h2 flushes once more at the end of its task's turn,
    /// when it has no frame left; the wake-up stands for the case that it does not.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.is_fresh) {
            context.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::RequestBody;
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::client::conn::http2::Builder;
    use hyper::server::conn::http2::Builder as ServerBuilder;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::DuplexStream;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    /// A wire that counts the calls which write to it.
    struct Counted {
        wire: TokioIo<DuplexStream>,
        write_count: Arc<AtomicUsize>,
    }

    impl Read for Counted {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.wire).poll_read(context, buffer)
        }
    }

    impl Write for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.write_count.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.wire).poll_write(context, bytes)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        /// Writes all pieces, as a socket with room does.
        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes = pieces.iter().map(|piece| &**piece).collect::<Vec<_>>().concat();
            self.poll_write(context, &bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.wire).poll_flush(context)
        }

        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.wire).poll_shutdown(context)
        }
    }

    /// Returns both ends of a TLS connection, whose wire holds `wire_bytes`, and the number of
    /// calls that write to the client's end.
    async fn pair(
        wire_bytes: usize,
    ) -> (
        MaybeHttpsStream<Counted>,
        TokioIo<tokio_rustls::server::TlsStream<DuplexStream>>,
        Arc<AtomicUsize>,
    ) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = tokio::io::duplex(wire_bytes);
        let write_count = Arc::new(AtomicUsize::new(0));
        let wire = Counted { wire: TokioIo::new(near), write_count: Arc::clone(&write_count) };
        let name = ServerName::try_from("localhost").unwrap();
        let connecting = TlsConnector::from(Arc::new(client)).connect(name, TokioIo::new(wire));
        let accepting = TlsAcceptor::from(Arc::new(server)).accept(far);
        let (client, server) = tokio::join!(connecting, accepting);
        (client.unwrap().into(), TokioIo::new(server.unwrap()), write_count)
    }

    /// Sends a body of `piece_count` pieces of 16 kB. Returns what has arrived, and the number of
    /// writes after the handshake of HTTP/2.
    async fn send(wire_bytes: usize, piece_count: u8) -> (Vec<u8>, usize) {
        let (client, server, write_count) = pair(wire_bytes).await;
        let answer = service_fn(|request: Request<hyper::body::Incoming>| async {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(Response::new(Full::new(body)))
        });
        tokio::spawn(ServerBuilder::new(TokioExecutor::new()).serve_connection(server, answer));
        let builder = Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(Gathered::new(client)).await.unwrap();
        tokio::spawn(connection);
        let empty = Request::post("https://localhost/").body(Bytes::new().into()).unwrap();
        sender.send_request(empty).await.unwrap();
        let before = write_count.load(Ordering::Relaxed);
        let pieces: Vec<Bytes> = (0..piece_count).map(|n| vec![n; 16_000].into()).collect();
        let body = RequestBody::new(pieces, usize::from(piece_count) * 16_000);
        let request = Request::post("https://localhost/").body(body).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let writes = write_count.load(Ordering::Relaxed) - before;
        (answer.into_body().collect().await.unwrap().to_bytes().to_vec(), writes)
    }

    fn expected(piece_count: u8) -> Vec<u8> {
        (0..piece_count).flat_map(|n| vec![n; 16_000]).collect()
    }

    #[tokio::test]
    async fn the_frames_of_a_request_leave_together() {
        let (arrived, write_count) = send(1 << 20, 3).await;
        assert_eq!(arrived, expected(3));
        // The head of the request may leave before its body is there.
        assert!(write_count <= 2, "{write_count} writes");
    }

    #[tokio::test]
    async fn a_body_larger_than_what_waits_arrives_whole_through_a_narrow_wire() {
        for wire_bytes in [3_000, 100_000] {
            assert_eq!(send(wire_bytes, 20).await.0, expected(20), "{wire_bytes}");
        }
    }
}
