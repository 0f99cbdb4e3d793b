//! The segments of a journal as files of a folder.
//!
//! A segment is a file under its number. It gets that name when its head is on the disk, and loses
//! it when nothing in it is needed: then it is a spare, to become another segment. A spare's room
//! was written before, so that writing to it again changes nothing but its bytes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{DatabaseError, StorageBackend};

use crate::folder::{private, reserve, sync};
use crate::journal::LONGEST;

const SEGMENT: &str = "journal-";
const SPARE: &str = "spare-";
const UNFINISHED: &str = "journal.new";
/// The most spares that are kept.
const SPARES: usize = 4;

/// What a segment's file is called.
pub(crate) fn name(id: u64) -> String {
    format!("{SEGMENT}{id}")
}

/// The segments there are, in order.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    numbers(folder, SEGMENT)
}

pub(crate) fn open(folder: &Path, id: u64) -> io::Result<Box<dyn StorageBackend>> {
    backend(
        File::options()
            .read(true)
            .write(true)
            .open(folder.join(name(id)))?,
    )
}

/// See [`crate::medium::Medium::begin_segment`].
pub(crate) fn begin(
    folder: &Path,
    id: u64,
    head: &[u8],
    least: u64,
    usual: u64,
) -> io::Result<Box<dyn StorageBackend>> {
    let path = folder.join(UNFINISHED);
    match spare(folder, least)? {
        Some(spare) => {
            // Taken out of the way first: a segment of the same number that is ended meanwhile gets the
            // spare's name, and what is then under it is another file.
            fs::rename(spare, &path)?;
            // It must not come back under its old name with this head.
            sync(folder)?;
        }
        None => make(&path, usual)?,
    }
    let mut file = File::options().read(true).write(true).open(&path)?;
    file.write_all(head)?;
    file.sync_all()?;
    fs::rename(&path, folder.join(name(id)))?;
    sync(folder)?;
    backend(file)
}

/// See [`crate::medium::Medium::end_segment`].
pub(crate) fn end(folder: &Path, id: u64) -> io::Result<()> {
    let path = folder.join(name(id));
    let keep = fs::metadata(&path)?.len() <= LONGEST && numbers(folder, SPARE)?.len() < SPARES;
    match keep {
        true => fs::rename(&path, folder.join(format!("{SPARE}{id}"))),
        false => fs::remove_file(&path),
    }
}

/// The greatest spare, if it has so much room.
fn spare(folder: &Path, least: u64) -> io::Result<Option<PathBuf>> {
    let mut greatest = None;
    for id in numbers(folder, SPARE)? {
        let path = folder.join(format!("{SPARE}{id}"));
        let length = fs::metadata(&path)?.len();
        greatest = greatest.max(Some((length, path)));
    }
    Ok(greatest
        .filter(|(length, _)| *length >= least)
        .map(|(_, path)| path))
}

/// A file of this length whose blocks are all written.
fn make(path: &Path, length: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let written = (|| {
        let mut file = private().truncate(true).open(path)?;
        reserve(&file, 0, length)?;
        let mut rest = length;
        while rest > 0 {
            let part = rest.min(ZEROS.len() as u64);
            file.write_all(&ZEROS[..part as usize])?;
            rest -= part;
        }
        Ok(())
    })();
    if written.is_err() {
        // Gives its room back.
        let _ = fs::remove_file(path);
    }
    written
}

fn numbers(folder: &Path, prefix: &str) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn backend(file: File) -> io::Result<Box<dyn StorageBackend>> {
    match FileBackend::new(file) {
        Ok(backend) => Ok(Box::new(backend)),
        Err(DatabaseError::Storage(redb::StorageError::Io(error))) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers are used again after a store was closed, so a spare may have the name that an ended
    /// segment gets; and segments are ended by one thread while another begins them.
    #[test]
    fn a_segment_is_the_file_that_its_head_was_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for life in 0..100_u8 {
            for id in [1, 2] {
                fs::write(folder.join(format!("{SPARE}{id}")), [0; 8192]).unwrap();
            }
            let head = |id: u8| [life, id].repeat(2048);
            begin(folder, 1, &head(1), 8192, 8192).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    // At some moment while the other is begun.
                    for _ in 0..usize::from(life) * 50 {
                        std::hint::spin_loop();
                    }
                    end(folder, 1).unwrap();
                });
                begin(folder, 2, &head(2), 8192, 8192).unwrap();
            });
            let file = fs::read(folder.join(name(2))).unwrap();
            assert_eq!(file[..2], [life, 2], "under the name of segment 2");
            fs::remove_file(folder.join(name(2))).unwrap();
        }
    }
}
