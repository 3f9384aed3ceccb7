//! Finds the region: from the configuration, the environment, files and metadata services.
//!
//! In: these sources, in a fixed order. Out: the region, or one error that says for each source why
//! it has no region. Bound: [`METADATA_TIMEOUT`] for each call. Metadata services are never called
//! through a proxy. Thread: main. The daemon receives segments while it searches for the region,
//! and sends them afterwards.

use super::environment::variable;
use super::instance::{InstanceMetadata, TRY_TIMEOUT};
use super::shared_files::SharedFiles;
use crate::aws::ReceivedBody;
use crate::aws::transport::{Resolver, Transport};
use crate::base::error_text::{is_without_network, with_all_causes};
use crate::base::files::read_text;
use aws_config::Region;
use aws_config::imds::client::error::ImdsError;
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Timeout of a call to the metadata service of ECS.
const METADATA_TIMEOUT: Duration = TRY_TIMEOUT;

/// Number of tries to read the region from the EC2 instance metadata. The metadata service can be
/// slow while the host boots.
const INSTANCE_TRY_COUNT: u32 = 2;

/// Longest answer of a metadata service, in bytes. The real answers are much shorter.
const METADATA_BYTES_MAX: usize = 1024 * 1024;

/// Path of the region in the EC2 instance metadata.
const INSTANCE_PATH: &str = "/latest/meta-data/placement/region";

/// Path of a document that has the region too. The original daemon reads this one. Programs that
/// stand in for the service may have only one of the two.
const IDENTITY_PATH: &str = "/latest/dynamic/instance-identity/document";

/// Name of the shared AWS configuration files (`~/.aws/config`) in error texts.
const PROFILE: &str = "shared AWS configuration";

/// The error if no source has a region. It lists all sources. Its text has no full stop at its end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no region was found. Give one with -n, for example -n us-east-1. Tried: {}",
    .0.iter().map(Tried::to_string).collect::<Vec<_>>().join("; ")
)]
pub struct RegionError(Vec<Tried>);

impl RegionError {
    /// Returns whether a metadata service was out of reach because the network is not there yet.
    pub fn is_without_network(&self) -> bool {
        self.0.iter().any(|tried| tried.absent.is_without_network)
    }
}

/// A source that has no region.
#[derive(Debug, PartialEq, Eq)]
struct Tried {
    source: &'static str,
    absent: Absent,
}

/// Why a source has no region.
#[derive(Debug, PartialEq, Eq)]
struct Absent {
    /// The reason in words, without a full stop at its end.
    reason: String,
    /// Whether the network is not there yet.
    is_without_network: bool,
}

impl<T: Into<String>> From<T> for Absent {
    fn from(reason: T) -> Self {
        Self { reason: reason.into(), is_without_network: false }
    }
}

impl fmt::Display for Tried {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.source, self.absent.reason)
    }
}

/// The region that one source returned, or the reason why this source has no region.
type Found = Result<String, Absent>;

/// The sources in which the daemon looks for the region.
pub struct Sources<'a> {
    /// Region from the command line or the configuration file.
    pub configured: Option<&'a str>,
    /// Whether the daemon runs in local mode (`-o`). Then metadata services are not called.
    pub local_mode: bool,
    /// Function that returns the value of an environment variable.
    pub environment: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// Resolver for the host names of metadata services.
    pub resolver: &'a Resolver,
}

impl fmt::Debug for Sources<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sources").field("configured", &self.configured).finish_non_exhaustive()
    }
}

