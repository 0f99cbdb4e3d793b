//! What quotas and nodes leave for a release. Updates keep the names of instances, and an instance that is
//! replaced goes before its successor comes: bastion and batches ask for nothing beside what the group has.
//! What is asked for is the difference between what instances ask for now and on the target revision.
//!
//! A quota that does not leave that refuses the plan. Nodes may come, and pods of others are not counted:
//! capacity is said, and refuses nothing.

use std::collections::{BTreeMap, BTreeSet};

use gantry_api::{Cluster, release::Room};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

use super::plan::CellSize;
use crate::{
    amount::{Amounts, shown, thousandths},
    world::{Capacity, CellView, Quota, Revision, Revisions},
};

/// Most lines that a plan has of it.
const MOST: usize = 100;

/// What one pod of a template asks for, as quotas name it.
pub fn asks(template: &Value) -> Amounts {
    let spec = &template["spec"];
    let mut all = Amounts::new();
    for container in list(&spec["containers"]) {
        add(&mut all, &of(container));
    }
    let (mut once, mut beside) = (Amounts::new(), Amounts::new());
    for container in list(&spec["initContainers"]) {
        let asks = of(container);
        if container["restartPolicy"] == "Always" {
            add(&mut beside, &asks);
        } else {
            // It runs while the others wait, next to the side-cars before it.
            for (name, n) in &asks {
                let n = n + beside.get(name).copied().unwrap_or(0);
                let most = once.entry(name.clone()).or_default();
                *most = n.max(*most);
            }
        }
    }
    add(&mut all, &beside);
    for (name, n) in once {
        let sum = all.entry(name).or_default();
        *sum = n.max(*sum);
    }
    let overhead: Amounts = amounts(&spec["overhead"]);
    for (name, n) in overhead {
        *all.entry(format!("requests.{name}")).or_default() += n;
    }
    all
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A container's requests and limits.
fn of(container: &Value) -> Amounts {
    let limits = amounts(&container["resources"]["limits"]);
    // What has a limit and no request asks for the limit.
    let mut requests = limits.clone();
    requests.extend(amounts(&container["resources"]["requests"]));
    let named = |kind: &str, all: Amounts| -> Vec<(String, i128)> {
        all.into_iter()
            .map(|(name, n)| (format!("{kind}.{name}"), n))
            .collect()
    };
    named("requests", requests)
        .into_iter()
        .chain(named("limits", limits))
        .collect()
}

fn amounts(value: &Value) -> Amounts {
    let all = value.as_object().into_iter().flatten();
    let read = |(name, value): (&String, &Value)| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        Some((name.clone(), thousandths(&Quantity(text))?))
    };
    all.filter_map(read).collect()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, n) in more {
        *sum.entry(name.clone()).or_default() += n;
    }
}

/// What a template asks of the resource that a quota names so.
fn asked(asks: &Amounts, resource: &str) -> Option<i128> {
    // `cpu` is `requests.cpu`; pods and objects are counted, and their number stays.
    let name = match resource {
        "cpu" | "memory" | "ephemeral-storage" => format!("requests.{resource}"),
        other => other.to_owned(),
    };
    asks.get(&name).copied()
}

