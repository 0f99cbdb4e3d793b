//! What keeps a workload from being adopted as it is, or is different afterwards; each with what to do.

use gantry_api::{group::AdoptKind, labels};
use serde::Serialize;
use serde_json::Value;

use super::{
    Found, controller,
    look::{name, number, observed, text, uid},
};

/// Something in the way, or something to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Obstacle {
    /// The field that it is about.
    pub field: String,
    /// What is so.
    pub why: String,
    /// What to do, or what follows.
    pub remedy: String,
    /// Whether nothing is adopted as long as it is so.
    pub fatal: bool,
}

/// The obstacles to adopting `workload` into the Group `group`, those in the way first.
pub fn of(kind: AdoptKind, workload: &Value, found: &Found, group: &str) -> Vec<Obstacle> {
    let mut all = Vec::new();
    let mut add = |fatal: bool, field: &str, why: String, remedy: &str| {
        all.push(Obstacle {
            field: field.to_owned(),
            why,
            remedy: remedy.to_owned(),
            fatal,
        });
    };
    let spec = &workload["spec"];
    let status = &workload["status"];
    if !workload["metadata"]["deletionTimestamp"].is_null() {
        add(
            true,
            "metadata.deletionTimestamp",
            "it is being deleted".to_owned(),
            "wait until it is gone, and make the group without adopt",
        );
    }
    if let Some(owner) = controller(workload) {
        let kind = owner_kind(workload, owner);
        add(
            true,
            "metadata.ownerReferences",
            format!("{kind} controls it and would change it back"),
            "take it from there first (most operators have a way to let go of an object)",
        );
    }
    let replicas = number(&spec["replicas"]).unwrap_or(1);
    let updated = number(&status["updatedReplicas"]).unwrap_or(0);
    let there = number(&status["replicas"]).unwrap_or(0);
    if !observed(workload) || updated != replicas || there != replicas {
        add(
            true,
            "status",
            format!(
                "{updated} of its {replicas} instances are on its template, {there} exist: it is in the middle of a rollout or a scaling"
            ),
            "let that end (kubectl rollout status), or undo it, and adopt then",
        );
    }
    let selected = &spec["selector"]["matchLabels"][labels::GROUP];
    if selected.as_str().is_some_and(|g| g != group) {
        add(
            true,
            "spec.selector",
            format!(
                "it selects by {}={}, which would change with the group's name: it would let go of its instances and make others",
                labels::GROUP,
                text(selected)
            ),
            "adopt it into a group of that name, which left it (a Group with spec.adopt; `gantry adopt` names it WORKLOAD-ENVIRONMENT)",
        );
    }
    match kind {
        AdoptKind::StatefulSet => stateful(spec, status, found, &mut add),
        AdoptKind::Deployment => stateless(spec, found, group, &mut add),
    }
    if let Some(tool) = keeper(workload) {
        add(
            false,
            "metadata",
            format!("{tool} keeps it from elsewhere"),
            "take it out of there, or the next sync or upgrade makes it anew beside the group",
        );
    }
    for (field, what) in [
        ("hostNetwork", "use the node's network"),
        ("hostPID", "see the node's processes"),
    ] {
        if spec["template"]["spec"][field] == true {
            add(
                false,
                "spec.template.spec",
                format!("its instances {what}"),
                "they go on to; a tenant's pod security may refuse the next ones",
            );
        }
    }
    all.sort_by_key(|o| !o.fatal);
    all
}

fn stateful(
    spec: &Value,
    status: &Value,
    found: &Found,
    add: &mut impl FnMut(bool, &str, String, &str),
) {
    let (now, next) = (
        text(&status["currentRevision"]),
        text(&status["updateRevision"]),
    );
    if now != next {
        add(
            true,
            "status.updateRevision",
            "some instances are held on another revision (a partition, or OnDelete)".to_owned(),
            "bring all to one revision and adopt then",
        );
    }
    let start = number(&spec["ordinals"]["start"]).unwrap_or(0);
    if start != 0 {
        add(
            true,
            "spec.ordinals.start",
            format!("its instances count from {start}, a group's from 0"),
            "only a new StatefulSet helps: make a group beside it, move the traffic, remove this one",
        );
    }
    let claims = spec["volumeClaimTemplates"].as_array().map_or(0, Vec::len);
    let cells: std::collections::BTreeSet<&str> =
        found.pods.iter().map(|p| found.cell_of(p, "")).collect();
    if cells.len() > 1 {
        let (fatal, remedy) = if claims > 0 {
            (
                true,
                "give the cluster one cell that has all those zones, or split the StatefulSet: its volumes cannot follow to another cell",
            )
        } else {
            (
                false,
                "instances stay where they are; one that is replaced comes back in the cell that is named",
            )
        };
        add(
            fatal,
            "spec.template.spec.nodeSelector",
            format!(
                "its instances run in several cells ({}), and a StatefulSet of a group is in one",
                list(&cells)
            ),
            remedy,
        );
    }
    if claims > 0 {
        add(
            false,
            "spec.volumeClaimTemplates",
            format!("each instance has {claims} volumes of its own"),
            "they stay with it; instances in other cells, if the group is given any, have none",
        );
    }
    if text(&spec["podManagementPolicy"]) != "Parallel" {
        add(
            false,
            "spec.podManagementPolicy",
            "OrderedReady cannot be changed on a StatefulSet that exists".to_owned(),
            "scaling goes one instance at a time, as before",
        );
    }
    if text(&spec["updateStrategy"]["type"]) == "OnDelete" {
        add(
            false,
            "spec.updateStrategy",
            "OnDelete becomes RollingUpdate with a partition".to_owned(),
            "releases decide who is updated and when",
        );
    }
    gate(add);
}

