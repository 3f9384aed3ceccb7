//! A small HTTP server with answers from the test. It replaces the metadata services, STS, SSO and
//! similar services.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as the server received it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method and the path with the query.
    pub line: String,
    /// The header lines, in their order.
    pub headers: Vec<(String, String)>,
    /// The body of the request.
    pub body: String,
}

impl Request {
    /// Returns the value of a header, or an empty string if the header is absent.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// Returns the access key that signed the request, or an empty string if the request is not
    /// signed.
    pub fn access_key(&self) -> &str {
        let credential = self.header("authorization").split("Credential=").nth(1);
        credential.and_then(|rest| rest.split('/').next()).unwrap_or_default()
    }
}

/// The status (code and reason) and the body of an answer. With `None` the server never answers.
pub type Answer = Option<(&'static str, String)>;

/// The server. It runs until the test process ends.
#[derive(Debug)]
pub struct Fake {
    /// The address that the server listens on.
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// Starts a server that answers each request with the result of `answer`.
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || serve(stream.unwrap(), &*answer, &seen));
            }
        });
        Self { address, requests }
    }

    /// Returns the URL of the server.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns all requests that the server has received.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, answer: &dyn Fn(&Request) -> Answer, seen: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream);
    // `read` returns `None` when the client has closed the connection.
    while let Some(request) = read(&mut reader) {
        seen.lock().unwrap().push(request.clone());
        let Some((status, body)) = answer(&request) else {
            // The connection stays open without an answer until the client closes it.
            let _ = reader.read(&mut [0]);
            return;
        };
        let length = body.len();
        let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 600";
        let text = format!("HTTP/1.1 {status}\r\n{ttl}\r\nContent-Length: {length}\r\n\r\n{body}");
        if reader.get_mut().write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
    let mut headers = Vec::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut request = Request { line, headers, body: String::new() };
    let length: usize = request.header("content-length").parse().unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}
