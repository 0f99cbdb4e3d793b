//! The planner of mirrored EndpointSlices: what people wrote into Endpoints, as slices.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::plan::{Known, packed};
use crate::model::network::{
    Address, Endpoint, EndpointPort, EndpointSlice, Endpoints, MANAGED_BY, SERVICE_NAME, Subset,
};
use crate::model::{ENDPOINTS, Labels, Owner};

/// Value of [`MANAGED_BY`] on mirrored slices.
pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Addresses of one subset that are mirrored at most.
pub const PER_SUBSET: usize = 1000;
/// Label of Endpoints that are not to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that only serve to elect a leader.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say something of the Endpoints object, not of the endpoints.
const OWN: [&str; 2] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "endpoints.kubernetes.io/last-change-trigger-time",
];

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub create: Vec<Value>,
    pub update: Vec<(Arc<EndpointSlice>, Value)>,
    pub delete: Vec<Arc<EndpointSlice>>,
    /// Warnings about the Endpoints: reason and message.
    pub told: Vec<(&'static str, String)>,
}

/// Whether people want these Endpoints mirrored.
pub fn wanted(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    meta.labels.get(SKIP) != Some("true")
        && meta.annotations.get(LEADER).is_none()
        && meta.deleted.is_none()
}

struct Desired {
    family: &'static str,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Value>,
}

/// Brings the mirrored `slices` of a Service in line; `None` for Endpoints that are not mirrored.
pub fn plan(endpoints: Option<&Endpoints>, slices: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut left: Vec<&Arc<EndpointSlice>> = slices.iter().collect();
    left.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    if let Some(endpoints) = endpoints {
        let labels = labels(endpoints);
        let annotations = annotations(endpoints);
        let (all, told) = desired(endpoints);
        plan.told = told;
        for desired in all {
            let same = |s: &&Arc<EndpointSlice>| {
                let mut ports = s.ports.clone();
                ports.sort();
                s.address_type == desired.family && ports == desired.ports
            };
            match left.iter().position(same) {
                Some(at) => {
                    let slice = left.remove(at);
                    let new: Result<Vec<Endpoint>, _> = desired
                        .endpoints
                        .iter()
                        .map(|e| serde_json::from_value(e.clone()))
                        .collect();
                    let unchanged = new.is_ok_and(|new| new == slice.endpoints)
                        && slice.metadata.labels == labels
                        && slice.metadata.annotations == annotations;
                    if !unchanged {
                        let fields = json!({
                            "metadata": {
                                "uid": &*slice.metadata.uid,
                                "labels": replaced(&labels, &slice.metadata.labels),
                                "annotations": replaced(&annotations, &slice.metadata.annotations),
                            },
                            "endpoints": desired.endpoints,
                        });
                        plan.update.push((slice.clone(), fields));
                    }
                }
                None => plan
                    .create
                    .push(object(endpoints, &labels, &annotations, &desired)),
            }
        }
    }
    plan.delete.extend(left.into_iter().cloned());
    plan
}

/// `new` as a merge patch of `old`.
fn replaced(new: &Labels, old: &Labels) -> Value {
    let mut merged: Map<String, Value> = old
        .iter()
        .map(|(key, _)| (key.to_owned(), Value::Null))
        .collect();
    for (key, value) in new.iter() {
        merged.insert(key.to_owned(), value.into());
    }
    merged.into()
}

fn labels(endpoints: &Endpoints) -> Labels {
    endpoints
        .metadata
        .labels
        .with(SERVICE_NAME, &endpoints.metadata.name)
        .with(MANAGED_BY, MANAGER)
}

fn annotations(endpoints: &Endpoints) -> Labels {
    endpoints
        .metadata
        .annotations
        .iter()
        .filter(|(key, _)| !OWN.contains(key))
        .collect()
}

