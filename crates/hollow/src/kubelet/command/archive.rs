//! `tar`, as `kubectl cp` runs it.

use super::{Console, Done, Place, failed};
use crate::kubelet::files::absolute;
use std::io::Read as _;

/// `tar` as `kubectl cp` uses it: to and from the standard streams.
pub(super) async fn tar(place: &Place, console: &mut Console, args: &[String]) -> Done {
    let (mut mode, mut folder, mut names, mut piped) = (' ', place.folder.clone(), vec![], false);
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
        'c' => packed(place, &folder, &names),
        'x' => match console.all().await {
            Some(bytes) => unpacked(place, &folder, &bytes),
            None => failed(2, "tar: no archive on standard input, or a too large one"),
        },
        _ => failed(2, "tar: only c and x are simulated"),
    }
}

fn packed(place: &Place, folder: &str, names: &[&str]) -> Done {
    let mut done = Done::default();
    let mut archive = tar::Builder::new(vec![]);
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    for name in names {
        let path = absolute(folder, name);
        let mut found = place.files.under(&path);
        let is_folder = place.files.is_folder(&path);
        if found.is_empty() && !is_folder {
            done.err += &format!("tar: {name}: Cannot stat: No such file or directory\n");
            done.code = 2;
            continue;
        }
        if is_folder && !found.iter().any(|(it, _)| it.trim_end_matches('/') == path) {
            found.insert(0, (format!("{path}/"), vec![]));
        }
        for (inside, content) in found {
            // As it was named, without the leading slash.
            let tail = inside.strip_prefix(&path).unwrap_or_default();
            let member = format!("{}{tail}", name.trim_end_matches('/'));
            let member = member.trim_start_matches('/');
            let mut header = tar::Header::new_gnu();
            header.set_mtime(now);
            match inside.ends_with('/') {
                true => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o755);
                }
                false => header.set_mode(0o644),
            }
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

fn unpacked(place: &Place, folder: &str, bytes: &[u8]) -> Done {
    let broken = |e: std::io::Error| failed(2, format!("tar: {e}"));
    if !place.files.is_folder(folder) {
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
            place.files.make_folder(&path);
            continue;
        }
        let mut content = vec![];
        if let Err(e) = entry.read_to_end(&mut content) {
            return broken(e);
        }
        let parent = absolute(&path, "..");
        if !place.files.is_folder(&parent) {
            place.files.make_folder(&parent);
        }
        if let Err(why) = place.files.write(&path, content) {
            return failed(2, format!("tar: {name}: {}", why.words()));
        }
    }
    Done::default()
}