impl Sources<'_> {
    /// Finds the region in the first source that has one: the configuration, the environment, the
    /// ECS task, the profile, the instance metadata. In local mode, the ECS task and the instance
    /// metadata are left out.
    ///
    /// # Errors
    ///
    /// Returns an error that lists all sources if none has a region.
    pub async fn find(&self) -> Result<Region, RegionError> {
        Ok(self.find_with_source().await?.0)
    }

    /// Finds the region as [`find`](Self::find) does, and returns it with the name of its source.
    ///
    /// # Errors
    ///
    /// Returns an error that lists all sources if none has a region.
    pub async fn find_with_source(&self) -> Result<(Region, &'static str), RegionError> {
        let found = |name: String, source| Ok((Region::new(name), source));
        if let Some(name) = self.configured {
            return found(name.trim().to_owned(), "configuration");
        }
        let mut tried =
            vec![Tried { source: "-n and Region in cfg.yaml", absent: "not given".into() }];
        for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
            match self.variable(name) {
                Ok(region) => return found(region, name),
                Err(absent) => tried.push(Tried { source: name, absent }),
            }
        }
        if !self.local_mode {
            let source = "ECS metadata file";
            match self.of_task_file() {
                Ok(region) => return found(region, source),
                Err(absent) => tried.push(Tried { source, absent }),
            }
            let source = "ECS task metadata";
            match self.of_task_service().await {
                Ok(region) => return found(region, source),
                Err(absent) => tried.push(Tried { source, absent }),
            }
        }
        let files = SharedFiles::read(self.environment);
        if let Some(region) = files.region() {
            return found(region.to_owned(), PROFILE);
        }
        let faults: String = files.remarks().iter().map(|it| format!(" ({it})")).collect();
        let reason = format!("the profile {:?} has no region{faults}", files.selected());
        tried.push(Tried { source: PROFILE, absent: reason.into() });
        let of_instance = match self.local_mode {
            true => Err("not asked in local mode (-o)".into()),
            false => self.of_instance(&files).await,
        };
        let source = "instance metadata";
        match of_instance {
            Ok(region) => found(region, source),
            Err(absent) => {
                tried.push(Tried { source, absent });
                Err(RegionError(tried))
            }
        }
    }

    /// Returns the value of the environment variable `name`. An empty value is an error, as for a
    /// variable that is not set.
    fn variable(&self, name: &str) -> Found {
        variable(self.environment, name).ok_or_else(|| "not set".into())
    }

    /// Reads the region from the file that the ECS agent of an EC2 host writes for each container.
    fn of_task_file(&self) -> Found {
        if !self.variable("ECS_ENABLE_CONTAINER_METADATA")?.eq_ignore_ascii_case("true") {
            return Err("ECS_ENABLE_CONTAINER_METADATA is not true".into());
        }
        let path = self.variable("ECS_CONTAINER_METADATA_FILE")?;
        let text = read_text(Path::new(&path)).map_err(|error| format!("{path}: {error}"))?;
        let metadata = serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))?;
        region_of_task(&metadata)
    }

    /// Asks the metadata service of the ECS agent, on EC2 hosts and on Fargate.
    async fn of_task_service(&self) -> Found {
        let address = self.variable("ECS_CONTAINER_METADATA_URI_V4")?;
        let address = format!("{}/task", address.trim_end_matches('/'));
        let uri = address.parse().map_err(|error| format!("{address}: {error}"))?;
        let answer = tokio::time::timeout(METADATA_TIMEOUT, get(uri, self.resolver));
        let answer = answer.await.map_err(|_| format!("{address}: no answer within a second"))?;
        let metadata = answer.and_then(|body| {
            serde_json::from_slice(&body)
                .map_err(|error| format!("the answer is not JSON: {error}").into())
        });
        region_of_task(&metadata.map_err(|absent| Absent {
            reason: format!("{address}: {}", absent.reason),
            ..absent
        })?)
    }

    /// Asks the instance metadata service.
    async fn of_instance(&self, files: &SharedFiles) -> Found {
        let is_disabled = self.variable("AWS_EC2_METADATA_DISABLED");
        if is_disabled.is_ok_and(|value| value.eq_ignore_ascii_case("true")) {
            return Err("AWS_EC2_METADATA_DISABLED is true".into());
        }
        let transport = Transport::local(self.resolver.clone());
        let metadata =
            InstanceMetadata::new(self.environment, files, &transport, INSTANCE_TRY_COUNT)?;
        let mut region = metadata.get(INSTANCE_PATH).await;
        if let Err(ImdsError::ErrorResponse(_)) = region {
            let document = metadata.get(IDENTITY_PATH).await;
            region = document.map(|document| region_of_document(&document));
        }
        let region = region.map_err(|error| {
            let advice = super::absence::metadata_advice(&error);
            let advice = advice.map(|advice| format!(". {advice}")).unwrap_or_default();
            Absent {
                reason: format!("{}{advice}", with_all_causes(&error)),
                is_without_network: is_without_network(&error),
            }
        })?;
        let is_name = |name: &str| {
            let is_valid = |character: char| character.is_ascii_alphanumeric() || character == '-';
            !name.is_empty() && name.len() <= 64 && name.chars().all(is_valid)
        };
        if is_name(&region) { Ok(region) } else { Err("the answer is not a region".into()) }
    }
}

