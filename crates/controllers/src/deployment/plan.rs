//! The planner of a Deployment: one step of a rollout, and the status after it.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::{rollback, status};
use crate::hash::template_hash;
use crate::model::workload::{Deployment, DeploymentStatus, ReplicaSet, scaled};
use crate::model::{Labels, Meta};

/// Number of a revision: on a ReplicaSet which one it is, on a Deployment which one is newest.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier numbers of a revision that was rolled back to.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// `spec.replicas` of the Deployment when a ReplicaSet was last sized.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The same with the surge on top.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Asks for a rollback to this revision; 0 is the one before the newest.
pub const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
pub const TEMPLATE_HASH: &str = "pod-template-hash";

/// Annotations that a Deployment does not hand on to its ReplicaSets.
pub(super) const NOT_HANDED_ON: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    ROLLBACK_TO,
];

/// Characters that the noted earlier numbers of a revision may have.
const HISTORY_LENGTH: usize = 2000;

pub struct World<'a> {
    pub deployment: &'a Deployment,
    /// All ReplicaSets that it owns.
    pub sets: &'a [Arc<ReplicaSet>],
    /// Whether a ReplicaSet (by uid) has pods that have not finished; asked under Recreate.
    pub has_pods: &'a dyn Fn(&str) -> bool,
    pub now: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create the ReplicaSet of the template.
    Create {
        name: String,
        hash: String,
        replicas: i32,
        annotations: Labels,
    },
    /// Bring a ReplicaSet to this size, with these annotations and this readiness delay.
    Update {
        set: Arc<ReplicaSet>,
        replicas: i32,
        annotations: Labels,
        min_ready_seconds: i32,
    },
    Delete(Arc<ReplicaSet>),
    /// Note on the Deployment the number of its newest revision.
    SetRevision(String),
    /// Give the Deployment an earlier template and that one's annotations, if there are any, and
    /// take back the request to roll back.
    RollBack(Option<(Value, Labels)>),
}

/// A sentence for people about what was done: reason and message.
pub type Event = (&'static str, String);

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub events: Vec<Event>,
    pub warning: Option<Event>,
    pub status: DeploymentStatus,
    pub after: Option<Duration>,
}

/// A ReplicaSet as the plan leaves it.
#[derive(Clone)]
pub(super) struct Sized {
    /// `None` while it is only planned.
    pub set: Option<Arc<ReplicaSet>>,
    pub name: Arc<str>,
    pub replicas: i32,
    pub annotations: Labels,
    pub min_ready_seconds: i32,
    hash: String,
}

impl Sized {
    fn of(set: &Arc<ReplicaSet>) -> Self {
        Sized {
            name: set.metadata.name.clone(),
            replicas: set.spec.replicas.unwrap_or(1),
            annotations: set.metadata.annotations.clone(),
            min_ready_seconds: set.spec.min_ready_seconds,
            hash: String::new(),
            set: Some(set.clone()),
        }
    }

    pub fn status(&self, get: impl Fn(&ReplicaSet) -> i32) -> i32 {
        self.set.as_deref().map_or(0, get)
    }

    pub fn available(&self) -> i32 {
        self.status(|s| s.status.available_replicas)
    }

    pub fn revision(&self) -> i64 {
        number(&self.annotations, REVISION).unwrap_or(0)
    }

    fn created(&self) -> (Option<Timestamp>, Arc<str>) {
        let created = self.set.as_ref().and_then(|s| s.metadata.created);
        (created, self.name.clone())
    }

    pub fn meta(&self) -> Option<&Meta> {
        self.set.as_ref().map(|s| &s.metadata)
    }
}

pub(super) fn number(annotations: &Labels, key: &str) -> Option<i64> {
    annotations.get(key)?.parse().ok()
}

/// What the step has done to the ReplicaSets so far.
pub(super) struct Step<'a> {
    pub world: &'a World<'a>,
    pub new: Option<Sized>,
    /// Oldest first.
    pub old: Vec<Sized>,
    pub events: Vec<Event>,
    revision: Option<String>,
    deleted: Vec<Arc<ReplicaSet>>,
}

/// `(maxSurge, maxUnavailable)` of a rolling update, resolved against the number of replicas.
pub fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let replicas = deployment.spec.replicas.unwrap_or(1);
    let rolling = deployment.spec.strategy.rolling_update.as_ref();
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), replicas, true);
    let unavailable = scaled(
        rolling.and_then(|r| r.max_unavailable.as_ref()),
        replicas,
        false,
    );
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

