//! The tables of variables and files, for `xray -h` and the man page. No I/O, no clock.

/// Environment variables that belong together, and what they are for.
pub(super) const VARIABLES: &[(&str, &str)] = &[
    ("AWS_REGION, AWS_DEFAULT_REGION", "Region, if neither flag nor file has one"),
    (
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_ACCESS_KEY, \
         AWS_SECRET_KEY",
        "Credentials",
    ),
    (
        "AWS_PROFILE, AWS_DEFAULT_PROFILE, AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE",
        "Profile, and paths of the shared AWS files",
    ),
    ("AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN", "Web identity, as in a pod with a role"),
    (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, AWS_CONTAINER_CREDENTIALS_FULL_URI, \
         AWS_CONTAINER_AUTHORIZATION_TOKEN, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "Credentials of a container, set by ECS and EKS",
    ),
    (
        "ECS_CONTAINER_METADATA_URI_V4, ECS_ENABLE_CONTAINER_METADATA, ECS_CONTAINER_METADATA_FILE",
        "Region of an ECS task, set by ECS",
    ),
    (
        "AWS_EC2_METADATA_DISABLED, AWS_EC2_METADATA_V1_DISABLED, \
         AWS_EC2_METADATA_SERVICE_ENDPOINT, AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
        "Whether and where the EC2 instance metadata is asked",
    ),
    (
        "AWS_ENDPOINT_URL_XRAY, AWS_ENDPOINT_URL",
        "URL of the service; the first wins over the file, the second does not",
    ),
    ("AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT", "Which endpoint of the region is used"),
    (
        "HTTPS_PROXY, https_proxy, NO_PROXY, no_proxy",
        "Proxy, and hosts that are reached without it",
    ),
    (
        "AWS_CA_BUNDLE, SSL_CERT_FILE, SSL_CERT_DIR",
        "Certificates: instead of, or in addition to, those of the system",
    ),
    ("AWS_HOSTNAME, AWS_INSTANCE_ID", "Names of the host in telemetry"),
    ("AWS_EXECUTION_ENV", "Part of the user agent"),
];

/// Files of the daemon, and what they are for.
pub(super) const FILES: &[(&str, &str)] = &[
    ("/etc/amazon/xray/cfg.yaml", "Configuration; else cfg.yaml in the working directory"),
    ("~/.aws/config, ~/.aws/credentials", "Shared AWS files: profiles, region, credentials"),
    ("/etc/default/xray, /etc/sysconfig/xray", "Variables of the service of systemd"),
    ("/var/log/xray/xray.log", "Log of the service of systemd"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_are_those_of_the_table_of_compatibility() {
        let document = include_str!("../../../docs/compatibility.md");
        let (_, table) = document.split_once("## Variables").unwrap();
        let (table, _) = table.split_once("## ").unwrap();
        let listed: Vec<_> = VARIABLES.iter().flat_map(|(names, _)| names.split(", ")).collect();
        for name in &listed {
            // The table has some names without their beginning: `_FULL_URI`.
            let is_there = name
                .match_indices('_')
                .any(|(index, _)| table.contains(&format!("`{}`", &name[index..])));
            assert!(is_there || table.contains(&format!("`{name}`")), "{name} is not in the table");
        }
        // Each second part is between back quotes.
        for name in table.split('`').skip(1).step_by(2) {
            let is_name = |it: char| it == '_' || it.is_ascii_uppercase() || it.is_ascii_digit();
            let is_variable = name.contains('_') && name.to_uppercase().chars().all(is_name);
            let is_listed = listed.iter().any(|it| it.ends_with(name));
            assert!(!is_variable || is_listed, "{name} is not in VARIABLES");
        }
    }
}
