//! What is written of nodes: their creation, their status, their leases; and what comes of it.

use super::{
    timer::{Id, Timer},
    world::{Answer, Due, Subject, World, Write, retry_after},
};
use crate::{behaviour::Draw, clock::Millis, node, object::Taint};
use serde_json::{Value, json};
use std::time::Duration;

const NODES: &str = "/api/v1/nodes";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const TOPOLOGIES: &str = "/apis/topology.node.k8s.io/v1alpha2/noderesourcetopologies";
/// Put on nodes that do not report; the node's own report takes them off.
pub(super) const LIFECYCLE_TAINTS: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];
/// Leases are renewed at so many moments of their interval at least,
const BEATS: f64 = 20.0;
/// and this far apart at most.
const LONGEST_BEAT: Duration = Duration::from_millis(500);

impl World {
    pub(super) fn queue_node(&mut self, id: Id) {
        let Some(entry) = self.nodes.get_mut(id) else {
            return;
        };
        let due = entry.in_use_due.is_some()
            || entry.range_due
            || entry.register
            || entry.renamed
            || entry.report
            || entry.untaint;
        if !entry.busy && due && !entry.fate.away() {
            entry.busy = true;
            self.urgent.push_back(Due::Node(id));
        }
    }

    pub(super) fn report_due(&mut self, id: Id, now: Millis) {
        let Some(entry) = self.nodes.get_mut(id) else {
            return;
        };
        entry.report = true;
        self.timers
            .at(now.plus(self.options.status_interval), Timer::Report(id));
        self.queue_node(id);
    }

    /// A lease is to be renewed, if that is the time for which it was planned last.
    pub(super) fn lease_due(&mut self, id: Id, at: Millis) {
        if let Some(entry) = self.nodes.get_mut(id)
            && entry.lease_wake == Some(at)
            && !entry.leasing
        {
            entry.leasing = true;
            self.urgent.push_back(Due::Lease(id));
        }
    }

    pub(super) fn lease_write(&mut self, id: Id, now: Millis) -> Option<(Subject, Write)> {
        let entry = self.nodes.get_mut(id)?;
        if entry.fate.away() {
            // Taken up again when it is back.
            entry.leasing = false;
            return None;
        }
        let now = now.shifted(entry.fate.skew);
        Some(if entry.leased {
            let renewal = node::lease_renewal(&entry.name, now);
            (
                Subject::Lease(id),
                Write::Merge(LEASES.into(), entry.name.to_string(), renewal),
            )
        } else {
            (
                Subject::LeaseCreate(id),
                Write::Create(LEASES.into(), node::lease(&entry.name, &entry.uid, now)),
            )
        })
    }

    pub(super) fn create_write(&self, index: u32, now: Millis) -> Option<(Subject, Write)> {
        let it = self.missing.get(index as usize)?;
        let group = self.options.groups.get(it.group)?;
        let body = node::node(
            group,
            &it.name,
            &it.ip,
            (self.options.kubelet_port(), self.options.named()),
            &it.range,
            now,
        );
        Some((Subject::Create(index), Write::Create(NODES.into(), body)))
    }

    pub(super) fn topology_write(&self, index: u32) -> Option<(Subject, Write)> {
        let it = self.missing.get(index as usize)?;
        let body = node::topology(self.options.groups.get(it.group)?, &it.name);
        let write = Write::Create(TOPOLOGIES.into(), body);
        (!self.topology_missed).then_some((Subject::Topology(index), write))
    }

    pub(super) fn node_write(&mut self, id: Id, now: Millis) -> Option<(Subject, Write)> {
        let (port, named) = (self.options.kubelet_port(), self.options.named());
        let entry = self.nodes.get_mut(id)?;
        if entry.fate.away() {
            entry.busy = false;
            return None;
        }
        let pressures = entry.fate.pressures(now);
        let now = now.shifted(entry.fate.skew);
        let name = entry.name.to_string();
        if entry.range_due {
            let patch = json!({"spec": {"podCIDR": entry.range, "podCIDRs": [entry.range]}});
            return Some((
                Subject::NodeRange(id),
                Write::Strategic(NODES.into(), name, None, patch),
            ));
        }
        if entry.register || entry.renamed {
            let who = node::Identity {
                name: &name,
                ip: &entry.ip,
                port,
                version: &entry.version,
                boots: entry.fate.boots,
                named,
            };
            let mut status = node::node_status(
                &who,
                &entry.capacity,
                &entry.allocatable,
                &entry.conditions,
                pressures,
                now,
            );
            if let Some(addresses) = status["addresses"].as_array_mut().filter(|_| !named) {
                addresses.push(json!({"type": "Hostname", "$patch": "delete"}));
            }
            let patch = json!({"status": status});
            return Some((
                Subject::NodeStatus(id),
                Write::Strategic(NODES.into(), name, Some("status"), patch),
            ));
        }
        if let Some(volumes) = &entry.in_use_due {
            let mut patch = node::heartbeat(&entry.conditions, pressures, now);
            patch["status"]["volumesInUse"] = json!(volumes);
            return Some((
                Subject::NodeVolumes(id),
                Write::Strategic(NODES.into(), name, Some("status"), patch),
            ));
        }
        if entry.report {
            let patch = node::heartbeat(&entry.conditions, pressures, now);
            return Some((
                Subject::NodeStatus(id),
                Write::Strategic(NODES.into(), name, Some("status"), patch),
            ));
        }
        if entry.untaint {
            // Taints are a list without a key, so it is written whole, on this version only.
            let rest: Vec<&Taint> = entry
                .taints
                .iter()
                .filter(|it| !LIFECYCLE_TAINTS.contains(&it.key.as_str()))
                .collect();
            let taints = if rest.is_empty() {
                Value::Null
            } else {
                json!(rest)
            };
            let patch = json!({
                "metadata": {"resourceVersion": entry.resource_version},
                "spec": {"taints": taints},
            });
            return Some((
                Subject::NodeTaints(id),
                Write::Merge(NODES.into(), name, patch),
            ));
        }
        entry.busy = false;
        None
    }

