//! What objects use of a ResourceQuota, by the names that quotas use, and which objects a quota's
//! scopes take in: the one reckoning for the API server, which charges requests, and for the
//! controller, which counts anew.

use crate::path::At as _;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::qos::qos_class;
use crate::quantity::Quantity;

mod claims;
pub use claims::{add_resources, is_the_one, made_for};

/// Resources of which a quota's name counts the objects: group and plural.
pub const PODS: (&str, &str) = ("", "pods");
pub const CLAIMS: (&str, &str) = ("resource.k8s.io", "resourceclaims");

/// Amounts by the names of a quota.
pub type Amounts = BTreeMap<String, Quantity>;

/// Suffix of what a quota says of one storage class.
const STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
/// Where claims named their class before there was a field for it.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Core resources whose bare plural is a name of quotas too.
const BARE: [&str; 4] = [
    "configmaps",
    "secrets",
    "replicationcontrollers",
    "resourcequotas",
];

/// A quantity as it stands in JSON, where it is one.
pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// A resource list; what is no quantity is left out.
pub fn amounts(value: Option<&Value>) -> Amounts {
    value
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| Some((k.clone(), quantity(v)?)))
        .collect()
}

/// Adds one amount.
pub fn put(into: &mut Amounts, name: impl Into<String>, value: Quantity) {
    let name = name.into();
    let there = into.remove(&name);
    into.insert(name, there.map_or(value, |t| t.saturating_add(value)));
}

