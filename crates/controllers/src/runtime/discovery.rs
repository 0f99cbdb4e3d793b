//! What an API server serves, by aggregated discovery.

use std::sync::Arc;
use std::time::Duration;

use kube::core::discovery::v2::APIGroupDiscovery;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::api::Api;
use crate::model::collection_path;

/// Discovery is asked at most this often for what is not known.
const AGAIN: Duration = Duration::from_secs(5);

/// One resource in the version that the server prefers for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub group: Arc<str>,
    pub version: Arc<str>,
    pub plural: Arc<str>,
    pub kind: Arc<str>,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    /// It has the subresource `scale`.
    pub scalable: bool,
}

/// What a server serves as far as it could be found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovery {
    pub served: Vec<Served>,
    /// What could not be discovered (`group/version`), and why.
    pub failures: Vec<(String, String)>,
}

impl Served {
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Its objects can be found and deleted.
    pub fn deletable(&self) -> bool {
        ["list", "watch", "delete"].iter().all(|v| self.allows(v))
    }

    pub fn is_event(&self) -> bool {
        &*self.plural == "events" && matches!(&*self.group, "" | "events.k8s.io")
    }

    pub fn path(&self, namespace: &str) -> String {
        collection_path(
            &self.group,
            &self.version,
            &self.plural,
            self.namespaced,
            namespace,
        )
    }
}

/// What is served, remembered, and asked for anew when something is not in it.
#[derive(Default)]
pub struct Catalogue {
    known: Mutex<(Option<Instant>, Arc<Vec<Served>>)>,
}

impl Catalogue {
    /// The first resource that `is` recognises.
    pub async fn find(&self, api: &Api, is: impl Fn(&Served) -> bool) -> Option<Served> {
        let (asked, known) = self.known.lock().clone();
        if let Some(found) = known.iter().find(|s| is(s)) {
            return Some(found.clone());
        }
        if asked.is_some_and(|at| at.elapsed() < AGAIN) {
            return None;
        }
        let discovery = api.discover_what_is_there().await;
        let found = discovery.served.iter().find(|s| is(s)).cloned();
        *self.known.lock() = (Some(Instant::now()), Arc::new(discovery.served));
        found
    }
}

/// Flattens discovery: the first version of a group that has a resource is the preferred one.
pub fn served(groups: impl IntoIterator<Item = APIGroupDiscovery>) -> Vec<Served> {
    let mut found: Vec<Served> = Vec::new();
    for group in groups {
        let name: Arc<str> = group
            .metadata
            .and_then(|m| m.name)
            .unwrap_or_default()
            .into();
        let start = found.len();
        for version in group.versions {
            let number: Arc<str> = version.version.unwrap_or_default().into();
            for resource in version.resources {
                let plural = resource.resource.unwrap_or_default();
                if found[start..].iter().any(|f| *f.plural == *plural) {
                    continue;
                }
                let kind = resource.response_kind.and_then(|k| k.kind);
                found.push(Served {
                    group: name.clone(),
                    version: number.clone(),
                    plural: plural.into(),
                    kind: kind.unwrap_or_default().into(),
                    namespaced: resource.scope.as_deref() == Some("Namespaced"),
                    verbs: resource.verbs,
                    scalable: resource
                        .subresources
                        .iter()
                        .any(|s| s.subresource.as_deref() == Some("scale")),
                });
            }
        }
    }
    found
}

/// The group versions that the server vouches no longer for: an extension API server that does not
/// answer leaves what it last said, marked stale.
pub fn stale(groups: &[APIGroupDiscovery]) -> Vec<(String, String)> {
    let mut failures = Vec::new();
    for group in groups {
        let name = group.metadata.as_ref().and_then(|m| m.name.as_deref());
        for version in &group.versions {
            if version.freshness.as_deref() == Some("Stale") {
                let number = version.version.as_deref().unwrap_or_default();
                let both = match name.filter(|n| !n.is_empty()) {
                    Some(name) => format!("{name}/{number}"),
                    None => number.to_owned(),
                };
                let why = format!("stale GroupVersion discovery: {both}");
                failures.push((both, why));
            }
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_version_with_a_resource_is_taken() {
        let resource = |name: &str| {
            json!({"resource": name, "scope": "Namespaced", "responseKind": {"kind": "X"},
                "verbs": ["list", "watch", "delete"]})
        };
        let groups: Vec<APIGroupDiscovery> = serde_json::from_value(json!([
            {"metadata": {"name": "autoscaling"}, "versions": [
                {"version": "v2", "resources": [resource("a")]},
                {"version": "v1", "resources": [resource("a"), resource("b")]}]},
        ]))
        .unwrap();
        let found = served(groups);
        let paths: Vec<_> = found.iter().map(|s| s.path("n")).collect();
        assert_eq!(
            paths,
            [
                "/apis/autoscaling/v2/namespaces/n/a",
                "/apis/autoscaling/v1/namespaces/n/b"
            ]
        );
        assert!(found[0].deletable());
    }

    #[test]
    fn what_an_absent_extension_server_last_said_is_stale() {
        let groups: Vec<APIGroupDiscovery> = serde_json::from_value(json!([
            {"metadata": {"name": "metrics.k8s.io"}, "versions": [
                {"version": "v1beta1", "resources": [], "freshness": "Stale"},
                {"version": "v1", "resources": [], "freshness": "Current"}]},
        ]))
        .unwrap();
        let why = "stale GroupVersion discovery: metrics.k8s.io/v1beta1";
        assert_eq!(
            stale(&groups),
            [("metrics.k8s.io/v1beta1".to_owned(), why.to_owned())]
        );
    }
}
