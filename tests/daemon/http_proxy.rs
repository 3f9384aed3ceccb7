//! An HTTP proxy that a test controls and that records its requests. Also a service with a fixed
//! answer, for the calls that fetch credentials.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Socket, Type};
use std::convert::Infallible;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// How the proxy treats its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Serves all clients.
    Open,
    /// Serves clients that send this `Proxy-Authorization`. All other clients get status 407.
    Password(&'static str),
    /// Answers every request with this status (code and reason).
    Refuse(&'static str),
    /// Says this after each request, and closes the connection.
    Say(&'static str),
    /// Never answers.
    Hang,
}

/// A request that the proxy received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Whether the client asked for a tunnel.
    pub tunnel: bool,
    /// The target: `HOST:PORT` for a tunnel, or the whole URL of any other request.
    pub target: String,
    /// The value of the header `Proxy-Authorization`.
    pub authorization: Option<String>,
}

/// A running proxy. It resolves every host name to 127.0.0.1.
pub struct HttpProxy {
    /// The address that the proxy listens on.
    pub address: SocketAddr,
    state: Arc<Mutex<(Manner, Vec<Asked>)>>,
    /// The proxy's thread ends when this field is dropped.
    _running: tokio::sync::oneshot::Sender<()>,
}

/// Reserves a free port of the loopback interface. No program listens on it yet.
pub fn port() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

/// Returns the address of a reserved port.
pub fn address(port: &Socket) -> SocketAddr {
    port.local_addr().unwrap().as_socket().unwrap()
}

/// Serves connections to `port` on a thread until the returned value is dropped.
pub fn run<F: Future<Output = ()> + Send + 'static>(
    port: Socket,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> tokio::sync::oneshot::Sender<()> {
    port.listen(128).unwrap();
    port.set_nonblocking(true).unwrap();
    let (running, mut ended) = tokio::sync::oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    thread::spawn(move || {
        runtime.block_on(async {
            let listener = TcpListener::from_std(port.into()).unwrap();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        tokio::spawn(serve(accepted.unwrap().0));
                    }
                    _ = &mut ended => return,
                }
            }
        });
    });
    running
}

impl HttpProxy {
    /// Starts a proxy.
    pub fn start(manner: Manner) -> Self {
        Self::start_on(port(), manner)
    }

    /// Starts a proxy on a port that [`port`] reserved.
    pub fn start_on(port: Socket, manner: Manner) -> Self {
        Self::start_with(port, manner, None)
    }

    /// Starts a proxy that clients connect to with TLS.
    pub fn start_tls(manner: Manner, tls: rustls::ServerConfig) -> Self {
        Self::start_with(port(), manner, Some(TlsAcceptor::from(Arc::new(tls))))
    }

    fn start_with(port: Socket, manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        let address = address(&port);
        let state = Arc::new(Mutex::new((manner, Vec::new())));
        let shared = Arc::clone(&state);
        let running = run(port, move |stream| {
            let (tls, state) = (tls.clone(), Arc::clone(&shared));
            async move {
                match tls {
                    None => serve(stream, state).await,
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        serve(stream, state).await;
                    }
                }
            }
        });
        Self { address, state, _running: running }
    }

    /// Returns the URL of the proxy for the daemon.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes how the proxy treats requests from now on.
    pub fn set_manner(&self, manner: Manner) {
        self.state.lock().unwrap().0 = manner;
    }

    /// Returns the requests that the proxy has received. Equal requests that follow each other are
    /// listed once. The telemetry of the daemon's shutdown is left out.
    pub fn asked(&self) -> Vec<Asked> {
        let mut asked = self.state.lock().unwrap().1.clone();
        asked.retain(|asked| !asked.target.ends_with("/TelemetryRecords"));
        asked.dedup();
        asked
    }
}

/// Serves one connection. A request that does not ask for a tunnel is forwarded unchanged, and all
/// later data too. This works because the server also accepts a whole URL as the target.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    state: Arc<Mutex<(Manner, Vec<Asked>)>>,
) {
    let mut request = Vec::new();
    let head_bytes = loop {
        if let Some(at) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8(request[..head_bytes].to_vec()).unwrap();
    let mut words = head.split(' ');
    let tunnel = words.next() == Some("CONNECT");
    let target = words.next().unwrap().to_owned();
    let authorization = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| value.to_owned())
    });
    let asked = Asked { tunnel, target, authorization };
    let manner = {
        let mut state = state.lock().unwrap();
        state.1.push(asked.clone());
        state.0
    };
    let refusal = match manner {
        Manner::Open => None,
        Manner::Password(wanted) if asked.authorization.as_deref() == Some(wanted) => None,
        Manner::Password(_) => Some("407 Proxy Authentication Required"),
        Manner::Refuse(status) => Some(status),
        Manner::Say(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            return;
        }
        Manner::Hang => pending().await,
    };
    if let Some(status) = refusal {
        let page = "<html>no</html>";
        let length = page.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{page}");
        let _ = stream.write_all(answer.as_bytes()).await;
        return;
    }
    let authority = asked.target.trim_start_matches("http://").split('/').next().unwrap();
    let port: u16 = authority.rsplit(':').next().unwrap().parse().unwrap();
    let mut upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    // An error means that one side closed its connection.
    let _ = if tunnel {
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await
    } else {
        upstream.write_all(&request).await
    };
    let _ = copy_bidirectional(&mut stream, &mut upstream).await;
}

/// A service that always gives the same answer.
pub struct Service {
    /// The address that the service listens on.
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    _running: tokio::sync::oneshot::Sender<()>,
}

impl Service {
    /// Starts a service that answers every request with `answer`.
    pub fn start(answer: &'static str, tls: Option<rustls::ServerConfig>) -> Self {
        let port = port();
        let address = address(&port);
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let tls = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
        let shared = Arc::clone(&requests);
        let running = run(port, move |stream| {
            let (tls, requests) = (tls.clone(), Arc::clone(&shared));
            async move {
                match tls {
                    None => speak(stream, answer, requests).await,
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        speak(stream, answer, requests).await;
                    }
                }
            }
        });
        Self { address, requests, _running: running }
    }

    /// Returns the path and the body of each request.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: &'static str,
    requests: Arc<Mutex<Vec<String>>>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let requests = Arc::clone(&requests);
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            requests.lock().unwrap().push(format!("{path} {}", String::from_utf8_lossy(&body)));
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(answer.as_bytes()))))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new();
    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
}
