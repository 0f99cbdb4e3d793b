//! The fleet at a glance: clusters, what is wrong now, how many of what.

use gantry_api::stop_line::StopKind;
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

use super::{groups, releases};
use crate::{
    access::Sight,
    model::{Health, State, rows::amounts},
};

/// A cluster or cell as a row.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlaceRow {
    /// Its name.
    pub name: String,
    /// Region; of a cell, empty.
    pub region: String,
    /// Kubernetes version.
    pub version: String,
    /// Why it cannot be reached; empty: it can.
    pub trouble: String,
    /// Whether the hub has not looked at it yet, as just after it was registered.
    pub connecting: bool,
    /// Why no release moves here; empty: they may.
    pub stopped: String,
    /// Usable nodes, and all.
    pub nodes: (i32, i32),
    /// Instances.
    pub instances: i32,
    /// CPU that instances ask for and that there is, thousandths of a core.
    pub cpu: (i64, i64),
    /// The same of memory, bytes.
    pub memory: (i64, i64),
    /// Cells of a cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cells: Vec<PlaceRow>,
}

/// Clusters with their cells.
pub fn clusters(state: &State) -> Vec<PlaceRow> {
    let rows = state.clusters.iter().map(|(name, cluster)| {
        let status = cluster.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
        let member = state.members.get(name).and_then(|m| m.trouble.clone());
        let trouble = match ready {
            Some(c) if c.status == "True" => member.unwrap_or_default(),
            Some(c) => c.message.clone(),
            None => String::new(),
        };
        let connecting = ready.is_none();
        let (used, has) = (amounts(&status.requested), amounts(&status.capacity));
        PlaceRow {
            name: name.clone(),
            region: cluster.spec.region.clone(),
            version: status.version.unwrap_or_default(),
            trouble,
            connecting,
            stopped: cluster
                .spec
                .stop_the_line
                .as_ref()
                .map(|s| s.reason.clone())
                .unwrap_or_default(),
            nodes: (status.nodes.ready, status.nodes.total),
            instances: status.instances,
            cpu: (used.0, has.0),
            memory: (used.1, has.1),
            cells: status
                .cells
                .iter()
                .map(|cell| {
                    let (used, has) = (amounts(&cell.requested), amounts(&cell.capacity));
                    PlaceRow {
                        name: cell.name.clone(),
                        nodes: (cell.nodes.ready, cell.nodes.total),
                        instances: cell.instances,
                        cpu: (used.0, has.0),
                        memory: (used.1, has.1),
                        ..PlaceRow::default()
                    }
                })
                .collect(),
        }
    });
    rows.collect()
}

/// What kind of thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Wrong {
    /// A cluster cannot be reached.
    Cluster,
    /// A Group is not as it should be.
    Group,
    /// A release stands still because too much failed.
    Release,
    /// Releases are stopped.
    Line,
    /// Nodes of a cell are not Ready.
    Nodes,
    /// A release waits for a person.
    Waits,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// 0 is the worst.
    pub rank: u8,
    /// What kind of thing.
    pub kind: Wrong,
    /// What it is about.
    pub title: String,
    /// In one line.
    pub message: String,
    /// Its page; empty where there is none.
    pub href: String,
    /// Since when, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How a Group is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// What is wrong now, worst first, and how much of it there is.
