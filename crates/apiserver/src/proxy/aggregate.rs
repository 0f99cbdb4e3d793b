//! Extension API servers: what APIServices with a service lead to.
//!
//! A task looks at every such APIService, asks its server what it offers, and writes whether it is
//! available. Requests are passed on with the user's name in headers, which the server believes of
//! whoever shows the front proxy's certificate.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use gantry_machinery::status::Failure;
use gantry_store::Lagged;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, request::Parts};
use http_body_util::{BodyExt, Limited};
use parking_lot::RwLock;
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::{
    forward::{self, BoxBody},
    links::{Identity, Remote, Security, client_config},
    location,
};
use crate::{
    api::Api,
    authn::{MASTERS, UserInfo},
    bootstrap, errors, object,
    registry::Registry,
    respond::{self, Reply},
    rest::update::{self, Change, Track},
};

const GROUP: &str = "apiregistration.k8s.io";
const PLURAL: &str = "apiservices";
const BUCKET: &str = "apiregistration.k8s.io/apiservices";
/// Where extension servers read whom to believe.
const AUTHENTICATION: &str = "extension-apiserver-authentication";
/// A server that does not answer for so long is not available.
const CHECK_TIME: Duration = Duration::from_secs(5);
/// Between looks at servers that all are available.
const CALM: Duration = Duration::from_secs(30);
/// Between looks while one is not.
const PRESSING: Duration = Duration::from_secs(1);
/// What discovery of one group version may measure.
const DISCOVERY_LIMIT: usize = 3 * 1024 * 1024;

/// A group version that is somebody else's.
#[derive(Clone)]
pub struct Backend {
    name: String,
    pub group: String,
    pub version: String,
    priorities: (i64, i64),
    namespace: String,
    service: String,
    port: u64,
    /// How to speak TLS with it; what is wrong with its CA bundle, when something is.
    tls: Result<Arc<ClientConfig>, String>,
    /// Its `APIResourceList`, as last seen.
    pub resources: Option<Arc<Value>>,
    pub available: bool,
}

/// The group versions that are somebody else's.
pub struct Aggregator {
    backends: RwLock<Arc<Vec<Backend>>>,
    identity: Identity,
}

impl Aggregator {
    /// `identity` is what this server shows to the others.
    pub fn new(identity: Identity) -> Aggregator {
        Aggregator {
            backends: RwLock::default(),
            identity,
        }
    }

    /// In the order of discovery: by priority, then by name.
    pub fn backends(&self) -> Arc<Vec<Backend>> {
        self.backends.read().clone()
    }

    /// Whose path this is, when it is somebody else's: `/apis/group/version…`.
    pub fn whose(&self, path: &str) -> Option<Backend> {
        let mut parts = path.strip_prefix("/apis/")?.splitn(3, '/');
        let (group, version) = (parts.next()?, parts.next()?);
        let backends = self.backends.read();
        let found = backends.iter().find(|b| b.group == group && b.version == version);
        found.cloned()
    }

    fn backend(&self, service: &Value) -> Option<Backend> {
        let text = |path: &str| object::text(service, path).to_owned();
        let number = |path: &str| service.pointer(path).and_then(Value::as_i64).unwrap_or(0);
        service.pointer("/spec/service").filter(|s| s.is_object())?;
        let skip = service.pointer("/spec/insecureSkipTLSVerify") == Some(&Value::Bool(true));
        let bundle = STANDARD.decode(text("/spec/caBundle")).unwrap_or_default();
        let bundle = String::from_utf8_lossy(&bundle).into_owned();
        let roots = Some(bundle.as_str()).filter(|_| !skip);
        let name = object::name(service);
        let known = self.backends();
        let before = known.iter().find(|b| b.name == name);
        Some(Backend {
            name: name.to_owned(),
            group: text("/spec/group"),
            version: text("/spec/version"),
            priorities: (number("/spec/groupPriorityMinimum"), number("/spec/versionPriority")),
            namespace: text("/spec/service/namespace"),
            service: text("/spec/service/name"),
            port: u64::try_from(number("/spec/service/port")).ok().filter(|p| *p > 0).unwrap_or(443),
            tls: client_config(roots, Some(&self.identity)).map_err(|e| e.to_string()),
            resources: before.and_then(|b| b.resources.clone()),
            available: before.is_some_and(|b| b.available),
        })
    }
}

