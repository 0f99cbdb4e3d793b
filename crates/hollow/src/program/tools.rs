//! The commands of small images, as far as tests and examples use them.

use super::{
    agnhost,
    disk::Disk,
    machine::{Machine, Ran, Stop},
    net,
};
use std::time::Duration;

/// The name of a command without its directory.
pub fn name(words: &[String]) -> &str {
    let first = words.first().map_or("", String::as_str);
    first.rsplit('/').next().unwrap_or(first)
}

/// The commands of [`run`] and of shells.
pub const KNOWN: &[&str] = &[
    ":", "[", "[[", "ash", "awk", "bash", "cat", "cd", "chmod", "cp", "curl", "dash", "date", "df",
    "dig", "echo", "env", "exec", "exit", "export", "false", "getent", "grep", "head", "hexdump",
    "hostname", "id", "ls", "mkdir", "mv", "nc", "nslookup", "printenv", "printf", "pwd", "rm",
    "seq", "set", "sh", "sleep", "sync", "tail", "test", "touch", "trap", "true", "uname", "wc",
    "wget", "whoami",
];

/// Whether this is one of them.
pub fn known(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// What a command is to work on: as named, and as paths.
fn paths(machine: &Machine, args: &[String]) -> Vec<(String, String)> {
    args.iter()
        .filter(|it| !it.starts_with('-'))
        .map(|it| (it.clone(), Disk::path(&machine.folder, it)))
        .collect()
}

fn flag(args: &[String], letter: char) -> bool {
    args.iter()
        .any(|it| it.starts_with('-') && !it.starts_with("--") && it.contains(letter))
}

/// Runs a command.
pub fn run(machine: &mut Machine, words: &[String], input: Option<Vec<u8>>) -> Ran {
    let name = name(words).to_owned();
    let args = words.get(1..).unwrap_or_default();
    match name.as_str() {
        "true" | ":" | "set" | "trap" | "sync" | "chmod" => Ok(0),
        "false" => Ok(1),
        "echo" => {
            let flags = args
                .iter()
                .take_while(|it| matches!(it.as_str(), "-n" | "-e" | "-ne"));
            let (count, bare) = (
                flags.clone().count(),
                flags.clone().any(|it| it.contains('n')),
            );
            let text = args[count..].join(" ");
            machine.print(if bare { text } else { text + "\n" })
        }
        "printf" => printf(machine, args),
        "sleep" => sleep(machine, args),
        "cat" => cat(machine, args, input),
        "test" | "[" | "[[" => test(machine, args),
        "touch" | "rm" | "mkdir" => change(machine, &name, args),
        "mv" | "cp" => copy(machine, &name, args),
        "ls" => list(machine, args),
        "env" | "printenv" => match args.first() {
            None => {
                let all = machine.variables.iter();
                let text: String = all
                    .map(|(name, value)| format!("{name}={value}\n"))
                    .collect();
                machine.print(text)
            }
            Some(name) if !name.contains('=') && !name.starts_with('-') => {
                match machine.variables.get(name).cloned() {
                    Some(value) => machine.print(value + "\n"),
                    None => Ok(1),
                }
            }
            Some(_) => Err(Stop::Unknown(format!("{name} with arguments"))),
        },
        "export" => {
            for (name, value) in args.iter().filter_map(|it| it.split_once('=')) {
                machine.variables.insert(name.to_owned(), value.to_owned());
            }
            Ok(0)
        }
        "hostname" => {
            let host = machine
                .variables
                .get("HOSTNAME")
                .cloned()
                .unwrap_or_default();
            machine.print(host + "\n")
        }
        "pwd" => {
            let folder = machine.folder.clone();
            machine.print(folder + "\n")
        }
        "cd" => {
            let to = args.first().map_or("/root", String::as_str);
            let path = Disk::path(&machine.folder, to);
            if !machine.disk.is_folder(&path) {
                return machine.fail(
                    2,
                    &format!("sh: cd: can't cd to {to}: No such file or directory"),
                );
            }
            machine.folder = path;
            Ok(0)
        }
        "date" => {
            let passed = jiff::SignedDuration::try_from(machine.clock).unwrap_or_default();
            let now = machine.began.checked_add(passed).unwrap_or(machine.began);
            machine.print(now.strftime("%a %b %e %H:%M:%S UTC %Y\n").to_string())
        }
        "uname" => machine.print("Linux (simulated by Gantry)\n"),
        "whoami" => match machine.disk.user.0 {
            0 => machine.print("root\n"),
            user => machine.fail(1, &format!("whoami: unknown uid {user}")),
        },
        "id" => {
            let (user, group) = machine.disk.user;
            let named = |id: u32| match id {
                0 => "0(root)".to_owned(),
                id => id.to_string(),
            };
            match args.first().map(String::as_str) {
                Some("-u") => machine.print(format!("{user}\n")),
                Some("-g") => machine.print(format!("{group}\n")),
                _ => {
                    let (user, group) = (named(user), named(group));
                    machine.print(format!("uid={user} gid={group} groups={group}\n"))
                }
            }
        }
        "hexdump" => hexdump(machine, args, input),
        "df" => disks(machine),
        "wc" => count(machine, args, input),
        "awk" => field(machine, args, input),
        "grep" => grep(machine, args, input),
        "head" => head(machine, args, input),
        "curl" => net::curl(machine, args),
        "wget" => net::wget(machine, args),
        "nc" => net::nc(machine, args, input),
        "dig" => net::dig(machine, args),
        "getent" => net::getent(machine, args),
        "nslookup" => net::nslookup(machine, args),
        "seq" => {
            let bounds: Option<Vec<i64>> = args.iter().map(|it| it.parse().ok()).collect();
            let (from, to) = match bounds.as_deref() {
                Some([to]) => (1, *to),
                Some([from, to]) => (*from, *to),
                _ => return Err(Stop::Unknown("seq with these arguments".to_owned())),
            };
            let text: String = (from..=to.min(from.saturating_add(10_000)))
                .map(|it| format!("{it}\n"))
                .collect();
            machine.print(text)
        }
        name if agnhost::image(name) => agnhost::run(machine, words),
        "tail" if flag(args, 'f') || flag(args, 'F') => Err(Stop::Endless),
        _ => Err(Stop::Unknown(format!("{name} is not simulated"))),
    }
}

fn sleep(machine: &mut Machine, args: &[String]) -> Ran {
    let mut total = Duration::ZERO;
    for arg in args {
        if arg == "infinity" || arg == "inf" {
            return Err(Stop::Endless);
        }
        let (number, unit) = match arg.chars().last() {
            Some('s') => (&arg[..arg.len() - 1], 1.0),
            Some('m') => (&arg[..arg.len() - 1], 60.0),
            Some('h') => (&arg[..arg.len() - 1], 3600.0),
            Some('d') => (&arg[..arg.len() - 1], 86_400.0),
            _ => (arg.as_str(), 1.0),
        };
        let seconds = number.parse::<f64>().ok().map(|it| it * unit);
        match seconds.and_then(|it| Duration::try_from_secs_f64(it).ok()) {
            Some(time) => total = total.saturating_add(time),
            None => return machine.fail(1, &format!("sleep: invalid number '{arg}'")),
        }
    }
    machine.sleep(total)
}

fn printf(machine: &mut Machine, args: &[String]) -> Ran {
    let Some((format, values)) = args.split_first() else {
        return Ok(1);
    };
    let mut values = values.iter();
    let (mut text, mut chars) = (String::new(), format.chars());
    while let Some(it) = chars.next() {
        match it {
            '\\' => match chars.next() {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some(other) => text.push(other),
                None => text.push('\\'),
            },
            '%' => match chars.next() {
                Some('s' | 'd') => text += values.next().map_or("", String::as_str),
                Some('%') => text.push('%'),
                _ => return Err(Stop::Unknown("printf with this format".to_owned())),
            },
            it => text.push(it),
        }
    }
    machine.print(text)
}

fn cat(machine: &mut Machine, args: &[String], input: Option<Vec<u8>>) -> Ran {
    if args.iter().all(|it| it == "-") {
        return match given(machine, None, input)? {
            Some(input) => machine.print(input),
            None => Ok(0),
        };
    }
    let mut code = 0;
    for (name, path) in paths(machine, args) {
        match machine.disk.read(&path) {
            Some(content) => {
                machine.print(content)?;
            }
            None => {
                let why = match machine.disk.is_folder(&path) {
                    true => "read error: Is a directory",
                    false => "can't open: No such file or directory",
                };
                code = match why.split_once(": ") {
                    Some(("can't open", rest)) => {
                        machine.fail(1, &format!("cat: can't open '{name}': {rest}"))?
                    }
                    _ => machine.fail(1, &format!("cat: {why}"))?,
                };
            }
        }
    }
    Ok(code)
}

fn test(machine: &Machine, args: &[String]) -> Ran {
    let args: Vec<&str> = args
        .iter()
        .map(String::as_str)
        .filter(|it| !matches!(*it, "]" | "]]"))
        .collect();
    let path = |name: &str| Disk::path(&machine.folder, name);
    let file = |name: &str| machine.disk.read(&path(name)).is_some();
    let folder = |name: &str| machine.disk.is_folder(&path(name));
    let number = |text: &str| text.trim().parse::<i64>().unwrap_or(0);
    let (negated, rest) = match args.as_slice() {
        ["!", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let holds = match rest {
        ["-d", name] => folder(name),
        ["-f", name] => file(name),
        ["-e" | "-r" | "-w" | "-x", name] => file(name) || folder(name),
        ["-s", name] => machine
            .disk
            .read(&path(name))
            .is_some_and(|it| !it.is_empty()),
        ["-n", text] => !text.is_empty(),
        ["-z", text] => text.is_empty(),
        [one, "=" | "==", other] => one == other,
        [one, "!=", other] => one != other,
        [one, "-eq", other] => number(one) == number(other),
        [one, "-ne", other] => number(one) != number(other),
        [one, "-lt", other] => number(one) < number(other),
        [one, "-le", other] => number(one) <= number(other),
        [one, "-gt", other] => number(one) > number(other),
        [one, "-ge", other] => number(one) >= number(other),
        [text] => !text.is_empty(),
        [] => false,
        _ => return Err(Stop::Unknown("this test".to_owned())),
    };
    Ok(i32::from(holds == negated))
}

fn change(machine: &mut Machine, command: &str, args: &[String]) -> Ran {
    let mut code = 0;
    let (at, force) = (machine.clock, flag(args, 'f'));
    for (name, path) in paths(machine, args) {
        let folder = machine.disk.is_folder(&path);
        let why = match command {
            "mkdir" if folder && !flag(args, 'p') => Err("File exists"),
            "mkdir" => {
                machine.disk.folder(&path);
                Ok(())
            }
            "touch" if folder => Ok(()),
            "touch" => machine.disk.write(at, &path, b"", true),
            _ if folder && !flag(args, 'r') => Err("Is a directory"),
            _ if machine.disk.remove(at, &path) || force => Ok(()),
            _ => Err("No such file or directory"),
        };
        if let Err(why) = why {
            code = machine.fail(1, &format!("{command}: {name}: {why}"))?;
        }
    }
    Ok(code)
}

fn copy(machine: &mut Machine, command: &str, args: &[String]) -> Ran {
    let all = paths(machine, args);
    let [(name, from), (_, to)] = all.as_slice() else {
        return Err(Stop::Unknown(format!("{command} of several files")));
    };
    let Some(content) = machine.disk.read(from) else {
        return machine.fail(
            1,
            &format!("{command}: can't stat '{name}': No such file or directory"),
        );
    };
    let file = from.rsplit('/').next().unwrap_or_default();
    let to = match machine.disk.is_folder(to) {
        true => Disk::path(to, file),
        false => to.clone(),
    };
    let at = machine.clock;
    if let Err(why) = machine.disk.write(at, &to, &content, false) {
        return machine.fail(1, &format!("{command}: can't create '{to}': {why}"));
    }
    if command == "mv" {
        machine.disk.remove(at, from);
    }
    if flag(args, 'v') {
        let done = if command == "mv" { "renamed " } else { "" };
        return machine.print(format!("{done}'{from}' -> '{to}'\n"));
    }
    Ok(0)
}

fn list(machine: &mut Machine, args: &[String]) -> Ran {
    let mut all = paths(machine, args);
    if all.is_empty() {
        all.push((".".to_owned(), machine.folder.clone()));
    }
    let mut code = 0;
    for (name, path) in all {
        if machine.disk.is_folder(&path) {
            let names: String = machine
                .disk
                .list(&path)
                .iter()
                .map(|it| format!("{it}\n"))
                .collect();
            machine.print(names)?;
        } else if machine.disk.read(&path).is_some() {
            machine.print(name + "\n")?;
        } else {
            code = machine.fail(1, &format!("ls: {name}: No such file or directory"))?;
        }
    }
    Ok(code)
}

/// What a command reads: the named file, what is piped to it, or what is typed.
fn given(
    machine: &mut Machine,
    file: Option<&String>,
    input: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>, Stop> {
    match (file, input) {
        (Some(name), _) => Ok(machine.disk.read(&Disk::path(&machine.folder, name))),
        (None, Some(input)) => Ok(Some(input)),
        (None, None) => machine.read(),
    }
}

/// The same as text; nothing at the end of the input.
fn text(
    machine: &mut Machine,
    file: Option<&String>,
    input: Option<Vec<u8>>,
) -> Result<Option<String>, Stop> {
    let bytes = given(machine, file, input)?;
    let bytes = if file.is_none() {
        bytes.or_else(|| Some(vec![]))
    } else {
        bytes
    };
    Ok(bytes.map(|it| String::from_utf8_lossy(&it).into_owned()))
}

/// What file systems hold: of those in memory what they may; what is on the disk is not counted.
fn disks(machine: &mut Machine) -> Ran {
    const WHOLE: u64 = 100 * 1024 * 1024;
    let row = |kind: &str, kib: u64, path: &str| {
        format!("{kind:<20} {kib:>9} {:>9} {kib:>9} {:>3}% {path}\n", 0, 0)
    };
    let mut text =
        "Filesystem           1K-blocks      Used Available Use% Mounted on\n".to_owned();
    text += &row("overlay", WHOLE, "/");
    for path in &machine.disk.memory {
        let size = machine.disk.sizes.get(path);
        text += &row("tmpfs", size.map_or(WHOLE, |it| it / 1024), path);
    }
    machine.print(text)
}

/// `hexdump -C`: bytes in rows of sixteen, and what of them is text.
fn hexdump(machine: &mut Machine, args: &[String], input: Option<Vec<u8>>) -> Ran {
    if !flag(args, 'C') {
        return Err(Stop::Unknown("hexdump without -C".to_owned()));
    }
    let file = args.iter().find(|it| !it.starts_with('-'));
    let Some(bytes) = given(machine, file, input)? else {
        let name = file.map_or("", String::as_str);
        return machine.fail(1, &format!("hexdump: {name}: No such file or directory"));
    };
    for (row, sixteen) in bytes.chunks(16).enumerate() {
        let half = |from: usize| -> String {
            let eight = (from..from + 8).map(|at| match sixteen.get(at) {
                Some(byte) => format!("{byte:02x} "),
                None => "   ".to_owned(),
            });
            eight.collect()
        };
        let shown = |byte: &u8| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        };
        let text: String = sixteen.iter().map(shown).collect();
        let (first, second) = (half(0), half(8));
        machine.print(format!("{:08x}  {first} {second} |{text}|\n", row * 16))?;
    }
    if bytes.is_empty() {
        return Ok(0);
    }
    machine.print(format!("{:08x}\n", bytes.len()))
}

fn count(machine: &mut Machine, args: &[String], input: Option<Vec<u8>>) -> Ran {
    let file = args.iter().find(|it| !it.starts_with('-'));
    let Some(text) = text(machine, file, input)? else {
        return machine.fail(1, "wc: No such file or directory");
    };
    let number = match (flag(args, 'l'), flag(args, 'w'), flag(args, 'c')) {
        (true, false, false) => text.matches('\n').count(),
        (false, true, false) => text.split_whitespace().count(),
        (false, false, true) => text.len(),
        _ => return Err(Stop::Unknown("wc with these flags".to_owned())),
    };
    machine.print(match file {
        Some(name) => format!("{number} {name}\n"),
        None => format!("{number}\n"),
    })
}

/// `awk '{print $N}'`, the one program that scripts need it for.
fn field(machine: &mut Machine, args: &[String], input: Option<Vec<u8>>) -> Ran {
    let unknown = || Stop::Unknown("awk with this program".to_owned());
    let program = args.first().ok_or_else(unknown)?;
    let inside = program
        .trim()
        .strip_prefix('{')
        .and_then(|it| it.strip_suffix('}'))
        .and_then(|it| it.trim().strip_prefix("print $"))
        .ok_or_else(unknown)?;
    let number: usize = inside.trim().parse().map_err(|_| unknown())?;
    let Some(text) = text(machine, args.get(1), input)? else {
        return machine.fail(2, "awk: No such file or directory");
    };
    let lines: String = text
        .lines()
        .map(|line| match number {
            0 => format!("{line}\n"),
            nth => format!("{}\n", line.split_whitespace().nth(nth - 1).unwrap_or("")),
        })
        .collect();
    machine.print(lines)
}

/// The first lines of a text: ten, `-n N` or `-N`.
fn head(machine: &mut Machine, args: &[String], input: Option<Vec<u8>>) -> Ran {
    let (count, rest) = match args {
        [flag, count, rest @ ..] if flag == "-n" => (count.as_str(), rest),
        [flag, rest @ ..] if flag.starts_with('-') && flag.len() > 1 => {
            (flag.trim_start_matches("-n").trim_start_matches('-'), rest)
        }
        rest => ("10", rest),
    };
    let Ok(count) = count.parse::<usize>() else {
        return Err(Stop::Unknown(format!("head with {}", args.join(" "))));
    };
    let Some(text) = text(machine, rest.first(), input)? else {
        return machine.fail(1, "head: No such file or directory");
    };
    let lines: String = text.split_inclusive('\n').take(count).collect();
    machine.print(lines)
}

/// A pattern of `grep`, as one of the library's: without `-E` the signs `+ ? | ( ) { }` mean something after a
/// backslash only.
fn pattern(text: &str, args: &[String]) -> Result<regex::Regex, Stop> {
    let mut out = String::new();
    if flag(args, 'F') {
        out = regex::escape(text);
    } else if flag(args, 'E') {
        out.push_str(text);
    } else {
        let special = |it: char| "+?|(){}".contains(it);
        let mut chars = text.chars();
        while let Some(it) = chars.next() {
            match it {
                '\\' => match chars.next() {
                    Some(next) if special(next) => out.push(next),
                    Some(next) => out.extend(['\\', next]),
                    None => out.push_str("\\\\"),
                },
                it if special(it) => out.extend(['\\', it]),
                it => out.push(it),
            }
        }
    }
    let built = regex::RegexBuilder::new(&out)
        .case_insensitive(flag(args, 'i'))
        .size_limit(1 << 20)
        .build();
    built.map_err(|_| Stop::Unknown(format!("the pattern `{text}`")))
}

fn grep(machine: &mut Machine, args: &[String], input: Option<Vec<u8>>) -> Ran {
    let known = |it: &String| it[1..].chars().all(|letter| "EFivqc".contains(letter));
    if args.iter().any(|it| it.starts_with('-') && !known(it)) {
        return Err(Stop::Unknown("grep with these flags".to_owned()));
    }
    let words: Vec<&String> = args.iter().filter(|it| !it.starts_with('-')).collect();
    let Some(wanted) = words.first() else {
        return Err(Stop::Unknown("grep without a pattern".to_owned()));
    };
    let wanted = pattern(wanted, args)?;
    let Some(text) = text(machine, words.get(1).copied(), input)? else {
        return machine.fail(2, "grep: No such file or directory");
    };
    let found: Vec<&str> = text
        .lines()
        .filter(|line| wanted.is_match(line) != flag(args, 'v'))
        .collect();
    let code = i32::from(found.is_empty());
    if flag(args, 'q') {
        return Ok(code);
    }
    let printed = match flag(args, 'c') {
        true => format!("{}\n", found.len()),
        false => found.iter().map(|line| format!("{line}\n")).collect(),
    };
    machine.print(printed)?;
    Ok(code)
}
