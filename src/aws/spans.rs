//! X-Ray's endpoint for spans of OpenTelemetry, as a [`Service`] for the sender of spans.
//!
//! In: the body of an `ExportTraceServiceRequest` in pieces. Out: a signed request, compressed if
//! the operator wants that, and the classified answer. Bound: a compressed body is memory outside
//! of the pool while its call lasts, a tenth of the body as a rule. Thread: `upload-spans`, which
//! compresses too.
//!
//! A body is compressed for each call and not once, because a refused body is divided, and because
//! retries are rare.

use super::{CallFuture, Media, RequestBody, Route, Service, Signer, StartError, call};
use crate::base::clock::Clock;
use bytes::Bytes;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use std::io::Write as _;
use std::pin::Pin;
use std::time::SystemTime;

/// The operation of X-Ray that gets the spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpansTo {
    /// X-Ray's endpoint for OpenTelemetry, `/v1/traces`.
    #[default]
    Endpoint,
    /// `PutTraceSegments`, with documents as the UDP exporters of AWS write them.
    Segments,
}

/// Whether bodies are compressed on the way to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// gzip, at the level that takes the least time.
    #[default]
    Gzip,
    /// No compression.
    None,
}

/// The way to the endpoint for spans.
#[derive(Debug)]
pub struct SpanRoute {
    route: Route,
    protobuf: Signer,
    json: Signer,
    compression: Compression,
}

impl SpanRoute {
    /// Returns the way to the endpoint for spans of the service that `route` leads to.
    pub fn new(route: Route, compression: Compression) -> Self {
        let is_gzip = compression == Compression::Gzip;
        Self {
            protobuf: route.signer.for_spans(Media::SpansProtobuf, is_gzip),
            json: route.signer.for_spans(Media::SpansJson, is_gzip),
            route,
            compression,
        }
    }
}

impl Service for SpanRoute {
    fn is_ready(&self) -> bool {
        self.route.is_ready()
    }

    fn address(&self) -> String {
        self.route.address()
    }

    fn credentials_changed(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.route.credentials_changed()
    }

    /// The hash is that of the body before compression, or all zeros. It is not used.
    fn call(&self, body: RequestBody, _body_sha256: &[u8; 32]) -> Result<CallFuture, StartError> {
        let credentials = self.route.identity.credentials().ok_or(StartError::NoCredentials)?;
        let media = body.media();
        let signer = if media == Media::SpansJson { &self.json } else { &self.protobuf };
        let body = match self.compression {
            Compression::Gzip => RequestBody::from(gzip(body.pieces())).of(media),
            Compression::None => body,
        };
        let mut sha256 = Sha256::new();
        body.pieces().iter().for_each(|piece| sha256.update(piece));
        let signed_at = signer.time(Clock::host_date());
        let request = signer.sign(body, &sha256.finalize().into(), &credentials, signed_at)?;
        let client = self.route.client.clone();
        Ok(Box::pin(async move { call(&client, request, signed_at).await }))
    }

    fn renew_credentials(&self) {
        self.route.renew_credentials();
    }

    fn set_time(&self, service_time: SystemTime) {
        self.route.set_time(service_time);
    }

    fn forget_connections(&mut self) {
        self.route.forget_connections();
    }
}

/// Compresses a body.
fn gzip(pieces: &[Bytes]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    let written = pieces.iter().try_for_each(|piece| encoder.write_all(piece));
    let finished = written.and_then(|()| encoder.finish());
    finished.expect("writing to memory does not fail").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::io::Read as _;

    #[test]
    fn a_compressed_body_is_the_same_body() {
        let pieces = [Bytes::from(vec![7; 100_000]), Bytes::from_static(b"end")];
        let compressed = gzip(&pieces);
        assert!(compressed.len() < 1_000);
        let mut body = Vec::new();
        GzDecoder::new(&compressed[..]).read_to_end(&mut body).unwrap();
        assert_eq!(body, pieces.concat());
    }
}
