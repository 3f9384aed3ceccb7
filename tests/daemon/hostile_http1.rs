//! Hostile services that speak HTTP/1.1, as a table. `hostile_rows.rs` checks each row.

#![allow(clippy::too_many_lines, reason = "these functions are tables")]

use super::hostile_peer::{Connection, Done};
use super::hostile_rows::Forwarded::{self, Status};
use super::hostile_rows::Holds::{self, Accepted, Either, Retried};
use super::hostile_rows::{Protocol, Row, run};
use std::time::Duration;

/// Bytes of a flood that the daemon should end. It is far more than the daemon may hold.
const FLOOD: usize = 16 * 1024 * 1024;

/// The pause of a drip.
const DRIP: Duration = Duration::from_millis(2);

/// The head of a good answer up to its length, and the whole of a good answer. `$BODY`, `$LENGTH`
/// and `$HEX` stand for the body and its length.
const HEAD: &str = "HTTP/1.1 200 OK\r\nx-amzn-requestid: 1\r\n";
const GOOD: &str = "HTTP/1.1 200 OK\r\nx-amzn-requestid: 1\r\ncontent-length: $LENGTH\r\n\r\n$BODY";

/// An answer that nobody has asked for.
const UNASKED: &str = "HTTP/1.1 200 OK\r\nx-amzn-requestid: smuggled\r\ncontent-length: 8\r\n\r\n\
                       smuggled";

/// The step of the service after it has sent a text.
type Then = fn(&mut Connection) -> Done;

/// The service goes on serving well.
fn serve(_: &mut Connection) -> Done {
    Ok(())
}

#[test]
fn no_behaviour_of_a_service_over_http1_costs_a_segment_or_stops_the_daemon() {
    let rows =
        [status_lines(), interim(), lengths(), chunks(), heads(), smuggled(), stalls(), ends()];
    run(rows.concat(), Protocol::Plain, 4);
}

#[test]
fn no_end_of_a_connection_with_tls_costs_a_segment_or_stops_the_daemon() {
    run([ends(), ends_within_tls(), smuggled()].concat(), Protocol::Http1, 4);
}

/// Returns a row in which the service answers a request with this text.
fn says(name: impl Into<String>, holds: Holds, text: impl Into<String>, then: Then) -> Row {
    let text = text.into();
    Row::new(name, holds, move |it| {
        let request = it.take_request()?;
        // A text without a body is no answer, and takes no document.
        let bytes = if text.contains("$BODY") {
            let body = it.take(&request);
            text.replace("$LENGTH", &body.len().to_string())
                .replace("$HEX", &format!("{:x}", body.len()))
                .replace("$BODY", &body)
        } else {
            text.clone()
        };
        it.say(bytes.as_bytes())?;
        then(it)
    })
}

