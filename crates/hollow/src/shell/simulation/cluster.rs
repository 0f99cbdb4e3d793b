//! A cluster that is a map in memory.

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::BTreeMap, convert::Infallible, sync::Arc};
use tokio::sync::mpsc;

pub(super) type Answer = UnsyncBoxBody<Bytes, Infallible>;
/// Resource, namespace, name.
pub(super) type Key = (String, String, String);

#[derive(Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<Key, Value>,
    pub(super) revision: u64,
    /// What watches tell, by resource.
    pub(super) log: Vec<(u64, String, Value)>,
    pub(super) watches: Vec<(String, mpsc::UnboundedSender<Bytes>)>,
    pub(super) writes: BTreeMap<String, u64>,
    /// The longest time between two renewals of a lease, in seconds.
    pub(super) gaps: BTreeMap<String, f64>,
    /// Uids begin so.
    pub(super) uids: String,
}

/// A cluster that is a map.
#[derive(Clone, Default)]
pub(super) struct Cluster(pub(super) Arc<Mutex<State>>);

pub(super) fn merge(target: &mut Value, patch: Value, strategic: bool) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                let by_type = strategic && key == "conditions";
                let entry = target.entry(key.clone()).or_insert(Value::Null);
                if let (true, Value::Array(old), Value::Array(new)) = (by_type, &mut *entry, &value)
                {
                    for condition in new {
                        match old.iter_mut().find(|it| it["type"] == condition["type"]) {
                            Some(old) => merge(old, condition.clone(), true),
                            None => old.push(condition.clone()),
                        }
                    }
                } else {
                    merge(entry, value, strategic);
                }
            }
            target.retain(|_, value| !value.is_null());
        }
        (target, patch) => *target = patch,
    }
}

impl State {
    pub(super) fn put(&mut self, key: Key, mut object: Value, kind: &str) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.tell(&key.0, kind, &object);
        match kind {
            "DELETED" => self.objects.remove(&key),
            _ => self.objects.insert(key, object),
        };
    }

    pub(super) fn tell(&mut self, resource: &str, kind: &str, object: &Value) {
        if !matches!(resource, "nodes" | "pods" | "configmaps") {
            return;
        }
        let event = json!({"type": kind, "object": object});
        let line = Bytes::from(format!("{event}\n"));
        self.watches
            .retain(|(it, send)| it != resource || send.send(line.clone()).is_ok());
        self.log.push((self.revision, resource.to_owned(), event));
    }

    pub(super) fn list(&self, resource: &str, namespace: &str) -> Vec<Value> {
        let all = self.objects.iter();
        let fitting = all
            .filter(|((it, ns, _), _)| it == resource && (namespace.is_empty() || ns == namespace));
        fitting.map(|(_, object)| object.clone()).collect()
    }
}

pub(super) fn status(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason,
        "message": reason,
    });
    (code, body)
}

