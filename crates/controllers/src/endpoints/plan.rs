//! The planner of Endpoints: addresses of a Service's pods by the ports that they serve.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::endpointslice::plan::{LAST_CHANGE, ports};
use crate::model::network::{Address, EndpointPort, Endpoints, Service, Subset, TargetRef};
use crate::model::{Labels, Pod};

/// Addresses that an Endpoints object holds at most.
pub const CAPACITY: usize = 1000;
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
pub const MANAGER: &str = "endpoint-controller";
pub const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// What to write.
#[derive(Debug, PartialEq)]
pub enum Action {
    Create(Value),
    /// Fields to merge.
    Update(Value),
}

/// What to write so that the Endpoints of a Service say who serves it; nothing if they do.
pub fn plan(service: &Service, pods: &[Arc<Pod>], existing: Option<&Endpoints>) -> Option<Action> {
    let (subsets, truncated) = truncate(subsets(service, pods));
    let labels = labels(service);
    let old_over = existing.and_then(|e| e.metadata.annotations.get(OVER_CAPACITY));
    let over = truncated.then_some("truncated");
    if let Some(existing) = existing
        && existing.subsets == subsets
        && existing.metadata.labels == labels
        && old_over == over
    {
        return None;
    }
    let changed = trigger(service, pods, existing);
    let time = changed.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let Some(existing) = existing else {
        let mut annotations = Map::new();
        if let Some(over) = over {
            annotations.insert(OVER_CAPACITY.into(), over.into());
        }
        if let Some(time) = time {
            annotations.insert(LAST_CHANGE.into(), time.into());
        }
        return Some(Action::Create(json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": &*service.metadata.name,
                "namespace": &*service.metadata.namespace,
                "labels": labels.to_json(),
                "annotations": annotations,
            },
            "subsets": subsets,
        })));
    };
    let mut merged = labels.to_json();
    for (key, _) in existing.metadata.labels.iter() {
        if labels.get(key).is_none() {
            merged[key] = Value::Null;
        }
    }
    Some(Action::Update(json!({
        "metadata": {
            "uid": &*existing.metadata.uid,
            "labels": merged,
            "annotations": {OVER_CAPACITY: over, LAST_CHANGE: time},
        },
        "subsets": subsets,
    })))
}

/// When the first of the changes happened that these Endpoints are the first to tell: the Service
/// came, or a pod became ready or not ready after what was told last.
fn trigger(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: Option<&Endpoints>,
) -> Option<Timestamp> {
    let Some(existing) = existing else {
        return service.metadata.created;
    };
    let told = existing
        .metadata
        .annotations
        .get(LAST_CHANGE)
        .and_then(|text| text.parse().ok())
        .or(existing.metadata.created)
        .unwrap_or(Timestamp::MIN);
    pods.iter()
        .filter_map(|p| p.ready_since)
        .filter(|at| *at > told)
        .min()
}

fn labels(service: &Service) -> Labels {
    let labels = service
        .metadata
        .labels
        .without(HEADLESS)
        .with(MANAGED_BY, MANAGER);
    if service.spec.cluster_ip == "None" {
        labels.with(HEADLESS, "")
    } else {
        labels
    }
}

/// The address of a pod for a Service, and whether it is ready.
fn address(service: &Service, pod: &Pod) -> Option<(Address, bool)> {
    let unready_too = service.spec.publish_not_ready_addresses;
    if pod.finished() || (pod.terminating() && !unready_too) {
        return None;
    }
    // Endpoints have one family: that of the Service, or of the pod where the Service has none.
    let six = service
        .spec
        .ip_families
        .first()
        .map_or_else(|| service.spec.cluster_ip.contains(':'), |f| f == "IPv6");
    let ip = pod.ips.iter().find(|ip| ip.is_ipv6() == six)?;
    let named = !pod.hostname.is_empty() && *pod.subdomain == *service.metadata.name;
    let address = Address {
        ip: ip.to_string(),
        hostname: named.then(|| pod.hostname.to_string()),
        node_name: pod.node.as_deref().map(str::to_owned),
        target_ref: Some(TargetRef {
            kind: "Pod".into(),
            namespace: pod.meta.namespace.to_string(),
            name: pod.meta.name.to_string(),
            uid: pod.meta.uid.to_string(),
        }),
    };
    Some((address, unready_too || pod.ready))
}

