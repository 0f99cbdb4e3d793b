//! Follows the audit log of the hub's API server, where there is one to be read: a file that grows and is turned
//! over.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::Duration,
};

use gantry_records::Entry;
use tracing::warn;

use crate::record::Trail;

/// How long a record waits for the log, which is written after the answer and by another thread.
const PATIENCE: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(20);
/// After so many waits in vain there are none until the log has named somebody again.
const VAIN: u32 = 5;

/// The log, as far as it has been read.
pub(super) struct Follower {
    path: PathBuf,
    file: Option<File>,
    /// What has been read of a line that has not ended.
    rest: Vec<u8>,
    trail: Trail,
    complained: bool,
    /// How often in a row it was waited for in vain.
    vain: u32,
}

impl Follower {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            rest: Vec::new(),
            trail: Trail::default(),
            complained: false,
            vain: 0,
        }
    }

    /// Reads what has come since.
    fn read(&mut self) -> std::io::Result<()> {
        loop {
            if let Some(file) = &mut self.file {
                file.read_to_end(&mut self.rest)?;
                let end = self
                    .rest
                    .iter()
                    .rposition(|b| *b == b'\n')
                    .map_or(0, |n| n + 1);
                let whole: Vec<u8> = self.rest.drain(..end).collect();
                for line in whole.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                    self.trail.hear(line);
                }
            }
            let there = match std::fs::metadata(&self.path) {
                Ok(there) => there,
                // Between two files, or before the first.
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(e),
            };
            let same = match &self.file {
                Some(file) => {
                    let read = file.metadata()?;
                    (read.dev(), read.ino()) == (there.dev(), there.ino())
                }
                None => false,
            };
            if same {
                return Ok(());
            }
            self.rest.clear();
            self.file = Some(File::open(&self.path)?);
        }
    }

    /// Names those whom the objects, seen at this version, did not name; waits a moment for the log.
    pub(super) async fn name(&mut self, entries: &mut [Entry], seen: u64) {
        let records = entries.iter_mut().flat_map(|e| &mut e.records);
        let mut asking: Vec<_> = records.filter(|r| Trail::asks(r)).collect();
        // A log that never says anything holds nothing up.
        let patience = if self.vain < VAIN {
            PATIENCE
        } else {
            Duration::ZERO
        };
        let deadline = tokio::time::Instant::now() + patience;
        while !asking.is_empty() {
            if let Err(error) = self.read() {
                if !std::mem::replace(&mut self.complained, true) {
                    let path = self.path.display();
                    warn!(%error, "the audit log {path} cannot be read: deletions and scalings are recorded without a name");
                }
                return;
            }
            let all = asking.len();
            asking.retain_mut(|record| !self.trail.name(record, seen));
            if asking.len() < all {
                self.vain = 0;
            }
            if asking.is_empty() {
                return;
            }
            if tokio::time::Instant::now() >= deadline {
                self.vain = self.vain.saturating_add(1);
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_is_read_on_where_it_grows_and_where_it_is_turned_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut follower = Follower::new(path.clone());
        follower.read().unwrap();
        let mut file = File::create(&path).unwrap();
        file.write_all(b"{}\n{\"half").unwrap();
        follower.read().unwrap();
        assert_eq!(follower.rest, b"{\"half");
        file.write_all(b"\": 1}\n").unwrap();
        std::fs::rename(&path, folder.path().join("audit-1.log")).unwrap();
        std::fs::write(&path, b"{\"next").unwrap();
        follower.read().unwrap();
        assert_eq!(follower.rest, b"{\"next");
    }
}
