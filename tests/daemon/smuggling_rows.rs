//! The table of requests of `smuggling.rs`.
//!
//! In a text, `|` is CR LF, and each character up to U+00FF is one byte. A text that begins with a
//! line `+` begins with `POST /GetSamplingRules HTTP/1.1` and a `Host` header. `{hidden}` is
//! [`HIDDEN`], and `{length}` and `{hex}` are its length.
//!
//! The statuses are those of all answers on the connection: 202 is the answer of the service. Each
//! text is followed by a request for `/health`. A last 200 is the answer to it; without it the
//! daemon has closed the connection.

/// A request that must never be read as one: it is in the body of another, or behind one after
/// which the connection ends.
pub const HIDDEN: &str = "POST /SamplingTargets?hidden HTTP/1.1|Host: x|Content-Length: 0||";

/// A request to the TCP port.
#[derive(Debug)]
pub struct Row {
    /// The odd part of the request.
    pub name: &'static str,
    /// The bytes of the request. [`bytes_of`] translates them.
    pub text: String,
    /// The statuses of all answers.
    pub answers: &'static [u16],
    /// The calls that the service receives: method, target and body.
    pub calls: Vec<String>,
}

type Short = (&'static str, &'static str, &'static [u16], &'static [&'static str]);

/// The answers if the request is a call and the connection stays open.
const CALL: &[u16] = &[202, 200];
/// The call without a body, with `{}`, and with [`HIDDEN`] as its body.
const EMPTY: &[&str] = &["POST /GetSamplingRules "];
const BRACES: &[&str] = &["POST /GetSamplingRules {}"];
const NESTED: &[&str] = &["POST /GetSamplingRules {hidden}"];

/// Translates the text of a row into bytes.
pub fn bytes_of(text: &str) -> Vec<u8> {
    let text = text.replace('|', "\r\n");
    text.chars().map(|it| u8::try_from(u32::from(it)).unwrap()).collect()
}

/// Returns all rows.
pub fn all() -> Vec<Row> {
    let tables = [LENGTHS, CODINGS, CHUNKS, LINES, TARGETS, HOSTS, VERSIONS, SEQUENCES];
    let length = bytes_of(HIDDEN).len();
    let rows = tables.into_iter().flatten().map(|&(name, text, answers, calls)| {
        let start = "POST /GetSamplingRules HTTP/1.1|Host: x|";
        let text = text.strip_prefix('+').map_or(text.to_owned(), |rest| format!("{start}{rest}"));
        let text = text.replace("{hidden}", HIDDEN).replace("{length}", &length.to_string());
        let text = text.replace("{hex}", &format!("{length:x}"));
        Row { name, text, answers, calls: calls.iter().map(|&call| call.to_owned()).collect() }
    });
    rows.collect()
}

const LENGTHS: &[Short] = &[
    ("no length", "+|", CALL, EMPTY),
    ("a length", "+Content-Length: 2||{}", CALL, BRACES),
    ("a request in the body", "+Content-Length: {length}||{hidden}", CALL, NESTED),
    ("a request behind the body", "+Content-Length: 0||POST / HTTP/1.1|Host: x||", &[202, 403, 200], EMPTY),
    ("the same length twice", "+Content-Length: 2|Content-Length: 2||{}", CALL, BRACES),
    ("two lengths", "+Content-Length: 2|Content-Length: {length}||{}{hidden}", &[400], &[]),
    ("two lengths, the larger first", "+Content-Length: {length}|Content-Length: 0||{hidden}", &[400], &[]),
    ("a list of lengths", "+Content-Length: 2, 2||{}{hidden}", &[400], &[]),
    ("a list of different lengths", "+Content-Length: 2,0||{}{hidden}", &[400], &[]),
    ("a length with a plus", "+Content-Length: +2||{}{hidden}", &[400], &[]),
    ("a negative length", "+Content-Length: -2||{hidden}", &[400], &[]),
    ("a hexadecimal length", "+Content-Length: 0x2||{}{hidden}", &[400], &[]),
    ("a length with a fraction", "+Content-Length: 2.0||{}{hidden}", &[400], &[]),
    ("a length with an exponent", "+Content-Length: 2e0||{}{hidden}", &[400], &[]),
    ("a length with a space inside", "+Content-Length: 2 2||{}{hidden}", &[400], &[]),
    ("a length with spaces around", "+Content-Length: \t 2 \t||{}", CALL, BRACES),
    ("a length with zeros in front", "+Content-Length: 002||{}", CALL, BRACES),
    ("an empty length", "+Content-Length: ||{hidden}", &[400], &[]),
    ("a length with a parameter", "+Content-Length: 2;a||{}{hidden}", &[400], &[]),
    ("a length in quotes", "+Content-Length: \"2\"||{}{hidden}", &[400], &[]),
    ("a length beyond 64 bits", "+Content-Length: 18446744073709551618||{}{hidden}", &[400], &[]),
    ("a length of 64 bits", "+Content-Length: 18446744073709551615||{}{hidden}", &[431], &[]),
    ("a length that Connection names", "+Connection: content-length|Content-Length: 2||{}", CALL, BRACES),
    ("a length with an underscore", "+Content_Length: 2||", CALL, EMPTY),
];

const CODINGS: &[Short] = &[
    ("a request in a chunk", "+Transfer-Encoding: chunked||{hex}|{hidden}|0||", CALL, NESTED),
    // The coding counts, and the connection ends after the answer (RFC 9112, section 6.1).
    ("a length and chunks", "+Content-Length: 5|Transfer-Encoding: chunked||0||{hidden}", &[202], EMPTY),
    ("chunks and a length", "+Transfer-Encoding: chunked|Content-Length: 5||0||{hidden}", &[202], EMPTY),
    ("chunks and a length beyond them", "+Transfer-Encoding: chunked|Content-Length: {length}||2|{}|0||{hidden}", &[202], BRACES),
    ("chunks and a bad length", "+Transfer-Encoding: chunked|Content-Length: +5||0||{hidden}", &[202], EMPTY),
    ("a bad length and chunks", "+Content-Length: +5|Transfer-Encoding: chunked||0||{hidden}", &[400], &[]),
    ("capital letters", "+Transfer-Encoding: CHUNKED||2|{}|0||", CALL, BRACES),
    ("spaces around the coding", "+Transfer-Encoding: \t chunked \t||2|{}|0||", CALL, BRACES),
    ("no space after the colon", "+Transfer-Encoding:chunked||2|{}|0||", CALL, BRACES),
    ("a space before the colon", "+Transfer-Encoding : chunked||0||{hidden}", &[400], &[]),
    ("a vertical tab before the coding", "+Transfer-Encoding: \u{b}chunked||0||{hidden}", &[400], &[]),
    ("a NUL after the coding", "+Transfer-Encoding: chunked\0||0||{hidden}", &[400], &[]),
    ("a non-breaking space", "+Transfer-Encoding: \u{a0}chunked||0||{hidden}", &[400], &[]),
    ("another word", "+Transfer-Encoding: xchunked||0||{hidden}", &[400], &[]),
    ("quotes", "+Transfer-Encoding: \"chunked\"||0||{hidden}", &[400], &[]),
    ("a parameter", "+Transfer-Encoding: chunked;q=1||0||{hidden}", &[400], &[]),
    ("no coding", "+Transfer-Encoding: ||0||{hidden}", &[400], &[]),
    ("identity", "+Transfer-Encoding: identity||{hidden}", &[400], &[]),
    ("chunked before another", "+Transfer-Encoding: chunked, identity||0||{hidden}", &[400], &[]),
    ("chunked after another", "+Transfer-Encoding: gzip, chunked||0||{hidden}", &[501], &[]),
    ("two lines, the second chunked", "+Transfer-Encoding: identity|Transfer-Encoding: chunked||0||{hidden}", &[501], &[]),
    ("two lines, the first chunked", "+Transfer-Encoding: chunked|Transfer-Encoding: identity||0||{hidden}", &[400], &[]),
    ("chunked twice", "+Transfer-Encoding: chunked, chunked||0||{hidden}", &[400], &[]),
    ("chunked in two lines", "+Transfer-Encoding: chunked|Transfer-Encoding: chunked||0||{hidden}", &[400], &[]),
    ("an empty element", "+Transfer-Encoding: , chunked||0||{hidden}", &[400], &[]),
    ("chunks in HTTP/1.0", "POST /GetSamplingRules HTTP/1.0|Transfer-Encoding: chunked||0||{hidden}", &[400], &[]),
    // This is another header, so there is no body.
    ("an underscore", "+Transfer_Encoding: chunked||0||{hidden}", &[202, 400], EMPTY),
];

const CHUNKS: &[Short] = &[
    ("capital digits and zeros", "+Transfer-Encoding: chunked||0002|{}|000||", CALL, BRACES),
    ("an extension", "+Transfer-Encoding: chunked||2;a=\"b\"|{}|0;c||", CALL, BRACES),
    // Go's server, and so the original daemon, takes this space too.
    ("a space after the size", "+Transfer-Encoding: chunked||2 |{}|0||", CALL, BRACES),
    // The connection ends after trailers, because LF alone can end them or not.
    ("trailers", "+Transfer-Encoding: chunked||2|{}|0|A: b|Content-Length: 9|Host: y||", &[202], BRACES),
    ("no size", "+Transfer-Encoding: chunked|||{}|0||{hidden}", &[400], &[]),
    ("a size with a plus", "+Transfer-Encoding: chunked||+2|{}|0||{hidden}", &[400], &[]),
    ("a negative size", "+Transfer-Encoding: chunked||-2|{}|0||{hidden}", &[400], &[]),
    ("a size with 0x", "+Transfer-Encoding: chunked||0x2|{}|0||{hidden}", &[400], &[]),
    ("no hexadecimal digit", "+Transfer-Encoding: chunked||g|{}|0||{hidden}", &[400], &[]),
    ("a space before the size", "+Transfer-Encoding: chunked|| 2|{}|0||{hidden}", &[400], &[]),
    ("a space within the size", "+Transfer-Encoding: chunked||0 2|{}|0||{hidden}", &[400], &[]),
    ("a size beyond 64 bits", "+Transfer-Encoding: chunked||10000000000000002|{}|0||{hidden}", &[400], &[]),
    ("LF after the size", "+Transfer-Encoding: chunked||2\n{}|0||{hidden}", &[400], &[]),
    ("LF in an extension", "+Transfer-Encoding: chunked||2;a\n{}|0||{hidden}", &[400], &[]),
    ("CR in an extension", "+Transfer-Encoding: chunked||2;a\rb|{}|0||{hidden}", &[400], &[]),
    ("LF after the data", "+Transfer-Encoding: chunked||2|{}\n0||{hidden}", &[400], &[]),
    ("more data than the size", "+Transfer-Encoding: chunked||2|{}}|0||{hidden}", &[400], &[]),
    ("less data than the size", "+Transfer-Encoding: chunked||3|{}|0||{hidden}", &[400], &[]),
    ("LF after the last chunk", "+Transfer-Encoding: chunked||2|{}|0\n\n{hidden}", &[400], &[]),
    ("LF after a trailer", "+Transfer-Encoding: chunked||0|A: b\n\n{hidden}", &[202], EMPTY),
    ("LF and CR LF after a trailer", "+Transfer-Encoding: chunked||0|A: b\n|{hidden}", &[202], EMPTY),
    ("LF in place of the trailers", "+Transfer-Encoding: chunked||0|\n{hidden}", &[202], EMPTY),
    ("LF after a trailer on a path that is refused", "POST / HTTP/1.1|Host: x|Transfer-Encoding: chunked||0|A: b\n\n{hidden}", &[403], &[]),
    ("a trailer without a colon", "+Transfer-Encoding: chunked||0|A||{hidden}", &[400], &[]),
    ("a bad size on a path that is refused", "POST / HTTP/1.1|Host: x|Transfer-Encoding: chunked||g|{hidden}", &[403], &[]),
];

const LINES: &[Short] = &[
    // A recipient may take LF alone as the end of a line (RFC 9112, section 2.2).
    ("LF alone", "POST /GetSamplingRules HTTP/1.1\nHost: x\nContent-Length: 2\n\n{}", CALL, BRACES),
    ("empty lines in front", "||POST /GetSamplingRules HTTP/1.1|Host: x||", CALL, EMPTY),
    ("CR alone", "POST /GetSamplingRules HTTP/1.1\rHost: x\r\r{hidden}", &[400], &[]),
    ("CR in a value", "+A: b\rContent-Length: {length}||{hidden}", &[400], &[]),
    ("CR at the end of a value", "+A: b\r|Content-Length: 2||{}{hidden}", &[400], &[]),
    ("a folded line", "+A: b| Content-Length: {length}||{hidden}", &[400], &[]),
    ("a folded length", "+Content-Length:| 2||{}{hidden}", &[400], &[]),
    ("a folded line with a tab", "+A: b|\tc||{hidden}", &[400], &[]),
    ("a space before the first header", "POST /GetSamplingRules HTTP/1.1| Host: x||{hidden}", &[400], &[]),
    ("a space before the request", " POST /GetSamplingRules HTTP/1.1|Host: x||{hidden}", &[400], &[]),
    ("a NUL in a name", "+A\0: b||{hidden}", &[400], &[]),
    ("a NUL in a value", "+A: b\0c||{hidden}", &[400], &[]),
    ("a control character in a value", "+A: b\u{1}||{hidden}", &[400], &[]),
    ("DEL in a value", "+A: b\u{7f}||{hidden}", &[400], &[]),
    ("a byte of no text in a name", "+A\u{ff}: b||{hidden}", &[400], &[]),
    ("a space before the colon of another header", "+A : b||{hidden}", &[400], &[]),
    ("a tab before the colon", "+Content-Length\t: 2||{}{hidden}", &[400], &[]),
    ("a header without a name", "+: b||{hidden}", &[400], &[]),
    ("a header without a colon", "+Content-Length 2||{}{hidden}", &[400], &[]),
    ("a name with a bracket", "+A(b): c||{hidden}", &[400], &[]),
];

const TARGETS: &[Short] = &[
    ("a whole address", "POST http://other.example/GetSamplingRules HTTP/1.1|Host: x||", CALL, EMPTY),
    ("a whole address with a user", "POST http://u:p@x/GetSamplingRules HTTP/1.1|Host: x||{hidden}", &[400], &[]),
    ("an address of ftp", "POST ftp://x/GetSamplingRules HTTP/1.1|Host: x||{hidden}", &[400], &[]),
    ("a host with a port", "POST x:2000 HTTP/1.1|Host: x||{hidden}", &[400], &[]),
    ("CONNECT", "CONNECT x:443 HTTP/1.1|Host: x||{hidden}", &[405], &[]),
    ("CONNECT with a path", "CONNECT /GetSamplingRules HTTP/1.1|Host: x||{hidden}", &[405], &[]),
    ("CONNECT with a body", "CONNECT x:443 HTTP/1.1|Host: x|Content-Length: 2||{}{hidden}", &[405], &[]),
    ("a star", "POST * HTTP/1.1|Host: x||{hidden}", &[400], &[]),
    ("a star for OPTIONS", "OPTIONS * HTTP/1.1|Host: x||", &[403, 200], &[]),
    ("no target", "POST HTTP/1.1|Host: x||{hidden}", &[400], &[]),
    ("no path", "POST  HTTP/1.1|Host: x||{hidden}", &[400], &[]),
    ("a path without a slash", "POST GetSamplingRules HTTP/1.1|Host: x||{hidden}", &[400], &[]),
    ("a space in the target", "POST /Get SamplingRules HTTP/1.1|Host: x||{hidden}", &[400], &[]),
    ("a tab after the target", "POST /GetSamplingRules\tHTTP/1.1|Host: x||{hidden}", &[400], &[]),
    ("a NUL in the target", "POST /GetSamplingRules\0 HTTP/1.1|Host: x||{hidden}", &[400], &[]),
    ("a target of no text", "POST /GetSamplingRules\u{ff} HTTP/1.1|Host: x||{hidden}", &[400], &[]),
    ("CR in the target", "POST /GetSamplingRules\r HTTP/1.1|Host: x||{hidden}", &[400], &[]),
    ("an escaped line in the path", "POST /GetSamplingRules%0d%0aA:b HTTP/1.1|Host: x||", &[403, 200], &[]),
    ("an escaped line in the query", "POST /GetSamplingRules?a=%0d%0aA:b HTTP/1.1|Host: x||", CALL, &["POST /GetSamplingRules?a=%0d%0aA:b "]),
    ("a method of no text", "PO\u{ff}ST /GetSamplingRules HTTP/1.1|Host: x||{hidden}", &[400], &[]),
];

const HOSTS: &[Short] = &[
    ("no host", "POST /GetSamplingRules HTTP/1.1||{hidden}", &[400], &[]),
    ("no host, with a body", "POST /GetSamplingRules HTTP/1.1|Content-Length: 2||{}{hidden}", &[400], &[]),
    ("no host, with an address", "POST http://x/GetSamplingRules HTTP/1.1||{hidden}", &[400], &[]),
    ("no host in HTTP/1.0", "POST /GetSamplingRules HTTP/1.0||{hidden}", &[202], EMPTY),
    ("two hosts", "+Host: y||{hidden}", &[400], &[]),
    ("the same host twice", "+Host: x||{hidden}", &[400], &[]),
    ("two hosts in HTTP/1.0", "POST /GetSamplingRules HTTP/1.0|Host: x|Host: y||{hidden}", &[400], &[]),
    ("an empty host", "POST /GetSamplingRules HTTP/1.1|Host: ||", CALL, EMPTY),
    ("a host with an underscore", "POST /GetSamplingRules HTTP/1.1|Host: xray_daemon:2000||", CALL, EMPTY),
    ("an IPv6 address", "POST /GetSamplingRules HTTP/1.1|Host: [::1]:2000||", CALL, EMPTY),
    ("a list of hosts", "POST /GetSamplingRules HTTP/1.1|Host: x, y||{hidden}", &[400], &[]),
    ("a host with a user", "POST /GetSamplingRules HTTP/1.1|Host: x@y||{hidden}", &[400], &[]),
    ("a host with a path", "POST /GetSamplingRules HTTP/1.1|Host: x/y||{hidden}", &[400], &[]),
    ("a host of no text", "POST /GetSamplingRules HTTP/1.1|Host: \u{e4}||{hidden}", &[400], &[]),
    ("two hosts for a page of the daemon", "GET /health HTTP/1.1|Host: x|Host: y||{hidden}", &[400], &[]),
];

const VERSIONS: &[Short] = &[
    ("HTTP/0.9", "GET /health|{hidden}", &[400], &[]),
    ("HTTP/1.0", "POST /GetSamplingRules HTTP/1.0|Content-Length: 2||{}{hidden}", &[202], BRACES),
    ("HTTP/1.0 that keeps the connection", "POST /GetSamplingRules HTTP/1.0|Connection: keep-alive||", CALL, EMPTY),
    ("HTTP/1.2", "POST /GetSamplingRules HTTP/1.2|Host: x||{hidden}", &[400], &[]),
    ("HTTP/2.0", "POST /GetSamplingRules HTTP/2.0|Host: x||{hidden}", &[400], &[]),
    ("a version in small letters", "POST /GetSamplingRules http/1.1|Host: x||{hidden}", &[400], &[]),
    ("a space after the version", "POST /GetSamplingRules HTTP/1.1 |Host: x||{hidden}", &[400], &[]),
    ("HTTP/2 without negotiation", "PRI * HTTP/2.0||SM||\0\0\0\u{4}\0\0\0\0\0{hidden}", &[], &[]),
    ("an upgrade to HTTP/2", "+Connection: Upgrade, HTTP2-Settings|Upgrade: h2c|HTTP2-Settings: AAMAAABk||", CALL, EMPTY),
    ("an upgrade of a page", "GET /health HTTP/1.1|Host: x|Connection: Upgrade|Upgrade: websocket||", &[200, 200], &[]),
    ("TLS", "\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\0\u{1}\0{hidden}", &[400], &[]),
];

const SEQUENCES: &[Short] = &[
    ("three requests", "+||POST /Other HTTP/1.1|Host: x|Content-Length: 2||{}GET /health HTTP/1.1|Host: x||", &[202, 403, 200, 200], EMPTY),
    ("the last request of a client", "+Connection: close||{hidden}", &[202], EMPTY),
    ("close in one of two headers", "+Connection: close|Connection: keep-alive||{hidden}", &[202], EMPTY),
    ("close beside a byte of no text", "+Connection: close, \u{ff}||{hidden}", &[400], &[]),
    ("a page with a body", "GET /health HTTP/1.1|Host: x|Content-Length: {length}||{hidden}", &[200], &[]),
    ("a page with a body in chunks", "GET /ready HTTP/1.1|Host: x|Transfer-Encoding: chunked||{hex}|{hidden}|0||", &[200], &[]),
    ("a refused path with a body", "POST / HTTP/1.1|Host: x|Content-Length: {length}||{hidden}", &[403, 200], &[]),
    ("a refused path with a body in chunks", "POST / HTTP/1.1|Host: x|Transfer-Encoding: chunked||{hex}|{hidden}|0||", &[403, 200], &[]),
    ("TRACE with a body", "TRACE / HTTP/1.1|Host: x|Content-Length: {length}||{hidden}", &[405, 200], &[]),
    ("Expect: 100-continue", "+Content-Length: 2|Expect: 100-continue||{}", &[100, 202, 200], BRACES),
    ("Expect without a body", "+Expect: 100-continue|Content-Length: 0||", CALL, EMPTY),
    ("Expect in HTTP/1.0", "POST /GetSamplingRules HTTP/1.0|Expect: 100-continue|Content-Length: 2||{}{hidden}", &[202], BRACES),
    ("Expect of something else", "+Expect: hidden|Content-Length: 2||{}", CALL, BRACES),
    ("Expect on a refused path", "POST / HTTP/1.1|Host: x|Expect: 100-continue|Content-Length: {length}||{hidden}", &[403], &[]),
    ("Expect on a page", "GET /health HTTP/1.1|Host: x|Expect: 100-continue|Content-Length: {length}||{hidden}", &[200], &[]),
];
