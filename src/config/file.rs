//! Reads `cfg.yaml`: the keys of the original daemon, and the keys that xrayd adds.
//!
//! In: the text of a file. Out: fields of the [`Config`], or an error that names file, key and
//! value. For a key that older versions of the original daemon had, the error says what to write
//! instead. Bound: [`FILE_BYTES_MAX`]. Only [`read`] and
//! [`read_from`] do I/O.

use super::kinds::{Form, shown, whole_number};
use super::{Config, ConfigError, SETTINGS, Source};
use serde_json::Value;
use serde_saphyr::UserMessageFormatter;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Maximum size of the file. A larger file is not a configuration.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The key with the version of the file's format. It is not a setting.
pub(super) const VERSION: &str = "Version";

/// Keys of older versions of the original daemon, with the text of the error.
const OLD_KEYS: &[(&str, &str)] = &[
    ("Profile.CPU", "it is no longer supported; remove it"),
    ("Profile.Memory", "it is no longer supported; remove it"),
    ("Socket.BufferSizeKB", "it is no longer supported; remove it"),
    ("Logging.LogFormat", "it is no longer supported; remove it"),
    ("Processor.BatchProcessorQueueSize", "it is no longer supported; remove it"),
    ("LogRotation", "it has moved; write Logging.LogRotation"),
    ("Processor.Region", "it has moved; write Region"),
    ("Processor.Endpoint", "it has moved; write Endpoint"),
    ("Processor.Routine", "it has moved; write Concurrency"),
    ("MemoryLimit", "it has moved; write TotalBufferSizeMB"),
];

/// Reads a file.
///
/// # Errors
///
/// Fails if the file cannot be read, is larger than [`FILE_BYTES_MAX`], or is not UTF-8.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let file =
        File::open(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    read_from(path, file)
}

/// Reads the open file `path`.
///
/// # Errors
///
/// Fails as [`read`] does.
pub(super) fn read_from(path: &Path, file: File) -> Result<String, ConfigError> {
    let error = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(error(io::Error::other("it is larger than 1 MiB")));
    }
    String::from_utf8(bytes).map_err(|_| error(io::Error::other("it is not UTF-8 text")))
}

/// Reads a file. Returns `None` if the file does not exist.
///
/// # Errors
///
/// Fails as [`read`] does, except for a file that does not exist.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, ConfigError> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Config {
    /// Applies the text of a file. `strict` is true for a file that `-c` names: an unknown key or a
    /// missing version is then an error. If `strict` is false, an unknown key is a warning, and the
    /// version may be missing.
    ///
    /// # Errors
    ///
    /// Fails if the text is not YAML, or a key or value is not allowed.
    pub(super) fn apply_file(
        &mut self,
        path: &Path,
        text: &str,
        strict: bool,
    ) -> Result<(), ConfigError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let tree: Value = serde_saphyr::from_str(text).map_err(|error| {
            let reason = error.without_snippet().render_with_formatter(&UserMessageFormatter);
            ConfigError::Syntax { path: path.to_owned(), reason }
        })?;
        let wrong = |key: &str, problem: String| ConfigError::Key {
            path: path.to_owned(),
            key: key.to_owned(),
            problem,
        };
        let values = flatten(tree)
            .map_err(|key| wrong(&key, "it is not a list of keys and values".to_owned()))?;
        for (key, value) in &values {
            if key == VERSION {
                check_version(value).map_err(|problem| wrong(key, problem))?;
                continue;
            }
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
                if setting.form != Form::Text || value.as_str() != Some("") {
                    setting.set(self, value).map_err(|problem| wrong(key, problem))?;
                }
                self.sources.insert(setting.key, Source::File(path.to_owned()));
                continue;
            }
            let old = OLD_KEYS.iter().find(|(name, _)| name == key).map(|(_, what)| *what);
            let problem = old.unwrap_or("there is no such key; remove it or correct its spelling");
            if strict {
                return Err(wrong(key, problem.to_owned()));
            }
            self.warnings.push(format!("ignored in {}: {key}: {problem}", path.display()));
        }
        if strict && !values.iter().any(|(key, _)| key == VERSION) {
            return Err(wrong(VERSION, "it is missing; write Version: 2".to_owned()));
        }
        self.config_path = Some(path.to_owned());
        Ok(())
    }
}

/// Checks the version of the file's format: 1 or 2, as with the original daemon.
fn check_version(value: &Value) -> Result<(), String> {
    match whole_number(value) {
        Ok(1 | 2) => Ok(()),
        _ => Err(format!("{} is not supported; write 1 or 2", shown(value))),
    }
}

