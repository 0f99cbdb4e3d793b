//! What the live tree shows, worked out from a Release and its Group: pure.

use std::collections::BTreeMap;

use gantry_api::release::{BatchState, Doing, Method};
use gantry_api::{Group, Phase, Release};
use jiff::Timestamp;

use super::tree::{CellView, ClusterView, InstanceView, ReleaseView, Step};
use crate::output::Tone;

/// The picture of a release at an instant. The Group adds what the Release does not know: which
/// cluster a cell belongs to.
pub fn release_view(release: &Release, group: Option<&Group>, now: Timestamp) -> ReleaseView {
    let spec = &release.spec;
    let status = release.status.clone().unwrap_or_default();
    let plan = status.plan.clone().unwrap_or_default();
    let from = status.from.clone().unwrap_or_default();
    let target = status.target.clone().unwrap_or_default();
    let namespace = release.metadata.namespace.clone().unwrap_or_default();
    let end = status.finished.as_ref().map_or(now, |t| t.0);
    let batches = status.batches.iter().filter(|b| b.index > 0);
    let back = status.rollback.is_some();
    ReleaseView {
        group: format!("{namespace}/{}", spec.group),
        release: release.metadata.name.clone().unwrap_or_default(),
        from: from.revision,
        to: target.revision,
        change: change(
            &from.image,
            &target.image,
            plan.method,
            status.plan.is_some(),
        ),
        phase: status.phase.as_str().to_owned(),
        tone: Some(tone(status.phase)),
        batches: (
            batches
                .clone()
                .filter(|b| matches!(b.state, BatchState::Done | BatchState::Skipped))
                .count() as u32,
            plan.batches.iter().filter(|b| b.index > 0).count() as u32,
        ),
        updated: progress(&status.progress.updated).unwrap_or((0, plan.replicas.max(0) as u32)),
        out: (
            status.instances.out.max(0) as u32,
            plan.max_out.max(0) as u32,
        ),
        message: status.message.clone(),
        seconds: status
            .started
            .as_ref()
            .map_or(0, |t| end.duration_since(t.0).as_secs()),
        clusters: clusters(
            &instances(&spec.group, &status, now, back),
            &plan_cells(&plan),
            group,
        ),
    }
}

/// `3/12` as numbers.
fn progress(text: &str) -> Option<(u32, u32)> {
    let (done, all) = text.split_once('/')?;
    Some((done.parse().ok()?, all.parse().ok()?))
}

fn change(from: &str, to: &str, method: Method, planned: bool) -> String {
    let how = match (planned, method) {
        (false, _) => "",
        (true, Method::InPlace) => "  (updated in place)",
        (true, Method::Recreate) => "  (recreated)",
    };
    if from == to {
        format!("{to}{how}")
    } else {
        format!("{} → {}{how}", brief(from), brief(to))
    }
}

/// An image without its registry and path: `cart:1.5.0`.
pub fn brief(image: &str) -> &str {
    image.rsplit('/').next().unwrap_or(image)
}

pub fn tone(phase: Phase) -> Tone {
    match phase {
        Phase::Succeeded => Tone::Good,
        Phase::Failed => Tone::Bad,
        Phase::Paused | Phase::RollingBack | Phase::RolledBack | Phase::Aborted => Tone::Warn,
        _ => Tone::Busy,
    }
}

/// Cells in the order in which the plan first touches them.
fn plan_cells(plan: &gantry_api::release::Plan) -> Vec<String> {
    let mut cells: Vec<String> = vec![];
    for slice in plan.batches.iter().flat_map(|b| &b.slices) {
        if !cells.contains(&slice.cell) {
            cells.push(slice.cell.clone());
        }
    }
    cells
}

/// Instances of the plan by cell and ordinal.
fn instances(
    group: &str,
    status: &gantry_api::ReleaseStatus,
    now: Timestamp,
    back: bool,
) -> BTreeMap<String, BTreeMap<i32, InstanceView>> {
    let mut out: BTreeMap<String, BTreeMap<i32, InstanceView>> = BTreeMap::new();
    let Some(plan) = &status.plan else { return out };
    let from = status.from.as_ref().map_or(0, |r| r.revision);
    let to = status.target.as_ref().map_or(0, |r| r.revision);
    let working: BTreeMap<&str, _> = status
        .working
        .iter()
        .map(|w| (w.name.as_str(), w))
        .collect();
    for batch in &plan.batches {
        let known = status.batches.iter().find(|b| b.index == batch.index);
        let state = known.map_or(BatchState::Waiting, |b| b.state);
        // The record counts the batch's updated instances; those at work are named, the rest are done.
        let at_work = working
            .values()
            .filter(|w| w.batch == batch.index && w.revision == Some(to));
        let mut updated = known.map_or(0, |b| b.updated) - at_work.count() as i32;
        for slice in &batch.slices {
            for ordinal in (slice.lowest..=slice.highest).rev() {
                let name = slice.instance(group, ordinal);
                let mut view = InstanceView {
                    batch: Some(batch.index as u32),
                    revision: from,
                    step: Step::Waiting,
                    in_service: !given_up(status, &name),
                    seconds: None,
                    note: String::new(),
                    name,
                };
                if let Some(w) = working.get(view.name.as_str()) {
                    view.revision = w.revision.unwrap_or(from);
                    view.step = step(w.doing);
                    view.in_service = false;
                    view.seconds = w.since.as_ref().map(|t| now.duration_since(t.0).as_secs());
                    view.note.clone_from(&w.message);
                } else if status.phase == Phase::RolledBack {
                    view.step = if state == BatchState::Waiting {
                        Step::Untouched
                    } else {
                        Step::TakenBack
                    };
                } else if matches!(state, BatchState::Done | BatchState::Ready) || updated > 0 {
                    updated -= 1;
                    view.revision = to;
                    view.step = if back { Step::Waiting } else { Step::Done };
                } else if status.phase.is_final() {
                    view.step = Step::Untouched;
                }
                out.entry(slice.cell.clone())
                    .or_default()
                    .insert(ordinal, view);
            }
        }
    }
    out
}

