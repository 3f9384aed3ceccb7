//! A service that misbehaves on purpose, as a row of a table says, and serves well otherwise.
//!
//! In: the connections of a daemon, and an act: what the service does on a connection. Out: a
//! record of what has arrived ([`State`]). An act is run on the next new connection, or on an open
//! one at its next request. All other connections are served well. Thread: one for each connection.

use super::hostile_records::Records;
use rustix::event::{PollFd, PollFlags, poll};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::SockRef;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The result of a step of an act. An act ends with an error if it has ended its connection.
pub type Done = io::Result<()>;

/// The behaviour of the service on a connection.
pub type Act = Arc<dyn Fn(&mut Connection) -> Done + Send + Sync>;

/// The beginning of the body of each upload.
const UPLOAD: &[u8] = b"{\"TraceSegmentDocuments\":[";

/// The answer to an upload. The answer to any other call is the body of the call.
const ACCEPTED: &str = "{\"UnprocessedTraceSegments\":[]}";

/// Which connection the act is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The next new connections, from their first byte.
    NewConnection,
    /// An open connection, when its next request has arrived.
    OpenConnection,
}

/// How often a document has arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrival {
    /// The number of times that the service took it while it served well.
    pub served_count: u32,
    /// The number of times that the service took it in an act.
    pub act_count: u32,
}

/// The orders for the service, and a record of the requests.
#[derive(Default)]
pub struct State {
    act: Option<(Act, On)>,
    /// How many more times the act is run.
    left_count: u32,
    /// How many times the act was run.
    pub act_count: u32,
    /// Acts that ended before they had done what their row says.
    pub unfinished: Vec<String>,
    /// The documents that have arrived.
    pub arrivals: BTreeMap<String, Arrival>,
    /// The number of requests whose head has arrived.
    pub head_count: u64,
    /// The number of connections that were accepted.
    pub connection_count: u64,
    open: BTreeMap<u64, TcpStream>,
    /// The connections on which an act is run at this moment.
    hostile: BTreeSet<u64>,
}

struct Shared {
    state: Mutex<State>,
    tls: Option<Arc<ServerConfig>>,
    is_http2: bool,
}

/// A running service. Its threads run until the test process ends.
pub struct Peer {
    /// The address that the service listens on.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Peer {
    /// Starts a service. Without `tls` it speaks HTTP/1.1 in plain text.
    pub fn start(tls: Option<ServerConfig>, is_http2: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let tls = tls.map(Arc::new);
        let shared = Arc::new(Shared { state: Mutex::default(), tls, is_http2 });
        let own = Arc::clone(&shared);
        thread::spawn(move || {
            for (id, socket) in (0..).zip(listener.incoming()) {
                let (socket, shared) = (socket.unwrap(), Arc::clone(&own));
                socket.set_nodelay(true).unwrap();
                thread::spawn(move || run(id, socket, &shared));
            }
        });
        Self { address, shared }
    }

    /// Returns the URL of the service.
    pub fn url(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Reads the state.
    pub fn state<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.state.lock().unwrap())
    }

    /// Lets the service run `act` this many times.
    pub fn arm(&self, act: &Act, on: On, count: u32) {
        let mut state = self.shared.state.lock().unwrap();
        state.act = Some((Arc::clone(act), on));
        (state.left_count, state.act_count) = (count, 0);
        (state.head_count, state.connection_count) = (0, 0);
        state.unfinished.clear();
    }

    /// Lets the service serve well from now on.
    pub fn disarm(&self) {
        self.shared.state.lock().unwrap().left_count = 0;
    }

    /// Ends the open connections in order. [`open_count`](Self::open_count) then falls to 0.
    pub fn end_connections(&self) {
        self.state(|state| {
            for socket in state.open.values() {
                let _ = socket.shutdown(Shutdown::Write);
            }
        });
    }

    /// Returns the number of connections that the daemon has not closed.
    pub fn open_count(&self) -> usize {
        self.state(|state| state.open.len())
    }

    /// Ends the acts that still wait for the end of their connection. The kernel does not report
    /// this end to a service that has not read all bytes before it.
    pub fn release(&self) {
        self.state(|state| {
            for socket in state.hostile.iter().filter_map(|id| state.open.get(id)) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        });
    }
}

