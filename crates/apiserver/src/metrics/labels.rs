//! What a request is counted as.

use http::{Method, header, request::Parts};

use super::Labels;
use crate::{
    registry::Entry,
    request::{self, Query, Target},
};

/// What a request is counted as. Paths and names of the client's making are not told apart.
pub fn labels(
    parts: &Parts,
    target: Option<&Target>,
    entry: Option<&Entry>,
    query: &Query,
) -> Labels {
    let (target, entry) = match (target, entry) {
        (Some(target), Some(entry)) => (target, entry),
        _ => {
            let path = parts.uri.path().trim_matches('/');
            let known = ["healthz", "livez", "readyz", "metrics", "version"];
            return Labels {
                verb: method(&parts.method),
                path: known.into_iter().find(|k| *k == path).unwrap_or_default(),
                ..Labels::default()
            };
        }
    };
    let resource = &entry.resource;
    let mut subs = resource.subresources.iter();
    let sub = subs.position(|s| s.name == target.subresource);
    let verb = match request::verb(&parts.method, target, query) {
        _ if matches!(
            target.subresource.as_str(),
            "exec" | "attach" | "portforward" | "proxy"
        ) =>
        {
            "CONNECT"
        }
        Some("list") => "LIST",
        Some("watch") => "WATCH",
        Some("deletecollection") => "DELETECOLLECTION",
        Some("patch") => {
            let media = parts.headers.get(header::CONTENT_TYPE);
            match media.is_some_and(|m| m.as_bytes().starts_with(b"application/apply-patch")) {
                true => "APPLY",
                false => "PATCH",
            }
        }
        _ => method(&parts.method),
    };
    Labels {
        verb,
        resource: Some(resource.clone()),
        subresource: sub,
        path: "",
        scope: match (target.name.is_empty(), target.namespace.is_empty()) {
            (false, _) => "resource",
            // One object, too, though its name is not in the path.
            _ if verb == "POST" => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        },
        dry_run: match query.all("dryRun").any(|v| v == "All") {
            true => "All",
            false => "",
        },
    }
}

fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}
