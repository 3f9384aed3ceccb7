//! Why there are no credentials, in words.
//!
//! In: the error of the chain of sources. Out: all of it, with what to do where that is known, for
//! the log and `xray verify`; and a sentence of our own, for `GET /ready`, which anybody on the
//! network may ask: what a source has said stays out of it, since a `credential_process` may say
//! anything. Pure code.

use crate::base::error_text::with_all_causes;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::error::ProvideErrorMetadata;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use std::error::Error;
use std::{io, iter};

/// What to do where the instance metadata cannot be reached from a container.
pub(super) const HOP_LIMIT_HINT: &str = " In a container the instance metadata's answer needs a hop more: aws \
                              ec2 modify-instance-metadata-options --http-put-response-hop-limit 2.";

/// All of the reason, and what to do about it where that is known.
pub(super) fn full_reason(error: &CredentialsError) -> String {
    let reason = with_all_causes(error);
    let hint = if is_metadata_unreachable(&reason) { HOP_LIMIT_HINT } else { "" };
    format!("{reason}.{hint}")
}

/// The reason in a sentence, without anything that a source has said.
pub(super) fn public_reason(error: &CredentialsError) -> String {
    let reason = with_all_causes(error);
    let what = if let Some(code) = sts_error_code(error) {
        format!("STS refuses the role: {code}")
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
            CredentialsError::InvalidConfiguration(_) => "what is configured for them is not valid",
            _ => "a source fails",
        };
        text.to_owned()
    };
    format!("{what}; the log has the details")
}

fn is_metadata_unreachable(reason: &str) -> bool {
    reason.contains("IMDS") && !reason.contains("IMDS disabled")
}

/// The code of the answer with which STS refuses a role.
fn sts_error_code(error: &CredentialsError) -> Option<&str> {
    let role = find::<AssumeRoleError>(error).and_then(|refused| refused.code());
    role.or_else(|| find::<AssumeRoleWithWebIdentityError>(error)?.code())
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| error.source())
}

/// The first error of this type among `error` and its causes.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_printed_is_for_the_log_alone() {
        let text = "Error retrieving credentials: external process exited with code 3. Stderr: KEY";
        let error = CredentialsError::provider_error(CredentialsError::provider_error(text));
        assert!(full_reason(&error).contains("KEY"));
        assert_eq!(public_reason(&error), "the credential_process fails; the log has the details");
    }

    #[test]
    fn what_keeps_a_source_from_answering_is_told_in_a_word() {
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
                "what is configured for them is not valid",
            ),
            (CredentialsError::unhandled("x"), "a source fails"),
        ] {
            assert_eq!(public_reason(&error), format!("{expected}; the log has the details"));
        }
    }
}
