//! `tar`, as `kubectl cp` runs it.

use super::{Console, Place};
use crate::{kubelet::files::absolute, program::Disk};
use std::{io::Read as _, time::Duration};

/// What it has done.
#[derive(Default)]
pub(super) struct Done {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

fn failed(code: i32, err: impl Into<String>) -> Done {
    Done {
        code,
        err: err.into() + "\n",
        ..Done::default()
    }
}

/// `tar` as `kubectl cp` uses it: to and from the standard streams.
pub(super) async fn tar(place: &mut Place, console: &mut Console, args: &[String]) -> Done {
    let (mut mode, mut folder, mut names, mut piped) =
        (' ', place.session.folder().to_owned(), vec![], false);
    let mut rest = args.iter().enumerate();
    while let Some((at, word)) = rest.next() {
        if word.starts_with("--") {
            continue;
        }
        if word == "-C" {
            if let Some((_, to)) = rest.next() {
                folder = absolute(&folder, to);
            }
        } else if (at == 0 && word != "-") || (word.starts_with('-') && word.len() > 1) {
            let letters = word.trim_start_matches('-');
            mode = letters
                .chars()
                .find(|it| matches!(it, 'c' | 'x' | 't'))
                .unwrap_or(mode);
            if letters.contains('z') {
                return failed(2, "tar: compression is not simulated");
            }
            if letters.contains('f') {
                piped = rest.next().is_some_and(|(_, to)| to == "-");
            }
        } else {
            names.push(word.as_str());
        }
    }
    if !piped {
        return failed(
            2,
            "tar: only archives on the standard streams (`f -`) are simulated",
        );
    }
    match mode {
        'c' => packed(place.session.disk(), &folder, &names),
        'x' => match console.all().await {
            Some(bytes) => unpacked(place.session.disk(), &folder, &bytes),
            None => failed(2, "tar: no archive on standard input, or a too large one"),
        },
        _ => failed(2, "tar: only c and x are simulated"),
    }
}

fn packed(disk: &Disk, folder: &str, names: &[&str]) -> Done {
    let mut done = Done::default();
    let mut archive = tar::Builder::new(vec![]);
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    for name in names {
        let path = absolute(folder, name);
        let found = disk.tree(&path);
        if found.is_empty() {
            done.err += &format!("tar: {name}: Cannot stat: No such file or directory\n");
            done.code = 2;
            continue;
        }
        for (inside, content) in found {
            // As it was named, without the leading slash.
            let tail = inside.strip_prefix(&path).unwrap_or_default();
            let member = format!("{}{tail}", name.trim_end_matches('/'));
            let member = member.trim_start_matches('/');
            let mut header = tar::Header::new_gnu();
            header.set_mtime(now);
            header.set_mode(disk.mode_of(&inside));
            if content.is_none() {
                header.set_entry_type(tar::EntryType::Directory);
            }
            let content = content.unwrap_or_default();
            header.set_size(content.len() as u64);
            if let Err(e) = archive.append_data(&mut header, member, content.as_slice()) {
                done.err += &format!("tar: {member}: {e}\n");
                done.code = 2;
            }
        }
    }
    match archive.into_inner() {
        Ok(bytes) => done.out = bytes,
        Err(e) => return failed(2, format!("tar: {e}")),
    }
    done
}

fn unpacked(disk: &mut Disk, folder: &str, bytes: &[u8]) -> Done {
    let broken = |e: std::io::Error| failed(2, format!("tar: {e}"));
    if !disk.is_folder(folder) {
        return failed(
            2,
            format!("tar: {folder}: Cannot open: No such file or directory"),
        );
    }
    let mut archive = tar::Archive::new(bytes);
    let entries = match archive.entries() {
        Ok(entries) => entries,
        Err(e) => return broken(e),
    };
    for entry in entries {
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(e) => return broken(e),
        };
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = absolute(folder, name.trim_start_matches('/'));
        if entry.header().entry_type().is_dir() {
            disk.folder(&path);
            continue;
        }
        let mut content = vec![];
        if let Err(e) = entry.read_to_end(&mut content) {
            return broken(e);
        }
        let parent = absolute(&path, "..");
        disk.folder(&parent);
        if let Err(why) = disk.write(Duration::ZERO, &path, &content, false) {
            return failed(2, format!("tar: {name}: {why}"));
        }
    }
    Done::default()
}
