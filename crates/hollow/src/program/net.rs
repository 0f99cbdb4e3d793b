//! `curl`, `wget` and `nc`: what they ask others for, and what they make of the answer. Whoever runs the
//! program finds the answers; see [`Question`].

use super::{
    disk::Disk,
    machine::{Machine, Ran, Stop},
};
use std::time::Duration;

/// What a program asks of others in its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A request over HTTP.
    Http(Call),
    /// Bytes that are sent, whether over UDP, and what comes back.
    Bytes {
        /// Whom.
        to: Peer,
        /// Over UDP, not TCP.
        udp: bool,
        /// What is sent.
        sent: Vec<u8>,
    },
    /// Whether anybody listens.
    Listens(Peer),
}

/// Whom, and how long it is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The longest wait.
    pub patience: Duration,
}

/// A request over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// To whom.
    pub to: Peer,
    /// Its method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers beside the usual ones.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a request over HTTP.
    Http {
        /// The status and its phrase, such as `200 OK`.
        status: (u16, String),
        /// Headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// Bytes; none for a connection that could be opened.
    Bytes(Vec<u8>),
    /// Nothing.
    Failed(Failed),
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The name is not known.
    NoName,
    /// Nobody listens.
    Refused,
    /// Not in time.
    TimedOut,
}

/// How long is waited where nothing is said.
const PATIENCE: Duration = Duration::from_secs(60);

fn seconds(text: &str) -> Option<Duration> {
    let number = text.trim_end_matches('s').parse::<f64>().ok()?;
    Duration::try_from_secs_f64(number).ok()
}

fn unknown<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Unknown(what.into()))
}

/// Host, port and path of a URL.
fn url(text: &str) -> Result<(String, u16, String), Stop> {
    let rest = match text.split_once("://") {
        Some(("http", rest)) => rest,
        Some((scheme, _)) => return unknown(scheme),
        None => text,
    };
    let (place, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let path = match path.starts_with('?') {
        true => format!("/{path}"),
        false => path.to_owned(),
    };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => match port.parse() {
            Ok(port) => (host, port),
            Err(_) => return unknown(format!("the port {port}")),
        },
        _ => (place, 80),
    };
    Ok((host.trim_matches(['[', ']']).to_owned(), port, path))
}

/// The flags of a command: each with its value, where it takes one, and what is no flag.
struct Flags {
    given: Vec<(String, String)>,
    rest: Vec<String>,
}

impl Flags {
    /// `valued` and `bare`: single letters, and long names without their dashes, that are known.
    fn read(args: &[String], valued: &[&str], bare: &[&str]) -> Result<Self, Stop> {
        let (mut given, mut rest) = (vec![], vec![]);
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if let Some(long) = arg.strip_prefix("--").filter(|it| !it.is_empty()) {
                let (name, value) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                if valued.contains(&name) {
                    let value = value.or_else(|| args.next().cloned());
                    given.push((name.to_owned(), value.unwrap_or_default()));
                } else if bare.contains(&name) {
                    given.push((name.to_owned(), String::new()));
                } else {
                    return unknown(format!("the flag --{name}"));
                }
                continue;
            }
            let Some(letters) = arg.strip_prefix('-').filter(|it| !it.is_empty()) else {
                rest.push(arg.clone());
                continue;
            };
            for (at, letter) in letters.char_indices() {
                let name = letter.to_string();
                if valued.contains(&name.as_str()) {
                    let inside = &letters[at + letter.len_utf8()..];
                    let value = match inside {
                        "" => args.next().cloned().unwrap_or_default(),
                        inside => inside.to_owned(),
                    };
                    given.push((name, value));
                    break;
                }
                if !bare.contains(&name.as_str()) {
                    return unknown(format!("the flag -{letter}"));
                }
                given.push((name, String::new()));
            }
        }
        Ok(Self { given, rest })
    }

    fn value(&self, names: &[&str]) -> Option<&str> {
        let mut all = self.given.iter().rev();
        let found = all.find(|(name, _)| names.contains(&name.as_str()))?;
        Some(&found.1)
    }

    fn has(&self, names: &[&str]) -> bool {
        self.value(names).is_some()
    }

    fn patience(&self, names: &[&str]) -> Duration {
        let given = names.iter().filter_map(|it| seconds(self.value(&[it])?));
        given.filter(|it| !it.is_zero()).min().unwrap_or(PATIENCE)
    }
}

