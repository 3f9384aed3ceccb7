//! The destination of segments: region, endpoint, identity, and the clients that reach it.
//!
//! In: the configuration and the environment. Out: a [`Destination`], which makes the [`Routes`] of
//! the flow. Thread: main; name lookups run on the resolver's threads.

use super::flow::Routes;
use super::{DaemonError, Environment, RESTART_PAUSE};
use crate::aws::endpoint::Endpoint;
use crate::aws::identity::{self, Identity};
use crate::aws::transport::{Resolver, Transport, Trust};
use crate::aws::{Client, Route, Service, Signer, SpanRoute, SpansTo, Timeouts};
use crate::base::clock::Clock;
use crate::base::conditions::{Condition, Conditions};
use crate::base::outage::{Lasting, Outage, PATIENCE};
use crate::base::panics;
use crate::config::Config;
use std::time::Duration;
use tracing::{error, info, warn};

/// Pause between two searches for the region while the network is not there yet.
const NETWORK_PAUSE: Duration = Duration::from_secs(2);

/// The server that segments are sent to, and the identity that signs the requests.
pub(super) struct Destination {
    pub endpoint: Endpoint,
    pub region: String,
    pub identity: Identity,
    pub transport: Transport,
}

impl Destination {
    /// Finds the destination. After a panic the search starts again, [`RESTART_PAUSE`] later. While
    /// the network is not there yet, as during the boot of a host, the search goes on, and the
    /// condition `no_region` says so.
    ///
    /// # Errors
    ///
    /// Fails if the certificates cannot be loaded, no source has a region, or the endpoint is not a
    /// valid address.
    pub async fn find(
        config: &Config,
        environment: &Environment,
        resolver: &Resolver,
        conditions: &Conditions,
    ) -> Result<Self, DaemonError> {
        conditions.begin(Condition::NoRegion, "it is being looked for");
        let mut outage = Outage::with_patience(PATIENCE);
        loop {
            let began_at = Clock::instant();
            // Boxed, because the future of the AWS SDK is large, and is needed only at the start.
            let finding = Box::pin(Self::find_once(config, environment, resolver));
            let pause = match panics::caught(finding).await {
                Ok(Err(DaemonError::Region(error))) if error.is_without_network() => {
                    conditions.begin(Condition::NoRegion, "the network is not there yet");
                    outage.fail(began_at, error.to_string());
                    NETWORK_PAUSE
                }
                Ok(found) => {
                    if let Some(duration) = outage.end(Clock::instant()) {
                        let seconds = duration.as_secs();
                        info!(seconds, "The network is there, after {seconds} s without a region");
                    }
                    return found;
                }
                Err(panicked) => {
                    warn!(
                        "The search for region and endpoint met {panicked}. Trying again in {} s; \
                         segments are kept meanwhile",
                        RESTART_PAUSE.as_secs()
                    );
                    RESTART_PAUSE
                }
            };
            if let Some(lasting) = outage.due(Clock::instant()) {
                say_that_network_is_missing(&lasting);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn find_once(
        config: &Config,
        environment: &Environment,
        resolver: &Resolver,
    ) -> Result<Self, DaemonError> {
        panics::inject("region");
        let trust = Trust {
            bundle_path: environment.bundle_path.clone(),
            accept_any: config.no_verify_ssl,
        };
        let (proxy, no_proxy) = (config.proxy.as_ref(), &config.no_proxy);
        let transport = Transport::new(&trust, proxy, no_proxy, resolver.clone())?;
        let sources = identity::Sources {
            configured: config.region.as_deref(),
            local_mode: config.local_mode,
            environment: &|name| std::env::var(name).ok(),
            resolver,
        };
        let region = sources.find().await?;
        let variant = config.endpoint_variant;
        let endpoint = Endpoint::resolve(config.endpoint.as_deref(), region.as_ref(), variant)?;
        match transport.proxy(&endpoint.uri("/")) {
            Some(proxy) => info!("Sending to {endpoint} in region {region} through {proxy}"),
            None => info!("Sending to {endpoint} in region {region}"),
        }
        let identity = Identity::start(region.clone(), config.role_arn.clone(), transport.clone());
        Ok(Self { endpoint, region: region.to_string(), identity, transport })
    }

    /// Returns the client for the calls of local applications. The client shares no connection with
    /// uploads, so that sampling calls do not wait for uploads.
    pub fn proxy_client(&self, config: &Config) -> Client {
        let request = Duration::from_secs(config.proxy_timeout_seconds);
        let timeouts = Timeouts {
            connect: request.min(Duration::from_secs(config.connect_timeout_seconds)),
            request,
            ping_interval: Duration::from_secs(config.ping_interval_seconds),
        };
        Client::with_small_buffers(&self.transport, timeouts)
    }

    /// Returns the routes for segments, for telemetry and for spans. They share no connection.
    pub fn routes(self, config: &Config, environment: &Environment) -> Routes {
        let timeouts = Timeouts {
            connect: Duration::from_secs(config.connect_timeout_seconds),
            request: Duration::from_secs(config.request_timeout_seconds),
            ping_interval: Duration::from_secs(config.ping_interval_seconds),
        };
        let client = Client::new(&self.transport, timeouts);
        let execution_environment = environment.execution_environment.as_deref();
        let telemetry = Route {
            client: client.with_own_connections(),
            signer: Signer::for_telemetry(&self.endpoint, &self.region, execution_environment),
            identity: self.identity.clone(),
        };
        let signer = Signer::new(&self.endpoint, &self.region, execution_environment);
        let spans = config.takes_spans().then(|| {
            let (signer, identity) = (signer.clone(), self.identity.clone());
            let route = |client| Route { client, signer, identity };
            match config.otlp_to {
                // X-Ray's endpoint for spans is one of HTTP/1.1, says its documentation.
                SpansTo::Endpoint => {
                    let route = route(client.over_http1());
                    Box::new(SpanRoute::new(route, config.otlp_compression)) as Box<dyn Service>
                }
                SpansTo::Segments => Box::new(route(client.with_own_connections())),
            }
        });
        Routes { segments: Route { client, signer, identity: self.identity }, telemetry, spans }
    }
}

fn say_that_network_is_missing(Lasting { duration, reason }: &Lasting) {
    let seconds = duration.as_secs();
    error!(
        seconds,
        "No region for {seconds} s, because the network is not there yet: {reason}. Trying again \
         every {} s; segments are kept meanwhile",
        NETWORK_PAUSE.as_secs()
    );
}
