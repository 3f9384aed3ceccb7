//! Signs requests with AWS Signature Version 4: batches, telemetry and requests of clients.
//!
//! In: the body and its SHA-256, credentials and the time. Out: a signed request; a batch becomes
//! `POST /TraceSegments`. Thread: the caller's; clones of a [`Signer`] share a mutex.
//!
//! A retried request is signed again, because credentials change and a signature is valid for only
//! five minutes. Most parts of a signed request are the same for a whole day. They are computed
//! once and kept as a template (`template.rs`).

mod template;
mod user_agent;

use super::{Media, RequestBody};
use crate::aws::endpoint::Endpoint;
use crate::base::log::LogLimit;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use template::Template;
use tracing::warn;
use user_agent::user_agent;

static SKEWED: LogLimit = LogLimit::once_a_minute();

/// Name of the X-Ray service in the signature.
const SERVICE: &str = "xray";

/// URL path of the API operation `PutTraceSegments`.
const SEGMENTS_PATH: &str = "/TraceSegments";

/// URL path of the API operation `PutTelemetryRecords`.
const TELEMETRY_PATH: &str = "/TelemetryRecords";

/// URL path of X-Ray's endpoint for spans of OpenTelemetry.
const SPANS_PATH: &str = "/v1/traces";

/// The reason why a request could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A parameter of the signature is missing.
    #[error("the request cannot be signed: {0}")]
    Parameters(#[from] v4::signing_params::BuildError),
    /// The address or the headers of the request cannot be signed.
    #[error("the request cannot be signed: {0}")]
    Request(#[from] aws_sigv4::http_request::SigningError),
    /// The access key, the session token or the region has a character that headers cannot contain.
    #[error(
        "the request cannot be signed: the access key, the session token or the region contains a \
         line break or another control character"
    )]
    Header(#[from] http::Error),
}

/// Signs requests for one endpoint and region. Clones share the template of the day, and the
/// difference between the service's clock and the host's clock.
#[derive(Debug, Clone)]
pub struct Signer {
    endpoint: Endpoint,
    uri: http::Uri,
    uri_text: String,
    region: String,
    user_agent: HeaderValue,
    media: Media,
    /// Whether the bodies are compressed with gzip.
    is_gzip: bool,
    /// Time of the service's clock minus time of the host's clock, in nanoseconds.
    service_ahead_ns: Arc<AtomicI64>,
    template: Arc<Mutex<Option<Template>>>,
}

impl Signer {
    /// Returns a signer for `PutTraceSegments` at `endpoint` in `region`. `execution_environment`
    /// is the value of `AWS_EXECUTION_ENV`; it becomes a part of the user agent.
    pub fn new(endpoint: &Endpoint, region: &str, execution_environment: Option<&str>) -> Self {
        Self::for_path(SEGMENTS_PATH, endpoint, region, execution_environment)
    }

    /// Returns a signer for `PutTelemetryRecords`, with the same parameters as [`new`](Self::new).
    pub fn for_telemetry(
        endpoint: &Endpoint,
        region: &str,
        execution_environment: Option<&str>,
    ) -> Self {
        Self::for_path(TELEMETRY_PATH, endpoint, region, execution_environment)
    }

    fn for_path(
        path: &str,
        endpoint: &Endpoint,
        region: &str,
        execution_environment: Option<&str>,
    ) -> Self {
        let uri = endpoint.uri(path);
        let user_agent = user_agent(execution_environment.unwrap_or("UNKNOWN"));
        // A control character in the execution environment makes the header invalid. Then the user
        // agent is only `xrayd`.
        let user_agent =
            HeaderValue::from_str(&user_agent).unwrap_or(HeaderValue::from_static("xrayd"));
        Self {
            endpoint: endpoint.clone(),
            uri_text: uri.to_string(),
            uri,
            region: region.to_owned(),
            user_agent,
            media: Media::Json,
            is_gzip: false,
            service_ahead_ns: Arc::default(),
            template: Arc::default(),
        }
    }

