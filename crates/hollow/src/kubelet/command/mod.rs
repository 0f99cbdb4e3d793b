//! Commands in simulated containers: a tiny interpreter that does a handful of them for real, on
//! files in memory, and says of all others that nothing runs here.

mod archive;
mod listing;
mod script;

use super::files::{Files, absolute};
use archive::tar;
use bytes::Bytes;
use listing::{cat, change, ls, mv, test};
use script::script_of;
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// What a command prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Printed {
    /// To standard output.
    Out(Bytes),
    /// To standard error.
    Err(Bytes),
}

/// The client's end of a command.
pub struct Console {
    /// What it types, when it may.
    pub input: Option<mpsc::Receiver<Bytes>>,
    /// Where what is printed goes.
    pub printed: mpsc::Sender<Printed>,
    /// Whether it is a terminal.
    pub tty: bool,
}

impl Console {
    async fn print(&self, error: bool, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        let bytes: Bytes = match self.tty {
            true => String::from_utf8_lossy(text)
                .replace('\n', "\r\n")
                .into_bytes()
                .into(),
            false => text.to_vec().into(),
        };
        for start in (0..bytes.len()).step_by(CHUNK) {
            let part = bytes.slice(start..bytes.len().min(start + CHUNK));
            let printed = match error && !self.tty {
                true => Printed::Err(part),
                false => Printed::Out(part),
            };
            // A client that has gone reads nothing.
            let _ = self.printed.send(printed).await;
        }
    }

    /// All that is typed, up to a limit.
    async fn all(&mut self) -> Option<Vec<u8>> {
        let mut all = vec![];
        let input = self.input.as_mut()?;
        while let Some(bytes) = input.recv().await {
            all.extend_from_slice(&bytes);
            if all.len() > INPUT_LIMIT {
                return None;
            }
        }
        Some(all)
    }
}

/// What is sent of an output at a time.
const CHUNK: usize = 32 * 1024;
/// What a command may read at most.
const INPUT_LIMIT: usize = 16 << 20;
/// A line at most.
const LINE_LIMIT: usize = 64 * 1024;
const NOT_FOUND: i32 = 127;
const KNOWN: &str = "cat, date, echo, env, exit, false, hostname, id, ls, mkdir, mv, printenv, pwd, rm, sh, sleep, tar, test, touch, true, uname, whoami";

/// A container as its commands see it.
pub struct Place {
    /// Its host name.
    pub hostname: String,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Its files.
    pub files: Arc<Files>,
    /// Where it is.
    pub folder: String,
    /// What it is, for people.
    pub what: String,
}

/// What a command has done.
#[derive(Default)]
struct Done {
    code: i32,
    out: Vec<u8>,
    err: String,
}

fn said(out: impl Into<String>) -> Done {
    Done {
        out: out.into().into_bytes(),
        ..Done::default()
    }
}

fn failed(code: i32, err: impl Into<String>) -> Done {
    Done {
        code,
        err: err.into() + "\n",
        ..Done::default()
    }
}

/// How a script or a line of one goes on.
enum Flow {
    Next(i32),
    Exit(i32),
}

/// Runs a command; its exit code.
pub async fn run(place: &mut Place, console: &mut Console, words: &[String]) -> i32 {
    let name = words
        .first()
        .map(|it| it.rsplit('/').next().unwrap_or(it))
        .unwrap_or_default();
    match name {
        "sh" | "bash" | "ash" | "dash" => match words
            .iter()
            .position(|it| it == "-c" || it == "-ec" || it == "-lc")
        {
            Some(at) => match words.get(at + 1) {
                Some(script) => match script_of(place, console, script).await {
                    Flow::Next(code) | Flow::Exit(code) => code,
                },
                None => {
                    console
                        .print(true, b"sh: -c: option requires an argument\n")
                        .await;
                    2
                }
            },
            None => interactive(place, console).await,
        },
        "cat" if words.len() == 1 && console.input.is_some() => {
            while let Some(bytes) = match &mut console.input {
                Some(input) => input.recv().await,
                None => None,
            } {
                console.print(false, &bytes).await;
            }
            0
        }
        _ => {
            let done = one(place, console, words).await;
            console.print(false, &done.out).await;
            console.print(true, done.err.as_bytes()).await;
            done.code
        }
    }
}

