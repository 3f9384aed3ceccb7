//! Hostile answers over HTTP/2, as a part of the table in `hostile_http2.rs`.

#![allow(clippy::too_many_lines, reason = "these functions are tables")]

use super::hostile_frames::*;
use super::hostile_peer::{Connection, Done};
use super::hostile_rows::Forwarded::{self, Skipped, Status};
use super::hostile_rows::Holds::{Accepted, Either, Retried};
use super::hostile_rows::{Row, SMUGGLED};

/// Frames where they do not belong.
pub fn misplaced() -> Vec<Row> {
    let good = head("200", &[ID]);
    let frames: Vec<(&str, Vec<u8>)> = vec![
        ("DATA on stream 0", frame(DATA, NONE, 0, b"x")),
        ("HEADERS on stream 0", frame(HEADERS, END_HEADERS, 0, &good)),
        ("CONTINUATION on stream 0", frame(CONTINUATION, END_HEADERS, 0, &good)),
        ("CONTINUATION without HEADERS", frame(CONTINUATION, END_HEADERS, 1, &good)),
        ("PRIORITY on stream 0", frame(PRIORITY, NONE, 0, &[0; 5])),
        ("PING on a stream", frame(PING, NONE, 1, &[0; 8])),
        ("PING of 7 bytes", frame(PING, NONE, 0, &[0; 7])),
        ("DATA before HEADERS", frame(DATA, NONE, 1, b"x")),
        ("HEADERS for a stream that was never opened", frame(HEADERS, END_HEADERS, 99, &good)),
        ("HEADERS for an even stream", frame(HEADERS, END_HEADERS, 2, &good)),
        ("DATA for a stream that was never opened", frame(DATA, NONE, 99, b"x")),
        ("PUSH_PROMISE", {
            let request = [header(":method", b"GET"), header(":path", b"/"), header("a", b"b")];
            let promise = [&2_u32.to_be_bytes()[..], &request.concat()].concat();
            frame(PUSH_PROMISE, END_HEADERS, 1, &promise)
        }),
        ("PUSH_PROMISE of an odd stream", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 3])),
        ("PUSH_PROMISE on stream 0", frame(PUSH_PROMISE, END_HEADERS, 0, &[0, 0, 0, 2])),
        ("PING between HEADERS and CONTINUATION", {
            [frame(HEADERS, NONE, 1, &good), frame(PING, NONE, 0, &[0; 8])].concat()
        }),
        ("HEADERS of another stream before CONTINUATION", {
            [frame(HEADERS, NONE, 1, &good), frame(CONTINUATION, END_HEADERS, 3, &[])].concat()
        }),
        ("the preface of a client", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("HTTP/1.1", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec()),
        ("zeros", vec![0; 64]),
        ("bytes of 255", vec![255; 64]),
    ];
    let rows = frames.into_iter().map(|(name, bytes)| {
        Row::new(name, Retried(""), move |it| {
            it.request()?;
            it.say(&bytes)?;
            it.hold()
        })
        .forwards(Skipped)
    });
    rows.collect()
}

