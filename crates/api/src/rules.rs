//! What the API server refuses beside the schemas' own bounds: CEL rules of the definitions
//! (`x-kubernetes-validations`), each with the field that it faults and the reason that a person reads.
//!
//! They stand in a table and not at the types, because a strategy is written in three places and read
//! in a fourth (a release's frozen plan), where nothing may be refused any more.
//!
//! The API server weighs each rule by the longest values that it may meet, and of a count or percentage it
//! reckons with megabytes of text: those are compared as they are, and never searched.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, ValidationRule,
};

/// A rule: the expression, the field it faults (below the node it stands at), what to say.
struct Rule {
    rule: &'static str,
    field: &'static str,
    message: &'static str,
}

const STRATEGY: &[Rule] = &[
    Rule {
        rule: "!has(self.maxUnavailable) || (self.maxUnavailable != 0 && self.maxUnavailable != '0' && self.maxUnavailable != '0%')",
        field: ".maxUnavailable",
        message: "no instance may be out of service, so none could ever be updated: allow at least 1",
    },
    Rule {
        rule: "!has(self.maxUnavailable) || !has(self.bastion) || !has(self.bastion.instances) || type(self.maxUnavailable) != int || self.bastion.instances <= self.maxUnavailable",
        field: ".bastion",
        message: "the bastion is kept out of service until it is accepted: it cannot have more instances than maxUnavailable allows out",
    },
    Rule {
        rule: "!has(self.batches) || !has(self.batches.sizes) || self.batches.sizes.all(s, s != 0 && s != '0' && s != '0%')",
        field: ".batches",
        message: "a batch of no instances never ends: every size must be at least 1 or 1%",
    },
    Rule {
        rule: "!has(self.deadlines) || !has(self.deadlines.instance) || duration(self.deadlines.instance) > duration('0s')",
        field: ".deadlines",
        message: "an instance needs some time to become ready: deadlines.instance must be longer than 0s",
    },
    Rule {
        rule: "!has(self.deadlines) || !has(self.deadlines.batch) || !has(self.deadlines.instance) || duration(self.deadlines.batch) >= duration(self.deadlines.instance)",
        field: ".deadlines",
        message: "deadlines.batch is shorter than deadlines.instance: a batch would be over before its instances may be",
    },
    Rule {
        rule: "!has(self.deadlines) || !has(self.deadlines.total) || !has(self.deadlines.batch) || duration(self.deadlines.total) >= duration(self.deadlines.batch)",
        field: ".deadlines",
        message: "deadlines.total is shorter than deadlines.batch",
    },
    Rule {
        rule: "!has(self.deadlines) || !has(self.deadlines.instance) || !has(self.minReady) || duration(self.minReady) == duration('0s') || !has(self.deadlines.batch) || duration(self.minReady) < duration(self.deadlines.batch)",
        field: ".minReady",
        message: "instances warm up for longer than deadlines.batch lets a batch take",
    },
    Rule {
        rule: "!has(self.gates) || self.gates.all(g, [has(g.wait), has(g.metric), has(g.webhook), has(g.approval)].filter(x, x).size() == 1)",
        field: ".gates",
        message: "a gate has exactly one of wait, metric, webhook and approval",
    },
    Rule {
        rule: "!has(self.gates) || self.gates.all(g, !has(g.metric) || has(g.metric.min) || has(g.metric.max) || has(g.metric.compare))",
        field: ".gates",
        message: "a metric without min, max and compare has no bound to keep",
    },
    Rule {
        rule: "!has(self.gates) || self.gates.all(g, !has(g.metric) || !has(g.metric.min) || !has(g.metric.max) || g.metric.min <= g.metric.max)",
        field: ".gates",
        message: "a metric's min is above its max: no value is within them",
    },
    Rule {
        rule: "!has(self.gates) || self.gates.all(g, !has(g.metric) || !has(g.metric.compare) || has(g.metric.compare.maxRatio) || has(g.metric.compare.maxAbove) || has(g.metric.compare.maxBelow))",
        field: ".gates",
        message: "compare needs one of maxRatio, maxAbove and maxBelow",
    },
    Rule {
        rule: "!has(self.gates) || self.gates.all(g, !has(g.metric) || !has(g.metric.compare) || g.metric.query.contains('{{pods}}'))",
        field: ".gates",
        message: "compare needs {{pods}} in the query, or both revisions would be asked the same",
    },
    Rule {
        rule: "!has(self.gates) || self.gates.all(g, !has(g.approval) || has(g.approval.users) || has(g.approval.groups))",
        field: ".gates",
        message: "an approval names users or groups who may give it",
    },
    Rule {
        rule: "!has(self.gates) || self.gates.all(g, !has(g.approval) || has(g.approval.groups) || !has(g.approval.users) || !has(g.approval.count) || g.approval.count <= g.approval.users.size())",
        field: ".gates",
        message: "an approval asks for more people than it names",
    },
    Rule {
        rule: "!has(self.windows) || self.windows.all(w, w.from != w.until)",
        field: ".windows",
        message: "a window ends when it begins: it would never be open",
    },
];

