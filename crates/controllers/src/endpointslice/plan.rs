//! The planner of EndpointSlices: endpoints out of a Service and its pods, laid into slices with as
//! few writes as possible.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::hints::{self, Ready, Shares};
use crate::model::network::{
    Endpoint, EndpointConditions, EndpointPort, EndpointSlice, Hints, MANAGED_BY, Named,
    SERVICE_NAME, Service, ServicePort, TargetRef,
};
use crate::model::{Labels, Owner, Pod, SERVICES};

/// Value of [`MANAGED_BY`] on slices of this controller.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Endpoints a slice holds at most.
pub const PER_SLICE: usize = 100;
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Annotation of a slice: when the first of the changes happened that it was the first to tell.
pub const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

pub struct World<'a> {
    pub service: &'a Service,
    /// The pods that its selector selects.
    pub pods: &'a [Arc<Pod>],
    /// The slices of this Service that this controller manages.
    pub slices: &'a [Arc<EndpointSlice>],
    /// The zone of a node, if it tells one; nothing where there is no such node.
    pub zone_of: &'a dyn Fn(&str) -> Option<Option<String>>,
    /// The shares of zones, where the Service asks for hints by them.
    pub shares: Option<&'a Shares>,
}

/// Something to be told in an event about the Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Whole objects.
    pub create: Vec<Value>,
    /// A slice, and the fields to merge into it.
    pub update: Vec<(Arc<EndpointSlice>, Value)>,
    pub delete: Vec<Arc<EndpointSlice>>,
    pub told: Vec<Told>,
    /// Pods on nodes that are not there (yet), in Kubernetes' words.
    pub lost: Vec<String>,
}

pub type Ports = Vec<EndpointPort>;

pub fn plan(world: &World<'_>) -> Plan {
    let mut plan = Plan::default();
    let families = families(world.service);
    for slice in world.slices {
        let of_no_use = !families.contains(&slice.address_type.as_str());
        if of_no_use && slice.metadata.deleted.is_none() {
            plan.delete.push(slice.clone());
        }
    }
    for family in families {
        plan_family(world, family, &mut plan);
    }
    plan
}

pub fn families(service: &Service) -> Vec<&'static str> {
    let mut families: Vec<&'static str> = service
        .spec
        .ip_families
        .iter()
        .map(|f| if f == "IPv6" { "IPv6" } else { "IPv4" })
        .collect();
    if families.is_empty() {
        families.push(if service.spec.cluster_ip.contains(':') {
            "IPv6"
        } else {
            "IPv4"
        });
    }
    families
}

/// Whether a pod is on a node that is not there. Nobody is to be sent to it, but where that does not depend on
/// its state.
fn lost(world: &World<'_>, pod: &Pod) -> bool {
    let node = pod.node.as_deref();
    !world.service.spec.publish_not_ready_addresses
        && node.is_some_and(|node| (world.zone_of)(node).is_none())
}

/// Whether a slice is this very Service's, and not that of one that had its name before.
fn owned(slice: &EndpointSlice, service: &Service) -> bool {
    let owners = &slice.metadata.owners;
    owners
        .iter()
        .any(|o| o.uid == service.metadata.uid && &*o.kind == "Service" && &*o.api_version == "v1")
}