/// Addresses by their IP and the uid of what they are of, and whether they are ready.
pub type Known = BTreeMap<(String, String), (Address, bool)>;

/// The addresses of a Service's pods, by the ports that they serve.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<Subset> {
    let mut by_port: BTreeMap<Option<EndpointPort>, Known> = BTreeMap::new();
    let headless = service.spec.cluster_ip == "None" && service.spec.ports.is_empty();
    for pod in pods {
        let Some((address, ready)) = address(service, pod) else {
            continue;
        };
        let served: Vec<Option<EndpointPort>> = if headless {
            vec![None]
        } else {
            ports(service, pod).into_iter().map(Some).collect()
        };
        for port in served {
            let key = (address.ip.clone(), pod.meta.uid.to_string());
            by_port
                .entry(port)
                .or_default()
                .insert(key, (address.clone(), ready));
        }
    }
    packed(by_port)
}

/// Ports that the same addresses serve share a subset.
pub fn packed(by_port: BTreeMap<Option<EndpointPort>, Known>) -> Vec<Subset> {
    let mut groups: Vec<(Known, Vec<EndpointPort>)> = Vec::new();
    for (port, known) in by_port {
        match groups.iter_mut().find(|(k, _)| *k == known) {
            Some((_, ports)) => ports.extend(port),
            None => groups.push((known, port.into_iter().collect())),
        }
    }
    groups
        .into_iter()
        .map(|(known, ports)| {
            let mut subset = Subset {
                ports,
                ..Subset::default()
            };
            for (address, ready) in known.into_values() {
                if ready {
                    subset.addresses.push(address);
                } else {
                    subset.not_ready_addresses.push(address);
                }
            }
            subset
        })
        .collect()
}

/// At most [`CAPACITY`] addresses, ready ones first, each subset in proportion to its size; whether
/// any were left out.
fn truncate(mut subsets: Vec<Subset>) -> (Vec<Subset>, bool) {
    let ready: usize = subsets.iter().map(|s| s.addresses.len()).sum();
    let unready: usize = subsets.iter().map(|s| s.not_ready_addresses.len()).sum();
    if ready + unready <= CAPACITY {
        return (subsets, false);
    }
    let keep_ready = ready.min(CAPACITY);
    let keep_unready = CAPACITY - keep_ready;
    share(
        subsets.iter_mut().map(|s| &mut s.addresses).collect(),
        keep_ready,
    );
    share(
        subsets
            .iter_mut()
            .map(|s| &mut s.not_ready_addresses)
            .collect(),
        keep_unready,
    );
    subsets.retain(|s| !s.addresses.is_empty() || !s.not_ready_addresses.is_empty());
    (subsets, true)
}

