//! Services of the fleet, by the Multi-Cluster Services API (KEP-1645, `multicluster.x-k8s.io/v1alpha1`): a
//! `ServiceExport` beside a Service makes a `ServiceImport` of that name in every member that has the namespace,
//! with the endpoints of every member that exports it. Pure; the shell applies what is wished.
//!
//! Each import has a Service without a selector behind it, for its virtual address. Where exports differ, the
//! oldest one's word holds and every export says so (`Conflict`). A member out of reach keeps the endpoints that it
//! had last: its control plane may be away while its instances serve.

pub mod crds;

use std::collections::BTreeMap;

use gantry_api::labels;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Map, Value, json};

use crate::{group::status::set_condition, render::digest};

/// Group of the API.
pub const GROUP: &str = "multicluster.x-k8s.io";
/// Label of EndpointSlices: the imported Service.
pub const SERVICE_NAME: &str = "multicluster.kubernetes.io/service-name";
/// Label of EndpointSlices: the cluster that they come from.
pub const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";
/// Kubernetes' own: the Service of an EndpointSlice.
pub const SLICE_OF: &str = "kubernetes.io/service-name";
/// Kubernetes' own: who keeps an EndpointSlice.
pub const SLICE_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// One member, as far as one Service goes.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// The member.
    pub cluster: String,
    /// Its export, if it has one.
    pub export: Option<Export>,
    /// The Service of that name.
    pub service: Option<Value>,
    /// Its EndpointSlices, those of the endpoint-slice controller.
    pub slices: Vec<Value>,
}

/// A ServiceExport.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// When it was made: the oldest has the last word.
    pub created: Option<Timestamp>,
    /// Its generation.
    pub generation: Option<i64>,
    /// What its status says.
    pub conditions: Vec<Condition>,
    /// `spec.exportedLabels`, `spec.exportedAnnotations`.
    pub labels: Value,
    /// The latter.
    pub annotations: Value,
}

/// What every member with the namespace is to have.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// The Service for the virtual address, without a selector.
    pub derived: Value,
    /// The ServiceImport, without the address.
    pub import: Value,
    /// For its status.
    pub clusters: Vec<String>,
    /// EndpointSlices.
    pub slices: Vec<Value>,
}

/// What is to be of one Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// `None`: nobody exports it.
    pub wish: Option<Wish>,
    /// What each export's status is to say, by member.
    pub conditions: BTreeMap<String, Vec<Condition>>,
}

/// Name of the Service behind an import.
pub fn derived_name(namespace: &str, name: &str) -> String {
    format!("derived-{}", &digest(&json!([namespace, name]))[..10])
}

/// Plans one Service over the fleet.
pub fn plan(namespace: &str, name: &str, sides: &[Side], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut valid: Vec<(&Side, &Export, &Value)> = Vec::new();
    for side in sides {
        let Some(export) = &side.export else { continue };
        let why = match &side.service {
            None => Some((
                "NoService",
                format!("there is no Service {name} in namespace {namespace}"),
            )),
            Some(service) if service["spec"]["type"] == "ExternalName" => Some((
                "InvalidServiceType",
                "a Service of type ExternalName has no endpoints to export".to_owned(),
            )),
            Some(service) => {
                valid.push((side, export, service));
                None
            }
        };
        let mut conditions = export.conditions.clone();
        let ok = why.is_none();
        let (reason, message) = why.unwrap_or(("Valid", String::new()));
        let mut set = |kind: &str, status: bool, reason: &str, message: String| {
            set_condition(
                &mut conditions,
                kind,
                status,
                reason,
                message,
                export.generation,
                now,
            );
        };
        set("Valid", ok, reason, message);
        set(
            "Ready",
            ok,
            if ok { "Exported" } else { "Failed" },
            String::new(),
        );
        plan.conditions.insert(side.cluster.clone(), conditions);
    }
    valid
        .sort_by_key(|(side, export, _)| (export.created.unwrap_or(Timestamp::MAX), &side.cluster));
    let conflict = conflict(&valid);
    for (side, export, _) in &valid {
        if let Some(conditions) = plan.conditions.get_mut(&side.cluster) {
            let (is, reason, message) = match &conflict {
                Some((reasons, message)) => (true, reasons.as_str(), message.clone()),
                None => (false, "NoConflicts", String::new()),
            };
            set_condition(
                conditions,
                "Conflict",
                is,
                reason,
                message,
                export.generation,
                now,
            );
        }
    }
    if let Some((_, first, service)) = valid.first() {
        plan.wish = Some(wish(namespace, name, &valid, first, service));
    }
    plan
}

fn headless(service: &Value) -> bool {
    service["spec"]["clusterIP"] == "None"
}

/// A port as an import has it.
fn ports(service: &Value) -> Vec<Value> {
    let all = service["spec"]["ports"].as_array();
    let port = |p: &Value| {
        let mut port =
            json!({"port": p["port"], "protocol": p["protocol"].as_str().unwrap_or("TCP")});
        for field in ["name", "appProtocol"] {
            if p[field].is_string() {
                port[field] = p[field].clone();
            }
        }
        port
    };
    all.into_iter().flatten().map(port).collect()
}

