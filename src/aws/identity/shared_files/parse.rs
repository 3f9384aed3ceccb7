//! Reads the text of a shared AWS file. A line that cannot be understood is passed over; it never
//! takes another line or another section away.
//!
//! In: the bytes of a file. Out: its sections with the keys that the daemon uses, and a remark for
//! each line that is passed over. A remark never contains text of the file, because a broken line
//! may be a secret. Bound: the caller's bound of the file. Thread: any. No I/O, no clock.
//!
//! The rules are those of the original daemon (package `internal/ini` of the AWS SDK for Go,
//! version 2): keys may be indented, `:` separates as well as `=`, a value may be in quotes, a
//! comment may follow a value, and repeated sections are one. Where the AWS CLI accepts more, its
//! rule is used: text behind the bracket of a section and quotes around the name of a profile.

use std::collections::BTreeMap;

/// The keys that the daemon uses. Others are read over without a remark.
pub(super) const USED_KEYS: [&str; 26] = [
    "aws_access_key_id",
    "aws_account_id",
    "aws_secret_access_key",
    "aws_session_token",
    "credential_process",
    "credential_source",
    "ec2_metadata_service_endpoint",
    "ec2_metadata_service_endpoint_mode",
    "ec2_metadata_v1_disabled",
    "endpoint_url",
    "external_id",
    "ignore_configured_endpoint_urls",
    "login_session",
    "region",
    "role_arn",
    "role_session_name",
    "services",
    "source_profile",
    "sso_account_id",
    "sso_region",
    "sso_role_name",
    "sso_session",
    "sso_start_url",
    "use_dualstack_endpoint",
    "use_fips_endpoint",
    "web_identity_token_file",
];

/// The only key with a value that may continue on indented lines.
const KEY_OF_SEVERAL_LINES: &str = "credential_process";

/// Which of the two shared files a text is from. They name their sections differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `~/.aws/config`.
    Config,
    /// `~/.aws/credentials`.
    Credentials,
}

/// The name of a section.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    /// A profile, without the word `profile`.
    Profile(String),
    /// A session of single sign-on, which profiles name in `sso_session`.
    SsoSession(String),
    /// Settings of single services, which profiles name in `services`.
    Services(String),
}

/// The value of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Value {
    /// The value, without quotes, comments and spaces around it.
    pub text: String,
    /// The indented keys below a key without a value, with their values.
    pub nested: Vec<(String, String)>,
    /// The number of the line, counted from 1; 0 if the value is in no file.
    pub line: usize,
}

/// The keys of a section, in lower case.
pub(super) type Keys = BTreeMap<String, Value>;

/// A line that is passed over: its number, counted from 1, and the reason.
pub(super) type Remark = (usize, &'static str);

/// Returns the sections of a file, and a remark for each line that is passed over.
pub(super) fn parse(bytes: &[u8], kind: Kind) -> (BTreeMap<Section, Keys>, Vec<Remark>) {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return (BTreeMap::new(), vec![(1, "the file is UTF-16; save it as UTF-8")]);
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut parser =
        Parser { kind, number: 0, current: Current::Before, last: None, sections: Vec::new() };
    let mut remarks = Vec::new();
    for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
        parser.number = number;
        if let Err(reason) = parser.read(&String::from_utf8_lossy(line)) {
            remarks.push((number, reason));
        }
    }
    (merged(parser.sections), remarks)
}

/// Makes one section of all with the same name. Later values replace earlier ones. As in all SDKs,
/// `[profile default]` replaces `[default]` as a whole.
fn merged(sections: Vec<Read>) -> BTreeMap<Section, Keys> {
    let default = Section::Profile("default".to_owned());
    let has_prefixed = sections.iter().any(|it| it.section == default && it.has_prefix);
    let mut merged: BTreeMap<Section, Keys> = BTreeMap::new();
    for Read { section, has_prefix, keys } in sections {
        if section != default || has_prefix || !has_prefixed {
            merged.entry(section).or_default().extend(keys);
        }
    }
    merged
}

/// A section as it stands in the file.
struct Read {
    section: Section,
    /// Whether the word `profile` stands before the name.
    has_prefix: bool,
    keys: Keys,
}

/// The section that the next line belongs to.
enum Current {
    /// No section has begun.
    Before,
    /// A section that is passed over.
    Ignored,
    /// The last of the sections.
    Last,
}

/// The key that an indented line may belong to.
struct LastKey {
    /// `None` for a key that the daemon does not use.
    name: Option<String>,
    indent: usize,
    has_value: bool,
}

struct Parser {
    kind: Kind,
    /// The number of the line that is read.
    number: usize,
    current: Current,
    last: Option<LastKey>,
    sections: Vec<Read>,
}

