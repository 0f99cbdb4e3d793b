//! Commands that clients run in simulated containers: what [`crate::program`] can do is done on files in memory,
//! of all else it is said that nothing runs here.

mod archive;

use super::{files::Files, reach::Reach};
use crate::program::{Answer, Ended, Failed, Said, Session};
use archive::tar;
use bytes::Bytes;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};

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

/// A container as its commands see it.
pub struct Place {
    /// Its environment and its files, with what clients have changed.
    pub session: Session,
    /// Where what they change is kept.
    pub files: Arc<Files>,
    /// What it is, for people.
    pub what: String,
    /// Whom it reaches; `None`: nobody.
    pub reach: Option<Reach>,
}

impl Place {
    fn folders(&mut self) -> BTreeSet<String> {
        self.session.disk().folders().clone()
    }
}

/// Runs a command; its exit code.
pub async fn run(place: &mut Place, console: &mut Console, words: &[String]) -> i32 {
    let (first, args) = match words.split_first() {
        Some((first, args)) => (first.as_str(), args),
        None => ("", words),
    };
    match first.rsplit('/').next().unwrap_or(first) {
        "sh" | "bash" | "ash" | "dash"
            if !args
                .iter()
                .any(|it| it.starts_with('-') && it.ends_with('c')) =>
        {
            interactive(place, console).await
        }
        "cat" if args.is_empty() && console.input.is_some() => {
            while let Some(bytes) = match &mut console.input {
                Some(input) => input.recv().await,
                None => None,
            } {
                console.print(false, &bytes).await;
            }
            0
        }
        "tar" => {
            let before = place.folders();
            let done = tar(place, console, args).await;
            for (_, path, content) in std::mem::take(&mut place.session.disk().changes) {
                place.files.keep(path, content);
            }
            let after = place.session.disk().folders();
            place.files.keep_folders(&before, after);
            console.print(false, &done.out).await;
            console.print(true, done.err.as_bytes()).await;
            done.code
        }
        _ => match step(place, console, |it, input| it.run(words, input)).await {
            Flow::Next(code) | Flow::Exit(code) => code,
        },
    }
}

/// How a shell goes on after a line.
enum Flow {
    Next(i32),
    Exit(i32),
}

/// Runs a line or a command, with what is typed if it reads that. What it prints and changes comes at its time.
async fn step(
    place: &mut Place,
    console: &mut Console,
    run: impl Fn(&mut Session, Option<&[u8]>) -> Said,
) -> Flow {
    let before = place.folders();
    let mut start = Instant::now();
    let at = |start: Instant, time: Duration| tokio::time::sleep_until(start + time);
    let mut typed = None;
    let mut shown = 0;
    // What is run again does the same up to where it stopped.
    let said = loop {
        let said = run(&mut place.session, typed.as_deref());
        match said.end {
            Ended::Reads if typed.is_none() => {
                typed = match (console.all().await, &console.input) {
                    (Some(typed), _) => Some(typed),
                    (None, None) => Some(vec![]),
                    (None, Some(_)) => {
                        let said =
                            format!("more than {INPUT_LIMIT} bytes of input: not simulated\n");
                        console.print(true, said.as_bytes()).await;
                        return Flow::Next(1);
                    }
                };
                if shown == 0 {
                    start = Instant::now();
                }
            }
            Ended::Asks => {
                let Some(question) = place.session.asked() else {
                    break said;
                };
                for chunk in said.printed.iter().skip(shown) {
                    at(start, chunk.at).await;
                    console.print(chunk.error, &chunk.bytes).await;
                }
                shown = said.printed.len();
                at(start, said.took).await;
                let began = Instant::now();
                let answer = match &place.reach {
                    Some(reach) => reach.answer(&question).await,
                    None => Answer::Failed(Failed::NoName),
                };
                place.session.hear(answer, began.elapsed());
            }
            _ => break said,
        }
    };
    let at = |time: Duration| at(start, time);
    let mut changes = said.changes.into_iter().peekable();
    for chunk in said.printed.into_iter().skip(shown) {
        while let Some((time, path, content)) = changes.next_if(|it| it.0 <= chunk.at) {
            at(time).await;
            place.files.keep(path, content);
        }
        at(chunk.at).await;
        console.print(chunk.error, &chunk.bytes).await;
    }
    for (time, path, content) in changes {
        at(time).await;
        place.files.keep(path, content);
    }
    let after = place.session.disk().folders();
    place.files.keep_folders(&before, after);
    match said.end {
        Ended::Code(code) => {
            at(said.took).await;
            Flow::Next(code)
        }
        Ended::Exit(code) => {
            at(said.took).await;
            Flow::Exit(code)
        }
        // Until the client has had enough of it.
        Ended::Endless | Ended::Reads | Ended::Asks => std::future::pending().await,
    }
}

