//! The demo's data folder: made anew by each run, and never someone's else.

use std::fs;
use std::path::Path;

use crate::failure::{Exit, Failure, Result};
use crate::fleet::DataDir;

/// Says that a folder is a demo's and may be made anew.
const MARK: &str = "made-by-gantry-demo";

/// Empties the folder of an earlier demo; refuses any other that is not empty.
pub fn renew(path: &Path) -> Result<()> {
    let data = DataDir::take(path)?;
    let unwritable = |e: std::io::Error| {
        Failure::new(
            Exit::DataUnwritable,
            format!("cannot empty the demo's folder {}: {e}", path.display()),
        )
    };
    let mut entries = vec![];
    for entry in fs::read_dir(data.path()).map_err(unwritable)? {
        let entry = entry.map_err(unwritable)?;
        if entry.file_name() != "lock" {
            entries.push(entry);
        }
    }
    if !entries.is_empty() && !path.join(MARK).exists() {
        return Err(Failure::new(
            Exit::Failure,
            format!(
                "{} is not empty and no demo made it: it is left as it is",
                path.display()
            ),
        )
        .hint("name an empty folder with --data-dir, or start that fleet with `gantry up`"));
    }
    for entry in entries {
        let path = entry.path();
        if entry.file_type().map_err(unwritable)?.is_dir() {
            fs::remove_dir_all(path).map_err(unwritable)?;
        } else {
            fs::remove_file(path).map_err(unwritable)?;
        }
    }
    fs::write(path.join(MARK), "").map_err(unwritable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_demo_s_folder_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().join("mine");
        fs::create_dir_all(mine.join("below")).unwrap();
        assert_eq!(renew(&mine).unwrap_err().exit, Exit::Failure);
        assert!(mine.join("below").exists());

        let demo = folder.path().join("demo");
        renew(&demo).unwrap();
        fs::create_dir(demo.join("hub")).unwrap();
        fs::write(demo.join("fleet.json"), "{}").unwrap();
        renew(&demo).unwrap();
        assert!(!demo.join("hub").exists() && !demo.join("fleet.json").exists());
    }
}
