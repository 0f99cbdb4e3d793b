//! The files that a program sees: those of its container, and those of volumes mounted there.

use super::absolute;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What all files that a program writes may measure together.
const LIMIT: usize = 1 << 20;
/// Directories that are always there.
const FOLDERS: [&str; 13] = [
    "/", "/bin", "/dev", "/etc", "/home", "/proc", "/root", "/tmp", "/usr", "/usr/bin", "/var",
    "/var/log", "/var/run",
];

/// A change of a file: when, which, and what it holds since; `None` once it is gone.
pub type Change = (Duration, String, Option<Vec<u8>>);

/// Files by absolute path.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: BTreeMap<String, Vec<u8>>,
    folders: BTreeSet<String>,
    /// Where volumes are mounted whose contents are not known here: every file is there, and empty.
    pub unknown: Vec<String>,
    /// Where volumes are mounted that may be written.
    pub writable: Vec<String>,
    /// Nothing but `writable` may be written.
    pub read_only: bool,
    /// Where volumes are mounted that are kept in memory.
    pub memory: Vec<String>,
    /// What some of them may hold, in bytes.
    pub sizes: BTreeMap<String, u64>,
    /// Modes of files and directories that are not the usual ones.
    modes: BTreeMap<String, u32>,
    /// User and group of files and directories that are not root's.
    owners: BTreeMap<String, (u32, u32)>,
    /// Who writes: user and group.
    pub user: (u32, u32),
    /// What has been written, in order.
    pub changes: Vec<Change>,
    /// What all files may measure together, where it is not the usual.
    pub room: Option<usize>,
}

/// Why a file cannot be written.
pub type Refusal = &'static str;

fn under(folder: &str, path: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || folder == "/")
}

impl Disk {
    /// Puts a file there, and its directory.
    pub fn put(&mut self, path: &str, content: Vec<u8>) {
        self.folder(path.rsplit_once('/').map_or("/", |(folder, _)| folder));
        self.files.insert(path.to_owned(), content);
    }

    /// Sets the mode of a file or a directory.
    pub fn mode(&mut self, path: &str, mode: u32) {
        self.modes.insert(path.to_owned(), mode);
    }

    /// The mode of a file or a directory.
    pub fn mode_of(&self, path: &str) -> u32 {
        let usual = if self.is_folder(path) { 0o755 } else { 0o644 };
        self.modes.get(path).copied().unwrap_or(usual)
    }

    /// Sets user and group of a file or a directory.
    pub fn own(&mut self, path: &str, owner: (u32, u32)) {
        self.owners.insert(path.to_owned(), owner);
    }

    /// User and group of a file or a directory.
    pub fn owner_of(&self, path: &str) -> (u32, u32) {
        self.owners.get(path).copied().unwrap_or_default()
    }

    /// Whether there is a file or a directory.
    pub fn there(&self, path: &str) -> bool {
        self.is_folder(path) || self.read(path).is_some()
    }

    /// Makes a directory and those it is in.
    pub fn folder(&mut self, path: &str) {
        let mut path = path;
        while !path.is_empty() && path != "/" && self.folders.insert(path.to_owned()) {
            path = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        }
    }

    fn opaque(&self, path: &str) -> bool {
        self.unknown.iter().any(|it| under(it, path))
    }

