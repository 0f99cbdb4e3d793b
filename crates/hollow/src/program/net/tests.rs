//! What clients ask, and what they say of the answer.

use super::{flags::PATIENCE, *};
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

#[test]
fn names_are_told_as_each_program_tells_them() {
    let record = |name: &str, kind, data: &str| Record {
        name: format!("{name}."),
        kind,
        data: data.to_owned(),
    };
    let web = || {
        Answer::Records(vec![record(
            "web.n.svc.cluster.local",
            Kind::A,
            "10.96.0.7",
        )])
    };
    let none = || Answer::Records(vec![]);
    let alias = || {
        let name = "db.n.svc.cluster.local";
        Answer::Records(vec![record(name, Kind::Cname, "db.example.com.")])
    };
    // Words, answer, name and kind asked for and whether by the search list, code, what is printed.
    type Case<'a> = (&'a [&'a str], Answer, (&'a str, Kind, bool), i32, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (
            &["dig", "+notcp", "+noall", "+answer", "+search", "web", "A"],
            web(),
            ("web", Kind::A, true),
            0,
            "web.n.svc.cluster.local.\t5\tIN\tA\t10.96.0.7\n",
        ),
        (
            &["dig", "+tcp", "+noall", "+answer", "web"],
            none(),
            ("web", Kind::A, false),
            0,
            "",
        ),
        (
            &["dig", "+short", "db.n", "CNAME"],
            alias(),
            ("db.n", Kind::Cname, false),
            0,
            "db.example.com.\n",
        ),
        (
            &["dig", "+short", "-x", "10.96.0.7"],
            none(),
            ("7.0.96.10.in-addr.arpa", Kind::Ptr, false),
            0,
            "",
        ),
        (
            &["dig", "-t", "srv", "+short", "_http._tcp.web"],
            none(),
            ("_http._tcp.web", Kind::Srv, false),
            0,
            "",
        ),
        (
            &["getent", "hosts", "web"],
            web(),
            ("web", Kind::A, true),
            0,
            "10.96.0.7       web.n.svc.cluster.local\n",
        ),
        (
            &["getent", "hosts", "db"],
            alias(),
            ("db", Kind::A, true),
            2,
            "",
        ),
        (
            &["nslookup", "web"],
            web(),
            ("web", Kind::A, true),
            0,
            "Server:\t\t10.96.0.10\nAddress:\t10.96.0.10:53\n\nName:\tweb.n.svc.cluster.local\nAddress: 10.96.0.7\n\n",
        ),
        (
            &["nslookup", "nobody"],
            none(),
            ("nobody", Kind::A, true),
            1,
            "Server:\t\t10.96.0.10\nAddress:\t10.96.0.10:53\n\n",
        ),
    ];
    for (words, answer, (name, kind, search), code, printed) in cases {
        let (asked, ended, out, _) = ran(words, None, answer);
        let lookup = Lookup {
            name: name.to_owned(),
            kind,
            search,
        };
        assert_eq!(asked, Some(Question::Name(lookup)), "{words:?}");
        assert_eq!((ended, out.as_str()), (code, printed), "{words:?}");
    }
    for words in [
        &["dig", "@1.1.1.1", "web"][..],
        &["dig", "-x", "web"],
        &["dig", "a", "b"],
        &["getent", "passwd"],
    ] {
        let (asked, code, _, said) = ran(words, None, none());
        assert_eq!(asked, None, "{words:?}");
        assert!(code != 0 && !said.is_empty(), "{words:?}: {said}");
    }
}