const GROUP: &[Rule] = &[Rule {
    rule: "has(self.adopt) == has(oldSelf.adopt) && (!has(self.adopt) || (self.adopt.kind == oldSelf.adopt.kind && self.adopt.name == oldSelf.adopt.name && self.adopt.cell == oldSelf.adopt.cell))",
    field: ".adopt",
    message: "what a group has adopted stays: give the instances back (gantry unmanage) and adopt them into another group",
}];

const RELEASE: &[Rule] = &[
    Rule {
        rule: "self.group == oldSelf.group",
        field: ".group",
        message: "a release stays with its group: make another release",
    },
    Rule {
        rule: "has(self.revision) == has(oldSelf.revision) && (!has(self.revision) || self.revision == oldSelf.revision)",
        field: ".revision",
        message: "what a release brings cannot be changed: abort or roll back this one and make another",
    },
    Rule {
        rule: "has(self.promote) == has(oldSelf.promote) && (!has(self.promote) || self.promote == oldSelf.promote)",
        field: ".promote",
        message: "what a release brings cannot be changed: abort or roll back this one and make another",
    },
    Rule {
        rule: "!has(self.promote) || !has(self.revision) || (!has(self.revision.to) && !has(self.revision.image) && !has(self.revision.images) && !has(self.revision.resources) && !has(self.revision.probes) && !has(self.revision.env) && !has(self.revision.unsetEnv) && !has(self.revision.config) && !has(self.revision.unsetConfig) && !has(self.revision.command) && !has(self.revision.args))",
        field: ".promote",
        message: "a promotion brings what another group runs: nothing else can be given beside it",
    },
    Rule {
        rule: "!has(oldSelf.retry) || (has(self.retry) && self.retry >= oldSelf.retry)",
        field: ".retry",
        message: "raise it to try again; it never goes down",
    },
    Rule {
        rule: "!has(oldSelf.abort) || !oldSelf.abort || (has(self.abort) && self.abort)",
        field: ".abort",
        message: "an abort cannot be taken back: make another release",
    },
    Rule {
        rule: "!has(oldSelf.rollback) || !oldSelf.rollback || (has(self.rollback) && self.rollback)",
        field: ".rollback",
        message: "a rollback cannot be taken back: make another release",
    },
    Rule {
        rule: "!has(oldSelf.approvals) || (has(self.approvals) && oldSelf.approvals.size() <= self.approvals.size() && oldSelf.approvals.all(a, self.approvals.exists(b, a == b)))",
        field: ".approvals",
        message: "what someone has said stays said: approvals are only added",
    },
    Rule {
        rule: "!has(self.pace) || !has(self.pace.maxUnavailable) || (self.pace.maxUnavailable != 0 && self.pace.maxUnavailable != '0' && self.pace.maxUnavailable != '0%')",
        field: ".pace",
        message: "no instance may be out of service, so none could be updated: use paused to stand still",
    },
];

