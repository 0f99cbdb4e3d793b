//! The ways into a pod through its node's kubelet: logs, commands, attaching, ports.

use bytes::Bytes;
use gantry_machinery::status::{Cause, Details, Failure};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use http_body_util::{BodyExt, Empty, Limited};
use serde_json::Value;

use super::{
    Asked,
    forward::{self, BoxBody},
    location,
};
use crate::{
    errors, object,
    request::Query,
    respond::{Body, Reply, TEXT},
};

/// As much of a kubelet's refusal is passed on.
const MESSAGE_LIMIT: usize = 64 * 1024;

fn empty() -> BoxBody {
    Empty::<Bytes>::new()
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    pod.pointer(&format!("/spec/{list}"))
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|c| object::text(c, "/name").to_owned())
        .collect()
}

/// The container that is meant: the one given, else the only one.
fn container(pod: &Value, name: &str, given: &str) -> Result<String, Failure> {
    let containers = names(pod, "containers");
    let init = names(pod, "initContainers");
    let ephemeral = names(pod, "ephemeralContainers");
    if given.is_empty() {
        return match containers.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(errors::bad_request(format!(
                "a container name must be specified for pod {name}"
            ))),
            _ => {
                let mut message = format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    containers.join(" ")
                );
                if !init.is_empty() {
                    message += &format!(" or one of the init containers: [{}]", init.join(" "));
                }
                if !ephemeral.is_empty() {
                    message += &format!(
                        " or one of the ephemeral containers: [{}]",
                        ephemeral.join(" ")
                    );
                }
                Err(errors::bad_request(message))
            }
        };
    }
    if [&containers, &init, &ephemeral]
        .iter()
        .any(|list| list.iter().any(|c| c == given))
    {
        return Ok(given.to_owned());
    }
    Err(errors::bad_request(format!(
        "container {given} is not valid for pod {name}"
    )))
}

/// Builds a query, percent-encoded.
#[derive(Default)]
struct Parameters(String);

impl Parameters {
    fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    self.0.push(char::from(byte));
                }
                byte => self.0.push_str(&format!("%{byte:02X}")),
            }
        }
    }
}

/// What is wrong with the options of a log, as `ValidatePodLogOptions` says it.
fn log_parameters(query: &Query, name: &str) -> Result<Parameters, Failure> {
    let mut causes = vec![];
    let mut fault = |reason: &str, field: &str, message: String| {
        causes.push(Cause {
            reason: reason.to_owned(),
            message,
            field: field.to_owned(),
        });
    };
    let tail = query.integer("tailLines")?;
    let limit = query.integer("limitBytes")?;
    let seconds = query.integer("sinceSeconds")?;
    let time = query.text("sinceTime");
    const INVALID: &str = "FieldValueInvalid";
    if let Some(n) = tail.filter(|n| *n < 0) {
        let message = format!("Invalid value: {n}: must be greater than or equal to 0");
        fault(INVALID, "tailLines", message);
    }
    if let Some(n) = limit.filter(|n| *n < 1) {
        let message = format!("Invalid value: {n}: must be greater than 0");
        fault(INVALID, "limitBytes", message);
    }
    match seconds {
        Some(_) if !time.is_empty() => fault(
            "FieldValueForbidden",
            "",
            "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned(),
        ),
        Some(n) if n < 1 => {
            let message = format!("Invalid value: {n}: must be greater than 0");
            fault(INVALID, "sinceSeconds", message);
        }
        _ => {}
    }
    if !time.is_empty() && time.parse::<jiff::Timestamp>().is_err() {
        return Err(errors::bad_request(format!(
            "parsing time {time:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {time:?} as \"2006\""
        )));
    }
    let stream = query.text("stream");
    if !matches!(stream, "" | "All" | "Stdout" | "Stderr") {
        fault(
            "FieldValueNotSupported",
            "stream",
            format!(
                "Unsupported value: {stream:?}: supported values: \"All\", \"Stderr\", \"Stdout\""
            ),
        );
    }
    if tail.is_some() && matches!(stream, "Stdout" | "Stderr") {
        fault(
            "FieldValueForbidden",
            "",
            "Forbidden: `tailLines` and specific `stream` are mutually exclusive for now"
                .to_owned(),
        );
    }
    if !causes.is_empty() {
        let said: Vec<String> = causes
            .iter()
            .map(|c| match c.field.as_str() {
                "" => c.message.clone(),
                field => format!("{field}: {}", c.message),
            })
            .collect();
        let said = match said.as_slice() {
            [one] => one.clone(),
            more => format!("[{}]", more.join(", ")),
        };
        return Err(Failure::new(
            422,
            "Invalid",
            format!("PodLogOptions \"{name}\" is invalid: {said}"),
        )
        .with_details(Details {
            name: name.to_owned(),
            kind: "PodLogOptions".to_owned(),
            causes,
            ..Details::default()
        }));
    }
    let mut parameters = Parameters::default();
    for flag in ["follow", "previous", "timestamps"] {
        if query.flag(flag) {
            parameters.add(flag, "true");
        }
    }
    for value in [
        "sinceSeconds",
        "sinceTime",
        "tailLines",
        "limitBytes",
        "stream",
    ] {
        if !query.text(value).is_empty() {
            parameters.add(value, query.text(value));
        }
    }
    Ok(parameters)
}

