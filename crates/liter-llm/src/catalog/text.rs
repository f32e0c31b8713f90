//! The catalogue's text: one JSON object, a row to the line, sorted by key. A row is found by halving, so that neither
//! the whole text is read nor anything of it is kept in memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

use bytes::Bytes;

/// Up to here lines are looked through one after the other.
const WINDOW: u64 = 16 * 1024;
/// The longest line that is taken for a row.
const LONGEST_LINE: usize = 256 * 1024;

/// Where the text is.
#[derive(Debug, Clone)]
pub(super) enum Text {
    /// In memory, or in the program's own file.
    Bytes(Bytes),
    /// In a file, which is opened for each search.
    File(PathBuf),
}

/// Something that can be read from any place.
trait Places {
    fn length(&mut self) -> io::Result<u64>;
    /// Reads from `at` on until the buffer is full or the text ends.
    fn read(&mut self, at: u64, buffer: &mut Vec<u8>, most: usize) -> io::Result<()>;
}

impl Places for &Bytes {
    fn length(&mut self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read(&mut self, at: u64, buffer: &mut Vec<u8>, most: usize) -> io::Result<()> {
        let start = usize::try_from(at).unwrap_or(usize::MAX).min(self.len());
        let end = start.saturating_add(most).min(self.len());
        buffer.extend_from_slice(&self[start..end]);
        Ok(())
    }
}

impl Places for File {
    fn length(&mut self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&mut self, at: u64, buffer: &mut Vec<u8>, most: usize) -> io::Result<()> {
        self.seek(SeekFrom::Start(at))?;
        Read::by_ref(self).take(most as u64).read_to_end(buffer)?;
        Ok(())
    }
}

impl Text {
    /// The row with this key, as JSON text.
    pub(super) fn row(&self, key: &str) -> io::Result<Option<String>> {
        match self {
            Self::Bytes(bytes) => search(&mut &*bytes, key),
            Self::File(path) => search(&mut File::open(path)?, key),
        }
    }

    /// The first line: the header, without the opening of the rows.
    pub(super) fn header(&self) -> io::Result<String> {
        let line = match self {
            Self::Bytes(bytes) => line_at(&mut &*bytes, 0)?,
            Self::File(path) => line_at(&mut File::open(path)?, 0)?,
        };
        text(line)
    }

    /// All of it.
    pub(super) fn whole(&self) -> io::Result<String> {
        match self {
            Self::Bytes(bytes) => text(bytes.to_vec()),
            Self::File(path) => std::fs::read_to_string(path),
        }
    }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The line that begins at a place, without its end.
fn line_at(source: &mut impl Places, at: u64) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let before = line.len();
        source.read(at + before as u64, &mut line, 2048)?;
        if let Some(end) = memchr::memchr(b'\n', &line[before..]) {
            line.truncate(before + end);
            return Ok(line);
        }
        if line.len() == before {
            return Ok(line);
        }
        if line.len() > LONGEST_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is too long for a row"));
        }
    }
}

/// Key and value of a line `"key":value,`.
pub(super) fn split(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix('"')?;
    let (key, value) = rest.split_once("\":")?;
    Some((key, value.strip_suffix(',').unwrap_or(value)))
}

fn key_of(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"\"")?;
    Some(&rest[..memchr::memchr(b'"', rest)?])
}

fn search(source: &mut impl Places, key: &str) -> io::Result<Option<String>> {
    let key = key.as_bytes();
    let mut low = line_at(source, 0)?.len() as u64 + 1;
    let mut high = source.length()?;
    while high.saturating_sub(low) > WINDOW {
        let middle = low + (high - low) / 2;
        let start = middle + line_at(source, middle)?.len() as u64 + 1;
        if start >= high {
            break;
        }
        let line = line_at(source, start)?;
        // What is no row (the closing brackets) comes after all rows.
        match key_of(&line).map(|found| found.cmp(key)) {
            Some(std::cmp::Ordering::Less) => low = start,
            Some(std::cmp::Ordering::Equal) => return text(line).map(value),
            Some(std::cmp::Ordering::Greater) | None => high = start,
        }
    }
    let mut window = Vec::new();
    let most = usize::try_from(high.saturating_sub(low)).unwrap_or(LONGEST_LINE).min(LONGEST_LINE);
    source.read(low, &mut window, most)?;
    for line in window.split(|byte| *byte == b'\n') {
        if key_of(line) == Some(key) {
            return text(line.to_vec()).map(value);
        }
    }
    Ok(None)
}

fn value(line: String) -> Option<String> {
    split(&line).map(|(_, value)| value.to_owned())
}