    /// Returns a signer for spans in the form `media`, for the same service as this signer. Both
    /// share the difference between the clocks.
    #[must_use]
    pub fn for_spans(&self, media: Media, is_gzip: bool) -> Self {
        let uri = self.endpoint.uri(SPANS_PATH);
        let uri_text = uri.to_string();
        Self { uri, uri_text, media, is_gzip, template: Arc::default(), ..self.clone() }
    }

    /// Returns the time that the service's clock shows when the host's clock shows `now`. Requests
    /// are signed with this time.
    pub fn time(&self, now: SystemTime) -> SystemTime {
        let ahead_ns = self.service_ahead_ns.load(Ordering::Relaxed);
        let distance = Duration::from_nanos(ahead_ns.unsigned_abs());
        if ahead_ns < 0 { now - distance } else { now + distance }
    }

    /// Makes the signer use the service's time from now on, and logs the difference between the
    /// clocks. `now` is the time of the host's clock.
    pub fn set_time(&self, service_time: SystemTime, now: SystemTime) {
        let (distance, sign, what) = match service_time.duration_since(now) {
            Ok(ahead) => (ahead, 1, "behind"),
            Err(behind) => (behind.duration(), -1, "ahead of"),
        };
        // A difference of more than 292 years does not fit into an `i64` of nanoseconds. It becomes
        // zero, and the service then refuses the signature.
        let distance_ns = i64::try_from(distance.as_nanos()).unwrap_or_default();
        self.service_ahead_ns.store(sign * distance_ns, Ordering::Relaxed);
        SKEWED.log(|more| {
            warn!(
                "The clock of this host is {} s {what} the service's: requests are signed with the \
                 service's time from now on. Segments carry times of this host; set its clock{more}",
                distance.as_secs()
            );
        });
    }

    /// Returns a request with `body`, signed with `credentials` and the time `now`. Uses the
    /// template of the day if there is one.
    ///
    /// # Errors
    ///
    /// Returns an error if the address or the credentials have characters that headers cannot
    /// contain.
    pub fn sign(
        &self,
        body: RequestBody,
        body_sha256: &[u8; 32],
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<Request<RequestBody>, SignError> {
        let mut template = self.template.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(template) = template.as_ref().filter(|it| it.is_for(credentials, now)) {
            return Ok(template.request(body, body_sha256, now));
        }
        let request = self.sign_body(body, body_sha256, credentials, now)?;
        *template = Template::of(&request, body_sha256, (credentials, &self.region), now);
        Ok(request)
    }

    /// Checks that a request can be signed with `credentials`.
    ///
    /// # Errors
    ///
    /// Returns an error if the credentials have characters that headers cannot contain.
    pub fn check(&self, credentials: &Credentials, now: SystemTime) -> Result<(), SignError> {
        self.sign_body(Bytes::new().into(), &[0; 32], credentials, now).map(drop)
    }

    /// Returns a request with `body`, signed with `credentials` and the time `now`. This function
    /// does not use the template of the day.
    ///
    /// # Errors
    ///
    /// Returns an error if the address or the credentials have characters that headers cannot
    /// contain.
    pub fn sign_body(
        &self,
        body: RequestBody,
        body_sha256: &[u8; 32],
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<Request<RequestBody>, SignError> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.media.content_type()));
        if self.is_gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let timestamp = HeaderValue::try_from(timestamp(now)).map_err(http::Error::from)?;
        headers.insert(template::TIMESTAMP, timestamp);

