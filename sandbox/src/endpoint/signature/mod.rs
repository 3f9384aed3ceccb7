//! Checks the AWS Signature Version 4 of a request like the service does.
//!
//! In: the credentials that clients must use, the request and the time. Out: nothing, or a
//! [`Refusal`] that names the step that failed. The crate aws-sigv4 computes the signature again,
//! for the headers that the client lists as signed. The two signatures are compared in constant
//! time. The rules are from
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html>. No I/O.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SessionTokenMode, SignableBody, SignableRequest, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use std::fmt::Display;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};
use time::format_description::{self, BorrowedFormatItem};
use time::{OffsetDateTime, PrimitiveDateTime};

/// Largest difference between the time of a signature and the clock of the sandbox. The signature
/// may be older or newer by this time.
pub const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(5 * 60);

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "xray";
const DATE_HEADER: &str = "x-amz-date";
const TOKEN_HEADER: &str = "x-amz-security-token";

/// The reason why a request is refused. The text of the error is sent to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The Authorization header is missing.
    #[error("Missing Authentication Token")]
    Unsigned,
    /// The Authorization header does not have the form of Signature Version 4, or a part is
    /// missing.
    #[error("Incomplete signature: {0}")]
    Incomplete(&'static str),
    /// SignedHeaders does not name a header that must be signed.
    #[error("'{0}' must be a 'SignedHeader' in the Authorization header")]
    HeaderNotSigned(&'static str),
    /// SignedHeaders names a header that is not in the request.
    #[error("The signed header '{0}' is missing from the request")]
    HeaderMissing(String),
    /// The scope of the credential is not `DATE/REGION/xray/aws4_request`.
    #[error("Credential should be scoped to {0}")]
    Scope(&'static str),
    /// The access key or the session token is not that of the sandbox.
    #[error("The security token included in the request is invalid ({0})")]
    UnknownKey(&'static str),
    /// The signature is older than five minutes.
    #[error("Signature expired: {signed_at} is now earlier than {bound} ({now} - 5 min.)")]
    Expired {
        /// Time of the signature.
        signed_at: String,
        /// Earliest time of a signature that is accepted.
        bound: String,
        /// Time of the sandbox's clock.
        now: String,
    },
    /// The signature is more than five minutes in the future.
    #[error("Signature not yet current: {signed_at} is still later than {bound} ({now} + 5 min.)")]
    NotYetCurrent {
        /// Time of the signature.
        signed_at: String,
        /// Latest time of a signature that is accepted.
        bound: String,
        /// Time of the sandbox's clock.
        now: String,
    },
    /// The canonical form of the request, which is needed for the signature, cannot be built.
    #[error("The request cannot be signed: {0}")]
    NotSignable(String),
    /// The signature differs from the signature that the sandbox computed.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check \
         your AWS Secret Access Key and signing method. Consult the service documentation for \
         details."
    )]
    Mismatch,
}

impl Refusal {
    /// Returns the error type that the service uses for this refusal.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::Unsigned => "MissingAuthenticationTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::UnknownKey(_) => "UnrecognizedClientException",
            Self::HeaderNotSigned(_)
            | Self::HeaderMissing(_)
            | Self::Scope(_)
            | Self::Expired { .. }
            | Self::NotYetCurrent { .. }
            | Self::NotSignable(_)
            | Self::Mismatch => "InvalidSignatureException",
        }
    }
}

/// The parts of an Authorization header.
struct Authorization<'a> {
    access_key: &'a str,
    date: &'a str,
    region: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

