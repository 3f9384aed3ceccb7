//! Reads `cfg.yaml`: the keys of the original daemon, and the keys that xrayd adds.
//!
//! In: the text of a file. Out: fields of the [`Config`], or an error that names file, key and
//! value. For a key that older versions of the original daemon had, the error says what to write
//! instead. Bound: [`FILE_BYTES_MAX`]. Only [`read`] and
//! [`read_from`] do I/O.

use super::cli::Flags;
use super::kinds::{Form, Warning, shown};
use super::numbers::whole_number;
use super::yaml::{self, Entry};
use super::{Config, ConfigError, SETTINGS, Setting, Source};
use serde_json::Value;
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

/// Keys that the original daemon accepts and does not use.
const KEYS_WITHOUT_EFFECT: [&str; 3] =
    ["proxyserver.idleconntimeout", "proxyserver.maxidleconns", "proxyserver.maxidleconnsperhost"];

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
    /// version may be missing. A value that is not allowed is only a warning if `flags` has a value
    /// for the same setting.
    ///
    /// # Errors
    ///
    /// Fails if the text is not YAML, or a key or value is not allowed.
    pub(super) fn apply_file(
        &mut self,
        path: &Path,
        text: &str,
        strict: bool,
        flags: &Flags,
    ) -> Result<(), ConfigError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let entries = yaml::entries(text, is_section)
            .map_err(|reason| ConfigError::Syntax { path: path.to_owned(), reason })?;
        let wrong = |key: &str, problem: String| ConfigError::Key {
            path: path.to_owned(),
            key: key.to_owned(),
            problem,
        };
        let mut warn = |key: &str, warning: &str| {
            self.warnings.push(format!("{}: {key}: {warning}", path.display()));
        };
        if strict && !entries.iter().any(|it| it.key == VERSION && !it.value.is_null()) {
            return Err(wrong(VERSION, "it is missing; write Version: 2".to_owned()));
        }
        let mut settings = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let Entry { key, value, .. } = entry;
            let is_last = !entries[index + 1..].iter().any(|it| it.key == *key);
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
                match is_last {
                    true => settings.push((setting, entry)),
                    false => warn(key, "it is there more than once; the last one counts"),
                }
            } else if key == VERSION {
                if is_last && !value.is_null() {
                    check_version(value).map_err(|problem| wrong(key, problem))?;
                }
            } else if is_section(key) {
                if !value.is_null() {
                    return Err(wrong(key, "it is not a list of keys and values".to_owned()));
                }
            } else if KEYS_WITHOUT_EFFECT.contains(&key.as_str()) {
                warn(key, "it has no effect, as in the original daemon");
            } else {
                let old = OLD_KEYS.iter().find(|(name, _)| name == key).map(|(_, what)| *what);
                let problem =
                    old.unwrap_or("there is no such key; remove it or correct its spelling");
                if strict {
                    return Err(wrong(key, problem.to_owned()));
                }
                warn(key, &format!("ignored: {problem}"));
            }
        }
        for (setting, entry) in settings {
            let warning = match self.apply_entry(path, setting, entry) {
                Err(problem) if flags.has(setting) => Some(format!("{problem} (a flag counts)")),
                result => result.map_err(|problem| wrong(&entry.key, problem))?,
            };
            let name = |warning| format!("{}: {}: {warning}", path.display(), entry.key);
            self.warnings.extend(warning.map(name));
        }
        self.config_path = Some(path.to_owned());
        Ok(())
    }

    /// Applies one entry. An empty value leaves the setting unchanged.
    fn apply_entry(
        &mut self,
        path: &Path,
        setting: &Setting,
        entry: &Entry,
    ) -> Result<Warning, String> {
        let is_text = setting.form == Form::Text;
        if entry.value.is_null() || is_text && entry.value.as_str() == Some("") {
            return Ok(None);
        }
        let value = match &entry.written {
            Some(written) if is_text => &Value::from(written.as_str()),
            _ => &entry.value,
        };
        let warning = setting.set(self, value)?;
        if setting.counts(value) {
            self.sources.insert(setting.key, Source::File(path.to_owned()));
        }
        Ok(warning)
    }
}