fn put(machine: &mut Machine, file: Option<&str>, bytes: &[u8]) -> Ran {
    match file {
        None | Some("-" | "/dev/stdout") => machine.print(bytes),
        Some("/dev/null") => Ok(0),
        Some(name) => {
            let path = Disk::path(&machine.folder, name);
            match machine.disk.write(machine.clock, &path, bytes, false) {
                Ok(()) => Ok(0),
                Err(why) => machine.fail(23, &format!("can't open '{name}': {why}")),
            }
        }
    }
}

/// `curl`.
pub fn curl(machine: &mut Machine, args: &[String]) -> Ran {
    let flags = Flags::read(
        args,
        &[
            "o",
            "output",
            "w",
            "write-out",
            "X",
            "request",
            "H",
            "header",
            "d",
            "data",
            "data-raw",
            "data-binary",
            "m",
            "max-time",
            "connect-timeout",
            "retry",
            "retry-delay",
            "A",
            "user-agent",
            "interface",
        ],
        &[
            "s",
            "silent",
            "S",
            "show-error",
            "f",
            "fail",
            "k",
            "insecure",
            "g",
            "globoff",
            "q",
            "v",
            "verbose",
            "i",
            "include",
            "I",
            "head",
            "L",
            "location",
            "4",
            "6",
            "N",
            "no-buffer",
            "http1.1",
            "noproxy",
        ],
    )?;
    let [address] = flags.rest.as_slice() else {
        return unknown("curl without one URL");
    };
    let (host, port, path) = url(address)?;
    let body = flags
        .value(&["d", "data", "data-raw", "data-binary"])
        .unwrap_or_default();
    let method = match flags.value(&["X", "request"]) {
        Some(method) => method,
        None if flags.has(&["I", "head"]) => "HEAD",
        None if !body.is_empty() => "POST",
        None => "GET",
    };
    let headers = flags
        .given
        .iter()
        .filter(|(name, _)| name == "H" || name == "header");
    let headers = headers.filter_map(|(_, value)| {
        let (name, value) = value.split_once(':')?;
        Some((name.trim().to_owned(), value.trim().to_owned()))
    });
    let patience = flags.patience(&["m", "max-time", "connect-timeout"]);
    let answer = machine.ask(Question::Http(Call {
        to: Peer {
            host: host.clone(),
            port,
            patience,
        },
        method: method.to_owned(),
        path,
        headers: headers.collect(),
        body: body.as_bytes().to_vec(),
    }))?;
    let speaks = !flags.has(&["s", "silent"]) || flags.has(&["S", "show-error"]);
    let (code, complaint, status) = match answer {
        Answer::Http {
            status,
            headers,
            body,
        } => {
            let (number, phrase) = status;
            if number >= 400 && flags.has(&["f", "fail"]) {
                let why = format!("The requested URL returned error: {number}");
                (22, Some(why), number)
            } else {
                let mut whole = vec![];
                if flags.has(&["i", "include", "I", "head"]) {
                    whole.extend(format!("HTTP/1.1 {phrase}\r\n").bytes());
                    for (name, value) in headers {
                        whole.extend(format!("{name}: {value}\r\n").bytes());
                    }
                    whole.extend(b"\r\n");
                }
                whole.extend(body);
                (
                    put(machine, flags.value(&["o", "output"]), &whole)?,
                    None,
                    number,
                )
            }
        }
        Answer::Bytes(_) => (52, Some("Empty reply from server".to_owned()), 0),
        Answer::Failed(Failed::NoName) => (6, Some(format!("Could not resolve host: {host}")), 0),
        Answer::Failed(Failed::Refused) => {
            let why = format!(
                "Failed to connect to {host} port {port} after 1 ms: Could not connect to server"
            );
            (7, Some(why), 0)
        }
        Answer::Failed(Failed::TimedOut) => {
            let why = format!(
                "Connection timed out after {} milliseconds",
                patience.as_millis()
            );
            (28, Some(why), 0)
        }
    };
    if let Some(format) = flags.value(&["w", "write-out"]) {
        let text = format
            .replace("%{http_code}", &format!("{status:03}"))
            .replace("%{response_code}", &format!("{status:03}"))
            .replace("\\n", "\n");
        machine.print(text)?;
    }
    match complaint {
        Some(why) if speaks => machine.fail(code, &format!("curl: ({code}) {why}")),
        _ => Ok(code),
    }
}

