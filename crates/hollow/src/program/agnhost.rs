//! `agnhost`, the image of the conformance tests: those of its commands that use nothing but files and
//! time.

use super::machine::{Machine, Ran, Stop};
use std::time::Duration;

/// How long a file is read over and over, if nothing else is said.
const RETRY: u64 = 180;
/// How long it waits between two looks.
const BETWEEN: Duration = Duration::from_secs(2);
/// What `mounttest` writes.
const NEW_FILE: &[u8] = b"mount-tester new file\n";

/// Whether this is an image of `agnhost`, by its name without registry and tag.
pub fn image(name: &str) -> bool {
    name.starts_with("agnhost")
}

/// Whether a command is run here.
pub fn known(command: &str) -> bool {
    matches!(
        command,
        "mounttest"
            | "pause"
            | "liveness"
            | "entrypoint-tester"
            | "grpc-health-checking"
            | "webhook"
            | "crd-conversion-webhook"
            | "netexec"
            | "porter"
            | "serve-hostname"
            | "test-webserver"
            | "dns-suffix"
            | "dns-server-list"
            | "etc-hosts"
    )
}

/// Runs a command: `agnhost COMMAND ARGUMENTS…`.
pub fn run(machine: &mut Machine, words: &[String]) -> Ran {
    match words.get(1).map(String::as_str) {
        Some("mounttest") => mount_test(machine, &words[2..]),
        Some("entrypoint-tester") => machine.print(format!("[{}]\n", words.join(" "))),
        Some(
            "pause"
            | "liveness"
            | "grpc-health-checking"
            | "webhook"
            | "crd-conversion-webhook"
            | "netexec"
            | "porter"
            | "serve-hostname"
            | "test-webserver",
        ) => Err(Stop::Endless),
        Some("dns-suffix") => resolver(machine, "search"),
        Some("dns-server-list") => resolver(machine, "nameserver"),
        Some("etc-hosts") => {
            let hosts = machine.disk.read("/etc/hosts").unwrap_or_default();
            machine.print(hosts)
        }
        _ => Err(Stop::Unknown("this command of agnhost".to_owned())),
    }
}

/// What `/etc/resolv.conf` says under a word, with commas between.
fn resolver(machine: &mut Machine, word: &str) -> Ran {
    let file = machine.disk.read("/etc/resolv.conf").unwrap_or_default();
    let file = String::from_utf8_lossy(&file).into_owned();
    let values: Vec<&str> = file
        .lines()
        .filter_map(|line| line.strip_prefix(word))
        .flat_map(str::split_whitespace)
        .collect();
    machine.print(format!("{}\n", values.join(",")))
}

/// From when on its servers answer, and until when: that of `liveness` for ten seconds, that of
/// `grpc-health-checking` on its own port only.
pub fn served(
    command: &str,
    http: bool,
    grpc: Option<u16>,
) -> Option<(Option<Duration>, Option<Duration>)> {
    const GRPC_PORT: u16 = 5000;
    match (command, grpc) {
        ("liveness", None) if http => Some((Some(Duration::ZERO), Some(Duration::from_secs(10)))),
        ("grpc-health-checking", Some(port)) => {
            Some(((port == GRPC_PORT).then_some(Duration::ZERO), None))
        }
        _ => None,
    }
}

/// As Go prints the mode of a file.
fn mode(mode: u32, folder: bool) -> String {
    let special = [(0o4000, 'u'), (0o2000, 'g'), (0o1000, 't')];
    let mut first: String = folder.then_some('d').into_iter().collect();
    first.extend(special.iter().filter(|it| mode & it.0 != 0).map(|it| it.1));
    if first.is_empty() {
        first.push('-');
    }

    let letters = [(0o400, 'r'), (0o200, 'w'), (0o100, 'x')];
    let bits = (0..3).flat_map(|class| letters.map(|(bit, letter)| (bit >> (3 * class), letter)));
    let text: String = bits
        .map(|(bit, letter)| if mode & bit != 0 { letter } else { '-' })
        .collect();
    first + &text
}

