//! The keys of `cfg.yaml`, each with what its value does: one table for the reader of the file and
//! for `xray config`.
//!
//! In: a value as the file has it. Out: a field of the [`Config`], or what is wrong with the value
//! and what to write instead. Pure code.

use super::values::{
    CONCURRENCY_MAX, PROXY_TIMEOUT_SECONDS_MAX, RECEIVER_COUNT_MAX, SHUTDOWN_SECONDS_MAX,
    SPOOL_AGE_HOURS_MAX, TIMEOUT_SECONDS_MAX, buffer_size, spool_size, within,
};
use super::{Config, set_address, set_proxy, set_text};
use crate::base::log::{LogFormat, LogLevel};
use crate::pipeline::receive::ReceiveBackend;
use serde_json::Value;

/// How the value of a key is used; the error says what is wrong with it.
pub(super) type Apply = fn(&mut Config, &Value) -> Result<(), String>;

/// Every key, with its section.
pub(super) const KEYS: &[(&str, Apply)] = &[
    ("Version", |_, value| match whole_number(value) {
        Ok(1 | 2) => Ok(()),
        _ => Err(format!("{} is not supported; write 1 or 2", shown(value))),
    }),
    ("TotalBufferSizeMB", |config, value| {
        config.buffer_size_mb = buffer_size(whole_number(value)?)?;
        Ok(())
    }),
    ("Concurrency", |config, value| {
        config.concurrency = count(value, 1, CONCURRENCY_MAX)?;
        Ok(())
    }),
    ("ShutdownSeconds", |config, value| {
        config.shutdown_seconds = within(whole_number(value)?, 0, SHUTDOWN_SECONDS_MAX)?;
        Ok(())
    }),
    ("Region", |config, value| set(&mut config.region, value)),
    ("Endpoint", |config, value| set(&mut config.endpoint, value)),
    ("RoleARN", |config, value| set(&mut config.role_arn, value)),
    ("LocalMode", |config, value| {
        config.local_mode = boolean(value)?;
        Ok(())
    }),
    ("Socket.UDPAddress", |config, value| {
        set_address(&mut config.udp_address, Some(&text(value)?));
        Ok(())
    }),
    ("Socket.TCPAddress", |config, value| {
        set_address(&mut config.tcp_address, Some(&text(value)?));
        Ok(())
    }),
    ("Receive.Backend", |config, value| {
        config.receive_backend = ReceiveBackend::parse(&text(value)?)?;
        Ok(())
    }),
    ("Receive.Receivers", |config, value| {
        config.receiver_count = count(value, 0, RECEIVER_COUNT_MAX)?;
        Ok(())
    }),
    ("Receive.SharePort", |config, value| {
        config.share_port = boolean(value)?;
        Ok(())
    }),
    ("Receive.Pin", |config, value| {
        config.pin = Some(boolean(value)?);
        Ok(())
    }),
    ("Upload.ConnectTimeoutSeconds", |config, value| {
        config.connect_timeout_seconds = timeout(value)?;
        Ok(())
    }),
    ("Upload.RequestTimeoutSeconds", |config, value| {
        config.request_timeout_seconds = timeout(value)?;
        Ok(())
    }),
    ("Upload.PingIntervalSeconds", |config, value| {
        config.ping_interval_seconds = timeout(value)?;
        Ok(())
    }),
    ("ProxyServer.AllowedPaths", |config, value| {
        config.proxy_allowed_paths = allowed_paths(value)?;
        Ok(())
    }),
    ("ProxyServer.TimeoutSeconds", |config, value| {
        config.proxy_timeout_seconds = within(whole_number(value)?, 1, PROXY_TIMEOUT_SECONDS_MAX)?;
        Ok(())
    }),
    ("Spool.Path", |config, value| {
        let path = text(value)?;
        config.spool_path = (!path.is_empty()).then(|| path.into());
        Ok(())
    }),
    ("Spool.MaxSizeMB", |config, value| {
        config.spool_size_mb = spool_size(whole_number(value)?)?;
        Ok(())
    }),
    ("Spool.MaxAgeHours", |config, value| {
        config.spool_age_hours = within(whole_number(value)?, 1, SPOOL_AGE_HOURS_MAX)?;
        Ok(())
    }),
    ("Telemetry", |config, value| {
        config.telemetry = boolean(value)?;
        Ok(())
    }),
    ("Tail", |config, value| {
        config.tail = boolean(value)?;
        Ok(())
    }),
    ("Logging.LogRotation", |config, value| {
        config.log_rotation = boolean(value)?;
        Ok(())
    }),
    ("Logging.LogLevel", |config, value| {
        let level = text(value)?;
        if !level.is_empty() {
            config.log_level = LogLevel::parse(&level)?;
        }
        Ok(())
    }),
    ("Logging.Format", |config, value| {
        config.log_format = LogFormat::parse(&text(value)?)?;
        Ok(())
    }),
    ("Logging.LogPath", |config, value| {
        let path = text(value)?;
        config.log_path = (!path.is_empty()).then(|| path.into());
        Ok(())
    }),
    ("ResourceARN", |config, value| set(&mut config.resource_arn, value)),
    ("ProxyAddress", |config, value| {
        // No text is shown: it may have a password in it.
        let address = value.as_str().ok_or("it is no text; quote it")?;
        set_proxy(&mut config.proxy, address)
    }),
    ("NoVerifySSL", |config, value| {
        config.no_verify_ssl = boolean(value)?;
        Ok(())
    }),
];

