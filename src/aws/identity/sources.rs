//! Asks the sources of credentials, one after the other. If the operator configured a role, the
//! daemon assumes this role with the credentials.
//!
//! In: the environment, the shared files, the region, the role and the transport. Out: credentials
//! that can be used to sign requests, with the name of their source, or the reason of each source.
//! Bound: the timeouts of the SDK. Thread: main.
//!
//! [`Source`] is the seam to the sources, so that a simulation can replace them and the host's
//! date.
//!
//! The general settings of the SDK (retries, defaults mode, compression) have fixed values here.
//! The SDK does not read them from the environment or the shared files, for two reasons: they are
//! not settings of the daemon, and some parsers of the SDK panic on unknown values.

use super::calls;
use super::environment::{keys, names_container, process, web_identity};
use super::instance::InstanceMetadata;
use super::shared_files::{OddSession, SharedFiles};
use crate::aws::transport::Transport;
use crate::base::error_text::with_all_causes;
use crate::base::files::Stamp;
use crate::base::panics;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::sso::SsoCredentialsProvider;
use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, ConfigLoader, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as Providing;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use std::error::Error;
use std::time::{Duration, SystemTime};

/// Name and duration (15 minutes) of the session when the daemon assumes a role. The original
/// daemon uses the same values.
const ROLE_SESSION_NAME: &str = "xray-daemon";
const ROLE_SESSION_LENGTH: Duration = Duration::from_secs(900);

/// Why the container has no credentials if no variable names its endpoint.
const NO_CONTAINER: &str =
    "neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set";

/// Number of tries for a value of the instance metadata.
const INSTANCE_TRY_COUNT: u32 = 4;

/// The sources of credentials that an [`Identity`](super::Identity) uses. A test replaces them.
pub trait Source: Send + Sync + 'static {
    /// Asks the sources once.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no valid credentials.
    fn ask(&self, reach: Reach) -> impl Future<Output = Result<Found, CredentialsError>> + Send;

    /// Returns the state of the files that can hold credentials.
    fn files(&self) -> Vec<Stamp>;

    /// Returns the date of the host, with which the expiry of credentials is compared.
    fn host_date(&self) -> SystemTime;
}

/// Returns the settings with which the AWS SDK calls STS.
pub(super) fn sdk_config(region: Region, transport: &Transport) -> ConfigLoader {
    let files = SharedFiles::read(&process);
    aws_config::defaults(BehaviorVersion::latest())
        .profile_files(files.sdk_files())
        .profile_name(files.sdk_profile())
        .http_client(calls::http_client(transport))
        .region(region)
        .retry_config(RetryConfig::standard())
        .disable_request_compression(true)
        .request_min_compression_size_bytes(0)
}

/// The sources that a search asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All sources.
    All,
    /// The environment and the files, with the services that they name. The container's endpoint
    /// and the instance metadata are left out.
    Files,
}

/// Credentials, and the source that gave them.
#[derive(Debug)]
pub struct Found {
    /// The credentials to sign with.
    pub credentials: Credentials,
    /// The name of the source, for an operator.
    pub source: String,
}

/// The error if no source has credentials. It says for each source why it has none.
#[derive(Debug, thiserror::Error)]
#[error("{}", .tried.join("; "))]
struct NoSource {
    tried: Vec<String>,
    /// The error of the last source if that one is in use and fails.
    #[source]
    last: Option<CredentialsError>,
}

/// Asks the sources for credentials once.
///
/// # Errors
///
/// Returns an error if no source has valid credentials, or if a library panics.
pub(super) async fn ask(
    region: Region,
    role_arn: Option<String>,
    transport: &Transport,
    reach: Reach,
) -> Result<Found, CredentialsError> {
    let found = panics::caught(async {
        panics::inject("identity");
        let files = SharedFiles::read(&process);
        files.log_new_remarks();
        let found = search(&region, files, transport, reach).await?;
        let credentials = check(found.credentials)?;
        match role_arn {
            Some(role) => assume(role, Found { credentials, ..found }, region, transport).await,
            None => Ok(Found { credentials, ..found }),
        }
    });
    found.await.unwrap_or_else(|panicked| Err(CredentialsError::unhandled(panicked)))
}

