//! Checks of the loaded configuration: values that look wrong, and settings without effect.
//!
//! In: a [`Config`]. Out: warnings, or an error for an endpoint or a port's address that is not
//! valid. The
//! original daemon accepts any text as region and role, so a text that looks wrong is a warning
//! here: a configuration that works with the original daemon must work with xrayd. No I/O, no
//! clock.

use super::settings::first_name;
use super::{Config, ConfigError, Source};
use crate::aws::endpoint::Endpoint;
use crate::base::address;
use crate::pipeline::receive::ReceiveBackend;

impl Config {
    /// Checks the endpoint and the addresses of the ports, and adds a warning for each value that
    /// looks wrong.
    ///
    /// # Errors
    ///
    /// Fails if the endpoint is not a valid address, or the address of a port is not `HOST:PORT`.
    pub(super) fn check(&mut self) -> Result<(), ConfigError> {
        self.check_address("Socket.UDPAddress", &self.udp_address)?;
        self.check_address("Socket.TCPAddress", &self.tcp_address)?;
        for (key, address) in [
            ("Otlp.HttpAddress", &self.otlp_http_address),
            ("Otlp.GrpcAddress", &self.otlp_grpc_address),
        ] {
            address.as_ref().map_or(Ok(()), |address| self.check_address(key, address))?;
        }
        if let Some(text) = &self.endpoint {
            let name = match self.sources.get("Endpoint") {
                Some(Source::Variable(name)) => name,
                _ => "Endpoint",
            };
            Endpoint::resolve(Some(text), "", self.endpoint_variant)
                .map_err(|source| ConfigError::Endpoint { name, source })?;
        } else if let Some(region) = &self.region
            && !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        {
            let problem = "is not a region: it cannot be a part of a host name";
            return Err(self.wrong("Region", format!("{region:?} {problem}")));
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
        let reads_one =
            matches!(self.receive_backend, ReceiveBackend::Uring | ReceiveBackend::TokioUring);
        if reads_one && self.socket_count > 1 {
            self.warn(
                "Receive.Sockets has no effect with this receive backend, which reads one socket for \
                 each receiver: use auto or recvmmsg (--receiver, Receive.Backend)",
            );
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

    /// Checks the form of an address. Whether a name exists is seen when the port is opened.
    fn check_address(&self, key: &'static str, address: &str) -> Result<(), ConfigError> {
        address::check_form(address)
            .map_err(|reason| self.wrong(key, format!("{address:?} is not HOST:PORT: {reason}")))
    }

    /// Returns the error for the value of a setting. It names the place of the value.
    fn wrong(&self, key: &'static str, problem: String) -> ConfigError {
        match self.sources.get(key) {
            Some(Source::File(path)) => {
                ConfigError::Key { path: path.clone(), key: key.to_owned(), problem }
            }
            Some(Source::Variable(name)) => ConfigError::Variable { name, problem },
            Some(Source::Flag(names)) => ConfigError::Flag { flag: first_name(names), problem },
            None => ConfigError::Flag { flag: key, problem },
        }
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
        for region in ["us-east", "US-EAST-1", "us-east-1a", "useast1", "us-east-"] {
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
    fn a_region_that_no_host_name_can_have_is_an_error_without_an_endpoint() {
        let mut config = Config { region: Some("eu west-1".to_owned()), ..Config::default() };
        config.sources.insert("Region", Source::Flag("-n, --region"));
        let error = config.check().unwrap_err().to_string();
        assert_eq!(
            error,
            "flag -n: \"eu west-1\" is not a region: it cannot be a part of a host name"
        );
        config.endpoint = Some("http://127.0.0.1".to_owned());
        config.check().unwrap();
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
