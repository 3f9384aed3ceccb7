//! The profiles of both shared files together, and the text in which the AWS SDK gets them.
//!
//! In: the sections of the two files. Out: single values, and a text without oddities that the
//! parser of `aws-config` accepts. Thread: any. No I/O, no clock.
//!
//! The text also settles what the SDKs for Rust and Go decide differently, in the way of Go, which
//! the original daemon uses: keys of a profile come before its other sources, and a role without a
//! named source is assumed with the profile's own credentials, or else with those of the container
//! or the instance.

use super::parse::{Keys, Section, Value, profile_name};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The keys of a profile that are a source of credentials other than the profile's own keys.
const OTHER_SOURCES: [&str; 8] = [
    "credential_process",
    "credential_source",
    "sso_account_id",
    "sso_region",
    "sso_role_name",
    "sso_session",
    "sso_start_url",
    "web_identity_token_file",
];

/// The keys that are only for the daemon itself. `aws-config` does not get them.
const OWN_KEYS: [&str; 4] = [
    "ec2_metadata_service_endpoint",
    "ec2_metadata_service_endpoint_mode",
    "ec2_metadata_v1_disabled",
    "login_session",
];

/// The keys that `aws-config` does not get of a profile whose session has a name of its own kind.
const SESSION_KEYS: [&str; 5] =
    ["sso_account_id", "sso_region", "sso_role_name", "sso_session", "sso_start_url"];

/// All sections of the two files.
#[derive(Debug, Default)]
pub(super) struct Profiles(BTreeMap<Section, Keys>);

/// A session of single sign-on whose name `aws-config` does not accept, with the role that one
/// profile has in it. The name must stay as it is, because it leads to the file of the session's
/// token. So `aws-config` gets it as a source of its own, which the profile names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::aws::identity) struct OddSession {
    /// The `credential_source` of the profile.
    pub source: String,
    pub session: String,
    pub account_id: String,
    pub role_name: String,
    pub region: String,
    pub start_url: String,
}

impl Profiles {
    /// Adds the sections of a file. Its values replace those of earlier files.
    pub fn add(&mut self, sections: BTreeMap<Section, Keys>) {
        for (section, keys) in sections {
            let present = self.0.entry(section).or_default();
            // The two keys belong together, so half a pair of each file is no pair.
            let pair = ["aws_access_key_id", "aws_secret_access_key"];
            if pair.iter().any(|key| keys.contains_key(*key)) {
                present.retain(|key, _| !pair.contains(&key.as_str()));
            }
            present.extend(keys);
        }
    }