/// Subsets as they would have been written: ports that the same addresses serve in one, an address that is ready
/// somewhere not as one that is not.
fn repacked(subsets: &[Subset]) -> Vec<Subset> {
    let mut by_port: BTreeMap<Option<EndpointPort>, Known> = BTreeMap::new();
    for subset in subsets {
        let ready = subset.addresses.iter().map(|a| (a, true));
        let all = ready.chain(subset.not_ready_addresses.iter().map(|a| (a, false)));
        let all: Vec<(&Address, bool)> = all.collect();
        let ports = subset.ports.iter().cloned().map(Some);
        let none = subset.ports.is_empty().then_some(None);
        for port in ports.chain(none) {
            let known = by_port.entry(port).or_default();
            for (address, ready) in &all {
                let uid = address.target_ref.as_ref().map(|t| t.uid.clone());
                let key = (address.ip.clone(), uid.unwrap_or_default());
                let at = known
                    .entry(key)
                    .or_insert_with(|| ((*address).clone(), *ready));
                at.1 |= ready;
            }
        }
    }
    packed(by_port)
}

fn desired(endpoints: &Endpoints) -> (Vec<Desired>, Vec<(&'static str, String)>) {
    let mut all: Vec<Desired> = Vec::new();
    let (mut invalid, mut skipped) = (0, 0);
    for subset in &repacked(&endpoints.subsets) {
        let mut ports = subset.ports.clone();
        ports.sort();
        let addresses = subset
            .addresses
            .iter()
            .map(|a| (a, true))
            .chain(subset.not_ready_addresses.iter().map(|a| (a, false)));
        let mut added = 0;
        for (address, ready) in addresses {
            if added == PER_SUBSET {
                skipped += 1;
                continue;
            }
            let family = match address.ip.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => "IPv4",
                Ok(IpAddr::V6(_)) => "IPv6",
                Err(_) => {
                    invalid += 1;
                    continue;
                }
            };
            added += 1;
            let at = all
                .iter()
                .position(|d| d.family == family && d.ports == ports)
                .unwrap_or_else(|| {
                    all.push(Desired {
                        family,
                        ports: ports.clone(),
                        endpoints: Vec::new(),
                    });
                    all.len() - 1
                });
            all[at].endpoints.push(endpoint(address, ready));
        }
    }
    let mut told = Vec::new();
    if invalid > 0 {
        let message =
            format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        told.push(("InvalidIPAddress", message));
    }
    if skipped > 0 {
        // The invalid ones count, as in Kubernetes.
        let skipped = skipped + invalid;
        let message = format!(
            "A max of {PER_SUBSET} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were skipped"
        );
        told.push(("TooManyAddressesToMirror", message));
    }
    (all, told)
}

fn endpoint(address: &Address, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [address.ip], "conditions": {"ready": ready}});
    if let Some(hostname) = &address.hostname {
        endpoint["hostname"] = hostname.as_str().into();
    }
    if let Some(node) = &address.node_name {
        endpoint["nodeName"] = node.as_str().into();
    }
    if let Some(target) = &address.target_ref {
        endpoint["targetRef"] = json!(target);
    }
    endpoint
}

