//! `gantry schedule --dry-run`: where pods would go, and how many more like them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgAction, Args};
use gantry_scheduler::core::object::Pod;
use gantry_scheduler::core::{Cluster, Decision};
use gantry_scheduler::snapshot;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Serialize;
use serde_json::{Value, json};

use super::claims::{Claims, Templates};
use super::profiles;
use crate::cli::Global;
use crate::commands::import::{text, unreadable};
use crate::connect::{connect, failed};
use crate::failure::{Failure, Result};
use crate::import::values;
use crate::output::{Format, print, print_value, println, table};

/// Further pods tried at most.
const MOST: usize = 100_000;

/// Say where pods would be placed, without making them.
///
/// Pods, and the pods of Deployments, StatefulSets, ReplicaSets and Jobs, are placed one after another
/// on the cluster as it is. For each kind: how many more like it would fit, and what runs out first.
/// Claims to volumes and devices are made for them, of templates in the manifests and in the cluster; claims in the
/// manifests count as there.
#[derive(Debug, Args)]
pub struct Schedule {
    /// Only say; there is no other way yet: pods are made by whoever owns them
    #[arg(long, required = true)]
    pub dry_run: bool,
    /// Manifests, YAML or JSON; - reads standard input; may be repeated
    #[arg(short, long = "filename", value_name = "FILE", required = true, action = ArgAction::Append)]
    pub filename: Vec<PathBuf>,
    /// Namespace of what names none [default: that of the context]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Profiles from a KubeSchedulerConfiguration [default: kube-scheduler's default profile]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// Pods of one manifest.
struct Workload {
    name: String,
    pods: Vec<Pod>,
    /// What would be made for them.
    claims: Claims,
}

/// What of the cluster pods are made with.
#[derive(Default)]
struct Known {
    priorities: BTreeMap<String, (i32, Option<String>)>,
    templates: Templates,
}

/// What became of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    workload: String,
    pods: usize,
    placed: usize,
    /// Pods by node.
    nodes: BTreeMap<String, usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unschedulable: Option<String>,
    /// How many more would fit after all of them; absent where pods have claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<usize>,
    /// The count was not tried further.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    at_least: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    runs_out_first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<String>,
}

pub async fn run(args: Schedule, global: &Global) -> Result<()> {
    let connection = connect(global).await?;
    let namespace = args.namespace.as_ref().unwrap_or(&connection.namespace);
    let mut known = Known {
        priorities: priorities(&connection.client).await?,
        templates: Templates::read(&connection.client).await?,
    };
    let mut given = Claims::default();
    let mut manifests = Vec::new();
    for file in &args.filename {
        for manifest in values(&text(file)?).map_err(|e| unreadable(file, &e))? {
            let taken = known.templates.take(&manifest, namespace, &mut given);
            if !taken.map_err(|e| unreadable(file, &e))? {
                manifests.push((file, manifest));
            }
        }
    }
    let mut workloads = Vec::new();
    for (file, manifest) in manifests {
        let workload = workload(manifest, namespace, &known);
        workloads.extend(workload.map_err(|e| unreadable(file, &e))?);
    }
    if workloads.is_empty() {
        return Err(Failure::usage("the manifests have no pods"));
    }
    let mut snapshot = snapshot(&connection.client, profiles(args.config.as_deref())?)
        .await
        .map_err(|e| failed(&e.to_string(), e.source))?;
    given.tell(&mut snapshot.cluster);
    let outcomes = place(snapshot.cluster, &workloads);
    if args.output != Format::Table {
        return print_value(&outcomes, args.output);
    }
    show(&outcomes)
}

/// Values and preemption policies of priority classes by name; the global default under the empty name.
async fn priorities(client: &Client) -> Result<BTreeMap<String, (i32, Option<String>)>> {
    let list = Api::<PriorityClass>::all(client.clone());
    let list = list.list(&ListParams::default()).await;
    let list = list.map_err(|e| failed("cannot list priority classes", e))?;
    let mut all = BTreeMap::new();
    for class in list.items {
        let entry = (class.value.unwrap_or_default(), class.preemption_policy);
        if class.global_default == Some(true) {
            all.insert(String::new(), entry.clone());
        }
        all.insert(class.metadata.name.unwrap_or_default(), entry);
    }
    Ok(all)
}

