//! Entries that wait for a store that is away: in order, on disk, so many bytes at most.
//!
//! A file of JSON lines that is only ever appended to, synced before an append counts, and emptied when all of
//! it has been written to the store. How far it has been read is not kept: after a crash everything is written
//! to the store again, where it counts once. A last line that was torn by a crash had not counted yet.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::record::Entry;

/// Where entries wait.
#[derive(Debug)]
pub enum Spool {
    /// In a file.
    File(OnDisk),
    /// In memory, where the process has no disk: lost with it.
    Memory(VecDeque<Entry>),
}

/// A spool in a file.
#[derive(Debug)]
pub struct OnDisk {
    file: File,
    path: PathBuf,
    /// Bytes written and synced.
    end: u64,
    /// Bytes that the store has.
    read: u64,
    /// Bytes up to which [`Spool::peek`] has looked.
    peeked: u64,
    most: u64,
}

/// The most entries that are kept in memory.
const IN_MEMORY: usize = 10_000;

impl Spool {
    /// Opens the file, or makes it, for its owner alone; what it holds is waiting.
    pub fn open(path: &Path, most: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let mut whole = 0;
        let mut lines = BufReader::new(&mut file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = lines.read_until(b'\n', &mut line)?;
            if read == 0 || line.last() != Some(&b'\n') {
                break;
            }
            whole += read as u64;
        }
        file.set_len(whole)?;
        file.sync_all()?;
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        Ok(Self::File(OnDisk {
            file,
            path: path.to_owned(),
            end: whole,
            read: 0,
            peeked: 0,
            most,
        }))
    }

    /// A spool in memory.
    pub fn memory() -> Self {
        Self::Memory(VecDeque::new())
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::File(disk) => disk.read == disk.end,
            Self::Memory(entries) => entries.is_empty(),
        }
    }

    /// How much waits: bytes on disk, entries in memory.
    pub fn waiting(&self) -> u64 {
        match self {
            Self::File(disk) => disk.end - disk.read,
            Self::Memory(entries) => entries.len() as u64,
        }
    }

    /// Whether more may be added.
    pub fn has_room(&self) -> bool {
        match self {
            Self::File(disk) => disk.end < disk.most,
            Self::Memory(entries) => entries.len() < IN_MEMORY,
        }
    }

    /// Adds entries at the end; they count when this returns.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        match self {
            Self::File(disk) => disk.append(entries),
            Self::Memory(waiting) => {
                waiting.extend(entries.iter().cloned());
                Ok(())
            }
        }
    }

    /// The first entries that wait, `most` or fewer, of the first `within` of what [`waiting`](Self::waiting)
    /// counts.
    pub fn peek(&mut self, most: usize, within: u64) -> io::Result<Vec<Entry>> {
        match self {
            Self::File(disk) => disk.peek(most, within),
            Self::Memory(waiting) => {
                let most = most.min(usize::try_from(within).unwrap_or(usize::MAX));
                Ok(waiting.iter().take(most).cloned().collect())
            }
        }
    }

    /// What was last peeked at, of which there were `count`, is in the store.
    pub fn advance(&mut self, count: usize) -> io::Result<()> {
        match self {
            Self::File(disk) => disk.advance(),
            Self::Memory(waiting) => {
                waiting.drain(..count.min(waiting.len()));
                Ok(())
            }
        }
    }
}

impl OnDisk {
    fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut text = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut text, entry)?;
            text.push(b'\n');
        }
        self.file.seek(SeekFrom::Start(self.end))?;
        let written = self
            .file
            .write_all(&text)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // What may have got there of it must not stand before what comes next.
            self.file.set_len(self.end)?;
            return Err(error);
        }
        self.end += text.len() as u64;
        Ok(())
    }

    fn peek(&mut self, most: usize, within: u64) -> io::Result<Vec<Entry>> {
        let end = self.end.min(self.read.saturating_add(within));
        self.file.seek(SeekFrom::Start(self.read))?;
        let mut lines = BufReader::new(&mut self.file);
        let (mut entries, mut at) = (Vec::new(), self.read);
        let mut line = Vec::new();
        while entries.len() < most && at < end {
            line.clear();
            at += lines.read_until(b'\n', &mut line)? as u64;
            match serde_json::from_slice(&line) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    tracing::error!(spool = %self.path.display(), %error, "a line of the spool is damaged and left out");
                }
            }
        }
        self.peeked = at;
        Ok(entries)
    }

    fn advance(&mut self) -> io::Result<()> {
        self.read = self.peeked;
        if self.read == self.end {
            self.file.set_len(0)?;
            self.file.sync_data()?;
            (self.read, self.end, self.peeked) = (0, 0, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SeenChange;

    fn entry(n: usize) -> Entry {
        Entry {
            records: vec![],
            seen: Some(SeenChange::Gone(n.to_string())),
        }
    }

    #[test]
    fn entries_come_out_in_order_and_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let all: Vec<Entry> = (0..10).map(entry).collect();
        let mut spool = Spool::open(&path, 1 << 20).unwrap();
        spool.append(&all[..4]).unwrap();
        spool.append(&all[4..7]).unwrap();
        assert_eq!(spool.peek(5, u64::MAX).unwrap(), all[..5]);
        let line = spool.waiting() / 7;
        assert_eq!(spool.peek(5, 2 * line).unwrap(), all[..2]);
        assert_eq!(
            spool.peek(5, u64::MAX).unwrap(),
            all[..5],
            "a peek takes nothing"
        );
        spool.advance(5).unwrap();
        assert_eq!(spool.peek(5, u64::MAX).unwrap(), all[5..7]);
        spool.append(&all[7..]).unwrap();
        spool.advance(2).unwrap();
        assert!(!spool.is_empty());
        drop(spool);

        // A crash in the middle of an append.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"records\":[]").unwrap();
        let mut spool = Spool::open(&path, 1 << 20).unwrap();
        assert_eq!(
            spool.peek(100, u64::MAX).unwrap(),
            all,
            "from the start again"
        );
        spool.advance(10).unwrap();
        assert!(spool.is_empty());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn there_is_room_for_so_much() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(&folder.path().join("spool"), 100).unwrap();
        let mut n = 0;
        while spool.has_room() {
            spool.append(&[entry(n)]).unwrap();
            n += 1;
        }
        assert!((2..10).contains(&n), "{n}");
        assert_eq!(spool.peek(100, u64::MAX).unwrap().len(), n);
        spool.advance(n).unwrap();
        assert!(spool.has_room());
    }
}
