//! The status of Clusters: health, version, nodes, capacity and what instances request, by cell.

use std::collections::BTreeMap;

use gantry_api::{
    Cluster, ClusterStatus,
    cluster::{CellStatus, NodeCount},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time};

use super::{
    member::{Health, Member},
    slim::{Node, Pod},
};
use crate::group::status::set_condition;

/// Amounts in thousandths.
type Amounts = BTreeMap<String, i128>;

/// A quantity in thousandths; what is finer is rounded up. `None` if it is no quantity.
pub fn thousandths(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.as_str();
    let digits = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-' || c == '+'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale: f64 = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        _ => 10f64.powi(suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    if fraction.is_empty() && scale >= 1.0 {
        return Some(
            whole
                .parse::<i128>()
                .ok()?
                .saturating_mul(scale as i128)
                .saturating_mul(1000),
        );
    }
    Some((number.parse::<f64>().ok()? * scale * 1000.0).ceil() as i128)
}

fn add(amounts: &mut Amounts, more: &BTreeMap<String, Quantity>) {
    for (name, quantity) in more {
        if let Some(n) = thousandths(quantity) {
            *amounts.entry(name.clone()).or_default() += n;
        }
    }
}

/// Amounts as quantities: thousandths for CPU, binary for memory.
fn shown(amounts: &Amounts) -> BTreeMap<String, Quantity> {
    let text = |name: &str, n: i128| {
        if n % 1000 != 0 {
            return format!("{n}m");
        }
        let n = n / 1000;
        let binary = name.contains("memory") || name.contains("storage");
        match () {
            () if binary && n > 0 && n % (1 << 30) == 0 => format!("{}Gi", n >> 30),
            () if binary && n > 0 && n % (1 << 20) == 0 => format!("{}Mi", n >> 20),
            () if binary && n > 0 && n % (1 << 10) == 0 => format!("{}Ki", n >> 10),
            () => n.to_string(),
        }
    };
    amounts
        .iter()
        .map(|(name, n)| (name.clone(), Quantity(text(name, *n))))
        .collect()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_add_up() {
        for (text, want) in [
            ("100m", Some(100)),
            ("2", Some(2_000)),
            ("1.5", Some(1_500)),
            ("1Ki", Some(1_024_000)),
            ("3M", Some(3_000_000_000)),
            ("1e3", Some(1_000_000)),
            ("x", None),
        ] {
            assert_eq!(thousandths(&Quantity(text.into())), want, "{text}");
        }
        let mut sum = Amounts::new();
        let one = BTreeMap::from([
            ("cpu".to_owned(), Quantity("250m".into())),
            ("memory".to_owned(), Quantity("512Mi".into())),
        ]);
        for _ in 0..4 {
            add(&mut sum, &one);
        }
        assert_eq!(
            shown(&sum),
            BTreeMap::from([
                ("cpu".to_owned(), Quantity("1".into())),
                ("memory".to_owned(), Quantity("2Gi".into()))
            ])
        );
    }
}
