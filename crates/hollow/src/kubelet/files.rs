//! The files of simulated containers: a few that every container has, and what clients have put
//! there. They are kept in memory while the pod is on its node.

use parking_lot::Mutex;
use std::collections::BTreeMap;

/// What the files of one container may measure together.
const LIMIT: usize = 8 << 20;
/// Directories that are always there.
const FOLDERS: [&str; 12] = [
    "/", "/bin", "/dev", "/etc", "/home", "/proc", "/root", "/tmp", "/usr", "/usr/bin", "/var",
    "/var/run",
];

/// Files of one container by absolute path; directories end with a slash.
#[derive(Default)]
pub struct Files(Mutex<BTreeMap<String, Vec<u8>>>);

/// Why a file cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its directory does not exist.
    NoFolder,
    /// It is a directory.
    IsFolder,
    /// All that may be kept is kept.
    Full,
}

impl Refused {
    /// As commands say it.
    pub fn words(self) -> &'static str {
        match self {
            Self::NoFolder => "No such file or directory",
            Self::IsFolder => "Is a directory",
            Self::Full => "No space left on device",
        }
    }
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

fn inside(folder: &str) -> String {
    match folder {
        "/" => "/".to_owned(),
        folder => format!("{folder}/"),
    }
}

impl Files {
    /// Files that are there from the start.
    pub fn with(first: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        Self(Mutex::new(first.into_iter().collect()))
    }

    /// The content of a file.
    pub fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.0.lock().get(path).cloned()
    }

    /// Whether there is such a directory.
    pub fn is_folder(&self, path: &str) -> bool {
        let begins = inside(path);
        let files = self.0.lock();
        let mut from = files.range(begins.clone()..);
        FOLDERS.contains(&path)
            || from
                .next()
                .is_some_and(|(name, _)| name.starts_with(&begins))
    }

    /// Makes a directory.
    pub fn make_folder(&self, path: &str) {
        self.0.lock().insert(inside(path), vec![]);
    }

    /// Writes a file.
    pub fn write(&self, path: &str, content: Vec<u8>) -> Result<(), Refused> {
        let (folder, _) = path.rsplit_once('/').unwrap_or(("", path));
        if self.is_folder(path) {
            return Err(Refused::IsFolder);
        }
        if !self.is_folder(if folder.is_empty() { "/" } else { folder }) {
            return Err(Refused::NoFolder);
        }
        let mut files = self.0.lock();
        let others: usize = files
            .iter()
            .filter(|(name, _)| *name != path)
            .map(|(_, it)| it.len())
            .sum();
        if others + content.len() > LIMIT {
            return Err(Refused::Full);
        }
        files.insert(path.to_owned(), content);
        Ok(())
    }

    /// Removes a file, or a directory with all in it; whether there was one. The directory that it was
    /// in stays.
    pub fn remove(&self, path: &str) -> bool {
        let begins = inside(path);
        let mut files = self.0.lock();
        let before = files.len();
        files.retain(|name, _| name != path && !name.starts_with(&begins));
        let removed = files.len() < before;
        if removed && let Some((folder, _)) = path.rsplit_once('/') {
            // A directory need not be written down while something is in it.
            files.entry(inside(folder)).or_default();
        }
        removed
    }

    /// Names in a directory.
    pub fn list(&self, folder: &str) -> Vec<String> {
        let begins = inside(folder);
        let files = self.0.lock();
        let all = files.keys().map(String::as_str).chain(FOLDERS);
        let mut names: Vec<String> = all
            .filter_map(|name| name.strip_prefix(&begins))
            .filter_map(|rest| rest.split('/').next())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// All under a path, with their contents; directories end with a slash.
    pub fn under(&self, path: &str) -> Vec<(String, Vec<u8>)> {
        let begins = inside(path);
        let files = self.0.lock();
        let found = files
            .iter()
            .filter(|(name, _)| *name == path || name.starts_with(&begins));
        found
            .map(|(name, content)| (name.clone(), content.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_listed_and_limited() {
        let files = Files::default();
        assert_eq!(files.write("/tmp/a", b"1".to_vec()), Ok(()));
        assert_eq!(files.write("/tmp/x/a", vec![]), Err(Refused::NoFolder));
        files.make_folder("/tmp/x");
        assert_eq!(files.write("/tmp/x/a", vec![]), Ok(()));
        assert_eq!(files.write("/tmp/x", vec![]), Err(Refused::IsFolder));
        assert_eq!(files.list("/tmp"), ["a", "x"]);
        assert!(files.list("/").contains(&"etc".to_owned()));
        assert_eq!(files.write("/tmp/b", vec![0; LIMIT]), Err(Refused::Full));
        assert!(files.remove("/tmp/x") && !files.is_folder("/tmp/x"));
        let files = Files::with([("/srv/www/a".to_owned(), vec![1])]);
        assert!(files.remove("/srv/www/a") && files.is_folder("/srv/www"));
        assert_eq!(files.write("/srv/www/a", vec![1]), Ok(()));
        assert_eq!(absolute("/tmp", "../a/./b//c"), "/a/b/c");
    }
}