    /// Replaces the keys of a profile.
    pub fn set(&mut self, profile: &str, keys: impl IntoIterator<Item = (&'static str, String)>) {
        let value = |text| Value { text, ..Value::default() };
        let keys = keys.into_iter().map(|(key, text)| (key.to_owned(), value(text)));
        self.0.insert(Section::Profile(profile.to_owned()), keys.collect());
    }

    /// Returns whether there is a profile of this name.
    pub fn contains(&self, profile: &str) -> bool {
        self.0.contains_key(&Section::Profile(profile.to_owned()))
    }

    /// Returns the value of a key in a profile. An empty value counts as absent.
    pub fn get(&self, profile: &str, key: &str) -> Option<&str> {
        let keys = self.0.get(&Section::Profile(profile.to_owned()))?;
        text(keys, key)
    }

    /// Returns `profile` and the profiles that it gets its credentials from, in this order.
    fn chain(&self, profile: &str) -> Vec<String> {
        let mut chain = vec![profile.to_owned()];
        while let Some(source) = chain.last().and_then(|last| self.get(last, "source_profile")) {
            let source = profile_name(source);
            if chain.contains(&source) {
                break;
            }
            chain.push(source);
        }
        chain
    }

    /// Returns the region of a profile, or of the first of its source profiles that has one.
    pub fn region(&self, profile: &str) -> Option<&str> {
        self.chain(profile).iter().find_map(|profile| self.get(profile, "region"))
    }

    /// Returns the profile at the end of the chain of `profile` if its only credentials are a
    /// session of `aws login`.
    pub fn login_profile(&self, profile: &str) -> Option<String> {
        let last = self.chain(profile).pop()?;
        let has = |key| self.get(&last, key).is_some();
        let has_other = has("aws_access_key_id") || OTHER_SOURCES.into_iter().any(has);
        Some(last.clone()).filter(|_| has("login_session") && !has_other)
    }

    /// Returns the sessions of all profiles that `aws-config` cannot get by their name.
    pub fn odd_sessions(&self) -> Vec<OddSession> {
        let profiles = self.0.iter().filter_map(|(section, keys)| match section {
            Section::Profile(name) => self.odd_session(name, keys),
            Section::SsoSession(_) | Section::Services(_) => None,
        });
        profiles.collect()
    }

    /// Returns the session of a profile if `aws-config` cannot get it by its name. Returns `None`
    /// if the profile uses another source, or if a value is missing: `aws-config` then names it.
    fn odd_session(&self, profile: &str, keys: &Keys) -> Option<OddSession> {
        let session = profile_name(text(keys, "sso_session")?);
        let has = |key: &str| text(keys, key).is_some();
        let has_keys = has("aws_access_key_id") && has("aws_secret_access_key");
        let is_role_of_other =
            has("role_arn") && (has("source_profile") || has("credential_source"));
        if session == sdk_name(&session)
            || has_keys
            || is_role_of_other
            || has("web_identity_token_file")
        {
            return None;
        }
        let of_session = self.0.get(&Section::SsoSession(session.clone()))?;
        Some(OddSession {
            source: format!("SsoSession/{}", sdk_name(profile).to_ascii_lowercase()),
            account_id: text(keys, "sso_account_id")?.to_owned(),
            role_name: text(keys, "sso_role_name")?.to_owned(),
            region: text(of_session, "sso_region")?.to_owned(),
            start_url: text(of_session, "sso_start_url")?.to_owned(),
            session,
        })
    }

    /// Returns all sections as the text of one configuration file. `default_source` is the
    /// `credential_source` of a role in a profile without any source.
    pub fn sdk_text(&self, default_source: &str) -> String {
        let mut text = String::new();
        for (section, keys) in &self.0 {
            let (header, keys) = match section {
                Section::Profile(name) => (
                    format!("profile {}", sdk_name(name)),
                    self.sdk_keys(name, keys.clone(), default_source),
                ),
                Section::SsoSession(name) => {
                    (format!("sso-session {}", sdk_name(name)), keys.clone())
                }
                Section::Services(name) => (format!("services {}", sdk_name(name)), keys.clone()),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "[{header}]");
            for (key, value) in keys {
                if value.text.is_empty() && value.nested.is_empty() {
                    continue;
                }
                let lines = value.text.replace('\n', "\n ");
                let _ = writeln!(text, "{key} = {lines}");
                for (key, value) in value.nested {
                    let _ = writeln!(text, " {key} = {value}");
                }
            }
        }
        text
    }

    /// Returns the keys of a profile as `aws-config` must get them.
    fn sdk_keys(&self, name: &str, mut keys: Keys, default_source: &str) -> Keys {
        keys.retain(|key, value| !value.text.is_empty() && !OWN_KEYS.contains(&key.as_str()));
        let has = |keys: &Keys, key: &str| keys.contains_key(key);
        let has_keys = has(&keys, "aws_access_key_id") && has(&keys, "aws_secret_access_key");
        if has_keys {
            keys.retain(|key, _| !OTHER_SOURCES.contains(&key.as_str()));
        }
        let session = text(&keys, "sso_session").map(profile_name);
        if session.is_some_and(|it| self.0.contains_key(&Section::SsoSession(it))) {
            // `aws-config` refuses these two beside `sso_session`, which has them too.
            keys.retain(|key, _| key != "sso_region" && key != "sso_start_url");
        }
        if let Some(session) = self.odd_session(name, &keys) {
            keys.retain(|key, _| !SESSION_KEYS.contains(&key.as_str()));
            let source = Value { text: session.source, ..Value::default() };
            keys.insert("credential_source".to_owned(), source);
        }
        let named = ["source_profile", "credential_source", "web_identity_token_file"];
        if has(&keys, "role_arn") && !named.iter().any(|key| has(&keys, key)) {
            let has_own = has_keys || OTHER_SOURCES.iter().any(|key| has(&keys, key));
            let (key, source) = match has_own {
                true => ("source_profile", name),
                false => ("credential_source", default_source),
            };
            keys.insert(key.to_owned(), Value { text: source.to_owned(), ..Value::default() });
        }
        if let Some(source) = keys.get_mut("source_profile") {
            source.text = sdk_name(&profile_name(&source.text));
        }
        for key in ["services", "sso_session"] {
            if let Some(value) = keys.get_mut(key) {
                value.text = sdk_name(&profile_name(&value.text));
            }
        }
        keys
    }
}

/// Returns the value of a key. An empty value counts as absent.
fn text<'a>(keys: &'a Keys, key: &str) -> Option<&'a str> {
    keys.get(key).map(|value| value.text.as_str()).filter(|text| !text.is_empty())
}

/// Returns the name of a profile in the letters that `aws-config` accepts. All other bytes, and the
/// sign itself, are written as `%` and two digits, so that two names stay different.
pub(super) fn sdk_name(name: &str) -> String {
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"_-/.@:+".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
