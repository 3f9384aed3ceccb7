//! The environment of the service of systemd, for `xray verify --unit`.
//!
//! In: `systemctl show`, and `/proc` if the service runs; else the unit's files of variables. Out:
//! the flags, the variables, the user and the folder with which the service starts its daemon. A
//! running daemon has what it was started with, which may be older than the unit. No value is
//! printed: variables and flags may be secrets.

use crate::base::files::{read_bytes, read_text};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The service, with the name that the packages of xrayd and of the original give it.
const UNIT: &str = "xray.service";

/// The properties that are read.
const PROPERTIES: &str =
    "LoadState,MainPID,User,Group,WorkingDirectory,Environment,EnvironmentFiles,ExecStart";

/// Variables with which systemd talks to the daemon itself.
const OF_SYSTEMD: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_FDS"];

/// Why the environment of the service is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnitError {
    /// There is no systemd, or it does not answer.
    #[error(
        "systemctl cannot be asked: {0}. Leave out --unit where systemd does not run the daemon"
    )]
    Systemctl(String),
    /// systemd does not know the service.
    #[error("systemd has no {UNIT}. Leave out --unit, and give the flags of the daemon")]
    Missing,
    /// This user may not read the environment of the service.
    #[error("{what} cannot be read: {source}. Run it as root: sudo xray verify --unit")]
    Denied {
        /// The path of a file.
        what: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The user of the service does not exist.
    #[error("the user {0:?} of {UNIT} does not exist. Install the package again, or make the user")]
    User(String),
}

/// How a service starts its daemon.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unit {
    /// The arguments, without the name of the program.
    arguments: Vec<OsString>,
    variables: BTreeMap<OsString, OsString>,
    /// The ids of user and group.
    ids: Option<(u32, u32)>,
    folder: Option<String>,
    /// The id of the process, if the service runs.
    process: Option<u32>,
}

impl Unit {
    /// Reads the environment of the service.
    ///
    /// # Errors
    ///
    /// Fails if systemd does not know the service, or if this user may not read its environment.
    pub(super) fn read() -> Result<Self, UnitError> {
        let mut command = Command::new("systemctl");
        command.args(["show", UNIT, "--property", PROPERTIES]);
        let output = command.output().map_err(|error| UnitError::Systemctl(error.to_string()))?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(UnitError::Systemctl(reason));
        }
        let shown = Properties::of(&String::from_utf8_lossy(&output.stdout));
        if shown.get("LoadState") != Some("loaded") {
            return Err(UnitError::Missing);
        }
        match shown.get("MainPID").and_then(|id| id.parse().ok()).filter(|id| *id != 0) {
            Some(process) => Self::of_process(process),
            None => Self::of_properties(&shown),
        }
    }

    fn of_process(process: u32) -> Result<Self, UnitError> {
        let read = |name: &str| {
            let path = format!("/proc/{process}/{name}");
            let denied = |source| UnitError::Denied { what: path.clone(), source };
            read_bytes(Path::new(&path)).map_err(denied)
        };
        // A zero byte ends each text. An argument may be empty.
        let texts = |bytes: &[u8]| -> Vec<OsString> {
            let parts = bytes.strip_suffix(b"\0").unwrap_or(bytes).split(|byte| *byte == 0);
            parts.map(|part| OsStr::from_bytes(part).to_owned()).collect()
        };
        let (variables, arguments) = (texts(&read("environ")?), texts(&read("cmdline")?));
        let split = |text: OsString| {
            let bytes = text.as_bytes();
            let index = bytes.iter().position(|byte| *byte == b'=')?;
            let part = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
            Some((part(&bytes[..index]), part(&bytes[index + 1..])))
        };
        let path = format!("/proc/{process}");
        let denied = |source| UnitError::Denied { what: path.clone(), source };
        let owner = std::fs::metadata(&path).map_err(denied)?;
        let folder = std::fs::read_link(format!("{path}/cwd")).ok();
        Ok(Self {
            arguments: arguments.into_iter().skip(1).collect(),
            variables: variables.into_iter().filter_map(split).collect(),
            ids: Some((owner.uid(), owner.gid())),
            folder: folder.map(|folder| folder.display().to_string()),
            process: Some(process),
        })
    }

    fn of_properties(shown: &Properties) -> Result<Self, UnitError> {
        let mut variables = BTreeMap::new();
        let mut ids = None;
        let mut add = |name: &str, value: &str| variables.insert(name.into(), value.into());
        add("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
        if let Some(user) = shown.get("User").filter(|user| !user.is_empty()) {
            let entry = Entry::of_user(user).ok_or_else(|| UnitError::User(user.to_owned()))?;
            for (name, value) in [("HOME", entry.home.as_str()), ("USER", user), ("LOGNAME", user)]
            {
                add(name, value);
            }
            ids = Some((entry.user_id, entry.group_id));
        }
        for (name, value) in assignments(shown.get("Environment").unwrap_or_default()) {
            add(&name, &value);
        }
        for file in shown.all("EnvironmentFiles") {
            let path = file.rsplit_once(" (").map_or(file, |(path, _)| path);
            match read_text(Path::new(path)) {
                Ok(text) => {
                    for (name, value) in variables_of_file(&text) {
                        add(&name, &value);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(UnitError::Denied { what: path.to_owned(), source }),
            }
        }
        let start = shown.get("ExecStart").unwrap_or_default();
        let words = start.split("argv[]=").nth(1).and_then(|rest| rest.split(" ; ").next());
        let arguments = words.unwrap_or_default().split_whitespace().skip(1);
        let folder = shown.get("WorkingDirectory").filter(|folder| folder.starts_with('/'));
        Ok(Self {
            arguments: arguments.map(Into::into).collect(),
            variables,
            ids,
            folder: Some(folder.unwrap_or("/").to_owned()),
            process: None,
        })
    }

    /// Returns where the environment is from, for the operator.
    pub(super) fn source(&self) -> String {
        match self.process {
            Some(process) => format!("the running {UNIT} (process {process})"),
            None => format!("{UNIT}, which does not run"),
        }
    }

    /// Returns the command that runs this program with `arguments` behind the flags of the service.
    /// Only root can change to the user of the service; another user stays who it is.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("xray").args(&self.arguments).args(arguments).env_clear();
        let of_daemon = self.variables.iter().filter(|(name, _)| {
            !OF_SYSTEMD.iter().any(|of_systemd| name.as_os_str() == *of_systemd)
        });
        command.envs(of_daemon);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        if let Some((user, group)) = self.ids.filter(|_| rustix::process::geteuid().is_root()) {
            command.uid(user).gid(group);
        }
        command
    }
}

/// The output of `systemctl show`. A property may have several lines.
struct Properties(Vec<(String, String)>);

impl Properties {
    fn of(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn get(&self, name: &'static str) -> Option<&str> {
        self.all(name).next()
    }

    fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// A row of `/etc/passwd`.
struct Entry {
    user_id: u32,
    group_id: u32,
    home: String,
}

impl Entry {
    /// Asks `getent`, which knows the users of all name services, not only those of the file.
    fn of_user(user: &str) -> Option<Self> {
        let output = Command::new("getent").args(["passwd", user]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let mut fields = text.trim_end().split(':').skip(2);
        let (user_id, group_id) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Self { user_id, group_id, home: fields.nth(1)?.to_owned() })
    }
}

/// Returns the variables of the property `Environment`: words with a value, of which some are in
/// quotes with backslashes, as in a shell.
fn assignments(text: &str) -> Vec<(String, String)> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => word.extend(characters.next()),
            ('"' | '\'', None) => quote = Some(character),
            (_, Some(open)) if character == open => quote = None,
            (' ', None) => words.push(std::mem::take(&mut word)),
            _ => word.push(character),
        }
    }
    words.push(word);
    let pair = |word: &String| word.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned()));
    words.iter().filter_map(pair).collect()
}