const ORDER: &[Rule] = &[
    Rule {
        rule: "self.nodes.all(n, has(n.release) != has(n.job))",
        field: ".nodes",
        message: "a node is either a release or a job",
    },
    Rule {
        rule: "self.nodes.all(n, !has(n.after) || !(n.name in n.after))",
        field: ".nodes",
        message: "a node cannot come after itself",
    },
    Rule {
        rule: "self.nodes.all(n, !has(n.release) || !has(n.release.promote) || !has(n.release.promote.override))",
        field: ".nodes",
        message: "the order of environments is overridden in one's own name: start that promotion by itself",
    },
    Rule {
        rule: "self.nodes == oldSelf.nodes",
        field: ".nodes",
        message: "what an order does cannot be changed: abort or roll back this one and make another",
    },
    Rule {
        rule: "!has(oldSelf.retry) || (has(self.retry) && self.retry >= oldSelf.retry)",
        field: ".retry",
        message: "raise it to try again; it never goes down",
    },
    Rule {
        rule: "!has(oldSelf.abort) || !oldSelf.abort || (has(self.abort) && self.abort)",
        field: ".abort",
        message: "an abort cannot be taken back: make another order",
    },
    Rule {
        rule: "!has(oldSelf.rollback) || !oldSelf.rollback || (has(self.rollback) && self.rollback)",
        field: ".rollback",
        message: "a rollback cannot be taken back: make another order",
    },
];

const CHANGE: &[Rule] = &[Rule {
    rule: "!has(self.to) || (!has(self.image) && !has(self.images) && !has(self.resources) && !has(self.probes) && !has(self.env) && !has(self.unsetEnv) && !has(self.config) && !has(self.unsetConfig) && !has(self.command) && !has(self.args))",
    field: ".to",
    message: "it goes to a revision as it is: nothing else can be given beside it",
}];

const STOP_LINE: &[Rule] = &[Rule {
    rule: "!has(self.from) || !has(self.until) || self.from < self.until",
    field: ".until",
    message: "it ends before it begins",
}];

const PLACEMENT_POLICY: &[Rule] = &[
    Rule {
        rule: "has(self.spread) || has(self.strategy) || has(self.seek) || has(self.avoid) || has(self.pools) || has(self.exclusive) || has(self.load) || has(self.hardware) || has(self.numa)",
        field: ".pods",
        message: "it selects pods and says nothing of them: give a spread, strategy, seek, avoid, pools, exclusive, load, hardware or numa",
    },
    Rule {
        rule: "!has(self.spread) || self.spread.all(a, self.spread.exists_one(b, a.topologyKey == b.topologyKey))",
        field: ".spread",
        message: "a topologyKey is named twice: one spread for each",
    },
    Rule {
        rule: "!has(self.pools) || self.pools.all(a, self.pools.exists_one(b, a.name == b.name))",
        field: ".pools",
        message: "a pool is named twice",
    },
    Rule {
        rule: "!has(self.exclusive) || (has(self.exclusive.scope) && self.exclusive.scope == 'Pods') || (has(self.pods) && (has(self.pods.namespaces) || has(self.pods.apps) || has(self.pods.levels) || has(self.pods.selector)))",
        field: ".exclusive",
        message: "nodes cannot be set apart for all pods: choose some in pods, or give scope Pods",
    },
    Rule {
        rule: "!has(self.load) || has(self.load.cpu) || has(self.load.memory)",
        field: ".load",
        message: "it bounds nothing: give cpu or memory, in per cent",
    },
    Rule {
        rule: "!has(self.hardware) || has(self.hardware.required) || has(self.hardware.preferred)",
        field: ".hardware",
        message: "it asks for nothing: give required or preferred",
    },
];