impl Parser {
    /// Reads one line. Returns the reason if the line, or a part of it, is passed over.
    fn read(&mut self, line: &str) -> Result<(), &'static str> {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            return Ok(());
        }
        if let Some(rest) = trimmed.strip_prefix('[') {
            return self.read_header(rest);
        }
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        let is_deeper = self.last.as_ref().is_some_and(|last| indent > last.indent);
        match self.current {
            Current::Before => Err("it stands before the first [section]"),
            Current::Ignored => Ok(()),
            Current::Last => match without_comment(trimmed).split_once(['=', ':']) {
                Some((key, value)) => self.read_key(key.trim(), value.trim(), indent, is_deeper),
                None => self.read_continuation(trimmed, is_deeper),
            },
        }
    }

    /// Reads the name of a section. `rest` begins after the bracket.
    fn read_header(&mut self, rest: &str) -> Result<(), &'static str> {
        self.last = None;
        self.current = Current::Ignored;
        let before_comment = rest.split(['#', ';']).next().unwrap_or_default().trim_end();
        let (name, fault) = if let Some(name) = before_comment.strip_suffix(']') {
            (name, Ok(()))
        } else if let Some((name, behind)) = rest.split_once(']') {
            let is_comment = behind.trim().is_empty() || behind.trim().starts_with(['#', ';']);
            (name, if is_comment { Ok(()) } else { Err("there is text behind the bracket") })
        } else {
            (without_comment(rest), Err("the closing bracket is missing"))
        };
        let (section, has_prefix) = self.section(name)?;
        self.current = Current::Last;
        self.sections.push(Read { section, has_prefix, keys: Keys::new() });
        fault
    }

    /// Returns the section that `name` stands for, and whether it has the prefix `profile`.
    fn section(&self, name: &str) -> Result<(Section, bool), &'static str> {
        let name = name.trim();
        let (prefix, rest) = name.split_once([' ', '\t']).unwrap_or(("", name));
        let (rest, whole) = (profile_name(rest), profile_name(name));
        match (self.kind, prefix) {
            _ if whole.is_empty() => Err("the section has no name"),
            (_, "sso-session") => Ok((Section::SsoSession(rest), false)),
            (_, "services") => Ok((Section::Services(rest), false)),
            (Kind::Config, "profile") => Ok((Section::Profile(rest), true)),
            (Kind::Config, _) if whole != "default" => {
                Err("in this file a profile is written [profile NAME]; the section is passed over")
            }
            (Kind::Credentials, "profile") => {
                Err("in this file a profile is written [NAME]; the section is passed over")
            }
            _ => Ok((Section::Profile(whole), false)),
        }
    }

    fn read_key(
        &mut self,
        key: &str,
        value: &str,
        indent: usize,
        is_deeper: bool,
    ) -> Result<(), &'static str> {
        let (key, value) = (key.to_ascii_lowercase(), unquoted(value));
        if key.is_empty() {
            return Err("there is no key before the separator");
        }
        let Some(Read { section, keys, .. }) = self.sections.last_mut() else { return Ok(()) };
        if let Some(last) = self.last.as_ref().filter(|last| is_deeper && !last.has_value) {
            let parent = last.name.as_ref().and_then(|name| keys.get_mut(name));
            if let Some(parent) = parent.filter(|_| is_plain(&key) && is_printable(value)) {
                parent.nested.push((key, value.to_owned()));
            }
            return Ok(());
        }
        let is_used = match section {
            Section::Services(_) => is_plain(&key),
            _ => USED_KEYS.contains(&key.as_str()),
        };
        let has_value = !value.is_empty();
        let name = Some(key.clone()).filter(|_| is_used && is_printable(value));
        self.last = Some(LastKey { name, indent, has_value });
        if key.contains(char::is_whitespace) {
            return Err("the key has a space");
        }
        if is_used && !is_printable(value) {
            return Err("it has a control character, or is not UTF-8");
        }
        if is_used {
            let line = self.number;
            keys.insert(key, Value { text: value.to_owned(), nested: Vec::new(), line });
        }
        Ok(())
    }

    /// Reads a line without a separator. An indented one may continue the value above it.
    fn read_continuation(&mut self, line: &str, is_deeper: bool) -> Result<(), &'static str> {
        let last = self.last.as_ref().filter(|_| is_deeper);
        match last.map(|last| (last.name.as_deref(), last.has_value)) {
            Some((None, _)) => return Ok(()),
            Some((Some(name @ KEY_OF_SEVERAL_LINES), true)) if is_printable(line) => {
                let keys = self.sections.last_mut().map(|it| &mut it.keys);
                if let Some(value) = keys.and_then(|keys| keys.get_mut(name)) {
                    value.text.push('\n');
                    value.text.push_str(line);
                    return Ok(());
                }
            }
            _ => {}
        }
        Err("it has neither `=` nor `:`")
    }
}

/// Returns the name of a profile in the form in which names are compared: without quotes, and with
/// one space between words. `aws configure` writes a name with spaces in quotes.
pub(super) fn profile_name(text: &str) -> String {
    unquoted(text.trim()).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the line up to a comment, which begins with a space or tab before `#` or `;`.
fn without_comment(line: &str) -> &str {
    let is_comment = |pair: &[u8]| matches!(pair, [b' ' | b'\t', b'#' | b';']);
    let start = line.as_bytes().windows(2).position(is_comment);
    line[..start.unwrap_or(line.len())].trim_end()
}

/// Returns `value` without one pair of quotes around it.
fn unquoted(value: &str) -> &str {
    let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

/// Returns whether a text has no control characters and was valid UTF-8.
fn is_printable(text: &str) -> bool {
    !text.contains(|it: char| (it.is_control() && it != '\t') || it == char::REPLACEMENT_CHARACTER)
}

/// Returns whether a key is one word of the letters that keys have.
fn is_plain(key: &str) -> bool {
    key.bytes().all(|it| it.is_ascii_alphanumeric() || b"_-.".contains(&it))
}