/// What the quotas and cells of a plan leave, and whether it is enough. `sizes` are the cells that take part.
pub fn rooms(
    cells: &[CellView],
    sizes: &[CellSize],
    base: &Revision,
    target: &Revision,
    revisions: &Revisions,
) -> Vec<Room> {
    let goal = asks(&target.template);
    let mut known: BTreeMap<i64, Amounts> = BTreeMap::from([(base.number, asks(&base.template))]);
    // What more is asked for, by cluster and by cell.
    let mut of_cluster: BTreeMap<&str, Amounts> = BTreeMap::new();
    let mut of_cell: Vec<(&CellView, Amounts)> = Vec::new();
    for size in sizes {
        let Some(cell) = cells.iter().find(|c| c.name == size.cell) else {
            continue;
        };
        let mut more = Amounts::new();
        for ordinal in 0..size.replicas {
            let on = cell.instances.get(&ordinal).and_then(|i| i.revision);
            let on = on.filter(|n| *n == target.number || revisions.contains_key(n));
            let on = on.unwrap_or(base.number);
            let now = known.entry(on).or_insert_with(|| match revisions.get(&on) {
                Some(revision) => asks(&revision.template),
                None => goal.clone(),
            });
            for name in goal.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
                let get = |a: &Amounts| a.get(name).copied().unwrap_or(0);
                *more.entry(name.clone()).or_default() += get(&goal) - get(now);
            }
        }
        add(of_cluster.entry(&cell.cluster).or_default(), &more);
        of_cell.push((cell, more));
    }
    let class = target.template["spec"]["priorityClassName"].as_str();
    let mut rooms = Vec::new();
    for (cluster, more) in &of_cluster {
        let home = cells.iter().find(|c| c.cluster == *cluster);
        for quota in home
            .into_iter()
            .flat_map(|c| &c.quotas)
            .filter(|q| counts(q, class))
        {
            for (resource, hard) in &quota.hard {
                if let Some(more) = asked(more, resource) {
                    let of = format!("quota {}", quota.name);
                    let used = quota.used.get(resource);
                    rooms.extend(room(of, cluster, resource, hard, used, more));
                }
            }
        }
    }
    for (cell, more) in &of_cell {
        for (resource, total) in &cell.capacity.total {
            let more = more
                .get(&format!("requests.{resource}"))
                .copied()
                .unwrap_or(0);
            if more != 0 {
                let of = format!("cell {}", cell.name);
                let used = cell.capacity.requested.get(resource);
                rooms.extend(room(of, &cell.cluster, resource, total, used, more));
            }
        }
    }
    rooms.sort_by_key(|r| r.fits);
    rooms.truncate(MOST);
    rooms
}

/// Whether a quota counts pods of this class.
fn counts(quota: &Quota, class: Option<&str>) -> bool {
    let all = quota.classes.as_ref();
    all.is_none_or(|all| class.is_some_and(|class| all.iter().any(|c| c == class)))
}

fn room(
    of: String,
    cluster: &str,
    resource: &str,
    total: &Quantity,
    used: Option<&Quantity>,
    more: i128,
) -> Option<Room> {
    let there = thousandths(total)?;
    let gone = used.and_then(thousandths).unwrap_or(0);
    Some(Room {
        of,
        cluster: cluster.to_owned(),
        resource: resource.to_owned(),
        total: total.clone(),
        used: used.cloned().unwrap_or_else(|| Quantity("0".to_owned())),
        more: quantity(resource, more),
        // What is over already, and is not asked for more, is no fault of this plan.
        fits: more <= 0 || gone + more <= there,
    })
}

fn quantity(resource: &str, n: i128) -> Quantity {
    let one = Amounts::from([(resource.to_owned(), n)]);
    let mut shown = shown(&one);
    shown
        .remove(resource)
        .unwrap_or_else(|| Quantity("0".to_owned()))
}

/// Why a plan cannot be: the field, what was wrong, what to do.
pub fn refusals(rooms: &[Room]) -> Vec<String> {
    let short = rooms.iter().filter(|r| !r.fits && r.is_quota());
    short
        .map(|r| {
            format!(
                "revision.resources: {} on {} has {} of {} {} in use and the release asks for {} more: ask for less, or have the quota raised",
                r.of, r.cluster, r.used.0, r.total.0, r.resource, r.more.0
            )
        })
        .collect()
}

/// What may turn out too small, for the message of a plan.
pub fn told(rooms: &[Room]) -> String {
    let tight = rooms.iter().filter(|r| !r.fits && !r.is_quota());
    let words: Vec<String> = tight
        .map(|r| {
            format!(
                "{} has {} of {} {} asked for, and {} more come",
                r.of, r.used.0, r.total.0, r.resource, r.more.0
            )
        })
        .collect();
    if words.is_empty() {
        String::new()
    } else {
        format!("; instances may wait for nodes: {}", words.join(", "))
    }
}

