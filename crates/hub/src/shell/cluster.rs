//! The status of Clusters: health, version, nodes, capacity and what instances request, by cell.

use std::collections::BTreeMap;

use gantry_api::{
    Cluster, ClusterStatus,
    cluster::{CellStatus, NodeCount},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    member::{Health, Member},
    slim::{Node, Pod},
};
use crate::{
    amount::{Amounts, add, shown},
    group::status::set_condition,
};

#[derive(Default)]
struct Sum {
    nodes: NodeCount,
    instances: i32,
    capacity: Amounts,
    requested: Amounts,
}

impl Sum {
    fn node(&mut self, node: &Node) {
        self.nodes.total += 1;
        if node.usable() {
            self.nodes.ready += 1;
            add(&mut self.capacity, &node.status.allocatable);
        }
    }

    fn pod(&mut self, pod: &Pod) {
        self.instances += 1;
        for container in &pod.spec.containers {
            add(&mut self.requested, &container.resources.requests);
        }
    }
}

/// What is known of `cluster` now.
pub fn status(
    cluster: &Cluster,
    member: Option<&Member>,
    refused: Option<&str>,
    now: Timestamp,
) -> ClusterStatus {
    let mut status = cluster.status.clone().unwrap_or_default();
    status.observed_generation = cluster.metadata.generation;
    let generation = cluster.metadata.generation;
    let Some(member) = member else {
        let why = refused.unwrap_or("not connected yet").to_owned();
        set_condition(
            &mut status.conditions,
            "Ready",
            false,
            "NotConnected",
            why,
            generation,
            now,
        );
        return status;
    };
    if let Some((since, why)) = member.trouble() {
        let message = format!(
            "cannot be reached since {}: {why}",
            crate::release::tell::clock_time(since)
        );
        set_condition(
            &mut status.conditions,
            "Ready",
            false,
            "Unreachable",
            message,
            generation,
            now,
        );
        return status;
    }
    if let Health::Up(version) = member.health() {
        status.version = Some(version);
    }
    // To the minute: a status that changed with every look would never rest.
    let fresh = status
        .last_seen
        .as_ref()
        .is_none_or(|t| now.duration_since(t.0).as_secs() >= 60);
    if fresh {
        status.last_seen = Some(Time(now));
    }
    set_condition(
        &mut status.conditions,
        "Ready",
        true,
        "Reachable",
        String::new(),
        generation,
        now,
    );
    let mut all = Sum::default();
    let selectors: Vec<(String, BTreeMap<String, String>)> = cluster
        .spec
        .cells
        .iter()
        .map(|c| (c.name.clone(), c.selector()))
        .collect();
    let mut cells: Vec<Sum> = selectors.iter().map(|_| Sum::default()).collect();
    for node in member.nodes.all() {
        all.node(&node);
        let labels = node.metadata.labels.as_ref();
        for ((_, selector), sum) in selectors.iter().zip(&mut cells) {
            if selector
                .iter()
                .all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
            {
                sum.node(&node);
            }
        }
    }
    for pod in member.pods.all() {
        all.pod(&pod);
        let cell = pod
            .metadata
            .labels
            .as_ref()
            .and_then(|l| l.get(gantry_api::labels::CELL));
        if let Some(index) = selectors.iter().position(|(name, _)| Some(name) == cell) {
            cells[index].pod(&pod);
        }
    }
    status.nodes = all.nodes;
    status.nodes_ready = format!("{}/{}", all.nodes.ready, all.nodes.total);
    status.instances = all.instances;
    status.capacity = shown(&all.capacity);
    status.requested = shown(&all.requested);
    status.cells = selectors
        .into_iter()
        .zip(cells)
        .map(|((name, _), sum)| CellStatus {
            name,
            nodes: sum.nodes,
            instances: sum.instances,
            capacity: shown(&sum.capacity),
            requested: shown(&sum.requested),
        })
        .collect();
    status
}
