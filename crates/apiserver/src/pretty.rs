//! JSON for eyes: indented where a browser or a command-line tool asks, or `pretty` is set.

use bytes::Bytes;
use http::{HeaderMap, header};

use crate::{
    request::Query,
    respond::{self, Body, Reply},
};

/// Whether the client is one that shows what it gets to a person, as kube-apiserver guesses.
pub fn wanted(headers: &HeaderMap, query: Option<&str>) -> bool {
    let query = query.filter(|q| q.contains("pretty"));
    match Query::parse(query).text("pretty") {
        "" => {
            let agent = headers.get(header::USER_AGENT).map(|v| v.as_bytes());
            agent.is_some_and(|a| {
                let mut known = ["curl", "Wget", "Mozilla/5.0"].iter();
                known.any(|k| a.starts_with(k.as_bytes()))
            })
        }
        given => matches!(given, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}

/// The reply with its JSON indented; others as they are.
pub fn print(mut reply: Reply) -> Reply {
    let kind = reply.headers().get(header::CONTENT_TYPE);
    if kind.is_none_or(|k| k != respond::JSON) {
        return reply;
    }
    let body = std::mem::replace(reply.body_mut(), Body::empty());
    *reply.body_mut() = match body {
        Body::Full(Some(bytes)) => Body::Full(Some(indented([bytes]))),
        Body::Chunks(chunks) => Body::Full(Some(indented(chunks))),
        other => other,
    };
    reply
}

/// Compact JSON, in pieces, with a line for each element; as Go's `MarshalIndent`.
pub fn indented(pieces: impl IntoIterator<Item = Bytes>) -> Bytes {
    let mut out = vec![];
    let mut depth = 0;
    let (mut quoted, mut escaped) = (false, false);
    // Of an object or list that was just opened: empty ones stay on their line.
    let mut opened = false;
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 2 * depth));
    };
    for byte in pieces.into_iter().flatten() {
        if quoted {
            out.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        if closes {
            depth = usize::saturating_sub(depth, 1);
        }
        if opened != closes {
            line(&mut out, depth);
        }
        opened = false;
        out.push(byte);
        match byte {
            b'"' => quoted = true,
            b'{' | b'[' => {
                depth += 1;
                opened = true;
            }
            b',' => line(&mut out, depth),
            b':' => out.push(b' '),
            _ => {}
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_what_serde_prints() {
        for value in [
            json!({"a": [], "b": {}, "c": [1, "x,\"{[\\", null, {"d": [[true]]}], "e": {"f": -1.5}}),
            json!([]),
            json!({}),
            json!("x"),
            json!([[], {}]),
        ] {
            let compact = value.to_string() + "\n";
            let (left, right) = compact.split_at(compact.len() / 2);
            let pieces = [left.to_owned().into(), right.to_owned().into()];
            let got = indented(pieces);
            let expected = serde_json::to_string_pretty(&value).expect("JSON");
            assert_eq!(String::from_utf8_lossy(&got), expected);
        }
    }

    #[test]
    fn people_are_recognised() {
        let check = |agent: &str, query: &str| {
            let mut headers = HeaderMap::new();
            let agent = HeaderValue::from_str(agent).expect("a header");
            headers.insert(header::USER_AGENT, agent);
            wanted(&headers, Some(query))
        };
        assert!(check("curl/8.1", ""));
        assert!(check("kubectl", "pretty=true"));
        assert!(!check("kubectl", ""));
        assert!(!check("curl/8.1", "pretty=0"));
    }
}
