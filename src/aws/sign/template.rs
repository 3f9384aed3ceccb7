//! Signs requests from a template. The requests of one day differ only in their time and body.
//!
//! In: the first request of a day, signed by the crate `aws-sigv4`. Out: later requests, with the
//! same headers and a new signature. The constant parts are computed once: the signing key of the
//! day, the text of the canonical request, and the headers. Signing with the template takes a
//! quarter of the time that `aws-sigv4` takes. Thread: the caller's. No I/O, no clock.

use super::{SERVICE, timestamp};
use crate::aws::RequestBody;
use aws_credential_types::Credentials;
use aws_sigv4::sign::v4;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use sha2::{Digest, Sha256};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) const DATE: HeaderName = HeaderName::from_static("x-amz-date");
pub(super) const TIMESTAMP: HeaderName = HeaderName::from_static("x-amzn-xray-timestamp");

/// Name of the signature algorithm (AWS Signature Version 4). The `Authorization` header and the
/// text that is signed begin with it.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The constant parts of all requests of one day (UTC) that are signed with the same credentials.
pub(super) struct Template {
    day_number: u64,
    credentials: Credentials,
    uri: Uri,
    /// Headers of the first request. In each later request, the values of date, timestamp and
    /// `Authorization` are replaced.
    headers: HeaderMap,
    /// The constant text of the canonical request, in three parts: before the date, between date
    /// and timestamp, and between timestamp and the hash of the body.
    canonical: [String; 3],
    /// Credential scope, for example `20260131/REGION/xray/aws4_request`.
    scope: String,
    /// Value of the `Authorization` header without the signature, which stands at its end.
    authorization: String,
    /// Signing key for the day, the region and the service.
    key: Vec<u8>,
}

/// `Debug` shows only the scope, because other fields contain the session token and the key.
impl fmt::Debug for Template {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Template").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Template {
    /// Returns a template made from the signed `request`. The other arguments are the values that
    /// it was signed with.
    ///
    /// Returns `None` if the template would not give the same signature as `request` has. This
    /// happens for addresses with escaped characters, because `aws-sigv4` escapes them again.
    pub(super) fn of<B>(
        request: &Request<B>,
        body_sha256: &[u8; 32],
        (credentials, region): (&Credentials, &str),
        now: SystemTime,
    ) -> Option<Self> {
        let headers = request.headers();
        let authorization = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (authorization, signature) = authorization.split_at(authorization.rfind('=')? + 1);
        let credential = format!("{ALGORITHM} Credential={}/", credentials.access_key_id());
        let (scope, names) =
            authorization.strip_prefix(&credential)?.split_once(", SignedHeaders=")?;
        let (names, _) = names.split_once(", ")?;
        let secret = credentials.secret_access_key();
        let template = Self {
            day_number: day_number(now),
            credentials: credentials.clone(),
            uri: request.uri().clone(),
            headers: headers.clone(),
            canonical: canonical(request, names)?,
            scope: scope.to_owned(),
            authorization: authorization.to_owned(),
            key: v4::generate_signing_key(secret, now, region, SERVICE).as_ref().to_vec(),
        };
        let time = template.date(now);
        let is_same = headers.get(DATE)? == time.as_str()
            && template.signature(&time, &timestamp(now), body_sha256) == signature;
        is_same.then_some(template)
    }

    /// Returns whether the template was made with `credentials` and on the day of `now` (UTC).
    pub(super) fn is_for(&self, credentials: &Credentials, now: SystemTime) -> bool {
        self.day_number == day_number(now) && self.credentials == *credentials
    }

    /// Returns a request with `body`, signed with the time `now`. `body_sha256` is the SHA-256 of
    /// `body`.
    pub(super) fn request(
        &self,
        body: RequestBody,
        body_sha256: &[u8; 32],
        now: SystemTime,
    ) -> Request<RequestBody> {
        let (date, timestamp) = (self.date(now), timestamp(now));
        let signature = self.signature(&date, &timestamp, body_sha256);
        let mut headers = self.headers.clone();
        headers.insert(TIMESTAMP, value(timestamp));
        headers.insert(DATE, value(date));
        let mut authorization = value([&*self.authorization, &signature].concat());
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request
    }

    fn signature(&self, date: &str, timestamp: &str, body_sha256: &[u8; 32]) -> String {
        let [start, middle, end] = &self.canonical;
        let mut canonical = Sha256::new();
        for part in [start, date, middle, timestamp, end] {
            canonical.update(part);
        }
        canonical.update(hex(body_sha256));
        let canonical = hex(&canonical.finalize().into());
        let signed = [ALGORITHM, "\n", date, "\n", &self.scope, "\n"].map(str::as_bytes);
        v4::calculate_signature(&self.key, &[signed.concat(), canonical.to_vec()].concat())
    }

    /// Returns `now` in the form `20260131T235959Z`. The day comes from the credential scope.
    fn date(&self, now: SystemTime) -> String {
        let day = self.scope.split('/').next().unwrap_or_default();
        let seconds = since_epoch(now).as_secs() % DAY.as_secs();
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        format!("{day}T{hours:02}{minutes:02}{seconds:02}Z")
    }
}

/// Returns the constant parts of the canonical request (see [`Template::canonical`]). A canonical
/// request is the method, the path, the signed headers `names` with their values, the names again,
/// and the hash of the body.
fn canonical<B>(request: &Request<B>, names: &str) -> Option<[String; 3]> {
    let mut parts = Vec::new();
    let mut text = format!("{}\n{}\n\n", request.method(), request.uri().path());
    for name in names.split(';') {
        text.extend([name, ":"]);
        if [DATE, TIMESTAMP].iter().any(|changing| changing == name) {
            parts.push(std::mem::take(&mut text));
        } else if name == HOST.as_str() {
            text += request.uri().authority()?.as_str();
        } else {
            text += request.headers().get(name)?.to_str().ok()?;
        }
        text += "\n";
    }
    text.extend(["\n", names, "\n"]);
    parts.push(text);
    parts.try_into().ok()
}

fn hex(sha256: &[u8; 32]) -> [u8; 64] {
    let mut text = [0; 64];
    hex::encode_to_slice(sha256, &mut text).expect("there are two digits for each byte");
    text
}

fn since_epoch(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn day_number(now: SystemTime) -> u64 {
    since_epoch(now).as_secs() / DAY.as_secs()
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("the first request had this value with other digits")
}