/// Shares what is kept in proportion, rounded up, so that the last may get less.
fn share(lists: Vec<&mut Vec<Address>>, keep: usize) {
    let total: usize = lists.iter().map(|l| l.len()).sum();
    let mut left = keep;
    for list in lists {
        let mine = (list.len() * keep).div_ceil(total.max(1)).min(left);
        list.truncate(mine);
        left -= list.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn service(spec: Value) -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "web", "namespace": "n", "uid": "s",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"team": "x"}}, "spec": spec}),
        )
        .unwrap()
    }

    fn plain() -> Service {
        service(json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80, "targetPort": 8080}]}))
    }

    fn pod(n: usize, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        let pod = json!({
            "metadata": {"name": format!("web-{n}"), "namespace": "n", "uid": format!("u{n}")},
            "spec": {"nodeName": "node-1", "containers": [
                {"name": "c", "ports": [{"name": "http", "containerPort": 8000 + n % 2}]}]},
            "status": {"phase": "Running", "podIP": format!("10.1.{}.{}", n / 250, n % 250), "conditions": [
                {"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:05:00Z"}]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn created(action: Option<Action>) -> Value {
        match action {
            Some(Action::Create(object)) => object,
            other => panic!("{other:?}"),
        }
    }

    /// The object as the API server would have it after the action.
    fn written(object: &Value) -> Endpoints {
        serde_json::from_value(object.clone()).unwrap()
    }

    #[test]
    fn the_object_says_who_serves_and_since_when() {
        let pods = [pod(0, true), pod(1, false)];
        let object = created(plan(&plain(), &pods, None));
        assert_eq!(
            object["metadata"],
            json!({"name": "web", "namespace": "n",
                "labels": {"team": "x", "endpoints.kubernetes.io/managed-by": "endpoint-controller"},
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"}})
        );
        let address = |n: usize| {
            json!({"ip": format!("10.1.0.{n}"), "nodeName": "node-1",
                "targetRef": {"kind": "Pod", "namespace": "n", "name": format!("web-{n}"), "uid": format!("u{n}")}})
        };
        assert_eq!(
            object["subsets"],
            json!([{"addresses": [address(0)], "notReadyAddresses": [address(1)],
                "ports": [{"name": "", "port": 8080, "protocol": "TCP"}]}])
        );
        assert_eq!(plan(&plain(), &pods, Some(&written(&object))), None);

        let Some(Action::Update(fields)) = plan(&plain(), &[pod(0, true)], Some(&written(&object)))
        else {
            panic!()
        };
        let annotations = &fields["metadata"]["annotations"];
        assert_eq!(annotations[LAST_CHANGE], "2026-01-01T00:05:00Z");
        assert_eq!(fields["subsets"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn named_ports_split_what_serves_different_ones() {
        let service = service(json!({"clusterIP": "None", "ports": [
            {"name": "http", "port": 80, "targetPort": "http"}, {"name": "admin", "port": 9, "targetPort": 9}]}));
        let object = created(plan(
            &service,
            &[pod(0, true), pod(1, true), pod(2, true)],
            None,
        ));
        assert_eq!(object["metadata"]["labels"][HEADLESS], "");
        let told: Vec<(usize, usize)> = written(&object)
            .subsets
            .iter()
            .map(|s| (s.addresses.len(), s.ports.len()))
            .collect();
        assert_eq!(told, [(3, 1), (2, 1), (1, 1)]);
    }

    #[test]
    fn a_headless_service_without_ports_has_addresses() {
        let object = created(plan(
            &service(json!({"clusterIP": "None"})),
            &[pod(0, true)],
            None,
        ));
        assert_eq!(object["subsets"][0]["addresses"][0]["ip"], "10.1.0.0");
        assert_eq!(object["subsets"][0].get("ports"), None);
    }

    #[rstest]
    #[case::fits(900, 100, 900, 100, false)]
    #[case::unready_go_first(900, 300, 900, 100, true)]
    #[case::then_ready(1500, 10, 1000, 0, true)]
    fn a_thousand_at_most(
        #[case] ready: usize,
        #[case] unready: usize,
        #[case] kept_ready: usize,
        #[case] kept_unready: usize,
        #[case] truncated: bool,
    ) {
        let pods: Vec<Arc<Pod>> = (0..ready + unready).map(|n| pod(n, n < ready)).collect();
        let service = service(
            json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80, "targetPort": "http"}]}),
        );
        let object = created(plan(&service, &pods, None));
        let subsets = written(&object).subsets;
        assert_eq!(
            subsets.iter().map(|s| s.addresses.len()).sum::<usize>(),
            kept_ready
        );
        assert_eq!(
            subsets
                .iter()
                .map(|s| s.not_ready_addresses.len())
                .sum::<usize>(),
            kept_unready
        );
        assert_eq!(
            object["metadata"]["annotations"]
                .get(OVER_CAPACITY)
                .is_some(),
            truncated
        );
    }
}