/// Returns the values by their full keys, such as `Socket.UDPAddress`. Empty sections and empty
/// values are left out.
///
/// # Errors
///
/// Returns the name of a section that is not a list of keys and values.
fn flatten(tree: Value) -> Result<Vec<(String, Value)>, String> {
    let mut values = Vec::new();
    let sections = match tree {
        Value::Null => return Ok(values),
        Value::Object(sections) => sections,
        _ => return Err("the file".to_owned()),
    };
    for (name, value) in sections {
        match value {
            Value::Null => {}
            Value::Object(keys) => {
                let keys = keys.into_iter().filter(|(_, value)| !value.is_null());
                values.extend(keys.map(|(key, value)| (format!("{name}.{key}"), value)));
            }
            _ if is_section(&name) => return Err(name),
            value => values.push((name, value)),
        }
    }
    Ok(values)
}

/// Returns whether a setting's key is in this section. `Socket.UDPAddress` is in `Socket`.
fn is_section(name: &str) -> bool {
    let mut sections = SETTINGS.iter().filter_map(|setting| setting.key.split_once('.'));
    sections.any(|(section, _)| section == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::transport::ProxyAddress;
    use crate::base::log::{LogFormat, LogLevel};
    use crate::pipeline::receive::ReceiveBackend;

    fn apply(text: &str, strict: bool) -> Result<Config, String> {
        let mut config = Config::default();
        let applied = config.apply_file(Path::new("cfg.yaml"), text, strict);
        // These tests compare values and not their sources.
        config.sources.clear();
        applied.map(|()| config).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_of_the_original_daemon_gives_the_defaults() {
        let text = "TotalBufferSizeMB: 0\nConcurrency: 8\nRegion: \"\"\nEndpoint: \"\"\n\
             Socket:\n  UDPAddress: \"127.0.0.1:2000\"\n  TCPAddress: \"127.0.0.1:2000\"\n\
             Logging:\n  LogRotation: true\n  LogLevel: \"prod\"\n  LogPath: \"\"\n\
             LocalMode: false\nResourceARN: \"\"\nRoleARN: \"\"\nNoVerifySSL: false\n\
             ProxyAddress: \"\"\nVersion: 2\n";
        let config = apply(text, true).unwrap();
        let path = Some("cfg.yaml".into());
        assert_eq!(config, Config { config_path: path, ..Config::default() });
        // Editors on Windows write a byte order mark and CR LF.
        let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        assert_eq!(apply(&windows, true).unwrap(), config);
    }

    #[test]
    fn every_key_has_its_effect() {
        let text = "TotalBufferSizeMB: 16\nConcurrency: 3\nRegion: r\nEndpoint: http://e\n\
             Socket: {UDPAddress: \"u:1\", TCPAddress: \"t:1\"}\n\
             Logging: {LogRotation: no, LogLevel: warn, LogPath: /l, Format: json}\n\
             Receive: {Backend: tokio-uring, Receivers: 5, SharePort: yes, Pin: off}\n\
             Upload: {ConnectTimeoutSeconds: 1, RequestTimeoutSeconds: 2, PingIntervalSeconds: 3}\n\
             ProxyServer: {AllowedPaths: [/GetGroups, \"*\"], TimeoutSeconds: 4}\n\
             Spool: {Path: /s, MaxSizeMB: 20, MaxAgeHours: 24}\n\
             ProxyAddress: \"http://p:1\"\nNoVerifySSL: true\n\
             LocalMode: true\nRoleARN: a\nResourceARN: b\nTelemetry: false\n\
             Tail: yes\nShutdownSeconds: 20\nVersion: 1\n";
        let expected = Config {
            receive_backend: ReceiveBackend::TokioUring,
            receiver_count: 5,
            share_port: true,
            pin: Some(false),
            udp_address: "u:1".into(),
            tcp_address: "t:1".into(),
            region: Some("r".into()),
            endpoint: Some("http://e".into()),
            proxy: Some(ProxyAddress::parse("http://p:1").unwrap()),
            no_verify_ssl: true,
            role_arn: Some("a".into()),
            resource_arn: Some("b".into()),
            telemetry: false,
            tail: true,
            local_mode: true,
            buffer_size_mb: 16,
            concurrency: 3,
            connect_timeout_seconds: 1,
            request_timeout_seconds: 2,
            ping_interval_seconds: 3,
            proxy_allowed_paths: vec!["/GetGroups".into(), "*".into()],
            proxy_timeout_seconds: 4,
            spool_path: Some("/s".into()),
            spool_size_mb: 20,
            spool_age_hours: 24,
            log_level: LogLevel::Warn,
            log_format: LogFormat::Json,
            log_path: Some("/l".into()),
            log_rotation: false,
            shutdown_seconds: 20,
            config_path: Some("cfg.yaml".into()),
            // The remaining fields have no key in the file.
            ..Config::default()
        };
        assert_eq!(apply(text, true).unwrap(), expected);
    }

    #[test]
    fn empty_files_sections_and_values_are_fine() {
        for text in ["", "# nothing\n", "Socket:\nRegion:\n", "Logging: {}\n", "---\n"] {
            assert!(apply(text, false).unwrap().warnings.is_empty(), "{text}");
        }
    }

    #[test]
    fn errors_name_the_key_and_say_what_to_write() {
        for (text, message) in [
            ("Version: 3\n", "Version: 3 is not supported; write 1 or 2"),
            ("Region: r\n", "Version: it is missing; write Version: 2"),
            ("Version: 2\nRegoin: r\n", "Regoin: there is no such key"),
            ("Version: 2\nSocket: {UDPAdress: x}\n", "Socket.UDPAdress: there is no such key"),
            ("Version: 2\nSocket: x\n", "Socket: it is not a list of keys"),
            ("Version: 2\nTotalBufferSizeMB: 2\n", "TotalBufferSizeMB: 2 MB is too little"),
            ("Version: 2\nTotalBufferSizeMB: much\n", "\"much\" is not a whole number"),
            ("Version: 2\nConcurrency: 0\n", "Concurrency: 0 is out of bounds"),
            ("Version: 2\nShutdownSeconds: 4000\n", "from 0 to 3600"),
            ("Version: 2\nLocalMode: maybe\n", "LocalMode: \"maybe\" is neither true nor false"),
            ("Version: 2\nLogging: {LogLevel: loud}\n", "Logging.LogLevel: \"loud\" is no log"),
            ("Version: 2\nLogging: {Format: xml}\n", "Logging.Format: \"xml\" is no log format"),
            ("Version: 2\nReceive: {Backend: epoll}\n", "Give auto, uring, recvmmsg or tokio-u"),
            ("Version: 2\nReceive: {Receivers: 300}\n", "Receive.Receivers: 300 is out of"),
            ("Version: 2\nUpload: {RequestTimeoutSeconds: 0}\n", "write a number from 1 to 300"),
            ("Version: 2\nProxyServer: {TimeoutSeconds: 61}\n", "write a number from 1 to 60"),
            ("Version: 2\nProxyServer: {AllowedPaths: /x}\n", "\"/x\" is not a list of paths"),
            ("Version: 2\nProxyServer: {AllowedPaths: [x]}\n", "\"x\" is not a path; write one"),
            ("Version: 2\nSpool: {MaxSizeMB: 1}\n", "Spool.MaxSizeMB: 1 is out of bounds"),
            ("Version: 2\nSpool: {MaxAgeHours: 9999}\n", "Spool.MaxAgeHours: 9999 is out of"),
            ("Version: 2\nProxyAddress: ftp://p\n", "ProxyAddress: it is not the address of an"),
            ("Version: 2\nProxyAddress: 5\n", "ProxyAddress: it is not a text"),
            ("Version: 2\nTelemetry: perhaps\n", "Telemetry: \"perhaps\" is neither true nor"),
            ("Version: 2\nVersion: 2\n", "is not valid YAML"),
            ("Version: [2\n", "is not valid YAML"),
            ("- 2\n", "the file: it is not a list of keys"),
        ] {
            let error = apply(text, true).unwrap_err();
            assert!(error.contains("cfg.yaml") && error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn errors_for_old_keys_say_what_to_write_instead() {
        for (key, what) in OLD_KEYS {
            let text = match key.split_once('.') {
                Some((section, key)) => format!("Version: 2\n{section}: {{{key}: 1}}\n"),
                None => format!("Version: 2\n{key}: 1\n"),
            };
            let error = apply(&text, true).unwrap_err();
            assert!(error.contains(&format!("{key}: {what}")), "{error}");
        }
    }

    #[test]
    fn unknown_keys_are_warnings_in_a_file_that_c_does_not_name() {
        let config = apply("Regoin: r\nRegion: s\n", false).unwrap();
        assert_eq!(config.region.as_deref(), Some("s"));
        assert_eq!(config.warnings.len(), 1);
        assert!(config.warnings[0].contains("Regoin"), "{:?}", config.warnings);
        assert!(apply("Version: 7\n", false).is_err());
        assert!(apply("a: [\n", false).is_err());
    }

    #[test]
    fn errors_name_a_file_that_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large.yaml");
        std::fs::write(&large, vec![b'#'; 1024 * 1024 + 1]).unwrap();
        let binary = folder.path().join("binary.yaml");
        std::fs::write(&binary, [0xff, 0xfe]).unwrap();
        let missing = folder.path().join("missing.yaml");
        for path in [&large, &binary, &missing, &folder.path().to_owned()] {
            let error = read(path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
        assert!(read_if_there(&missing).unwrap().is_none());
        assert!(read_if_there(&large).is_err());
    }

    #[test]
    fn a_file_with_exponential_aliases_is_an_error() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 9].join(", "));
        }
        assert!(apply(&text, false).unwrap_err().contains("not valid YAML"));
    }
}