/// Whether the instance failed and nothing has been done about it yet.
fn given_up(status: &gantry_api::ReleaseStatus, name: &str) -> bool {
    !status.phase.is_final() && status.failures.iter().any(|f| f.instance == name)
}

fn step(doing: Doing) -> Step {
    match doing {
        Doing::Draining => Step::Draining,
        Doing::Updating => Step::Updating,
        Doing::Warming => Step::Checking,
        Doing::Held => Step::Held,
        Doing::Returning => Step::Checking,
        Doing::Failed => Step::Failed,
    }
}

fn clusters(
    cells: &BTreeMap<String, BTreeMap<i32, InstanceView>>,
    order: &[String],
    group: Option<&Group>,
) -> Vec<ClusterView> {
    let statuses = group
        .and_then(|g| g.status.as_ref())
        .map_or(&[][..], |s| &s.cells);
    let mut out: Vec<ClusterView> = vec![];
    for cell in order {
        let Some(instances) = cells.get(cell) else {
            continue;
        };
        let cluster = statuses
            .iter()
            .find(|c| c.name == *cell)
            .map_or("", |c| c.cluster.as_str());
        let view = CellView {
            name: cell.clone(),
            instances: instances.values().cloned().collect(),
        };
        match out.iter_mut().find(|c| c.name == cluster) {
            Some(known) => known.cells.push(view),
            None => out.push(ClusterView {
                name: cluster.to_owned(),
                cells: vec![view],
            }),
        }
    }
    for cluster in &mut out {
        cluster.cells.sort_by(|a, b| a.name.cmp(&b.name));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::tree::render;

    fn release(status: serde_json::Value) -> Release {
        serde_json::from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Release",
            "metadata": {"name": "cart-prod-2", "namespace": "shop"},
            "spec": {"group": "cart-prod"},
            "status": status,
        }))
        .unwrap()
    }

    fn group() -> Group {
        let cell = |name: &str, cluster: &str| json!({"name": name, "cluster": cluster, "desired": 2, "replicas": 2, "ready": 2, "inService": 2, "updated": 0});
        serde_json::from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "Group",
            "metadata": {"name": "cart-prod", "namespace": "shop"},
            "spec": {"app": "cart", "placement": {"cells": []}, "revision": {"image": "r/cart:1"}},
            "status": {"cells": [cell("sh-a", "sh"), cell("bj-a", "bj")]},
        }))
        .unwrap()
    }

    #[test]
    fn a_running_batch() {
        let release = release(json!({
            "phase": "Batch", "message": "batch 1 of 1: 1 of 3 updated",
            "started": "2026-11-21T08:00:00Z",
            "from": {"revision": 1, "image": "r/cart:1"}, "target": {"revision": 2, "image": "r/cart:2"},
            "plan": {"batches": [
                {"index": 0, "size": 1, "slices": [{"cell": "sh-a", "highest": 1, "lowest": 1}]},
                {"index": 1, "size": 3, "slices": [
                    {"cell": "sh-a", "highest": 0, "lowest": 0}, {"cell": "bj-a", "highest": 1, "lowest": 0}]}
            ], "replicas": 4, "maxOut": 1, "tolerance": 0, "method": "InPlace", "strategy": {}},
            "batches": [{"index": 0, "state": "Done", "updated": 1}, {"index": 1, "state": "Running", "updated": 1}],
            "progress": {"batch": "0/1", "updated": "2/4"},
            "instances": {"waiting": 1, "out": 1, "updating": 1, "done": 2, "failed": 0},
            "working": [{"name": "cart-prod-bj-a-1", "cell": "bj-a", "batch": 1, "state": "Updating", "revision": 1,
                "since": "2026-11-21T08:00:35Z"}],
        }));
        let now = "2026-11-21T08:00:41Z".parse().unwrap();
        let view = release_view(&release, Some(&group()), now);
        assert_eq!(
            (view.batches, view.updated, view.out),
            ((0, 1), (2, 4), (1, 1))
        );
        insta::assert_snapshot!(render(&view, 40, 120, false).join("\n"));
    }

    #[test]
    fn a_release_that_has_not_been_seen_yet() {
        let view = release_view(&release(json!({})), None, Timestamp::UNIX_EPOCH);
        assert_eq!(view.phase, "Pending");
        assert!(view.clusters.is_empty());
    }
}
