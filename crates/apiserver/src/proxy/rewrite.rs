//! Pages that come through a proxy: links to the root of the server that made them lead back through the
//! proxy. What is said of links holds for redirections, too.
//!
//! Which attributes are links, and which links are changed, is as kube-apiserver has it
//! (`apimachinery/pkg/util/proxy`). There a page is read and written anew; here only links change. What is
//! compressed passes as it is.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::respond::{Body, Reply};

/// As much of a tag is kept until it ends; a longer one passes as it is.
const MOST: usize = 64 * 1024;

/// Attributes that are links, by tag.
fn links(tag: &[u8]) -> &'static [&'static str] {
    match tag {
        b"a" | b"area" | b"base" | b"link" => &["href"],
        b"applet" => &["codebase"],
        b"audio" | b"embed" | b"script" | b"source" => &["src"],
        b"blockquote" | b"del" | b"ins" | b"q" => &["cite"],
        b"body" => &["background"],
        b"button" => &["formaction"],
        b"command" => &["icon"],
        b"form" => &["action"],
        b"frame" | b"iframe" => &["longdesc", "src"],
        b"head" => &["profile"],
        b"html" => &["manifest"],
        b"img" => &["longdesc", "src", "usemap"],
        b"input" => &["src", "usemap", "formaction"],
        b"object" => &["classid", "codebase", "data", "usemap"],
        b"video" => &["poster", "src"],
        _ => &[],
    }
}

/// A link as it leads through the proxy; `None` where it stays. `prefix` is the proxy's path without a slash
/// at its end, `hosts` are names of the server behind it, as links may have them.
fn through(link: &str, prefix: &str, hosts: &[&str]) -> Option<String> {
    let (host, path) = match link.split_once("://") {
        Some(("http" | "https", rest)) => {
            let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            (Some(&rest[..at]), &rest[at..])
        }
        Some(_) => return None,
        None if link.starts_with("//") => {
            let rest = &link[2..];
            let at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            (Some(&rest[..at]), &rest[at..])
        }
        None => (None, link),
    };
    let own = host.is_none_or(|host| hosts.contains(&host));
    if !own || !path.starts_with('/') || path.starts_with(prefix) {
        return None;
    }
    Some(format!("{prefix}{path}"))
}

/// Where a page stands while it passes.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum State {
    #[default]
    Text,
    /// Up to this end tag nothing is a tag.
    Raw(&'static [u8]),
    Comment,
}

/// Changes the links of a page that comes in pieces.
pub struct Rewriter {
    prefix: String,
    hosts: Vec<String>,
    state: State,
    /// From the beginning of a tag on.
    held: BytesMut,
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len())
        .position(|it| it.eq_ignore_ascii_case(what))
}

/// The end of a tag that begins the text, after its `>`; not one within quotes.
fn end_of_tag(text: &[u8]) -> Option<usize> {
    let mut quote = None;
    let mut after_equals = false;
    for (at, byte) in text.iter().enumerate().skip(1) {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') if after_equals => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
        after_equals = match byte {
            b'=' => true,
            byte if byte.is_ascii_whitespace() => after_equals,
            _ => false,
        };
    }
    None
}

impl Rewriter {
    pub fn new(prefix: &str, hosts: &[&str]) -> Rewriter {
        Rewriter {
            prefix: prefix.trim_end_matches('/').to_owned(),
            hosts: hosts.iter().map(|it| (*it).to_owned()).collect(),
            state: State::Text,
            held: BytesMut::new(),
        }
    }

    /// What can be passed on once this has come.
    pub fn push(&mut self, bytes: &[u8]) -> Bytes {
        self.held.extend_from_slice(bytes);
        let mut out = BytesMut::with_capacity(self.held.len());
        while let Some(taken) = self.step(&mut out) {
            let _ = self.held.split_to(taken);
        }
        if self.held.len() > MOST {
            out.extend_from_slice(&self.held.split());
        }
        out.freeze()
    }

    /// What is left at the end.
    pub fn finish(&mut self) -> Bytes {
        self.held.split().freeze()
    }

