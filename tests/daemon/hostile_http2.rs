//! Hostile services that speak HTTP/2, as a table. `hostile_rows.rs` checks each row.

#![allow(clippy::too_many_lines, reason = "these functions are tables")]

use super::hostile_frames::*;
use super::hostile_http2_answers::{bodies, broken, ends, heads, misplaced};
use super::hostile_peer::Connection;
use super::hostile_rows::Forwarded::{self, Skipped};
use super::hostile_rows::Holds::{Accepted, Either, Retried};
use super::hostile_rows::{Protocol, Row, run};

/// Bytes of a flood that the daemon should end. It is far more than the daemon may hold.
const FLOOD: usize = 16 * 1024 * 1024;

/// Bytes of a flood of frames that the daemon has to look at one by one. If it kept 64 bytes of
/// each, it would hold too much.
const FRAMES: usize = 2 * 1024 * 1024;

/// Bytes of a flood after which the service reads again.
const SHORT_FLOOD: usize = 64 * 1024;

/// The error codes of HTTP/2, and one that is not defined.
const CODES: [u32; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0xdead_beef];

#[test]
fn no_behaviour_of_a_service_over_http2_costs_a_segment_or_stops_the_daemon() {
    let rows = [
        goaways(),
        resets(),
        setting_rows(),
        windows(),
        floods(),
        misplaced(),
        broken(),
        heads(),
        bodies(),
        ends(),
    ];
    run(rows.into_iter().flatten().collect(), Protocol::Http2, 5);
}

fn goaways() -> Vec<Row> {
    let mut rows = vec![
        Row::new("GOAWAY before the request", Retried(""), |it| {
            it.begin(&[])?;
            it.goaway(0, NO_ERROR, b"")?;
            it.hold()
        }),
        Row::new("GOAWAY before SETTINGS", Retried(""), |it| {
            it.goaway(0, NO_ERROR, b"")?;
            it.hold()
        }),
        Row::new("GOAWAY three times in a row, on three connections", Retried(""), |it| {
            it.begin(&[])?;
            it.goaway(0, 11, b"calm down")?;
            it.close()
        })
        .times(3),
        Row::new("GOAWAY after the head of the request", Retried(""), |it| {
            it.request_head()?;
            it.goaway(0, NO_ERROR, b"")?;
            it.hold()
        }),
        Row::new("GOAWAY that includes the request, and no answer", Retried(""), |it| {
            let stream = it.request()?;
            it.goaway(stream, NO_ERROR, b"")?;
            it.close()
        }),
        Row::new("GOAWAY that includes the request, and the answer", Accepted, |it| {
            let stream = it.request()?;
            it.goaway(stream, NO_ERROR, b"")?;
            it.answer(stream)?;
            it.close()
        }),
        Row::new("GOAWAY for the largest stream, and the answer", Accepted, |it| {
            let stream = it.request()?;
            it.goaway(MOST, NO_ERROR, b"")?;
            it.answer(stream)?;
            it.goaway(stream, NO_ERROR, b"")?;
            it.close()
        }),
        Row::new("GOAWAY twice, the second for a later stream", Either, |it| {
            let stream = it.request()?;
            it.goaway(stream, NO_ERROR, b"")?;
            it.goaway(stream + 2, NO_ERROR, b"")?;
            it.answer(stream)?;
            it.close()
        }),
        Row::new("GOAWAY after the head of the answer", Retried(""), |it| {
            let stream = it.request()?;
            it.good_head(stream)?;
            it.goaway(0, NO_ERROR, b"")?;
            it.close()
        }),
        Row::new("GOAWAY within the body of the answer", Retried(""), |it| {
            let stream = it.request()?;
            it.good_head(stream)?;
            it.frame(DATA, NONE, stream, b"{\"Unprocessed")?;
            it.goaway(stream, 2, b"")?;
            it.close()
        }),
        Row::new("GOAWAY with 16 kB of debug data", Retried(""), |it| {
            it.request()?;
            it.goaway(0, 2, &[b'x'; 16_000])?;
            it.hold()
        }),
        Row::new("GOAWAY with debug data of control characters", Retried(""), |it| {
            it.request()?;
            it.goaway(0, 2, b"\x1b[31m\n2026-01-01T00:00:00Z [Error] forged\n\0\xff")?;
            it.hold()
        }),
        Row::new("GOAWAY on a stream", Retried(""), |it| {
            let stream = it.request()?;
            it.frame(GOAWAY, NONE, stream, &goaway(0, 0, b""))?;
            it.hold()
        }),
        Row::new("GOAWAY that is too short", Retried(""), |it| {
            it.request()?;
            it.frame(GOAWAY, NONE, 0, &[0; 4])?;
            it.hold()
        }),
        Row::new("GOAWAY that takes some of five calls", Either, |it| {
            let streams = requests(it, 5)?;
            it.goaway(streams[1], NO_ERROR, b"")?;
            it.answer(streams[1])?;
            it.answer(streams[0])?;
            it.close()
        })
        .calls_at_once(5),
        Row::new("GOAWAY at each new connection while five calls wait", Either, |it| {
            requests(it, 5)?;
            it.goaway(0, NO_ERROR, b"")?;
            it.close()
        })
        .calls_at_once(5),
        Row::new("GOAWAY on an open connection at its next request", Retried(""), |it| {
            it.request()?;
            it.goaway(0, NO_ERROR, b"")?;
            it.close()
        })
        .on_open_connection(),
    ];
    rows.extend(CODES.map(|code| {
        Row::new(format!("GOAWAY with the code {code}"), Retried(""), move |it| {
            let stream = it.request()?;
            it.goaway(stream, code, b"because")?;
            it.close()
        })
        .forwards(for_code(code))
    }));
    rows
}

