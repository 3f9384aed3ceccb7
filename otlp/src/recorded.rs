//! Bodies and datagrams of real exporters, for tests.
//!
//! In: the files in `tests/otlp` and `tests/segments`. Out: the bodies, inflated, and the protobuf
//! in the datagrams.

use crate::{Encoding, coding, datagram};
use bytes::Bytes;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// Returns the files of a folder of `tests`, by name.
fn recorded(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().into(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Returns the bodies of the OTLP exporters over HTTP, inflated.
pub fn bodies() -> Vec<(String, Encoding, Bytes)> {
    static BODIES: LazyLock<Vec<(String, Encoding, Bytes)>> = LazyLock::new(inflated);
    BODIES.clone()
}

fn inflated() -> Vec<(String, Encoding, Bytes)> {
    let of_file = |(name, body): (String, Vec<u8>)| {
        let encoding = if name.contains("-json") { Encoding::Json } else { Encoding::Protobuf };
        let coding = ["gzip", "deflate"].into_iter().find(|coding| name.ends_with(coding));
        let (coding, mut buffer) = (coding.map(str::as_bytes), Vec::new());
        let body = coding::decode(coding, &body, 1 << 20, &mut buffer).unwrap();
        (name, encoding, Bytes::copy_from_slice(body))
    };
    recorded("otlp").into_iter().map(of_file).collect()
}

/// Returns the protobuf in the datagrams of AWS's UDP exporters.
pub fn datagrams() -> Vec<(String, Vec<u8>)> {
    let of_file = |(name, datagram): (String, Vec<u8>)| {
        let text = String::from_utf8(datagram).ok()?;
        let (form, base64) = datagram::form(text.split_once('\n')?.1)?;
        // One of them was written by hand and only has the prefix of a span.
        (form != datagram::Form::Metrics && name != "otlp-lambda-01")
            .then(|| (name, datagram::decode(base64).unwrap()))
    };
    recorded("segments").into_iter().filter_map(of_file).collect()
}