    /// Puts out a piece of what is held; how much of that it was.
    fn step(&mut self, out: &mut BytesMut) -> Option<usize> {
        let held = &self.held[..];
        if held.is_empty() {
            return None;
        }
        let ends: &[u8] = match self.state {
            State::Raw(end) => end,
            State::Comment => b"-->",
            State::Text => return self.tag(out),
        };
        match find(held, ends) {
            Some(at) => {
                let taken = if self.state == State::Comment {
                    at + ends.len()
                } else {
                    at
                };
                out.extend_from_slice(&held[..taken]);
                self.state = State::Text;
                // An end tag is looked at as a tag.
                (taken > 0).then_some(taken).or_else(|| self.tag(out))
            }
            None => {
                // The end may have begun.
                let taken = held.len().saturating_sub(ends.len() - 1);
                out.extend_from_slice(&held[..taken]);
                (taken > 0).then_some(taken)
            }
        }
    }

    fn tag(&mut self, out: &mut BytesMut) -> Option<usize> {
        let held = &self.held[..];
        let begins = held.iter().position(|it| *it == b'<').unwrap_or(held.len());
        if begins > 0 {
            out.extend_from_slice(&held[..begins]);
            return Some(begins);
        }
        if held.starts_with(b"<!--") {
            out.extend_from_slice(b"<!--");
            self.state = State::Comment;
            return Some(4);
        }
        if b"<!--".starts_with(held) {
            return None;
        }
        if !held[1].is_ascii_alphabetic() {
            out.extend_from_slice(&held[..1]);
            return Some(1);
        }
        let end = end_of_tag(held)?;
        let tag = &held[..end];
        let name_end = tag[1..]
            .iter()
            .position(|it| !it.is_ascii_alphanumeric())
            .map_or(end - 1, |at| at + 1);
        let name = tag[1..name_end].to_ascii_lowercase();
        self.state = match name.as_slice() {
            b"script" => State::Raw(b"</script"),
            b"style" => State::Raw(b"</style"),
            b"textarea" => State::Raw(b"</textarea"),
            b"title" => State::Raw(b"</title"),
            _ => State::Text,
        };
        let wanted = links(&name);
        if wanted.is_empty() {
            out.extend_from_slice(tag);
        } else {
            self.attributes(&tag[name_end..], &tag[..name_end], wanted, out);
        }
        Some(end)
    }

    /// Puts out a tag, of which `text` follows the name.
    fn attributes(&self, text: &[u8], name: &[u8], wanted: &[&str], out: &mut BytesMut) {
        out.extend_from_slice(name);
        let hosts: Vec<&str> = self.hosts.iter().map(String::as_str).collect();
        let mut at = 0;
        while at < text.len() {
            let word = text[at..]
                .iter()
                .take_while(|it| !it.is_ascii_whitespace() && !matches!(it, b'=' | b'>' | b'/'))
                .count();
            if word == 0 {
                out.extend_from_slice(&text[at..=at]);
                at += 1;
                continue;
            }
            let attribute = text[at..at + word].to_ascii_lowercase();
            out.extend_from_slice(&text[at..at + word]);
            at += word;
            let gap = |from: usize| {
                let rest = text[from..].iter();
                rest.take_while(|it| it.is_ascii_whitespace()).count()
            };
            let equals = at + gap(at);
            if text.get(equals) != Some(&b'=') {
                continue;
            }
            let value = equals + 1 + gap(equals + 1);
            out.extend_from_slice(&text[at..value]);
            let quote = text
                .get(value)
                .copied()
                .filter(|it| matches!(it, b'"' | b'\''));
            let from = value + usize::from(quote.is_some());
            let length = text[from..]
                .iter()
                .take_while(|it| match quote {
                    Some(quote) => **it != quote,
                    None => !it.is_ascii_whitespace() && **it != b'>',
                })
                .count();
            let link = &text[from..from + length];
            let meant = wanted.iter().any(|it| it.as_bytes() == attribute);
            let changed = std::str::from_utf8(link)
                .ok()
                .filter(|_| meant)
                .and_then(|link| through(link.trim(), &self.prefix, &hosts));
            out.extend_from_slice(&text[value..from]);
            match changed {
                Some(link) => out.extend_from_slice(link.as_bytes()),
                None => out.extend_from_slice(link),
            }
            at = from + length;
        }
    }
}