/// Returns the credentials of the first source that has any, in the order of the original daemon. A
/// source that should have credentials but fails ends the search.
async fn search(
    region: &Region,
    mut files: SharedFiles,
    transport: &Transport,
    reach: Reach,
) -> Result<Found, CredentialsError> {
    let mut tried = Tried::default();
    if let Some(found) = tried.result("environment", keys(&process))? {
        return Ok(found);
    }
    let identity = web_identity(&process);
    let is_web_identity = identity.is_ok();
    let name = match identity {
        Ok(identity) => {
            files.select_web_identity(identity);
            "web identity".to_owned()
        }
        Err(reason) => {
            tried.0.push(format!("web identity: {reason}"));
            format!("profile {:?}", files.selected())
        }
    };
    let config = ProviderConfig::default()
        .with_http_client(calls::http_client(transport))
        .with_region(Some(region.clone()))
        .with_retry_config(RetryConfig::standard());
    let instance = InstanceMetadata::new(&process, &files, transport, INSTANCE_TRY_COUNT);
    let mut profile = ProfileFileCredentialsProvider::builder()
        .configure(&config)
        .profile_files(files.sdk_files())
        .profile_name(files.sdk_profile())
        .with_custom_provider("Environment", EnvironmentKeys);
    if let Ok(instance) = &instance {
        profile =
            profile.with_custom_provider("Ec2InstanceMetadata", instance.credentials_provider());
    }
    for it in files.odd_sessions() {
        profile = profile.with_custom_provider(it.source.clone(), sso_provider(it, &config));
    }
    let credentials = profile.build().provide_credentials().await;
    let credentials = credentials.map_err(|error| of_profile(error, &files));
    if let Some(found) = tried.result(name, credentials)? {
        return Ok(found);
    }
    if reach == Reach::Files || is_web_identity {
        return Err(tried.no_source());
    }
    let credentials = match names_container(&process) {
        true => {
            let container = EcsCredentialsProvider::builder().configure(&config).build();
            container.provide_credentials().await
        }
        false => Err(CredentialsError::not_loaded(NO_CONTAINER)),
    };
    if let Some(found) = tried.result("container", credentials)? {
        return Ok(found);
    }
    let (name, credentials) = match &instance {
        Ok(instance) => {
            let credentials = instance.credentials_provider().provide_credentials().await;
            (instance.name(), credentials)
        }
        Err(reason) => {
            ("instance metadata", Err(CredentialsError::invalid_configuration(reason.clone())))
        }
    };
    match tried.result(name, credentials) {
        Ok(found) => found.ok_or_else(|| tried.no_source()),
        // The other reasons are of interest too: the instance is the last resort.
        Err(error) => {
            tried.0.push(name.to_owned());
            let no_source = NoSource { tried: tried.0, last: Some(error) };
            Err(CredentialsError::not_loaded(no_source))
        }
    }
}

/// The sources that have no credentials, each with its reason.
#[derive(Debug, Default)]
struct Tried(Vec<String>);