/// Returns the variables of a file for `EnvironmentFile=`: a line for each, comments begin with `#`
/// or `;`, and a value may be in quotes.
fn variables_of_file(text: &str) -> Vec<(String, String)> {
    let text = text.replace("\\\n", "");
    let of_line = |line: &str| {
        let line = line.trim();
        let (name, value) = line.split_once('=')?;
        let value = value.trim();
        let inner = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
        let value = inner('"').or_else(|| inner('\'')).unwrap_or(value);
        (!line.starts_with(['#', ';'])).then(|| (name.trim().to_owned(), value.to_owned()))
    };
    text.lines().filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(found: Vec<(String, String)>) -> String {
        found.iter().map(|(name, value)| format!("{name}={value};")).collect()
    }

    #[test]
    fn variables_are_read_with_their_quotes() {
        let text = r#"A=b "C=d e" 'F=g"h' "I=j \"k\"" L= rest"#;
        assert_eq!(pairs(assignments(text)), r#"A=b;C=d e;F=g"h;I=j "k";L=;"#);
        assert_eq!(pairs(assignments("")), "");
    }

    #[test]
    fn a_file_of_variables_is_read_as_systemd_reads_it() {
        let text = "# a comment\n; X=1\n\nA=b\n C = d e \nF=\"g h\"\nI='j'\nnothing\nK=l\\\nm\n";
        assert_eq!(pairs(variables_of_file(text)), "A=b;C=d e;F=g h;I=j;K=lm;");
    }

    #[test]
    fn a_service_that_does_not_run_is_read_from_its_unit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("variables");
        std::fs::write(&path, "AWS_REGION=of-file\nB=c\n").unwrap();
        let path = path.display();
        let shown = format!(
            "MainPID=0\nUser=root\nWorkingDirectory=\nLoadState=loaded\nEnvironment=AWS_REGION=x \
             \"D=e f\"\nEnvironmentFiles={path} (ignore_errors=yes)\nEnvironmentFiles=/nonexistent \
             (ignore_errors=yes)\nExecStart={{ path=/usr/bin/xray ; argv[]=/usr/bin/xray -f /x.log \
             ; ignore_errors=no ; pid=0 }}\n"
        );
        let unit = Unit::of_properties(&Properties::of(&shown)).unwrap();
        assert_eq!(unit.arguments, ["-f", "/x.log"]);
        let variable = |name: &str| unit.variables.get(OsStr::new(name)).and_then(|it| it.to_str());
        assert_eq!(variable("AWS_REGION"), Some("of-file"));
        assert_eq!((variable("B"), variable("D")), (Some("c"), Some("e f")));
        assert_eq!((variable("HOME"), unit.ids), (Some("/root"), Some((0, 0))));
        assert_eq!((unit.folder.as_deref(), unit.process), (Some("/"), None));
    }

    #[test]
    fn a_running_daemon_is_read_from_its_process() {
        let process = std::process::id();
        let unit = Unit::of_process(process).unwrap();
        let own: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        assert_eq!(unit.variables.get(OsStr::new("PATH")), own.get(OsStr::new("PATH")));
        assert_eq!(unit.arguments, std::env::args_os().skip(1).collect::<Vec<_>>());
        assert_eq!(unit.process, Some(process));
        let own_ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        assert_eq!(unit.ids, Some(own_ids));
    }
}
