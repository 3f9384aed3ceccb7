//! Placeholders in the arguments of a contender, for a program with other flags and another
//! configuration file than an X-Ray daemon.
//!
//! | | |
//! |---|---|
//! | `{udp}`, `{tcp}` | the addresses on which it is to listen |
//! | `{otlp_http}`, `{otlp_grpc}` | the addresses on which it is to take spans, in loads of spans |
//! | `{compression}` | `gzip` or `none`: how it is to compress spans |
//! | `{endpoint}`, `{endpoint_address}` | the URL of the kit's endpoint, and its address |
//! | `{authority}` | a PEM file with the certificate of the endpoint's authority |
//! | `{memory_mb}` | the memory that it may use, in megabytes |
//! | `{folder}` | an empty folder that exists during the turn |
//! | `{file:PATH}` | a copy of the file PATH, with the placeholders in it filled in |

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

const FILE: &str = "{file:";
const NAMES: [&str; 10] = [
    "{udp}",
    "{tcp}",
    "{otlp_http}",
    "{otlp_grpc}",
    "{compression}",
    "{endpoint}",
    "{endpoint_address}",
    "{authority}",
    "{memory_mb}",
    "{folder}",
];

/// The values of the placeholders in one turn.
#[derive(Debug, Clone)]
pub struct Values {
    /// Address for datagrams.
    pub udp: SocketAddr,
    /// Address for calls.
    pub tcp: SocketAddr,
    /// Address for spans over HTTP.
    pub otlp_http: SocketAddr,
    /// Address for spans over gRPC.
    pub otlp_grpc: SocketAddr,
    /// Compression of spans: `gzip` or `none`.
    pub compression: &'static str,
    /// URL of the endpoint.
    pub endpoint: String,
    /// Address of the endpoint.
    pub endpoint_address: SocketAddr,
    /// PEM file of the endpoint's authority.
    pub authority: PathBuf,
    /// Memory in megabytes.
    pub memory_mb: u64,
    /// Folder of the turn.
    pub folder: PathBuf,
}

impl Values {
    /// Fills in all placeholders except that of a file. Other text in braces stays.
    pub fn fill(&self, text: &str) -> String {
        let values = [
            self.udp.to_string(),
            self.tcp.to_string(),
            self.otlp_http.to_string(),
            self.otlp_grpc.to_string(),
            self.compression.to_owned(),
            self.endpoint.clone(),
            self.endpoint_address.to_string(),
            self.authority.display().to_string(),
            self.memory_mb.to_string(),
            self.folder.display().to_string(),
        ];
        let pairs = NAMES.iter().zip(&values);
        pairs.fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    /// Fills in an argument. Writes the copy of its file, if it names one.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or the copy cannot be written.
    pub fn argument(&self, word: &str) -> io::Result<String> {
        let Some((start, path, end)) = file_in(word) else { return Ok(self.fill(word)) };
        let path = Path::new(path);
        let copy = self.folder.join(path.file_name().unwrap_or_default());
        fs::write(&copy, self.fill(&fs::read_to_string(path)?))?;
        Ok(format!("{}{}{}", self.fill(start), copy.display(), self.fill(end)))
    }
}

/// Returns whether a word has a placeholder.
pub fn has_placeholder(word: &str) -> bool {
    file_in(word).is_some() || NAMES.iter().any(|name| word.contains(name))
}

/// Makes the path of a placeholder's file valid in any working directory.
///
/// # Errors
///
/// Fails if the file does not exist.
pub fn with_whole_paths(word: &str) -> Result<String, String> {
    let Some((start, path, end)) = file_in(word) else { return Ok(word.to_owned()) };
    let whole = fs::canonicalize(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(format!("{start}{FILE}{}}}{end}", whole.display()))
}

/// Returns what is before, in and after the placeholder of a file.
fn file_in(word: &str) -> Option<(&str, &str, &str)> {
    let (start, rest) = word.split_once(FILE)?;
    let (path, end) = rest.split_once('}')?;
    Some((start, path, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(folder: &Path) -> Values {
        Values {
            udp: ([127, 0, 0, 1], 2000).into(),
            tcp: ([127, 0, 0, 1], 2001).into(),
            otlp_http: ([127, 0, 0, 1], 4318).into(),
            otlp_grpc: ([127, 0, 0, 1], 4317).into(),
            compression: "gzip",
            endpoint: "https://127.0.0.1:9".into(),
            endpoint_address: ([127, 0, 0, 1], 9).into(),
            authority: "/a.pem".into(),
            memory_mb: 64,
            folder: folder.into(),
        }
    }

    #[test]
    fn an_argument_gets_the_addresses_and_a_file_is_copied_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let (given, turn) = (folder.path().join("given"), folder.path().join("turn"));
        fs::create_dir(&given).unwrap();
        fs::create_dir(&turn).unwrap();
        let file = given.join("config.yaml");
        fs::write(&file, "endpoint: {udp}\nlimit: {memory_mb}\nextensions: {}\n").unwrap();
        let values = values(&turn);
        assert_eq!(
            values.argument("--at={udp},{tcp}").unwrap(),
            "--at=127.0.0.1:2000,127.0.0.1:2001"
        );
        assert_eq!(
            values.argument("{otlp_http} {otlp_grpc} {compression}").unwrap(),
            "127.0.0.1:4318 127.0.0.1:4317 gzip"
        );
        assert_eq!(values.argument("{unknown}").unwrap(), "{unknown}");
        let word = with_whole_paths(&format!("--config=yaml:{{file:{}}}", file.display())).unwrap();
        let filled = values.argument(&word).unwrap();
        let copy = filled.strip_prefix("--config=yaml:").unwrap();
        assert_eq!(Path::new(copy), turn.join("config.yaml"));
        let text = fs::read_to_string(copy).unwrap();
        assert_eq!(text, "endpoint: 127.0.0.1:2000\nlimit: 64\nextensions: {}\n");
        assert!(with_whole_paths("{file:/no/such/file}").is_err());
    }

    #[test]
    fn a_placeholder_is_known_by_its_name() {
        for word in ["{udp}", "--x={endpoint}/", "{file:a.yaml}"] {
            assert!(has_placeholder(word), "{word}");
        }
        for word in ["--receiver", "{}", "{file}", "{\"json\":1}"] {
            assert!(!has_placeholder(word), "{word}");
        }
    }
}