fn run(id: u64, socket: TcpStream, shared: &Arc<Shared>) {
    let act = {
        let mut state = shared.state.lock().unwrap();
        state.connection_count += 1;
        state.open.insert(id, socket.try_clone().unwrap());
        state.take_act(On::NewConnection)
    };
    let mut connection = Connection::new(id, socket, Arc::clone(shared));
    let acted = act.map_or(Ok(()), |act| connection.act(&act));
    // Serving ends when the daemon closes the connection, or in an act.
    let _ = acted.and_then(|()| connection.serve());
    drop(connection);
    let mut state = shared.state.lock().unwrap();
    state.open.remove(&id);
    state.hostile.remove(&id);
}

impl State {
    fn take_act(&mut self, on: On) -> Option<Act> {
        let (act, _) = self.act.as_ref().filter(|it| it.1 == on && self.left_count > 0)?;
        self.left_count -= 1;
        self.act_count += 1;
        Some(Arc::clone(act))
    }
}

enum Wire {
    /// TCP, or TLS before its handshake.
    Bare(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

/// A connection of the daemon.
pub struct Connection {
    id: u64,
    wire: Option<Wire>,
    socket: TcpStream,
    shared: Arc<Shared>,
    /// Bytes that were read and not used.
    pub(super) buffer: Vec<u8>,
    /// The requests of HTTP/2 that have begun, by their stream.
    pub(super) bodies: BTreeMap<u32, Vec<u8>>,
    /// The streams of the requests that have arrived whole and were not taken.
    pub(super) whole: VecDeque<u32>,
    /// Whether the first SETTINGS of the service was sent.
    pub(super) is_begun: bool,
    /// Whether the preface of the client was read.
    pub(super) has_preface: bool,
    /// Whether the client has confirmed a SETTINGS of the service.
    pub(super) is_confirmed: bool,
    is_acting: bool,
    has_acted: bool,
}

/// The error with which an act ends that has ended its connection.
fn over() -> io::Error {
    io::Error::other("the act has ended the connection")
}

impl Connection {
    fn new(id: u64, socket: TcpStream, shared: Arc<Shared>) -> Self {
        Self {
            id,
            wire: Some(Wire::Bare(socket.try_clone().unwrap())),
            socket,
            shared,
            buffer: Vec::new(),
            bodies: BTreeMap::new(),
            whole: VecDeque::new(),
            is_begun: false,
            has_preface: false,
            is_confirmed: false,
            is_acting: false,
            has_acted: false,
        }
    }

    fn act(&mut self, act: &Act) -> Done {
        self.shared.state.lock().unwrap().hostile.insert(self.id);
        (self.is_acting, self.has_acted) = (true, false);
        let done = act(self);
        self.is_acting = false;
        if let Err(error) = &done
            && !self.has_acted
        {
            let text = format!("the service could not do what the row says: {error}");
            self.shared.state.lock().unwrap().unfinished.push(text);
        }
        if done.is_ok() {
            self.shared.state.lock().unwrap().hostile.remove(&self.id);
        }
        done
    }

    /// Answers each request until the daemon closes the connection.
    fn serve(&mut self) -> Done {
        loop {
            if self.shared.is_http2 {
                self.wait_for_request()?;
            } else {
                self.wait_for_head()?;
            }
            let act = self.shared.state.lock().unwrap().take_act(On::OpenConnection);
            match act {
                Some(act) => self.act(&act)?,
                None if self.shared.is_http2 => {
                    let stream = self.request()?;
                    self.answer(stream)?;
                }
                None => {
                    let body = self.take_request()?;
                    let answer = self.reply(&body);
                    self.say(&answer)?;
                }
            }
        }
    }

    /// Takes the documents of an upload, and returns the body of its answer. The body of another
    /// call is its own answer.
    pub fn take(&self, body: &[u8]) -> String {
        if !body.starts_with(UPLOAD) {
            return String::from_utf8_lossy(body).into_owned();
        }
        let upload: BTreeMap<String, Vec<String>> = serde_json::from_slice(body).unwrap();
        let mut state = self.shared.state.lock().unwrap();
        for document in upload.into_values().flatten() {
            let arrival = state.arrivals.entry(document).or_default();
            if self.is_acting {
                arrival.act_count += 1;
            } else {
                arrival.served_count += 1;
            }
        }
        ACCEPTED.to_owned()
    }

    /// Counts a request whose head has arrived.
    pub(super) fn count_head(&self) {
        self.shared.state.lock().unwrap().head_count += 1;
    }

    fn wire(&mut self) -> io::Result<&mut Wire> {
        if let (Some(Wire::Bare(_)), Some(tls)) = (&self.wire, &self.shared.tls) {
            let session = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
            let mut stream = StreamOwned::new(session, self.socket.try_clone()?);
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock)?;
            }
            self.wire = Some(Wire::Tls(Box::new(stream)));
        }
        self.wire.as_mut().ok_or_else(over)
    }