/// Waits for this many whole requests.
fn requests(it: &mut Connection, count: usize) -> std::io::Result<Vec<u32>> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(it.request()?);
    }
    Ok(streams)
}

fn resets() -> Vec<Row> {
    let mut rows = vec![
        Row::new("RST_STREAM after the good answer", Accepted, |it| {
            let stream = it.request()?;
            it.answer(stream)?;
            it.reset_stream(stream, NO_ERROR)
        }),
        Row::new("a stream that depends on itself", Retried(""), |it| {
            let stream = it.request()?;
            it.frame(PRIORITY, NONE, stream, &[&stream.to_be_bytes()[..], &[0]].concat())
        }),
        Row::new("RST_STREAM twice", Retried(""), |it| {
            let stream = it.request()?;
            it.reset_stream(stream, 8)?;
            it.reset_stream(stream, 8)
        }),
        Row::new("RST_STREAM of a stream that was never opened", Retried(""), |it| {
            let stream = it.request()?;
            it.reset_stream(stream + 100, 8)?;
            it.hold()
        }),
        Row::new("RST_STREAM of the connection", Retried(""), |it| {
            it.request()?;
            it.reset_stream(0, 8)?;
            it.hold()
        }),
        Row::new("RST_STREAM of an even stream", Retried(""), |it| {
            it.request()?;
            it.reset_stream(2, 8)?;
            it.hold()
        }),
        Row::new("RST_STREAM that is too short", Retried(""), |it| {
            let stream = it.request()?;
            it.frame(RST_STREAM, NONE, stream, &[0, 0])?;
            it.hold()
        }),
        Row::new("RST_STREAM after the head of the request", Retried(""), |it| {
            let stream = it.request_head()?;
            it.reset_stream(stream, REFUSED_STREAM)
        }),
        Row::new("REFUSED_STREAM three times in a row", Retried(""), |it| {
            let stream = it.request()?;
            it.reset_stream(stream, REFUSED_STREAM)
        })
        .times(3),
        Row::new("REFUSED_STREAM for two of five calls", Either, |it| {
            let streams = requests(it, 5)?;
            for (index, stream) in streams.into_iter().enumerate() {
                match index {
                    0 | 3 => it.reset_stream(stream, REFUSED_STREAM)?,
                    _ => it.answer(stream)?,
                }
            }
            Ok(())
        })
        .calls_at_once(5),
        Row::new("REFUSED_STREAM on an open connection", Retried(""), |it| {
            let stream = it.request()?;
            it.reset_stream(stream, REFUSED_STREAM)
        })
        .on_open_connection(),
        Row::new("an answer after RST_STREAM", Retried(""), |it| {
            let stream = it.request()?;
            it.reset_stream(stream, 8)?;
            it.good_head(stream)?;
            it.frame(DATA, END_STREAM, stream, b"{}")
        }),
    ];
    for code in CODES {
        let row = Row::new(format!("RST_STREAM {code}, no answer"), Retried(""), move |it| {
            let stream = it.request()?;
            it.reset_stream(stream, code)
        });
        rows.push(row.forwards(for_code(code)));
        let name = format!("RST_STREAM {code} within the body of the answer");
        let row = Row::new(name, Retried("the answer could not be read"), move |it| {
            let stream = it.request()?;
            it.good_head(stream)?;
            it.frame(DATA, NONE, stream, b"{\"Unprocessed")?;
            it.reset_stream(stream, code)
        });
        rows.push(row.forwards(for_code(code)));
    }
    rows
}