/// What is known of a cell's nodes.
pub fn capacity(cluster: &Cluster, cell: &str) -> Capacity {
    let mut cells = cluster.status.iter().flat_map(|s| &s.cells);
    cells
        .find(|c| c.name == cell)
        .map_or_else(Capacity::default, |c| Capacity {
            total: c.capacity.clone(),
            requested: c.requested.clone(),
        })
}

#[cfg(test)]
mod tests {
    use gantry_api::RevisionSpec;
    use serde_json::json;

    use super::*;
    use crate::release::found::cell;

    fn revision(number: i64, resources: Value) -> Revision {
        Revision {
            number,
            spec: RevisionSpec::default(),
            template: json!({"spec": {"containers": [{"name": "it", "resources": resources}]}}),
            digest: number.to_string(),
        }
    }

    fn all(pairs: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned())))
            .collect()
    }

    #[test]
    fn a_pod_asks_for_what_the_api_server_counts() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut side = container("50m");
        side["restartPolicy"] = json!("Always");
        let template = json!({"spec": {
            "overhead": {"cpu": "10m"},
            "initContainers": [side, container("1")],
            "containers": [container("200m"), {"resources": {"limits": {"cpu": "300m", "nvidia.com/gpu": 1}}}],
        }});
        let asks = asks(&template);
        // The init container beside its side-car is more than the containers beside it.
        assert_eq!(asks["requests.cpu"], 1060);
        assert_eq!(
            (asks["limits.cpu"], asks["requests.nvidia.com/gpu"]),
            (300, 1000)
        );
    }

    #[test]
    fn a_quota_refuses_what_it_does_not_leave() {
        let cpu = |n: &str| json!({"requests": {"cpu": n}});
        let (one, two) = (revision(1, cpu("100m")), revision(2, cpu("300m")));
        let sizes = [CellSize {
            cell: "a".into(),
            replicas: 3,
        }];
        // (class that counts, used, of which instances are there already, what is said)
        let cases: [(Option<&str>, &str, i32, &str); 5] = [
            (None, "1400m", 0, ""),
            (
                None,
                "1401m",
                0,
                "quota q on m has 1401m of 2 requests.cpu in use and the release asks for 600m more",
            ),
            (None, "1600m", 1, ""),
            (Some("gantry-l0"), "2", 0, ""),
            (None, "3", 3, ""),
        ];
        for (class, used, there, want) in cases {
            let mut view = cell("a", 3, 1, 1);
            view.cluster = "m".into();
            for ordinal in 0..there {
                view.instances.get_mut(&ordinal).unwrap().revision = Some(2);
            }
            view.quotas = vec![Quota {
                name: "q".into(),
                classes: class.map(|c| vec![c.to_owned()]),
                hard: all(&[("requests.cpu", "2"), ("pods", "3")]),
                used: all(&[("requests.cpu", used), ("pods", "3")]),
            }];
            let revisions = Revisions::from([(1, one.clone()), (2, two.clone())]);
            let rooms = rooms(&[view], &sizes, &one, &two, &revisions);
            let said = refusals(&rooms).join("; ");
            assert!(
                said.contains(want) && said.is_empty() == want.is_empty(),
                "{used}: {said}"
            );
        }
    }

    #[test]
    fn nodes_refuse_nothing() {
        let (one, two) = (
            revision(1, json!({})),
            revision(2, json!({"requests": {"memory": "1Gi"}})),
        );
        let mut view = cell("a", 3, 1, 1);
        view.capacity = Capacity {
            total: all(&[("memory", "4Gi"), ("cpu", "1")]),
            requested: all(&[("memory", "2Gi")]),
        };
        let sizes = [CellSize {
            cell: "a".into(),
            replicas: 3,
        }];
        let rooms = rooms(
            &[view],
            &sizes,
            &one,
            &two,
            &Revisions::from([(1, one.clone())]),
        );
        assert_eq!(
            (rooms.len(), rooms[0].more.0.as_str(), rooms[0].fits),
            (1, "3Gi", false)
        );
        assert!(refusals(&rooms).is_empty());
        assert_eq!(
            told(&rooms),
            "; instances may wait for nodes: cell a has 2Gi of 4Gi memory asked for, and 3Gi more come"
        );
    }
}