    pub(super) fn node_answered(&mut self, subject: Subject, answer: &Answer, now: Millis) {
        match subject {
            Subject::Create(index) => {
                if *answer == Answer::Conflict {
                    let name = self.missing.get(index as usize).map(|it| it.name.as_str());
                    tracing::info!(
                        name,
                        "the node exists; it is acted for if it is labelled as simulated"
                    );
                }
                let group = self.missing.get(index as usize).map(|it| it.group);
                let group = group.and_then(|it| self.options.groups.get(it));
                if *answer == Answer::Done && group.is_some_and(|it| it.numa > 0) {
                    self.queue.push_back(Due::Topology(index));
                }
                if let (Answer::Failed(_) | Answer::Missing, Some(it)) =
                    (answer, self.missing.get_mut(index as usize))
                {
                    it.failures += 1;
                    let wait = retry_after(&it.name, it.failures);
                    self.timers.at(now.plus(wait), Timer::Create(index));
                }
            }
            Subject::LeaseNamespace => self.lease_namespace_asked = false,
            Subject::Topology(_) => match answer {
                Answer::Done | Answer::Conflict => {}
                Answer::Missing if !self.topology_missed => {
                    self.topology_missed = true;
                    tracing::warn!(
                        "the cluster knows no NodeResourceTopology: NUMA nodes go untold"
                    );
                }
                Answer::Missing => {}
                Answer::Failed(error) => tracing::warn!(error, "cannot tell of NUMA nodes"),
            },
            Subject::LeaseCreate(id) | Subject::Lease(id) => {
                self.lease_answered(id, subject, answer, now)
            }
            Subject::NodeStatus(id)
            | Subject::NodeVolumes(id)
            | Subject::NodeRange(id)
            | Subject::NodeTaints(id) => {
                let Some(entry) = self.nodes.get_mut(id) else {
                    return;
                };
                if *answer != Answer::Done {
                    // After a conflict the watch brings the version to go by.
                    entry.failures += 1;
                    let wait = retry_after(&entry.name, entry.failures);
                    self.timers.at(now.plus(wait), Timer::NodeWrite(id));
                    return;
                }
                entry.failures = 0;
                match subject {
                    Subject::NodeRange(_) => entry.range_due = false,
                    Subject::NodeTaints(_) => entry.untaint = false,
                    Subject::NodeVolumes(_) => {
                        entry.report = false;
                        if let Some(told) = entry.in_use_due.take() {
                            entry.in_use = told;
                        }
                    }
                    _ => (entry.register, entry.renamed, entry.report) = (false, false, false),
                }
                entry.busy = false;
                self.queue_node(id);
            }
            Subject::PodStatus(_)
            | Subject::PodDelete(_)
            | Subject::Mirror(..)
            | Subject::Slice(..)
            | Subject::Claim(_) => {}
        }
    }

    fn lease_answered(&mut self, id: Id, subject: Subject, answer: &Answer, now: Millis) {
        let interval = self.options.lease_interval;
        let Some(entry) = self.nodes.get_mut(id) else {
            return;
        };
        entry.leasing = false;
        let creating = matches!(subject, Subject::LeaseCreate(_));
        let wait = match answer {
            Answer::Done => {
                // The first renewals spread over the interval, the later ones keep the distance.
                let wait = if creating {
                    interval.mul_f64(Draw::new(0).word(&entry.name).unit())
                } else {
                    interval
                };
                (entry.leased, entry.lease_failures) = (true, 0);
                // Leases that are due together are committed together: the API's disk is written
                // once for some dozens of them.
                let beat = interval.div_f64(BEATS).min(LONGEST_BEAT);
                let at = now.plus(wait).floor(beat);
                entry.lease_wake = Some(at);
                self.timers.at(at, Timer::Lease(id));
                return;
            }
            // It is there: renew it. It is not: create it.
            Answer::Conflict if creating => {
                entry.leased = true;
                Duration::ZERO
            }
            Answer::Missing if !creating => {
                entry.leased = false;
                Duration::ZERO
            }
            other => {
                entry.lease_failures += 1;
                let wait = retry_after(&entry.name, entry.lease_failures).min(interval);
                if creating && *other == Answer::Missing && !self.lease_namespace_asked {
                    self.lease_namespace_asked = true;
                    self.urgent.push_back(Due::LeaseNamespace);
                }
                wait
            }
        };
        let at = now.plus(wait);
        if let Some(entry) = self.nodes.get_mut(id) {
            entry.lease_wake = Some(at);
        }
        self.timers.at(at, Timer::Lease(id));
    }
}