/// Streams a container's log.
pub async fn log(asked: &Asked, parts: Parts) -> Result<Reply, Failure> {
    let name = asked.target.name.as_str();
    if parts.method != Method::GET {
        return Err(errors::method_not_allowed());
    }
    let parameters = log_parameters(&asked.query, name)?;
    let pod = asked.object(name)?;
    let container = container(&pod, name, asked.query.text("container"))?;
    let node = object::text(&pod, "/spec/nodeName");
    if node.is_empty() {
        let mut reply = Reply::new(Body::empty());
        *reply.status_mut() = StatusCode::NO_CONTENT;
        return Ok(reply);
    }
    let to = location::kubelet(&asked.api, node)?;
    let path = format!(
        "/containerLogs/{}/{name}/{container}{}",
        asked.target.namespace, parameters.0
    );
    let plain = forward::plain(Method::GET);
    let mut reply = forward::forward(&asked.api, &to, plain, &path, HeaderMap::new(), empty())
        .await
        .map_err(|e| forward::dial_failure(&e))?;
    if !reply.status().is_success() {
        return Err(refusal(reply).await);
    }
    let kind = HeaderValue::from_static(TEXT);
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(reply)
}

/// What a kubelet refused, as the API says it (`GenericHttpResponseChecker`).
async fn refusal(reply: Reply) -> Failure {
    let code = reply.status().as_u16();
    let text = match Limited::new(reply.into_body(), MESSAGE_LIMIT)
        .collect()
        .await
    {
        Ok(all) => String::from_utf8_lossy(&all.to_bytes()).into_owned(),
        Err(_) => String::new(),
    };
    match code {
        400 => errors::bad_request(text),
        404 => errors::no_such_path(),
        500 => errors::internal(text),
        code => Failure::new(
            code,
            "",
            format!(
                "the server responded with the status code {code} but did not return more information: {text}"
            ),
        ),
    }
}

/// Commands, attaching and port forwarding: an upgraded connection to the kubelet.
pub async fn stream(asked: &Asked, sub: &str, parts: Parts) -> Result<Reply, Failure> {
    let name = asked.target.name.as_str();
    let pod = asked.object(name)?;
    let namespace = &asked.target.namespace;
    let mut parameters = Parameters::default();
    let path = match sub {
        "portforward" => {
            for port in asked.query.all("ports") {
                for port in port.split(',') {
                    parameters.add("port", port);
                }
            }
            format!("/portForward/{namespace}/{name}")
        }
        _ => {
            let container = container(&pod, name, asked.query.text("container"))?;
            for (given, kubelets) in [
                ("stdin", "input"),
                ("stdout", "output"),
                ("stderr", "error"),
            ] {
                if asked.query.flag(given) {
                    parameters.add(kubelets, "1");
                }
            }
            if asked.query.flag("tty") {
                parameters.add("tty", "1");
            }
            if sub == "exec" {
                for part in asked.query.all("command") {
                    parameters.add("command", part);
                }
            }
            format!("/{sub}/{namespace}/{name}/{container}")
        }
    };
    let node = object::text(&pod, "/spec/nodeName");
    if node.is_empty() {
        return Err(errors::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    if forward::upgrade(&parts.headers).is_none() {
        return Err(errors::bad_request("Upgrade request required"));
    }
    let to = location::kubelet(&asked.api, node)?;
    let path = path + &parameters.0;
    forward::forward(&asked.api, &to, parts, &path, HeaderMap::new(), empty())
        .await
        .map_err(|e| forward::dial_failure(&e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_is_chosen_or_must_be() {
        let one = json!({"spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&one, "p", "").expect("the only one"), "a");
        let more = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}], "ephemeralContainers": [{"name": "e"}]}});
        assert_eq!(container(&more, "p", "e").expect("known"), "e");
        assert_eq!(
            container(&more, "p", "").expect_err("several").message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the \
             init containers: [i] or one of the ephemeral containers: [e]"
        );
        assert_eq!(
            container(&more, "p", "z").expect_err("unknown").message,
            "container z is not valid for pod p"
        );
    }

    #[test]
    fn options_of_a_log_are_checked() {
        let told = |query: &str| match log_parameters(&Query::parse(Some(query)), "p") {
            Ok(parameters) => parameters.0,
            Err(failure) => failure.message,
        };
        assert_eq!(
            told("follow=true&tailLines=5&previous=false"),
            "?follow=true&tailLines=5"
        );
        assert_eq!(
            told("tailLines=-1"),
            "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"
        );
        assert!(told("sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z").contains("at most one of"));
        assert_eq!(
            told("sinceTime=2026-01-01T00:00:00Z"),
            "?sinceTime=2026-01-01T00%3A00%3A00Z"
        );
    }
}