/// Frames whose length or padding is wrong, and header blocks that cannot be decoded.
pub fn broken() -> Vec<Row> {
    let good = head("200", &[ID]);
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("an oversized frame", frame(DATA, NONE, 1, &[b' '; 16_385])),
        ("a frame of 16 MB that never comes", frame_of_length(0xff_ffff, DATA, NONE, 1, b"x")),
        ("padding longer than the frame", frame(DATA, PADDED, 1, &[200, b'x'])),
        ("a padded frame of 0 bytes", frame(DATA, PADDED, 1, &[])),
        ("HEADERS with too long a padding", frame(HEADERS, PADDED | END_HEADERS, 1, &[9, 0x88])),
        ("HEADERS with half a priority", frame(HEADERS, PRIORITIZED | END_HEADERS, 1, &[0, 0])),
        ("HPACK: an index that is not in the table", frame(HEADERS, END_HEADERS, 1, &[0xff, 0x7f])),
        ("HPACK: the index 0", frame(HEADERS, END_HEADERS, 1, &[0x80])),
        ("HPACK: an endless integer", frame(HEADERS, END_HEADERS, 1, &[0xff; 40])),
        ("HPACK: a text longer than the block", frame(HEADERS, END_HEADERS, 1, &[0, 100, b'x'])),
        ("HPACK: a broken Huffman code", {
            frame(HEADERS, END_HEADERS, 1, &[0x88, 0, 1, b'x', 0x84, 255, 255, 255, 255])
        }),
        ("HPACK: a table larger than allowed", {
            frame(HEADERS, END_HEADERS, 1, &[0x3f, 0xff, 0xff, 0x7f, 0x88])
        }),
        ("HPACK: a change of the table after a header", {
            frame(HEADERS, END_HEADERS, 1, &[0x88, 0x20])
        }),
        ("HPACK: half a header", frame(HEADERS, END_HEADERS, 1, &[0x88, 0x40])),
        ("no :status", frame(HEADERS, END_HEADERS, 1, &header("a", b"b"))),
        ("an empty header block", frame(HEADERS, END_HEADERS, 1, &[])),
        (":status twice", frame(HEADERS, END_HEADERS, 1, &[0x88, 0x88])),
        (":status after a header", {
            frame(HEADERS, END_HEADERS, 1, &[&header("a", b"b")[..], OK].concat())
        }),
        (":path in an answer", {
            frame(HEADERS, END_HEADERS, 1, &[OK, &header(":path", b"/")].concat())
        }),
        ("an unknown pseudo-header", {
            frame(HEADERS, END_HEADERS, 1, &[OK, &header(":x", b"y")].concat())
        }),
        (":status abc", frame(HEADERS, END_HEADERS, 1, &header(":status", b"abc"))),
        (":status 20", frame(HEADERS, END_HEADERS, 1, &header(":status", b"20"))),
        (":status 2000", frame(HEADERS, END_HEADERS, 1, &header(":status", b"2000"))),
        (":status without a value", frame(HEADERS, END_HEADERS, 1, &header(":status", b""))),
        ("101 of HTTP/2", frame(HEADERS, END_HEADERS, 1, &head("101", &[]))),
        ("a header in capitals", frame(HEADERS, END_HEADERS, 1, &head("200", &[("X-A", "b")]))),
        ("a header without a name", frame(HEADERS, END_HEADERS, 1, &head("200", &[("", "b")]))),
        ("a header with a newline", {
            frame(HEADERS, END_HEADERS, 1, &head("200", &[("a", "b\r\nc: smuggled")]))
        }),
        ("a header with NUL", frame(HEADERS, END_HEADERS, 1, &head("200", &[("a", "b\0")]))),
        ("the header Connection", {
            frame(HEADERS, END_HEADERS, 1, &head("200", &[("connection", "close")]))
        }),
        ("the header Transfer-Encoding", {
            frame(HEADERS, END_HEADERS, 1, &head("200", &[("transfer-encoding", "chunked")]))
        }),
        (
            "1xx that ends the stream",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &head("103", &[])),
        ),
        ("1xx after the head of the answer", {
            let late = frame(HEADERS, END_HEADERS, 1, &head("103", &[]));
            [frame(HEADERS, END_HEADERS, 1, &good), late].concat()
        }),
    ];
    let rows = table.into_iter().map(|(name, bytes)| {
        Row::new(name, Retried(""), move |it| {
            it.request()?;
            it.say(&bytes)?;
            it.close()
        })
    });
    rows.collect()
}