/// What exports differ in: reasons, and in words whose word holds.
fn conflict(valid: &[(&Side, &Export, &Value)]) -> Option<(String, String)> {
    let ((first, export, service), rest) = valid.split_first()?;
    let sorted = |service: &Value| {
        let mut all: Vec<String> = ports(service).iter().map(Value::to_string).collect();
        all.sort();
        all
    };
    let affinity = |s: &Value| {
        s["spec"]["sessionAffinity"]
            .as_str()
            .unwrap_or("None")
            .to_owned()
    };
    let mut reasons: Vec<&str> = Vec::new();
    let mut differing: Vec<&str> = Vec::new();
    for (side, other, with) in rest {
        let before = reasons.len();
        for (reason, differs) in [
            ("PortConflict", sorted(service) != sorted(with)),
            ("TypeConflict", headless(service) != headless(with)),
            (
                "SessionAffinityConflict",
                affinity(service) != affinity(with),
            ),
            ("LabelsConflict", export.labels != other.labels),
            (
                "AnnotationsConflict",
                export.annotations != other.annotations,
            ),
        ] {
            if differs && !differing.contains(&side.cluster.as_str()) {
                differing.push(&side.cluster);
            }
            if differs && !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        debug_assert!(reasons.len() >= before);
    }
    if reasons.is_empty() {
        return None;
    }
    Some((
        reasons.join(","),
        format!(
            "{} differs from the oldest export, {}: that one's word holds, and ports are put together",
            differing.join(", "),
            first.cluster
        ),
    ))
}

fn wish(
    namespace: &str,
    name: &str,
    valid: &[(&Side, &Export, &Value)],
    first: &Export,
    service: &Value,
) -> Wish {
    // All ports; of one name the oldest export's.
    let mut all: Vec<Value> = Vec::new();
    for (_, _, service) in valid {
        for port in ports(service) {
            if !all.iter().any(|p| {
                p["name"] == port["name"]
                    || p["port"] == port["port"] && p["protocol"] == port["protocol"]
            }) {
                all.push(port);
            }
        }
    }
    let headless = headless(service);
    let derived_name = derived_name(namespace, name);
    let own = json!({labels::MANAGED_BY: labels::MANAGER, SERVICE_NAME: name});
    let affinity = service["spec"]["sessionAffinity"]
        .as_str()
        .unwrap_or("None");
    let mut derived = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": derived_name, "namespace": namespace, "labels": own},
        "spec": {"type": "ClusterIP", "ports": all, "sessionAffinity": affinity},
    });
    if headless {
        derived["spec"]["clusterIP"] = json!("None");
    }
    let mut metadata = json!({
        "name": name, "namespace": namespace, "labels": first.labels, "annotations": first.annotations,
    });
    for (field, extra) in [
        ("labels", own.clone()),
        (
            "annotations",
            json!({"multicluster.kubernetes.io/derived-service": derived_name}),
        ),
    ] {
        let mut map: Map<String, Value> = metadata[field].as_object().cloned().unwrap_or_default();
        map.extend(extra.as_object().cloned().unwrap_or_default());
        metadata[field] = Value::Object(map);
    }
    let import = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "ServiceImport",
        "metadata": metadata,
        "spec": {"type": if headless { "Headless" } else { "ClusterSetIP" }, "ports": all, "sessionAffinity": affinity},
    });
    let mut slices = Vec::new();
    let mut clusters: Vec<String> = Vec::new();
    for (side, _, _) in valid {
        clusters.push(side.cluster.clone());
        let copies = side
            .slices
            .iter()
            .map(|slice| copy(namespace, name, &side.cluster, &derived_name, slice));
        slices.extend(copies);
    }
    clusters.sort();
    slices.sort_by_key(|s: &Value| s["metadata"]["name"].to_string());
    Wish {
        derived,
        import,
        clusters,
        slices,
    }
}

