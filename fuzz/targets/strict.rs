//! A strict reader of HTTP/1.x requests (RFC 9112), to compare the daemon with.
//!
//! In: all bytes of a connection. Out: the requests in them, up to the first that is broken, has
//! two meanings, or ends the connection. The reader shares no code with the daemon or with hyper.

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The target, without a fragment.
    pub target: String,
    /// The body. `None` if it is broken or incomplete; then this is the last request.
    pub body: Option<Vec<u8>>,
}

/// Bytes that are read from their start.
struct Input<'bytes>(&'bytes [u8]);

impl<'bytes> Input<'bytes> {
    /// Takes a line. It ends with CR LF. If `may_be_lf`, it may end with LF alone.
    fn line(&mut self, may_be_lf: bool) -> Option<&'bytes [u8]> {
        let end = self.0.iter().position(|&byte| byte == b'\n')?;
        let (line, rest) = (&self.0[..end], &self.0[end + 1..]);
        self.0 = rest;
        let line = match line.strip_suffix(b"\r") {
            Some(line) => line,
            None if may_be_lf => line,
            None => return None,
        };
        (!line.contains(&b'\r')).then_some(line)
    }

    fn take(&mut self, count: usize) -> Option<&'bytes [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

/// The parts of a head that say where the request ends.
struct Head {
    method: String,
    target: String,
    length: usize,
    is_chunked: bool,
    is_last: bool,
}

/// Returns the requests in `bytes`.
pub fn requests(bytes: &[u8]) -> Vec<Request> {
    let mut input = Input(bytes);
    let mut requests = Vec::new();
    while let Some(head) = head(&mut input) {
        let (body, has_trailers) = if head.is_chunked {
            chunks(&mut input).unzip()
        } else {
            (input.take(head.length).map(<[u8]>::to_vec), Some(false))
        };
        let ends = head.is_last || body.is_none() || has_trailers == Some(true);
        requests.push(Request { method: head.method, target: head.target, body });
        if ends {
            break;
        }
    }
    requests
}

fn head(input: &mut Input<'_>) -> Option<Head> {
    let mut line = input.line(true)?;
    while line.is_empty() {
        line = input.line(true)?;
    }
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_11 = version == b"HTTP/1.1";
    let is_good = words.next().is_none() && is_token(method) && !target.is_empty();
    if !is_good || method == b"CONNECT" || !(is_11 || version == b"HTTP/1.0") {
        return None;
    }
    let (mut hosts, mut lengths, mut codings, mut options) = (0, vec![], vec![], vec![]);
    loop {
        let line = input.line(true)?;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let is_text = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f;
        if !is_token(name) || !line.iter().all(is_text) {
            return None;
        }
        let value = String::from_utf8_lossy(value).to_lowercase();
        match &name.to_ascii_lowercase()[..] {
            b"host" => hosts += 1,
            b"content-length" => lengths.push(value),
            b"transfer-encoding" => codings.push(value),
            b"connection" => options.push(value),
            _ => {}
        }
    }
    let is_chunked = match &codings[..] {
        [] => false,
        [coding] if coding == "chunked" && is_11 => true,
        _ => return None,
    };
    if hosts > 1 || (hosts == 0 && is_11) {
        return None;
    }
    // With chunks the length does not count, and the connection ends.
    let length = if is_chunked { 0 } else { length(&lengths)? };
    let mut options = options.iter().flat_map(|value| value.split(',')).map(str::trim);
    let is_last = (is_chunked && !lengths.is_empty())
        || if is_11 {
            options.any(|it| it == "close")
        } else {
            options.all(|it| it != "keep-alive")
        };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let target = target.split(|&byte| byte == b'#').next()?;
    Some(Head { method: text(method), target: text(target), length, is_chunked, is_last })
}

/// Returns the value of all `Content-Length` headers. They must have the same number.
fn length(lengths: &[String]) -> Option<usize> {
    let mut numbers = lengths.iter().map(|text| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<usize>().ok())?
    });
    let Some(first) = numbers.next() else { return Some(0) };
    numbers.all(|number| number == first).then_some(first)?
}

/// Takes a body in chunks. Returns it, and whether trailers follow it.
fn chunks(input: &mut Input<'_>) -> Option<(Vec<u8>, bool)> {
    let mut body = Vec::new();
    loop {
        let line = input.line(false)?;
        let size = line.split(|&byte| byte == b';').next()?;
        let size = std::str::from_utf8(size).ok()?.trim_end_matches([' ', '\t']);
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            break;
        }
        body.extend(input.take(size)?);
        if input.take(2)? != b"\r\n" {
            return None;
        }
    }
    let mut has_trailers = false;
    // The trailers are not compared, because the connection ends after them.
    while !input.0.starts_with(b"\r\n") {
        has_trailers = true;
        let end = input.0.iter().position(|&byte| byte == b'\n')?;
        input.take(end + 1)?;
    }
    Some((body, has_trailers)).filter(|_| input.take(2).is_some())
}

fn is_token(bytes: &[u8]) -> bool {
    let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_good)
}
