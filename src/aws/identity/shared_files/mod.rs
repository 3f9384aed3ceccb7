//! The shared AWS files, `~/.aws/config` and `~/.aws/credentials`.
//!
//! In: the variables that name the files and the profile, and the files. Out: the files' profiles
//! for `aws-config`, single values of the selected profile, and remarks about lines that are passed
//! over. Bound: 1 MiB for a file, and [`REMARK_COUNT_MAX`] remarks about a file. A file that is
//! larger, or that cannot be read, counts as empty. Thread: main; reading the files blocks.
//!
//! `aws-config` would refuse a file for one line that it does not understand, and would not accept
//! all names of profiles. So this module reads the files (`parse`), and hands over a text without
//! oddities (`profiles`).

mod parse;
mod profiles;
#[cfg(test)]
mod tests;

use super::environment::{Environment, WebIdentity, home, names_container, variable};
use crate::base::files::read_bytes;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use parse::{Keys, Kind, Section, profile_name};
pub(super) use profiles::OddSession;
use profiles::{Profiles, sdk_name};
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tracing::warn;

/// Largest number of remarks about one file. The last one says that there are more.
const REMARK_COUNT_MAX: usize = 10;

/// The profile that stands for a web identity that the environment names. No profile of a file can
/// have this name, because names have no line breaks.
const WEB_IDENTITY: &str = "\n";

/// The contents of both files, as they were when they were read.
#[derive(Debug)]
pub(super) struct SharedFiles {
    profiles: Profiles,
    /// Name of the selected profile, in the form of [`profile_name`].
    selected: String,
    /// The configuration file and the credentials file, and why a file could not be read.
    files: [(PathBuf, Option<String>); 2],
    remarks: Vec<String>,
    default_source: &'static str,
}

impl SharedFiles {
    /// Reads both files, and selects the profile that the environment names.
    pub fn read(environment: Environment<'_>) -> Self {
        let variable = |name| variable(environment, name);
        let named = variable("AWS_PROFILE").or_else(|| variable("AWS_DEFAULT_PROFILE"));
        let selected = named.map_or_else(|| "default".to_owned(), |name| profile_name(&name));
        let paths = paths(environment);
        let mut profiles = Profiles::default();
        let mut remarks = Vec::new();
        let mut keys = KeyPair::default();
        let files = [Kind::Config, Kind::Credentials].map(|kind| {
            let path = paths[kind as usize].clone();
            let bytes = read_bytes(&path);
            let failure = bytes.as_ref().err().map(ToString::to_string);
            match bytes {
                Ok(bytes) => {
                    let (sections, lines) = parse::parse(&bytes, kind);
                    keys.note(&path, sections.get(&Section::Profile(selected.clone())));
                    profiles.add(sections);
                    remarks.extend(shown(&path, lines));
                }
                Err(error) if error.kind() == NotFound => {}
                Err(error) => remarks.push(format!("{} cannot be read: {error}", path.display())),
            }
            (path, failure)
        });
        remarks.extend(keys.fault(&selected));
        let is_container = names_container(environment);
        let default_source = if is_container { "EcsContainer" } else { "Ec2InstanceMetadata" };
        Self { profiles, selected, files, remarks, default_source }
    }

    /// Makes the web identity the selected profile. It keeps the settings of the profile that
    /// change the endpoint of STS.
    pub fn select_web_identity(&mut self, identity: WebIdentity) {
        let endpoint_keys = [
            "endpoint_url",
            "ignore_configured_endpoint_urls",
            "services",
            "use_dualstack_endpoint",
            "use_fips_endpoint",
        ];
        let value = |key| Some((key, self.get(key)?.to_owned()));
        let mut keys: Vec<_> = endpoint_keys.into_iter().filter_map(value).collect();
        keys.push(("role_arn", identity.role_arn));
        keys.push(("web_identity_token_file", identity.token_file));
        keys.extend(identity.session_name.map(|name| ("role_session_name", name)));
        self.profiles.set(WEB_IDENTITY, keys);
        WEB_IDENTITY.clone_into(&mut self.selected);
    }