/// Returns what a client gets in the rows for an error code. The codes differ for the daemon only
/// where some of them could mean that nothing went wrong.
fn for_code(code: u32) -> Forwarded {
    if [0, 7, 8].contains(&code) { Forwarded::AsUpload } else { Skipped }
}

fn setting_rows() -> Vec<Row> {
    // Settings that do not keep a request from being sent.
    let harmless: [(&str, Vec<(u16, u32)>); 11] = [
        ("push by a server", vec![(ENABLE_PUSH, 1)]),
        ("the largest window", vec![(INITIAL_WINDOW_SIZE, MOST)]),
        ("one stream at a time", vec![(MAX_CONCURRENT_STREAMS, 1)]),
        ("no table of headers", vec![(HEADER_TABLE_SIZE, 0)]),
        ("a huge table of headers", vec![(HEADER_TABLE_SIZE, u32::MAX)]),
        ("the largest frame", vec![(MAX_FRAME_SIZE, 0xff_ffff)]),
        ("a list of headers of 1 byte", vec![(MAX_HEADER_LIST_SIZE, 1)]),
        ("an unknown parameter", vec![(0x7777, 7)]),
        ("GREASE", vec![(0x0a0a, 1), (0x1a1a, u32::MAX)]),
        ("the same parameter a thousand times", vec![(MAX_CONCURRENT_STREAMS, 100); 1_000]),
        ("CONNECT of RFC 8441", vec![(ENABLE_CONNECT, 1)]),
    ];
    let harmless = harmless.into_iter().map(|(name, parameters)| {
        Row::new(format!("SETTINGS: {name}"), Accepted, move |it| {
            it.begin(&parameters)?;
            let stream = it.request()?;
            it.wait_for_confirmation()?;
            it.answer(stream)
        })
    });
    let illegal = [
        ("a window of 2^31", INITIAL_WINDOW_SIZE, 0x8000_0000),
        ("the largest window of 32 bits", INITIAL_WINDOW_SIZE, u32::MAX),
        ("a frame of 0 bytes", MAX_FRAME_SIZE, 0),
        ("a frame of 16,383 bytes", MAX_FRAME_SIZE, 16_383),
        ("a frame of 2^24 bytes", MAX_FRAME_SIZE, 1 << 24),
        ("push with the value 2", ENABLE_PUSH, 2),
        ("CONNECT with the value 2", ENABLE_CONNECT, 2),
    ];
    let illegal = illegal.map(|(name, id, value)| {
        Row::new(format!("SETTINGS: {name}"), Retried(""), move |it| {
            it.begin(&[(id, value)])?;
            it.hold()
        })
        .forwards(Skipped)
    });
    let shapes: [(&str, u8, u32, &[u8]); 4] = [
        ("on a stream", NONE, 1, &[]),
        ("that is too short", NONE, 0, &[0, 4, 0]),
        ("confirmed with a payload", ACK, 0, &[0, 4, 0, 0, 0, 0]),
        ("confirmed that were never sent", ACK, 0, &[]),
    ];
    let shapes = shapes.map(|(name, flags, stream, payload)| {
        Row::new(format!("SETTINGS {name}"), Retried(""), move |it| {
            it.begin(&[])?;
            it.wait_for_confirmation()?;
            it.frame(SETTINGS, flags, stream, payload)?;
            it.hold()
        })
    });
    let none = Row::new("no stream at a time", Either, |it| {
        it.begin(&[(MAX_CONCURRENT_STREAMS, 0)])?;
        it.wait_for_confirmation()?;
        it.hold()
    })
    .timeout();
    let never = Row::new("no SETTINGS at all", Retried(""), |it| {
        it.is_begun = true;
        it.request()?;
        it.hold()
    })
    .timeout();
    let later = Row::new("no SETTINGS before the answer", Either, |it| {
        it.is_begun = true;
        let stream = it.request()?;
        it.answer(stream)?;
        it.begin(&[])
    });
    harmless.chain(illegal).chain(shapes).chain([none, never, later]).collect()
}