/// `wget`, as busybox has it.
pub fn wget(machine: &mut Machine, args: &[String]) -> Ran {
    let flags = Flags::read(
        args,
        &[
            "O",
            "output-document",
            "T",
            "timeout",
            "t",
            "tries",
            "U",
            "header",
            "post-data",
            "Y",
        ],
        &[
            "q",
            "quiet",
            "S",
            "server-response",
            "c",
            "spider",
            "no-check-certificate",
            "4",
        ],
    )?;
    let [address] = flags.rest.as_slice() else {
        return unknown("wget without one URL");
    };
    let (host, port, path) = url(address)?;
    let body = flags.value(&["post-data"]).unwrap_or_default();
    let method = if body.is_empty() { "GET" } else { "POST" };
    let answer = machine.ask(Question::Http(Call {
        to: Peer {
            host: host.clone(),
            port,
            patience: flags.patience(&["T", "timeout"]),
        },
        method: method.to_owned(),
        path: path.clone(),
        headers: vec![],
        body: body.as_bytes().to_vec(),
    }))?;
    let why = match answer {
        Answer::Http {
            status: (number, phrase),
            ..
        } if number >= 400 => {
            format!("server returned error: HTTP/1.1 {phrase}")
        }
        Answer::Http { .. } if flags.has(&["spider"]) => return Ok(0),
        Answer::Http { body, .. } => {
            let last = path
                .split('?')
                .next()
                .unwrap_or_default()
                .rsplit('/')
                .next();
            let name = last.filter(|it| !it.is_empty()).unwrap_or("index.html");
            let file = flags.value(&["O", "output-document"]).unwrap_or(name);
            return put(machine, Some(file), &body);
        }
        Answer::Bytes(_) => "error getting response".to_owned(),
        Answer::Failed(Failed::NoName) => format!("bad address '{host}'"),
        Answer::Failed(Failed::Refused) => {
            format!("can't connect to remote host ({host}): Connection refused")
        }
        Answer::Failed(Failed::TimedOut) => "download timed out".to_owned(),
    };
    machine.fail(1, &format!("wget: {why}"))
}

