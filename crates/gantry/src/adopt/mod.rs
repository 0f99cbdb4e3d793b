//! What it would be to adopt a running workload: the App and Group that it becomes, what is written, what
//! changes for its Services, what is in the way. Pure; the hub does it.

mod words;

use std::collections::BTreeMap;

use gantry_api::group::{Adopt, AdoptKind, CellShare};
use gantry_api::{App, Group, labels};
use gantry_hub::adopt::{Found, controller, labels_of, name, obstacles, obstacles::Obstacle, uid};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::import::{Left, Manifest, Options, translate};

pub use words::{said, summary};

/// What is on the member beside the workload, in its namespace.
#[derive(Debug, Default)]
pub struct Beside {
    /// Services.
    pub services: Vec<Value>,
    /// All pods.
    pub pods: Vec<Value>,
    /// HorizontalPodAutoscalers.
    pub autoscalers: Vec<Value>,
    /// PodDisruptionBudgets.
    pub budgets: Vec<Value>,
}

/// How a workload is brought in.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The namespace, here and there.
    pub tenant: String,
    /// The cluster's cells.
    pub cells: Vec<String>,
    /// The cell of instances whose node is in none of these.
    pub cell: Option<String>,
}

/// Where a workload goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The Group.
    pub group: String,
    /// Its environment.
    pub environment: String,
    /// Where that Group has left the workload before: its App, which may be there still.
    pub left: Option<String>,
}

impl Home {
    /// Of `workload`, which is called `name`. One that selects by a Group's name can only go back to that Group: a
    /// selector is for good.
    pub fn of(workload: Option<&Value>, name: &str, environment: &str) -> Self {
        let spec = workload.map(|w| &w["spec"]).unwrap_or(&Value::Null);
        let label = |of: &Value, key: &str| of[key].as_str().map(str::to_owned);
        let Some(group) = label(&spec["selector"]["matchLabels"], labels::GROUP) else {
            return Self {
                group: group_name(name, environment),
                environment: environment.to_owned(),
                left: None,
            };
        };
        let marks = &spec["template"]["metadata"]["labels"];
        let environment = label(marks, labels::ENVIRONMENT).unwrap_or(environment.to_owned());
        let app = label(marks, labels::APP).unwrap_or_else(|| {
            let stem = group.strip_suffix(&format!("-{environment}"));
            stem.unwrap_or(&group).to_owned()
        });
        Self {
            group,
            environment,
            left: Some(app),
        }
    }
}

/// Why a workload cannot go back to its Group, where one of that name is there, or another workload goes to it.
pub fn taken(home: &Home, there: Option<&Group>, others: &[Proposal]) -> Option<Obstacle> {
    home.left.as_ref()?;
    let other = others
        .iter()
        .find(|p| p.possible() && p.group.metadata.name.as_ref() == Some(&home.group));
    let why = match (there, other) {
        (Some(_), _) => format!("group {} is there already", home.group),
        (None, Some(other)) => format!("{} goes to group {}", other.object, home.group),
        (None, None) => return None,
    };
    Some(Obstacle {
        field: "metadata.name".to_owned(),
        why,
        remedy: "a group adopts one workload: give it the other cells (spec.placement), and delete what runs there plainly once its own are in service".to_owned(),
        fatal: true,
    })
}

/// What becomes of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    pub name: String,
    /// Whether the Group keeps it from now on.
    pub taken: bool,
    /// Endpoints before; after, it has the same.
    pub endpoints: usize,
}

/// What adopting one workload comes to.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proposal {
    /// `Deployment/web`
    pub object: String,
    pub app: App,
    pub group: Group,
    /// Whether that Group has left it before; an App that is there stays as it is.
    pub again: bool,
    /// Instances by cell, all of which stay as they are.
    pub instances: BTreeMap<String, usize>,
    /// ReplicaSets that go, without their instances.
    pub replica_sets: usize,
    /// Writes on the member until it has come through.
    pub writes: usize,
    pub services: Vec<Service>,
    /// What is in the way or to know.
    pub obstacles: Vec<Obstacle>,
    #[serde(rename = "notCarriedOver")]
    pub left: Vec<Left>,
}

impl Proposal {
    /// Whether it can be adopted as it is.
    pub fn possible(&self) -> bool {
        !self.obstacles.iter().any(|o| o.fatal)
    }
}