/// Answers whose head is legal but strange.
pub fn heads() -> Vec<Row> {
    let statuses = [
        (999, "has the answer 999"),
        (600, "has the answer 600"),
        (304, "has the answer 304"),
        (100, ""),
        (199, ""),
    ];
    let rows = statuses.map(|(status, reason)| {
        Row::new(format!(":status {status} without a body"), Retried(reason), move |it| {
            let stream = it.request()?;
            it.frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(&status.to_string(), &[]))
        })
        .forwards(if status < 200 { Forwarded::AsUpload } else { Status(status) })
    });
    let many: Vec<_> = (0..500).map(|index| (format!("x-{index}"), "v".repeat(100))).collect();
    rows.into_iter()
        .chain([Row::new("500 headers of 100 bytes", Retried(""), move |it| {
            let stream = it.request()?;
            let headers: Vec<_> =
                many.iter().map(|(name, value)| (&name[..], &value[..])).collect();
            let block = head("200", &headers);
            let (last, others) = block.split_at(block.len() - 100);
            let mut kind = HEADERS;
            for piece in last.chunks(16_000) {
                it.frame(kind, NONE, stream, piece)?;
                kind = CONTINUATION;
            }
            it.frame(CONTINUATION, END_HEADERS, stream, others)?;
            it.frame(DATA, END_STREAM, stream, b"{}")
        })])
        .collect()
}

/// Answers whose body is not what their head says.
pub fn bodies() -> Vec<Row> {
    vec![
        Row::new("Content-Length too large", Retried(""), |it| {
            let stream = it.request()?;
            let headers = [ID, ("content-length", "1000")];
            it.frame(HEADERS, END_HEADERS, stream, &head("200", &headers))?;
            it.frame(DATA, END_STREAM, stream, b"{\"UnprocessedTraceSegments\":[]}")
        }),
        Row::new("Content-Length too small", Retried(""), |it| {
            let stream = it.request()?;
            let headers = [ID, ("content-length", "2")];
            it.frame(HEADERS, END_HEADERS, stream, &head("200", &headers))?;
            it.frame(DATA, END_STREAM, stream, b"{\"UnprocessedTraceSegments\":[]}")
        }),
        Row::new("Content-Length that is no number", Retried(""), |it| {
            let stream = it.request()?;
            let headers = [ID, ("content-length", "2x")];
            it.frame(HEADERS, END_HEADERS, stream, &head("200", &headers))?;
            it.frame(DATA, END_STREAM, stream, b"{}")
        }),
        Row::new("Content-Length twice, and different", Retried(""), |it| {
            let stream = it.request()?;
            let headers = [ID, ("content-length", "2"), ("content-length", "3")];
            it.frame(HEADERS, END_HEADERS, stream, &head("200", &headers))?;
            it.frame(DATA, END_STREAM, stream, b"{}")
        }),
        Row::new("a body that never ends", Retried(""), |it| {
            let stream = it.request()?;
            it.good_head(stream)?;
            it.frame(DATA, NONE, stream, b"{\"UnprocessedTraceSegments\":[]}")?;
            it.hold()
        })
        .timeout(),
        Row::new("a head that never comes", Retried("no answer within 1 s"), |it| {
            it.request()?;
            it.hold()
        })
        .timeout(),
        Row::new("trailers", Accepted, |it| {
            let stream = it.request()?;
            let body = it.take_stream(stream);
            it.good_head(stream)?;
            it.frame(DATA, NONE, stream, body.as_bytes())?;
            it.frame(HEADERS, END_HEADERS | END_STREAM, stream, &header("x-trailer", b"v"))
        }),
        Row::new("trailers that do not end the stream", Retried(""), |it| {
            let stream = it.request()?;
            it.good_head(stream)?;
            it.frame(DATA, NONE, stream, b"{}")?;
            it.frame(HEADERS, END_HEADERS, stream, &header("x-trailer", b"v"))?;
            it.hold()
        })
        .timeout(),
        // The body is complete, so this does no harm.
        Row::new("trailers with :status", Accepted, |it| {
            let stream = it.request()?;
            let body = it.take_stream(stream);
            it.good_head(stream)?;
            it.frame(DATA, NONE, stream, body.as_bytes())?;
            it.frame(HEADERS, END_HEADERS | END_STREAM, stream, OK)
        }),
        Row::new("END_STREAM twice", Retried("has the answer 503"), |it| {
            let stream = it.request()?;
            let end = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("503", &[]));
            it.say(&end.repeat(2))?;
            it.close()
        })
        .forwards(Status(503)),
        Row::new("a second answer on the same stream", Accepted, |it| {
            let stream = it.request()?;
            it.answer(stream)?;
            it.frame(HEADERS, END_HEADERS, stream, &head("200", &[("a", SMUGGLED)]))?;
            it.frame(DATA, END_STREAM, stream, SMUGGLED.as_bytes())
        }),
        Row::new("an answer for the next stream, which has no request yet", Accepted, |it| {
            let stream = it.request()?;
            it.answer(stream)?;
            it.frame(HEADERS, END_HEADERS, stream + 2, &head("200", &[("a", SMUGGLED)]))?;
            it.frame(DATA, END_STREAM, stream + 2, SMUGGLED.as_bytes())?;
            it.hold()
        }),
        Row::new("a body in many small pieces with padding", Accepted, |it| {
            let stream = it.request()?;
            let body = it.take_stream(stream);
            it.good_head(stream)?;
            for byte in body.bytes() {
                it.frame(DATA, PADDED, stream, &[&[3, byte][..], &[0; 3]].concat())?;
            }
            it.frame(DATA, END_STREAM, stream, b"")
        }),
        Row::new("a head in pieces of one byte", Accepted, |it| {
            let stream = it.request()?;
            let body = it.take_stream(stream);
            it.frame(HEADERS, NONE, stream, &[])?;
            // The daemon takes a handful of CONTINUATION frames.
            for piece in head("200", &[ID]).chunks(16) {
                it.frame(CONTINUATION, NONE, stream, piece)?;
            }
            it.frame(CONTINUATION, END_HEADERS, stream, &[])?;
            it.frame(DATA, END_STREAM, stream, body.as_bytes())
        }),
    ]
}