/// The pods of a manifest; none where it makes none.
fn workload(
    mut manifest: Value,
    namespace: &str,
    known: &Known,
) -> Result<Option<Workload>, String> {
    let kind = manifest["kind"].as_str().unwrap_or_default().to_owned();
    let name = manifest["metadata"]["name"]
        .as_str()
        .unwrap_or("unnamed")
        .to_owned();
    let sets = manifest["spec"]["volumeClaimTemplates"].take();
    let sets = sets.as_array().map(Vec::as_slice).unwrap_or_default();
    let count = |field: &str| manifest["spec"][field].as_u64().unwrap_or(1);
    let (count, mut template) = match kind.as_str() {
        "Pod" => (1, manifest.take()),
        "Deployment" | "StatefulSet" | "ReplicaSet" | "ReplicationController" => {
            let namespace = manifest["metadata"]["namespace"].clone();
            let count = count("replicas");
            let mut template = manifest["spec"]["template"].take();
            template["metadata"]["namespace"] = namespace;
            (count, template)
        }
        "Job" => {
            let namespace = manifest["metadata"]["namespace"].clone();
            let count = count("parallelism");
            let mut template = manifest["spec"]["template"].take();
            template["metadata"]["namespace"] = namespace;
            (count, template)
        }
        _ => return Ok(None),
    };
    if template["metadata"]["namespace"].as_str().is_none() {
        template["metadata"]["namespace"] = json!(namespace);
    }
    admit(&mut template, &known.priorities)?;
    let id = format!("{kind}/{name}");
    let mut workload = Workload {
        name: id.clone(),
        pods: Vec::new(),
        claims: Claims::default(),
    };
    for i in 0..count {
        let mut pod = template.clone();
        if kind != "Pod" {
            pod["metadata"]["name"] = json!(format!("{name}-{i}"));
        }
        pod["metadata"]["uid"] = json!(format!("dry-run/{id}/{i}"));
        let made = known.templates.make(&mut pod, sets, &mut workload.claims);
        made.map_err(|e| format!("{id}: {e}"))?;
        let pod = serde_json::from_value(pod).map_err(|e| format!("{id}: {e}"))?;
        workload.pods.push(pod);
    }
    Ok(Some(workload))
}

/// What the API server would fill in that scheduling reads: requests from limits, priority from its class.
fn admit(pod: &mut Value, classes: &BTreeMap<String, (i32, Option<String>)>) -> Result<(), String> {
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let Some(limits) = container["resources"]["limits"].as_object().cloned() else {
                continue;
            };
            for (name, limit) in limits {
                let request = &mut container["resources"]["requests"][name];
                if request.is_null() {
                    *request = limit;
                }
            }
        }
    }
    let spec = &mut pod["spec"];
    let class = spec["priorityClassName"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if spec["priority"].is_null() {
        match classes.get(&class) {
            Some((value, policy)) => {
                spec["priority"] = json!(value);
                if spec["preemptionPolicy"].is_null() {
                    spec["preemptionPolicy"] = json!(policy);
                }
            }
            None if class.is_empty() => {}
            None => return Err(format!("there is no PriorityClass {class}")),
        }
    }
    Ok(())
}

fn place(mut cluster: Cluster, workloads: &[Workload]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for workload in workloads {
        let mut outcome = Outcome {
            workload: workload.name.clone(),
            pods: workload.pods.len(),
            placed: 0,
            nodes: BTreeMap::new(),
            unschedulable: None,
            more: None,
            at_least: false,
            runs_out_first: None,
            then: None,
        };
        workload.claims.tell(&mut cluster);
        for pod in &workload.pods {
            let class = cluster.classify(pod);
            match cluster.decide(class) {
                Decision::Place(node) => {
                    let name = cluster.node_name(node).to_owned();
                    let uid: Arc<str> = pod.uid().into();
                    cluster.assume_volumes(class, &name);
                    cluster.commit(&uid, class, node);
                    cluster.settle_devices(&uid);
                    *outcome.nodes.entry(name).or_default() += 1;
                    outcome.placed += 1;
                }
                Decision::Unschedulable(diagnosis) => {
                    outcome.unschedulable = Some(diagnosis.message)
                }
            }
        }
        outcomes.push(outcome);
    }
    for (outcome, workload) in outcomes.iter_mut().zip(workloads) {
        let Some(pod) = workload.pods.first().filter(|p| {
            p.spec.resource_claims.is_empty()
                && p.spec
                    .volumes
                    .iter()
                    .all(|v| v.persistent_volume_claim.is_none() && v.ephemeral.is_none())
        }) else {
            continue;
        };
        let class = cluster.classify(pod);
        let forecast = cluster.forecast(class, MOST);
        outcome.more = Some(forecast.more);
        outcome.at_least = forecast.bounded;
        outcome.runs_out_first = forecast
            .binding
            .map(|r| cluster.resource_name(r).to_owned());
        outcome.then = forecast.ends.map(|d| d.summary);
    }
    outcomes
}

