//! An X-Ray endpoint that does what a test wants and remembers what it took.

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the endpoint does with a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Takes the documents and says so.
    Accept,
    /// The same, after a while.
    AcceptAfter(Duration),
    /// Takes the documents, then breaks the connection instead of answering.
    AcceptAndBreak,
    /// Breaks the connection and takes nothing.
    Break,
    /// Takes nothing and answers with a status, headers and a body.
    Fail(u16, &'static [(&'static str, &'static str)], String),
    /// Answers with success and this body; takes the documents.
    Answer(String),
}

/// What the endpoint has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Documents of the requests that it took, in the order they came.
    pub documents: Vec<String>,
    /// The bodies of telemetry, which is always taken and counted nowhere else.
    pub telemetry: Vec<serde_json::Value>,
    /// Number of requests, taken or not.
    pub request_count: usize,
    /// Versions of HTTP, one for each request.
    pub versions: Vec<Version>,
    /// Number of connections.
    pub connection_count: usize,
    /// The largest number of requests that were open at a time.
    pub open_count_max: usize,
    open_count: usize,
}

type Script = dyn Fn(usize) -> Reply + Send + Sync;

/// A running endpoint on a free port of the loopback interface.
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    /// The endpoint's thread ends when this is dropped.
    _running: tokio::sync::oneshot::Sender<()>,
}

impl Endpoint {
    /// Starts an endpoint; `script` says what happens to the request of each number.
    pub fn start(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), script)
    }

    /// Starts an endpoint on a port that the test chooses.
    pub fn start_at(
        address: SocketAddr,
        script: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_on(address, script, None)
    }

    /// Starts an endpoint with TLS.
    pub fn start_tls(
        script: impl Fn(usize) -> Reply + Send + Sync + 'static,
        tls: rustls::ServerConfig,
    ) -> Self {
        let tls = TlsAcceptor::from(Arc::new(tls));
        Self::start_on(([127, 0, 0, 1], 0).into(), script, Some(tls))
    }

    fn start_on(
        address: SocketAddr,
        script: impl Fn(usize) -> Reply + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        let (running, mut ended) = tokio::sync::oneshot::channel::<()>();
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, Arc::new(script), shared, tls) => {}
                    _ = &mut ended => {}
                }
            });
        });
        Self { address, seen, _running: running }
    }

    /// Its address for the daemon.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has seen so far.
    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }

    /// The documents that it took, sorted.
    pub fn sorted_documents(&self) -> Vec<String> {
        let mut documents = self.seen(|seen| seen.documents.clone());
        documents.sort_unstable();
        documents
    }
}

async fn accept(
    listener: TcpListener,
    script: Arc<Script>,
    seen: Arc<Mutex<Seen>>,
    tls: Option<TlsAcceptor>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        seen.lock().unwrap().connection_count += 1;
        let (script, seen, tls) = (Arc::clone(&script), Arc::clone(&seen), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(stream, script, seen, false).await,
                Some(tls) => {
                    // An error is a daemon that does not trust the certificate.
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    serve(stream, script, seen, http2).await;
                }
            }
        });
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    script: Arc<Script>,
    seen: Arc<Mutex<Seen>>,
    http2: bool,
) {
    let service = service_fn(move |request| {
        let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
        async move { answer(request, &*script, &seen).await }
    });
    // An error is a connection that the script broke, or one that the daemon has closed.
    let _ = if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await
    } else {
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await
    };
}

/// The connection is broken on purpose.
#[derive(Debug, thiserror::Error)]
#[error("broken on purpose")]
struct Broken;

async fn answer(
    request: Request<Incoming>,
    script: &Script,
    seen: &Mutex<Seen>,
) -> Result<Response<Full<Bytes>>, Broken> {
    let version = request.version();
    let path = request.uri().path().to_owned();
    assert!(request.headers().contains_key("authorization"), "every request is signed");
    let body = request.into_body().collect().await.map_err(|_| Broken)?.to_bytes();
    if path == "/TelemetryRecords" {
        seen.lock().unwrap().telemetry.push(serde_json::from_slice(&body).unwrap());
        return Ok(Response::new(Full::from("{}")));
    }
    assert_eq!(path, "/TraceSegments");
    let reply = {
        let mut seen = seen.lock().unwrap();
        seen.versions.push(version);
        seen.request_count += 1;
        seen.open_count += 1;
        seen.open_count_max = seen.open_count_max.max(seen.open_count);
        script(seen.request_count - 1)
    };
    if let Reply::AcceptAfter(pause) = reply {
        tokio::time::sleep(pause).await;
    }
    let mut seen = seen.lock().unwrap();
    seen.open_count -= 1;
    if !matches!(reply, Reply::Break | Reply::Fail(..)) {
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let documents: Vec<String> =
            serde_json::from_value(body["TraceSegmentDocuments"].clone()).unwrap();
        assert!((1..=50).contains(&documents.len()), "{} documents", documents.len());
        seen.documents.extend(documents);
    }
    let accepted = r#"{"UnprocessedTraceSegments":[]}"#.to_owned();
    match reply {
        Reply::Break | Reply::AcceptAndBreak => Err(Broken),
        Reply::Accept | Reply::AcceptAfter(_) => Ok(Response::new(Full::from(accepted))),
        Reply::Answer(body) => Ok(Response::new(Full::from(body))),
        Reply::Fail(status, headers, body) => {
            let mut answer = Response::new(Full::from(body));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            for (name, value) in headers {
                answer.headers_mut().insert(*name, value.parse().unwrap());
            }
            Ok(answer)
        }
    }
}
