//! `curl`, `wget` and `nc`.

use super::{
    Answer, Call, Failed, Peer, Question,
    flags::{Flags, unknown},
};
use crate::program::{
    disk::Disk,
    machine::{Machine, Ran, Stop},
};

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
        Answer::Bytes(_) | Answer::Records(_) => {
            (52, Some("Empty reply from server".to_owned()), 0)
        }
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
        Answer::Bytes(_) | Answer::Records(_) => "error getting response".to_owned(),
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
        Answer::Http { .. } | Answer::Records(_) => "failed: Protocol error".to_owned(),
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
