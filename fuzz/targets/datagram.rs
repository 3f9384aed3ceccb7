//! Fuzzes the path of a datagram: parse, pack, put into a request body, and read the body back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;
use xrayd::base::memory::ChunkPool;
use xrayd::pipeline::batch::Batcher;
use xrayd::pipeline::ring::{Producer, Rings};
use xrayd::pipeline::segment::Parser;

struct Flow {
    parser: Parser,
    producer: Producer,
    rings: Rings,
    batcher: Batcher,
}

thread_local! {
    static FLOW: RefCell<Flow> = RefCell::new({
        let pool = ChunkPool::new(256, 64);
        let mut rings = Rings::new(Arc::clone(&pool), 16);
        let producer = rings.add();
        let batcher = Batcher::new(pool, 1 << 20, 1);
        Flow { parser: Parser::default(), producer, rings, batcher }
    });
}

fuzz_target!(|datagram: &[u8]| {
    // The largest datagram that UDP over IPv4 can carry.
    let datagram = &datagram[..datagram.len().min(65_507)];
    FLOW.with_borrow_mut(|flow| check(flow, datagram));
});

fn check(flow: &mut Flow, datagram: &[u8]) {
    let Ok(segment) = flow.parser.parse(datagram) else { return };
    assert!(!segment.document.is_empty() && datagram.ends_with(segment.document));
    let fields = segment.fields;
    for span in [fields.trace_id, fields.id] {
        assert!(usize::from(span.offset) + usize::from(span.length) <= segment.document.len());
    }
    let now = Instant::now();
    let mut drain = flow.producer.begin(now);
    assert_eq!(drain.push(&segment).dropped_count, 0);
    drain.commit();
    let entry = flow.rings.pop().expect("a segment was just pushed");
    for packed in entry.segments() {
        assert_eq!(packed.fields, fields);
        flow.batcher.add(&packed, now, now).expect("the pool has memory");
    }
    flow.batcher.finish_all(now);
    let batch = flow.batcher.pop().expect("the batch has a document");
    let body: serde_json::Value =
        serde_json::from_slice(&batch.body.concat()).expect("the body is JSON");
    let expected = String::from_utf8_lossy(segment.document);
    assert_eq!(body["TraceSegmentDocuments"], serde_json::json!([expected]));
}