fn units(count: usize) -> Quantity {
    Quantity::from_milli(i64::try_from(count).map_or(i64::MAX, |c| c.saturating_mul(1000)))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .at(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value
        .at(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// The resource (group and plural) whose objects the amount `name` is made of; `None` for a name
/// that no built-in reckoning knows.
pub fn counted(name: &str) -> Option<(&str, &str)> {
    if let Some(counted) = name.strip_prefix("count/") {
        return Some(match counted.split_once('.') {
            Some((plural, group)) => (group, plural),
            None => ("", counted),
        });
    }
    if claims::counts(name) && !claims::is_resource(name) {
        return Some(CLAIMS);
    }
    if name.contains(STORAGE_CLASS) {
        return Some(("", "persistentvolumeclaims"));
    }
    if BARE.contains(&name) {
        return Some(("", name));
    }
    match name {
        "services" | "services.loadbalancers" | "services.nodeports" => Some(("", "services")),
        "persistentvolumeclaims" | "requests.storage" => Some(("", "persistentvolumeclaims")),
        "pods" | "cpu" | "memory" | "ephemeral-storage" => Some(("", "pods")),
        _ => ["requests.", "limits.", "hugepages-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            .then_some(("", "pods")),
    }
}

/// All resources whose objects the amount `name` is made of: pods ask for extended resources, and claims for the devices
/// that stand for them.
pub fn counted_all(name: &str) -> impl Iterator<Item = (&str, &str)> {
    let claims = (counted(name) == Some(PODS) && claims::is_resource(name)).then_some(CLAIMS);
    counted(name).into_iter().chain(claims)
}

/// Whether the amounts of a resource depend on what its objects say, not on their number alone.
pub fn needs_objects(group: &str, plural: &str) -> bool {
    (group, plural) == CLAIMS
        || group.is_empty() && matches!(plural, "pods" | "services" | "persistentvolumeclaims")
}

/// The name under which a quota counts the objects of a resource.
pub fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() {
        format!("count/{plural}")
    } else {
        format!("count/{plural}.{group}")
    }
}

/// What an object of the resource uses; of a claim to devices, without the resources that its classes stand for
/// ([`add_resources`]).
pub fn usage(group: &str, plural: &str, object: &Value, now: Timestamp) -> Amounts {
    let mut used = number(group, plural, 1);
    if (group, plural) == CLAIMS {
        claims::usage(object, &mut used);
    }
    if !group.is_empty() {
        return used;
    }
    match plural {
        "pods" => pod(object, now, &mut used),
        "services" => service(object, &mut used),
        "persistentvolumeclaims" => claim(object, &mut used),
        _ => {}
    }
    used
}

/// What `count` objects of a resource use, of which nothing but their number matters.
pub fn number(group: &str, plural: &str, count: usize) -> Amounts {
    let mut used = Amounts::new();
    put(&mut used, count_name(group, plural), units(count));
    if group.is_empty() && BARE.contains(&plural) {
        put(&mut used, plural, units(count));
    }
    used
}

/// A pod that has ended, or outlived the time it was given to end, uses nothing but its object.
fn pod_counts(pod: &Value, now: Timestamp) -> bool {
    if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return false;
    }
    let deleted = text(pod, "/metadata/deletionTimestamp").parse::<Timestamp>();
    let grace = pod
        .at("/metadata/deletionGracePeriodSeconds")
        .and_then(Value::as_i64);
    match (deleted, grace) {
        (Ok(at), Some(grace)) => now.as_second() <= at.as_second().saturating_add(grace),
        _ => true,
    }
}

fn pod(pod: &Value, now: Timestamp, used: &mut Amounts) {
    if !pod_counts(pod, now) {
        return;
    }
    put(used, "pods", units(1));
    for (field, prefix) in [("requests", "requests."), ("limits", "limits.")] {
        for (name, value) in pod_amounts(pod, field) {
            put(used, format!("{prefix}{name}"), value);
            let bare = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
                || name.starts_with("hugepages-");
            if field == "requests" && bare {
                put(used, name, value);
            }
        }
    }
}

fn service(service: &Value, used: &mut Amounts) {
    put(used, "services", units(1));
    let kind = text(service, "/spec/type");
    let ports = || list(service, "/spec/ports");
    let allocates = service.at("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
    let node_ports = match kind {
        "NodePort" => ports().count(),
        "LoadBalancer" if allocates => ports().count(),
        "LoadBalancer" => ports()
            .filter(|p| {
                p.get("nodePort")
                    .and_then(Value::as_i64)
                    .is_some_and(|n| n != 0)
            })
            .count(),
        _ => return,
    };
    if kind == "LoadBalancer" {
        put(used, "services.loadbalancers", units(1));
    }
    put(used, "services.nodeports", units(node_ports));
}

fn claim(claim: &Value, used: &mut Amounts) {
    put(used, "persistentvolumeclaims", units(1));
    let storage = claim
        .at("/spec/resources/requests/storage")
        .and_then(quantity);
    // While a claim grows, what was allocated counts, even if the wish was taken back.
    let allocated = claim
        .at("/status/allocatedResources/storage")
        .and_then(quantity);
    let storage = storage.map(|s| allocated.filter(|a| *a > s).unwrap_or(s));
    let class = claim
        .at("/metadata/annotations")
        .and_then(|a| a.get(OLD_CLASS))
        .and_then(Value::as_str)
        .unwrap_or_else(|| text(claim, "/spec/storageClassName"));
    if let Some(storage) = storage {
        put(used, "requests.storage", storage);
    }
    if class.is_empty() {
        return;
    }
    if let Some(storage) = storage {
        put(
            used,
            format!("{class}{STORAGE_CLASS}requests.storage"),
            storage,
        );
    }
    put(
        used,
        format!("{class}{STORAGE_CLASS}persistentvolumeclaims"),
        units(1),
    );
}

/// What a pod requests (or is limited to, by `field`) and its overhead.
fn pod_amounts(pod: &Value, field: &str) -> Amounts {
    let mut total = of_containers(pod, field);
    for (name, value) in amounts(pod.at("/spec/overhead")) {
        if total.contains_key(&name) || field == "requests" {
            put(&mut total, name, value);
        }
    }
    total
}

/// The `requests` or `limits` of a pod's containers together: the sum of those that run at once,
/// at least what the biggest init container needs beside its sidecars; or what the pod says of
/// itself as a whole.
pub fn of_containers(pod: &Value, field: &str) -> Amounts {
    let of = |containers: &str| {
        list(pod, &format!("/spec/{containers}"))
            .map(|c| {
                let restartable = text(c, "/restartPolicy") == "Always";
                (restartable, amounts(c.at(&format!("/resources/{field}"))))
            })
            .collect::<Vec<_>>()
    };
    let mut total = Amounts::new();
    for (_, container) in of("containers") {
        for (name, value) in container {
            put(&mut total, name, value);
        }
    }
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for (restartable, container) in of("initContainers") {
        for (name, value) in container {
            if restartable {
                put(&mut total, name.clone(), value);
                put(&mut sidecars, name, value);
                continue;
            }
            let beside = sidecars
                .get(&name)
                .map_or(value, |s| s.saturating_add(value));
            let high = peak.get(&name).copied().filter(|p| *p >= beside);
            peak.insert(name, high.unwrap_or(beside));
        }
    }
    for (name, value) in peak {
        let high = total.get(&name).copied().filter(|t| *t >= value);
        total.insert(name, high.unwrap_or(value));
    }
    // What the pod asks for as a whole stands in place of the sum.
    for (name, value) in amounts(pod.at(&format!("/spec/resources/{field}"))) {
        total.insert(name, value);
    }
    total
}

/// Whether a quota's scopes take an object of the resource in.
pub fn in_scope(quota: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let scopes = list(quota, "/spec/scopes")
        .filter_map(Value::as_str)
        .map(|s| (s, "Exists", Vec::new()));
    let expressions = list(quota, "/spec/scopeSelector/matchExpressions").map(|e| {
        let values = list(e, "/values").filter_map(Value::as_str).collect();
        (text(e, "/scopeName"), text(e, "/operator"), values)
    });
    let resource = (group, plural);
    scopes
        .chain(expressions)
        .all(|(scope, operator, values)| fits(resource, object, scope, operator, &values))
}

/// Whether the quota has scopes at all.
pub fn scoped(quota: &Value) -> bool {
    list(quota, "/spec/scopes").next().is_some()
        || list(quota, "/spec/scopeSelector/matchExpressions")
            .next()
            .is_some()
}

fn fits(
    resource: (&str, &str),
    object: &Value,
    scope: &str,
    operator: &str,
    values: &[&str],
) -> bool {
    let chosen = |class: &str| match operator {
        "In" => values.contains(&class),
        "NotIn" => !values.contains(&class),
        "DoesNotExist" => class.is_empty(),
        _ => !class.is_empty(),
    };
    if resource == ("", "persistentvolumeclaims") {
        // The classes that a claim wants, has, and is on its way to.
        let mut classes: Vec<&str> = [
            "/spec/volumeAttributesClassName",
            "/status/currentVolumeAttributesClassName",
            "/status/modifyVolumeStatus/targetVolumeAttributesClassName",
        ]
        .iter()
        .map(|at| text(object, at))
        .filter(|class| !class.is_empty())
        .collect();
        if classes.is_empty() {
            classes.push("");
        }
        return scope == "VolumeAttributesClass" && classes.into_iter().any(chosen);
    }
    if resource != ("", "pods") {
        return false;
    }
    let terminating = || {
        object
            .at("/spec/activeDeadlineSeconds")
            .and_then(Value::as_i64)
            .is_some_and(|s| s >= 0)
    };
    match scope {
        "BestEffort" => qos_class(object) == "BestEffort",
        "NotBestEffort" => qos_class(object) != "BestEffort",
        "Terminating" => terminating(),
        "NotTerminating" => !terminating(),
        "PriorityClass" => chosen(text(object, "/spec/priorityClassName")),
        "CrossNamespacePodAffinity" => crosses_namespaces(object),
        _ => false,
    }
}

/// Whether a pod's affinity looks into other namespaces than its own.
fn crosses_namespaces(pod: &Value) -> bool {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let crosses = |term: &Value| {
        list(term, "/namespaces").next().is_some()
            || term.get("namespaceSelector").is_some_and(|s| !s.is_null())
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let at = format!("/spec/affinity/{kind}");
        list(pod, &format!("{at}/{REQUIRED}")).any(crosses)
            || list(pod, &format!("{at}/{PREFERRED}"))
                .filter_map(|t| t.get("podAffinityTerm"))
                .any(crosses)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn told(amounts: &Amounts) -> Value {
        amounts
            .iter()
            .map(|(k, v)| (k.clone(), Value::from(v.to_string())))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    fn pod() -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "1Gi", "example.com/gpu": "2"},
                "limits": {"cpu": "1"}}},
            {"name": "d", "resources": {"requests": {"cpu": "50m"}}}],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "200m"}}},
                {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"memory": "1Gi"}}}]}})
    }

    #[test]
    fn a_pod_uses_its_sum_or_its_biggest_init_container() {
        let used = usage("", "pods", &pod(), Timestamp::UNIX_EPOCH);
        assert_eq!(
            told(&used),
            json!({"count/pods": "1", "pods": "1", "cpu": "200m", "requests.cpu": "200m", "memory": "2Gi",
                "requests.memory": "2Gi", "requests.example.com/gpu": "2", "limits.cpu": "1"})
        );
    }

    #[rstest]
    #[case::ended(json!({"status": {"phase": "Failed"}}), false)]
    #[case::leaving(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}}), true)]
    #[case::lost(json!({"metadata": {"deletionTimestamp": "2025-12-31T23:59:00Z", "deletionGracePeriodSeconds": 30}}), false)]
    fn a_pod_that_is_over_is_but_an_object(#[case] pod: Value, #[case] counts: bool) {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let used = usage("", "pods", &pod, now);
        assert_eq!(used.contains_key("pods"), counts);
        assert_eq!(used["count/pods"].to_string(), "1");
    }

    #[rstest]
    #[case(json!({"type": "ClusterIP", "ports": [{}]}), None, None)]
    #[case(json!({"type": "NodePort", "ports": [{}, {}]}), None, Some("2"))]
    #[case(json!({"type": "LoadBalancer", "ports": [{}, {}]}), Some("1"), Some("2"))]
    #[case(json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"nodePort": 30000}, {}]}), Some("1"), Some("1"))]
    fn services_count_by_type(
        #[case] spec: Value,
        #[case] balancers: Option<&str>,
        #[case] ports: Option<&str>,
    ) {
        let used = usage(
            "",
            "services",
            &json!({"spec": spec}),
            Timestamp::UNIX_EPOCH,
        );
        let get = |name: &str| used.get(name).map(ToString::to_string);
        assert_eq!(get("services.loadbalancers").as_deref(), balancers);
        assert_eq!(get("services.nodeports").as_deref(), ports);
    }

    #[test]
    fn claims_count_by_class() {
        let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "5Gi"}}},
            "status": {"allocatedResources": {"storage": "8Gi"}}});
        assert_eq!(
            told(&usage(
                "",
                "persistentvolumeclaims",
                &claim,
                Timestamp::UNIX_EPOCH
            )),
            json!({"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "8Gi",
                "fast.storageclass.storage.k8s.io/requests.storage": "8Gi",
                "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1"})
        );
    }

    #[rstest]
    #[case("count/deployments.apps", Some(("apps", "deployments")))]
    #[case("count/secrets", Some(("", "secrets")))]
    #[case("configmaps", Some(("", "configmaps")))]
    #[case("requests.storage", Some(("", "persistentvolumeclaims")))]
    #[case("gold.storageclass.storage.k8s.io/requests.storage", Some(("", "persistentvolumeclaims")))]
    #[case("limits.memory", Some(("", "pods")))]
    #[case("requests.example.com/gpu", Some(("", "pods")))]
    #[case("requests.deviceclass.resource.kubernetes.io/gpu", Some(("", "pods")))]
    #[case("gpu.deviceclass.resource.k8s.io/devices", Some(("resource.k8s.io", "resourceclaims")))]
    #[case("services.nodeports", Some(("", "services")))]
    #[case("moonbeams", None)]
    fn names_say_what_they_count(#[case] name: &str, #[case] of: Option<(&str, &str)>) {
        assert_eq!(counted(name), of);
        let also = name.starts_with("requests.") && name.contains('/');
        let all: Vec<_> = of.into_iter().chain(also.then_some(CLAIMS)).collect();
        assert_eq!(counted_all(name).collect::<Vec<_>>(), all);
    }

    #[rstest]
    #[case(json!({}), true)]
    #[case(json!({"scopes": ["NotBestEffort"]}), true)]
    #[case(json!({"scopes": ["BestEffort"]}), false)]
    #[case(json!({"scopes": ["NotTerminating", "NotBestEffort"]}), true)]
    #[case(json!({"scopes": ["CrossNamespacePodAffinity"]}), false)]
    #[case(json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "NotIn", "values": ["high"]}]}}), true)]
    #[case(json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}}), false)]
    fn scopes_choose_pods(#[case] spec: Value, #[case] takes: bool) {
        let quota = json!({"spec": spec});
        assert_eq!(in_scope(&quota, "", "pods", &pod()), takes);
        assert_eq!(
            in_scope(&quota, "", "secrets", &json!({})),
            spec_is_empty(&quota)
        );
    }

    #[rstest]
    #[case("In", &["a"], json!({"spec": {"volumeAttributesClassName": "a"}}), true)]
    #[case("In", &["a"], json!({"spec": {"volumeAttributesClassName": "b"}, "status": {"currentVolumeAttributesClassName": "a"}}), true)]
    #[case("In", &["a"], json!({"status": {"modifyVolumeStatus": {"targetVolumeAttributesClassName": "a"}}}), true)]
    #[case("In", &["a"], json!({}), false)]
    #[case("NotIn", &["a"], json!({"spec": {"volumeAttributesClassName": "b"}}), true)]
    #[case("Exists", &[], json!({}), false)]
    #[case("DoesNotExist", &[], json!({}), true)]
    fn scopes_choose_claims(
        #[case] operator: &str,
        #[case] values: &[&str],
        #[case] claim: Value,
        #[case] takes: bool,
    ) {
        let expression =
            json!({"scopeName": "VolumeAttributesClass", "operator": operator, "values": values});
        let quota = json!({"spec": {"scopeSelector": {"matchExpressions": [expression]}}});
        assert_eq!(
            in_scope(&quota, "", "persistentvolumeclaims", &claim),
            takes
        );
        assert!(!in_scope(&quota, "", "pods", &pod()));
    }

    fn spec_is_empty(quota: &Value) -> bool {
        !scoped(quota)
    }
}