impl Cluster {
    pub(super) fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = cluster.clone();
            async move { Ok::<_, Infallible>(cluster.answer(request).await) }
        });
        Client::new(service, "default")
    }

    pub(super) async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(|it| it.to_bytes())
            .unwrap_or_default();
        let path: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
        let rest = if path[0] == "api" {
            &path[2..]
        } else {
            &path[3..]
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let query = parts.uri.query().unwrap_or_default();
        let (resource, name) = (rest[0], rest.get(1).copied().unwrap_or_default());
        if query.contains("watch=true") {
            return self.watch(resource, query);
        }
        let (code, value) = self.plain(&parts, resource, namespace, name, &body);
        let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
        *response.status_mut() = code;
        response
    }

    pub(super) fn watch(&self, resource: &str, query: &str) -> Response<Answer> {
        let (send, receive) = mpsc::unbounded_channel::<Bytes>();
        let from = query
            .split('&')
            .find_map(|it| it.strip_prefix("resourceVersion="));
        let from: u64 = from.and_then(|it| it.parse().ok()).unwrap_or(0);
        let mut state = self.0.lock();
        for (revision, kind, event) in &state.log {
            if *revision > from && kind == resource {
                send.send(Bytes::from(format!("{event}\n"))).unwrap();
            }
        }
        state.watches.push((resource.to_owned(), send));
        let lines = futures::stream::unfold(receive, |mut receive| async move {
            let line = receive.recv().await?;
            Some((line, receive))
        });
        let frames = lines.map(|it| Ok::<_, Infallible>(Frame::data(it)));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }

    pub(super) fn plain(
        &self,
        parts: &http::request::Parts,
        resource: &str,
        namespace: &str,
        name: &str,
        body: &[u8],
    ) -> (StatusCode, Value) {
        let mut state = self.0.lock();
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let found = state.objects.get(&key).cloned();
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let kind = parts
            .headers
            .get("content-type")
            .and_then(|it| it.to_str().ok())
            .unwrap_or_default();
        if parts.method != Method::GET {
            *state
                .writes
                .entry(format!("{} {resource}", parts.method))
                .or_default() += 1;
        }
        match parts.method {
            Method::GET if name.is_empty() => {
                let items = match resource {
                    // Only the rules are looked for, and there are none.
                    "configmaps" => vec![],
                    _ => state.list(resource, namespace),
                };
                let revision = state.revision.to_string();
                let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": revision}, "items": items});
                (StatusCode::OK, list)
            }
            Method::GET => found.map_or_else(
                || status(StatusCode::NOT_FOUND, "NotFound"),
                |it| (StatusCode::OK, it),
            ),
            Method::POST => {
                let name = sent["metadata"]["name"].as_str().unwrap().to_owned();
                let key = (key.0, key.1, name);
                if state.objects.contains_key(&key) {
                    return status(StatusCode::CONFLICT, "AlreadyExists");
                }
                let mut object = sent;
                object["metadata"]["uid"] = format!("{}-{}", state.uids, key.2).into();
                state.put(key, object.clone(), "ADDED");
                (StatusCode::CREATED, object)
            }
            Method::PATCH => {
                let apply = kind.contains("apply");
                let Some(mut object) = found.or_else(|| apply.then(|| json!({"metadata": {}})))
                else {
                    return status(StatusCode::NOT_FOUND, "NotFound");
                };
                let uid = &sent["metadata"]["uid"];
                if !uid.is_null() && object["metadata"]["uid"] != *uid {
                    return status(StatusCode::CONFLICT, "Conflict");
                }
                if resource == "leases" {
                    let time = |it: &Value| {
                        it["spec"]["renewTime"]
                            .as_str()
                            .and_then(|it| it.parse::<jiff::Timestamp>().ok())
                    };
                    if let (Some(before), Some(after)) = (time(&object), time(&sent)) {
                        let gap = state.gaps.entry(key.2.clone()).or_default();
                        *gap = gap.max(after.duration_since(before).as_secs_f64());
                    }
                }
                merge(&mut object, sent, kind.contains("strategic"));
                state.put(key, object.clone(), "MODIFIED");
                (StatusCode::OK, object)
            }
            Method::DELETE => match found {
                Some(object) => {
                    state.put(key, object.clone(), "DELETED");
                    (StatusCode::OK, object)
                }
                None => status(StatusCode::NOT_FOUND, "NotFound"),
            },
            _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    /// A pod of an application, bound to a node.
    pub(super) fn pod(&self, name: &str, node: &str, edit: impl FnOnce(&mut Value)) {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": "shop", "uid": format!("{}-{name}", self.0.lock().uids),
                "labels": {"app": name.split('-').next().unwrap_or_default()},
            },
            "spec": {
                "nodeName": node,
                "containers": [{
                    "name": "app", "image": "shop/app:1", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
                    "readinessProbe": {"periodSeconds": 10},
                }],
            },
            "status": {"phase": "Pending"},
        });
        edit(&mut pod);
        let key = ("pods".into(), "shop".into(), name.to_owned());
        self.0.lock().put(key, pod, "ADDED");
    }

    pub(super) fn get(&self, resource: &str, namespace: &str, name: &str) -> Value {
        let key = (resource.into(), namespace.into(), name.into());
        self.0.lock().objects.get(&key).cloned().unwrap_or_default()
    }

    /// What became of the pods, without what tells one run's objects from another's.
    pub(super) fn outcome(&self) -> Vec<String> {
        let describe = |pod: &Value| {
            let of = &pod["status"]["containerStatuses"][0];
            let last = &of["lastState"]["terminated"];
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            let ready = conditions
                .filter(|it| it["type"] == "Ready" && it["status"] == "True")
                .count();
            format!(
                "{} {} {} ready={ready} restarts={} last={} {} {}",
                pod["metadata"]["name"],
                pod["status"]["phase"],
                pod["status"]["reason"],
                of["restartCount"],
                last["reason"],
                last["exitCode"],
                last["finishedAt"],
            )
        };
        self.0
            .lock()
            .list("pods", "shop")
            .iter()
            .map(describe)
            .collect()
    }
}
