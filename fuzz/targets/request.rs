//! Fuzzes the TCP port with all bytes of a connection: the server reads them from a stream in
//! memory, and calls of clients are refused or signed. Nothing is sent.
//!
//! The daemon must see the requests that a strict reader sees (`strict.rs`), or fewer of them, and
//! never another one. Each signed request must be the one that is sent: the sandbox verifies the
//! signatures as the service does.

#![no_main]

mod strict;

use aws_credential_types::Credentials;
use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;
use xrayd::admin::proxy::request::{AllowedPaths, correct, refusal, signed};
use xrayd::aws::Signer;
use xrayd::aws::endpoint::{Endpoint, Variant};
use xrayd::base::http_server::{
    AnswerBody, ConnectionSlot, Handler, Lane, Port, Requests, Server, ServerLimits, error_answer,
    refuse,
};
use xrayd_sandbox::endpoint::verify;

const LIMITS: ServerLimits = ServerLimits { memory_bytes: 1 << 20, connection_count_max: 8 };

/// Most pieces in which a connection's bytes arrive.
const PIECE_COUNT_MAX: usize = 64;

/// A request, and whether the daemon has signed it.
#[derive(Debug)]
enum Seen {
    Refused(Parts),
    Signed(Parts, Bytes),
}

/// Refuses and signs requests as the signing proxy does.
struct Proxy {
    paths: AllowedPaths,
    requests: Requests,
    signer: Signer,
    credentials: Credentials,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Proxy {
    fn new(seen: &Arc<Mutex<Vec<Seen>>>, allows_all: bool) -> Self {
        let endpoint = Endpoint::resolve(Some("http://127.0.0.1:2001"), "x", Variant::default());
        let endpoint = endpoint.expect("the address is valid");
        Self {
            paths: AllowedPaths::new(&[if allows_all { "*" } else { "/GetGroups" }.to_owned()]),
            requests: Requests::new(LIMITS),
            signer: Signer::new(&endpoint, "eu-central-1", None),
            credentials: Credentials::new("AKID", "secret", Some("token".into()), None, "fuzz"),
            seen: Arc::clone(seen),
        }
    }

    fn sign(&self, request: Request<Bytes>) {
        let (head, body) = request.into_parts();
        let mut corrected = head.clone();
        correct(&mut corrected.uri);
        assert!(refusal(&corrected, &self.paths).is_none(), "a corrected path is refused");
        let now = SystemTime::now();
        let request = signed(&self.signer, &self.credentials, (&corrected, &body), now);
        let mut sent = request.expect("the credentials are good").into_parts().0;
        let all = |name: &str| sent.headers.get_all(name).iter().count();
        assert_eq!((all("host"), all("transfer-encoding"), all("connection")), (0, 0, 0));
        assert!(all("content-length") <= usize::from(body.is_empty()));
        assert_eq!(all("authorization"), 1);
        assert_eq!(sent.uri.query(), head.uri.query(), "the query is sent as it came");
        assert!(self.paths.allows(sent.uri.path()));
        // The HTTP client adds the `Host` header and sends the path alone.
        let host = sent.uri.authority().expect("it has an address").as_str().parse();
        sent.headers.insert(HOST, host.expect("an address is a header value"));
        let target = sent.uri.path_and_query().expect("it has a path").as_str();
        sent.uri = target.parse().expect("a path is an address");
        assert_eq!(verify(&self.credentials, &sent, &body, now), Ok(()), "{sent:?}");
        self.lock().push(Seen::Signed(head, body));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Seen>> {
        self.seen.lock().expect("no thread has panicked")
    }
}

impl Handler for Proxy {
    async fn answer(
        &self,
        request: Request<Incoming>,
        slot: &ConnectionSlot,
        _is_local: bool,
    ) -> Response<AnswerBody> {
        let (head, body) = request.into_parts();
        if let Some((status, why)) = refusal(&head, &self.paths) {
            self.lock().push(Seen::Refused(head.clone()));
            return refuse(&head, body, error_answer(status, &why), slot)
                .await
                .map(AnswerBody::from);
        }
        let request = Request::from_parts(head, body);
        let answer = |request| async {
            self.sign(request);
            Response::new(AnswerBody::from(Bytes::from_static(b"{}")))
        };
        self.requests.with_body(request, (slot, Lane::Other), answer).await
    }
}

thread_local! {
    /// The clock is paused: it jumps to the next timer as soon as nothing else can be done.
    static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system");
}

// The first byte says whether all paths are allowed, and is the length of the pieces in which the
// others arrive; 0 is one piece.
fuzz_target!(|input: &[u8]| {
    let Some((first, bytes)) = input.split_first() else { return };
    let seen = Arc::default();
    let proxy = Proxy::new(&seen, first & 0x80 != 0);
    RUNTIME.with(|runtime| runtime.block_on(serve(proxy, bytes, usize::from(first & 0x7f))));
    let seen = seen.lock().expect("no thread has panicked");
    compare(&seen, &strict::requests(bytes));
});

/// Sends bytes to a server, and takes its answers.
async fn serve(proxy: Proxy, bytes: &[u8], piece_bytes: usize) {
    let port = Port { name: "TCP port", share: "", counts: Arc::default() };
    let server = Server::new(proxy, LIMITS, port);
    let (mut client, stream) = tokio::io::duplex(1 << 20);
    let sent = async {
        let piece_bytes = match piece_bytes {
            0 => bytes.len().max(1),
            _ => piece_bytes.max(bytes.len().div_ceil(PIECE_COUNT_MAX)),
        };
        for piece in bytes.chunks(piece_bytes) {
            // The server may have closed the connection.
            let _ = client.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        // The clock goes on when the server has nothing left to do.
        tokio::time::sleep(Duration::from_millis(1)).await;
        finish(&mut client).await;
    };
    tokio::join!(sent, server.serve_stream(stream, true));
}

async fn finish(client: &mut DuplexStream) {
    let _ = client.shutdown().await;
    let mut answers = Vec::new();
    let _ = client.read_to_end(&mut answers).await;
    let is_answer = answers.is_empty() || answers.starts_with(b"HTTP/1.");
    assert!(is_answer, "{}", String::from_utf8_lossy(&answers));
    let panicked = format!(" {} ", StatusCode::INTERNAL_SERVER_ERROR.as_u16());
    assert!(!answers.windows(5).any(|it| it == panicked.as_bytes()), "a request met a panic");
}

/// Asserts that the daemon saw the requests of the strict reader, from the first on.
fn compare(seen: &[Seen], expected: &[strict::Request]) {
    assert!(seen.len() <= expected.len(), "{seen:?}\n{expected:?}");
    for (seen, expected) in seen.iter().zip(expected) {
        let (Seen::Refused(head) | Seen::Signed(head, _)) = seen;
        assert_eq!(head.method.as_str(), expected.method);
        let target = head.uri.path_and_query().map_or("", |it| it.as_str());
        let is_end = expected.target.ends_with(target) || target == "/";
        assert!(is_end, "{head:?}\n{expected:?}");
        if let Seen::Signed(_, body) = seen {
            assert_eq!(Some(&body[..]), expected.body.as_deref(), "{head:?}");
        }
    }
}