fn windows() -> Vec<Row> {
    vec![
        Row::new("a window of 0 for ever", Either, |it| {
            it.begin(&[(INITIAL_WINDOW_SIZE, 0)])?;
            it.starved_request()?;
            it.hold()
        })
        .timeout()
        .forwards(Skipped),
        Row::new("a window of 0, then all of it", Accepted, |it| {
            it.begin(&[(INITIAL_WINDOW_SIZE, 0)])?;
            let stream = it.starved_request()?;
            it.frame(WINDOW_UPDATE, NONE, stream, &100_000_u32.to_be_bytes())?;
            let stream = it.request()?;
            it.answer(stream)?;
            it.begin(&[(INITIAL_WINDOW_SIZE, 65_535)])
        })
        .forwards(Skipped),
        Row::new("a window of 1 byte at a time", Accepted, |it| {
            it.begin(&[(INITIAL_WINDOW_SIZE, 1)])?;
            let stream = it.starved_request()?;
            for _ in 0..300 {
                it.frame(WINDOW_UPDATE, NONE, stream, &1_u32.to_be_bytes())?;
                it.read_frame()?;
            }
            it.frame(WINDOW_UPDATE, NONE, stream, &100_000_u32.to_be_bytes())?;
            let stream = it.request()?;
            it.answer(stream)?;
            it.begin(&[(INITIAL_WINDOW_SIZE, 65_535)])
        })
        .forwards(Skipped),
        Row::new("a window that shrinks below 0 and grows again", Accepted, |it| {
            it.begin(&[(INITIAL_WINDOW_SIZE, 1_000)])?;
            let stream = it.starved_request()?;
            it.begin(&[(INITIAL_WINDOW_SIZE, 0)])?;
            it.begin(&[(INITIAL_WINDOW_SIZE, 65_535)])?;
            let whole = it.request()?;
            assert_eq!(whole, stream);
            it.answer(stream)
        })
        .forwards(Skipped),
        Row::new("an answer before the body of the request", Retried("the answer 503"), |it| {
            it.begin(&[(INITIAL_WINDOW_SIZE, 0)])?;
            let stream = it.starved_request()?;
            it.frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("503", &[ID]))?;
            it.reset_stream(stream, NO_ERROR)?;
            it.begin(&[(INITIAL_WINDOW_SIZE, 65_535)])
        })
        .forwards(Skipped),
        Row::new("WINDOW_UPDATE of 0 for the connection", Retried(""), |it| {
            it.request()?;
            it.frame(WINDOW_UPDATE, NONE, 0, &[0; 4])?;
            it.hold()
        }),
        Row::new("WINDOW_UPDATE of 0 for the stream", Retried(""), |it| {
            let stream = it.request()?;
            it.frame(WINDOW_UPDATE, NONE, stream, &[0; 4])?;
            it.hold()
        }),
        Row::new("WINDOW_UPDATE beyond the largest window of the connection", Retried(""), |it| {
            it.request()?;
            it.frame(WINDOW_UPDATE, NONE, 0, &MOST.to_be_bytes())?;
            it.hold()
        }),
        Row::new("WINDOW_UPDATE beyond the largest window of the stream", Retried("flow"), |it| {
            it.begin(&[(INITIAL_WINDOW_SIZE, 0)])?;
            let stream = it.starved_request()?;
            // In one write, so that the client cannot use the first before the second.
            it.say(&frame(WINDOW_UPDATE, NONE, stream, &MOST.to_be_bytes()).repeat(2))?;
            it.hold()
        })
        .forwards(Skipped),
        Row::new("WINDOW_UPDATE for a stream that was never opened", Retried(""), |it| {
            let stream = it.request()?;
            it.frame(WINDOW_UPDATE, NONE, stream + 100, &[0, 0, 0, 1])?;
            it.hold()
        }),
        Row::new("WINDOW_UPDATE that is too short", Retried(""), |it| {
            it.request()?;
            it.frame(WINDOW_UPDATE, NONE, 0, &[1])?;
            it.hold()
        }),
        Row::new("SETTINGS that make the window of a stream too large", Retried(""), |it| {
            it.begin(&[(INITIAL_WINDOW_SIZE, 0)])?;
            let stream = it.starved_request()?;
            it.frame(WINDOW_UPDATE, NONE, stream, &[0, 0, 0, 1])?;
            it.begin(&[(INITIAL_WINDOW_SIZE, MOST)])?;
            it.hold()
        })
        .forwards(Skipped),
        Row::new("more of an answer than the window of the daemon has", Retried(""), |it| {
            let stream = it.request()?;
            it.frame(HEADERS, END_HEADERS, stream, &head("503", &[ID]))?;
            it.flood(&frame(DATA, NONE, stream, &[b' '; 16_384]), FLOOD)?;
            it.hold()
        })
        .timeout(),
    ]
}