/// Whether the Group's own StatefulSet would take a pod of this name for one of its instances.
fn claimed(pod: &str, group: &str, cell: &str) -> bool {
    let number = pod.strip_prefix(group).and_then(|rest| {
        rest.strip_prefix('-')?
            .strip_prefix(cell)?
            .strip_prefix('-')
    });
    number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn stateless(
    spec: &Value,
    found: &Found,
    group: &str,
    add: &mut impl FnMut(bool, &str, String, &str),
) {
    let own: std::collections::BTreeSet<&str> = (found.pods.iter().map(name))
        .filter(|pod| found.cells.values().any(|cell| claimed(pod, group, cell)))
        .collect();
    if !own.is_empty() {
        add(
            true,
            "metadata.name of its pods",
            format!(
                "its instances {} are named as a StatefulSet of group {group} would name its own, which would take them, and delete those beyond its number",
                list(&own)
            ),
            "replace its pods first, so that they have a Deployment's names (kubectl rollout restart)",
        );
    }
    let live: Vec<&Value> = found
        .sets
        .iter()
        .filter(|s| number(&s["spec"]["replicas"]).unwrap_or(0) > 0)
        .collect();
    if live.len() > 1 {
        let names: std::collections::BTreeSet<&str> = live.iter().map(|s| name(s)).collect();
        add(
            true,
            "status",
            format!("instances of several ReplicaSets run ({})", list(&names)),
            "let the rollout end and adopt then",
        );
    }
    let strange = found
        .pods
        .iter()
        .filter(|p| !found.sets.iter().any(|s| controller(p) == Some(uid(s))))
        .count();
    if strange > 0 {
        add(
            true,
            "status",
            format!("{strange} pods match it that it does not control"),
            "remove or relabel them first",
        );
    }
    if spec["paused"] == true {
        add(
            false,
            "spec.paused",
            "it is paused".to_owned(),
            "that goes with it; releases are paused one by one",
        );
    }
    add(
        false,
        "metadata.name of its pods",
        "a Deployment's pods have names that no StatefulSet can give".to_owned(),
        "they stay until the first release, or `gantry adopt finish`: then each is replaced, a new one first",
    );
    add(
        false,
        "metadata.ownerReferences of its pods",
        "until then nothing owns them".to_owned(),
        "one that is lost is followed by a named instance; `kubectl drain` asks for --force",
    );
    gate(add);
}

fn gate(add: &mut impl FnMut(bool, &str, String, &str)) {
    add(
        false,
        "spec.readinessGates of its pods",
        "pods that run cannot be given Gantry's readiness gate".to_owned(),
        "`gantry instance pull-out` takes effect on instances made from the first release on",
    );
}

fn owner_kind(object: &Value, owner: &str) -> String {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let found = owners.into_iter().flatten().find(|o| o["uid"] == owner);
    found.map_or_else(String::new, |o| {
        format!("{}/{}", text(&o["kind"]), text(&o["name"]))
    })
}

/// The tool whose marks the object bears.
fn keeper(object: &Value) -> Option<String> {
    let annotation = |key: &str| object["metadata"]["annotations"][key].as_str();
    let label = |key: &str| object["metadata"]["labels"][key].as_str();
    annotation("meta.helm.sh/release-name")
        .map(|n| format!("Helm (release {n})"))
        .or_else(|| {
            label("kustomize.toolkit.fluxcd.io/name").map(|n| format!("Flux (kustomization {n})"))
        })
        .or_else(|| annotation("argocd.argoproj.io/tracking-id").map(|n| format!("Argo CD ({n})")))
}

fn list(names: &std::collections::BTreeSet<&str>) -> String {
    let words: Vec<&str> = names
        .iter()
        .map(|n| {
            if n.is_empty() {
                "none of the group's"
            } else {
                n
            }
        })
        .collect();
    words.join(", ")
}