/// The Group's name.
pub fn group_name(workload: &str, environment: &str) -> String {
    format!("{workload}-{environment}")
}

/// What adopting the workload in `found` would come to. The error names the field that cannot be read.
pub fn propose(
    kind: AdoptKind,
    found: &Found,
    beside: &Beside,
    wish: &Wish,
    home: &Home,
) -> Result<Proposal, String> {
    let workload = found.workload.as_ref().ok_or("there is no such workload")?;
    let object = format!("{}/{}", kind.as_str(), name(workload));
    let mut obstacles = obstacles::of(kind, workload, found, &home.group);
    about_others(kind, workload, beside, found, &mut obstacles);

    let ours: Vec<&str> = found.pods.iter().map(uid).collect();
    let (mut services, mut manifests) = (vec![], vec![Manifest::new(plain(workload))?]);
    for service in &beside.services {
        let Some(selected) = selected(service, &beside.pods) else {
            continue;
        };
        if !selected.iter().any(|p| ours.contains(&uid(p))) {
            continue;
        }
        let taken = selected.iter().all(|p| ours.contains(&uid(p)));
        services.push(Service {
            name: name(service).to_owned(),
            taken,
            endpoints: selected.len(),
        });
        if taken {
            manifests.push(Manifest::new(plain_service(service))?);
        }
    }
    let mut instances: BTreeMap<String, usize> = BTreeMap::new();
    let first = wish.cell.as_ref().or(wish.cells.first());
    let first = first.cloned().unwrap_or_default();
    for pod in &found.pods {
        *instances
            .entry(found.cell_of(pod, &first).to_owned())
            .or_default() += 1;
    }
    let most = instances.iter().max_by_key(|(_, n)| **n);
    let cell = wish
        .cell
        .clone()
        .or_else(|| most.map(|(cell, _)| cell.clone()));
    let cell = cell.unwrap_or(first);
    let share = |cell: &str, weight: usize| CellShare {
        name: cell.to_owned(),
        weight: i32::try_from(weight).unwrap_or(10_000).clamp(1, 10_000),
        ..CellShare::default()
    };
    // As many in each cell as there are: nothing moves.
    let mut shares: Vec<CellShare> = match kind {
        AdoptKind::StatefulSet => vec![share(&cell, 1)],
        AdoptKind::Deployment => instances.iter().map(|(c, n)| share(c, *n)).collect(),
    };
    if !shares.iter().any(|s| s.name == cell) {
        shares.push(share(&cell, 1));
    }
    let options = Options {
        tenant: wish.tenant.clone(),
        environment: home.environment.clone(),
        cells: vec![],
        replicas: None,
        stateful_sets: true,
    };
    let mut imported = translate(manifests, &options)?;
    let (Some(mut app), Some(mut group)) = (imported.apps.pop(), imported.groups.pop()) else {
        return Err(format!("{object} could not be read"));
    };
    if let Some(left) = &home.left {
        app.metadata.name = Some(left.clone());
        group.spec.app.clone_from(left);
        group.metadata.name = Some(home.group.clone());
    }
    group.spec.placement.cells = shares;
    group.spec.adopt = Some(Adopt {
        kind,
        name: name(workload).to_owned(),
        cell,
        replace: false,
    });
    for left in imported.left.iter_mut() {
        if left.object.starts_with("Service/") {
            "stays as it is on this Service; other clusters do not get it"
                .clone_into(&mut left.reason);
        }
    }
    let pods = found.pods.len();
    let sets = found.sets.len();
    Ok(Proposal {
        object,
        app,
        group,
        again: home.left.is_some(),
        replica_sets: sets,
        writes: match kind {
            // The template, the pods, the partition.
            AdoptKind::StatefulSet => pods + 2,
            // The pods; the Deployment; each ReplicaSet's mark, template and end.
            AdoptKind::Deployment => pods + 1 + 3 * sets,
        },
        instances,
        services,
        obstacles,
        left: imported.left,
    })
}

/// Pods that a Service selects; `None` where it selects by nothing.
fn selected<'a>(service: &Value, pods: &'a [Value]) -> Option<Vec<&'a Value>> {
    let selector = service["spec"]["selector"]
        .as_object()
        .filter(|s| !s.is_empty())?;
    Some(pods.iter().filter(|p| matches(selector, p)).collect())
}