fn plan_family(world: &World<'_>, family: &'static str, plan: &mut Plan) {
    // Endpoints by the ports they serve: a named target port may differ from pod to pod.
    let mut desired: BTreeMap<Ports, BTreeMap<String, Endpoint>> = BTreeMap::new();
    for pod in world.pods {
        if let Some(endpoint) = endpoint(world, pod, family) {
            let group = desired.entry(ports(world.service, pod)).or_default();
            if lost(world, pod) {
                plan.lost.push(why_lost(world.service, pod));
                continue;
            }
            let key = format!("{}/{}", pod.meta.namespace, pod.meta.uid);
            group.insert(key, endpoint);
        }
    }
    let mut change = Change::default();
    let mut existing: BTreeMap<Ports, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    let mut count = 0;
    for slice in world.slices {
        if slice.address_type != family || slice.metadata.deleted.is_some() {
            continue;
        }
        count += 1;
        if owned(slice, world.service) {
            let mut ports = slice.ports.clone();
            ports.sort();
            existing.entry(ports).or_default().push(slice);
        } else {
            change.delete.push(slice);
        }
    }
    if let Some(shares) = world.shares {
        plan.told.extend(hint(world, family, shares, &mut desired));
    }
    let labels = labels(world.service);
    for (ports, slices) in &existing {
        if !desired.contains_key(ports) {
            change.delete.extend(slices);
        }
    }
    for (ports, endpoints) in desired {
        let slices = existing.remove(&ports).unwrap_or_default();
        lay(&labels, &ports, endpoints, slices, &mut change);
    }
    if count == change.delete.len() && change.create.is_empty() {
        // A Service nobody serves still has one slice, which says so.
        let says_so = matches!(&*change.delete, [one] if one.ports.is_empty()
            && one.endpoints.is_empty()
            && one.metadata.labels == labels
            && owned(one, world.service));
        if says_so {
            change.delete.clear();
        } else {
            change.create.push((Vec::new(), Vec::new()));
        }
    }
    carry_over(world, family, &labels, change, plan);
}

fn why_lost(service: &Service, pod: &Pod) -> String {
    format!(
        "skipping Pod {} for Service {}: Node {} Not Found",
        pod.meta.name,
        service.metadata.key(),
        pod.node.as_deref().unwrap_or_default()
    )
}

/// What changes among the slices of one family.
#[derive(Default)]
struct Change<'a> {
    create: Vec<(Ports, Vec<Endpoint>)>,
    update: Vec<(&'a Arc<EndpointSlice>, Vec<Endpoint>)>,
    delete: Vec<&'a Arc<EndpointSlice>>,
}

/// Writes changes into the plan. Slices that would go become those that would be new.
fn carry_over(
    world: &World<'_>,
    family: &str,
    labels: &Labels,
    mut change: Change<'_>,
    plan: &mut Plan,
) {
    let trigger = trigger(world);
    let fields = |slice: &EndpointSlice, endpoints: &[Endpoint]| {
        let mut merged = labels.to_json();
        for (key, _) in slice.metadata.labels.iter() {
            if labels.get(key).is_none() {
                merged[key] = Value::Null;
            }
        }
        json!({
            "metadata": {"uid": &*slice.metadata.uid, "labels": merged,
                "annotations": {LAST_CHANGE: &trigger}},
            "endpoints": endpoints,
        })
    };
    for (slice, endpoints) in change.update {
        plan.update.push((slice.clone(), fields(slice, &endpoints)));
    }
    for slice in change.delete {
        let reused = owned(slice, world.service).then(|| change.create.pop());
        match reused.flatten() {
            Some((ports, endpoints)) => {
                let mut fields = fields(slice, &endpoints);
                fields["ports"] = json!(ports);
                plan.update.push((slice.clone(), fields));
            }
            None => plan.delete.push(slice.clone()),
        }
    }
    if world.service.metadata.deleted.is_some() {
        // The garbage collector is about to remove the slices.
        return;
    }
    for (ports, endpoints) in change.create {
        plan.create.push(object(
            world.service,
            family,
            labels,
            trigger.as_deref(),
            &ports,
            &endpoints,
        ));
    }
}

/// Hints ready endpoints by the shares of zones, and says whether that could be done.
fn hint(
    world: &World<'_>,
    family: &str,
    shares: &Shares,
    desired: &mut BTreeMap<Ports, BTreeMap<String, Endpoint>>,
) -> Option<Told> {
    let mut before: BTreeMap<String, String> = BTreeMap::new();
    for endpoint in world
        .slices
        .iter()
        .filter(|it| it.address_type == family)
        .flat_map(|it| &it.endpoints)
    {
        let zone = endpoint.hints.as_ref().and_then(|it| it.for_zones.first());
        if let (Some(target), Some(zone)) = (&endpoint.target_ref, zone) {
            before.insert(
                format!("{}/{}", target.namespace, target.uid),
                zone.name.clone(),
            );
        }
    }
    let mut ready: Vec<(&String, &mut Endpoint)> = desired
        .values_mut()
        .flatten()
        .filter(|(_, it)| it.conditions.ready == Some(true))
        .collect();
    let known: Vec<Ready<'_>> = ready
        .iter()
        .map(|(key, it)| Ready {
            zone: it.zone.as_deref(),
            hinted: before.get(*key).map(String::as_str),
        })
        .collect();
    match hints::hints(&known, shares) {
        Ok(zones) => {
            for ((_, endpoint), zone) in ready.iter_mut().zip(zones) {
                endpoint.hints = Some(Hints {
                    for_zones: vec![Named { name: zone }],
                    ..Hints::default()
                });
            }
            before.is_empty().then(|| Told {
                warning: false,
                reason: "TopologyAwareHintsEnabled",
                message: format!("Topology Aware Hints has been enabled, addressType: {family}"),
            })
        }
        Err(why) => Some(Told {
            warning: true,
            reason: "TopologyAwareHintsDisabled",
            message: format!("{why}, addressType: {family}"),
        }),
    }
}