    /// Returns the value of a key in the selected profile.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.profiles.get(&self.selected, key)
    }

    /// Returns the region of the selected profile, or of its source profiles.
    pub fn region(&self) -> Option<&str> {
        self.profiles.region(&self.selected)
    }

    /// Returns the name of the selected profile.
    pub fn selected(&self) -> &str {
        &self.selected
    }

    /// Returns whether one of the files has the selected profile.
    pub fn has_selected(&self) -> bool {
        self.profiles.contains(&self.selected)
    }

    /// Returns the files in the form that `aws-config` reads.
    pub fn sdk_files(&self) -> EnvConfigFiles {
        let text = self.profiles.sdk_text(self.default_source);
        EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Config, text).build()
    }

    /// Returns the sessions that profiles in [`sdk_files`](Self::sdk_files) name as a source.
    pub fn odd_sessions(&self) -> Vec<OddSession> {
        self.profiles.odd_sessions()
    }

    /// Returns the name of the selected profile in [`sdk_files`](Self::sdk_files).
    pub fn sdk_profile(&self) -> String {
        sdk_name(&self.selected)
    }

    /// Returns why the selected profile has no credentials: which file does not have it, or what it
    /// lacks.
    pub fn why_none(&self) -> String {
        if self.has_selected() {
            return "it names no credentials".to_owned();
        }
        let [config, credentials] = self.files.each_ref().map(|(path, failure)| {
            let failure = failure.as_ref().map(|failure| format!(" ({failure})"));
            format!("{}{}", path.display(), failure.unwrap_or_default())
        });
        format!("it is neither in {config} nor in {credentials}")
    }

    /// Returns what to do if the credentials of the selected profile are a session of `aws login`.
    /// The daemon, like the original, cannot renew such a session.
    pub fn login_remedy(&self) -> Option<String> {
        let profile = self.profiles.login_profile(&self.selected)?;
        let quote = if profile.contains(' ') { "'" } else { "" };
        Some(format!(
            "the profile {profile:?} has a session of `aws login` (login_session), which only the \
             AWS CLI can use. Let the CLI give the credentials: add a profile with \
             credential_process = aws configure export-credentials --profile \
             {quote}{profile}{quote} --format process, and name it in AWS_PROFILE"
        ))
    }

    /// Returns a text for each line that was passed over and each file that cannot be read. It
    /// names the file, the line and the reason, and never contains text of the file.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Logs the remarks that the last call of this function in the process has not logged.
    pub fn log_new_remarks(&self) {
        static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
        for remark in self.remarks.iter().filter(|remark| !logged.contains(remark)) {
            warn!("A shared AWS file has a fault: {remark}");
        }
        logged.clone_from(&self.remarks);
    }
}

/// The two keys of static credentials.
const PAIR: [&str; 2] = ["aws_access_key_id", "aws_secret_access_key"];

/// Where the keys of static credentials of a profile stand, and whether each has a value. The files
/// may share the pair; the later one counts.
#[derive(Debug, Default)]
struct KeyPair([Option<(String, bool)>; 2]);

impl KeyPair {
    /// Notes the keys of the profile in one file.
    fn note(&mut self, path: &Path, keys: Option<&Keys>) {
        for (place, name) in self.0.iter_mut().zip(PAIR) {
            if let Some(value) = keys.and_then(|keys| keys.get(name)) {
                let line = format!("{} line {}", path.display(), value.line);
                *place = Some((line, !value.text.is_empty()));
            }
        }
    }

    /// Returns a remark if the profile has only half of a pair.
    fn fault(&self, profile: &str) -> Option<String> {
        let has =
            |it: &Option<(String, bool)>| it.as_ref().is_some_and(|(_, has_value)| *has_value);
        let (there, missing) = match (has(&self.0[0]), has(&self.0[1])) {
            (true, false) => (0, 1),
            (false, true) => (1, 0),
            _ => return None,
        };
        let (line, _) = self.0[missing].as_ref().or(self.0[there].as_ref())?;
        let (there, missing) = (PAIR[there], PAIR[missing]);
        Some(format!("{line}: the profile {profile:?} has {there}, but no value of {missing}"))
    }
}

/// Returns the paths of the configuration file and of the credentials file.
pub(super) fn paths(environment: Environment<'_>) -> [PathBuf; 2] {
    let home = home(environment);
    [("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")].map(
        |(name, default)| match variable(environment, name) {
            Some(path) => match path.strip_prefix("~/") {
                Some(rest) => home.join(rest),
                None => path.into(),
            },
            None => home.join(".aws").join(default),
        },
    )
}

/// Returns the text of each remark about a file, at most [`REMARK_COUNT_MAX`] of them.
fn shown(path: &Path, mut remarks: Vec<parse::Remark>) -> Vec<String> {
    let path = path.display();
    let is_cut = remarks.len() > REMARK_COUNT_MAX;
    remarks.truncate(if is_cut { REMARK_COUNT_MAX - 1 } else { REMARK_COUNT_MAX });
    let line = |(number, reason)| format!("{path} line {number}: {reason}");
    let mut shown: Vec<_> = remarks.into_iter().map(line).collect();
    if is_cut {
        shown.push(format!("{path}: further lines have faults too"));
    }
    shown
}
