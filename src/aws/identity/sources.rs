//! The chain of sources of credentials, with the operator's role on top.
//!
//! In: region, role and transport. Out: credentials that a request can be signed with, or the error
//! of the chain. The SDK's own settings (retries, defaults mode, compression) are given here and
//! never read from the environment or the shared files, since they are none of the daemon's. Some
//! of the SDK's readers panic over a value that they do not know.

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

/// What the original calls its sessions of an assumed role, and how long they last.
const ROLE_SESSION_NAME: &str = "xray-daemon";
const ROLE_SESSION_LENGTH: Duration = Duration::from_secs(900);

/// The settings that all calls of the SDK have in common.
pub(super) fn sdk_config(region: Region, transport: &Transport) -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(calls::http_client(transport))
        .region(region)
        .retry_config(RetryConfig::standard())
        .disable_request_compression(true)
        .request_min_compression_size_bytes(0)
}

/// Asks the sources for credentials.
///
/// # Errors
///
/// When none has any that are good for a signature, or one of the libraries panics.
pub(super) async fn ask(region: Region, role_arn: Option<String>, transport: &Transport) -> Result {
    let credentials = panics::caught(async {
        panics::inject("identity");
        provider(region, role_arn, transport).await.provide_credentials().await
    });
    credentials.await.unwrap_or_else(|panicked| Err(CredentialsError::unhandled(panicked)))
}

/// The chain of sources, with the role on top.
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

/// Gives only credentials that a header can carry: the SDK panics when it signs a call with others.
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
                "the {name} has a line break or another control character; take it out where the \
                 {name} is given"
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
