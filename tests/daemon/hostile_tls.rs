//! Hostile services that send strange records of TLS, as a table. `hostile_rows.rs` checks each
//! row.

use super::hostile_peer::Done;
use super::hostile_records::Records;
use super::hostile_rows::Holds::{Either, Retried};
use super::hostile_rows::{Protocol, Row, run};
use rustls::ContentType;

#[test]
fn no_record_of_tls_costs_a_segment_or_stops_the_daemon() {
    run(records(), Protocol::Http1, 3);
    run(records_of_tls12(), Protocol::Tls12, 2);
}

/// A step of a row about TLS.
type Send = fn(&mut Records) -> Done;

/// Records that do not belong where they come, after a request.
fn records() -> Vec<Row> {
    let steps: [(&str, Send); 12] = [
        ("an alert that is no error", |it| it.alert(1, 90)),
        ("an alert of an internal error", |it| it.alert(2, 80)),
        ("an alert that is not defined", |it| it.alert(2, 213)),
        ("half an alert", |it| it.send(ContentType::Alert, &[2])),
        ("an empty alert", |it| it.send(ContentType::Alert, &[])),
        ("a record of an unknown type", |it| it.send(ContentType::Unknown(99), b"hello")),
        ("an empty handshake record", |it| it.send(ContentType::Handshake, &[])),
        ("a handshake message of an unknown type", |it| {
            it.send(ContentType::Handshake, &[99, 0, 0, 1, 0])
        }),
        ("a second ServerHello", |it| it.send(ContentType::Handshake, &[2, 0, 0, 2, 3, 3])),
        ("a handshake message of 16 MB", |it| {
            it.send(ContentType::Handshake, &[4, 255, 255, 255, 0])
        }),
        ("a record of more than 16 kB", |it| {
            it.send(ContentType::ApplicationData, &[b' '; 16_390])
        }),
        ("a change of the cipher", |it| it.send(ContentType::ChangeCipherSpec, &[1])),
    ];
    let steps = steps.map(|(name, step)| {
        Row::new(format!("TLS: {name}"), Either, move |it| {
            it.take_request()?;
            let mut records = it.records()?;
            step(&mut records)?;
            it.cut_outside()
        })
    });
    let floods: [(&str, u32, Send); 4] = [
        ("KeyUpdate", 3_000, |it| it.send(ContentType::Handshake, &[24, 0, 0, 1, 0])),
        ("KeyUpdate that ask for one", 3_000, |it| {
            it.send(ContentType::Handshake, &[24, 0, 0, 1, 1])
        }),
        ("empty records", 100_000, |it| it.send(ContentType::ApplicationData, &[])),
        ("alerts that are no errors", 3_000, |it| it.alert(1, 90)),
    ];
    let floods = floods.map(|(name, count, step)| {
        Row::new(format!("TLS: a flood of {name}"), Either, move |it| {
            it.take_request()?;
            let mut records = it.records()?;
            let _ = (0..count).try_for_each(|_| step(&mut records));
            it.cut_outside()
        })
    });
    let raw: [(&str, &[u8]); 6] = [
        ("garbage", b"\x17\x03\x03\x00\x20smuggledsmuggledsmuggledsmuggled"),
        ("an alert in plain text", b"\x15\x03\x03\x00\x02\x02\x28"),
        ("plain text", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
        ("zeros", &[0; 64]),
        ("a record of 64 kB", b"\x17\x03\x03\xff\xff"),
        ("half a record", b"\x17\x03\x03\x00\x20smug"),
    ];
    let late = raw.map(|(name, bytes)| {
        Row::new(format!("TLS: {name} instead of an answer"), Retried(""), move |it| {
            it.take_request()?;
            it.say_outside(bytes)?;
            it.cut()
        })
    });
    let early = raw.map(|(name, bytes)| {
        Row::new(format!("TLS: {name} instead of a handshake"), Retried(""), move |it| {
            it.say_outside(bytes)?;
            it.cut_outside()
        })
    });
    steps.into_iter().chain(floods).chain(late).chain(early).collect()
}

/// Records that only TLS 1.2 knows.
fn records_of_tls12() -> Vec<Row> {
    let renegotiate: Send = |it| it.send(ContentType::Handshake, &[0, 0, 0, 0]);
    vec![
        Row::new("TLS 1.2: a renegotiation", Either, move |it| {
            it.take_request()?;
            renegotiate(&mut it.records()?)?;
            it.cut_outside()
        }),
        Row::new("TLS 1.2: a flood of renegotiations", Either, move |it| {
            it.take_request()?;
            let mut records = it.records()?;
            let _ = (0..3_000).try_for_each(|_| renegotiate(&mut records));
            it.cut_outside()
        }),
        Row::new("TLS 1.2: a flood of alerts that are no errors", Either, move |it| {
            it.take_request()?;
            let mut records = it.records()?;
            let _ = (0..3_000).try_for_each(|_| records.alert(1, 90));
            it.cut_outside()
        }),
        Row::new("TLS 1.2: an alert that refuses a renegotiation", Either, move |it| {
            it.take_request()?;
            it.records()?.alert(1, 100)?;
            it.cut_outside()
        }),
    ]
}