fn show(outcomes: &[Outcome]) -> Result<()> {
    let rows = outcomes.iter().map(|o| {
        let more = o
            .more
            .map_or_else(|| "-".to_owned(), |more| more.to_string());
        let least = if o.at_least { "≥" } else { "" };
        vec![
            o.workload.clone(),
            format!("{}/{}", o.placed, o.pods),
            o.nodes.len().to_string(),
            format!("{least}{more}"),
            o.runs_out_first.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    print(&table(
        &[
            "WORKLOAD",
            "PLACED",
            "NODES",
            "MORE LIKE IT",
            "RUNS OUT FIRST",
        ],
        rows.collect(),
    ))?;
    for outcome in outcomes {
        println(format!("\n{}", outcome.workload))?;
        for (node, pods) in outcome.nodes.iter().take(SHOWN) {
            println(format!("  {pods} on {node}"))?;
        }
        if outcome.nodes.len() > SHOWN {
            println(format!(
                "  … and {} nodes more (-o yaml shows all)",
                outcome.nodes.len() - SHOWN
            ))?;
        }
        if let Some(message) = &outcome.unschedulable {
            println(format!("  the rest fits nowhere: {message}"))?;
        }
        if let (Some(more), Some(then)) = (outcome.more, &outcome.then) {
            println(format!("  after {more} more: {then}"))?;
        }
    }
    Ok(())
}

/// Nodes shown of each workload.
const SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_make_pods_as_the_api_server_would_admit_them() {
        let classes = Known {
            priorities: [("high".to_owned(), (100, Some("Never".to_owned())))].into(),
            ..Known::default()
        };
        let deployment = json!({"kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 3, "template":
            {"metadata": {"labels": {"app": "web"}}, "spec": {"priorityClassName": "high", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}}]}}}});
        let made = workload(deployment, "shop", &classes).unwrap().unwrap();
        assert_eq!((made.name.as_str(), made.pods.len()), ("Deployment/web", 3));
        let pod = &made.pods[2];
        assert_eq!(pod.key(), "shop/web-2");
        let requests = &pod.spec.containers[0].resources.as_ref().unwrap().requests;
        assert_eq!(
            (requests["cpu"].0.as_str(), requests["memory"].0.as_str()),
            ("1", "1Gi")
        );
        assert_eq!(
            (pod.spec.priority, pod.spec.preemption_policy.as_deref()),
            (Some(100), Some("Never"))
        );
        assert!(
            workload(json!({"kind": "Service"}), "shop", &classes)
                .unwrap()
                .is_none()
        );
        let unknown =
            json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"priorityClassName": "low"}});
        assert!(
            workload(unknown, "shop", &classes)
                .unwrap_err_text()
                .contains("low")
        );
    }

    trait ErrText {
        fn unwrap_err_text(self) -> String;
    }

    impl ErrText for Result<Option<Workload>, String> {
        fn unwrap_err_text(self) -> String {
            match self {
                Ok(_) => panic!("it was accepted"),
                Err(text) => text,
            }
        }
    }

    #[test]
    fn what_fits_is_placed_and_what_runs_out_is_named() {
        let mut cluster = Cluster::new();
        for name in ["n1", "n2"] {
            let node = json!({"metadata": {"name": name}, "status":
                {"allocatable": {"cpu": "4", "memory": "64Gi", "pods": "110"}}});
            cluster.upsert_node(&serde_json::from_value(node).unwrap());
        }
        let template = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}});
        let sized = |replicas: usize| {
            let manifest = json!({"kind": "Deployment", "metadata": {"name": "web"},
                "spec": {"replicas": replicas, "template": template}});
            workload(manifest, "shop", &Known::default())
                .unwrap()
                .unwrap()
        };
        let outcomes = place(cluster, &[sized(3)]);
        let outcome = &outcomes[0];
        assert_eq!(
            (outcome.placed, outcome.more, outcome.at_least),
            (3, Some(5), false)
        );
        assert_eq!(outcome.runs_out_first.as_deref(), Some("cpu"));
        assert_eq!(outcome.nodes.values().sum::<usize>(), 3);
        assert!(
            outcome
                .then
                .as_deref()
                .unwrap()
                .contains("2 Insufficient cpu")
        );
    }

    /// Two nodes of one device each; a template of claims to one, a claim to one, and a class of volumes that are made late.
    fn with_devices() -> (Cluster, Known, Claims) {
        let mut cluster = Cluster::new();
        for name in ["n1", "n2"] {
            let node = json!({"metadata": {"name": name}, "status":
                {"allocatable": {"cpu": "4", "memory": "64Gi", "pods": "110"}}});
            cluster.upsert_node(&serde_json::from_value(node).unwrap());
            let slice = json!({"metadata": {"name": name}, "spec": {"driver": "gpu.io", "nodeName": name,
                "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "gpu-0"}]}});
            let slice = serde_json::from_value(slice).unwrap();
            cluster.change_devices(|d, symbols| d.set_slice(&slice, symbols));
        }
        let class = json!({"metadata": {"name": "gpu"}, "spec": {}});
        let class = serde_json::from_value(class).unwrap();
        cluster.change_devices(|d, symbols| d.set_class(&class, symbols));
        let late = json!({"metadata": {"name": "late"}, "provisioner": "disks.io", "volumeBindingMode": "WaitForFirstConsumer"});
        let late = serde_json::from_value(late).unwrap();
        cluster.change_volumes(|v, symbols| v.set_class(&late, symbols));
        let (mut known, mut given) = (Known::default(), Claims::default());
        let devices = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}});
        for manifest in [
            json!({"kind": "ResourceClaimTemplate", "metadata": {"name": "one"}, "spec": {"spec": devices}}),
            json!({"kind": "ResourceClaim", "metadata": {"name": "shared"}, "spec": devices}),
        ] {
            assert!(known.templates.take(&manifest, "shop", &mut given).unwrap());
        }
        given.tell(&mut cluster);
        (cluster, known, given)
    }

    /// What is asked of a workload's three pods, how many are placed, on how many nodes, and why no more.
    #[test]
    fn claims_are_made_for_the_pods_that_are_tried() {
        let volume = json!({"metadata": {"name": "data"}, "spec": {"storageClassName": "late",
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        let by_template = json!([{"name": "g", "resourceClaimTemplateName": "one"}]);
        let shared = json!([{"name": "g", "resourceClaimName": "shared"}]);
        let ephemeral = json!([{"name": "e", "ephemeral": {"volumeClaimTemplate": volume}}]);
        for (what, spec, sets, placed, nodes, why) in [
            (
                "a device each",
                json!({"resourceClaims": by_template}),
                json!([]),
                2,
                2,
                Some("cannot allocate all claims"),
            ),
            (
                "a device shared",
                json!({"resourceClaims": shared}),
                json!([]),
                3,
                1,
                None,
            ),
            ("a volume each", json!({}), json!([volume]), 3, 2, None),
            (
                "an ephemeral volume each",
                json!({"volumes": ephemeral}),
                json!([]),
                3,
                2,
                None,
            ),
        ] {
            let (cluster, known, _) = with_devices();
            let mut spec = spec;
            spec["containers"] = json!([{"name": "c", "resources": {"requests": {"cpu": "1"}}}]);
            let manifest = json!({"kind": "StatefulSet", "metadata": {"name": "db"},
                "spec": {"replicas": 3, "template": {"spec": spec}, "volumeClaimTemplates": sets}});
            let workload = workload(manifest, "shop", &known).unwrap().unwrap();
            let outcome = place(cluster, &[workload]).remove(0);
            let message = outcome.unschedulable.unwrap_or_default();
            assert_eq!(
                (outcome.placed, outcome.nodes.len()),
                (placed, nodes),
                "{what}: {message}"
            );
            assert_eq!(message.is_empty(), why.is_none(), "{what}: {message}");
            assert!(
                message.contains(why.unwrap_or_default()),
                "{what}: {message}"
            );
        }
        let (_, known, _) = with_devices();
        let wants = json!({"kind": "Pod", "metadata": {"name": "p"}, "spec":
            {"resourceClaims": [{"name": "g", "resourceClaimTemplateName": "none"}]}});
        let told = workload(wants, "shop", &known).unwrap_err_text();
        assert!(
            told.contains("there is no ResourceClaimTemplate shop/none"),
            "{told}"
        );
    }
}
