//! The errors of the configuration. Each text names the flag, key or variable to change.

use crate::aws::endpoint::EndpointError;
use std::io;
use std::path::PathBuf;

/// Why the configuration cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read
    #[error("the configuration file {path} cannot be read: {source}")]
    Read {
        /// The path of the configuration file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file is not valid YAML, or not a list of keys and values
    #[error("the configuration file {path} cannot be used: {reason}")]
    Syntax {
        /// The path of the configuration file.
        path: PathBuf,
        /// The place in the file, and what is wrong there.
        reason: String,
    },
    /// A key or its value is not allowed
    #[error("the configuration file {path} cannot be used: {key}: {problem}")]
    Key {
        /// The path of the configuration file.
        path: PathBuf,
        /// The key, with its section.
        key: String,
        /// The problem, and the value to write instead.
        problem: String,
    },
    /// The value of an environment variable is not allowed
    #[error("{name} cannot be used: {problem}")]
    Variable {
        /// The name of the variable.
        name: &'static str,
        /// The problem, and the value to write instead.
        problem: String,
    },
    /// The endpoint is not a valid address
    #[error("{name} {source}")]
    Endpoint {
        /// The key or variable that the endpoint came from.
        name: &'static str,
        /// The problem, and the value to write instead.
        source: EndpointError,
    },
    /// The value of a flag is not allowed
    #[error("flag {flag}: {problem}")]
    Flag {
        /// The first name of the flag: `-m`.
        flag: &'static str,
        /// The problem, and the value to write instead.
        problem: String,
    },
}
