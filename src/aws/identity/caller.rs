//! Who the credentials belong to, as STS says (`GetCallerIdentity`, which nobody can be denied).
//!
//! In: credentials. Out: the ARN behind them. Asked over the same proxy and roots as everything
//! else, in the region's own STS. Bound: [`TIMEOUT`].

use super::sources;
use crate::aws::transport::Transport;
use crate::base::error_text::root_cause;
use crate::base::panics;
use aws_config::Region;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use std::time::Duration;

/// STS answers within a second, or cannot be reached.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Who somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// For example `arn:aws:sts::123456789012:assumed-role/NAME/xray-daemon`.
    pub arn: String,
    /// The number of the account.
    pub account: String,
}

/// Why STS does not say it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// There is no answer of STS
    #[error("STS cannot be reached: {0}")]
    Unreachable(String),
    /// STS does not take the credentials
    #[error("STS refuses the credentials: {code}: {message}")]
    Refused {
        /// For example `InvalidClientTokenId`.
        code: String,
        /// In the words of STS.
        message: String,
    },
}

/// Asks STS in `region` whose `credentials` are.
///
/// # Errors
///
/// When STS does not answer, or does not know them.
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
            // The rest may show what was signed, a session token among it.
            let message = text(error.message()).lines().next().unwrap_or_default().to_owned();
            Err(CallerError::Refused { code: text(error.code()), message })
        }
        Err(error) => Err(CallerError::Unreachable(root_cause(&error))),
    }
}
