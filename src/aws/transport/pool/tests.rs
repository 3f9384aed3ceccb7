//! Tests of the pool against servers on this host.

use super::*;
use crate::aws::transport::{HttpVersions, Resolver, Transport};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SETTINGS: PoolSettings = PoolSettings {
    connecting_count_max: 1,
    idle_count_max: usize::MAX,
    idle_timeout: Duration::from_secs(50),
    ping_interval: Duration::from_secs(5),
    ping_timeout: Duration::from_secs(5),
    http1_buffer_bytes: None,
    http2_windows_bytes: None,
};

fn pool(settings: PoolSettings) -> ConnectionPool {
    let transport = Transport::local(Resolver::start().unwrap());
    ConnectionPool::new(transport.connector(Duration::from_secs(5), HttpVersions::All), settings)
}

/// A server over HTTP/1.1.
struct Server {
    url: String,
    /// The connections so far.
    count: Arc<AtomicUsize>,
}

impl Server {
    /// Starts a server that answers each request after `pause`, and closes a connection after
    /// `answer_count` answers.
    async fn start(pause: Duration, answer_count: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, pause, answer_count));
            }
        });
        Self { url, count }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, pause: Duration, answer_count: usize) {
    for _ in 0..answer_count {
        let mut request = Vec::new();
        while !request.windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read_buf(&mut request).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        tokio::time::sleep(pause).await;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// Sends a request and reads its answer.
async fn ask(pool: &ConnectionPool, url: &str) -> Result<Bytes, PoolError> {
    let request = Request::get(url).body(RequestBody::from(Bytes::new())).unwrap();
    let answer = pool.request(request).await?;
    Ok(answer.into_body().collect().await.map_err(PoolError::Send)?.to_bytes())
}

async fn ask_at_once(pool: &ConnectionPool, url: &str, count: usize) {
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (pool, url) = (pool.clone(), url.to_owned());
        asked.spawn(async move { ask(&pool, &url).await.unwrap() });
    }
    assert_eq!(asked.join_all().await.len(), count);
}

#[tokio::test]
async fn requests_one_after_the_other_share_a_connection() {
    let server = Server::start(Duration::ZERO, usize::MAX).await;
    let pool = pool(SETTINGS);
    for _ in 0..5 {
        assert_eq!(ask(&pool, &server.url).await.unwrap(), "{}");
    }
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn requests_at_once_have_a_connection_each_and_keep_it() {
    let server = Server::start(Duration::from_millis(200), usize::MAX).await;
    let pool = pool(SETTINGS);
    ask_at_once(&pool, &server.url, 6).await;
    let count = server.count();
    assert!((2..=6).contains(&count), "{count}");
    ask_at_once(&pool, &server.url, count).await;
    assert_eq!(server.count(), count);
}

#[tokio::test]
async fn a_request_over_a_connection_that_the_server_has_closed_is_sent_over_another_one() {
    let server = Server::start(Duration::ZERO, 1).await;
    let pool = pool(SETTINGS);
    for _ in 0..5 {
        assert_eq!(ask(&pool, &server.url).await.unwrap(), "{}");
    }
    assert_eq!(server.count(), 5);
}

#[tokio::test]
async fn a_server_that_closes_each_connection_at_once_costs_each_request_one_connection() {
    let server = Server::start(Duration::ZERO, 0).await;
    let pool = pool(SETTINGS);
    for count in 1..=3 {
        assert!(ask(&pool, &server.url).await.is_err());
        assert!(server.count() <= count, "{} connections for {count}", server.count());
    }
}

#[tokio::test]
async fn all_requests_that_wait_get_the_error_of_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let pool = pool(SETTINGS);
    let asked = [ask(&pool, &url), ask(&pool, &url), ask(&pool, &url)];
    for answer in futures_of(asked).await {
        assert!(matches!(answer, Err(PoolError::Connect(_))), "{answer:?}");
    }
}

async fn futures_of<T, const N: usize>(futures: [impl Future<Output = T>; N]) -> Vec<T> {
    let mut futures = futures.map(Box::pin);
    let mut results: Vec<Option<T>> = (0..N).map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *result = Some(output);
            }
        }
        match results.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    results.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_request_that_is_given_up_frees_its_place() {
    let server = Server::start(Duration::from_secs(600), usize::MAX).await;
    let pool = pool(SETTINGS);
    for _ in 0..2 {
        let given_up = tokio::time::timeout(Duration::from_millis(50), ask(&pool, &server.url));
        assert!(given_up.await.is_err());
    }
    // Nothing is left that would be given to the next request.
    assert_eq!(pool.0.held(), (0, 0));
}

#[tokio::test]
async fn connections_without_a_request_are_closed() {
    let server = Server::start(Duration::ZERO, usize::MAX).await;
    let pool = pool(PoolSettings { idle_timeout: Duration::from_millis(50), ..SETTINGS });
    ask(&pool, &server.url).await.unwrap();
    let start = std::time::Instant::now();
    while pool.0.held() != (0, 0) {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", pool.0.held());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_spare_connection_that_the_server_has_closed_gets_no_request() {
    for waits in [false, true] {
        let (client, server) = tokio::io::duplex(1024);
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
        drop(server);
        let _ = connection.await;
        let mut host: host::Host<()> = host::Host::default();
        let now = Instant::now();
        host.add_http1(host::Http1 { sender, is_forward_proxy: false, is_reused: false }, now);
        let later = now + Duration::from_millis(u64::from(waits));
        // The request for which it was opened gets it, and fails.
        assert_eq!(host.take(SETTINGS.idle_timeout, later).is_none(), waits);
        assert_eq!(host.http1_count(), usize::from(!waits));
    }
}

#[test]
fn the_task_that_opens_a_connection_is_small() {
    let key = Key::of(&http::Uri::from_static("https://localhost")).unwrap();
    let bytes = pool(SETTINGS).0.task_bytes(key);
    assert!(bytes < 500, "{bytes} bytes");
}