/// Checks the version of the file's format: 1 or 2, as with the original daemon.
fn check_version(value: &Value) -> Result<(), String> {
    match whole_number(value) {
        Ok((1 | 2, _)) => Ok(()),
        _ => Err(format!("{} is not supported; write 1 or 2", shown(value))),
    }
}

/// Returns whether a setting's key is in this section. `Socket.UDPAddress` is in `Socket`.
fn is_section(name: &str) -> bool {
    let of_settings = SETTINGS.iter().map(|setting| setting.key);
    let of_old_keys = OLD_KEYS.iter().map(|(key, _)| *key);
    let mut sections = of_settings
        .chain(of_old_keys)
        .chain(KEYS_WITHOUT_EFFECT)
        .filter_map(|key| key.split_once('.'));
    sections.any(|(section, _)| section == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::transport::ProxyAddress;
    use crate::aws::{Compression, SpansTo};
    use crate::base::log::{LogFormat, LogLevel};
    use crate::pipeline::receive::ReceiveBackend;

    fn apply(text: &str, strict: bool) -> Result<Config, String> {
        let mut config = Config::default();
        let applied = config.apply_file(Path::new("cfg.yaml"), text, strict, &Flags::default());
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
        // The only difference: 8 is the original daemon's default, and a number in a file is fixed.
        assert_eq!(config, Config { config_path: path, concurrency: 8, ..Config::default() });
        // Editors on Windows write a byte order mark and CR LF.
        let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        assert_eq!(apply(&windows, true).unwrap(), config);
    }

    #[test]
    fn every_key_has_its_effect() {
        let text = "TotalBufferSizeMB: 16\nConcurrency: 3\nConcurrencyMax: 90\nRegion: r\nEndpoint: http://e\n\
             Socket: {UDPAddress: \"u:1\", TCPAddress: \"t:1\"}\n\
             Logging: {LogRotation: no, LogLevel: warn, LogPath: /l, Format: json}\n\
             Receive: {Backend: tokio-uring, Receivers: 5, Sockets: 7, SharePort: yes, Pin: off}\n\
             Upload: {ConnectTimeoutSeconds: 1, RequestTimeoutSeconds: 2, PingIntervalSeconds: 3}\n\
             ProxyServer: {AllowedPaths: [/GetGroups, \"*\"], TimeoutSeconds: 4}\n\
             Spool: {Path: /s, MaxSizeMB: 20, MaxAgeHours: 24}\n\
             ProxyAddress: \"http://p:1\"\nNoVerifySSL: true\n\
             LocalMode: true\nRoleARN: a\nResourceARN: b\nTelemetry: false\n\
             Otlp: {HttpAddress: \"h:1\", GrpcAddress: \"g:1\", To: segments, Compression: none}\n\
             Tail: yes\nShutdownSeconds: 20\nVersion: 1\n";
        let expected = Config {
            receive_backend: ReceiveBackend::TokioUring,
            receiver_count: 5,
            socket_count: 7,
            share_port: true,
            pin: Some(false),
            udp_address: "u:1".into(),
            tcp_address: "t:1".into(),
            otlp_http_address: Some("h:1".into()),
            otlp_grpc_address: Some("g:1".into()),
            otlp_to: SpansTo::Segments,
            otlp_compression: Compression::None,
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
            concurrency_max: 90,
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
    fn empty_keys_and_zero_are_the_defaults_in_a_file_that_c_names() {
        let text = "Version: 2\nTotalBufferSizeMB:\nConcurrency: 0\nRegion: ~\nEndpoint:\n\
             Socket: {UDPAddress: , TCPAddress: \"\"}\nLogging:\n  LogLevel:\n  LogPath: null\n\
             LocalMode:\nNoVerifySSL: ~\nProxyAddress:\nReceive:\nSpool: {}\n";
        let expected = Config { config_path: Some("cfg.yaml".into()), ..Config::default() };
        assert_eq!(apply(text, true).unwrap(), expected);
    }

    #[test]
    fn the_last_one_of_a_repeated_key_counts_with_a_warning() {
        let text = "Version: 2\nRegion: a\nSocket: {UDPAddress: \"u:1\"}\nRegion: b\n\
             Socket: {TCPAddress: \"t:1\"}\n";
        let config = apply(text, true).unwrap();
        assert_eq!(config.region.as_deref(), Some("b"));
        // A repeated section adds its keys.
        assert_eq!((&*config.udp_address, &*config.tcp_address), ("u:1", "t:1"));
        assert_eq!(
            config.warnings,
            ["cfg.yaml: Region: it is there more than once; the last one counts"]
        );
    }

    #[test]
    fn numbers_and_booleans_are_texts_as_written_for_keys_that_expect_a_text() {
        let config = apply("Region: 0x10\nResourceARN: 1.10\nRoleARN: yes\n", false).unwrap();
        let texts = [config.region, config.resource_arn, config.role_arn].map(Option::unwrap);
        assert_eq!(texts, ["0x10", "1.10", "yes"]);
    }

    #[test]
    fn an_unknown_log_level_leaves_the_default_with_a_warning_and_warning_means_warn() {
        let level = |word: &str| apply(&format!("Logging: {{LogLevel: {word}}}\n"), false).unwrap();
        assert_eq!(level("warning").log_level, LogLevel::Warn);
        assert_eq!(level("loud").log_level, LogLevel::Prod);
        assert!(level("loud").warnings[0].contains("\"loud\" is no log level"));
        assert!(level("warning").warnings.is_empty());
    }

    #[test]
    fn keys_that_the_original_daemon_accepts_without_effect_are_warnings() {
        let config = apply("Version: 2\nproxyserver: {maxidleconns: 5}\n", true).unwrap();
        assert!(config.warnings[0].contains("has no effect"), "{:?}", config.warnings);
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
            ("Version: 2\nConcurrency: many\n", "Concurrency: \"many\" is not a whole number"),
            ("Version: 2\nRegion: [r]\n", "Region: [\"r\"] is not a text"),
            ("Version: 2\nRegion: {r: s}\n", "Region: {\"r\":\"s\"} is not a text"),
            ("Version: 2\nRegoin:\n", "Regoin: there is no such key"),
            ("Version: 2\nShutdownSeconds: 4000\n", "from 0 to 3600"),
            ("Version: 2\nLocalMode: maybe\n", "LocalMode: \"maybe\" is neither true nor false"),
            ("Version: 2\nLogging: {Format: xml}\n", "Logging.Format: \"xml\" is no log format"),
            ("Version: 2\nReceive: {Backend: epoll}\n", "Give auto, uring, recvmmsg or tokio-u"),
            ("Version: 2\nReceive: {Receivers: 300}\n", "Receive.Receivers: 300 is out of"),
            ("Version: 2\nReceive: {Sockets: 257}\n", "Receive.Sockets: 257 is out of"),
            ("Version: 2\nUpload: {RequestTimeoutSeconds: 0}\n", "write a number from 1 to 300"),
            ("Version: 2\nProxyServer: {TimeoutSeconds: 61}\n", "write a number from 1 to 60"),
            ("Version: 2\nProxyServer: {AllowedPaths: /x}\n", "\"/x\" is not a list of paths"),
            ("Version: 2\nProxyServer: {AllowedPaths: [x]}\n", "\"x\" is not a path; write one"),
            ("Version: 2\nSpool: {MaxSizeMB: 1}\n", "Spool.MaxSizeMB: 1 is out of bounds"),
            ("Version: 2\nSpool: {MaxAgeHours: 9999}\n", "Spool.MaxAgeHours: 9999 is out of"),
            ("Version: 2\nProxyAddress: ftp://p\n", "ProxyAddress: it is not the address of a "),
            ("Version: 2\nProxyAddress: [5]\n", "ProxyAddress: it is not a text"),
            ("Version: 2\nTelemetry: perhaps\n", "Telemetry: \"perhaps\" is neither true nor"),
            ("Version: [2\n", "is not valid YAML"),
            ("- 2\n", "it is not a list of keys"),
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