/// A condition's status, reason and message.
type Verdict = (&'static str, &'static str, String);

impl Backend {
    fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }

    /// Where it is, or why it is nowhere.
    fn locate(&self, api: &Api) -> Result<Remote, Verdict> {
        let what = format!("service/{} in {:?}", self.service, self.namespace);
        let broken = |f: Failure| ("Unknown", "ServiceAccessError", f.message);
        let service = location::stored(api, "", "services", &self.namespace, &self.service)
            .map_err(broken)?
            .ok_or_else(|| ("False", "ServiceNotFound", format!("{what} is not present")))?;
        let ports = service.pointer("/spec/ports").and_then(Value::as_array);
        let port = ports
            .into_iter()
            .flatten()
            .find(|p| p.get("port").and_then(Value::as_u64) == Some(self.port))
            .ok_or_else(|| {
                let said = format!("{what} is not listening on port {}", self.port);
                ("False", "ServicePortError", said)
            })?;
        let port = object::text(port, "/name");
        let (host, port) = location::endpoint(api, &self.namespace, &self.service, port)
            .map_err(|_| {
                let said = format!(
                    "endpoints for service/{} in {:?} have no addresses with port name {port:?}",
                    self.service, self.namespace
                );
                ("False", "MissingEndpoints", said)
            })?;
        let tls = self.tls.clone().map_err(|e| ("False", "FailedDiscoveryCheck", e))?;
        let name = format!("{}.{}.svc", self.service, self.namespace);
        Ok(Remote {
            host,
            port,
            security: Security::Custom(tls, name),
        })
    }

    /// Asks what it offers.
    async fn check(&mut self, api: &Api) -> Verdict {
        let to = match self.locate(api) {
            Ok(to) => to,
            Err(verdict) => return verdict,
        };
        let there = format!("https://{}:{}{}", to.host, to.port, self.path());
        match tokio::time::timeout(CHECK_TIME, self.ask(api, &to)).await {
            Ok(Ok(resources)) => {
                self.resources = Some(Arc::new(resources));
                ("True", "Passed", "all checks passed".to_owned())
            }
            failed => {
                let why = match failed {
                    Ok(Err(why)) => why,
                    _ => format!("Get {there:?}: context deadline exceeded"),
                };
                let said = format!("failing or missing response from {there}: {why}");
                ("False", "FailedDiscoveryCheck", said)
            }
        }
    }

    async fn ask(&self, api: &Api, to: &Remote) -> Result<Value, String> {
        let user = UserInfo::new("system:kube-aggregator", &[MASTERS]);
        let headers = named(&user).map_err(|f| f.message)?;
        let body = BoxBody::new(http_body_util::Empty::new().map_err(|never| match never {}));
        let plain = forward::plain(Method::GET);
        let reply = forward::forward(api, to, plain, &self.path(), headers, body)
            .await
            .map_err(|e| e.to_string())?;
        let status = reply.status();
        if status != StatusCode::OK {
            return Err(format!("bad status from the server: {}", status.as_u16()));
        }
        let whole = Limited::new(reply.into_body(), DISCOVERY_LIMIT).collect().await;
        let bytes = whole.map_err(|e| e.to_string())?.to_bytes();
        serde_json::from_slice(&bytes).map_err(|e| e.to_string())
    }
}

/// Headers that name the user.
fn named(user: &UserInfo) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::try_from(name).map_err(errors::internal)?;
        headers.append(name, HeaderValue::from_str(value).map_err(errors::internal)?);
        Ok::<_, Failure>(())
    };
    add("x-remote-user", &user.name)?;
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid)?;
    }
    for group in &user.groups {
        add("x-remote-group", group)?;
    }
    for (key, values) in &user.extra {
        let mut escaped = String::new();
        for byte in key.bytes() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
                byte => escaped.push_str(&format!("%{byte:02x}")),
            }
        }
        for value in values {
            add(&format!("x-remote-extra-{escaped}"), value)?;
        }
    }
    Ok(headers)
}