/// `nc`, as a client.
pub fn nc(machine: &mut Machine, args: &[String], input: Option<Vec<u8>>) -> Ran {
    let flags = Flags::read(args, &["w", "q", "i"], &["v", "t", "u", "z", "n", "N", "4"])?;
    let [host, port] = flags.rest.as_slice() else {
        return unknown("nc without a host and a port");
    };
    let Ok(port) = port.parse() else {
        return machine.fail(1, &format!("nc: port number invalid: {port}"));
    };
    let to = Peer {
        host: host.clone(),
        port,
        patience: flags.patience(&["w"]),
    };
    let udp = flags.has(&["u"]);
    let protocol = if udp { "udp" } else { "tcp" };
    let answer = if flags.has(&["z"]) {
        machine.ask(Question::Listens(to))?
    } else {
        let sent = match input {
            Some(input) => input,
            None => machine.read()?.unwrap_or_default(),
        };
        machine.ask(Question::Bytes { to, udp, sent })?
    };
    let why = match answer {
        Answer::Bytes(bytes) => {
            if flags.has(&["v"]) {
                let said = format!("Connection to {host} {port} port [{protocol}/*] succeeded!");
                machine.fail(0, &said)?;
            }
            return machine.print(bytes);
        }
        Answer::Http { .. } => "failed: Protocol error".to_owned(),
        Answer::Failed(Failed::NoName) => {
            return machine.fail(
                1,
                &format!(
                    "nc: getaddrinfo for host \"{host}\" port {port}: Name or service not known"
                ),
            );
        }
        Answer::Failed(Failed::Refused) => "failed: Connection refused".to_owned(),
        Answer::Failed(Failed::TimedOut) if udp => return Ok(0),
        Answer::Failed(Failed::TimedOut) => "timed out: Operation in progress".to_owned(),
    };
    machine.fail(
        1,
        &format!("nc: connect to {host} port {port} ({protocol}) {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::{Disk, Ended, Session};

    /// What a command asks, and what it prints and returns on this answer.
    fn ran(
        words: &[&str],
        input: Option<&[u8]>,
        answer: Answer,
    ) -> (Option<Question>, i32, String, String) {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let mut session = Session::new(Default::default(), Disk::default(), now, "it");
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let mut asked = None;
        loop {
            let said = session.run(&words, Some(input.unwrap_or_default()));
            let code = match said.end {
                Ended::Asks => {
                    asked = session.asked();
                    session.hear(answer.clone(), Duration::from_millis(1));
                    continue;
                }
                Ended::Code(code) | Ended::Exit(code) => code,
                other => panic!("{other:?}"),
            };
            let of = |error: bool| {
                let all = said.printed.iter().filter(|it| it.error == error);
                String::from_utf8(all.flat_map(|it| it.bytes.clone()).collect()).unwrap()
            };
            return (asked, code, of(false), of(true));
        }
    }

    fn ok(body: &str) -> Answer {
        Answer::Http {
            status: (200, "200 OK".into()),
            headers: vec![("a".into(), "b".into())],
            body: body.into(),
        }
    }

    fn missing() -> Answer {
        Answer::Http {
            status: (404, "404 Not Found".into()),
            headers: vec![],
            body: b"no".to_vec(),
        }
    }

    #[test]
    fn clients_say_what_came_back() {
        let cases: Vec<(&[&str], Answer, i32, &str, &str)> = vec![
            (&["curl", "-s", "http://web/a"], ok("hi"), 0, "hi", ""),
            (
                &[
                    "curl",
                    "-g",
                    "-q",
                    "-s",
                    "--max-time",
                    "15",
                    "--connect-timeout",
                    "1",
                    "http://10.0.0.1:8083/hostName",
                ],
                ok("web-0"),
                0,
                "web-0",
                "",
            ),
            (
                &["curl", "-i", "web"],
                ok("hi"),
                0,
                "HTTP/1.1 200 OK\r\na: b\r\n\r\nhi",
                "",
            ),
            (
                &["curl", "-so", "/dev/null", "-w", "%{http_code}\\n", "web"],
                missing(),
                0,
                "404\n",
                "",
            ),
            (
                &["curl", "-fsS", "web"],
                missing(),
                22,
                "",
                "curl: (22) The requested URL returned error: 404\n",
            ),
            (
                &["curl", "web"],
                Answer::Failed(Failed::NoName),
                6,
                "",
                "curl: (6) Could not resolve host: web\n",
            ),
            (
                &["curl", "-s", "web"],
                Answer::Failed(Failed::Refused),
                7,
                "",
                "",
            ),
            (
                &["curl", "-m", "2", "web"],
                Answer::Failed(Failed::TimedOut),
                28,
                "",
                "curl: (28) Connection timed out after 2000 milliseconds\n",
            ),
            (
                &["wget", "-q", "-O", "-", "-T", "1", "http://10.0.0.1:80"],
                ok("hi"),
                0,
                "hi",
                "",
            ),
            (
                &["wget", "-qO-", "web"],
                missing(),
                1,
                "",
                "wget: server returned error: HTTP/1.1 404 Not Found\n",
            ),
            (
                &["sh", "-c", "wget -q web && cat index.html"],
                ok("hi"),
                0,
                "hi",
                "",
            ),
            (
                &["sh", "-c", "echo hostName | nc -w 1 -u 10.0.0.1 8081"],
                Answer::Bytes(b"web-0".to_vec()),
                0,
                "web-0",
                "",
            ),
            (
                &["nc", "-zv", "web", "80"],
                Answer::Bytes(vec![]),
                0,
                "",
                "Connection to web 80 port [tcp/*] succeeded!\n",
            ),
            (
                &["nc", "-v", "-t", "-w", "2", "web", "80"],
                Answer::Failed(Failed::Refused),
                1,
                "",
                "nc: connect to web port 80 (tcp) failed: Connection refused\n",
            ),
        ];
        for (words, answer, code, out, err) in cases {
            let (_, was, said, complained) = ran(words, None, answer);
            assert_eq!(
                (was, said.as_str(), complained.as_str()),
                (code, out, err),
                "{words:?}"
            );
        }
        let (_, code, _, err) = ran(&["curl", "https://web"], None, ok(""));
        assert_eq!((code, err.as_str()), (2, "curl: https: not simulated\n"));
    }

    #[test]
    fn what_is_asked() {
        let (asked, ..) = ran(
            &[
                "curl",
                "-X",
                "PUT",
                "-H",
                "A: b",
                "-d",
                "x",
                "http://web.shop:8080?q=1",
            ],
            None,
            ok(""),
        );
        let to = Peer {
            host: "web.shop".into(),
            port: 8080,
            patience: PATIENCE,
        };
        let call = Call {
            to,
            method: "PUT".into(),
            path: "/?q=1".into(),
            headers: vec![("A".into(), "b".into())],
            body: b"x".to_vec(),
        };
        assert_eq!(asked, Some(Question::Http(call)));
        let (asked, ..) = ran(
            &["nc", "-u", "-w", "1", "web", "53"],
            Some(b"hi"),
            Answer::Bytes(vec![]),
        );
        let to = Peer {
            host: "web".into(),
            port: 53,
            patience: Duration::from_secs(1),
        };
        assert_eq!(
            asked,
            Some(Question::Bytes {
                to,
                udp: true,
                sent: b"hi".to_vec()
            })
        );
    }
}
