//! What clients have changed in the files of simulated containers. It is kept in memory while the pod is on its
//! node, and laid over what the container finds when it starts.

use crate::program::Disk;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};

/// Changes in one container, by absolute path.
#[derive(Default)]
pub struct Files(Mutex<Changed>);

#[derive(Default)]
struct Changed {
    /// What files hold; `None`: they are gone.
    files: BTreeMap<String, Option<Vec<u8>>>,
    /// Whether directories are there.
    folders: BTreeMap<String, bool>,
}

/// A path without `.`, `..` and doubled slashes; relative ones start at `from`.
pub fn absolute(from: &str, path: &str) -> String {
    let whole = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{from}/{path}"),
    };
    let mut parts: Vec<&str> = vec![];
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

impl Files {
    /// Lays the changes over what is there.
    pub fn onto(&self, disk: &mut Disk) {
        let changed = self.0.lock();
        for (path, there) in &changed.folders {
            match there {
                true => disk.folder(path),
                false => disk.erase(path),
            }
        }
        for (path, content) in &changed.files {
            match content {
                Some(content) => disk.put(path, content.clone()),
                None => disk.erase(path),
            }
        }
    }

    /// All files that were changed, and what they hold since.
    pub fn all(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let changed = self.0.lock();
        let all = changed.files.iter();
        all.map(|(path, content)| (path.clone(), content.clone()))
            .collect()
    }

    /// Keeps a change of a file.
    pub fn keep(&self, path: String, content: Option<Vec<u8>>) {
        self.0.lock().files.insert(path, content);
    }

    /// Keeps which directories have come and gone.
    pub fn keep_folders(&self, before: &BTreeSet<String>, after: &BTreeSet<String>) {
        let mut changed = self.0.lock();
        let come = after.difference(before).map(|it| (it.clone(), true));
        let gone = before.difference(after).map(|it| (it.clone(), false));
        changed.folders.extend(come.chain(gone));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn changes_are_laid_over_what_is_there() {
        let base = || {
            let mut disk = Disk::default();
            disk.put("/srv/www/a", b"1".to_vec());
            disk.put("/etc/name", b"x".to_vec());
            disk
        };
        let files = Files::default();
        let mut disk = base();
        let before = disk.folders().clone();
        let now = Duration::ZERO;
        disk.folder("/tmp/new");
        disk.write(now, "/tmp/new/b", b"2", false).unwrap();
        disk.write(now, "/etc/name", b"y", true).unwrap();
        disk.remove(now, "/srv/www");
        files.keep_folders(&before, disk.folders());
        for (_, path, content) in std::mem::take(&mut disk.changes) {
            files.keep(path, content);
        }
        let mut again = base();
        files.onto(&mut again);
        assert_eq!(again.tree("/"), disk.tree("/"));
        assert_eq!(again.read("/etc/name").unwrap(), b"xy");
        assert!(!again.is_folder("/srv/www") && again.is_folder("/srv"));
        assert_eq!(absolute("/tmp", "../a/./b//c"), "/a/b/c");
    }
}
