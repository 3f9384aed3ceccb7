//! Signs the requests of one day from a template, because they differ only in time and body.
//!
//! In: the first request of a day, signed by aws-sigv4. Out: later requests, with the same headers
//! and a new signature. The constant parts are computed once: the signing key of the day, the text
//! of the canonical request, and the headers. There is one request for every fifty segments, and
//! signing with the template takes a quarter of the time. Thread: the caller's; pure code.

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

/// Name of the algorithm. `Authorization` and the string to sign begin with it.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The constant parts of all requests of one day (UTC) that are signed with the same credentials.
pub(super) struct Template {
    day_number: u64,
    credentials: Credentials,
    uri: Uri,
    /// Headers of the first request. Date, timestamp and `Authorization` are replaced in each
    /// request.
    headers: HeaderMap,
    /// The canonical request in three parts: up to the date, up to the timestamp, and up to the
    /// hash of the body.
    canonical: [String; 3],
    /// Credential scope, for example `20260131/REGION/xray/aws4_request`.
    scope: String,
    /// Value of `Authorization` up to the signature.
    authorization: String,
    /// Signing key for the day, the region and the service.
    key: Vec<u8>,
}

/// Shows only the scope, because the canonical request contains the session token.
impl fmt::Debug for Template {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Template").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Template {
    /// Returns the template of `request`, which was signed with `credentials` for `region` and the
    /// time `now`, and whose body has the given SHA-256.
    ///
    /// Returns `None` if the template gives another signature than the request has. For example,
    /// aws-sigv4 signs a different text for addresses with escaped characters.
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

    /// Returns whether the template is valid for these credentials and the day of `now`.
    pub(super) fn is_for(&self, credentials: &Credentials, now: SystemTime) -> bool {
        self.day_number == day_number(now) && self.credentials == *credentials
    }

    /// Returns a request with `body`, which has the given SHA-256, signed with the time `now`.
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

    /// Returns the time as `20260131T235959Z`. The day is taken from the scope.
    fn date(&self, now: SystemTime) -> String {
        let day = self.scope.split('/').next().unwrap_or_default();
        let seconds = since_epoch(now).as_secs() % DAY.as_secs();
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        format!("{day}T{hours:02}{minutes:02}{seconds:02}Z")
    }
}

/// Returns the parts of the canonical request around the values that change: the method, the path,
/// the signed headers `names` with their values, the names again, and then the hash of the body.
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