        let body_sha256 = hex::encode(body_sha256);
        self.authorize(&mut request, &self.uri_text, body_sha256, credentials, now)?;
        // The user agent is added after signing, because proxies may change it.
        request.headers_mut().insert(USER_AGENT, self.user_agent.clone());
        Ok(request)
    }

    /// Returns the endpoint that requests are signed for.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns a client's request to `target` at the endpoint, signed with `credentials` and the
    /// time `now`. All `headers` are sent unchanged. The signature covers the method, the target,
    /// the body, and the headers that the service evaluates.
    ///
    /// # Errors
    ///
    /// Returns an error if the address or the credentials have characters that headers cannot
    /// contain.
    ///
    /// # Panics
    ///
    /// Panics if the path of `target` does not start with a slash.
    pub fn sign_for_client(
        &self,
        (method, target, headers): (Method, &PathAndQuery, HeaderMap),
        body: Bytes,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<Request<RequestBody>, SignError> {
        let body_sha256 = hex::encode(Sha256::digest(&body));
        let mut request = Request::new(RequestBody::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.endpoint.uri(target.as_str());
        *request.headers_mut() = headers;
        let uri_text = request.uri().to_string();
        self.authorize(&mut request, &uri_text, body_sha256, credentials, now)?;
        Ok(request)
    }

    /// Signs a request and adds the headers of the signature.
    fn authorize(
        &self,
        request: &mut Request<RequestBody>,
        uri_text: &str,
        body_sha256: String,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<(), SignError> {
        let identity = credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SERVICE)
            .time(now)
            .settings(SigningSettings::default())
            .build()?
            .into();
        let headers = request.headers();
        // If a header occurs several times and one of its values is not ASCII text, the signature
        // covers none of these values.
        let is_text = |name| headers.get_all(name).iter().all(|value| value.to_str().is_ok());
        let signed = headers.iter().filter(|(name, _)| is_signed(name) && is_text(*name));
        let signable = SignableRequest::new(
            request.method().as_str(),
            uri_text,
            signed.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))),
            SignableBody::Precomputed(body_sha256),
        )?;
        let (instructions, _signature) = sign(signable, &parameters)?.into_parts();
        // The library's function for this, `apply_to_request_http1x`, panics on a value that is not
        // valid in a header. So the headers are added here.
        for (name, value) in instructions.headers() {
            let mut value = HeaderValue::try_from(value).map_err(http::Error::from)?;
            value.set_sensitive(true);
            request
                .headers_mut()
                .insert(HeaderName::try_from(name).map_err(http::Error::from)?, value);
        }
        Ok(())
    }
}

/// Returns whether the signature covers the header `name`. It covers the headers that the service
/// evaluates. It does not cover headers that a proxy may change, nor `X-Amzn-Trace-Id`, which load
/// balancers of AWS change. The library always adds `Host` to the signature.
fn is_signed(name: &HeaderName) -> bool {
    *name == CONTENT_TYPE
        || *name == CONTENT_ENCODING
        || (name.as_str().starts_with("x-amz") && name.as_str() != "x-amzn-trace-id")
}