/// Passes a request on to the server whose it is.
pub async fn forward(
    api: &Arc<Api>,
    backend: &Backend,
    user: &UserInfo,
    parts: Parts,
    body: BoxBody,
) -> Result<Reply, Failure> {
    if !backend.available {
        return Ok(respond::text(503, "service unavailable\n"));
    }
    let Ok(to) = backend.locate(api) else {
        return Ok(respond::text(503, "service unavailable\n"));
    };
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    forward::forward(api, &to, parts, &path, named(user)?, body)
        .await
        .map_err(|e| forward::unavailable(&e))
}

/// Follows the APIServices until the server stops.
pub async fn run(api: Arc<Api>, authority: String) {
    if let Err(failure) = publish(&api, &authority).await {
        tracing::warn!(%failure, "writing {AUTHENTICATION}");
    }
    loop {
        let snapshot = api.store.snapshot(BUCKET);
        let services: Vec<Value> =
            snapshot.iter().filter_map(|s| serde_json::from_slice(&s.value).ok()).collect();
        let watch = api.store.watch(BUCKET, snapshot.revision);
        let mut backends = vec![];
        for service in &services {
            let Some(mut backend) = api.aggregation.backend(service) else {
                continue;
            };
            let verdict = backend.check(&api).await;
            backend.available = verdict.0 == "True";
            if let Err(failure) = tell(&api, service, &verdict).await
                && !matches!(failure.code, 404 | 409)
            {
                tracing::warn!(%failure, name = backend.name, "the status of an APIService");
            }
            backends.push(backend);
        }
        backends.sort_by(|a, b| (b.priorities, &a.name).cmp(&(a.priorities, &b.name)));
        let pause = match (backends.is_empty(), backends.iter().all(|b| b.available)) {
            (true, _) => None,
            (_, true) => Some(CALM),
            (_, false) => Some(PRESSING),
        };
        *api.aggregation.backends.write() = Arc::new(backends);
        let Ok(mut watch) = watch else { continue };
        tokio::select! {
            changed = watch.next() => if matches!(changed, Err(Lagged { .. })) {
                tracing::debug!("APIServices changed faster than they were read");
            },
            () = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            } => {}
            () = api.stop.cancelled() => return,
        }
    }
}

/// Writes the condition, where it is another one than before.
async fn tell(api: &Arc<Api>, service: &Value, verdict: &Verdict) -> Result<(), Failure> {
    let (status, reason, message) = verdict;
    let before = service
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|c| object::text(c, "/type") == "Available");
    let same = |path: &str, now: &str| before.is_some_and(|b| object::text(b, path) == now);
    if same("/status", status) && same("/reason", reason) && same("/message", message) {
        return Ok(());
    }
    let Some(mut cx) = bootstrap::own(api, GROUP, "v1", PLURAL, "") else {
        return Ok(());
    };
    cx.target.name = object::name(service).to_owned();
    let since = match before.filter(|_| same("/status", status)) {
        Some(before) => object::text(before, "/lastTransitionTime").to_owned(),
        None => cx.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    };
    let condition = json!({
        "type": "Available", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since,
    });
    let change = Change {
        subresource: "status".to_owned(),
        track: Track::Nobody,
        given: None,
        retries: 16,
    };
    update::modify(&mut cx, change, |_, old| {
        let mut new = old.clone();
        let mut all: Vec<Value> = old
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter(|c| object::text(c, "/type") != "Available")
            .cloned()
            .collect();
        all.push(condition.clone());
        new["status"] = json!({"conditions": all});
        Ok(new)
    })
    .await?;
    Ok(())
}

/// Tells extension servers whom to believe.
async fn publish(api: &Arc<Api>, authority: &str) -> Result<(), Failure> {
    let data = json!({
        "requestheader-allowed-names": json!([super::authority::FRONT_PROXY]).to_string(),
        "requestheader-client-ca-file": authority,
        "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
        "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
        "requestheader-username-headers": "[\"X-Remote-User\"]",
    });
    let map = json!({"metadata": {"name": AUTHENTICATION}, "data": data});
    bootstrap::ensure(api, "", "configmaps", "kube-system", map).await?;
    let Some(mut cx) = bootstrap::own(api, "", "v1", "configmaps", "kube-system") else {
        return Ok(());
    };
    cx.target.name = AUTHENTICATION.to_owned();
    let change = Change {
        subresource: String::new(),
        track: Track::Nobody,
        given: None,
        retries: 16,
    };
    // The authority lives as long as the process: what one before has written is of no use.
    update::modify(&mut cx, change, |_, old| {
        let mut new = old.clone();
        new["data"] = data.clone();
        Ok(new)
    })
    .await?;
    Ok(())
}