/// An answer as it leaves a proxy at `prefix`: redirections and links lead back through it, and what the
/// server behind says of other origins is not said in the API server's name.
pub fn answer(reply: Reply, prefix: &str, hosts: &[&str]) -> Reply {
    let prefix = prefix.trim_end_matches('/');
    let (mut head, body) = reply.into_parts();
    for name in [
        "access-control-allow-credentials",
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-allow-origin",
    ] {
        head.headers.remove(HeaderName::from_static(name));
    }
    let location = text(&head.headers, header::LOCATION);
    if let Some(changed) = location.and_then(|it| through(it, prefix, hosts))
        && let Ok(changed) = HeaderValue::try_from(changed)
    {
        head.headers.insert(header::LOCATION, changed);
        return Reply::from_parts(head, body);
    }
    let kind = text(&head.headers, header::CONTENT_TYPE).unwrap_or_default();
    let page = kind.split(';').next().unwrap_or_default().trim() == "text/html";
    let encoded = head.headers.contains_key(header::CONTENT_ENCODING);
    match body {
        Body::Remote(body) if page && !encoded => {
            head.headers.remove(header::CONTENT_LENGTH);
            let rewriter = Rewriter::new(prefix, hosts);
            Reply::from_parts(head, Body::Page(body, Some(Box::new(rewriter))))
        }
        body => Reply::from_parts(head, body),
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PREFIX: &str = "/api/v1/namespaces/n/pods/p/proxy";

    fn page(text: &str, piece: usize) -> String {
        let mut rewriter = Rewriter::new(PREFIX, &["10.0.0.1:80"]);
        let mut out = vec![];
        for piece in text.as_bytes().chunks(piece) {
            out.extend_from_slice(&rewriter.push(piece));
        }
        out.extend_from_slice(&rewriter.finish());
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn links_to_the_root_lead_through_the_proxy() {
        let cases = [
            (
                r#"<a href="/rewriteme">test</a>"#,
                r#"<a href="PREFIX/rewriteme">test</a>"#,
            ),
            (
                "<A HREF='/x?y=1' class=\"/z\">",
                "<A HREF='PREFIX/x?y=1' class=\"/z\">",
            ),
            (
                "<img src=/logo.png alt=/a>",
                "<img src=PREFIX/logo.png alt=/a>",
            ),
            ("<a href = \"/x\">", "<a href = \"PREFIX/x\">"),
            (
                r#"<link rel="x" href="style.css"><a href="http://other/x">"#,
                r#"<link rel="x" href="style.css"><a href="http://other/x">"#,
            ),
            (
                r#"<a href="http://10.0.0.1:80/x"><a href="//10.0.0.1:80/y">"#,
                r#"<a href="PREFIX/x"><a href="PREFIX/y">"#,
            ),
            (r#"<a href="PREFIX/x">"#, r#"<a href="PREFIX/x">"#),
            (
                r#"<script src="/a.js">if (a<b) x = '<a href="/no">'</script><a href="/y">"#,
                r#"<script src="PREFIX/a.js">if (a<b) x = '<a href="/no">'</script><a href="PREFIX/y">"#,
            ),
            (
                r#"<!-- <a href="/no"> --><form action="/do">"#,
                r#"<!-- <a href="/no"> --><form action="PREFIX/do">"#,
            ),
            (
                r#"<p title="a > b" data-x="/z">1 < 2 <a title="x>y" href="/q">"#,
                r#"<p title="a > b" data-x="/z">1 < 2 <a title="x>y" href="PREFIX/q">"#,
            ),
            ("<a href=\"/unfinished", "<a href=\"/unfinished"),
            ("plain <", "plain <"),
        ];
        for (text, expected) in cases {
            let (text, expected) = (
                text.replace("PREFIX", PREFIX),
                expected.replace("PREFIX", PREFIX),
            );
            for piece in [1, 2, 7, 1000] {
                assert_eq!(page(&text, piece), expected, "{text} in pieces of {piece}");
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "[<>a/\"'= !x-]{0,60}", piece in 1_usize..9) {
            prop_assert_eq!(page(&text, piece), page(&text, 1000));
        }

        #[test]
        fn what_has_no_links_passes(text in "[b-z<>/= \"'!-]{0,60}") {
            // No tag of these letters alone has links but these.
            prop_assume!(!["q", "link", "form", "del"].iter().any(|tag| text.contains(&format!("<{tag}"))));
            prop_assert_eq!(page(&text, 5), text);
        }
    }

    #[test]
    fn redirections_lead_through_the_proxy() {
        for (to, expected) in [
            ("/login", Some("/api/v1/namespaces/n/pods/p/proxy/login")),
            (
                "http://10.0.0.1:80/login",
                Some("/api/v1/namespaces/n/pods/p/proxy/login"),
            ),
            ("login", None),
            ("https://example.com/login", None),
        ] {
            assert_eq!(
                through(to, PREFIX, &["10.0.0.1:80"]).as_deref(),
                expected,
                "{to}"
            );
        }
    }
}