/// Verifies the signature of a request that arrived at `now`.
///
/// # Errors
///
/// Returns a [`Refusal`] that names the first step that failed.
pub fn verify(
    credentials: &Credentials,
    parts: &Parts,
    body: &[u8],
    now: SystemTime,
) -> Result<(), Refusal> {
    let authorization = Authorization::of(parts)?;
    if authorization.access_key != credentials.access_key_id() {
        return Err(Refusal::UnknownKey("unknown access key"));
    }
    let signed_at = check_date(parts, authorization.date, now)?;
    check_token(parts, credentials.session_token())?;
    let expected = signature(credentials, parts, body, &authorization, signed_at)?;
    if is_equal(expected.as_bytes(), authorization.signature.as_bytes()) {
        Ok(())
    } else {
        Err(Refusal::Mismatch)
    }
}

impl<'a> Authorization<'a> {
    fn of(parts: &'a Parts) -> Result<Self, Refusal> {
        let mut values = parts.headers.get_all(AUTHORIZATION).iter();
        let value = values.next().ok_or(Refusal::Unsigned)?;
        if values.next().is_some() {
            return Err(Refusal::Incomplete("more than one Authorization header"));
        }
        let value = value.to_str().map_err(|_| Refusal::Incomplete("not in ASCII"))?;
        let fields = value
            .strip_prefix(ALGORITHM)
            .and_then(|rest| rest.strip_prefix(' '))
            .ok_or(Refusal::Incomplete("the algorithm is not AWS4-HMAC-SHA256"))?;
        let field = |name: &str| {
            let mut fields = fields.split(',').map(str::trim);
            fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        let credential =
            field("Credential").ok_or(Refusal::Incomplete("there is no Credential"))?;
        let signed_headers =
            field("SignedHeaders").ok_or(Refusal::Incomplete("there are no SignedHeaders"))?;
        let signature = field("Signature").ok_or(Refusal::Incomplete("there is no Signature"))?;
        let signed_headers: Vec<&str> = signed_headers.split(';').collect();
        // The names must be sorted and distinct. Otherwise two implementations could build
        // different canonical requests from the same list.
        if !signed_headers.is_sorted_by(|one, next| one < next) {
            return Err(Refusal::Incomplete("the SignedHeaders are not sorted"));
        }
        for name in ["host", DATE_HEADER] {
            if !signed_headers.contains(&name) {
                return Err(Refusal::HeaderNotSigned(name));
            }
        }
        let (access_key, scope) =
            credential.split_once('/').ok_or(Refusal::Incomplete("the Credential has no scope"))?;
        let [date, region, service, terminator] = scope.split('/').collect::<Vec<_>>()[..] else {
            return Err(Refusal::Incomplete("the Credential's scope does not have four parts"));
        };
        if service != SERVICE {
            return Err(Refusal::Scope("correct service: 'xray'."));
        }
        if terminator != "aws4_request" {
            return Err(Refusal::Scope("a terminator of 'aws4_request'."));
        }
        if region.is_empty() {
            return Err(Refusal::Scope("a region."));
        }
        Ok(Self { access_key, date, region, signed_headers, signature })
    }
}

/// Returns the time of the signature. Checks that it agrees with the clock of the sandbox and with
/// the date in the scope of the credential.
fn check_date(parts: &Parts, scope_date: &str, now: SystemTime) -> Result<SystemTime, Refusal> {
    let value = parts.headers.get(DATE_HEADER);
    let value = value.ok_or_else(|| Refusal::HeaderMissing(DATE_HEADER.to_owned()))?;
    let text = value.to_str().unwrap_or_default();
    let signed_at =
        parse_time(text).ok_or(Refusal::Incomplete("X-Amz-Date is not like 20260131T120000Z"))?;
    if text.get(..8) != Some(scope_date) {
        return Err(Refusal::Scope("the date of X-Amz-Date."));
    }
    let words = |bound| (text.to_owned(), format_time(bound), format_time(now));
    let (earliest, latest) = (now - CLOCK_DIFFERENCE_MAX, now + CLOCK_DIFFERENCE_MAX);
    if signed_at < earliest {
        let (signed_at, bound, now) = words(earliest);
        return Err(Refusal::Expired { signed_at, bound, now });
    }
    if signed_at > latest {
        let (signed_at, bound, now) = words(latest);
        return Err(Refusal::NotYetCurrent { signed_at, bound, now });
    }
    Ok(signed_at)
}

fn check_token(parts: &Parts, expected: Option<&str>) -> Result<(), Refusal> {
    let given = parts.headers.get(TOKEN_HEADER).map(http::HeaderValue::as_bytes);
    match (given, expected) {
        (None, None) => Ok(()),
        (Some(given), Some(expected)) if is_equal(given, expected.as_bytes()) => Ok(()),
        (None, Some(_)) => Err(Refusal::UnknownKey("no session token")),
        (Some(_), None) => Err(Refusal::UnknownKey("a session token where none belongs")),
        (Some(_), Some(_)) => Err(Refusal::UnknownKey("another session token")),
    }
}

/// Computes the expected signature of a request, for the headers that the client signed.
fn signature(
    credentials: &Credentials,
    parts: &Parts,
    body: &[u8],
    authorization: &Authorization<'_>,
    signed_at: SystemTime,
) -> Result<String, Refusal> {
    let not_signable = |error: &dyn Display| Refusal::NotSignable(error.to_string());
    let mut headers: Vec<(&str, &str)> = Vec::new();
    for &name in &authorization.signed_headers {
        let count_before = headers.len();
        for value in parts.headers.get_all(name) {
            headers.push((name, value.to_str().map_err(|error| not_signable(&error))?));
        }
        // HTTP/2 has the host in the pseudo-header `:authority`, which hyper puts into the URI.
        if headers.len() == count_before && name == HOST.as_str() {
            headers.extend(parts.uri.authority().map(|authority| (name, authority.as_str())));
        }
        if headers.len() == count_before {
            return Err(Refusal::HeaderMissing(name.to_owned()));
        }
    }
    let mut settings = SigningSettings::default();
    // By default, aws-sigv4 does not sign some headers. Here it must sign all headers that the
    // client signed.
    settings.excluded_headers = None;
    // A client may add the session token after it has signed the request. The token is then not
    // part of the signature.
    if !authorization.signed_headers.contains(&TOKEN_HEADER) {
        settings.session_token_mode = SessionTokenMode::Exclude;
    }
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(authorization.region)
        .name(SERVICE)
        .time(signed_at)
        .settings(settings)
        .build()
        .map_err(|error| not_signable(&error))?
        .into();
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    if !target.starts_with('/') {
        return Err(Refusal::NotSignable("the path does not begin with a slash".to_owned()));
    }
    let request = SignableRequest::new(
        parts.method.as_str(),
        target,
        headers.into_iter(),
        SignableBody::Bytes(body),
    )
    .map_err(|error| not_signable(&error))?;
    let output = sign(request, &parameters).map_err(|error| not_signable(&error))?;
    Ok(output.into_parts().1)
}

/// Compares two byte strings. The time does not depend on the position of the first difference.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b));
    one.len() == other.len() && std::hint::black_box(difference) == 0
}

/// The format of a time in `X-Amz-Date`.
static FORMAT: LazyLock<Vec<BorrowedFormatItem<'static>>> = LazyLock::new(|| {
    let format = "[year][month][day]T[hour][minute][second]Z";
    format_description::parse_borrowed::<2>(format).expect("the constant format is valid")
});

/// Parses a time such as `20260131T120000Z`.
fn parse_time(text: &str) -> Option<SystemTime> {
    // The parser would also accept a year with a sign.
    let is_plain = text.starts_with(|first: char| first.is_ascii_digit());
    let time = PrimitiveDateTime::parse(text, &*FORMAT).ok().filter(|_| is_plain)?;
    Some(time.assume_utc().into())
}

/// Formats a time, such as `20260131T120000Z`.
fn format_time(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&*FORMAT).unwrap_or_default()
}

#[cfg(test)]
mod tests;
