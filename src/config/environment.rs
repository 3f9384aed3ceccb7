//! The environment variables that are part of the configuration.
//!
//! In: the environment. Out: fields of the [`Config`]. The variables are not in the table of
//! settings: each follows a rule of the AWS SDKs or of HTTP clients, and most have no key in
//! `cfg.yaml`. No I/O, no clock.

use super::kinds::Proxy;
use super::{Config, ConfigError, Source};
use crate::aws::endpoint::Variant;

impl Config {
    /// Applies the environment, after file and flags. A variable that is empty or blank counts as
    /// not set.
    ///
    /// # Errors
    ///
    /// Fails if a variable has a value that is not allowed.
    pub(super) fn apply_environment(
        &mut self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        let variable = |name| environment(name).filter(|value| !value.trim().is_empty());
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| Some((name, variable(name)?)))
        };
        if self.region.is_none()
            && let Some((name, region)) = first(["AWS_REGION", "AWS_DEFAULT_REGION"])
        {
            self.region = Some(region.trim().to_owned());
            self.sources.insert("Region", Source::Variable(name));
        }
        // `AWS_ENDPOINT_URL_XRAY` wins over the file, as in the AWS SDKs. `AWS_ENDPOINT_URL`, the
        // variable for all services, does not.
        let endpoint = match (variable("AWS_ENDPOINT_URL_XRAY"), &self.endpoint) {
            (Some(endpoint), _) => Some(("AWS_ENDPOINT_URL_XRAY", endpoint)),
            (None, Some(_)) => None,
            (None, None) => variable("AWS_ENDPOINT_URL").map(|it| ("AWS_ENDPOINT_URL", it)),
        };
        if let Some((name, endpoint)) = endpoint {
            self.endpoint = Some(endpoint);
            self.sources.insert("Endpoint", Source::Variable(name));
        }
        if self.proxy.is_none()
            && let Some((name, address)) = first(["HTTPS_PROXY", "https_proxy"])
        {
            Proxy::set_text(&mut self.proxy, &address)
                .map_err(|problem| ConfigError::Variable { name, problem })?;
            self.sources.insert("ProxyAddress", Source::Variable(name));
        }
        self.no_proxy = first(["NO_PROXY", "no_proxy"]).map(|(_, hosts)| hosts).unwrap_or_default();
        let is_true = |name| match variable(name).map(|value| value.trim().to_ascii_lowercase()) {
            None => Ok(false),
            Some(value) if value == "true" => Ok(true),
            Some(value) if value == "false" => Ok(false),
            Some(value) => {
                let problem = format!("{value:?} is neither true nor false");
                Err(ConfigError::Variable { name, problem })
            }
        };
        self.endpoint_variant = Variant {
            fips: is_true("AWS_USE_FIPS_ENDPOINT")?,
            dual_stack: is_true("AWS_USE_DUALSTACK_ENDPOINT")?,
        };
        Ok(())
    }
}
