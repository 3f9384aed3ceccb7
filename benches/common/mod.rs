//! Documents of a given size for the benchmarks, in the form that SDKs write.

#![allow(dead_code, missing_docs, reason = "each benchmark uses only a part")]

/// The header line that most SDKs send.
pub const HEADER: &[u8] = b"{\"format\":\"json\",\"version\":1}\n";

/// Number of different documents. They fill ten batches of 50 and fit into the second-level cache.
pub const DOCUMENT_COUNT: usize = 500;

/// Returns segments of a web application, `length` bytes each, ten in a trace.
pub fn documents(length: usize) -> Vec<Vec<u8>> {
    (0..DOCUMENT_COUNT).map(|index| document(index, length)).collect()
}

/// Returns the documents of [`documents`] as datagrams: the header line, then the document.
pub fn datagrams(length: usize) -> Vec<Vec<u8>> {
    documents(length).iter().map(|document| [HEADER, document].concat()).collect()
}

fn document(index: usize, length: usize) -> Vec<u8> {
    let trace = index / 10;
    let mut text = format!(
        concat!(
            r#"{{"name":"shop.example","id":"{:016x}","trace_id":"1-67a1b2c3-{:024x}","#,
            r#""start_time":1795354918.123,"end_time":1795354918.456,"in_progress":false,"#,
            r#""http":{{"request":{{"method":"GET","url":"https://shop.example/cart/{}","#,
            r#""user_agent":"Mozilla/5.0 (X11; Linux x86_64)","client_ip":"192.0.2.7"}},"#,
            r#""response":{{"status":200,"content_length":5120}}}},"#,
            r#""aws":{{"xray":{{"sdk":"X-Ray for Python","sdk_version":"2.15.0"}}}},"#,
            r#""subsegments":[{{"id":"{:016x}","name":"inventory","start_time":1795354918.2,"#,
            r#""end_time":1795354918.3,"namespace":"remote","sql":{{"sanitized_query":"#,
            r#""SELECT * FROM items WHERE id = \"?\"","database_type":"PostgreSQL"}}}}],"#,
            r#""annotations":{{"tenant":"t{}","cold":true}},"metadata":{{"default":{{"note":""#
        ),
        index,
        trace,
        index,
        index + 1_000_000,
        index % 7
    )
    .into_bytes();
    const END: &[u8] = br#""}}}"#;
    assert!(text.len() + END.len() <= length, "a document has at least {} bytes", text.len());
    text.resize(length - END.len(), b'n');
    text.extend_from_slice(END);
    text
}
