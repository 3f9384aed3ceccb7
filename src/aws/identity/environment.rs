//! The environment variables in which credentials, and the way to them, are given.
//!
//! In: the variables. Out: keys, or the names of files and roles. A variable that is set but empty
//! counts as not set, and spaces and line breaks around a value do not count. Thread: any. No I/O
//! but for [`home`].

use crate::base::files::read_text;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use std::path::{Path, PathBuf};

/// A function that returns the value of an environment variable.
pub(super) type Environment<'a> = &'a (dyn Fn(&str) -> Option<String> + Sync);

/// A web identity that the environment names: a token that STS exchanges for credentials.
#[derive(Debug)]
pub(super) struct WebIdentity {
    pub token_file: String,
    pub role_arn: String,
    pub session_name: Option<String>,
}

/// Returns the value of a variable of this process. A value that is not UTF-8 counts as absent.
pub(super) fn process(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Returns the value of a variable, without spaces and line breaks around it. Returns `None` if
/// nothing is left.
pub(super) fn variable(environment: Environment<'_>, name: &str) -> Option<String> {
    let value = environment(name)?;
    Some(value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Returns the keys in the environment. The variables with the shorter names are those of older
/// SDKs; the original daemon reads them too.
pub(super) fn keys(environment: Environment<'_>) -> Result<Credentials, CredentialsError> {
    let first = |names: &[&str]| names.iter().find_map(|name| variable(environment, name));
    let missing = |name| CredentialsError::not_loaded(format!("{name} is not set"));
    let key = first(&["AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"]);
    let key = key.ok_or_else(|| missing("AWS_ACCESS_KEY_ID"))?;
    let secret = first(&["AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "SECRET_ACCESS_KEY"]);
    let secret = secret.ok_or_else(|| missing("AWS_SECRET_ACCESS_KEY"))?;
    let token = variable(environment, "AWS_SESSION_TOKEN");
    Ok(Credentials::new(key, secret, token, None, "Environment"))
}

/// Returns the web identity that the environment names.
///
/// # Errors
///
/// Returns a text with the name of the first variable that is missing.
pub(super) fn web_identity(environment: Environment<'_>) -> Result<WebIdentity, String> {
    let needed = |name| variable(environment, name).ok_or_else(|| format!("{name} is not set"));
    Ok(WebIdentity {
        token_file: needed("AWS_WEB_IDENTITY_TOKEN_FILE")?,
        role_arn: needed("AWS_ROLE_ARN")?,
        session_name: variable(environment, "AWS_ROLE_SESSION_NAME"),
    })
}

/// Returns whether the environment names an endpoint of the container that has credentials.
pub(super) fn names_container(environment: Environment<'_>) -> bool {
    let names = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    names.iter().any(|name| variable(environment, name).is_some())
}

/// Returns the home of the user: `HOME`, or else the one in `/etc/passwd`. A service without a
/// `User=` of its own has no `HOME`.
pub(super) fn home(environment: Environment<'_>) -> PathBuf {
    if let Some(home) = variable(environment, "HOME") {
        return home.into();
    }
    let users = read_text(Path::new("/etc/passwd")).unwrap_or_default();
    home_of(rustix::process::getuid().as_raw(), &users).unwrap_or_default().into()
}

/// Returns the home of the user with the number `id`. `users` is the text of `/etc/passwd`.
fn home_of(id: u32, users: &str) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let is_user = fields.next()?.parse() == Ok(id);
        fields.nth(2).filter(|home| is_user && !home.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<[String; 3]> {
        let environment = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let found = keys(&environment).ok()?;
        let token = found.session_token().unwrap_or_default();
        Some([found.access_key_id(), found.secret_access_key(), token].map(str::to_owned))
    }

    #[test]
    fn keys_are_read_under_both_names_and_without_line_breaks() {
        let expected = |token: &str| Some(["A", "S", token].map(str::to_owned));
        let (key, secret) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
        assert_eq!(of(&[(key, "A"), (secret, "S"), ("AWS_SESSION_TOKEN", "T\n")]), expected("T"));
        assert_eq!(
            of(&[(key, "A\r\n"), (secret, " S\n"), ("AWS_SESSION_TOKEN", "")]),
            expected("")
        );
        assert_eq!(of(&[("AWS_ACCESS_KEY", "A"), ("AWS_SECRET_KEY", "S")]), expected(""));
        assert_eq!(of(&[(key, " "), ("AWS_ACCESS_KEY", "A"), (secret, "S")]), expected(""));
        assert_eq!(of(&[(key, "A")]), None);
        assert_eq!(of(&[(key, ""), (secret, "")]), None);
    }

    #[test]
    fn the_home_of_a_user_is_found_by_its_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken\nxray:x:100:101::/var/lib/xray:/x\n";
        assert_eq!(home_of(0, users), Some("/root"));
        assert_eq!(home_of(100, users), Some("/var/lib/xray"));
        assert_eq!(home_of(7, users), None);
    }
}