/// Looks at files and writes them, in the order that the program has.
fn mount_test(machine: &mut Machine, args: &[String]) -> Ran {
    let value = |name: &str| {
        let prefix = format!("--{name}=");
        let found = args.iter().find_map(|it| it.strip_prefix(&prefix));
        found.map(str::to_owned)
    };
    let mut code = 0;
    if let Some(path) = value("fs_type") {
        let memory = machine.disk.memory.contains(&path);
        let kind = if memory { "tmpfs" } else { "ext2/ext3" };
        machine.print(format!("mount type of \"{path}\": {kind}\n"))?;
    }
    for bits in [0o644, 0o666, 0o660, 0o777] {
        let Some(path) = value(&format!("new_file_0{bits:o}")) else {
            continue;
        };
        let at = machine.clock;
        match machine.disk.write(at, &path, NEW_FILE, false) {
            Ok(()) => {
                machine.disk.mode(&path, bits);
                code |= read(machine, &path)?;
            }
            Err(why) => {
                machine.print(format!(
                    "error writing new file \"{path}\": open {path}: {why}\n"
                ))?;
                code = 1;
            }
        }
    }
    for (flag, what) in [("file_mode", "mode"), ("file_perm", "perms")] {
        let Some(path) = value(flag) else { continue };
        if !machine.disk.there(&path) {
            code = missing(machine, "Stat", &path)?;
            continue;
        }
        let bits = machine.disk.mode_of(&path);
        let shown = match what {
            "mode" => mode(bits, machine.disk.is_folder(&path)),
            _ => mode(bits & 0o777, false),
        };
        machine.print(format!("{what} of file \"{path}\": {shown}\n"))?;
    }
    if let Some(path) = value("file_owner") {
        if machine.disk.there(&path) {
            let (user, group) = machine.disk.owner_of(&path);
            machine.print(format!(
                "owner UID of \"{path}\": {user}\nowner GID of \"{path}\": {group}\n"
            ))?;
        } else {
            code = missing(machine, "stat", &path)?;
        }
    }
    if let Some(path) = value("file_content") {
        code |= read(machine, &path)?;
    }
    if let Some(path) = value("file_content_in_loop") {
        let most = value("retry_time").and_then(|it| it.parse().ok());
        let end = machine.clock + Duration::from_secs(most.unwrap_or(RETRY));
        let breaks = value("break_on_expected_content").as_deref() != Some("false");
        let mut last = 0;
        while machine.clock < end {
            last = i32::from(machine.disk.read(&path).is_none());
            match machine.disk.read(&path) {
                Some(content) => {
                    read(machine, &path)?;
                    if breaks && content == NEW_FILE {
                        break;
                    }
                    if breaks {
                        let expected = String::from_utf8_lossy(NEW_FILE);
                        machine.print(format!(
                            "Unexpected content. Expected: {expected}. Retrying"
                        ))?;
                    }
                }
                None => {
                    machine.print(format!(
                        "Error reading file {path}: open {path}: no such file or directory, retrying\n"
                    ))?;
                }
            }
            machine.sleep(BETWEEN)?;
        }
        code |= last;
    }
    Ok(code)
}

fn missing(machine: &mut Machine, call: &str, path: &str) -> Ran {
    let why = "no such file or directory";
    machine.print(format!(
        "error from {call}(\"{path}\"): stat {path}: {why}\n"
    ))?;
    Ok(1)
}

fn read(machine: &mut Machine, path: &str) -> Ran {
    match machine.disk.read(path) {
        Some(content) => {
            let text = String::from_utf8_lossy(&content).into_owned();
            machine.print(format!("content of file \"{path}\": {text}\n"))
        }
        None => {
            machine.print(format!(
                "error reading file content for \"{path}\": open {path}: no such file or directory\n"
            ))?;
            Ok(1)
        }
    }
}