/// The groups that are somebody else's altogether: their names and what is in them, in order.
pub fn groups<'a>(backends: &'a [Backend], registry: &Registry) -> Vec<(&'a str, Vec<&'a Backend>)> {
    let mut all: Vec<(&str, Vec<&Backend>)> = vec![];
    for backend in backends.iter().filter(|b| registry.group(&b.group).is_none()) {
        match all.iter_mut().find(|(name, _)| *name == backend.group) {
            Some((_, versions)) => versions.push(backend),
            None => all.push((&backend.group, vec![backend])),
        }
    }
    all
}

/// A group version as aggregated discovery shows it.
pub fn discovery(backend: &Backend) -> Value {
    let list = backend.resources.as_deref();
    let all = || list.and_then(|l| l.get("resources")).and_then(Value::as_array).into_iter().flatten();
    let kind = |resource: &Value| {
        let or = |field: &str, own: &str| match object::text(resource, field) {
            "" => own.to_owned(),
            given => given.to_owned(),
        };
        json!({
            "group": or("/group", &backend.group), "version": or("/version", &backend.version),
            "kind": resource["kind"],
        })
    };
    let resources: Vec<Value> = all()
        .filter(|r| !object::text(r, "/name").contains('/'))
        .map(|resource| {
            let name = object::text(resource, "/name");
            let scope = match resource["namespaced"] == true {
                true => "Namespaced",
                false => "Cluster",
            };
            let mut one = json!({
                "resource": name, "responseKind": kind(resource), "scope": scope,
                "singularResource": resource["singularName"], "verbs": resource["verbs"],
            });
            for field in ["shortNames", "categories"] {
                if let Some(given) = resource.get(field) {
                    one[field] = given.clone();
                }
            }
            let subs: Vec<Value> = all()
                .filter_map(|s| {
                    let sub = object::text(s, "/name").strip_prefix(name)?.strip_prefix('/')?;
                    Some(json!({"subresource": sub, "responseKind": kind(s), "verbs": s["verbs"]}))
                })
                .collect();
            if !subs.is_empty() {
                one["subresources"] = subs.into();
            }
            one
        })
        .collect();
    let freshness = if backend.available { "Current" } else { "Stale" };
    json!({"version": backend.version, "freshness": freshness, "resources": resources})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_in_headers() {
        let mut user = UserInfo::new("ann", &["a", "b"]);
        user.extra.insert("example.com/x".into(), vec!["1".into()]);
        let headers = named(&user).expect("fit for headers");
        assert_eq!(headers["x-remote-user"], "ann");
        assert_eq!(headers.get_all("x-remote-group").iter().count(), 2);
        assert_eq!(headers["x-remote-extra-example.com%2fx"], "1");
        user.name = "new\nline".into();
        assert!(named(&user).is_err());
    }

    #[test]
    fn resources_are_shown_with_their_subresources() {
        let list = json!({"resources": [
            {"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get"]},
            {"name": "pods/x", "namespaced": true, "kind": "X", "verbs": ["create"]},
        ]});
        let backend = Backend {
            name: String::new(), group: "g".into(), version: "v1".into(), priorities: (0, 0),
            namespace: String::new(), service: String::new(), port: 443, tls: Err(String::new()),
            resources: Some(Arc::new(list)), available: true,
        };
        let shown = discovery(&backend);
        assert_eq!(shown["resources"][0]["scope"], "Namespaced");
        assert_eq!(shown["resources"][0]["responseKind"], json!({"group": "g", "version": "v1", "kind": "PodMetrics"}));
        assert_eq!(shown["resources"][0]["subresources"][0]["subresource"], "x");
        assert_eq!(shown["resources"].as_array().map(Vec::len), Some(1));
    }
}
