//! The file that keeps documents from one run to the next.
//!
//! In: documents as they come, in their order. Out: the same at the next start. Each is a line, a
//! JSON string with the document's text, so that `jq -r .` gives the documents back. Lines are only
//! ever appended; when the file has grown to [`GROWTH_MAX`] times what the store holds, and to
//! [`SIZE_BYTES_MIN`] at least, it is written anew from the store, beside itself and then in its
//! place. A run that was killed leaves half a line at the end, which the next one cuts off. When
//! the file cannot be written, it is left as it is from then on and the log says so: the traces in
//! memory stay. Called under the sandbox's lock: appending is a copy into the system's page cache.

use crate::model::document::DOCUMENT_SIZE_BYTES_MAX;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tracing::{error, info, warn};

/// The file is written anew when it is larger than this.
const SIZE_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// And larger than this many times what the store holds, fields included.
const GROWTH_MAX: u64 = 2;

/// Longest line: a document of 64 KiB, each byte of which is written as six.
const LINE_BYTES_MAX: u64 = 6 * DOCUMENT_SIZE_BYTES_MAX as u64 + 3;

/// The file; see the module.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    is_broken: bool,
}

impl TraceFile {
    /// Opens the file, for this process alone; makes it if need be, for this user alone.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, is no regular file, or another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = options().truncate(false).open(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another process has it"),
            TryLockError::Error(error) => error,
        })?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let size_bytes = metadata.len();
        Ok(Self { path: path.to_owned(), file, size_bytes, is_broken: false })
    }

    /// Reads every line; `take` says of each document whether it was one. Half a line at the end
    /// is cut off, other lines that are no documents are passed over.
    pub fn read(&mut self, mut take: impl FnMut(&str) -> bool) {
        match self.read_lines(&mut take) {
            Ok((good_count, bad_count)) => {
                let path = self.path.display();
                info!("Traces are kept in {path}: {good_count} documents were there");
                if bad_count > 0 {
                    warn!("{bad_count} lines of {path} are no documents and were passed over");
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn read_lines(&mut self, take: &mut impl FnMut(&str) -> bool) -> io::Result<(u64, u64)> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::new(&self.file);
        let (mut good_count, mut bad_count) = (0, 0);
        // Behind the last line that is whole.
        let mut end = 0;
        let mut line = Vec::new();
        let ends_like_a_document = loop {
            line.clear();
            let length = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                let rest =
                    if length as u64 == LINE_BYTES_MAX { skip_line(&mut reader)? } else { None };
                let Some(rest) = rest else {
                    break line.is_empty() || line.starts_with(b"\"");
                };
                bad_count += 1;
                end += length as u64 + rest;
                continue;
            }
            end += length as u64;
            let is_good = serde_json::from_slice(&line).is_ok_and(|text: String| take(&text));
            *(if is_good { &mut good_count } else { &mut bad_count }) += 1;
        };
        // Somebody's other file, named by mistake, must not be cut or written to.
        if good_count == 0 && (bad_count > 0 || !ends_like_a_document) {
            return Err(io::Error::other("it has other things than documents, and stays as it is"));
        }
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::End(0))?;
        self.size_bytes = end;
        Ok((good_count, bad_count))
    }

    /// Appends documents.
    pub fn append<'a>(&mut self, texts: impl Iterator<Item = &'a str>) {
        if self.is_broken {
            return;
        }
        let mut lines = Vec::new();
        texts.for_each(|text| push_line(&mut lines, text));
        match self.file.write_all(&lines) {
            Ok(()) => self.size_bytes += lines.len() as u64,
            Err(error) => self.fail(&error),
        }
    }

    /// Whether it holds so much more than the store, which has `store_size_bytes`, that it should
    /// be written anew.
    pub fn is_grown(&self, store_size_bytes: usize) -> bool {
        let bound = SIZE_BYTES_MIN.max(GROWTH_MAX * store_size_bytes as u64);
        !self.is_broken && self.size_bytes > bound
    }

    /// Writes it anew with these documents alone.
    pub fn rewrite<'a>(&mut self, texts: impl Iterator<Item = &'a str>) {
        if self.is_broken {
            return;
        }
        if let Err(error) = self.write_beside(texts) {
            self.fail(&error);
        }
    }

    fn write_beside<'a>(&mut self, texts: impl Iterator<Item = &'a str>) -> io::Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let written = self.write_new(Path::new(&name), texts);
        if written.is_err() {
            // It would take the room that others need on a full disk.
            let _ = std::fs::remove_file(&name);
        }
        written
    }

    fn write_new<'a>(
        &mut self,
        name: &Path,
        texts: impl Iterator<Item = &'a str>,
    ) -> io::Result<()> {
        let file = options().truncate(true).open(name)?;
        file.try_lock()?;
        let mut writer = BufWriter::new(file);
        let mut line = Vec::new();
        let mut size_bytes = 0;
        for text in texts {
            line.clear();
            push_line(&mut line, text);
            writer.write_all(&line)?;
            size_bytes += line.len() as u64;
        }
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        std::fs::rename(name, &self.path)?;
        (self.file, self.size_bytes) = (file, size_bytes);
        Ok(())
    }

    /// Half a line may be at the end: nothing is appended to that, and the next start cuts it off.
    fn fail(&mut self, error: &io::Error) {
        self.is_broken = true;
        let path = self.path.display();
        error!("{path} cannot be used: {error}. From now on traces are kept in memory alone");
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn push_line(lines: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(&mut *lines, text).expect("a string is always JSON, and memory takes it");
    lines.push(b'\n');
}

/// Reads to the end of a line that is too long; how many bytes that were, if it has one.
fn skip_line(reader: &mut impl BufRead) -> io::Result<Option<u64>> {
    let mut count = 0;
    let mut part = Vec::new();
    loop {
        part.clear();
        let length = reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut part)?;
        count += length as u64;
        if part.ends_with(b"\n") {
            return Ok(Some(count));
        }
        if length == 0 {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests;