impl Step<'_> {
    fn deployment(&self) -> &Deployment {
        self.world.deployment
    }

    pub fn wanted(&self) -> i32 {
        self.deployment().spec.replicas.unwrap_or(1)
    }

    pub fn rolling(&self) -> bool {
        self.deployment().spec.strategy.kind != "Recreate"
    }

    pub fn max_surge(&self) -> i32 {
        if self.rolling() {
            fenceposts(self.deployment()).0
        } else {
            0
        }
    }

    pub fn max_unavailable(&self) -> i32 {
        if !self.rolling() || self.wanted() == 0 {
            return 0;
        }
        fenceposts(self.deployment()).1.min(self.wanted())
    }

    pub fn all(&self) -> impl Iterator<Item = &Sized> {
        self.old.iter().chain(&self.new)
    }

    pub fn total(&self) -> i32 {
        self.all().map(|s| s.replicas).sum()
    }

    /// Finds the ReplicaSet of the template, brings its annotations up to date, or plans it.
    fn find_new(&mut self, create: bool) {
        let newest = self.old.iter().map(Sized::revision).max().unwrap_or(0) + 1;
        let deployment = self.world.deployment;
        if let Some(new) = &mut self.new {
            let mut annotations = handed_on(&deployment.metadata.annotations, &new.annotations);
            annotations = renumbered(&annotations, newest);
            new.annotations = annotations;
            new.min_ready_seconds = deployment.spec.min_ready_seconds;
            self.revision = new.annotations.get(REVISION).map(str::to_owned);
            return;
        }
        if !create {
            return;
        }
        let hash = template_hash(&deployment.spec.template, deployment.status.collision_count);
        let annotations = handed_on(&deployment.metadata.annotations, &Labels::default());
        let mut new = Sized {
            set: None,
            name: format!("{}-{hash}", deployment.metadata.name).into(),
            replicas: 0,
            annotations: renumbered(&annotations, newest),
            min_ready_seconds: deployment.spec.min_ready_seconds,
            hash,
        };
        new.replicas = self.new_size(&new);
        self.annotate(&mut new);
        if new.replicas > 0 {
            self.events.push((
                "ScalingReplicaSet",
                format!(
                    "Scaled up replica set {} from 0 to {}",
                    new.name, new.replicas
                ),
            ));
        }
        self.revision = new.annotations.get(REVISION).map(str::to_owned);
        self.new = Some(new);
    }

    /// The size to which the new ReplicaSet may grow now.
    fn new_size(&self, new: &Sized) -> i32 {
        if !self.rolling() {
            return self.wanted();
        }
        let current = self.old.iter().map(|s| s.replicas).sum::<i32>() + new.replicas;
        let room = self.wanted() + self.max_surge() - current;
        if room <= 0 {
            new.replicas
        } else {
            new.replicas + room.min(self.wanted() - new.replicas)
        }
    }

    /// Notes on a ReplicaSet the sizes that proportions are later reckoned from.
    pub fn annotate(&self, set: &mut Sized) {
        let max = self.wanted() + self.max_surge();
        set.annotations = set
            .annotations
            .with(DESIRED, &self.wanted().to_string())
            .with(MAX, &max.to_string());
    }

    /// Sizes one ReplicaSet; true if that changes its size.
    pub fn resize(&mut self, which: Which, replicas: i32) -> bool {
        let Some(mut set) = self.at(which).cloned() else {
            return false;
        };
        let from = set.replicas;
        set.replicas = replicas;
        self.annotate(&mut set);
        let name = set.name.clone();
        match which {
            Which::New => self.new = Some(set),
            Which::Old(i) => {
                if let Some(place) = self.old.get_mut(i) {
                    *place = set;
                }
            }
        }
        if from == replicas {
            return false;
        }
        let direction = if from < replicas { "up" } else { "down" };
        self.events.push((
            "ScalingReplicaSet",
            format!("Scaled {direction} replica set {name} from {from} to {replicas}"),
        ));
        true
    }

    pub fn at(&self, which: Which) -> Option<&Sized> {
        match which {
            Which::New => self.new.as_ref(),
            Which::Old(i) => self.old.get(i),
        }
    }

    fn roll(&mut self) {
        self.find_new(true);
        if self.grow_new() {
            return;
        }
        if self.shrink_old() {
            return;
        }
        self.tidy_if_complete();
    }

    fn grow_new(&mut self) -> bool {
        let Some(new) = &self.new else { return false };
        let wanted = self.wanted();
        if new.set.is_none() || new.replicas == wanted {
            // One just planned has its size already.
            return new.set.is_none();
        }
        let size = if new.replicas > wanted {
            wanted
        } else {
            self.new_size(new)
        };
        self.resize(Which::New, size)
    }

    fn shrink_old(&mut self) -> bool {
        if self.old.iter().map(|s| s.replicas).sum::<i32>() == 0 {
            return false;
        }
        let min_available = self.wanted() - self.max_unavailable();
        let new_unavailable = self
            .new
            .as_ref()
            .map_or(0, |new| new.replicas - new.available());
        let max_down = self.total() - min_available - new_unavailable;
        if max_down <= 0 {
            return false;
        }
        // Unhealthy ones first: they hold up the rollout and serve nobody.
        let mut down = 0;
        for i in 0..self.old.len() {
            let set = &self.old[i];
            let unhealthy = set.replicas - set.available();
            if down >= max_down {
                break;
            }
            if set.replicas == 0 || unhealthy <= 0 {
                continue;
            }
            let n = unhealthy.min(max_down - down);
            let size = set.replicas - n;
            self.resize(Which::Old(i), size);
            down += n;
        }
        let mut changed = down > 0;
        let available: i32 = self.all().map(Sized::available).sum();
        let mut left = available - min_available;
        for i in 0..self.old.len() {
            if left <= 0 {
                break;
            }
            let replicas = self.old[i].replicas;
            if replicas == 0 {
                continue;
            }
            let n = replicas.min(left);
            changed |= self.resize(Which::Old(i), replicas - n);
            left -= n;
        }
        changed
    }

    fn recreate(&mut self) {
        self.find_new(false);
        let mut scaled_down = false;
        for i in 0..self.old.len() {
            if self.old[i].replicas > 0 {
                scaled_down |= self.resize(Which::Old(i), 0);
            }
        }
        if scaled_down {
            return;
        }
        let running = self.old.iter().any(|s| {
            s.status(|s| s.status.replicas) > 0
                || s.meta().is_some_and(|m| (self.world.has_pods)(&m.uid))
        });
        if running {
            return;
        }
        self.find_new(true);
        if self.new.as_ref().is_some_and(|n| n.set.is_some()) {
            let wanted = self.wanted();
            self.resize(Which::New, wanted);
        }
        self.tidy_if_complete();
    }

    fn tidy_if_complete(&mut self) {
        if status::complete(self.deployment(), &self.deployment().status) {
            self.tidy();
        }
    }

    /// Forgets the oldest ReplicaSets beyond the history limit.
    fn tidy(&mut self) {
        let limit = self.deployment().spec.revision_history_limit;
        let Some(limit) = limit.filter(|l| *l != i32::MAX) else {
            return;
        };
        let mut candidates: Vec<Sized> = self
            .old
            .iter()
            .filter(|s| s.meta().is_some_and(|m| m.deleted.is_none()))
            .cloned()
            .collect();
        candidates.sort_by_key(|s| (s.revision(), s.created()));
        let excess = candidates
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        for candidate in candidates.into_iter().take(excess) {
            let Some(set) = candidate.set else { continue };
            let idle = set.status.replicas == 0
                && set.spec.replicas.unwrap_or(1) == 0
                && set.metadata.generation <= set.status.observed_generation;
            if idle {
                self.deleted.push(set);
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    New,
    Old(usize),
}

/// The ReplicaSet's annotations with those of the Deployment laid over them.
fn handed_on(deployment: &Labels, set: &Labels) -> Labels {
    let over: Vec<(&str, &str)> = deployment
        .iter()
        .filter(|(k, _)| !NOT_HANDED_ON.contains(k))
        .collect();
    set.iter()
        .filter(|(k, _)| !over.iter().any(|(o, _)| o == k))
        .chain(over.iter().copied())
        .collect()
}

/// Gives a ReplicaSet the revision number `newest`, if it has a lower one, and notes that one.
fn renumbered(annotations: &Labels, newest: i64) -> Labels {
    let text = annotations.get(REVISION);
    let had = match text.filter(|t| !t.is_empty()) {
        None => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(had) => had,
            // What somebody has written there is not understood, and left.
            Err(_) => return annotations.clone(),
        },
    };
    if had >= newest {
        return annotations.clone();
    }
    let numbered = annotations.with(REVISION, &newest.to_string());
    let Some(text) = text else { return numbered };
    match lengthened(annotations.get(REVISION_HISTORY).unwrap_or_default(), text) {
        Some(history) => numbered.with(REVISION_HISTORY, &history),
        None => numbered,
    }
}

/// The earlier numbers of a revision with one more, without the oldest where there are too many.
fn lengthened(history: &str, number: &str) -> Option<String> {
    let mut before = history;
    while before.len() + number.len() + 1 > HISTORY_LENGTH && !before.is_empty() {
        before = before.split_once(',').map_or("", |(_, rest)| rest);
    }
    if before.is_empty() {
        return (number.len() < HISTORY_LENGTH).then(|| number.to_owned());
    }
    Some(format!("{before},{number}"))
}

/// Whether two templates differ in nothing but `pod-template-hash`.
pub(super) fn same_template(a: &Value, b: &Value) -> bool {
    fn labels(template: &Value) -> Labels {
        Labels::from_json(template.pointer("/metadata/labels")).without(TEMPLATE_HASH)
    }
    fn rest(template: &Value) -> (Option<&Value>, Labels) {
        (
            template.get("spec"),
            Labels::from_json(template.pointer("/metadata/annotations")),
        )
    }
    labels(a) == labels(b) && rest(a) == rest(b)
}

pub fn plan(world: &World<'_>) -> Plan {
    let deployment = world.deployment;
    let mut sets: Vec<Sized> = world.sets.iter().map(Sized::of).collect();
    sets.sort_by_key(Sized::created);
    let template = &deployment.spec.template;
    let at = sets.iter().position(|s| {
        s.set
            .as_ref()
            .is_some_and(|s| same_template(&s.spec.template, template))
    });
    let new = at.map(|i| sets.remove(i));
    let mut step = Step {
        world,
        new,
        old: sets,
        events: Vec::new(),
        revision: None,
        deleted: Vec::new(),
    };
    let created = step.new.is_none();

    let mut deployment_status = deployment.status.clone();
    let paused = deployment.spec.paused;
    if deployment.metadata.deleted.is_none() {
        status::note_pause(deployment, &mut deployment_status, world.now);
        if let Some(to) = rollback::asked_for(deployment).filter(|_| !paused) {
            step.find_new(true);
            return step.roll_back(to, deployment_status);
        }
        let scaling = step.all().filter(|s| s.replicas > 0).any(|s| {
            number(&s.annotations, DESIRED).is_some_and(|d| d != i64::from(step.wanted()))
        });
        if paused || scaling {
            step.find_new(false);
            step.scale();
            if paused {
                step.tidy();
            }
        } else if step.rolling() {
            step.roll();
        } else {
            step.recreate();
        }
        let created = created && step.new.is_some();
        let rollout = !(paused || scaling);
        status::after(&step, created, rollout, &mut deployment_status);
    } else {
        status::after(&step, false, false, &mut deployment_status);
    }

    let after = status::look_again(deployment, &deployment_status, world);
    let mut plan = step.plan(deployment_status);
    plan.after = after;
    plan
}

impl Step<'_> {
    /// What is to be done to come from what there is to what the step has made of it.
    pub(super) fn plan(mut self, status: DeploymentStatus) -> Plan {
        let deployment = self.world.deployment;
        let mut plan = Plan {
            status,
            ..Plan::default()
        };
        for sized in self.new.iter().chain(&self.old) {
            match &sized.set {
                None => plan.actions.push(Action::Create {
                    name: sized.name.to_string(),
                    hash: sized.hash.clone(),
                    replicas: sized.replicas,
                    annotations: sized.annotations.clone(),
                }),
                Some(set)
                    if set.spec.replicas != Some(sized.replicas)
                        || set.metadata.annotations != sized.annotations
                        || set.spec.min_ready_seconds != sized.min_ready_seconds =>
                {
                    plan.actions.push(Action::Update {
                        set: set.clone(),
                        replicas: sized.replicas,
                        annotations: sized.annotations.clone(),
                        min_ready_seconds: sized.min_ready_seconds,
                    });
                }
                Some(_) => {}
            }
        }
        plan.actions.extend(
            std::mem::take(&mut self.deleted)
                .into_iter()
                .map(Action::Delete),
        );
        if let Some(revision) = self.revision.take()
            && deployment.metadata.annotations.get(REVISION) != Some(&revision)
        {
            plan.actions.push(Action::SetRevision(revision));
        }
        plan.events = self.events;
        plan
    }
}

/// Larger first, newer first among equals.
pub(super) fn by_size_newer(step: &Step<'_>, which: Which) -> impl Ord + use<> {
    let set = step.at(which);
    (
        Reverse(set.map_or(0, |s| s.replicas)),
        Reverse(set.map(Sized::created)),
    )
}

/// Larger first, older first among equals.
pub(super) fn by_size_older(step: &Step<'_>, which: Which) -> impl Ord + use<> {
    let set = step.at(which);
    (
        Reverse(set.map_or(0, |s| s.replicas)),
        set.map(Sized::created),
    )
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