/// A command that prints when it is done.
async fn one(place: &mut Place, console: &mut Console, words: &[String]) -> Done {
    let Some((command, args)) = words.split_first() else {
        return Done::default();
    };
    let name = command.rsplit('/').next().unwrap_or(command);
    let value = |name: &str| {
        place
            .env
            .iter()
            .find(|(it, _)| it == name)
            .map(|(_, value)| value.clone())
    };
    match name {
        "true" | ":" => Done::default(),
        "false" => Done {
            code: 1,
            ..Done::default()
        },
        "exit" => Done {
            code: exit_code(args, 0),
            ..Done::default()
        },
        "echo" => {
            let quiet = args.first().is_some_and(|it| it == "-n");
            let text = args[usize::from(quiet)..].join(" ");
            said(if quiet { text } else { text + "\n" })
        }
        "env" | "printenv" => match args.first() {
            Some(name) => match value(name) {
                Some(value) => said(value + "\n"),
                None => Done {
                    code: 1,
                    ..Done::default()
                },
            },
            None => said(
                place
                    .env
                    .iter()
                    .map(|(name, value)| format!("{name}={value}\n"))
                    .collect::<String>(),
            ),
        },
        "hostname" => said(format!("{}\n", place.hostname)),
        "pwd" => said(format!("{}\n", place.folder)),
        "whoami" => said("root\n"),
        "id" => said("uid=0(root) gid=0(root) groups=0(root)\n"),
        "uname" => said("Linux (simulated by Gantry)\n"),
        "date" => said(
            jiff::Timestamp::now()
                .strftime("%a %b %e %H:%M:%S UTC %Y\n")
                .to_string(),
        ),
        "sleep" => {
            let seconds = args.first().map_or("", |it| it.trim_end_matches('s'));
            match seconds
                .parse::<f64>()
                .ok()
                .and_then(|it| Duration::try_from_secs_f64(it).ok())
            {
                Some(time) => {
                    tokio::time::sleep(time).await;
                    Done::default()
                }
                None => failed(1, format!("sleep: invalid time interval '{seconds}'")),
            }
        }
        "cd" => {
            let to = absolute(&place.folder, args.first().map_or("/root", String::as_str));
            if !place.files.is_folder(&to) {
                return failed(1, format!("sh: cd: {to}: No such file or directory"));
            }
            place.folder = to;
            Done::default()
        }
        "cat" => cat(place, args),
        "ls" => ls(place, args),
        "test" | "[" => test(place, args),
        "mkdir" | "touch" | "rm" => change(place, name, args),
        "mv" => mv(place, args),
        "tar" => tar(place, console, args).await,
        _ => failed(
            NOT_FOUND,
            format!(
                "{command}: not found: {} is simulated by Gantry and runs nothing; known here: {KNOWN}",
                place.what
            ),
        ),
    }
}

fn exit_code(args: &[String], last: i32) -> i32 {
    match args.first() {
        None => last,
        Some(code) => code.parse::<i32>().map_or(2, |code| code & 0xff),
    }
}