/// Returns `now` as text: seconds since 1970, with nine decimals.
fn timestamp(now: SystemTime) -> String {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}", since_epoch.as_secs(), since_epoch.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::endpoint::Variant;

    #[test]
    fn the_services_clock_is_followed_in_both_directions() {
        let endpoint = Endpoint::resolve(None, "us-east-1", Variant::default()).unwrap();
        let signer = Signer::new(&endpoint, "us-east-1", None);
        let clone = signer.clone();
        let now = SystemTime::now();
        let minute = Duration::from_secs(60);
        assert_eq!(signer.time(now), now);
        for service_time in [now + 90 * minute, now - 90 * minute, now] {
            clone.set_time(service_time, now);
            assert_eq!(signer.time(now + minute), service_time + minute);
        }
    }

    fn no_body() -> RequestBody {
        RequestBody::new(vec![], 0)
    }

    fn signer(endpoint: &str) -> Signer {
        let endpoint = Endpoint::resolve(Some(endpoint), "x", Variant::default()).unwrap();
        Signer::new(&endpoint, "eu-west-1", Some("AWS_ECS_FARGATE"))
    }

    /// Returns the request that the crate `aws-sigv4` signs without a template, as text.
    fn expected(signer: &Signer, sha256: [u8; 32], with: &Credentials, at: SystemTime) -> String {
        let request = signer.sign_body(RequestBody::from(Bytes::new()), &sha256, with, at).unwrap();
        text(&request)
    }

    fn text(request: &Request<RequestBody>) -> String {
        format!("{} {} {:?}", request.method(), request.uri(), shown(request.headers().clone()))
    }

    /// Removes the mark "sensitive" from `headers`, so that `Debug` shows their values.
    fn shown(mut headers: HeaderMap) -> HeaderMap {
        headers.values_mut().for_each(|value| value.set_sensitive(false));
        headers
    }

    #[test]
    fn requests_from_a_template_are_those_that_the_library_makes() {
        let token = Some("FwoGZXIvYXdzEB4aDH+/session//token==".to_owned());
        let keys = [("AKIDEXAMPLE", None), ("ASIA/EXAMPLE", token)];
        let start = UNIX_EPOCH + Duration::new(1_795_305_600, 999_999_999);
        let endpoints = [
            "https://xray.eu-west-1.amazonaws.com",
            "http://127.0.0.1:2000",
            "https://vpce-1.example/two/parts/",
            "https://[::1]:8443",
        ];
        for (endpoint, (key, token)) in
            endpoints.iter().flat_map(|it| keys.clone().map(|key| (it, key)))
        {
            let signer = signer(endpoint);
            let credentials = Credentials::new(key, "wJalrXUtnFEMI", token, None, "test");
            // Sign 200 requests, 1741 s apart: four days. Their times include hours and minutes
            // below 10, which need a leading zero.
            for number in 0..200_u8 {
                let at = start + u32::from(number) * Duration::from_secs(1_741);
                let sha256 = [number; 32];
                let request = signer.sign(no_body(), &sha256, &credentials, at).unwrap();
                assert_eq!(text(&request), expected(&signer, sha256, &credentials, at));
                let template = signer.template.lock().unwrap();
                assert!(template.as_ref().unwrap().is_for(&credentials, at), "{endpoint}");
            }
        }
    }

    #[test]
    fn debug_output_of_a_template_shows_no_secret() {
        let signer = signer("https://xray.eu-west-1.amazonaws.com");
        let token = Some("secret-token".to_owned());
        let credentials = Credentials::new("AKID", "secret-key", token, None, "test");
        signer.sign(no_body(), &[1; 32], &credentials, SystemTime::now()).unwrap();
        let shown = format!("{signer:?}");
        assert!(shown.contains("/eu-west-1/xray/") && !shown.contains("secret-"), "{shown}");
    }

    #[test]
    fn other_credentials_have_another_template() {
        let signer = signer("https://xray.eu-west-1.amazonaws.com");
        let at = SystemTime::now();
        for key in ["AKID1", "AKID2", "AKID1"] {
            for secret in ["one", "two"] {
                let credentials = Credentials::new(key, secret, None, None, "test");
                let request = signer.sign(no_body(), &[1; 32], &credentials, at).unwrap();
                assert_eq!(text(&request), expected(&signer, [1; 32], &credentials, at));
            }
        }
    }

    #[test]
    fn an_address_with_escaped_characters_has_no_template() {
        let signer = signer("https://vpce-1.example/with%20space");
        let credentials = Credentials::new("AKID", "secret", None, None, "test");
        for _ in 0..2 {
            let at = SystemTime::now();
            let request = signer.sign(no_body(), &[1; 32], &credentials, at).unwrap();
            assert_eq!(text(&request), expected(&signer, [1; 32], &credentials, at));
            assert!(signer.template.lock().unwrap().is_none());
        }
    }

    #[test]
    fn a_line_break_in_the_access_key_is_an_error_and_no_panic() {
        let endpoint =
            Endpoint::resolve(Some("http://127.0.0.1:1"), "x", Variant::default()).unwrap();
        for (key, region) in [("AKID\n", "us-east-1"), ("AKID", "us-east-1\n")] {
            let signer = Signer::new(&endpoint, region, None);
            let credentials = Credentials::new(key, "secret", None, None, "test");
            let error =
                signer.sign(no_body(), &[0; 32], &credentials, SystemTime::now()).unwrap_err();
            assert!(error.to_string().contains("line break"), "{error}");
        }
    }

    #[test]
    fn the_timestamp_has_nine_decimals() {
        let at = UNIX_EPOCH + Duration::new(1_795_354_918, 42_000);
        assert_eq!(timestamp(at), "1795354918.000042000");
    }

    #[test]
    fn the_user_agent_holds_what_the_service_looks_for() {
        let text = user_agent("AWS_ECS_FARGATE");
        assert!(text.contains("xray-agent/xray-daemon/"), "{text}");
        assert!(text.contains(" exec-env/AWS_ECS_FARGATE OS/linux-"), "{text}");
    }
}