pub fn problems(
    state: &State,
    sight: &Sight,
    now: Timestamp,
    most: usize,
) -> (Vec<Problem>, usize) {
    let mut all = Vec::new();
    let mut tell = |rank, kind, title: String, message: String, href: String, since, health| {
        all.push(Problem {
            rank,
            kind,
            title,
            message,
            href,
            since,
            health,
        });
    };
    if sight.clusters {
        for cluster in clusters(state)
            .into_iter()
            .filter(|c| !c.trouble.is_empty())
        {
            tell(
                0,
                Wrong::Cluster,
                cluster.name,
                cluster.trouble,
                String::new(),
                None,
                None,
            );
        }
    }
    for (key, health) in state
        .troubled
        .iter()
        .filter(|(k, _)| sight.groups.see(&k.0))
    {
        // Its release is told of below.
        if *health == Health::Halted && sight.releases.see(&key.0) {
            continue;
        }
        let Some(row) = groups::row(state, key, false) else {
            continue;
        };
        let level = match groups::level(state, &(key.0.clone(), row.app.clone())) {
            Some("L0") => 0,
            Some("L1") => 1,
            _ => 2,
        };
        let rank = match health {
            Health::Down => 1 + level,
            Health::Halted => 3 + level,
            _ => 4 + level,
        };
        let since = state.groups.get(key).and_then(|g| {
            let conditions = &g.status.as_ref()?.conditions;
            Some(
                conditions
                    .iter()
                    .find(|c| c.type_ == "Ready")?
                    .last_transition_time
                    .0,
            )
        });
        let message = if row.message.is_empty() {
            format!("{}/{}", row.in_service, row.desired)
        } else {
            format!("{}/{} · {}", row.in_service, row.desired, row.message)
        };
        let href = format!("/groups/{}/{}", key.0, key.1);
        tell(
            rank,
            Wrong::Group,
            format!("{}/{}", key.0, key.1),
            message,
            href,
            since,
            Some(*health),
        );
    }
    for key in state.running.iter().filter(|k| sight.releases.see(&k.0)) {
        let Some(release) = state.releases.get(key) else {
            continue;
        };
        let row = releases::row(release);
        let href = format!("/releases/{}/{}", key.0, key.1);
        let title = format!("{}/{}", key.0, key.1);
        let status = release.status.as_ref();
        if row.halted {
            let since = status.and_then(|s| s.halt.as_ref()).map(|t| t.at.0);
            tell(3, Wrong::Release, title, row.message, href, since, None);
        } else if row.waits {
            let since = status.and_then(|s| s.waiting_since.as_ref()).map(|t| t.0);
            tell(8, Wrong::Waits, title, row.message, href, since, None);
        }
    }
    if sight.lines {
        for (name, line) in &state.lines {
            let spec = &line.spec;
            let over = spec.until.as_ref().is_some_and(|t| t.0 <= now);
            if over || spec.from.as_ref().is_some_and(|t| t.0 > now) {
                continue;
            }
            let rank = if spec.kind == StopKind::Stop { 2 } else { 7 };
            let since = line.creation_timestamp().map(|t| t.0);
            tell(
                rank,
                Wrong::Line,
                name.clone(),
                format!("{}: {}", spec.by, spec.reason),
                "/lines".to_owned(),
                since,
                None,
            );
        }
    }
    if sight.nodes {
        for (cluster, member) in &state.members {
            for (cell, names) in &member.by_cell {
                let nodes = names.iter().filter_map(|n| member.nodes.get(n));
                let bad: Vec<_> = nodes.filter(|n| !n.ready).collect();
                if let Some(first) = bad.first() {
                    let message = format!(
                        "{} / {} · {}",
                        bad.len(),
                        names.len(),
                        first.problems.join(", ")
                    );
                    let href = format!("/nodes?cluster={cluster}&cell={cell}&state=notready");
                    let title = format!("{cluster}/{cell}");
                    tell(6, Wrong::Nodes, title, message, href, None, None);
                }
            }
        }
    }
    all.sort_by(|a, b| (a.rank, a.since, &a.title).cmp(&(b.rank, b.since, &b.title)));
    let total = all.len();
    all.truncate(most);
    (all, total)
}

/// How many of what.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Tenants.
    pub tenants: usize,
    /// Groups.
    pub groups: usize,
    /// Groups that are not as they should be.
    pub troubled: usize,
    /// Instances wished for.
    pub desired: i64,
    /// Instances that receive traffic.
    pub in_service: i64,
    /// Releases that have not ended.
    pub releases: usize,
    /// Usable nodes, and all; absent for who sees no nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<(i64, i64)>,
}

/// How many of what there is of what someone sees.
pub fn counts(state: &State, sight: &Sight) -> Counts {
    let mut counts = Counts::default();
    let mut last = "";
    for (key, group) in &state.groups {
        if !sight.groups.see(&key.0) {
            continue;
        }
        if key.0 != last {
            counts.tenants += 1;
            last = &key.0;
        }
        counts.groups += 1;
        counts.desired += i64::from(group.spec.replicas);
        counts.in_service += group.status.as_ref().map_or(0, |s| i64::from(s.in_service));
    }
    counts.troubled = state
        .troubled
        .keys()
        .filter(|k| sight.groups.see(&k.0))
        .count();
    counts.releases = state
        .running
        .iter()
        .filter(|k| sight.releases.see(&k.0))
        .count();
    if sight.nodes {
        let nodes = state.members.values().flat_map(|m| m.nodes.values());
        let (mut good, mut all) = (0, 0);
        for node in nodes {
            all += 1;
            good += i64::from(node.ready && !node.cordoned);
        }
        counts.nodes = Some((good, all));
    }
    counts
}
