//! `agnhost netexec`: the server by which the conformance tests learn who answers, and who asked.

use crate::kubelet::query::Query;
use http::StatusCode;
use jiff::Timestamp;

/// What the server knows of itself and of who asks.
pub struct Scene<'a> {
    /// The pod's name.
    pub host: &'a str,
    /// The address of who asks.
    pub from: &'a str,
    /// The time.
    pub now: Timestamp,
}

/// What it does with a request.
#[derive(Debug, PartialEq)]
pub enum Reply {
    /// Answers.
    Text(StatusCode, String),
    /// Asks others and tells what they have answered.
    Dial(Dial),
}

/// Whom it asks in its turn.
#[derive(Debug, PartialEq)]
pub struct Dial {
    /// Over UDP, not HTTP.
    pub udp: bool,
    /// The name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path, or what is sent.
    pub request: String,
    /// How often.
    pub tries: u32,
}

/// Answers over HTTP.
pub fn http(scene: &Scene<'_>, path: &str, query: &Query) -> Reply {
    let value = |name: &str| query.all(name).first().cloned().unwrap_or_default();
    let text = |it: String| Reply::Text(StatusCode::OK, it);
    match path {
        "/" => text(format!("NOW: {}", scene.now)),
        "/hostname" | "/hostName" => text(scene.host.to_owned()),
        // Which port it was is not simulated.
        "/clientip" => text(format!("{}:0", scene.from)),
        "/healthz" | "/readyz" => text(String::new()),
        "/echo" => {
            let code = value("code").parse().unwrap_or(200);
            let code = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
            Reply::Text(code, value("msg"))
        }
        "/dial" => dial(&value),
        "/exit" | "/shell" | "/upload" | "/shutdown" | "/redirect" | "/header" => Reply::Text(
            StatusCode::NOT_IMPLEMENTED,
            format!("simulated by Gantry: {path} is not simulated\n"),
        ),
        _ => Reply::Text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    }
}

/// What it prints of a request, if anything.
pub fn logged(path: &str, query: &Query) -> Option<String> {
    let value = |name: &str| query.all(name).first().cloned().unwrap_or_default();
    Some(match path {
        "/" | "/clientip" => format!("GET {path}"),
        "/hostname" | "/hostName" => "GET /hostname".to_owned(),
        "/echo" => format!("GET /echo?msg={}", value("msg")),
        _ => return None,
    })
}

fn dial(value: &impl Fn(&str) -> String) -> Reply {
    let bad = |why: &str| Reply::Text(StatusCode::BAD_REQUEST, format!("{why}\n"));
    let udp = match value("protocol").as_str() {
        "" | "http" => false,
        "udp" => true,
        other => return bad(&format!("unsupported protocol. {other}")),
    };
    let Ok(port) = value("port").parse() else {
        return bad("invalid port");
    };
    let tries = match value("tries").as_str() {
        "" => 1,
        given => given.parse().unwrap_or(1),
    };
    let request = match value("request") {
        it if it.is_empty() => "hostname".to_owned(),
        it => it,
    };
    Reply::Dial(Dial {
        udp,
        host: value("host"),
        port,
        request,
        tries: tries.min(100),
    })
}

/// Answers over UDP; nothing where it is not known what is wanted.
pub fn udp(scene: &Scene<'_>, sent: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(sent).trim().to_owned();
    let said = match text.to_lowercase().as_str() {
        "hostname" => scene.host.to_owned(),
        "clientip" => format!("{}:0", scene.from),
        echo if echo.starts_with("echo ") => text[5..].to_owned(),
        _ => return None,
    };
    Some(said.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_what_it_is_asked() {
        let echo = Query::parse(Some("msg=poststart"));
        let line = logged("/echo", &echo);
        assert_eq!(line.as_deref(), Some("GET /echo?msg=poststart"));
        let none = Query::parse(None);
        assert_eq!(logged("/", &none).as_deref(), Some("GET /"));
        assert_eq!(logged("/healthz", &none), None);
    }

    #[test]
    fn it_says_who_it_is_and_who_asked() {
        let scene = Scene {
            host: "net-0",
            from: "10.0.0.9",
            now: Timestamp::UNIX_EPOCH,
        };
        let ok = |text: &str| Reply::Text(StatusCode::OK, text.to_owned());
        for (path, query, expected) in [
            ("/hostName", "", ok("net-0")),
            ("/clientip", "", ok("10.0.0.9:0")),
            ("/echo", "msg=hi%20there", ok("hi there")),
            (
                "/echo",
                "msg=no&code=404",
                Reply::Text(StatusCode::NOT_FOUND, "no".into()),
            ),
            (
                "/nowhere",
                "",
                Reply::Text(StatusCode::NOT_FOUND, "404 page not found\n".into()),
            ),
            (
                "/dial",
                "request=hostname&protocol=udp&host=10.0.0.3&port=8081&tries=2",
                Reply::Dial(Dial {
                    udp: true,
                    host: "10.0.0.3".into(),
                    port: 8081,
                    request: "hostname".into(),
                    tries: 2,
                }),
            ),
            (
                "/dial",
                "protocol=sctp&port=1",
                Reply::Text(
                    StatusCode::BAD_REQUEST,
                    "unsupported protocol. sctp\n".into(),
                ),
            ),
        ] {
            assert_eq!(
                http(&scene, path, &Query::parse(Some(query))),
                expected,
                "{path}?{query}"
            );
        }
        for (sent, expected) in [
            ("hostName\n", Some("net-0")),
            ("echo Hi", Some("Hi")),
            ("clientip", Some("10.0.0.9:0")),
            ("?", None),
        ] {
            let heard = udp(&scene, sent.as_bytes());
            assert_eq!(heard.as_deref(), expected.map(str::as_bytes), "{sent}");
        }
    }
}