    /// Sends bytes, inside TLS.
    pub fn say(&mut self, bytes: &[u8]) -> Done {
        match self.wire()? {
            Wire::Bare(stream) => stream.write_all(bytes),
            Wire::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    /// Sends bytes as they are, outside TLS.
    pub fn say_outside(&mut self, bytes: &[u8]) -> Done {
        self.socket.write_all(bytes)
    }

    /// Sends these bytes again and again until the daemon closes the connection. If it does not,
    /// stops after `bytes_max` bytes.
    pub fn flood(&mut self, bytes: &[u8], bytes_max: usize) -> Done {
        let block = bytes.repeat((16 * 1024 / bytes.len()).max(1));
        for _ in 0..bytes_max.div_ceil(block.len()) {
            if self.say(&block).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Reads more bytes into the buffer. The end of the connection is an error.
    pub(super) fn fill(&mut self) -> Done {
        let mut bytes = [0; 16 * 1024];
        let count = match self.wire()? {
            Wire::Bare(stream) => stream.read(&mut bytes)?,
            Wire::Tls(stream) => stream.read(&mut bytes)?,
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(())
    }

    /// Reads until the buffer has this many bytes, and takes them.
    pub(super) fn take_bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill()?;
        }
        let rest = self.buffer.split_off(count);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Does nothing more, and reads until the daemon closes the connection.
    pub fn hold(&mut self) -> Done {
        self.has_acted = true;
        while self.fill().is_ok() {
            self.buffer.clear();
        }
        Err(over())
    }

    /// Does nothing more, and reads nothing, until the daemon closes the connection.
    pub fn hold_unread(&mut self) -> Done {
        self.has_acted = true;
        let closed = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        loop {
            let mut fds = [PollFd::new(&self.socket, closed)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                _ => return Err(over()),
            }
        }
    }

    /// Sends these bytes one by one, until the daemon closes the connection or all are sent.
    pub fn drip(&mut self, bytes: &[u8], pause: Duration) -> Done {
        for byte in bytes {
            self.say(&[*byte])?;
            thread::sleep(pause);
        }
        Ok(())
    }

    /// Ends the connection in order: with TLS by a `close_notify`.
    pub fn close(&mut self) -> Done {
        if let Wire::Tls(stream) = self.wire()? {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        self.cut()
    }

    /// Ends TCP without a `close_notify`.
    pub fn cut(&mut self) -> Done {
        self.has_acted = true;
        let _ = self.socket.shutdown(Shutdown::Write);
        self.hold()
    }

    /// Resets TCP.
    pub fn reset(&mut self) -> Done {
        self.has_acted = true;
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))?;
        self.wire = None;
        self.shared.state.lock().unwrap().open.remove(&self.id);
        Err(over())
    }

    /// Leaves TLS, so that the act can send records of any kind.
    pub fn records(&mut self) -> io::Result<Records> {
        self.wire()?;
        match self.wire.take() {
            Some(Wire::Tls(stream)) => {
                let (session, socket) = stream.into_parts();
                self.wire = Some(Wire::Bare(socket.try_clone()?));
                Records::new(session, socket)
            }
            _ => Err(io::Error::other("there is no TLS")),
        }
    }

    /// Ends TCP, without a word to TLS.
    pub fn cut_outside(&mut self) -> Done {
        self.has_acted = true;
        let _ = self.socket.shutdown(Shutdown::Write);
        let mut bytes = [0; 16 * 1024];
        while self.socket.read(&mut bytes).is_ok_and(|count| count > 0) {}
        Err(over())
    }
}
