//! Asks the instance metadata of EC2.
//!
//! In: the path of a value. Out: its text. Version 2 of the service is asked: a call fetches a
//! token, and the other calls carry it. Version 1, without tokens, is used only if the call for the
//! token was refused (403, 404, 405) or timed out. This is so in a container on a host with a hop
//! limit of 1, and behind programs that stand in for the service. `AWS_EC2_METADATA_V1_DISABLED`
//! forbids it. Bound: [`TRY_TIMEOUT`] for each try. No proxy is used. Thread: main.
//!
//! `aws-config` has a client for version 2 only. It keeps it: for version 1, the HTTP client below
//! it answers the call for the token, and takes the token out of the other calls.

use super::calls;
use super::environment::{Environment, process, variable};
use super::shared_files::SharedFiles;
use crate::aws::transport::Transport;
use aws_config::imds::client::error::ImdsError;
use aws_config::imds::{self, Client, credentials::ImdsCredentialsProvider};
use aws_config::provider_config::ProviderConfig;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use http::Uri;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::warn;

/// Timeout of each try of a call. The service is on the same host, so it answers fast.
pub(super) const TRY_TIMEOUT: Duration = Duration::from_secs(1);

const ENDPOINT_VERSION_4: &str = "http://169.254.169.254";
const ENDPOINT_VERSION_6: &str = "http://[fd00:ec2::254]";

const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TOKEN_TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// How long a token is said to be valid if there is none, in seconds. The client that holds it does
/// not live this long.
const NO_TOKEN_TTL: &str = "21600";

/// A client of the instance metadata. It keeps its token.
#[derive(Debug)]
pub struct InstanceMetadata {
    client: Client,
    token_failure: TokenFailure,
}

/// Why there is no token. With a reason, version 1 is in use.
#[derive(Debug, Clone, Default)]
struct TokenFailure(Arc<Mutex<Option<String>>>);

impl TokenFailure {
    fn set(&self, reason: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl InstanceMetadata {
    /// Returns a client with the endpoint and the permissions that the environment and the shared
    /// AWS files give.
    ///
    /// # Errors
    ///
    /// Returns a text if the configured endpoint is not an address.
    pub fn from_environment(transport: &Transport, try_count: u32) -> Result<Self, String> {
        Self::new(&process, &SharedFiles::read(&process), transport, try_count)
    }

    /// Returns a client that makes at most `try_count` tries for each value.
    ///
    /// # Errors
    ///
    /// Returns a text if the configured endpoint is not an address.
    pub(super) fn new(
        environment: Environment<'_>,
        files: &SharedFiles,
        transport: &Transport,
        try_count: u32,
    ) -> Result<Self, String> {
        let token_failure = TokenFailure::default();
        let http = MetadataCalls {
            calls: calls::http_client(&transport.without_proxy()),
            allows_version_1: allows_version_1(environment, files),
            token_failure: token_failure.clone(),
        };
        let config = ProviderConfig::default().with_http_client(SharedHttpClient::new(http));
        let endpoint = endpoint(environment, files)?;
        let client = imds::Client::builder()
            .configure(&config)
            .endpoint(&endpoint)
            .map_err(|error| format!("the endpoint {endpoint:?} is not an address: {error}"))?
            .connect_timeout(TRY_TIMEOUT)
            .read_timeout(TRY_TIMEOUT)
            .max_attempts(try_count)
            .build();
        Ok(Self { client, token_failure })
    }

    /// Returns the text at `path`, for example `/latest/meta-data/instance-id`, without spaces and
    /// line breaks around it.
    ///
    /// # Errors
    ///
    /// Returns an error if the service cannot be reached, or has no such value.
    pub async fn get(&self, path: &str) -> Result<String, ImdsError> {
        Ok(self.client.get(path).await?.as_ref().trim().to_owned())
    }

    /// Returns the provider of the credentials of the instance's role.
    pub(super) fn credentials_provider(&self) -> ImdsCredentialsProvider {
        ImdsCredentialsProvider::builder().imds_client(self.client.clone()).build()
    }

    /// Returns the name of the source, with the version if it is 1.
    pub(super) fn name(&self) -> &'static str {
        match self.token_failure.get() {
            Some(_) => "instance metadata (version 1)",
            None => "instance metadata",
        }
    }
}

/// Returns whether version 1 may be used. The environment comes before the selected profile.
fn allows_version_1(environment: Environment<'_>, files: &SharedFiles) -> bool {
    let of_profile = || files.get("ec2_metadata_v1_disabled").map(str::to_owned);
    let disabled = variable(environment, "AWS_EC2_METADATA_V1_DISABLED").or_else(of_profile);
    !disabled.is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Returns the address of the service. As in the original daemon, a path in it does not count.
fn endpoint(environment: Environment<'_>, files: &SharedFiles) -> Result<String, String> {
    let setting =
        |name, key| variable(environment, name).or_else(|| files.get(key).map(str::to_owned));
    let address = setting("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ec2_metadata_service_endpoint");
    let Some(address) = address else {
        let mode =
            setting("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ec2_metadata_service_endpoint_mode");
        let is_version_6 = mode.is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
        let address = if is_version_6 { ENDPOINT_VERSION_6 } else { ENDPOINT_VERSION_4 };
        return Ok(address.to_owned());
    };
    let parts = address.parse::<Uri>().map(Uri::into_parts).ok();
    match parts.map(|parts| (parts.scheme, parts.authority)) {
        Some((Some(scheme), Some(authority))) => Ok(format!("{scheme}://{authority}")),
        _ => Err(format!("the endpoint {address:?} is not an address, such as http://HOST")),
    }
}

/// The HTTP client below the client of `aws-config`.
#[derive(Debug, Clone)]
struct MetadataCalls {
    calls: SharedHttpClient,
    allows_version_1: bool,
    /// Shared with the connectors, and with [`InstanceMetadata`].
    token_failure: TokenFailure,
}

impl HttpClient for MetadataCalls {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let connector = self.calls.http_connector(settings, components);
        SharedHttpConnector::new(MetadataConnector { connector, calls: self.clone() })
    }
}

#[derive(Debug)]
struct MetadataConnector {
    connector: SharedHttpConnector,
    calls: MetadataCalls,
}

impl HttpConnector for MetadataConnector {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let path = request.uri().parse().map(|uri: Uri| uri.path().to_owned()).unwrap_or_default();
        let is_token = path == TOKEN_PATH;
        let failure = self.calls.token_failure.get().filter(|_| !is_token);
        if failure.is_some() {
            request.headers_mut().remove(TOKEN_HEADER);
        }
        let (answer, calls) = (self.connector.call(request), self.calls.clone());
        HttpConnectorFuture::new(async move {
            let answer = answer.await;
            if is_token {
                return calls.token(answer);
            }
            let answer = answer?;
            if let Some(failure) = failure.filter(|_| answer.status().is_success()) {
                warn_once(&failure);
            }
            Ok(first_of_list(&path, answer))
        })
    }
}

