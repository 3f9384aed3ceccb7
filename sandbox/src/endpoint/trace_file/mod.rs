//! Stores documents in a file (option `--keep`), so that the next run can read them again.
//!
//! In: documents, in the order of their arrival. Out: the same documents at the next start. Bound:
//! the file is rewritten when it is too large, see below. Thread: any; the caller holds the lock of
//! the sandbox. An append is fast, because it only copies into the page cache of the system.
//!
//! Each line of the file is a JSON string that contains the text of one document. `jq -r .` prints
//! the documents. New lines are only appended. The file is rewritten with the documents of the
//! store when it is larger than [`SIZE_BYTES_MIN`] and than [`GROWTH_MAX`] times the size of the
//! store. The new content goes to a second file, which then replaces the first one. If a run was
//! killed, the last line may be incomplete: the next run removes it. After a write error, an error
//! is logged and the file is not used any more. The traces in memory stay.

use crate::model::document::DOCUMENT_SIZE_BYTES_MAX;
use crate::model::span::TEXT_BYTES_MAX;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tracing::{error, info, warn};

/// Size in bytes up to which a trace file is never rewritten.
const SIZE_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// A trace file is rewritten only if it is larger than this number times the size of the store. The
/// size of the store includes the parsed fields.
const GROWTH_MAX: u64 = 2;

/// Longest valid line, in bytes, with two quotation marks and a newline: the JSON of a span in
/// which every byte is escaped as two bytes (`\"`), which is longer than a document of 64 KiB in
/// which every byte is escaped as six bytes (`\u0001`).
const LINE_BYTES_MAX: u64 = 2 * TEXT_BYTES_MAX as u64 + 3;
const _: () = assert!(TEXT_BYTES_MAX >= 3 * DOCUMENT_SIZE_BYTES_MAX);

/// An open trace file. See the module.
#[derive(Debug)]
pub struct TraceFile {
    path: PathBuf,
    file: File,
    size_bytes: u64,
    is_broken: bool,
}

impl TraceFile {
    /// Opens the file and locks it. Creates the file with mode 0600 if it does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be opened, is not a regular file, or is locked by
    /// another process.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = options().truncate(false).open(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another process uses the file"),
            TryLockError::Error(error) => error,
        })?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let size_bytes = metadata.len();
        Ok(Self { path: path.to_owned(), file, size_bytes, is_broken: false })
    }

    /// Reads every line and passes its text to `take`. `take` returns whether the text is a valid
    /// document.
    ///
    /// An incomplete line at the end is removed from the file. Other invalid lines are skipped.
    /// After a read error, the error is logged and the file is not used any more.
    pub fn read(&mut self, mut take: impl FnMut(&str) -> bool) {
        match self.read_lines(&mut take) {
            Ok((good_count, bad_count)) => {
                let path = self.path.display();
                info!("Traces are stored in {path}. {good_count} documents were read from it");
                if bad_count > 0 {
                    warn!("{bad_count} lines of {path} are not valid documents and were skipped");
                }
            }
            Err(error) => self.fail(&error),
        }
    }

    fn read_lines(&mut self, take: &mut impl FnMut(&str) -> bool) -> io::Result<(u64, u64)> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut reader = BufReader::new(&self.file);
        let (mut good_count, mut bad_count) = (0, 0);
        // End of the last complete line, in bytes.
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
        // The user may have given the path of a file that is not a trace file. This file must not
        // be changed.
        if good_count == 0 && (bad_count > 0 || !ends_like_a_document) {
            return Err(io::Error::other("it contains no valid document and is left unchanged"));
        }
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::End(0))?;
        self.size_bytes = end;
        Ok((good_count, bad_count))
    }

    /// Appends documents. After a write error, the error is logged and the file is not used any
    /// more.
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

    /// Returns whether the file is large enough to be rewritten. `store_size_bytes` is the size of
    /// the store.
    pub fn is_grown(&self, store_size_bytes: usize) -> bool {
        let bound = SIZE_BYTES_MIN.max(GROWTH_MAX * store_size_bytes as u64);
        !self.is_broken && self.size_bytes > bound
    }

    /// Replaces the content of the file with these documents. After a write error, the error is
    /// logged and the file is not used any more.
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
            // Free the space: the disk may be full. An error is ignored, because the write error is
            // reported instead.
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

    /// Logs an error and stops using the file. The last line may be incomplete, so nothing must be
    /// appended to it. The next run removes this line.
    fn fail(&mut self, error: &io::Error) {
        self.is_broken = true;
        let path = self.path.display();
        error!("{path} cannot be used: {error}. From now on traces are stored only in memory");
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn push_line(lines: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(&mut *lines, text).expect("a string can be written as JSON to memory");
    lines.push(b'\n');
}

/// Skips the rest of a line that is too long. Returns the number of skipped bytes, or `None` if the
/// file ends before the line does.
///
/// # Errors
///
/// Returns an error if the file cannot be read.
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