/// Returns the region in the identity document of an instance, or an empty text.
fn region_of_document(document: &str) -> String {
    let document = serde_json::from_str::<Value>(document).unwrap_or_default();
    document.get("region").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Returns the fourth part of the task's ARN: `arn:aws:ecs:us-west-2:123456789012:task/...`.
fn region_of_task(metadata: &Value) -> Found {
    let arn = metadata.get("TaskARN").and_then(Value::as_str).ok_or("TaskARN is missing")?;
    let mut parts = arn.split(':');
    match (parts.next(), parts.nth(1), parts.next()) {
        (Some("arn"), Some("ecs"), Some(region)) if !region.is_empty() => Ok(region.to_owned()),
        _ => Err("TaskARN is not the ARN of an ECS task".into()),
    }
}

/// Gets `uri` and returns the body of the answer if its status is a success.
async fn get(uri: Uri, resolver: &Resolver) -> Result<Bytes, Absent> {
    let pool = super::calls::pool(&Transport::local(resolver.clone()), METADATA_TIMEOUT);
    let mut request = Request::new(Bytes::new().into());
    *request.uri_mut() = uri;
    let answer = pool.request(request).await.map_err(|error| Absent {
        reason: with_all_causes(&error),
        is_without_network: is_without_network(&error),
    })?;
    if !answer.status().is_success() {
        return Err(format!("the answer is {}", answer.status()).into());
    }
    let body =
        Limited::new(ReceivedBody::of(answer).into_body(), METADATA_BYTES_MAX).collect().await;
    Ok(body.map_err(|error| error.to_string())?.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::{Read, Write};

    async fn find(
        configured: Option<&str>,
        local_mode: bool,
        variables: &[(&str, &str)],
    ) -> Result<String, String> {
        let environment = |name: &str| {
            let metadata = [("AWS_EC2_METADATA_DISABLED", "true"), ("HOME", "/nonexistent")];
            let found = variables.iter().chain(&metadata).find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let resolver = Resolver::start().unwrap();
        let sources =
            Sources { configured, local_mode, environment: &environment, resolver: &resolver };
        let found = sources.find().await.map(|region| region.as_ref().to_owned());
        found.map_err(|error| error.to_string())
    }

    /// Starts a server that answers one request with `status` and `body`. Returns its address.
    fn serve_once(status: &'static str, body: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v4/x", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1000];
            let length = stream.read(&mut request).unwrap();
            assert!(request[..length].starts_with(b"GET /v4/x/task HTTP/1.1\r\n"));
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        });
        address
    }

    #[tokio::test]
    async fn the_configured_region_comes_first_and_the_environment_after_it() {
        let both = [("AWS_REGION", " of-aws "), ("AWS_DEFAULT_REGION", "default")];
        assert_eq!(find(Some("eu-west-1"), true, &both).await.unwrap(), "eu-west-1");
        assert_eq!(find(None, true, &both).await.unwrap(), "of-aws");
        let empty = [("AWS_REGION", " "), ("AWS_DEFAULT_REGION", "default")];
        assert_eq!(find(None, true, &empty).await.unwrap(), "default");
    }

    #[tokio::test]
    async fn the_task_of_a_container_knows_its_region() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metadata.json");
        let arn = "arn:aws:ecs:ap-south-1:012345678901:task/cluster/x";
        std::fs::write(&path, json!({ "TaskARN": arn }).to_string()).unwrap();
        let file = [
            ("ECS_ENABLE_CONTAINER_METADATA", "true"),
            ("ECS_CONTAINER_METADATA_FILE", path.to_str().unwrap()),
        ];
        assert_eq!(find(None, false, &file).await.unwrap(), "ap-south-1");
        let upper = [("ECS_ENABLE_CONTAINER_METADATA", "TRUE"), file[1]];
        assert_eq!(find(None, false, &upper).await.unwrap(), "ap-south-1");
        let arn = r#"{"TaskARN":"arn:aws:ecs:eu-north-1:012345678901:task/c/x"}"#;
        let address = serve_once("200 OK", arn);
        let service = [("ECS_CONTAINER_METADATA_URI_V4", address.as_str())];
        assert_eq!(find(None, false, &service).await.unwrap(), "eu-north-1");
        // In local mode, neither the task file nor the task service of ECS is read.
        let error = find(None, true, &[file[0], file[1], service[0]]).await.unwrap_err();
        assert!(!error.contains("ECS"), "{error}");
    }

    #[tokio::test]
    async fn without_a_region_the_error_lists_what_was_tried_and_why_it_failed() {
        let error = find(None, false, &[]).await.unwrap_err();
        for part in [
            "-n and Region in cfg.yaml: not given",
            "AWS_REGION: not set",
            "AWS_DEFAULT_REGION: not set",
            "ECS metadata file: not set",
            "ECS task metadata: not set",
            "shared AWS configuration: ",
            "instance metadata: AWS_EC2_METADATA_DISABLED is true",
        ] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        let error = find(None, true, &[]).await.unwrap_err();
        assert!(error.contains("not asked in local mode"), "{error}");
    }

    #[tokio::test]
    async fn the_error_says_what_is_wrong_with_metadata() {
        for (status, body, reason) in [
            ("404 Not Found", "", "404 Not Found"),
            ("200 OK", "bad!", "the answer is not JSON"),
            ("200 OK", "{}", "TaskARN is missing"),
            ("200 OK", r#"{"TaskARN":"x"}"#, "TaskARN is not the ARN of an ECS task"),
        ] {
            let address = serve_once(status, body);
            let service = [("ECS_CONTAINER_METADATA_URI_V4", address.as_str())];
            let error = find(None, false, &service).await.unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        let file = [
            ("ECS_ENABLE_CONTAINER_METADATA", "true"),
            ("ECS_CONTAINER_METADATA_FILE", "/nonexistent/metadata"),
        ];
        let error = find(None, false, &file).await.unwrap_err();
        assert!(error.contains("/nonexistent/metadata: No such file"), "{error}");
    }

    #[tokio::test]
    async fn a_metadata_service_that_hangs_costs_a_second() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = [("ECS_CONTAINER_METADATA_URI_V4", address.as_str())];
        let error = find(None, false, &service).await.unwrap_err();
        assert!(error.contains("no answer within a second"), "{error}");
    }
}
