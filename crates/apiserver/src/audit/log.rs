//! The audit log's file: one JSON line an event, written by a thread of its own, turned over when it
//! is large, readable by its owner alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Where and how the log is kept.
#[derive(Debug, Clone)]
pub struct LogFile {
    /// `-` is standard output.
    pub path: PathBuf,
    /// Bytes after which another file is begun.
    pub max_bytes: u64,
    /// How many files are kept beside the current one; 0 is all.
    pub max_backups: usize,
    /// How long they are kept; `None` is for ever.
    pub max_age: Option<Duration>,
}

/// A file that is written to, and turned over.
pub struct Log {
    config: LogFile,
    /// `None` where lines go to standard output.
    file: Option<BufWriter<File>>,
    written: u64,
}

impl Log {
    pub fn open(config: LogFile) -> io::Result<Log> {
        if config.path == Path::new("-") {
            return Ok(Log {
                config,
                file: None,
                written: 0,
            });
        }
        let (file, written) = open(&config.path)?;
        Ok(Log {
            config,
            file: Some(file),
            written,
        })
    }

    /// Adds a line, which is to end with a line break.
    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return io::stdout().lock().write_all(line);
        };
        let length = line.len() as u64;
        if self.written > 0 && self.written + length > self.config.max_bytes {
            file.flush()?;
            self.turn()?;
        }
        if let Some(file) = &mut self.file {
            file.write_all(line)?;
        }
        self.written += length;
        Ok(())
    }

    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.flush(),
            None => io::stdout().lock().flush(),
        }
    }

    /// Puts the file aside under the time, begins another, and removes what is too old or too much.
    fn turn(&mut self) -> io::Result<()> {
        let (stem, extension) = parts(&self.config.path);
        let mut now = jiff::Timestamp::now();
        let aside = loop {
            let time = now.strftime("%Y-%m-%dT%H-%M-%S.%3f");
            let aside = self
                .config
                .path
                .with_file_name(format!("{stem}-{time}{extension}"));
            if !aside.exists() {
                break aside;
            }
            now += Duration::from_millis(1);
        };
        fs::rename(&self.config.path, aside)?;
        let (file, written) = open(&self.config.path)?;
        self.file = Some(file);
        self.written = written;
        self.clean(&stem, &extension)
    }

    fn clean(&self, stem: &str, extension: &str) -> io::Result<()> {
        let folder = match self.config.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let mut old: Vec<(String, PathBuf)> = vec![];
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let time = name
                .strip_prefix(&format!("{stem}-"))
                .and_then(|rest| rest.strip_suffix(extension));
            // `2006-01-02T15-04-05.000`: what is of another form is another's file.
            if time.is_some_and(|t| t.len() == 23 && t.as_bytes().get(10) == Some(&b'T')) {
                old.push((name, entry.path()));
            }
        }
        // By name is by time.
        old.sort_by(|a, b| b.cmp(a));
        let now = SystemTime::now();
        for (i, (_, path)) in old.into_iter().enumerate() {
            let many = self.config.max_backups > 0 && i >= self.config.max_backups;
            let aged = self.config.max_age.is_some_and(|most| {
                let age = fs::metadata(&path)
                    .and_then(|m| m.modified())
                    .ok()
                    .and_then(|at| now.duration_since(at).ok());
                age.is_some_and(|age| age > most)
            });
            if many || aged {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
    let stem = text(path.file_stem()).unwrap_or_default();
    let extension = text(path.extension()).map_or(String::new(), |e| format!(".{e}"));
    (stem, extension)
}

fn open(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let length = file.metadata()?.len();
    Ok((BufWriter::new(file), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_turned_over_private_and_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        fs::write(folder.path().join("audit-notes.log"), "another's").expect("written");
        let config = LogFile {
            path: path.clone(),
            max_bytes: 25,
            max_backups: 2,
            max_age: None,
        };
        let mut log = Log::open(config.clone()).expect("opened");
        for i in 0..10 {
            log.write(format!("line number {i}\n").as_bytes())
                .expect("written");
        }
        log.flush().expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "line number 9\n");
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .expect("there")
            .map(|e| e.expect("there").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names.contains(&"audit-notes.log".to_owned()));
        #[cfg(unix)]
        for name in names.iter().filter(|n| *n != "audit-notes.log") {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(folder.path().join(name)).expect("there");
            assert_eq!(mode.permissions().mode() & 0o777, 0o600, "{name}");
        }
        drop(log);
        // What is there is gone on with.
        let mut log = Log::open(config).expect("opened");
        log.write(b"more\n").expect("written");
        log.flush().expect("written");
        assert_eq!(
            fs::read_to_string(&path).expect("there"),
            "line number 9\nmore\n"
        );
    }
}
