//! Commands that look at files and change them.

use super::{Done, Place, failed};
use crate::kubelet::files::absolute;

pub(super) fn cat(place: &Place, args: &[String]) -> Done {
    let mut done = Done::default();
    for name in args.iter().filter(|it| !it.starts_with('-')) {
        let path = absolute(&place.folder, name);
        match place.files.read(&path) {
            Some(content) => done.out.extend(content),
            None => {
                let why = match place.files.is_folder(&path) {
                    true => "Is a directory",
                    false => "No such file or directory",
                };
                done.err += &format!("cat: {name}: {why}\n");
                done.code = 1;
            }
        }
    }
    done
}

pub(super) fn ls(place: &Place, args: &[String]) -> Done {
    let mut done = Done::default();
    let mut names: Vec<&str> = args
        .iter()
        .map(String::as_str)
        .filter(|it| !it.starts_with('-'))
        .collect();
    if names.is_empty() {
        names.push(".");
    }
    let several = names.len() > 1;
    for name in names {
        let path = absolute(&place.folder, name);
        if place.files.is_folder(&path) {
            if several {
                done.out.extend(format!("{name}:\n").bytes());
            }
            for name in place.files.list(&path) {
                done.out.extend(format!("{name}\n").bytes());
            }
        } else if place.files.read(&path).is_some() {
            done.out.extend(format!("{name}\n").bytes());
        } else {
            done.err += &format!("ls: {name}: No such file or directory\n");
            done.code = 1;
        }
    }
    done
}

pub(super) fn test(place: &Place, args: &[String]) -> Done {
    let args: Vec<&str> = args
        .iter()
        .map(String::as_str)
        .filter(|it| *it != "]")
        .collect();
    let path = |name: &str| absolute(&place.folder, name);
    let holds = match args.as_slice() {
        ["-d", name] => place.files.is_folder(&path(name)),
        ["-f", name] => place.files.read(&path(name)).is_some(),
        ["-e", name] => {
            place.files.is_folder(&path(name)) || place.files.read(&path(name)).is_some()
        }
        ["-n", text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        [one, "=" | "==", other] => one == other,
        [one, "!=", other] => one != other,
        [text] => !text.is_empty(),
        [] => false,
        _ => return failed(2, "test: unknown condition (simulated)"),
    };
    Done {
        code: i32::from(!holds),
        ..Done::default()
    }
}

pub(super) fn change(place: &Place, command: &str, args: &[String]) -> Done {
    let flag = |letter: char| {
        args.iter()
            .any(|it| it.starts_with('-') && it.contains(letter))
    };
    let mut done = Done::default();
    for name in args.iter().filter(|it| !it.starts_with('-')) {
        let path = absolute(&place.folder, name);
        let folder = place.files.is_folder(&path);
        let parent = absolute(&path, "..");
        let why = match command {
            "mkdir" if folder && !flag('p') => Some("File exists"),
            "mkdir" if !flag('p') && !place.files.is_folder(&parent) => {
                Some("No such file or directory")
            }
            "mkdir" => {
                place.files.make_folder(&path);
                None
            }
            "touch" if folder || place.files.read(&path).is_some() => None,
            "touch" => place
                .files
                .write(&path, vec![])
                .err()
                .map(crate::kubelet::files::Refused::words),
            _ if folder && !flag('r') => Some("Is a directory"),
            _ if place.files.remove(&path) || flag('f') => None,
            _ => Some("No such file or directory"),
        };
        if let Some(why) = why {
            done.err += &format!("{command}: {name}: {why}\n");
            done.code = 1;
        }
    }
    done
}

/// Moves files, into a directory or to another name.
pub(super) fn mv(place: &Place, args: &[String]) -> Done {
    let tells = args
        .iter()
        .any(|it| it.starts_with('-') && it.contains('v'));
    let names: Vec<&String> = args.iter().filter(|it| !it.starts_with('-')).collect();
    let Some((to, from)) = names.split_last().filter(|(_, from)| !from.is_empty()) else {
        return failed(1, "mv: missing file operand");
    };
    let target = absolute(&place.folder, to);
    let folder = place.files.is_folder(&target);
    if from.len() > 1 && !folder {
        return failed(1, format!("mv: target '{to}' is not a directory"));
    }
    let mut done = Done::default();
    for name in from {
        let path = absolute(&place.folder, name);
        let Some(content) = place.files.read(&path) else {
            done.err += &format!("mv: cannot stat '{name}': No such file or directory\n");
            done.code = 1;
            continue;
        };
        let last = path.rsplit('/').next().unwrap_or_default();
        let (there, shown) = match folder {
            true => (
                absolute(&target, last),
                format!("{}/{last}", to.trim_end_matches('/')),
            ),
            false => (target.clone(), (*to).clone()),
        };
        match place.files.write(&there, content) {
            Ok(()) => {
                if there != path {
                    place.files.remove(&path);
                }
                if tells {
                    done.out
                        .extend(format!("renamed '{name}' -> '{shown}'\n").into_bytes());
                }
            }
            Err(why) => {
                done.err += &format!("mv: cannot move '{name}' to '{shown}': {}\n", why.words());
                done.code = 1;
            }
        }
    }
    done
}