/// Keys of files that were written for older versions of the original.
pub(super) const OLD_KEYS: &[(&str, &str)] = &[
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

/// Whether keys have this name before their dot.
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|(key, _)| key.split_once('.').is_some_and(|(section, _)| section == name))
}

fn text(value: &Value) -> Result<String, String> {
    let text = value.as_str().ok_or_else(|| format!("{} is no text; quote it", shown(value)))?;
    Ok(text.to_owned())
}

fn set(field: &mut Option<String>, value: &Value) -> Result<(), String> {
    set_text(field, Some(&text(value)?));
    Ok(())
}

/// True and false, and the other words for them that YAML 1.1 has, which the original reads.
fn boolean(value: &Value) -> Result<bool, String> {
    if let Some(value) = value.as_bool() {
        return Ok(value);
    }
    match value.as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("yes" | "on" | "y" | "true") => Ok(true),
        Some("no" | "off" | "n" | "false") => Ok(false),
        _ => Err(format!("{} is neither true nor false", shown(value))),
    }
}

fn whole_number(value: &Value) -> Result<u64, String> {
    value.as_u64().ok_or_else(|| format!("{} is no whole number", shown(value)))
}

/// A list of paths, or `*`; each as it comes in a request, since nothing is decoded.
fn allowed_paths(value: &Value) -> Result<Vec<String>, String> {
    let one = |value: &Value| {
        let path = text(value)?;
        let is_plain = path.starts_with('/') && !path.contains(['?', '#', '%', ' ', '*']);
        if is_plain || path == "*" {
            Ok(path)
        } else {
            Err(format!("{path:?} is no path; write one such as /GetTraceSummaries, or \"*\""))
        }
    };
    match value.as_array() {
        Some(paths) => paths.iter().map(one).collect(),
        None => Err(format!("{} is no list of paths; write [/PATH, /PATH]", shown(value))),
    }
}

fn timeout(value: &Value) -> Result<u64, String> {
    within(whole_number(value)?, 1, TIMEOUT_SECONDS_MAX)
}

fn count(value: &Value, low: u64, high: u64) -> Result<usize, String> {
    let number = within(whole_number(value)?, low, high)?;
    usize::try_from(number).map_err(|error| error.to_string())
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(100).collect()
}