/// Lays endpoints of equal ports into slices: changed ones stay where they are, new ones fill the
/// slices that are written anyway; what is left goes into new slices, the last of it into a slice
/// that has room for all of it.
fn lay<'a>(
    labels: &Labels,
    ports: &Ports,
    mut endpoints: BTreeMap<String, Endpoint>,
    mut slices: Vec<&'a Arc<EndpointSlice>>,
    change: &mut Change<'a>,
) {
    slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let (mut written, mut same) = (Vec::new(), Vec::new());
    for slice in slices {
        let mut stay = Vec::with_capacity(slice.endpoints.len());
        let mut changed = false;
        for old in &slice.endpoints {
            let key = old
                .target_ref
                .as_ref()
                .map(|t| format!("{}/{}", t.namespace, t.uid));
            match key.and_then(|k| endpoints.remove(&k)) {
                Some(new) => {
                    changed |= new != *old;
                    stay.push(new);
                }
                None => changed = true,
            }
        }
        if changed && stay.is_empty() {
            change.delete.push(slice);
        } else if changed || slice.metadata.labels != *labels {
            written.push((slice, stay));
        } else {
            same.push(slice);
        }
    }
    let mut waiting = endpoints.into_values();
    written.sort_by_key(|(_, stay)| std::cmp::Reverse(stay.len()));
    for (slice, mut stay) in written {
        let room = PER_SLICE.saturating_sub(stay.len());
        stay.extend(waiting.by_ref().take(room));
        change.update.push((slice, stay));
    }
    while waiting.len() > 0 {
        let left = waiting.len();
        // The fullest that has room for all: one write.
        let fits = |s: &Arc<EndpointSlice>| s.endpoints.len() + left <= PER_SLICE;
        let fullest = (0..same.len())
            .filter(|at| left < PER_SLICE && fits(same[*at]))
            .max_by_key(|at| (same[*at].endpoints.len(), std::cmp::Reverse(*at)));
        match fullest {
            Some(at) => {
                let slice = same.remove(at);
                let all = slice.endpoints.iter().cloned().chain(waiting.by_ref());
                change.update.push((slice, all.collect()));
            }
            None => {
                let some = waiting.by_ref().take(PER_SLICE).collect();
                change.create.push((ports.clone(), some));
            }
        }
    }
}

fn object(
    service: &Service,
    family: &str,
    labels: &Labels,
    trigger: Option<&str>,
    ports: &Ports,
    endpoints: &[Endpoint],
) -> Value {
    let ports: Vec<Value> = ports.iter().map(|p| json!(p)).collect();
    let mut object = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", service.metadata.name),
            "namespace": &*service.metadata.namespace,
            "labels": labels.to_json(),
            "ownerReferences": [Owner::controller_json(&SERVICES, &service.metadata)],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    });
    if let Some(at) = trigger {
        object["metadata"]["annotations"] = json!({LAST_CHANGE: at});
    }
    object
}

