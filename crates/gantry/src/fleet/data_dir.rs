//! The folder in which an embedded fleet lives between runs: who may use it, and its shape.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use gantry_cluster::write_private;
use serde::Deserialize;

use super::layout::{FORMAT, Layout, Wish};
use crate::failure::{Exit, Failure, Result};

/// A data folder that this process holds: no other Gantry opens it meanwhile.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Locked for the life of this value; the lock ends with the process, however it ends.
    _lock: File,
}

impl DataDir {
    /// Makes the folder where it is missing (0700) and takes it.
    pub fn take(path: &Path) -> Result<DataDir> {
        let unwritable = |e: io::Error| {
            Failure::new(
                Exit::DataUnwritable,
                format!("cannot write to the data folder {}: {e}", path.display()),
            )
            .hint("name a folder of yours with --data-dir")
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unwritable)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => Ok(DataDir {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(Failure::new(
                Exit::DataInUse,
                format!(
                    "the data folder {} is in use by another gantry process",
                    path.display()
                ),
            )
            .hint("stop it, or name another folder with --data-dir")),
            Err(TryLockError::Error(e)) => Err(unwritable(e)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn cluster(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    fn layout_file(&self) -> PathBuf {
        self.path.join("fleet.json")
    }

    /// The fleet in the folder, checked against what is asked for; a new one where there is none.
    pub fn layout(&self, wish: Wish) -> Result<Layout> {
        let path = self.layout_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let layout = Layout::new(wish).map_err(Failure::usage)?;
                self.keep(&layout)?;
                return Ok(layout);
            }
            Err(e) => {
                return Err(Failure::new(
                    Exit::DataUnwritable,
                    format!("cannot read {}: {e}", path.display()),
                ));
            }
        };
        let layout = read(&text, &path)?;
        layout.check(wish).map_err(|difference| {
            Failure::usage(format!("{}: {difference}", self.path.display())).hint(
                "leave the flag out to start that fleet, or name another folder with --data-dir",
            )
        })?;
        Ok(layout)
    }

    /// Writes the fleet's shape down.
    pub fn keep(&self, layout: &Layout) -> Result<()> {
        let path = self.layout_file();
        let text = serde_json::to_vec_pretty(layout).map_err(anyhow::Error::from)?;
        write_private(&path, &text).map_err(|e| {
            Failure::new(
                Exit::DataUnwritable,
                format!("cannot write {}: {e}", path.display()),
            )
            .hint("free some room, or name another folder with --data-dir")
        })
    }
}

fn read(text: &str, path: &Path) -> Result<Layout> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged = |e: serde_json::Error| {
        Failure::new(
            Exit::DataDamaged,
            format!("{} is damaged: {e}", path.display()),
        )
        .hint("restore the folder from a copy, or name another with --data-dir")
    };
    // The format is read first: a newer file may have a shape that this version cannot read.
    let Format { format } = serde_json::from_str(text).map_err(damaged)?;
    if format > FORMAT {
        return Err(Failure::new(
            Exit::DataNewer,
            format!(
                "{} has format {format}; this gantry ({}) reads up to format {FORMAT}",
                path.display(),
                env!("CARGO_PKG_VERSION")
            ),
        )
        .hint("it was written by a newer gantry: use that one, or name another folder with --data-dir"));
    }
    serde_json::from_str(text).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = DataDir::take(folder.path()).unwrap();
        assert_eq!(
            DataDir::take(folder.path()).unwrap_err().exit,
            Exit::DataInUse
        );
        drop(held);
        DataDir::take(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let failure = DataDir::take(&file.join("below")).unwrap_err();
        assert_eq!(failure.exit, Exit::DataUnwritable);
        assert!(failure.message.contains("file/below"), "{failure}");
    }

    #[test]
    fn the_shape_is_kept_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::take(folder.path()).unwrap();
        let made = data
            .layout(Wish {
                nodes: Some(8),
                ..Wish::default()
            })
            .unwrap();
        assert_eq!(data.layout(Wish::default()).unwrap(), made);
        assert_eq!(
            data.layout(Wish {
                nodes: Some(9),
                ..Wish::default()
            })
            .unwrap_err()
            .exit,
            Exit::Usage
        );
    }

    #[test]
    fn newer_and_damaged_folders_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::take(folder.path()).unwrap();
        for (text, exit) in [
            (r#"{"format": 2, "shape": "unknown"}"#, Exit::DataNewer),
            (r#"{"format": 1, "shape": "unknown"}"#, Exit::DataDamaged),
            ("{", Exit::DataDamaged),
        ] {
            fs::write(data.layout_file(), text).unwrap();
            assert_eq!(
                data.layout(Wish::default()).unwrap_err().exit,
                exit,
                "{text}"
            );
        }
    }
}