impl MetadataCalls {
    /// Returns the answer to the call for a token. If the call has failed in a way that allows
    /// version 1, this is an answer with an empty token, which no other call will carry.
    fn token(
        &self,
        answer: Result<HttpResponse, ConnectorError>,
    ) -> Result<HttpResponse, ConnectorError> {
        let answer = answer.map(|mut answer| {
            if !answer.status().is_success() {
                // `aws-config` takes any answer with this header for a token.
                answer.headers_mut().remove(TOKEN_TTL_HEADER);
            }
            answer
        });
        let failure = match &answer {
            Ok(answer) => match answer.status().as_u16() {
                status @ 403..=405 => Some(format!("is refused with status {status}")),
                _ => None,
            },
            Err(error) if error.is_timeout() => {
                Some(format!("is not answered within {} s", TRY_TIMEOUT.as_secs()))
            }
            Err(_) => None,
        };
        let failure = failure.filter(|_| self.allows_version_1);
        self.token_failure.set(failure.clone());
        if failure.is_none() {
            return answer;
        }
        let no_token = http::Response::builder().header(TOKEN_TTL_HEADER, NO_TOKEN_TTL);
        let no_token = no_token.body("".into()).expect("the header is valid");
        HttpResponse::try_from(no_token).map_err(|error| ConnectorError::other(error.into(), None))
    }
}

/// Warns that version 1 has answered, once in the life of the process. With version 1 a program
/// that forwards requests can be misused to read the credentials.
fn warn_once(failure: &str) {
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    if !IS_SAID.swap(true, Ordering::Relaxed) {
        warn!(
            "Instance metadata of version 1 is used, because the call for a token {failure}. Better: \
             aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2 \
             --http-tokens required. AWS_EC2_METADATA_V1_DISABLED=true forbids version 1"
        );
    }
}

/// Returns the answer with its first line only if `path` is a list. For the list of roles
/// `aws-config` takes the whole answer as the name of the role, and panics if it has a line break.
fn first_of_list(path: &str, mut answer: HttpResponse) -> HttpResponse {
    if path.ends_with('/') && answer.status().is_success() {
        let body = answer.body().bytes().unwrap_or_default();
        let first = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let first = first.trim_ascii().to_vec();
        answer.headers_mut().remove("content-length");
        *answer.body_mut() = first.into();
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<T>(
        config: &str,
        variables: &[(&str, &str)],
        setting: impl Fn(Environment<'_>, &SharedFiles) -> T,
    ) -> T {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/config"), format!("[default]\n{config}")).unwrap();
        let home = home.path().to_str().unwrap();
        let environment = |name: &str| {
            let mut all = variables.iter().copied().chain([("HOME", home)]);
            all.find(|(variable, _)| *variable == name).map(|(_, value)| value.to_owned())
        };
        setting(&environment, &SharedFiles::read(&environment))
    }

    #[test]
    fn the_address_is_that_of_the_environment_or_of_the_profile_without_a_path() {
        let (address, mode) =
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
        let profile = "ec2_metadata_service_endpoint = http://127.0.0.2:1\n";
        for (config, variables, expected) in [
            ("", &[][..], ENDPOINT_VERSION_4),
            ("", &[(address, "")], ENDPOINT_VERSION_4),
            ("", &[(mode, "IPv6")], ENDPOINT_VERSION_6),
            ("ec2_metadata_service_endpoint_mode = ipv6", &[], ENDPOINT_VERSION_6),
            (profile, &[(mode, "ipv6")], "http://127.0.0.2:1"),
            (profile, &[(address, "http://[::1]:2/latest/")], "http://[::1]:2"),
        ] {
            assert_eq!(of(config, variables, endpoint).as_deref(), Ok(expected));
        }
        let error = of("", &[(address, "127.0.0.1 or so")], endpoint).unwrap_err();
        assert!(error.contains("not an address"), "{error}");
    }

    #[test]
    fn the_environment_decides_on_version_1_before_the_profile() {
        let (name, disabled) = ("AWS_EC2_METADATA_V1_DISABLED", "ec2_metadata_v1_disabled = true");
        for (config, variables, expected) in [
            ("", &[][..], true),
            (disabled, &[], false),
            (disabled, &[(name, "false")], true),
            ("", &[(name, "True")], false),
        ] {
            assert_eq!(of(config, variables, allows_version_1), expected, "{config} {variables:?}");
        }
    }
}
