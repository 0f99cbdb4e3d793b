//! From a URL to what is asked: group, version, namespace, resource, name, subresource, query.

use gantry_machinery::status::Failure;
use http::Method;

use crate::errors;

/// A request about a resource, as its path names it. Empty strings stand for what is not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub plural: String,
    pub name: String,
    pub subresource: String,
    /// Path segments after the subresource: only proxies have some.
    pub rest: String,
    /// The deprecated form `/api/v1/watch/…`.
    pub watch_path: bool,
}

/// Reads `/api/VERSION/…` and `/apis/GROUP/VERSION/…`; `None` for any other path and for
/// discovery (`/apis/apps/v1` has no resource).
pub fn target(path: &str) -> Option<Target> {
    let mut parts = path.split('/').filter(|p| !p.is_empty()).map(decode);
    let mut target = Target::default();
    match parts.next()?.as_str() {
        "api" => target.version = parts.next()?,
        "apis" => {
            target.group = parts.next()?;
            target.version = parts.next()?;
        }
        _ => return None,
    }
    let mut next = parts.next()?;
    if next == "watch" {
        target.watch_path = true;
        next = parts.next()?;
    }
    if next == "namespaces" {
        let Some(namespace) = parts.next() else {
            target.plural = next;
            return Some(target);
        };
        match parts.next() {
            // The namespace itself, and its subresources.
            None => {
                target.name.clone_from(&namespace);
                target.namespace = namespace;
                target.plural = next;
                return Some(target);
            }
            Some(sub) if target.group.is_empty() && (sub == "status" || sub == "finalize") => {
                target.name.clone_from(&namespace);
                target.namespace = namespace;
                target.plural = next;
                target.subresource = sub;
                target.rest = parts.collect::<Vec<_>>().join("/");
                return Some(target);
            }
            Some(plural) => {
                target.namespace = namespace;
                target.plural = plural;
            }
        }
    } else {
        target.plural = next;
    }
    target.name = parts.next().unwrap_or_default();
    target.subresource = parts.next().unwrap_or_default();
    target.rest = parts.collect::<Vec<_>>().join("/");
    Some(target)
}

/// Percent-decodes a path segment; what is not valid UTF-8 stays as it was.
pub fn decode(segment: &str) -> String {
    unescape(segment, false)
}

fn unescape(text: &str, plus: bool) -> String {
    if !(text.contains('%') || plus && text.contains('+')) {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
        match bytes[i] {
            b'%' => {
                let pair = (
                    bytes.get(i + 1).copied().and_then(hex),
                    bytes.get(i + 2).copied().and_then(hex),
                );
                if let (Some(high), Some(low)) = pair {
                    out.push(high << 4 | low);
                    i += 3;
                    continue;
                }
                out.push(b'%');
            }
            b'+' if plus => out.push(b' '),
            b => out.push(b),
        }
        i += 1;
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// What a request wants to do, in the words of authorization.
pub fn verb(method: &Method, target: &Target, query: &Query) -> Option<&'static str> {
    Some(match *method {
        Method::GET | Method::HEAD => {
            if target.watch_path || query.flag("watch") {
                "watch"
            } else if target.name.is_empty() {
                "list"
            } else {
                "get"
            }
        }
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if target.name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        // Kubernetes has no verb for it: only who may do everything may ask a proxy for it.
        Method::OPTIONS if target.subresource == "proxy" => "",
        _ => return None,
    })
}

/// The decoded query; the first value of a name counts.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: Option<&str>) -> Query {
        Query(
            query
                .unwrap_or_default()
                .split('&')
                .filter(|p| !p.is_empty())
                .map(|p| {
                    let (k, v) = p.split_once('=').unwrap_or((p, ""));
                    (unescape(k, true), unescape(v, true))
                })
                .collect(),
        )
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k == name)
            .map(|(_, v)| v.as_str())
    }

    /// All values of a name that may be given more than once.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(k, _)| k == name)
            .map(|(_, v)| v.as_str())
    }

    /// An option that came in the body instead.
    pub fn add(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// Present and not `false` or `0`, as Kubernetes reads booleans in queries.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// An integer, or 400 in the words of Go's `strconv`.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, Failure> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                errors::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax"
                ))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: &str) {
        let t = target(path).unwrap_or_default();
        let got = format!(
            "{}|{}|{}|{}|{}|{}|{}",
            t.group, t.version, t.namespace, t.plural, t.name, t.subresource, t.rest
        );
        assert_eq!(got, expected, "{path}");
    }

    #[test]
    fn paths_name_their_target() {
        check("/api/v1/pods", "|v1||pods|||");
        check("/api/v1/namespaces/a/pods/x", "|v1|a|pods|x||");
        check("/api/v1/namespaces/a/pods/x/log", "|v1|a|pods|x|log|");
        check("/api/v1/namespaces/a", "|v1|a|namespaces|a||");
        check(
            "/api/v1/namespaces/a/finalize",
            "|v1|a|namespaces|a|finalize|",
        );
        check("/api/v1/nodes/n/proxy/a/b", "|v1||nodes|n|proxy|a/b");
        check(
            "/apis/apps/v1/namespaces/a/deployments/",
            "apps|v1|a|deployments|||",
        );
        check("/api/v1/watch/namespaces/a/pods", "|v1|a|pods|||");
        check(
            "/api/v1/namespaces/a/configmaps/x%3Ay",
            "|v1|a|configmaps|x:y||",
        );
        assert_eq!(target("/apis/apps/v1"), None);
        assert_eq!(target("/healthz"), None);
    }

    #[test]
    fn queries_are_unescaped() {
        let q = Query::parse(Some("labelSelector=a%3D1,b+in+(x)&watch&limit=5&watch=0"));
        assert_eq!(q.text("labelSelector"), "a=1,b in (x)");
        assert!(q.flag("watch"));
        assert_eq!(q.integer("limit").expect("a number"), Some(5));
        assert!(Query::parse(Some("limit=x")).integer("limit").is_err());
    }
}