/// A member's EndpointSlice as others have it: where to send, and nothing of nodes and pods that are not theirs.
fn copy(namespace: &str, name: &str, cluster: &str, derived: &str, slice: &Value) -> Value {
    let endpoint = |e: &Value| {
        let mut copy = json!({"addresses": e["addresses"]});
        for field in ["conditions", "hostname", "zone"] {
            if !e[field].is_null() {
                copy[field] = e[field].clone();
            }
        }
        copy
    };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let from = json!([cluster, slice["metadata"]["name"]]);
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{derived}-{}", &digest(&from)[..10]), "namespace": namespace,
            "labels": {
                SERVICE_NAME: name, SOURCE_CLUSTER: cluster, SLICE_OF: derived,
                SLICE_BY: labels::FIELD_MANAGER, labels::MANAGED_BY: labels::MANAGER,
            },
        },
        "addressType": slice["addressType"],
        "endpoints": endpoints.map(endpoint).collect::<Vec<_>>(),
        "ports": slice["ports"].as_array().cloned().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(cluster: &str, created: i64, service: Option<Value>, addresses: &[&str]) -> Side {
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|a| json!({"addresses": [a], "conditions": {"ready": true}, "nodeName": "n", "targetRef": {"kind": "Pod"}}))
            .collect();
        Side {
            cluster: cluster.into(),
            export: Some(Export {
                created: Some(Timestamp::from_second(created).unwrap()),
                ..Export::default()
            }),
            service,
            slices: vec![json!({
                "metadata": {"name": "cart-x1"}, "addressType": "IPv4", "endpoints": endpoints,
                "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            })],
        }
    }

    fn service(port: i32, cluster_ip: &str) -> Option<Value> {
        Some(
            json!({"spec": {"type": "ClusterIP", "clusterIP": cluster_ip, "ports": [{"name": "http", "port": port, "protocol": "TCP", "targetPort": 8080, "nodePort": 1}]}}),
        )
    }

    fn told(plan: &Plan, cluster: &str) -> Vec<String> {
        let all = plan.conditions[cluster].iter();
        all.map(|c| format!("{}={} {}", c.type_, c.status, c.reason))
            .collect()
    }

    #[test]
    fn everyone_gets_the_endpoints_of_all_who_export() {
        let sides = [
            side("bj", 2, service(80, "10.0.0.1"), &["10.2.0.1"]),
            side("sh", 1, service(80, "10.0.0.9"), &["10.1.0.1", "10.1.0.2"]),
            Side {
                cluster: "gz".into(),
                ..Side::default()
            },
        ];
        let plan = plan("shop", "cart", &sides, Timestamp::UNIX_EPOCH);
        let wish = plan.wish.as_ref().unwrap();
        assert_eq!(wish.clusters, ["bj", "sh"]);
        assert_eq!(
            wish.import["spec"],
            json!({"type": "ClusterSetIP", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}], "sessionAffinity": "None"})
        );
        assert_eq!(wish.slices.len(), 2);
        let derived = &wish.derived["metadata"]["name"];
        for slice in &wish.slices {
            let labels = &slice["metadata"]["labels"];
            assert_eq!(
                (&labels[SERVICE_NAME], &labels[SLICE_OF]),
                (&json!("cart"), derived)
            );
            assert!(
                slice["endpoints"][0]["nodeName"].is_null()
                    && slice["endpoints"][0]["targetRef"].is_null()
            );
        }
        let of = |cluster: &str| {
            let all = wish
                .slices
                .iter()
                .filter(|s| s["metadata"]["labels"][SOURCE_CLUSTER] == cluster);
            all.map(|s| s["endpoints"].as_array().unwrap().len())
                .sum::<usize>()
        };
        assert_eq!((of("sh"), of("bj")), (2, 1));
        assert_eq!(
            told(&plan, "bj"),
            [
                "Valid=True Valid",
                "Ready=True Exported",
                "Conflict=False NoConflicts"
            ]
        );
        assert!(!plan.conditions.contains_key("gz"));
    }

    #[test]
    fn what_cannot_be_exported_or_differs_is_said() {
        let external = Some(json!({"spec": {"type": "ExternalName"}}));
        // (of the second member, its conditions, of the import: clusters, first port, type)
        type Case = (
            Option<Value>,
            &'static [&'static str],
            usize,
            i32,
            &'static str,
        );
        let cases: [Case; 4] = [
            (
                None,
                &["Valid=False NoService", "Ready=False Failed"],
                1,
                80,
                "ClusterSetIP",
            ),
            (
                external,
                &["Valid=False InvalidServiceType", "Ready=False Failed"],
                1,
                80,
                "ClusterSetIP",
            ),
            (
                service(81, "10.0.0.1"),
                &[
                    "Valid=True Valid",
                    "Ready=True Exported",
                    "Conflict=True PortConflict",
                ],
                2,
                80,
                "ClusterSetIP",
            ),
            (
                service(80, "None"),
                &[
                    "Valid=True Valid",
                    "Ready=True Exported",
                    "Conflict=True TypeConflict",
                ],
                2,
                80,
                "ClusterSetIP",
            ),
        ];
        for (other, want, clusters, port, kind) in cases {
            let sides = [
                side("bj", 2, other, &["10.2.0.1"]),
                side("sh", 1, service(80, "10.0.0.9"), &["10.1.0.1"]),
            ];
            let plan = plan("shop", "cart", &sides, Timestamp::UNIX_EPOCH);
            assert_eq!(told(&plan, "bj"), want);
            let wish = plan.wish.unwrap();
            assert_eq!(
                (
                    wish.clusters.len(),
                    &wish.import["spec"]["ports"][0]["port"],
                    &wish.import["spec"]["type"]
                ),
                (clusters, &json!(port), &json!(kind))
            );
        }
        let nobody = [side("sh", 1, None, &[])];
        assert!(
            plan("shop", "cart", &nobody, Timestamp::UNIX_EPOCH)
                .wish
                .is_none()
        );
    }
}
