//! Checks of the loaded configuration: values that look wrong, and settings without effect.
//!
//! In: a [`Config`]. Out: warnings, or an error for an endpoint that is not a valid address. The
//! original daemon accepts any text as region and role, so a text that looks wrong is a warning
//! here: a configuration that works with the original daemon must work with xrayd. No I/O, no
//! clock.

use super::{Config, ConfigError, Source};
use crate::aws::endpoint::Endpoint;

impl Config {
    /// Checks the endpoint, and adds a warning for each value that looks wrong.
    ///
    /// # Errors
    ///
    /// Fails if the endpoint is not a valid address.
    pub(super) fn check(&mut self) -> Result<(), ConfigError> {
        if let Some(text) = &self.endpoint {
            let name = match self.sources.get("Endpoint") {
                Some(Source::Variable(name)) => name,
                _ => "Endpoint",
            };
            Endpoint::resolve(Some(text), "", self.endpoint_variant)
                .map_err(|source| ConfigError::Endpoint { name, source })?;
        }
        if self.no_verify_ssl {
            self.warn(
                "NoVerifySSL is on: certificates are not checked, so an attacker on the network path \
                 can read and change what is sent. For a private authority use AWS_CA_BUNDLE \
                 instead",
            );
        }
        if let Some(region) = self.region.clone().filter(|region| !is_region(region)) {
            self.warn(format!("{region:?} does not look like a region, for example eu-west-1"));
        }
        if let Some(role) = self.role_arn.clone().filter(|role| !is_role_arn(role)) {
            self.warn(format!(
                "{role:?} does not look like the ARN of a role: arn:aws:iam::ACCOUNT:role/NAME"
            ));
        }
        let has_size = ["Spool.MaxSizeMB", "Spool.MaxAgeHours"]
            .iter()
            .any(|key| self.sources.contains_key(key));
        if has_size && self.spool_path.is_none() {
            self.warn(
                "Spool.MaxSizeMB and Spool.MaxAgeHours have no effect without a folder for the \
                 spool (--spool-path, Spool.Path)",
            );
        }
        Ok(())
    }

    fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }
}

/// Whether the text looks like a region: lower-case letters, digits and hyphens, with a number at
/// the end. The names of all AWS regions have this form.
fn is_region(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let number = text.rsplit('-').next().unwrap_or_default();
    text.bytes().all(is_plain)
        && text.contains('-')
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the text is the ARN of a role: `arn:PARTITION:iam::ACCOUNT:role/NAME`. A path may stand
/// before `NAME`.
fn is_role_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts[..] else { return false };
    partition.starts_with("aws")
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && resource.strip_prefix("role/").is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        config.check().unwrap();
        config.warnings
    }

    #[test]
    fn regions_and_roles_of_every_partition_pass_and_typing_errors_are_warnings() {
        for region in ["us-east-1", "us-gov-west-1", "cn-north-1", "us-isob-east-1", "mx-central-1"]
        {
            assert!(is_region(region), "{region}");
        }
        for region in ["us-east", "US-EAST-1", "us-east-1a", "useast1", "eu west-1", "us-east-"] {
            let warnings = warnings(|config| config.region = Some(region.to_owned()));
            assert!(warnings[0].contains(region) && warnings.len() == 1, "{warnings:?}");
        }
        for role in ["arn:aws:iam::123456789012:role/x", "arn:aws-cn:iam::123456789012:role/a/b/x"]
        {
            assert!(is_role_arn(role), "{role}");
        }
        for role in [
            "x",
            "arn:aws:iam::123456789012:user/x",
            "arn:aws:iam::12345678901:role/x",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:sts::123456789012:assumed-role/x/y",
        ] {
            let warnings = warnings(|config| config.role_arn = Some(role.to_owned()));
            assert!(warnings[0].contains(role) && warnings.len() == 1, "{warnings:?}");
        }
    }

    #[test]
    fn settings_without_effect_are_warnings() {
        assert!(warnings(|_| {}).is_empty());
        let size = |config: &mut Config| {
            config.sources.insert("Spool.MaxSizeMB", Source::Flag("--spool-size-mb"));
        };
        assert!(warnings(size)[0].contains("--spool-path"));
        let with_folder = |config: &mut Config| {
            size(config);
            config.spool_path = Some("/x".into());
        };
        assert!(warnings(with_folder).is_empty());
    }

    #[test]
    fn an_invalid_endpoint_is_an_error_that_names_its_source() {
        let mut config = Config { endpoint: Some("ftp://h".to_owned()), ..Config::default() };
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with("Endpoint \"ftp://h\" is not"), "{error}");
        config.sources.insert("Endpoint", Source::Variable("AWS_ENDPOINT_URL"));
        let error = config.check().unwrap_err().to_string();
        assert!(error.starts_with("AWS_ENDPOINT_URL \"ftp://h\" is not"), "{error}");
    }
}