fn matches(selector: &Map<String, Value>, pod: &Value) -> bool {
    let labels = labels_of(pod);
    selector.iter().all(|(k, v)| labels[k] == *v)
}

/// What others do to the workload or to its pods.
fn about_others(
    kind: AdoptKind,
    workload: &Value,
    beside: &Beside,
    found: &Found,
    obstacles: &mut Vec<Obstacle>,
) {
    for scaler in &beside.autoscalers {
        let target = &scaler["spec"]["scaleTargetRef"];
        if target["kind"] == kind.as_str() && target["name"] == name(workload) {
            obstacles.insert(
                0,
                Obstacle {
                    field: "spec.replicas".to_owned(),
                    why: format!("HorizontalPodAutoscaler/{} scales it", name(scaler)),
                    remedy: "delete it, and afterwards make one in the hub whose scaleTargetRef is the Group"
                        .to_owned(),
                    fatal: true,
                },
            );
        }
    }
    for budget in &beside.budgets {
        let selector = budget["spec"]["selector"]["matchLabels"].as_object();
        let held = selector.is_some_and(|s| found.pods.iter().any(|p| matches(s, p)));
        let own = labels_of(budget)[labels::MANAGED_BY] == labels::MANAGER;
        if held && !own {
            obstacles.push(Obstacle {
                field: "PodDisruptionBudget".to_owned(),
                why: format!(
                    "PodDisruptionBudget/{} covers its pods, and the group brings one of its own",
                    name(budget)
                ),
                remedy: "delete the old one right after: a pod with two budgets cannot be evicted"
                    .to_owned(),
                fatal: false,
            });
        }
    }
}

/// A workload as its author wrote it, as far as a server's defaults and tools' marks can be told from that.
fn plain(workload: &Value) -> Value {
    let mut plain = workload.clone();
    if let Some(annotations) = plain["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|k, _| {
            !k.starts_with("meta.helm.sh/") && !k.starts_with("argocd.argoproj.io/")
        });
    }
    if let Some(labels) = plain["metadata"]["labels"].as_object_mut() {
        labels.retain(|k, _| {
            k != "app.kubernetes.io/managed-by" && !k.starts_with("kustomize.toolkit.fluxcd.io/")
        });
    }
    let spec = &mut plain["spec"];
    if let Some(spec) = spec.as_object_mut() {
        // These stay on a StatefulSet that is kept; of an App they are nothing.
        for field in [
            "serviceName",
            "podManagementPolicy",
            "updateStrategy",
            "volumeClaimTemplates",
            "persistentVolumeClaimRetentionPolicy",
            "ordinals",
            "paused",
        ] {
            spec.remove(field);
        }
    }
    if let Some(metadata) = spec["template"]["metadata"].as_object_mut() {
        metadata.remove("creationTimestamp");
    }
    // What a Group puts on its instances is no part of an App.
    if let Some(marks) = spec["template"]["metadata"]["labels"].as_object_mut() {
        marks.retain(|key, _| !key.starts_with("gantry.dev/"));
    }
    plain
}

fn plain_service(service: &Value) -> Value {
    let mut plain = service.clone();
    if let Some(annotations) = plain["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|k, _| !k.starts_with("meta.helm.sh/"));
    }
    if let Some(spec) = plain["spec"].as_object_mut() {
        let headless = spec.get("clusterIP").is_some_and(|ip| ip == "None");
        if !headless {
            spec.remove("clusterIP");
        }
        for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.remove(field);
        }
        for (field, default) in [
            ("internalTrafficPolicy", "Cluster"),
            ("externalTrafficPolicy", "Cluster"),
            ("type", "ClusterIP"),
        ] {
            if spec.get(field).is_some_and(|v| v == default) {
                spec.remove(field);
            }
        }
        if spec.get("allocateLoadBalancerNodePorts") == Some(&Value::Bool(true)) {
            spec.remove("allocateLoadBalancerNodePorts");
        }
    }
    plain
}

/// Workloads that nothing else controls, of a list.
pub fn uncontrolled(list: Vec<Value>) -> Vec<Value> {
    list.into_iter()
        .filter(|o| controller(o).is_none())
        .collect()
}

#[cfg(test)]
mod tests;