/// Ends of the connection.
pub fn ends() -> Vec<Row> {
    let mut rows = Vec::new();
    type Step = fn(&mut Connection) -> Done;
    let ends: [(&str, Step); 3] = [
        ("closed in order", Connection::close),
        ("cut off", Connection::cut),
        ("reset", Connection::reset),
    ];
    for (name, end) in ends {
        let row =
            Row::new(format!("{name} before the preface is answered"), Retried(""), move |it| {
                it.read_frame()?;
                end(it)
            });
        rows.push(row);
        let row = Row::new(format!("{name} instead of an answer"), Retried(""), move |it| {
            it.request()?;
            end(it)
        });
        rows.push(row.on_open_connection());
        let row =
            Row::new(format!("{name} after the head of the answer"), Retried(""), move |it| {
                let stream = it.request()?;
                it.good_head(stream)?;
                end(it)
            });
        rows.push(row);
        let row =
            Row::new(format!("{name} within the body of the answer"), Retried(""), move |it| {
                let stream = it.request()?;
                it.good_head(stream)?;
                it.frame(DATA, NONE, stream, b"{\"UnprocessedTraceSegments\":[]}")?;
                end(it)
            });
        rows.push(row);
        let row = Row::new(format!("{name} within a frame"), Retried(""), move |it| {
            let stream = it.request()?;
            it.good_head(stream)?;
            it.say(&frame(DATA, END_STREAM, stream, b"{\"UnprocessedTraceSegments\":[]}")[..20])?;
            end(it)
        });
        rows.push(row);
        let row = Row::new(format!("{name} after the answer"), Either, move |it| {
            let stream = it.request()?;
            it.answer(stream)?;
            end(it)
        });
        rows.push(row);
    }
    rows
}