/// A shell at a console: lines are read and run until `exit` or the end of input.
async fn interactive(place: &mut Place, console: &mut Console) -> i32 {
    let (mut code, mut line) = (0, vec![]);
    if console.tty {
        let hello = format!("# {}: simulated by Gantry, nothing runs here\n", place.what);
        console.print(false, hello.as_bytes()).await;
        console.print(false, b"$ ").await;
    }
    loop {
        let Some(bytes) = (match &mut console.input {
            Some(input) => input.recv().await,
            None => None,
        }) else {
            let rest = String::from_utf8_lossy(&line).into_owned();
            return match step(place, console, |it, input| it.script(&rest, input)).await {
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
                    match step(place, console, |it, input| it.script(&text, input)).await {
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
    use crate::program::Disk;

    fn place() -> Place {
        let variables = [("A", "b c"), ("HOSTNAME", "web-0")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut disk = Disk::default();
        disk.put("/etc/hostname", b"web-0\n".to_vec());
        let now = "2026-11-27T15:00:00Z".parse().unwrap();
        let what = "container app of pod default/web-0";
        Place {
            session: Session::new(variables.into(), disk, now, what),
            files: Arc::default(),
            what: what.into(),
            reach: None,
        }
    }

    /// The same container as another command finds it.
    fn again(place: &Place) -> Place {
        let mut again = self::place();
        again.files = place.files.clone();
        again.files.onto(again.session.disk());
        again
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
            (
                vec!["sh", "-ec", "for i in 1 2; do echo $i; done | wc -l; date"],
                0,
                "2\nFri Nov 27 15:00:00 UTC 2026\n",
            ),
            (
                vec!["sh", "-c", "cat > /tmp/g; wc -c /tmp/g"],
                0,
                "18 /tmp/g\n",
            ),
            (vec!["grep", "exit"], 0, "exit 7\n"),
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
        let script = "echo out; echo err >&2; nginx; sleep 1 & true";
        let (code, out, err) = ran(&mut place, &["sh", "-c", script], &[]).await;
        assert_eq!(
            (code, out.as_slice(), err.as_str()),
            (2, b"".as_slice(), "sh: `&` is not simulated\n")
        );
        let sum = "echo one; echo $(echo $((1 << 2))) 2> /dev/null; echo two";
        let (code, out, err) = ran(&mut place, &["sh", "-c", sum], &[]).await;
        assert_eq!((code, out.as_slice()), (2, b"one\n".as_slice()));
        assert!(err.contains("is not simulated"), "{err}");
        let script = script.trim_end_matches(" & true");
        let (code, out, err) = ran(&mut place, &["sh", "-c", script], &[]).await;
        assert_eq!((code, out.as_slice()), (0, b"out\n".as_slice()));
        assert!(err.starts_with("err\nnginx: not found"), "{err}");
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
        for to in [&mut again(&to), &mut to] {
            let (_, out, _) = ran(to, &["cat", "/tmp/d/a", "/tmp/d/b"], &[]).await;
            assert_eq!(out, b"one\ntwo\n");
        }
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
        assert!(err.contains("can't stat '/nowhere'"), "{err}");
        let mut seen = again(&place);
        let disk = seen.session.disk();
        assert!(disk.read("/etc/name").is_some() && disk.read("/etc/hostname").is_none());
    }
}
