//! Asks STS to whom the credentials belong (`GetCallerIdentity`, which needs no permission).
//!
//! In: credentials. Out: the ARN of their owner, and the AWS account. The call uses the STS
//! endpoint of the region, and the same proxy and root certificates as uploads. Bound:
//! [`TIMEOUT`]. Thread: the caller's.

use super::sources;
use crate::aws::transport::Transport;
use crate::base::error_text::root_cause;
use crate::base::panics;
use aws_config::Region;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use std::time::Duration;

/// Timeout of the call to STS. STS usually answers within one second.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The role or user to which the credentials belong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// ARN of the owner, for example `arn:aws:sts::123456789012:assumed-role/NAME/xray-daemon`.
    pub arn: String,
    /// Number of the AWS account.
    pub account: String,
}

/// The reason why STS did not return the owner of the credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// There was no answer of STS within the timeout, or the connection failed.
    #[error("STS cannot be reached: {0}")]
    Unreachable(String),
    /// STS refused the credentials.
    #[error("STS refuses the credentials: {code}: {message}")]
    Refused {
        /// Error code of STS, for example `InvalidClientTokenId`.
        code: String,
        /// First line of the error message of STS.
        message: String,
    },
}

/// Asks STS in `region` to whom `credentials` belong.
///
/// # Errors
///
/// Returns an error if STS does not answer in time, or refuses the credentials.
pub async fn caller(
    credentials: Credentials,
    region: Region,
    transport: &Transport,
) -> Result<Caller, CallerError> {
    let config = sources::sdk_config(region, transport)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .load()
        .await;
    let call = aws_sdk_sts::Client::new(&config).get_caller_identity().send();
    let answer = tokio::time::timeout(TIMEOUT, panics::caught(call)).await.map_err(|_| {
        CallerError::Unreachable(format!("no answer within {} s", TIMEOUT.as_secs()))
    })?;
    let answer = answer.map_err(|panicked| CallerError::Unreachable(panicked.to_string()))?;
    match answer {
        Ok(identity) => Ok(Caller {
            arn: identity.arn().unwrap_or("nobody").to_owned(),
            account: identity.account().unwrap_or("unknown").to_owned(),
        }),
        Err(SdkError::ServiceError(error)) if error.err().code().is_some() => {
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            let error = error.err();
            // Further lines can show the signed headers, including the session token.
            let message = text(error.message()).lines().next().unwrap_or_default().to_owned();
            Err(CallerError::Refused { code: text(error.code()), message })
        }
        Err(error) => Err(CallerError::Unreachable(root_cause(&error))),
    }
}