fn object(
    endpoints: &Endpoints,
    labels: &Labels,
    annotations: &Labels,
    desired: &Desired,
) -> Value {
    let meta = &endpoints.metadata;
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", meta.name),
            "namespace": &*meta.namespace,
            "labels": labels.to_json(),
            "annotations": annotations.to_json(),
            "ownerReferences": [Owner::controller_json(&ENDPOINTS, meta)],
        },
        "addressType": desired.family,
        "endpoints": desired.endpoints,
        "ports": desired.ports,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(extra: Value) -> Endpoints {
        let mut object = json!({"metadata": {"name": "db", "namespace": "n", "uid": "e", "labels": {"team": "x"},
                "annotations": {"note": "1", "endpoints.kubernetes.io/last-change-trigger-time": "t"}},
            "subsets": [{"addresses": [{"ip": "192.0.2.1", "nodeName": "node-1"}, {"ip": "2001:db8::1"}],
                "notReadyAddresses": [{"ip": "192.0.2.2"}], "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}]});
        for (pointer, value) in extra.as_object().unwrap() {
            let (parent, field) = pointer.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[field] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn slice(object: &Value) -> Arc<EndpointSlice> {
        let mut object = object.clone();
        object["metadata"]["name"] = "db-1".into();
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn each_family_is_mirrored_into_a_slice() {
        let plan_of = |e: &Endpoints, s: &[Arc<EndpointSlice>]| plan(Some(e), s);
        let first = plan_of(&endpoints(json!({})), &[]);
        assert_eq!(first.create.len(), 2);
        let four = &first.create[0];
        assert_eq!(four["addressType"], "IPv4");
        assert_eq!(
            four["endpoints"],
            json!([{"addresses": ["192.0.2.1"], "conditions": {"ready": true}, "nodeName": "node-1"},
                {"addresses": ["192.0.2.2"], "conditions": {"ready": false}}])
        );
        assert_eq!(
            four["metadata"]["labels"],
            json!({"team": "x", "kubernetes.io/service-name": "db",
                "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io"})
        );
        assert_eq!(four["metadata"]["annotations"], json!({"note": "1"}));
        assert_eq!(four["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
        assert_eq!(first.create[1]["addressType"], "IPv6");

        let slices: Vec<_> = first.create.iter().map(slice).collect();
        assert_eq!(plan_of(&endpoints(json!({})), &slices), Plan::default());

        // Another label, and one address less: the family that is gone loses its slice.
        let changed = endpoints(json!({"/metadata/labels": {"team": "y"},
            "/subsets/0/addresses": [{"ip": "192.0.2.1", "nodeName": "node-1"}]}));
        let second = plan_of(&changed, &slices);
        assert_eq!(second.create.len(), 0);
        assert_eq!(second.update.len(), 1);
        assert_eq!(second.update[0].1["metadata"]["labels"]["team"], "y");
        assert_eq!(second.delete, [slices[1].clone()]);
        assert_eq!(plan(None, &slices).delete.len(), 2);
    }

    #[test]
    fn ports_of_the_same_addresses_share_a_slice() {
        let one = |port: i32, addresses: &[&str], late: &[&str]| {
            let ips = |of: &[&str]| of.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>();
            json!({"addresses": ips(addresses), "notReadyAddresses": ips(late),
                "ports": [{"name": format!("p{port}"), "port": port, "protocol": "TCP"}]})
        };
        let subsets = json!([
            one(1, &["192.0.2.1"], &[]),
            one(2, &["192.0.2.1"], &[]),
            one(3, &["192.0.2.1", "192.0.2.2"], &[]),
            one(3, &[], &["192.0.2.2"])
        ]);
        let plan = plan(Some(&endpoints(json!({"/subsets": subsets}))), &[]);
        let told: Vec<(usize, usize)> = plan
            .create
            .iter()
            .map(|s| {
                let ready = |e: &Value| e["conditions"]["ready"] == true;
                let all = s["endpoints"].as_array().unwrap();
                assert!(all.iter().all(ready), "{s:#}");
                (s["ports"].as_array().unwrap().len(), all.len())
            })
            .collect();
        assert_eq!(told, [(2, 1), (1, 2)]);
    }

    #[test]
    fn more_addresses_than_are_mirrored_are_told_of() {
        let ip = |n: usize| json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)});
        let many: Vec<Value> = (0..PER_SUBSET + 3).map(ip).collect();
        let subset = json!([{"addresses": many, "ports": [{"port": 1, "protocol": "TCP"}]}]);
        let plan = plan(Some(&endpoints(json!({"/subsets": subset}))), &[]);
        assert_eq!(
            plan.create[0]["endpoints"].as_array().unwrap().len(),
            PER_SUBSET
        );
        let message = "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 3 addresses were skipped";
        assert_eq!(
            plan.told,
            [("TooManyAddressesToMirror", message.to_owned())]
        );
    }

    #[test]
    fn who_does_not_want_to_is_not_mirrored() {
        assert!(wanted(&endpoints(json!({}))));
        assert!(!wanted(&endpoints(
            json!({"/metadata/labels": {SKIP: "true"}})
        )));
        assert!(!wanted(&endpoints(
            json!({"/metadata/annotations": {LEADER: "{}"}})
        )));
    }
}
