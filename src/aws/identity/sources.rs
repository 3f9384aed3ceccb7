//! Asks the AWS credential chain for credentials. If the operator configured a role, the daemon
//! assumes this role with them.
//!
//! In: the region, the role and the transport. Out: credentials that can be used to sign requests,
//! or the error of the chain. Bound: the timeouts of the SDK. Thread: main.
//!
//! The general settings of the SDK (retries, defaults mode, compression) have fixed values here.
//! The SDK does not read them from the environment or the shared files, for two reasons: they are
//! not settings of the daemon, and some parsers of the SDK panic on unknown values.

use super::calls;
use crate::aws::transport::Transport;
use crate::base::panics;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as Providing;
use aws_credential_types::provider::{ProvideCredentials, Result, SharedCredentialsProvider};
use http::HeaderValue;
use std::time::Duration;

/// Name and duration (15 minutes) of the session when the daemon assumes a role. The original
/// daemon uses the same values.
const ROLE_SESSION_NAME: &str = "xray-daemon";
const ROLE_SESSION_LENGTH: Duration = Duration::from_secs(900);

/// Returns the settings with which the AWS SDK calls STS, SSO and metadata services.
pub(super) fn sdk_config(region: Region, transport: &Transport) -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(calls::http_client(transport))
        .region(region)
        .retry_config(RetryConfig::standard())
        .disable_request_compression(true)
        .request_min_compression_size_bytes(0)
}

/// Asks the credential chain for credentials once.
///
/// # Errors
///
/// Returns an error if no source has valid credentials, or if a library panics.
pub(super) async fn ask(region: Region, role_arn: Option<String>, transport: &Transport) -> Result {
    let credentials = panics::caught(async {
        panics::inject("identity");
        provider(region, role_arn, transport).await.provide_credentials().await
    });
    credentials.await.unwrap_or_else(|panicked| Err(CredentialsError::unhandled(panicked)))
}

/// Returns the credential chain. If `role_arn` is given, the returned provider uses the credentials
/// of the chain to assume this role.
async fn provider(
    region: Region,
    role_arn: Option<String>,
    transport: &Transport,
) -> SharedCredentialsProvider {
    let config = sdk_config(region, transport).load().await;
    let chain = config.credentials_provider().expect("the default chain is always set");
    let chain = SharedCredentialsProvider::new(Checked(chain));
    let Some(role_arn) = role_arn else { return chain };
    let role = AssumeRoleProvider::builder(role_arn)
        .configure(&config)
        .session_name(ROLE_SESSION_NAME)
        .session_length(ROLE_SESSION_LENGTH);
    SharedCredentialsProvider::new(role.build_from_provider(chain).await)
}

/// A provider that returns an error for credentials with characters that are not valid in an HTTP
/// header. The SDK panics if it signs a call with them.
#[derive(Debug)]
struct Checked(SharedCredentialsProvider);

impl ProvideCredentials for Checked {
    fn provide_credentials<'a>(&'a self) -> Providing<'a>
    where
        Self: 'a,
    {
        Providing::new(async { self.0.provide_credentials().await.and_then(check) })
    }
}

fn check(credentials: Credentials) -> Result {
    let key = ("access key", credentials.access_key_id());
    let token = credentials.session_token().map(|token| ("session token", token));
    for (name, text) in [key].into_iter().chain(token) {
        if HeaderValue::from_str(text).is_err() {
            return Err(CredentialsError::invalid_configuration(format!(
                "the {name} has a line break or another control character; remove it from the \
                 source of the {name}"
            )));
        }
    }
    Ok(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_no_header_can_carry_are_an_error_that_names_the_part() {
        let credentials = |key: &str, token: Option<&str>| {
            Credentials::new(key, "secret", token.map(str::to_owned), None, "test")
        };
        assert!(check(credentials("AKID", Some("token/+="))).is_ok());
        for (key, token, part) in [
            ("AKID\n", None, "the access key has"),
            ("AKID", Some("a\rb"), "the session token has"),
        ] {
            let error = check(credentials(key, token)).unwrap_err();
            let text = crate::base::error_text::with_all_causes(&error);
            assert!(text.contains(part) && text.contains("line break"), "{text}");
        }
    }
}