    /// The content of a file.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        match self.files.get(path) {
            Some(content) => Some(content.clone()),
            None => (self.opaque(path) && !self.unknown.iter().any(|it| it == path)).then(Vec::new),
        }
    }

    /// Whether there is such a directory.
    pub fn is_folder(&self, path: &str) -> bool {
        FOLDERS.contains(&path) || self.folders.contains(path)
    }

    /// Writes a file, whole or at its end.
    pub fn write(
        &mut self,
        at: Duration,
        path: &str,
        content: &[u8],
        append: bool,
    ) -> Result<(), Refusal> {
        if path == "/dev/null" {
            return Ok(());
        }
        if self.is_folder(path) {
            return Err("Is a directory");
        }
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if !self.is_folder(if folder.is_empty() { "/" } else { folder }) {
            return Err("nonexistent directory");
        }
        let free =
            |path: &str| under("/dev", path) || self.writable.iter().any(|it| under(it, path));
        if (self.read_only && !free(path)) || self.opaque(path) {
            return Err("Read-only file system");
        }
        let mut whole = match append {
            true => self.files.get(path).cloned().unwrap_or_default(),
            false => vec![],
        };
        whole.extend_from_slice(content);
        let others: usize = self
            .files
            .iter()
            .filter(|(name, _)| *name != path)
            .map(|(_, it)| it.len())
            .sum();
        if others + whole.len() > self.room.unwrap_or(LIMIT) {
            return Err("No space left on device");
        }
        if !self.files.contains_key(path) {
            // A directory with this bit gives its group to what is made in it.
            const SETGID: u32 = 0o2000;
            let (user, group) = self.user;
            let inherits = self.mode_of(folder) & SETGID != 0;
            let group = if inherits {
                self.owner_of(folder).1
            } else {
                group
            };
            self.own(path, (user, group));
        }
        self.changes
            .push((at, path.to_owned(), Some(whole.clone())));
        self.files.insert(path.to_owned(), whole);
        Ok(())
    }

    /// Removes a file, or a directory with all in it; whether there was one.
    pub fn remove(&mut self, at: Duration, path: &str) -> bool {
        let gone: Vec<String> = self
            .files
            .keys()
            .filter(|it| under(path, it))
            .cloned()
            .collect();
        let folder = self.folders.contains(path);
        self.folders.retain(|it| !under(path, it));
        for name in &gone {
            self.files.remove(name);
            self.changes.push((at, name.clone(), None));
        }
        folder || !gone.is_empty()
    }

    /// Takes away a file, or a directory with all in it, as if it had never been there.
    pub fn erase(&mut self, path: &str) {
        self.files.retain(|it, _| !under(path, it));
        self.folders.retain(|it| !under(path, it));
    }

    /// Names in a directory.
    pub fn list(&self, folder: &str) -> Vec<String> {
        let begins = match folder {
            "/" => "/".to_owned(),
            folder => format!("{folder}/"),
        };
        let all = self.files.keys().chain(&self.folders).map(String::as_str);
        let mut names: Vec<String> = all
            .chain(FOLDERS)
            .filter_map(|name| name.strip_prefix(&begins))
            .filter_map(|rest| rest.split('/').next())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The files under a directory, by their paths from there.
    pub fn under(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let inside = self.files.iter().filter(|(name, _)| under(folder, name));
        inside
            .map(|(name, content)| (name[folder.len()..].to_owned(), content.clone()))
            .collect()
    }

    /// All directories but those that every container has.
    pub fn folders(&self) -> &BTreeSet<String> {
        &self.folders
    }

    /// A file or directory and all in it, by their paths; directories have no content.
    pub fn tree(&self, path: &str) -> BTreeMap<String, Option<Vec<u8>>> {
        let mut all = BTreeMap::new();
        if self.is_folder(path) {
            all.insert(path.to_owned(), None);
        }
        let folders = self.folders.iter().filter(|it| under(path, it));
        all.extend(folders.map(|it| (it.clone(), None)));
        let files = self.files.iter().filter(|(it, _)| under(path, it));
        all.extend(files.map(|(it, content)| (it.clone(), Some(content.clone()))));
        all
    }

    /// Does again what was done up to a time.
    pub fn replay(&mut self, changes: &[Change], until: Duration) {
        for (at, path, content) in changes.iter().filter(|(at, ..)| *at <= until) {
            match content {
                Some(content) => self.put(path, content.clone()),
                None => {
                    self.remove(*at, path);
                }
            }
        }
        self.changes.clear();
    }

    /// The path of a file that is named from a directory.
    pub fn path(from: &str, name: &str) -> String {
        absolute(from, name)
    }
}