impl Tried {
    /// Returns what `source` has given. Returns `None`, and remembers the reason, if the source is
    /// not in use.
    ///
    /// # Errors
    ///
    /// Returns the error of a source that is in use and fails.
    fn result(
        &mut self,
        source: impl Into<String>,
        result: Result<Credentials, CredentialsError>,
    ) -> Result<Option<Found>, CredentialsError> {
        let source = source.into();
        match result {
            Ok(credentials) => Ok(Some(Found { credentials, source })),
            Err(error @ CredentialsError::CredentialsNotLoaded(_)) => {
                let cause: &(dyn Error + 'static) = &error;
                let reason = with_all_causes(cause.source().unwrap_or(cause));
                self.0.push(format!("{source}: {reason}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the error that names all sources with their reasons.
    fn no_source(self) -> CredentialsError {
        CredentialsError::not_loaded(NoSource { tried: self.0, last: None })
    }
}

/// Returns the error of a profile, with the remedy or the reason where `aws-config` gives none.
fn of_profile(error: CredentialsError, files: &SharedFiles) -> CredentialsError {
    let is_unused = matches!(error, CredentialsError::CredentialsNotLoaded(_));
    match files.login_remedy() {
        Some(remedy) if is_unused => CredentialsError::not_loaded(remedy),
        Some(remedy) => CredentialsError::invalid_configuration(remedy),
        None if is_unused && (error.source().is_none() || !files.has_selected()) => {
            CredentialsError::not_loaded(files.why_none())
        }
        None => error,
    }
}

/// Returns the source of a session of single sign-on.
fn sso_provider(session: OddSession, config: &ProviderConfig) -> SsoCredentialsProvider {
    SsoCredentialsProvider::builder()
        .configure(config)
        .account_id(session.account_id)
        .role_name(session.role_name)
        .region(Region::new(session.region))
        .start_url(session.start_url)
        .session_name(session.session)
        .build()
}

/// The keys in the environment, for profiles with `credential_source = Environment`. The search
/// has asked the environment before, so there are none here. The error ends the search: the
/// operator has named the source of the keys.
#[derive(Debug)]
struct EnvironmentKeys;

/// Why a profile with `credential_source = Environment` has no credentials.
#[derive(Debug, thiserror::Error)]
#[error("the profile takes its keys from the environment (credential_source = Environment)")]
struct NoEnvironmentKeys {
    source: CredentialsError,
}

impl ProvideCredentials for EnvironmentKeys {
    fn provide_credentials<'a>(&'a self) -> Providing<'a>
    where
        Self: 'a,
    {
        Providing::ready(keys(&process).map_err(|source| {
            CredentialsError::invalid_configuration(NoEnvironmentKeys { source })
        }))
    }
}

/// Assumes a role with the credentials of `found`.
async fn assume(
    role: String,
    found: Found,
    region: Region,
    transport: &Transport,
) -> Result<Found, CredentialsError> {
    let config = sdk_config(region, transport).no_credentials().load().await;
    let source = format!("{role}, assumed with {}", found.source);
    let provider = AssumeRoleProvider::builder(role)
        .configure(&config)
        .session_name(ROLE_SESSION_NAME)
        .session_length(ROLE_SESSION_LENGTH)
        .build_from_provider(SharedCredentialsProvider::new(found.credentials))
        .await;
    let credentials = check(provider.provide_credentials().await?)?;
    Ok(Found { credentials, source })
}

/// Returns the credentials without spaces and line breaks around the keys and the token, as a file
/// or a secret store may add them.
///
/// # Errors
///
/// Returns an error for characters within the key or the token that are not valid in an HTTP
/// header, and for those that are not ASCII, which no key has. The SDK panics if it signs a call
/// with them.
fn check(credentials: Credentials) -> Result<Credentials, CredentialsError> {
    let key = ("access key", credentials.access_key_id().trim());
    let token = credentials.session_token().map(|token| ("session token", token.trim()));
    let secret = ("secret key", credentials.secret_access_key().trim());
    for (name, text) in [key, secret].into_iter().chain(token) {
        if let Some(fault) = fault(text) {
            return Err(CredentialsError::invalid_configuration(format!(
                "the {name} has {fault}; remove it from the source of the {name}"
            )));
        }
    }
    Ok(Credentials::new(
        key.1,
        secret.1,
        token.map(|(_, token)| token.to_owned()).filter(|token| !token.is_empty()),
        credentials.expiry(),
        "xrayd",
    ))
}

/// Returns what is wrong with a key or a token. `None` if an HTTP header can carry it.
fn fault(text: &str) -> Option<&'static str> {
    if text.contains(|it: char| it.is_ascii_control() && it != '\t') {
        return Some("a line break or another control character");
    }
    (!text.is_ascii()).then_some("a character that is not ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_no_header_can_carry_are_an_error_that_names_the_part() {
        let credentials = |key: &str, token: Option<&str>| {
            Credentials::new(key, "secret", token.map(str::to_owned), None, "test")
        };
        let trimmed = check(credentials("AKID\r\n", Some(" token/+=\n"))).unwrap();
        assert_eq!((trimmed.access_key_id(), trimmed.session_token()), ("AKID", Some("token/+=")));
        let broken = "a line break or another control character";
        let foreign = "a character that is not ASCII";
        for (key, secret, token, said) in [
            ("AK\nID", "secret", None, ["the access key has", broken]),
            ("AKID", "secret", Some("a\rb"), ["the session token has", broken]),
            ("AKID", "hush\nhush", None, ["the secret key has", broken]),
            ("AKÏD", "secret", None, ["the access key has", foreign]),
            ("AKID", "secret", Some("hush-é"), ["the session token has", foreign]),
            ("AKID", "secret", Some("hush\u{2028}x"), ["the session token has", foreign]),
            ("AKID", "hush\u{fffd}", Some("token"), ["the secret key has", foreign]),
        ] {
            let credentials = Credentials::new(key, secret, token.map(str::to_owned), None, "test");
            let error = check(credentials).unwrap_err();
            let text = crate::base::error_text::with_all_causes(&error);
            assert!(text.contains(&said.join(" ")), "{text}");
            assert!(!text.contains("hush"), "{text}");
        }
    }
}
