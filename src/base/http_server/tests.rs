//! Tests of the server over real connections. The clock is paused: it jumps to the next timer as
//! soon as no connection has anything to read.

use super::*;
use crate::base::account::{Account, CloseReason};
use http_body_util::BodyExt;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Answers a request with the size of its body, with a body that never ends, or never.
struct Sizes(Requests);

impl Handler for Sizes {
    async fn answer(
        &self,
        request: Request<Incoming>,
        slot: &ConnectionSlot,
        _is_local: bool,
    ) -> Response<AnswerBody> {
        if request.uri().path() == "/endless" {
            slot.stop_waiting();
            return Response::new(AnswerBody::stream(Endless));
        }
        let answer = |request: Request<Bytes>| async move {
            if request.uri().path() == "/never" {
                std::future::pending::<()>().await;
            }
            Response::new(AnswerBody::from(Bytes::from(request.body().len().to_string())))
        };
        self.0.with_body(request, (slot, Lane::Other), answer).await
    }
}

struct Endless;

impl hyper::body::Body for Endless {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, StreamError>>> {
        let piece = Bytes::from_static(&[b'x'; 16 * 1024]);
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
    }
}

async fn start(memory_bytes: usize) -> (SocketAddr, Arc<Server<Sizes>>, Arc<Account>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let account = Arc::<Account>::default();
    let limits = ServerLimits { memory_bytes, connection_count_max: 100 };
    let handler = Sizes(Requests::new(limits));
    let counts = Arc::clone(&account.tcp_port);
    let server = Server::new(handler, limits, Port { name: "TCP port", share: "", counts });
    tokio::spawn(Arc::clone(&server).serve(Arc::new(listener)));
    (address, server, account)
}

async fn call(stream: &mut TcpStream) -> String {
    stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc").await.unwrap();
    let mut bytes = [0; 1000];
    let count = stream.read(&mut bytes).await.unwrap();
    String::from_utf8(bytes[..count].to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_in_use_stays_open_and_an_idle_one_is_closed_after_a_minute() {
    let (address, ..) = start(1 << 20).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let started_at = tokio::time::Instant::now();
    for _ in 0..30 {
        let answer = call(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n3"), "{answer}");
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(started_at.elapsed() >= Duration::from_secs(300));
    call(&mut stream).await;
    let idle_at = tokio::time::Instant::now();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert!(idle_at.elapsed() >= Duration::from_secs(59), "{:?}", idle_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_answer_is_cut_off_and_gives_its_memory_back() {
    let (address, server, _) = start(1 << 20).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    stream.read_exact(&mut [0; 100]).await.unwrap();
    assert_eq!(server.acceptor.connections.memory.used_bytes(), CONNECTION_BYTES);
    while server.acceptor.connections.memory.used_bytes() > 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_needs_memory_only_as_it_arrives() {
    let (address, server, account) = start(256 * 1024).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc";
        stream.write_all(head.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    let expected_bytes = 8 * (CONNECTION_BYTES + REQUEST_BYTES + 1024);
    while server.acceptor.connections.memory.used_bytes() != expected_bytes {
        tokio::task::yield_now().await;
    }
    // One client sends more than is left: the others that have waited longest make room.
    let (last, others) = streams.split_last_mut().unwrap();
    last.write_all(&[b'x'; 99_997]).await.unwrap();
    let mut answer = [0; 1000];
    let count = last.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..count]).ends_with("100000"));
    assert!(account.tcp_port.closed(CloseReason::Memory).get() >= 1);
    let count = others[0].read(&mut answer).await.unwrap();
    let told = String::from_utf8_lossy(&answer[..count]).to_lowercase();
    assert!(told.starts_with("http/1.1 503") && told.contains("connection: close"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_gets_no_turn_in_time_is_refused_and_counted() {
    let memory_bytes = 256 * 1024;
    let (address, _, account) = start(memory_bytes).await;
    // These take all turns of the lane, which has two thirds of the memory.
    let turn_count = memory_bytes / 3 * 2 / (CONNECTION_BYTES + REQUEST_BYTES + 1024);
    let mut streams = Vec::new();
    for _ in 0..turn_count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = b"POST /never HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na";
        stream.write_all(head).await.unwrap();
        streams.push(stream);
    }
    let answer = call(&mut TcpStream::connect(address).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(account.tcp_port.busy.get(), 1);
}

#[tokio::test]
async fn a_whole_body_is_one_piece_and_keeps_its_values_until_it_is_taken() {
    let kept = Arc::new(());
    let body = AnswerBody::from(Bytes::from("abc")).keeping(Arc::clone(&kept));
    assert_eq!(Arc::strong_count(&kept), 2);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
    assert_eq!(Arc::strong_count(&kept), 1);
}