fn floods() -> Vec<Row> {
    let stalls: Vec<(&str, Vec<u8>)> = vec![
        ("PING", frame(PING, NONE, 0, &[1; 8])),
        ("PING that confirm none", frame(PING, ACK, 0, &[1; 8])),
        ("SETTINGS", frame(SETTINGS, NONE, 0, &[])),
        ("SETTINGS of changing windows", {
            let windows = [1, 100_000].map(|size| settings(&[(INITIAL_WINDOW_SIZE, size)]));
            windows.map(|payload| frame(SETTINGS, NONE, 0, &payload)).concat()
        }),
        ("PRIORITY", frame(PRIORITY, NONE, 1, &[0, 0, 0, 0, 16])),
        ("PRIORITY of other streams", frame(PRIORITY, NONE, 999, &[0, 0, 0, 0, 16])),
        ("frames of an unknown type", frame(0xfa, 0xff, 1, &[7; 64])),
        ("empty frames of an unknown type", frame(0xfa, 0xff, 0, &[])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, NONE, 0, &[0, 0, 0, 1])),
        ("WINDOW_UPDATE of the stream", frame(WINDOW_UPDATE, NONE, 1, &[0, 0, 0, 1])),
        ("RST_STREAM", frame(RST_STREAM, NONE, 1, &[0, 0, 0, 8])),
        ("GOAWAY", frame(GOAWAY, NONE, 0, &goaway(MOST, 0, b""))),
        ("heads of 1xx", frame(HEADERS, END_HEADERS, 1, &head("103", &[("link", "x")]))),
    ];
    let mut rows = Vec::new();
    for (name, bytes) in stalls {
        let (many, unread) = (bytes.clone(), bytes);
        rows.push(
            Row::new(format!("a flood of {name}, read"), Either, move |it| {
                it.request()?;
                it.flood(&many, SHORT_FLOOD)?;
                it.hold()
            })
            .timeout()
            .forwards(Skipped),
        );
        rows.push(
            Row::new(format!("a flood of {name} without an end"), Either, move |it| {
                it.request()?;
                it.flood(&unread, FRAMES)?;
                it.hold_unread()
            })
            .timeout()
            .forwards(Skipped),
        );
    }
    let continuation = frame(CONTINUATION, NONE, 1, &header("x", &[b'x'; 1_000]));
    let empty_continuation = frame(CONTINUATION, NONE, 1, &[]);
    let empty_data = frame(DATA, NONE, 1, &[]);
    let padding = frame(DATA, PADDED, 1, &[&[255][..], &[0; 255]].concat());
    let one_byte = frame(DATA, NONE, 1, b" ");
    for (name, first, bytes) in [
        ("CONTINUATION", frame(HEADERS, NONE, 1, OK), continuation),
        ("empty CONTINUATION", frame(HEADERS, NONE, 1, OK), empty_continuation),
        ("empty DATA", frame(HEADERS, END_HEADERS, 1, &head("200", &[ID])), empty_data),
        ("DATA of padding", frame(HEADERS, END_HEADERS, 1, &head("200", &[ID])), padding),
        ("DATA of one byte", frame(HEADERS, END_HEADERS, 1, &head("200", &[ID])), one_byte),
    ] {
        rows.push(
            Row::new(format!("a flood of {name} without an end"), Either, move |it| {
                it.request()?;
                it.say(&first)?;
                it.flood(&bytes, FLOOD)?;
                it.hold_unread()
            })
            .timeout()
            .forwards(Forwarded::Either),
        );
    }
    for (name, bytes) in [
        ("PING", frame(PING, NONE, 0, &[1; 8])),
        ("SETTINGS", frame(SETTINGS, NONE, 0, &[])),
        ("heads of 1xx", frame(HEADERS, END_HEADERS, 1, &head("102", &[]))),
        ("PRIORITY", frame(PRIORITY, NONE, 1, &[0, 0, 0, 0, 16])),
        ("frames of an unknown type", frame(0xfa, 0xff, 1, &[7; 64])),
    ] {
        rows.push(Row::new(format!("a hundred {name}, then the answer"), Accepted, move |it| {
            let stream = it.request()?;
            it.say(&bytes.repeat(100))?;
            it.answer(stream)
        }));
    }
    rows
}
