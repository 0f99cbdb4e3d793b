//! What placement policies would change, were they in force: every pod that runs is thought away and placed again,
//! without them and with them. Nothing is written.

use crate::Snapshot;
use crate::core::{Cluster, NodeId};
use gantry_api::PlacementPolicy;
use serde::Serialize;

/// What the policies would change.
#[derive(Serialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// What is said of each policy.
    pub policies: Vec<Told>,
    /// Pods that run.
    pub pods: usize,
    /// Those whose node would not take them any more.
    pub must_move: usize,
    /// Of these, those that no node would take.
    pub nowhere: usize,
    /// Those whose node would still do, but which would be placed elsewhere.
    pub would_differ: usize,
    /// The first of them.
    pub list: Vec<Moved>,
}

/// What is said of a policy.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// Pods that it selects.
    pub pods: i64,
    /// What of it cannot be followed.
    pub problems: Vec<String>,
}

/// A pod that would land elsewhere.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Namespace and name.
    pub pod: String,
    /// Its node.
    pub from: String,
    /// Absent: no node would take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// In one line.
    pub why: String,
}

/// Tries policies on a cluster as it is; `most` pods are listed.
#[must_use]
pub fn trial(snapshot: Snapshot, policies: &[PlacementPolicy], most: usize) -> Trial {
    let Snapshot {
        mut cluster,
        placed,
        ..
    } = snapshot;
    let before: Vec<_> = placed
        .iter()
        .map(|(uid, _)| (cluster.landing(uid), cluster.request_of(uid)))
        .collect();
    for policy in policies {
        cluster.set_policy(policy);
    }
    cluster.settle_rules();
    let mut report = Trial::default();
    for ((uid, key), before) in placed.iter().zip(before) {
        report.pods += 1;
        // Of whom the policies say nothing new goes nowhere else, though it may be a draw between nodes.
        let (before, request) = before;
        if request == cluster.request_of(uid) {
            continue;
        }
        let (Some(before), Some(after)) = (before, cluster.landing(uid)) else {
            continue;
        };
        // A node that would not take the pod any more, whatever the policies say, is none of their doing.
        let leaves = before.stays && !after.stays;
        // Who would land where it is does not move, wherever it would have landed without the policies.
        let own = cluster.placed(uid).map(|placed| placed.node);
        let differs = after.node != before.node && after.node != own;
        if !leaves && !differs {
            continue;
        }
        report.must_move += usize::from(leaves);
        report.nowhere += usize::from(leaves && after.node.is_none());
        report.would_differ += usize::from(!leaves);
        if report.list.len() < most {
            let moved = moved(&mut cluster, uid, key, after.node, leaves);
            report.list.push(moved);
        }
    }
    let pods = cluster.policy_pods();
    report.policies = policies
        .iter()
        .map(|policy| {
            let name = policy.metadata.name.clone().unwrap_or_default();
            Told {
                pods: pods.get(name.as_str()).copied().unwrap_or_default(),
                problems: cluster.policy_problems(&name),
                name,
            }
        })
        .collect();
    report
}

fn moved(cluster: &mut Cluster, uid: &str, key: &str, to: Option<NodeId>, leaves: bool) -> Moved {
    let placed = cluster.placed(uid);
    let from = placed.map(|p| cluster.node_name(p.node).to_owned());
    let refusal = if leaves { cluster.refusal(uid) } else { None };
    let why = refusal.unwrap_or_else(|| "another node would be better".to_owned());
    Moved {
        pod: key.to_owned(),
        from: from.unwrap_or_default(),
        to: to.map(|node| cluster.node_name(node).to_owned()),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::object::{Node, Pod};
    use serde_json::json;

    #[test]
    fn pods_that_a_policy_would_send_elsewhere_are_counted_and_named() {
        let mut cluster = Cluster::new();
        for (name, disk) in [("n1", "hdd"), ("n2", "ssd"), ("n3", "ssd")] {
            let node = json!({"metadata": {"name": name, "labels": {"disk": disk}},
                "status": {"allocatable": {"cpu": "2", "memory": "8Gi", "pods": "110"}}});
            let node: Node = serde_json::from_value(node).unwrap();
            cluster.upsert_node(&node);
        }
        let mut placed = Vec::new();
        for (name, node) in [("a", "n1"), ("b", "n1"), ("c", "n2"), ("d", "n3")] {
            let pod = json!({"metadata": {"name": name, "namespace": "shop", "uid": name}, "spec": {"containers": [
                {"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            cluster.observe(&pod, node);
            placed.push((name.into(), pod.key().into()));
        }
        let snapshot = Snapshot {
            cluster,
            waiting: Vec::new(),
            unowned: Default::default(),
            placed,
        };
        let policy: PlacementPolicy = serde_json::from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy", "metadata": {"name": "fast"},
            "spec": {"pods": {"namespaces": ["shop"]}, "hardware": {"required": {"disk": ["ssd"]}}}}))
        .unwrap();
        let report = trial(snapshot, &[policy], 1);
        assert_eq!((report.pods, report.must_move, report.nowhere), (4, 2, 0));
        assert_eq!(report.policies[0].pods, 4);
        assert_eq!(report.list.len(), 1);
        let first = &report.list[0];
        assert_eq!((first.pod.as_str(), first.from.as_str()), ("shop/a", "n1"));
        assert_eq!(first.why, "node(s) didn't match placement policy fast");
    }

    #[test]
    fn who_would_land_where_it_is_does_not_move() {
        let mut cluster = Cluster::new();
        // Without the policy the pod would be better off on the larger node.
        for (name, disk, cpu) in [("n1", "hdd", "8"), ("n2", "ssd", "2")] {
            let node = json!({"metadata": {"name": name, "labels": {"disk": disk}},
                "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}});
            cluster.upsert_node(&serde_json::from_value::<Node>(node).unwrap());
        }
        let pod = json!({"metadata": {"name": "a", "namespace": "shop", "uid": "a"}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        cluster.observe(&pod, "n2");
        let landing = cluster.landing("a").unwrap().node.unwrap();
        assert_eq!(cluster.node_name(landing), "n1");
        let snapshot = Snapshot {
            cluster,
            waiting: Vec::new(),
            unowned: Default::default(),
            placed: vec![("a".into(), pod.key().into())],
        };
        let policy: PlacementPolicy = serde_json::from_value(json!({
            "apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy", "metadata": {"name": "fast"},
            "spec": {"pods": {"namespaces": ["shop"]}, "hardware": {"required": {"disk": ["ssd"]}}}}))
        .unwrap();
        let report = trial(snapshot, &[policy], 5);
        assert_eq!((report.must_move, report.would_differ), (0, 0));
        assert_eq!(report.list, []);
    }
}