/// When the first of the changes happened that slices written now are the first to tell: the Service came, or a
/// pod became ready or not ready after what was told last.
fn trigger(world: &World<'_>) -> Option<String> {
    let told = |slice: &Arc<EndpointSlice>| {
        let noted = slice.metadata.annotations.get(LAST_CHANGE);
        noted
            .and_then(|text| text.parse::<Timestamp>().ok())
            .or(slice.metadata.created)
    };
    let at = match world.slices.iter().filter_map(told).max() {
        None => world.service.metadata.created,
        Some(told) => {
            let changes = world.pods.iter().filter_map(|p| p.ready_since);
            changes.filter(|at| *at > told).min()
        }
    };
    at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The Service's labels, and those that say whose slice it is.
fn labels(service: &Service) -> Labels {
    let reserved = [SERVICE_NAME, MANAGED_BY, HEADLESS];
    let own: Labels = service
        .metadata
        .labels
        .iter()
        .filter(|(k, _)| !reserved.contains(k))
        .collect();
    let labels = own
        .with(SERVICE_NAME, &service.metadata.name)
        .with(MANAGED_BY, MANAGER);
    if service.spec.cluster_ip == "None" {
        labels.with(HEADLESS, "")
    } else {
        labels
    }
}

fn endpoint(world: &World<'_>, pod: &Pod, family: &str) -> Option<Endpoint> {
    let service = world.service;
    if pod.finished() {
        return None;
    }
    let addresses: Vec<String> = pod
        .ips
        .iter()
        .filter(|ip| matches!(ip, IpAddr::V6(_)) == (family == "IPv6"))
        .map(IpAddr::to_string)
        .collect();
    if addresses.is_empty() {
        return None;
    }
    let terminating = pod.terminating();
    let ready = service.spec.publish_not_ready_addresses || (pod.ready && !terminating);
    let zone = pod.node.as_deref().and_then(world.zone_of).flatten();
    let node = pod.node.as_deref();
    let hints =
        distributed(service, zone.as_deref(), node).filter(|_| ready && world.shares.is_none());
    Some(Endpoint {
        addresses,
        conditions: EndpointConditions {
            ready: Some(ready),
            serving: Some(pod.ready),
            terminating: Some(terminating),
        },
        hostname: (!pod.hostname.is_empty() && *pod.subdomain == *service.metadata.name)
            .then(|| pod.hostname.to_string()),
        target_ref: Some(TargetRef {
            kind: "Pod".into(),
            namespace: pod.meta.namespace.to_string(),
            name: pod.meta.name.to_string(),
            uid: pod.meta.uid.to_string(),
        }),
        node_name: pod.node.as_deref().map(str::to_owned),
        zone,
        hints,
    })
}

/// The hints of `trafficDistribution`. Whoever prefers the same node is told the zone, too, as the next best.
fn distributed(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<Hints> {
    let named = |it: Option<&str>| {
        it.map(|name| Named {
            name: name.to_owned(),
        })
        .into_iter()
        .collect()
    };
    match service.spec.traffic_distribution.as_str() {
        "PreferClose" | "PreferSameZone" => zone.map(|zone| Hints {
            for_zones: named(Some(zone)),
            for_nodes: vec![],
        }),
        "PreferSameNode" => node.map(|node| Hints {
            for_zones: named(zone),
            for_nodes: named(Some(node)),
        }),
        _ => None,
    }
}

/// The ports that a pod serves for a Service. A named target port that the pod does not have is
/// left out.
pub fn ports(service: &Service, pod: &Pod) -> Ports {
    let ports: BTreeSet<EndpointPort> = service
        .spec
        .ports
        .iter()
        .filter_map(|port| {
            Some(EndpointPort {
                name: port.name.clone(),
                port: Some(target(port, pod)?),
                protocol: protocol(port).to_owned(),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.into_iter().collect()
}

fn protocol(port: &ServicePort) -> &str {
    if port.protocol.is_empty() {
        "TCP"
    } else {
        &port.protocol
    }
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(n)) => Some(*n),
        Some(IntOrString::String(name)) => pod
            .named_ports
            .iter()
            .find(|p| *p.name == **name && *p.protocol == *protocol(port))
            .map(|p| p.container_port),
    }
}

/// Whether a change of a pod can change its endpoint.
pub fn matters(old: &Pod, new: &Pod) -> bool {
    old.ready != new.ready
        || old.ips != new.ips
        || old.node != new.node
        || old.meta.deleted.is_some() != new.meta.deleted.is_some()
        || old.finished() != new.finished()
        || old.meta.labels != new.meta.labels
        || old.hostname != new.hostname
        || old.subdomain != new.subdomain
        || old.named_ports != new.named_ports
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
