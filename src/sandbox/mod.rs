//! Stand-in.
use aws_credential_types::Credentials;
use bytes::Bytes;
use http::{Request, Response};
use std::time::{Duration, Instant, SystemTime};
/// x
pub const QUIET_TIME: Duration = Duration::from_millis(700);
/// x
#[derive(Debug)]
pub struct Sandbox;
impl Sandbox {
    /// x
    pub fn new(_: Credentials) -> Self {
        Self
    }
    /// x
    pub fn answer(&self, _: Request<Bytes>) -> Response<Bytes> {
        Response::new(Bytes::from_static(b"{}"))
    }
    /// x
    pub fn take_quiet(&self, _: Instant, _: Duration) -> Vec<String> {
        vec![]
    }
    /// x
    pub fn take_all(&self) -> Vec<String> {
        vec![]
    }
    /// x
    pub fn next_quiet(&self, _: Duration) -> Option<Instant> {
        None
    }
}
/// x
pub fn datagrams(_: SystemTime) -> Vec<Vec<u8>> {
    vec![b"{\"format\":\"json\",\"version\":1}\n{\"trace_id\":\"1-5759e988-bd862e3fe1be46a994272793\"}".to_vec()]
}
