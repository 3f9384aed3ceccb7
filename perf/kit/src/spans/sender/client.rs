//! A connection of the sender of spans: writes requests and reads answers.

use crate::spans::batch::Batch;
use bytes::{BufMut, Bytes};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, TE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use tokio::net::TcpStream;
use xrayd_otlp::grpc::{EXPORT_PATH, FRAME_HEAD_BYTES, MESSAGE_BYTES_MAX, code, message};
use xrayd_otlp::{Encoding, reply};

/// The protocol of requests with spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/HTTP with protobuf, over HTTP/1.1.
    Http,
    /// OTLP/gRPC.
    Grpc,
}

impl Protocol {
    /// Returns the name in scenarios and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Http, Self::Grpc];
        let found = all.into_iter().find(|protocol| protocol.name() == text);
        found.ok_or_else(|| format!("{text}: the protocols are http and grpc"))
    }
}

/// The end of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The server accepted it, except for some spans.
    Accepted {
        /// Number of spans that the server rejected.
        rejected_count: u64,
        /// Why it rejected them.
        message: String,
    },
    /// The server cannot take it now.
    Refused(String),
    /// It failed in another way.
    Failed(String),
}

#[derive(Debug)]
enum Connection {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// A connection with one request at a time.
#[derive(Debug)]
pub struct Client {
    target: SocketAddr,
    protocol: Protocol,
    is_gzip: bool,
    connection: Connection,
}

impl Client {
    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// Fails if the server does not listen, or does not speak the protocol.
    pub async fn connect(
        target: SocketAddr,
        protocol: Protocol,
        is_gzip: bool,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        let connection = match protocol {
            Protocol::Http => {
                let (sender, connection) =
                    http1::handshake(stream).await.map_err(io::Error::other)?;
                tokio::spawn(connection);
                Connection::One(sender)
            }
            Protocol::Grpc => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
                    .await
                    .map_err(io::Error::other)?;
                tokio::spawn(connection);
                Connection::Two(sender)
            }
        };
        Ok(Self { target, protocol, is_gzip, connection })
    }

    /// Opens the connection again if the server has closed it.
    ///
    /// # Errors
    ///
    /// Fails if the server no longer listens.
    pub async fn open_again_if_closed(&mut self) -> io::Result<()> {
        // A connection over HTTP/1.1 is ready only after its task has read the whole answer.
        let is_open = match &mut self.connection {
            Connection::One(sender) => sender.ready().await.is_ok(),
            Connection::Two(sender) => sender.ready().await.is_ok(),
        };
        if !is_open {
            *self = Self::connect(self.target, self.protocol, self.is_gzip).await?;
        }
        Ok(())
    }

    /// Returns the body of the request for a batch.
    pub fn body(&self, batch: &mut Batch) -> Bytes {
        let body = if self.is_gzip { batch.gzip() } else { batch.bytes().to_vec() };
        if self.protocol == Protocol::Http {
            return body.into();
        }
        let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + body.len());
        frame.put_u8(self.is_gzip.into());
        frame.put_u32(u32::try_from(body.len()).expect("a batch is short"));
        frame.put_slice(&body);
        frame.into()
    }

    /// Sends a request and reads the answer.
    pub async fn send(&mut self, body: Bytes) -> Outcome {
        let answer = match &mut self.connection {
            Connection::One(sender) => {
                let request = Request::post("/v1/traces")
                    .header("host", self.target.to_string())
                    .header(CONTENT_TYPE, Encoding::Protobuf.content_type());
                let request =
                    if self.is_gzip { request.header(CONTENT_ENCODING, "gzip") } else { request };
                sender.send_request(whole(request, body)).await
            }
            Connection::Two(sender) => {
                let request = Request::post(format!("http://{}{EXPORT_PATH}", self.target))
                    .header(CONTENT_TYPE, "application/grpc")
                    .header(TE, "trailers");
                let request =
                    if self.is_gzip { request.header("grpc-encoding", "gzip") } else { request };
                sender.send_request(whole(request, body)).await
            }
        };
        let read = match (answer, self.protocol) {
            (Ok(answer), Protocol::Http) => http_outcome(answer).await,
            (Ok(answer), Protocol::Grpc) => grpc_outcome(answer).await,
            (Err(error), _) => Err(error),
        };
        read.unwrap_or_else(|error| Outcome::Failed(format!("the connection broke: {error}")))
    }
}

fn whole(request: http::request::Builder, body: Bytes) -> Request<Full<Bytes>> {
    request.body(Full::new(body)).expect("the parts of the request are valid")
}

async fn http_outcome(answer: Response<Incoming>) -> hyper::Result<Outcome> {
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    let accepted = reply::accepted(Encoding::Protobuf, &body);
    if let (StatusCode::OK, Some(partial)) = (status, accepted) {
        let (rejected_count, message) = (partial.rejected_count, partial.message);
        return Ok(Outcome::Accepted { rejected_count, message });
    }
    let reason = reply::refused(Encoding::Protobuf, &body);
    let text = format!("{status} {}", reason.unwrap_or_default());
    Ok(match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Outcome::Refused(text),
        _ => Outcome::Failed(text),
    })
}

async fn grpc_outcome(answer: Response<Incoming>) -> hyper::Result<Outcome> {
    let (parts, body) = answer.into_parts();
    let body = body.collect().await?;
    // An answer without a message has the status among the headers.
    let status = body.trailers().and_then(grpc_status).or_else(|| grpc_status(&parts.headers));
    let body = body.to_bytes();
    let Some((status, reason)) = status else {
        return Ok(Outcome::Failed(format!("{} without a status of gRPC", parts.status)));
    };
    let text = format!("status {status} of gRPC: {reason}");
    Ok(match status {
        code::OK => match message(&body, None, MESSAGE_BYTES_MAX, &mut Vec::new()) {
            Ok(answer) => {
                let partial = reply::accepted(Encoding::Protobuf, answer).unwrap_or_default();
                let (rejected_count, message) = (partial.rejected_count, partial.message);
                Outcome::Accepted { rejected_count, message }
            }
            Err(refusal) => Outcome::Failed(format!("{text}: {}", refusal.message)),
        },
        code::RESOURCE_EXHAUSTED | code::UNAVAILABLE => Outcome::Refused(text),
        _ => Outcome::Failed(text),
    })
}

/// Returns the status of a call and its message.
fn grpc_status(headers: &HeaderMap) -> Option<(i32, String)> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    Some((text("grpc-status")?.parse().ok()?, text("grpc-message").unwrap_or_default().into()))
}