/// A shell at a console: lines are read and run until `exit` or the end of input.
async fn interactive(place: &mut Place, console: &mut Console) -> i32 {
    let (mut code, mut line) = (0, vec![]);
    if console.tty {
        let hello = format!("# {}: nothing runs here; known: {KNOWN}\n", place.what);
        console.print(false, hello.as_bytes()).await;
        console.print(false, b"$ ").await;
    }
    loop {
        let Some(bytes) = (match &mut console.input {
            Some(input) => input.recv().await,
            None => None,
        }) else {
            let rest = String::from_utf8_lossy(&line).into_owned();
            return match script_of(place, console, &rest).await {
                Flow::Next(0) if rest.is_empty() => code,
                Flow::Next(code) | Flow::Exit(code) => code,
            };
        };
        for byte in bytes {
            match byte {
                b'\r' | b'\n' => {
                    if console.tty {
                        console.print(false, b"\n").await;
                    }
                    let text = String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned();
                    match script_of(place, console, &text).await {
                        Flow::Exit(code) => return code,
                        Flow::Next(last) => code = last,
                    }
                    if console.tty {
                        console.print(false, b"$ ").await;
                    }
                }
                // Ctrl-C, Ctrl-D and delete mean something at a terminal only.
                3 if console.tty => {
                    line.clear();
                    console.print(false, b"^C\n$ ").await;
                }
                4 if console.tty && line.is_empty() => {
                    console.print(false, b"\n").await;
                    return code;
                }
                8 | 127 if console.tty => {
                    let erased = line.pop();
                    if erased.is_some() {
                        console.print(false, b"\x08 \x08").await;
                    }
                }
                byte if line.len() < LINE_LIMIT => {
                    line.push(byte);
                    if console.tty {
                        console.print(false, &[byte]).await;
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            hostname: "web-0".into(),
            env: vec![("A".into(), "b c".into())],
            files: Arc::new(Files::with([(
                "/etc/hostname".to_owned(),
                b"web-0\n".to_vec(),
            )])),
            folder: "/".into(),
            what: "container app of pod default/web-0".into(),
        }
    }

    /// Code, output and errors of a command that is fed `input`.
    async fn ran(place: &mut Place, words: &[&str], input: &[&[u8]]) -> (i32, Vec<u8>, String) {
        let (send, receive) = mpsc::channel(64);
        for bytes in input {
            send.send(Bytes::copy_from_slice(bytes)).await.unwrap();
        }
        drop(send);
        let (printed, mut shown) = mpsc::channel(64);
        let mut console = Console {
            input: Some(receive),
            printed,
            tty: false,
        };
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let code = run(place, &mut console, &words).await;
        drop(console);
        let (mut out, mut err) = (vec![], vec![]);
        while let Some(printed) = shown.recv().await {
            match printed {
                Printed::Out(bytes) => out.extend(bytes),
                Printed::Err(bytes) => err.extend(bytes),
            }
        }
        (code, out, String::from_utf8(err).unwrap())
    }

    #[tokio::test]
    async fn commands_do_what_they_say() {
        let mut place = place();
        for (words, code, out) in [
            (vec!["echo", "a", "b"], 0, "a b\n"),
            (vec!["false"], 1, ""),
            (
                vec!["sh", "-c", "echo \"$A\" '$A' $?; exit 3; echo no"],
                3,
                "b c $A 0\n",
            ),
            (
                vec!["sh", "-c", "false || echo x && echo y > /tmp/f; cat /tmp/f"],
                0,
                "x\ny\n",
            ),
            (vec!["/bin/cat", "/etc/hostname"], 0, "web-0\n"),
            (vec!["hostname"], 0, "web-0\n"),
            (vec!["test", "-d", "/tmp"], 0, ""),
            (vec!["printenv", "NO"], 1, ""),
            (vec!["sh"], 7, "typed\n"),
        ] {
            let input: &[&[u8]] = &[b"echo ty", b"ped\nexit 7\n"];
            let (was, said, err) = ran(&mut place, &words, input).await;
            assert_eq!(
                (was, String::from_utf8(said).unwrap().as_str(), err.as_str()),
                (code, out, ""),
                "{words:?}"
            );
        }
        let (code, _, err) = ran(&mut place, &["nginx", "-t"], &[]).await;
        assert_eq!(code, 127);
        assert!(
            err.contains("nginx: not found") && err.contains("simulated"),
            "{err}"
        );
        let (code, _, err) = ran(&mut place, &["sh", "-c", "ls | wc"], &[]).await;
        assert_eq!((code, err.as_str()), (2, "sh: `|` is not simulated\n"));
    }

    #[tokio::test]
    async fn what_goes_in_by_tar_comes_out_by_tar() {
        let (mut from, mut to) = (place(), place());
        ran(
            &mut from,
            &[
                "sh",
                "-c",
                "mkdir /tmp/d; echo one > /tmp/d/a; echo two > /tmp/d/b",
            ],
            &[],
        )
        .await;
        let (code, archive, _) = ran(&mut from, &["tar", "cf", "-", "/tmp/d"], &[]).await;
        assert_eq!(code, 0);
        let (code, _, err) = ran(&mut to, &["tar", "-xmf", "-", "-C", "/"], &[&archive]).await;
        assert_eq!((code, err.as_str()), (0, ""));
        let (_, out, _) = ran(&mut to, &["cat", "/tmp/d/a", "/tmp/d/b"], &[]).await;
        assert_eq!(out, b"one\ntwo\n");
        let (code, _, err) = ran(&mut to, &["tar", "cf", "-", "/no"], &[]).await;
        assert_eq!((code, err.contains("Cannot stat")), (2, true));
    }

    #[tokio::test]
    async fn files_are_moved_as_mv_says() {
        let mut place = place();
        let script = "mv -v /etc/hostname /tmp/ && cat /tmp/hostname && mv /tmp/hostname /etc/name; mv /nowhere /tmp/ || true";
        let (code, out, err) = ran(&mut place, &["/bin/sh", "-x", "-c", script], &[]).await;
        assert_eq!(code, 0, "{err}");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "renamed '/etc/hostname' -> '/tmp/hostname'\nweb-0\n"
        );
        assert!(err.contains("cannot stat '/nowhere'"), "{err}");
        assert!(
            place.files.read("/etc/name").is_some() && place.files.read("/tmp/hostname").is_none()
        );
    }
}