fn status_lines() -> Vec<Row> {
    let hold: Then = Connection::hold;
    let rest = "x-amzn-requestid: 1\r\ncontent-length: $LENGTH\r\n\r\n$BODY";
    let bad = [
        "hello",
        "",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "HTTP/1.1 99 X",
        "HTTP/1.1 1000 X",
        "HTTP/1.1 abc X",
        "HTTP/1.1 20 X",
        "HTTP/1.1 -200 X",
        "HTTP/1.1 2 00 X",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200\0OK",
        "HTTP/1.1 200 O\x01K",
        "HTTP/1.2 200 OK",
        "HTTP/2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/1.10 200 OK",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "xHTTP/1.1 200 OK",
        " HTTP/1.1 200 OK",
        "HTTP /1.1 200 OK",
        "SSH-2.0-OpenSSH_9.2",
        "GET / HTTP/1.1",
        "{\"UnprocessedTraceSegments\":[]}",
        "\u{7f}ELF\u{2}\u{1}\u{1}",
        "\u{feff}HTTP/1.1 200 OK",
    ];
    let bad = bad.map(|line| {
        // These bytes are no good answer, so the service takes no document.
        let text = format!("{line}\r\ncontent-length: 2\r\n\r\n{{}}");
        says(format!("the status line {line:?}"), Retried(""), text, hold)
    });
    let good = ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 200 Very Good", "\r\nHTTP/1.1 200 OK"];
    let good = good.map(|line| {
        says(format!("the status line {line:?}"), Accepted, format!("{line}\r\n{rest}"), serve)
    });
    let old = "HTTP/1.0 200 OK\r\nx-amzn-requestid: 1\r\n";
    let length = "content-length: $LENGTH\r\n\r\n$BODY";
    let close: Then = Connection::close;
    let others = vec![
        says("HTTP/1.0 with a length", Accepted, format!("{old}{length}"), close),
        says("HTTP/1.0 without a length", Accepted, format!("{old}\r\n$BODY"), close),
        says(
            "HTTP/1.0 that stays open",
            Accepted,
            format!("{old}connection: keep-alive\r\n{length}"),
            serve,
        ),
        says("HTTP/0.9", Retried(""), "{\"UnprocessedTraceSegments\":[]}", close),
        says(
            "a reason of 64 kB",
            Either,
            format!("HTTP/1.1 503 {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(65_536)),
            serve,
        )
        .forwards(Forwarded::Skipped),
        says(
            "the status 999",
            Retried("has the answer 999"),
            "HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n",
            serve,
        )
        .forwards(Status(999)),
        says(
            "the status 304 with a length",
            Retried("has the answer 304"),
            "HTTP/1.1 304 X\r\ncontent-length: 1000\r\n\r\n",
            serve,
        )
        .forwards(Status(304)),
        says(
            "an error page of HTTP/1.0 without a length",
            Retried("has the answer 502"),
            "HTTP/1.0 502 Bad Gateway\r\n\r\n<html>smug",
            close,
        )
        .forwards(Status(502)),
    ];
    bad.into_iter().chain(good).chain(others).collect()
}

fn interim() -> Vec<Row> {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    let mut rows = vec![
        says(
            "1xx with a body",
            Retried(""),
            "HTTP/1.1 102 X\r\ncontent-length: 5\r\n\r\nhello",
            Connection::hold,
        ),
        says(
            "101 that nobody has asked for",
            Retried(""),
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            Connection::close,
        ),
        says(
            "101 to HTTP/2",
            Retried(""),
            "HTTP/1.1 101 X\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            Connection::close,
        ),
        says(
            "1xx of several kinds",
            Accepted,
            format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 199 X\r\n\r\n{early}{GOOD}"),
            serve,
        ),
        says("1xx and the end of the connection", Retried(""), early, Connection::close),
        Row::new("1xx without an end", Either, move |it| {
            it.take_request()?;
            it.flood(early.as_bytes(), FLOOD)?;
            it.hold()
        })
        .timeout(),
    ];
    for (count, code) in [(1, 100), (1, 102), (1, 103), (1_000, 100), (1_000, 103)] {
        let text = format!("HTTP/1.1 {code} X\r\n\r\n").repeat(count);
        let name = format!("{count} times the status {code}, then the answer");
        rows.push(says(name, Accepted, format!("{text}{GOOD}"), serve));
    }
    rows
}

fn lengths() -> Vec<Row> {
    let good = "$BODY";
    let taken = [
        ("twice the same", "content-length: $LENGTH\r\ncontent-length: $LENGTH"),
        ("in a list of the same", "content-length: $LENGTH, $LENGTH"),
        ("with zeros in front", "content-length: 000$LENGTH"),
        ("with spaces around it", "content-length:   \t $LENGTH \t"),
        ("in capitals", "CONTENT-LENGTH: $LENGTH"),
    ];
    let taken = taken.map(|(name, header)| {
        let text = format!("{HEAD}{header}\r\n\r\n{good}");
        says(format!("Content-Length {name}"), Either, text, Connection::close)
            .forwards(Forwarded::Either)
    });
    let bad = [
        ("twice and different", "content-length: 2\r\ncontent-length: 3"),
        ("in a list of different ones", "content-length: 2, 3"),
        ("that is negative", "content-length: -2"),
        ("with a plus", "content-length: +2"),
        ("in hexadecimal", "content-length: 0x2"),
        ("of 2^64", "content-length: 18446744073709551616"),
        ("of 2^64 - 1", "content-length: 18446744073709551615"),
        ("of 2^64 - 2", "content-length: 18446744073709551614"),
        ("of a hundred digits", {
            "content-length: 1000000000000000000000000000000000000000000000000000000000000000000000\
             0000000000000000000000000000"
        }),
        ("without a value", "content-length:"),
        ("with a letter", "content-length: 2x"),
        ("with a space in it", "content-length: 2 2"),
        ("that is larger than the body", "content-length: 1000"),
        ("of 2^63", "content-length: 9223372036854775808"),
    ];
    let bad = bad.map(|(name, header)| {
        let text = format!("{HEAD}{header}\r\n\r\n{{}}");
        says(format!("Content-Length {name}"), Retried(""), text, Connection::close)
    });
    let others = [
        says(
            "no length, and the end in order",
            Accepted,
            format!("{HEAD}\r\n$BODY"),
            Connection::close,
        ),
        says(
            "204 with a body",
            Either,
            "HTTP/1.1 204 No Content\r\nx-amzn-requestid: 1\r\ncontent-length: 2\r\n\r\n$BODY",
            serve,
        )
        .forwards(Forwarded::Skipped),
    ];
    taken.into_iter().chain(bad).chain(others).collect()
}

fn chunks() -> Vec<Row> {
    let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n");
    let good = [
        ("", "$HEX\r\n$BODY\r\n0\r\n\r\n"),
        ("with zeros in front of their size", "0000000$HEX\r\n$BODY\r\n0000\r\n\r\n"),
        ("with an extension", "$HEX;a=b;c=\"d\"\r\n$BODY\r\n0;last\r\n\r\n"),
        ("with trailers", "$HEX\r\n$BODY\r\n0\r\nx-trailer: v\r\nx-amzn-requestid: 2\r\n\r\n"),
    ];
    let good = good.map(|(name, body)| {
        says(format!("chunks {name}"), Accepted, format!("{head}{body}"), serve)
    });
    let bad = [
        ("a size that is no number", "xyz\r\n{}\r\n0\r\n\r\n"),
        ("a negative size", "-1\r\n{}\r\n0\r\n\r\n"),
        ("an empty size", "\r\n{}\r\n0\r\n\r\n"),
        ("a size with 0x", "0x2\r\n{}\r\n0\r\n\r\n"),
        ("a size of 2^64", "10000000000000000\r\n{}\r\n0\r\n\r\n"),
        ("a size of 2^64 - 1", "ffffffffffffffff\r\n{}\r\n0\r\n\r\n"),
        ("a size smaller than its data", "1\r\n{}\r\n0\r\n\r\n"),
        ("a size larger than its data", "3\r\n{}\r\n0\r\n\r\n"),
        ("no line end after the data", "2\r\n{}0\r\n\r\n"),
        ("a bare line feed after the size", "2\n{}\r\n0\r\n\r\n"),
        ("a space before the size", " 2\r\n{}\r\n0\r\n\r\n"),
        ("no last chunk", "2\r\n{}\r\n"),
        ("half a last chunk", "2\r\n{}\r\n0\r\n"),
        ("no data", ""),
        ("a trailer without a colon", "2\r\n{}\r\n0\r\nx\r\n\r\n"),
    ];
    let bad = bad.map(|(name, body)| {
        says(format!("chunks: {name}"), Retried(""), format!("{head}{body}"), Connection::close)
    });
    let codings = ["gzip", "identity", "chunked, gzip", "xchunked", "chunked, identity"];
    let codings = codings.map(|coding| {
        let head = format!("HTTP/1.1 503 X\r\ntransfer-encoding: {coding}\r\n\r\n");
        let text = format!("{head}2\r\n{{}}\r\n0\r\n\r\n");
        says(format!("Transfer-Encoding {coding:?}"), Retried(""), text, Connection::cut)
            .forwards(Forwarded::Skipped)
    });
    let both = "transfer-encoding: chunked\r\ncontent-length: 3";
    let others = [
        says(
            "chunks and a length",
            Either,
            format!("{HEAD}{both}\r\n\r\n$HEX\r\n$BODY\r\n0\r\n\r\n{UNASKED}"),
            Connection::close,
        )
        .forwards(Forwarded::Either),
        says(
            "a length and chunks of HTTP/1.0",
            Either,
            format!("HTTP/1.0 503 X\r\n{both}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"),
            Connection::close,
        )
        .forwards(Forwarded::Skipped),
        flood("an extension of a chunk", format!("{head}2;"), "x=y;"),
        flood("trailers", format!("{head}2\r\n{{}}\r\n0\r\n"), "x-trailer: v\r\n"),
        flood("one trailer", format!("{head}2\r\n{{}}\r\n0\r\nx: "), "vvvvvvvv"),
        flood(
            "chunks of one byte",
            "HTTP/1.1 503 X\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
            "1\r\n \r\n",
        ),
        flood("zeros of a size", head.clone(), "0000"),
    ];
    good.into_iter().chain(bad).chain(codings).chain(others).collect()
}

/// Returns a row in which the service sends `start`, and then a piece again and again.
fn flood(name: &str, start: String, piece: &'static str) -> Row {
    Row::new(format!("{name} without an end"), Retried(""), move |it| {
        it.take_request()?;
        it.say(start.as_bytes())?;
        it.flood(piece.as_bytes(), FLOOD)?;
        it.hold()
    })
    .timeout()
}

fn heads() -> Vec<Row> {
    let end = "content-length: $LENGTH\r\n\r\n$BODY";
    let good = [
        ("a value that is not ASCII", "x-a: caf\u{e9}\r\n"),
        ("a value of 200 kB", "$LONG"),
        ("the same header a dozen times", "x-a: 1\r\nx-a: 2\r\nx-a: 3\r\nx-a: 4\r\nx-a: 5\r\n"),
        ("an empty value", "x-a:\r\n"),
        ("Keep-Alive", "keep-alive: timeout=0, max=0\r\n"),
    ];
    let good = good.map(|(name, header)| {
        let long = format!("x-a: {}\r\n", "x".repeat(200_000));
        let text = format!("{HEAD}{}{end}", header.replace("$LONG", &long));
        // The connections for clients have smaller buffers.
        let is_long = header == "$LONG";
        let row = says(format!("a head with {name}"), Accepted, text, serve);
        if is_long { row.forwards(Forwarded::Either) } else { row }
    });
    let lines = says(
        "a head with bare line feeds",
        Accepted,
        "HTTP/1.1 200 OK\nx-amzn-requestid: 1\ncontent-length: $LENGTH\n\n$BODY",
        serve,
    );
    let bad = [
        ("a header without a colon", "x-a\r\n"),
        ("a header without a name", ": b\r\n"),
        ("a space before a colon", "x-a : b\r\n"),
        ("a space in a name", "x a: b\r\n"),
        ("NUL in a value", "x-a: b\0c\r\n"),
        ("NUL in a name", "x-\0a: b\r\n"),
        ("a bare carriage return", "x-a: b\rx-c: d\r\n"),
        ("a folded header", "x-a: b\r\n c\r\n"),
        ("a control character", "x-a: b\x07\r\n"),
        ("a name that is not ASCII", "x-\u{e9}: b\r\n"),
        ("a first header that is folded", " x-a: b\r\n"),
    ];
    let bad = bad.map(|(name, header)| {
        let text = format!("HTTP/1.1 200 OK\r\n{header}content-length: 2\r\n\r\n{{}}");
        says(format!("a head with {name}"), Retried(""), text, Connection::hold)
    });
    let many =
        |count: usize| (0..count).map(|index| format!("x-{index}: v\r\n")).collect::<String>();
    let large = [
        ("a head of 10,000 headers", many(10_000)),
        ("a head of 200 headers", many(200)),
        ("a header of 1 MB", format!("x: {}\r\n", "x".repeat(1_000_000))),
        ("a name of 70 kB", format!("{}: v\r\n", "x".repeat(70_000))),
    ];
    let large = large.map(|(name, headers)| {
        let text = format!("HTTP/1.1 200 OK\r\n{headers}content-length: 2\r\n\r\n{{}}");
        says(name, Retried(""), text, Connection::hold)
    });
    let floods = [
        flood("headers", "HTTP/1.1 200 OK\r\n".to_owned(), "x-a: b\r\n"),
        flood("a header", "HTTP/1.1 200 OK\r\nx-a: ".to_owned(), "bbbbbbbb"),
        flood("a name of a header", "HTTP/1.1 200 OK\r\n".to_owned(), "xxxxxxxx"),
        flood("a reason", "HTTP/1.1 200 ".to_owned(), "xxxxxxxx"),
        flood("line ends", String::new(), "\r\n"),
        flood("zeros", String::new(), "\0"),
    ];
    good.into_iter().chain([lines]).chain(bad).chain(large).chain(floods).collect()
}

/// More bytes than one answer. The daemon must never take them for the answer to its next request:
/// the service then takes no document of that request.
fn smuggled() -> Vec<Row> {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    let chunked = format!("{HEAD}transfer-encoding: chunked\r\n\r\n$HEX\r\n$BODY\r\n0\r\n\r\n");
    let good = [
        ("a second answer", format!("{GOOD}{UNASKED}")),
        ("two more answers", format!("{GOOD}{UNASKED}{UNASKED}")),
        ("a second answer after chunks", format!("{chunked}{UNASKED}")),
        ("half a second answer", format!("{GOOD}{}", &UNASKED[..20])),
        ("100 after the answer", format!("{GOOD}{interim}{UNASKED}")),
        ("a line end after the answer", format!("{GOOD}\r\n\r\n")),
        ("bytes after the answer", format!("{GOOD}smuggled")),
        ("a body longer than its length", format!("{GOOD} {UNASKED}")),
        ("a second answer after the last", {
            GOOD.replace("HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\n")
                + UNASKED
        }),
    ];
    let good = good.map(|(name, text)| {
        // Nothing that the daemon sends on this connection later is taken.
        says(name, Accepted, text, Connection::hold)
    });
    let empty = format!("HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n{UNASKED}");
    let none = format!("HTTP/1.1 304 X\r\ncontent-length: 8\r\n\r\n{UNASKED}");
    let others = [
        says("a second answer after an empty one", Retried("the answer 503"), empty, |it| {
            it.hold()
        })
        .forwards(Status(503)),
        says("a second answer after 304", Retried("the answer 304"), none, |it| it.hold())
            .forwards(Status(304)),
        Row::new("an answer before the request", Retried(""), |it| {
            it.say(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
            it.close()
        })
        .forwards(Forwarded::Skipped),
        Row::new("an answer after the head of the request", Retried(""), |it| {
            it.take_head()?;
            it.say(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
            it.close()
        })
        .forwards(Status(503)),
        Row::new("an answer on an idle connection", Accepted, |it| {
            let request = it.take_request()?;
            let answer = it.reply(&request);
            it.say(&answer)?;
            it.say(UNASKED.as_bytes())?;
            it.hold()
        }),
    ];
    good.into_iter().chain(others).collect()
}

/// Answers that come slowly or stop.
fn stalls() -> Vec<Row> {
    let text = |it: &mut Connection| -> std::io::Result<Vec<u8>> {
        let request = it.take_request()?;
        Ok(it.reply(&request))
    };
    let stop = |name: &str, text: &str| {
        says(name, Retried("no answer within 1 s"), text, Connection::hold).timeout()
    };
    vec![
        Row::new("an answer in single bytes", Accepted, move |it| {
            let answer = text(it)?;
            it.drip(&answer, DRIP)
        }),
        Row::new("a drip without an end", Retried("no answer within 1 s"), |it| {
            it.take_request()?;
            it.say(b"HTTP/1.1 200 OK\r\nx: ")?;
            let _ = it.drip(&[b'x'; 10_000], Duration::from_millis(50));
            it.hold()
        })
        .timeout(),
        Row::new("a drip of a body without an end", Retried("no answer within 1 s"), |it| {
            it.take_request()?;
            it.say(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n")?;
            let _ = it.drip(&[b'x'; 10_000], Duration::from_millis(50));
            it.hold()
        })
        .timeout(),
        Row::new("a request that is never read", Retried("no answer within 1 s"), |it| {
            it.hold_unread()
        })
        .timeout(),
        stop("no answer", ""),
        stop("half a status line", "HTTP/1.1 2"),
        stop("half a head", "HTTP/1.1 200 OK\r\nx-a: b\r\n"),
        stop("half a body", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
        stop("half a chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{"),
        stop("no length, and no end", "HTTP/1.1 200 OK\r\n\r\n{\"UnprocessedTraceSegments\":[]}"),
    ]
}

/// Ends of the connection.
fn ends() -> Vec<Row> {
    let ends: [(&str, Then); 3] = [
        ("closed in order", Connection::close),
        ("cut off", Connection::cut),
        ("reset", Connection::reset),
    ];
    let mut rows = Vec::new();
    for (name, end) in ends {
        rows.push(Row::new(format!("{name} before the request"), Retried(""), end));
        rows.push(Row::new(format!("{name} before three requests"), Retried(""), end).times(3));
        rows.push(Row::new(
            format!("{name} after the head of the request"),
            Retried(""),
            move |it| {
                it.take_head()?;
                end(it)
            },
        ));
        let text =
            "HTTP/1.1 200 OK\r\nx-amzn-requestid: 1\r\ncontent-length: 31\r\n\r\n{\"Unproces";
        for (what, text) in [
            ("instead of an answer", ""),
            ("within the status line", "HTTP/1.1 20"),
            ("within the head", "HTTP/1.1 200 OK\r\nx-amzn-requestid: 1\r\n"),
            ("within the body", text),
        ] {
            rows.push(says(format!("{name} {what}"), Retried(""), text, end));
        }
        let text = format!("{HEAD}transfer-encoding: chunked\r\n\r\n1f\r\n{{\"Unp");
        rows.push(says(format!("{name} within a chunk"), Retried(""), text, end));
        let row =
            says(format!("{name} instead of an answer, on an open one"), Retried(""), "", end);
        rows.push(row.on_open_connection());
        rows.push(says(format!("{name} after the answer"), Either, GOOD, end).times(1));
        let last = GOOD.replace("200 OK\r\n", "200 OK\r\nconnection: close\r\n");
        rows.push(says(format!("{name} after the last answer"), Either, last, end));
    }
    rows
}

/// Ends that only TLS can tell from others.
fn ends_within_tls() -> Vec<Row> {
    vec![says(
        "no length, and cut off",
        Retried("close_notify"),
        format!("{HEAD}\r\n{{\"UnprocessedTraceSegments\":[]}}"),
        Connection::cut,
    )]
}