const TENANT: &[Rule] = &[
    Rule {
        rule: "!has(self.namespaces) || self.namespaces.all(n, !n.startsWith('kube-') && n != 'gantry-system')",
        field: ".namespaces",
        message: "the system's own namespaces (kube-…, gantry-system) belong to no tenant",
    },
    Rule {
        rule: "!has(self.quotas) || self.quotas.filter(q, !has(q.priorityClasses) || q.priorityClasses.size() == 0).size() <= 1",
        field: ".quotas",
        message: "only one pool may count all pods: give the others priorityClasses",
    },
    Rule {
        rule: "!has(self.freezes) || self.freezes.all(f, !has(f.from) || !has(f.until) || f.from < f.until)",
        field: ".freezes",
        message: "a freeze ends before it begins",
    },
];

const NOTIFICATION: &[Rule] = &[Rule {
    rule: "has(self.url) != has(self.urlFrom)",
    field: ".url",
    message: "give one of url and urlFrom",
}];

/// Where which rules stand.
const PLACES: &[(&str, &[&str], &[Rule])] = &[
    ("Strategy", &["spec"], STRATEGY),
    ("Group", &["spec"], GROUP),
    ("Group", &["spec", "strategy", "inline"], STRATEGY),
    ("Release", &["spec", "strategy", "inline"], STRATEGY),
    ("Release", &["spec"], RELEASE),
    ("Release", &["spec", "revision"], CHANGE),
    ("ReleaseOrder", &["spec"], ORDER),
    ("StopLine", &["spec"], STOP_LINE),
    ("PlacementPolicy", &["spec"], PLACEMENT_POLICY),
    ("Tenant", &["spec"], TENANT),
    ("Notification", &["spec"], NOTIFICATION),
];

/// Puts the rules into a definition.
pub fn put(crd: &mut CustomResourceDefinition) {
    for (kind, path, rules) in PLACES.iter().filter(|(k, ..)| *k == crd.spec.names.kind) {
        for version in &mut crd.spec.versions {
            let schema = version
                .schema
                .as_mut()
                .and_then(|s| s.open_api_v3_schema.as_mut());
            if let Some(node) = schema.and_then(|s| at(s, path)) {
                debug_assert!(node.x_kubernetes_validations.is_none(), "{kind} {path:?}");
                node.x_kubernetes_validations = Some(rules.iter().map(written).collect());
            }
        }
    }
}

fn at<'a>(schema: &'a mut JSONSchemaProps, path: &[&str]) -> Option<&'a mut JSONSchemaProps> {
    path.iter().try_fold(schema, |node, field| {
        node.properties.as_mut()?.get_mut(*field)
    })
}

fn written(rule: &Rule) -> ValidationRule {
    ValidationRule {
        rule: rule.rule.to_owned(),
        field_path: Some(rule.field.to_owned()),
        message: Some(rule.message.to_owned()),
        ..ValidationRule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_finds_its_place() {
        let mut crds = crate::crds();
        crds.extend(crate::scheduling_crds());
        for (kind, path, rules) in PLACES {
            let mut crd = crds
                .iter()
                .find(|c| c.spec.names.kind == *kind)
                .unwrap()
                .clone();
            let schema = crd.spec.versions[0]
                .schema
                .as_mut()
                .and_then(|s| s.open_api_v3_schema.as_mut())
                .unwrap();
            let node = at(schema, path).unwrap_or_else(|| panic!("{kind} has no {path:?}"));
            let found = node.x_kubernetes_validations.as_ref().unwrap();
            assert_eq!(found.len(), rules.len(), "{kind} {path:?}");
            for rule in *rules {
                let field = rule.field.trim_start_matches('.');
                assert!(
                    node.properties.as_ref().unwrap().contains_key(field),
                    "{kind} {path:?} has no {field}"
                );
            }
        }
    }
}
