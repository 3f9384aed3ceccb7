//! Finds the names of the host for telemetry: host name, instance id and resource ARN.
//!
//! In: the configuration, the environment, the instance metadata and the kernel. Out: a [`Host`].
//! Bound: [`METADATA_TIMEOUT`], and a length for each name. Thread: main.

use crate::aws::identity::InstanceMetadata;
use crate::aws::transport::{Resolver, Transport};
use crate::base::log::LogLimit;
use std::time::Duration;
use tracing::{debug, warn};

/// Timeout for all calls to the EC2 instance metadata together, including the call that gets the
/// token.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);

/// Number of tries for a name.
const TRY_COUNT: u32 = 2;

/// Longest names, in characters, that the service accepts in `PutTelemetryRecords`. A longer name
/// is left out, because the service would refuse the whole request.
const HOSTNAME_LENGTH_MAX: usize = 255;
const INSTANCE_ID_LENGTH_MAX: usize = 20;
const RESOURCE_ARN_LENGTH_MAX: usize = 500;

static TOO_LONG: LogLimit = LogLimit::once_a_minute();

/// The configured names of the host, and whether to look up missing names in the instance metadata.
#[derive(Debug, Clone, Default)]
pub struct HostSources {
    /// Host name from the environment variable `AWS_HOSTNAME`.
    pub hostname: Option<String>,
    /// Instance id from the environment variable `AWS_INSTANCE_ID`.
    pub instance_id: Option<String>,
    /// ARN from the flag `-a` or from `ResourceARN` in the configuration file.
    pub resource_arn: Option<String>,
    /// Whether to read names that the environment does not contain from the EC2 instance metadata.
    pub asks_metadata: bool,
}

/// The names of the host. A name is `None` while it is not known.
#[derive(Debug, Clone, Default)]
pub(super) struct Host {
    pub hostname: Option<String>,
    pub instance_id: Option<String>,
    pub resource_arn: Option<String>,
}

impl Host {
    /// Returns the names that are known without a call to the instance metadata.
    pub fn without_metadata(sources: &HostSources) -> Self {
        Self::merge(sources, None, None)
    }

    /// Finds the names of the host. Reads missing names from the instance metadata once, if
    /// `sources` allows it. `resolver` looks up the host name of the metadata service.
    pub async fn find(sources: &HostSources, resolver: &Resolver) -> Self {
        let is_complete = sources.hostname.is_some() && sources.instance_id.is_some();
        if !sources.asks_metadata || is_complete {
            return Self::without_metadata(sources);
        }
        let (mut hostname, mut instance_id) = (None, None);
        let lookup = async {
            let transport = Transport::local(resolver.clone());
            match InstanceMetadata::from_environment(&transport, TRY_COUNT) {
                Ok(metadata) => {
                    instance_id = get(&metadata, "/latest/meta-data/instance-id").await;
                    if instance_id.is_some() {
                        hostname = get(&metadata, "/latest/meta-data/local-hostname").await;
                    }
                }
                Err(error) => debug!("The instance metadata cannot be asked: {error}"),
            }
        };
        if tokio::time::timeout(METADATA_TIMEOUT, lookup).await.is_err() {
            debug!("The instance metadata does not answer: telemetry is sent without its names");
        }
        let host = Self::merge(sources, hostname, instance_id);
        debug!("Telemetry uses host {:?}, instance {:?}", host.hostname, host.instance_id);
        host
    }

    fn merge(sources: &HostSources, hostname: Option<String>, instance_id: Option<String>) -> Self {
        let hostname = sources.hostname.clone().or(hostname).or_else(kernel_hostname);
        let instance_id = sources.instance_id.clone().or(instance_id);
        let resource_arn = sources.resource_arn.clone();
        Self {
            hostname: without_too_long("host name", hostname, HOSTNAME_LENGTH_MAX),
            instance_id: without_too_long("instance id", instance_id, INSTANCE_ID_LENGTH_MAX),
            resource_arn: without_too_long(
                "resource ARN (-a)",
                resource_arn,
                RESOURCE_ARN_LENGTH_MAX,
            ),
        }
    }
}

async fn get(metadata: &InstanceMetadata, path: &str) -> Option<String> {
    match metadata.get(path).await {
        Ok(text) => Some(text).filter(|text| !text.is_empty()),
        Err(error) => {
            debug!("The instance metadata has no {path}: {error}");
            None
        }
    }
}

fn kernel_hostname() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Some(name).filter(|name| !name.is_empty())
}

/// Returns `text`. Returns `None` if it has more than `length_max` characters.
fn without_too_long(name: &str, text: Option<String>, length_max: usize) -> Option<String> {
    let length = text.as_ref().map_or(0, |text| text.chars().count());
    if length > length_max {
        TOO_LONG.log(|more| {
            warn!(
                "The {name} has {length} characters and is left out of telemetry: the service \
                 accepts {length_max}{more}"
            );
        });
    }
    text.filter(|_| length <= length_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_environment_comes_first_and_the_kernel_last() {
        let sources = HostSources {
            hostname: Some("named".to_owned()),
            instance_id: Some("i-0123456789abcdef0".to_owned()),
            resource_arn: Some("arn".to_owned()),
            // The metadata service is not called, because all names are known.
            asks_metadata: true,
        };
        let host = Host::find(&sources, &Resolver::start().unwrap()).await;
        assert_eq!(host.hostname.as_deref(), Some("named"));
        assert_eq!(host.instance_id.as_deref(), Some("i-0123456789abcdef0"));
        assert_eq!(host.resource_arn.as_deref(), Some("arn"));
        let host = Host::without_metadata(&HostSources::default());
        assert_eq!(host.hostname, kernel_hostname());
        assert_eq!((host.instance_id, host.resource_arn), (None, None));
    }

    #[test]
    fn names_that_are_too_long_are_left_out() {
        let sources = HostSources {
            hostname: Some("h".repeat(256)),
            instance_id: Some("i".repeat(21)),
            resource_arn: Some("a".repeat(501)),
            asks_metadata: false,
        };
        let host = Host::without_metadata(&sources);
        assert_eq!((host.hostname, host.instance_id, host.resource_arn), (None, None, None));
    }
}
