//! Tests of the server over real connections.

use super::*;
use crate::base::account::CloseReason;
use http_body_util::BodyExt;
use hyper::client::conn::http2 as client;
use std::net::SocketAddr;

/// Answers a call with its body, and refuses an empty one.
struct Echo;

impl Unary for Echo {
    fn call(&self, head: &Parts, body: &Bytes) -> Result<Bytes, Refusal> {
        assert_ne!(head.uri.path(), "/panic", "asked to");
        match body.is_empty() {
            true => Err(Refusal::new(code::INVALID_ARGUMENT, "no bödy")),
            false => Ok(body.clone()),
        }
    }
}

/// Largest message and largest number of connections of the server of a test.
const BYTES_MAX: usize = 1024 * 1024;
const CONNECTION_COUNT_MAX: usize = 8;

async fn start() -> (SocketAddr, Arc<Server<Echo>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits =
        ServerLimits { memory_bytes: 4 * BYTES_MAX, connection_count_max: CONNECTION_COUNT_MAX };
    let port = Port { name: "port of the test", share: "all", counts: Arc::default() };
    let server = Server::new(Echo, limits, BYTES_MAX, port);
    tokio::spawn(Arc::clone(&server).serve(Arc::new(listener)));
    (address, server)
}

struct Answer {
    status: u16,
    grpc_status: String,
    message: String,
    body: Bytes,
}

/// A body in one piece.
type Full = http_body_util::Full<Bytes>;

async fn connect<B>(address: SocketAddr) -> client::SendRequest<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        client::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn call(sender: &mut client::SendRequest<Full>, path: &str, body: Vec<u8>) -> Answer {
    let request = Request::post(format!("http://localhost{path}"));
    let request = request.header(CONTENT_TYPE, "application/grpc").body(Full::from(body));
    let (head, body) = sender.send_request(request.unwrap()).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or(head.headers);
    let text = |name| {
        trailers.get(name).map_or("", |value: &HeaderValue| value.to_str().unwrap()).to_owned()
    };
    Answer {
        status: head.status.as_u16(),
        grpc_status: text(GRPC_STATUS),
        message: text(GRPC_MESSAGE),
        body: body.to_bytes(),
    }
}

/// Waits until the server has closed a connection.
async fn closed<B>(sender: &client::SendRequest<B>) {
    while !sender.is_closed() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_call_is_answered_with_a_frame_and_trailers() {
    let mut sender = connect::<Full>(start().await.0).await;
    let answer = call(&mut sender, "/a", b"abc".to_vec()).await;
    assert_eq!((answer.status, &*answer.grpc_status), (200, "0"));
    assert_eq!(answer.body, Bytes::from_static(b"\0\0\0\0\x03abc"));
    let refused = call(&mut sender, "/a", Vec::new()).await;
    assert_eq!((refused.status, &*refused.grpc_status), (200, "3"));
    assert_eq!((&*refused.message, refused.body.len()), ("no b%C3%B6dy", 0));
}

#[tokio::test]
async fn a_body_has_a_limit_and_the_connection_goes_on() {
    let mut sender = connect::<Full>(start().await.0).await;
    let body_bytes_max = BYTES_MAX + FRAME_HEAD_BYTES;
    let whole = call(&mut sender, "/a", vec![7; body_bytes_max]).await;
    assert_eq!((&*whole.grpc_status, whole.body.len()), ("0", body_bytes_max + 5));
    let large = call(&mut sender, "/a", vec![7; body_bytes_max + 1]).await;
    assert_eq!((&*large.grpc_status, large.body.len()), ("8", 0));
    assert_eq!(call(&mut sender, "/a", vec![7]).await.grpc_status, "0");
}

#[tokio::test]
async fn a_panic_is_the_status_internal_and_the_server_goes_on() {
    let mut sender = connect::<Full>(start().await.0).await;
    assert_eq!(call(&mut sender, "/panic", vec![7]).await.grpc_status, "13");
    assert_eq!(call(&mut sender, "/a", vec![7]).await.grpc_status, "0");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_end_is_refused_in_time() {
    let (address, server) = start().await;
    let mut sender = connect(address).await;
    let (pieces, receiver) = tokio::sync::mpsc::channel(1);
    pieces.send(Bytes::from_static(b"abc")).await.unwrap();
    let open = Pieces(receiver);
    let request = Request::post("http://localhost/a").header(CONTENT_TYPE, "application/grpc");
    let response = sender.send_request(request.body(open).unwrap()).await.unwrap();
    assert_eq!(response.headers()[GRPC_STATUS], "4");
    assert_eq!(server.acceptor.connections.port.counts.slow.get(), 1);
}

/// A body whose pieces come from a channel. It ends when the channel is closed.
struct Pieces(tokio::sync::mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[tokio::test]
async fn beyond_the_limit_the_connection_with_the_oldest_call_makes_room() {
    let (address, server) = start().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTION_COUNT_MAX {
        let mut sender = connect(address).await;
        assert_eq!(call(&mut sender, "/a", vec![7]).await.grpc_status, "0");
        held.push(sender);
    }
    // The first connection has a newer call than the second one.
    assert_eq!(call(&mut held[0], "/a", vec![7]).await.grpc_status, "0");
    let mut newest = connect(address).await;
    assert_eq!(call(&mut newest, "/a", vec![7]).await.grpc_status, "0");
    assert_eq!(call(&mut held[0], "/a", vec![7]).await.grpc_status, "0");
    closed(&held[1]).await;
    let closed = server.acceptor.connections.port.counts.closed(CloseReason::Count);
    assert_eq!(closed.get(), 1);
}

#[tokio::test]
async fn at_the_end_a_call_that_is_being_read_is_answered_and_idle_connections_are_closed() {
    let (address, server) = start().await;
    let (mut idle, mut busy) = (connect::<Full>(address).await, connect(address).await);
    assert_eq!(call(&mut idle, "/a", vec![7]).await.grpc_status, "0");
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let request = Request::post("http://localhost/a").header(CONTENT_TYPE, "application/grpc");
    let request = request.body(Pieces(receiver)).unwrap();
    sender.send(Bytes::from_static(b"ab")).await.unwrap();
    let answer = tokio::spawn(busy.send_request(request));
    let finish = tokio::spawn(async move { server.finish(Duration::from_secs(60)).await });
    closed(&idle).await;
    sender.send(Bytes::from_static(b"c")).await.unwrap();
    drop(sender);
    let body = answer.await.unwrap().unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()[GRPC_STATUS], "0");
    assert_eq!(body.to_bytes(), Bytes::from_static(b"\0\0\0\0\x03abc"));
    drop(busy);
    finish.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_request_that_is_not_grpc_has_the_status_415() {
    let mut sender = connect::<Full>(start().await.0).await;
    let request = Request::post("http://localhost/a").body(Full::from("abc")).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}
