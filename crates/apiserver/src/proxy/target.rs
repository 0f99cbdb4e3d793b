//! Proxying to nodes, pods and services: `…/proxy/path`.

use gantry_machinery::status::Failure;
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
use serde_json::Value;

use super::{
    Asked,
    forward::{self, BoxBody},
    links::{Remote, Security},
    location, rewrite,
};
use crate::{
    errors, object,
    respond::{Body, Reply},
};

pub async fn proxy(asked: &Asked, parts: Parts, body: BoxBody) -> Result<Reply, Failure> {
    let plural = asked.target.plural.as_str();
    let id = asked.target.name.as_str();
    let Some((scheme, name, port)) = location::split(id) else {
        let kind = plural.trim_end_matches('s');
        return Err(errors::bad_request(format!(
            "invalid {kind} request {id:?}"
        )));
    };
    let to = match plural {
        "nodes" => node(asked, scheme, name, port)?,
        "pods" => pod(asked, scheme, name, port)?,
        _ => service(asked, scheme, name, port)?,
    };
    let full = parts.uri.path();
    let rest = match proxied(full) {
        Some(rest) => rest.to_owned(),
        None => return Ok(to_slash(&parts)),
    };
    let path = match parts.uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest,
    };
    let prefix = full.strip_suffix(path.split('?').next().unwrap_or_default());
    let prefix = prefix.unwrap_or(full).to_owned();
    let asked_of = host_of(&parts);
    let reply = forward::forward(&asked.api, &to, parts, &path, HeaderMap::new(), body)
        .await
        .map_err(|e| forward::unavailable(&e))?;
    let own = forward::authority(&to.host, to.port);
    let hosts: Vec<&str> = [Some(own.as_str()), asked_of.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    Ok(rewrite::answer(reply, &prefix, &hosts))
}

/// The host by which the API server was asked.
fn host_of(parts: &Parts) -> Option<String> {
    let given = parts.headers.get(header::HOST);
    let given = given.and_then(|it| it.to_str().ok()).map(str::to_owned);
    given.or_else(|| parts.uri.authority().map(ToString::to_string))
}

/// What comes after `/proxy`, as it was written; `None` when nothing does, not even a slash.
fn proxied(path: &str) -> Option<&str> {
    // …/{pods,services,nodes}/NAME/proxy: the segment after the name, wherever else the word stands.
    let mut slashes = path.match_indices('/').map(|(at, _)| at);
    let before = match path.starts_with("/api/v1/namespaces/") {
        true => 7, // api v1 namespaces NS pods NAME proxy
        false => 5,
    };
    slashes.nth(before).map(|at| &path[at..])
}

/// A page's relative links need the slash (kubernetes/kubernetes#4958).
fn to_slash(parts: &Parts) -> Reply {
    let mut reply = Reply::new(Body::empty());
    *reply.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let query = parts
        .uri
        .query()
        .map(|q| format!("?{q}"))
        .unwrap_or_default();
    if let Ok(value) = HeaderValue::try_from(format!("{}/{query}", parts.uri.path())) {
        reply.headers_mut().insert(header::LOCATION, value);
    }
    reply
}

fn security(scheme: &str) -> Security {
    match scheme {
        "https" => Security::Unverified,
        _ => Security::Plain,
    }
}

fn number(scheme: &str, port: &str) -> Result<u16, Failure> {
    match port {
        "" if scheme == "https" => Ok(443),
        "" => Ok(80),
        port => port
            .parse()
            .map_err(|_| errors::bad_request(format!("invalid port {port:?}"))),
    }
}

fn node(asked: &Asked, scheme: &str, name: &str, port: &str) -> Result<Remote, Failure> {
    let node = asked.object(name)?;
    let kubelet = location::kubelet_of(&asked.api, name, &node);
    match (kubelet, port) {
        (Ok(kubelet), "") => Ok(kubelet),
        (Ok(kubelet), port) if port == kubelet.port.to_string() => Ok(kubelet),
        (Ok(kubelet), port) => {
            location::proxyable(&kubelet.host)?;
            Ok(Remote {
                port: number(scheme, port)?,
                security: security(scheme),
                host: kubelet.host,
            })
        }
        (Err(failure), _) => Err(failure),
    }
}

fn pod(asked: &Asked, scheme: &str, name: &str, port: &str) -> Result<Remote, Failure> {
    let pod = asked.object(name)?;
    let declared = pod
        .pointer("/spec/containers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find_map(|c| c.pointer("/ports/0/containerPort").and_then(Value::as_u64))
        .and_then(|p| u16::try_from(p).ok());
    let address = object::text(&pod, "/status/podIP");
    location::proxyable(address)?;
    Ok(Remote {
        host: address.to_owned(),
        port: match (port, declared) {
            ("", Some(declared)) => declared,
            _ => number(scheme, port)?,
        },
        security: security(scheme),
    })
}

fn service(asked: &Asked, scheme: &str, name: &str, port: &str) -> Result<Remote, Failure> {
    let service = asked.object(name)?;
    let named = match port.parse::<u64>() {
        Ok(number) => {
            let ports = service.pointer("/spec/ports").and_then(Value::as_array);
            let found = ports
                .into_iter()
                .flatten()
                .find(|p| p.get("port").and_then(Value::as_u64) == Some(number));
            match found {
                Some(port) => object::text(port, "/name").to_owned(),
                None => {
                    return Err(Failure::new(
                        503,
                        "ServiceUnavailable",
                        format!("no service port {number} found for service \"{name}\""),
                    ));
                }
            }
        }
        Err(_) => port.to_owned(),
    };
    let (host, port) = location::endpoint(&asked.api, &asked.target.namespace, name, &named)?;
    location::proxyable(&host)?;
    Ok(Remote {
        host,
        port,
        security: security(scheme),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_the_path_is_passed_on_as_written() {
        let cases = [
            ("/api/v1/namespaces/a/pods/x/proxy", None),
            ("/api/v1/namespaces/a/pods/x/proxy/", Some("/")),
            (
                "/api/v1/namespaces/a/pods/proxy/proxy/b/proxy%2Fc",
                Some("/b/proxy%2Fc"),
            ),
            ("/api/v1/nodes/n/proxy/metrics", Some("/metrics")),
            ("/api/v1/nodes/n/proxy", None),
        ];
        for (path, rest) in cases {
            assert_eq!(proxied(path), rest, "{path}");
        }
    }
}
