//! Why there is no configuration, in words that name the flag, key or variable to change.

use crate::aws::endpoint::EndpointError;
use std::io;
use std::path::PathBuf;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read
    #[error("the configuration file {path} cannot be read: {source}")]
    Read {
        /// As given.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no YAML
    #[error("the configuration file {path} is not valid YAML: {reason}")]
    Syntax {
        /// As given.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// A key or its value cannot be used
    #[error("the configuration file {path} cannot be used: {key}: {problem}")]
    Key {
        /// As given.
        path: PathBuf,
        /// With its section.
        key: String,
        /// What is wrong, and what to write instead.
        problem: String,
    },
    /// An environment variable cannot be obeyed
    #[error("{name} cannot be obeyed: {problem}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong, and what to write instead.
        problem: String,
    },
    /// The endpoint is no address
    #[error("{name} {source}")]
    Endpoint {
        /// The key or the variable that it is from.
        name: &'static str,
        /// What is wrong, and what to write instead.
        source: EndpointError,
    },
    /// A flag's value cannot be used
    #[error("flag {flag}: {problem}")]
    Flag {
        /// Its short name.
        flag: &'static str,
        /// What is wrong, and what to write instead.
        problem: String,
    },
}
