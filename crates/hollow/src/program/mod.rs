//! What the main processes of containers do, where it can be known: commands and shell scripts that
//! use nothing but files, time and exit codes are run, at once and on a clock of their own, so that
//! what comes of them is known when the container starts.
//!
//! Nothing here is a process: a script that does anything else is not run, and its container behaves
//! as those without a command do.

mod agnhost;
mod disk;
mod machine;
mod net;
mod parse;
mod session;
mod tools;

pub use disk::{Change, Disk};
pub use machine::Chunk;
pub use net::{Answer, Call, Failed, Kind, Lookup, Peer, Question, Record, SERVER};
pub use session::{Ended, Said, Session};

use crate::behaviour::Draw;
pub(crate) use crate::kubelet::absolute;
use machine::{Machine, Stdin, Stop};
use std::{collections::BTreeMap, time::Duration};

/// What a program is given.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its environment.
    pub variables: BTreeMap<String, String>,
    /// The files it finds.
    pub disk: Disk,
    /// How far it is followed.
    pub horizon: Duration,
    /// Its random numbers.
    pub draw: Draw,
    /// Whether its standard input stays open.
    pub typed: bool,
    /// What others do to its files while it runs, in order.
    pub coming: Vec<Change>,
}

/// What a program does.
#[derive(Clone, Debug)]
pub struct Told {
    /// When it ends, and with which code; `None` if it does not end within the horizon.
    pub end: Option<(Duration, i32)>,
    /// What it prints.
    pub printed: Vec<Chunk>,
    /// The files at its end.
    pub disk: Disk,
}

/// How long a program is followed that nobody waits for: longer than a pod lives.
pub const LONGEST: Duration = Duration::from_secs(400 * 86_400);
/// What starting a process takes.
const START: Duration = Duration::from_millis(20);

/// Replaces `$(NAME)` as the kubelet does in commands, arguments and variables; `$$` stands for `$`.
#[must_use]
pub fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out += &rest[..at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let named = rest
            .strip_prefix('(')
            .and_then(|inside| inside.split_once(')'))
            .and_then(|(name, after)| Some((variables.get(name)?, after)));
        match named {
            Some((value, after)) => {
                out += value;
                rest = after;
            }
            None => out.push('$'),
        }
    }
    out + rest
}

/// The words of a container's process: its command, or what its image runs, where that is known.
#[must_use]
pub fn words(image: &str, command: &[String], args: &[String]) -> Option<Vec<String>> {
    let name = image.rsplit('/').next().unwrap_or(image);
    let name = name.split([':', '@']).next().unwrap_or(name);
    let words: Vec<String> = match (command.is_empty(), args.is_empty()) {
        (false, _) => command.iter().chain(args).cloned().collect(),
        // These images have no entry point: the arguments are the command.
        (true, false) if matches!(name, "busybox" | "alpine") => args.to_vec(),
        (true, false) if agnhost::image(name) => {
            let entry = std::iter::once("/agnhost".to_owned());
            entry.chain(args.iter().cloned()).collect()
        }
        _ => return None,
    };
    if tools::name(&words).starts_with("agnhost") {
        let command = words.get(1)?;
        return agnhost::known(command).then_some(words);
    }
    tools::known(tools::name(&words)).then_some(words)
}

/// Runs a program; `None` if it does what is not simulated.
#[must_use]
pub fn run(words: &[String], setting: Setting) -> Option<Told> {
    let Setting {
        variables,
        disk,
        horizon,
        draw,
        typed,
        coming,
    } = setting;
    let words: Vec<String> = words.iter().map(|it| expanded(it, &variables)).collect();
    let mut machine = Machine::new(variables, disk, horizon, draw);
    machine.coming = coming.into();
    if typed {
        machine.stdin = Stdin::Quiet;
    }
    let end = match machine.command(&words, None) {
        Ok(code) | Err(Stop::Exit(code)) => Some((machine.clock.max(START), code)),
        Err(Stop::Endless) => None,
        Err(Stop::Reads | Stop::Asks(_)) => return None,
        Err(Stop::Unknown(why)) => {
            tracing::trace!(why, "a program is not simulated");
            return None;
        }
    };
    Some(Told {
        end,
        printed: machine.printed,
        disk: machine.disk,
    })
}

/// From when on a command that looks at a program's files succeeds, and from when on it fails again.
/// `None` if the command is not simulated.
#[must_use]
pub fn probed(
    command: &[String],
    variables: &BTreeMap<String, String>,
    first: &Disk,
    changes: &[Change],
) -> Option<(Option<Duration>, Option<Duration>)> {
    let mut times: Vec<Duration> = changes.iter().map(|(at, ..)| *at).collect();
    times.insert(0, Duration::ZERO);
    times.dedup();
    let (mut from, mut until) = (None, None);
    for time in times {
        let mut disk = first.clone();
        disk.replay(changes, time);
        let told = run(
            command,
            Setting {
                variables: variables.clone(),
                disk,
                horizon: LONGEST,
                draw: Draw::new(0),
                typed: false,
                coming: vec![],
            },
        )?;
        let passes = told.end.is_some_and(|(_, code)| code == 0);
        match (passes, from, until) {
            (true, None, _) => from = Some(time),
            (false, Some(_), None) => until = Some(time),
            _ => {}
        }
    }
    Some((from, until))
}

/// From when on a server answers, and from when on it does no longer, where that is known of it.
#[must_use]
pub fn served(
    words: &[String],
    http: bool,
    grpc: Option<u16>,
) -> Option<(Option<Duration>, Option<Duration>)> {
    let agnhost = tools::name(words).starts_with("agnhost");
    let command = words.get(1).filter(|_| agnhost)?;
    agnhost::served(command, http, grpc)
}

/// What a container leaves to say: the file it wrote for that, or, if it failed and wants that, the
/// end of its log.
#[must_use]
pub fn message(told: &Told, path: &str, from_log: bool) -> Option<String> {
    /// As many bytes of a file as the kubelet reads.
    const MOST: usize = 4096;
    /// As many of a log.
    const MOST_OF_LOG: usize = 2048;
    let written = told.disk.read(path).filter(|it| !it.is_empty());
    let text = match written {
        Some(content) => content[..content.len().min(MOST)].to_vec(),
        None if from_log && told.end.is_some_and(|(_, code)| code != 0) => {
            let all = told
                .printed
                .iter()
                .map(|it| it.bytes.as_slice())
                .collect::<Vec<_>>()
                .concat();
            all[all.len().saturating_sub(MOST_OF_LOG)..].to_vec()
        }
        None => return None,
    };
    Some(String::from_utf8_lossy(&text).into_owned()).filter(|it| !it.is_empty())
}

#[cfg(test)]
mod tests;
