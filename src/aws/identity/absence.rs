//! Explains why there are no credentials.
//!
//! In: the error of the credential chain. Out: two texts. The full reason is for the log and for
//! `xray verify`: a sentence, the sources that were asked, and for some errors advice for the
//! operator. The public reason is for `GET /ready`, which every program on the network can request.
//! It contains no text of a source of credentials, because the output of a `credential_process` can
//! contain secrets. Thread: any. No I/O, no clock.

use crate::base::error_text::{is_refused, is_without_network, with_all_causes};
use aws_config::imds::client::error::ImdsError;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::error::ProvideErrorMetadata;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use std::error::Error;
use std::{io, iter};

/// Advice for an operator whose container gets no answer of the EC2 instance metadata. The network
/// of a container adds a network hop, and by default the answers of the metadata service travel one
/// hop.
const CHECK_HOP_LIMIT: &str = "In a container, the instance metadata needs a hop limit of 2: aws ec2 \
                               modify-instance-metadata-options --http-put-response-hop-limit 2";

/// Advice for an operator whose host has no route to the EC2 instance metadata.
const CHECK_NETWORK: &str = "Is the network of this host up? Outside of EC2, -o does without the \
                             instance metadata";

/// Parts of the texts of `aws-config` for an answer that has come, but cannot be used: an answer of
/// a container endpoint or of the instance metadata, the output of a `credential_process`, an
/// answer of STS or SSO, and a key with a line break. The types of these errors are private to that
/// crate, so the texts decide; tests/daemon/alarms.rs checks that they are still correct.
const UNREADABLE: [&str; 9] = [
    "invalid JSON in response",
    "in response but it was missing",
    "Invalid field in response",
    "could not decode output",
    "response error",
    "error parsing XML",
    "XML parse error",
    "Error at offset",
    "has a line break",
];

/// Returns why there are no credentials, in a sentence, then the sources that were asked with the
/// reason of each, and advice if the instance metadata cannot be reached.
pub(super) fn full_reason(error: &CredentialsError) -> String {
    // The text of this error itself is about a provider of the library that is not enabled.
    let is_none = matches!(error, CredentialsError::CredentialsNotLoaded(_));
    let reason = match error.source().filter(|_| is_none) {
        Some(reasons) => with_all_causes(reasons),
        None => with_all_causes(error),
    };
    let advice = metadata_advice(error).filter(|_| is_metadata_unreachable(&reason));
    let advice = advice.map(|advice| format!(" {advice}.")).unwrap_or_default();
    let looked_at = if is_none { "Looked at " } else { "" };
    format!("{}. {looked_at}{reason}.{advice}", summary(error))
}

/// Returns advice if the instance metadata gives no answer, or one without a value. The text has no
/// full stop at its end. A low hop limit makes answers get lost, and leads to a request without a
/// token, which is refused with 401. It never makes a connection fail.
pub(super) fn metadata_advice(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let has_no_value = |error: &&ImdsError| matches!(error, ImdsError::ErrorResponse(it) if it.response().status().as_u16() != 401);
    if is_without_network(error) {
        Some(CHECK_NETWORK)
    } else if is_refused(error) || find::<ImdsError>(error).filter(has_no_value).is_some() {
        None
    } else {
        Some(CHECK_HOP_LIMIT)
    }
}

/// Returns whether a source has answered, but its answer cannot be used. This does not pass without
/// an operator.
pub(super) fn is_unreadable(error: &CredentialsError) -> bool {
    let reason = with_all_causes(error);
    UNREADABLE.iter().any(|part| reason.contains(part))
}

/// Returns why there are no credentials, as a short text without any output of their sources.
pub(super) fn public_reason(error: &CredentialsError) -> String {
    format!("{}; the log has the details", summary(error))
}

fn summary(error: &CredentialsError) -> String {
    let reason = with_all_causes(error);
    if let Some(code) = sts_error_code(error) {
        format!("STS refuses the role: {code}")
    } else if is_unreadable(error) {
        "the answer of a source cannot be read".to_owned()
    } else if let Some(system) = find::<io::Error>(error) {
        format!("a source cannot be reached: {}", system.kind())
    } else if reason.contains("external process") {
        "the credential_process fails".to_owned()
    } else if is_metadata_unreachable(&reason) {
        "no source has any, and the instance metadata cannot be reached".to_owned()
    } else {
        let text = match error {
            CredentialsError::CredentialsNotLoaded(_) => "no source has any",
            CredentialsError::ProviderTimedOut(_) => "a source does not answer in time",
            CredentialsError::InvalidConfiguration(_) => {
                "the configuration of a source is not valid"
            }
            _ => "a source fails",
        };
        text.to_owned()
    }
}

fn is_metadata_unreachable(reason: &str) -> bool {
    reason.contains("IMDS") && !reason.contains("IMDS disabled")
}

/// Returns the error code of STS if STS refused to assume the role, otherwise `None`.
fn sts_error_code(error: &CredentialsError) -> Option<&str> {
    let role = find::<AssumeRoleError>(error).and_then(|refused| refused.code());
    role.or_else(|| find::<AssumeRoleWithWebIdentityError>(error)?.code())
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}

/// Returns the first error of type `T` among `error` and its causes.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_a_process_is_only_in_the_full_reason() {
        let text = "Error retrieving credentials: external process exited with code 3. Stderr: KEY";
        let error = CredentialsError::provider_error(CredentialsError::provider_error(text));
        assert!(full_reason(&error).contains("KEY"));
        assert_eq!(public_reason(&error), "the credential_process fails; the log has the details");
    }

    #[test]
    fn answers_that_cannot_be_read_are_told_from_other_failures() {
        let error = |text: &'static str| CredentialsError::provider_error(text);
        for text in [
            "could not parse response: invalid JSON in response: x",
            "Expected field `Token` in response but it was missing",
            "Invalid field in response: `Expiration`. x",
            "service error: unhandled error: error parsing XML: invalid root",
            "the access key has a line break or another control character",
        ] {
            assert!(is_unreadable(&error(text)), "{text}");
        }
        for text in ["external process exited with code 3", "dispatch failure: io error"] {
            assert!(!is_unreadable(&error(text)), "{text}");
        }
        let unreadable = error("invalid JSON in response: SECRET");
        let reason = "the answer of a source cannot be read; the log has the details";
        assert_eq!(public_reason(&unreadable), reason);
    }

    #[test]
    fn the_public_reason_names_the_cause() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let not_loaded = |text: &'static str| CredentialsError::not_loaded(text);
        for (error, expected) in [
            (
                CredentialsError::unhandled(refused),
                "a source cannot be reached: connection refused",
            ),
            (not_loaded("IMDS disabled by AWS_EC2_METADATA_DISABLED"), "no source has any"),
            (
                not_loaded("could not communicate with IMDS"),
                "no source has any, and the instance metadata cannot be reached",
            ),
            (
                CredentialsError::invalid_configuration("x"),
                "the configuration of a source is not valid",
            ),
            (CredentialsError::unhandled("x"), "a source fails"),
        ] {
            assert_eq!(public_reason(&error), format!("{expected}; the log has the details"));
        }
    }
}
