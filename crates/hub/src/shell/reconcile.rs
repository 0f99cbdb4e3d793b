//! One Group: look, ask the planners, write the release's status, act, write the group's status.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use gantry_api::{
    Cluster, Group, Release, ReleaseStatus, StopLine, StrategySpec, group::AdoptKind, labels,
    strategy::StrategyChoice,
};
use jiff::Timestamp;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use serde_json::json;
use tracing::{debug, warn};

use super::{
    act::{ActError, Hands, read_revision},
    adopt::Held,
    hub::Hub,
    member::Member,
    nodes,
    table::Key,
};
use crate::{
    action::Action,
    group, order,
    release::{self, gate::Answers},
    world::{CellView, Quota, Revisions},
};

/// Before what an adoption or a leaving failed to do is tried again.
const HELD: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);

/// What one look at a Group came to.
pub enum Outcome {
    /// Look again at that time, if at all.
    Done(Option<Timestamp>),
    /// The view was stale: look again at once.
    Conflict,
    /// Something failed: look again with patience.
    Failed(String),
}

impl Hub {
    /// One look at the Group `key`.
    pub async fn reconcile(self: &Arc<Self>, key: &Key) -> Outcome {
        let now = Timestamp::now();
        let releases = self.releases.of_group(key);
        let Some(group) = self.groups.get(key) else {
            self.forget(key);
            return self.without_group(&releases, now).await;
        };
        let begins = |r: &Arc<Release>| {
            let status = r.status.as_ref();
            status.is_none_or(|s| s.plan.is_none() && !s.phase.is_final())
        };
        let planning = releases.iter().any(begins);
        let (mut cells, members, selectors) = self.cells(&group, key, planning);
        nodes::look(&group, key, &mut cells, &members).await;
        group::people::mark(&group, &mut cells);
        let revisions: Revisions = self
            .revisions
            .of_group(key)
            .iter()
            .filter_map(|r| read_revision(r))
            .map(|r| (r.number, r))
            .collect();
        let app = self.apps.get(&(key.0.clone(), group.spec.app.clone()));

        let mut view = group::ReleaseView::default();
        let mut wake = None;
        let mut release_actions = Vec::new();
        let mut later = None;
        let memory = self.memory(key);
        let list: Vec<&Release> = releases.iter().map(AsRef::as_ref).collect();
        for release in &list {
            let status = release.status.as_ref();
            let ended = status.is_some_and(|s| s.phase.is_final());
            let refs = status
                .into_iter()
                .flat_map(|s| s.from.iter().chain(&s.target))
                .map(|r| r.revision);
            if !ended {
                view.referred.extend(refs);
            }
        }
        if let Some(governing) = release::governing(&list)
            && group.metadata.deletion_timestamp.is_none()
        {
            for other in list.iter().filter(|r| {
                r.name_any() != governing.name_any()
                    && !r.status.as_ref().is_some_and(|s| s.phase.is_final())
            }) {
                let status = release::queued(other, &governing.name_any(), now);
                if let Err(error) = self.write_release(other, status).await {
                    return self.outcome(error);
                }
            }
            let answers = self.asked.answers(key);
            let lines = self.lines();
            let seen = memory.told.release(governing);
            let world = release::World {
                release: &seen,
                group: Some(&group),
                app: app.as_deref(),
                strategy: self
                    .strategy(&key.0, governing, &group)
                    .map(|mut strategy| {
                        strategy.resolve_tags.get_or_insert(self.resolve_tags);
                        strategy
                    }),
                revisions: &revisions,
                cells: &cells,
                lines: &lines,
                answers: &answers,
                origin: self.origin(&key.0, governing),
                undoes: self.undoes(&key.0, governing),
            };
            let step = release::settle(&world, now);
            wake = step.wake;
            let asks = step.asks;
            release_actions = step.actions;
            view.holds = step.holds;
            view.spared = step.spared;
            view.accepted = step.accepted;
            view.frozen = step.frozen;
            view.replace_guests = step.status.reason == release::ADOPTED;
            view.aborted = step.status.phase == gantry_api::Phase::Aborted;
            view.referred.extend(
                step.status
                    .from
                    .iter()
                    .chain(&step.status.target)
                    .map(|r| r.revision),
            );
            if step.status.phase.is_active() {
                let working = step.status.working.iter().map(|w| w.name.clone());
                view.chosen = working.collect();
                view.max_out = step.status.plan.is_some().then_some(step.status.max_out);
                view.target = if step.status.rollback.is_some() {
                    step.status.from.clone()
                } else {
                    step.status.target.clone()
                };
                if let Some(target) = &mut view.target {
                    target.release = Some(governing.name_any());
                }
            }
            // Decisions first: what follows from them may be lost, they may not.
            match memory
                .told
                .waits(governing, &step.status, release::told::PACE, now)
            {
                Some(due) => later = Some((governing, step.status, due)),
                None => {
                    let news = governing.status.as_ref() != Some(&step.status);
                    if let Err(error) = self.write_release(governing, step.status).await {
                        return self.outcome(error);
                    }
                    self.note(key, |m| m.told.said(news.then_some(now)));
                }
            }
            self.asked.taken(key, &answers);
            self.ask(key, asks);
        }

        let views: BTreeMap<String, group::MemberView> = members
            .values()
            .map(|m| {
                let known = group::MemberView {
                    reachable: m.trouble().is_none(),
                    supported: memory.supported.get(&m.name).cloned(),
                    cleaned: memory.cleaned.contains(&m.name),
                };
                (m.name.clone(), known)
            })
            .collect();
        let held = self
            .hold(
                &Hands {
                    hub: &self.client,
                    group: &group,
                    app: app.as_deref(),
                    revisions: &revisions,
                    table: &self.revisions,
                    groups: &self.groups,
                    members: &members,
                    selectors: &selectors,
                    in_use: Vec::new(),
                },
                key,
                &cells,
                now,
            )
            .await;
        let (held, came) = match held {
            Ok(Held::No) => (None, None),
            Ok(Held::Waits(why, at)) => {
                wake = release::tell::earlier(wake, Some(at));
                (Some(why), None)
            }
            Ok(Held::Came(adopted)) => (None, Some(adopted)),
            Err(error @ ActError::Conflict(_)) => return self.outcome(error),
            Err(error) => {
                let at = now + HELD;
                wake = release::tell::earlier(wake, Some(at));
                (Some(error.to_string()), None)
            }
        };
        let world = group::World {
            group: &group,
            app: app.as_deref(),
            revisions: &revisions,
            cells: &cells,
            members: &views,
            release: view,
            trouble: memory.trouble.clone(),
            held,
        };
        let mut step = group::plan(&world, now);
        if came.is_some() {
            step.status.adopted = came;
        }
        let current = step.status.current.as_ref().map(|c| c.revision);
        let in_use = group::revisions_in_use(&revisions, current, &world.release);
        let desired = step.desired.clone();
        let hands = Hands {
            hub: &self.client,
            group: &group,
            app: app.as_deref(),
            revisions: &revisions,
            table: &self.revisions,
            groups: &self.groups,
            members: &members,
            selectors: &selectors,
            in_use: in_use.clone(),
        };
        if let Some((release, status, due)) = later {
            if step.actions.is_empty() && release_actions.is_empty() {
                self.note(key, |m| m.told.keep(release, status));
                wake = release::tell::earlier(wake, Some(due));
            } else if let Err(error) = self.write_release(release, status).await {
                return self.outcome(error);
            } else {
                self.note(key, |m| m.told.said(Some(now)));
            }
        }
        let mut failure: Option<ActError> = None;
        let mut blocked: BTreeSet<String> = BTreeSet::new();
        for action in step.actions.iter().chain(&release_actions) {
            let cluster = cluster_of(action, &cells);
            if cluster.as_ref().is_some_and(|c| blocked.contains(c)) {
                continue;
            }
            debug!(group = %key.1, ?action, "act");
            match hands.act(action).await {
                Ok(()) => self.remember(key, action, &world, &in_use, &desired),
                Err(error) => {
                    // Later actions there may rest on this one.
                    let hub_wide = cluster.is_none();
                    blocked.extend(cluster);
                    let worse = failure
                        .as_ref()
                        .is_none_or(|f| matches!(f, ActError::Conflict(_)));
                    if worse {
                        failure = Some(error);
                    }
                    if hub_wide {
                        break;
                    }
                }
            }
        }
        let removed = step.actions.contains(&Action::RemoveFinalizer);
        let due = memory.written.filter(|at| *at <= now);
        let due = due
            .map(|at| at + release::told::PACE)
            .filter(|at| now < *at);
        let counts = group
            .status
            .as_ref()
            .is_some_and(|before| group::status::only_counts(before, &step.status));
        if counts && due.is_some() {
            if group.status.as_ref() != Some(&step.status) {
                wake = release::tell::earlier(wake, due);
            }
        } else if group.status.as_ref() != Some(&step.status)
            && !removed
            && failure.is_none() | !matches!(failure, Some(ActError::Conflict(_)))
        {
            let fresh = self.groups.get(key).unwrap_or(group.clone());
            // A write of this very round to `current` stands.
            let mut status = json!(step.status);
            if fresh
                .status
                .as_ref()
                .and_then(|s| s.current.as_ref())
                .is_some()
                && let Some(fields) = status.as_object_mut()
            {
                fields.remove("current");
                if step.status.target.is_none() {
                    fields.insert("target".to_owned(), serde_json::Value::Null);
                }
                if step.status.instances.is_empty() {
                    fields.insert("instances".to_owned(), serde_json::Value::Null);
                }
                if step.status.message.is_empty() {
                    fields.insert("message".to_owned(), serde_json::Value::Null);
                }
            }
            let api: Api<Group> = Api::namespaced(self.client.clone(), &key.0);
            match api
                .patch_status(&key.1, &params(), &Patch::Merge(&json!({"status": status})))
                .await
            {
                Ok(group) => {
                    self.groups.put(group);
                    self.note(key, |m| m.written = Some(now));
                }
                Err(error) => {
                    return self.outcome(ActError::Api {
                        what: "write the group's status".to_owned(),
                        source: Box::new(error),
                    });
                }
            }
        }
        match failure {
            Some(error) => {
                let text = (!matches!(error, ActError::Conflict(_))).then(|| error.to_string());
                self.set_trouble(key, text);
                self.outcome(error)
            }
            None => {
                self.set_trouble(key, None);
                Outcome::Done(wake.into_iter().chain(step.wake).min())
            }
        }
    }

    fn outcome(&self, error: ActError) -> Outcome {
        match error {
            ActError::Conflict(what) => {
                debug!(%what, "stale view");
                Outcome::Conflict
            }
            error => Outcome::Failed(error.to_string()),
        }
    }

    async fn without_group(&self, releases: &[Arc<Release>], now: Timestamp) -> Outcome {
        let revisions = Revisions::new();
        for release in releases
            .iter()
            .filter(|r| !r.status.as_ref().is_some_and(|s| s.phase.is_final()))
        {
            let world = release::World {
                release,
                group: None,
                app: None,
                strategy: Ok(StrategySpec::default()),
                revisions: &revisions,
                cells: &[],
                lines: &[],
                answers: &Answers::new(),
                origin: None,
                undoes: false,
            };
            let step = release::plan(&world, now);
            if let Err(error) = self.write_release(release, step.status).await {
                return self.outcome(error);
            }
        }
        Outcome::Done(None)
    }

    /// The Group that a promotion comes from, as long as that matters.
    fn origin(&self, namespace: &str, release: &Release) -> Option<release::promote::Origin> {
        let promote = release.spec.promote.as_ref()?;
        if release
            .status
            .as_ref()
            .is_some_and(|s| s.promoted.is_some())
        {
            return None;
        }
        let key = (namespace.to_owned(), promote.from.clone());
        let group = self.groups.get(&key)?;
        let current = group.status.as_ref().and_then(|s| s.current.as_ref());
        let spec = current.and_then(|current| {
            let kept = self.revisions.of_group(&key);
            let found = kept.iter().find(|r| r.revision == current.revision)?;
            Some(read_revision(found)?.spec)
        });
        let releases = self.releases.of_group(&key);
        let list: Vec<&Release> = releases.iter().map(AsRef::as_ref).collect();
        Some(release::promote::origin(&group, &list, spec))
    }

    /// Whether an order on its way back has made the release.
    fn undoes(&self, namespace: &str, release: &Release) -> bool {
        let name = release.labels().get(labels::ORDER);
        name.and_then(|n| self.orders.get(&(namespace.to_owned(), n.clone())))
            .is_some_and(|order| order::undoes(&order, &release.name_any()))
    }

    pub(super) fn lines(&self) -> Vec<StopLine> {
        let mut lines: Vec<StopLine> = self
            .stop_lines
            .all()
            .iter()
            .map(|l| StopLine::clone(l))
            .chain(self.tenant_freezes())
            .collect();
        lines.sort_by_key(ResourceExt::name_any);
        lines
    }

    fn strategy(
        &self,
        namespace: &str,
        release: &Release,
        group: &Group,
    ) -> Result<StrategySpec, String> {
        let choices = [release.spec.strategy.as_ref(), group.spec.strategy.as_ref()];
        let Some(choice): Option<&StrategyChoice> = choices.into_iter().flatten().next() else {
            return Ok(StrategySpec::default());
        };
        if let Some(inline) = &choice.inline {
            return Ok(inline.clone());
        }
        match &choice.name {
            None => Ok(StrategySpec::default()),
            Some(name) => {
                let found = self.strategies.get(&(namespace.to_owned(), name.clone()));
                found
                    .map(|s| s.spec.clone())
                    .ok_or_else(|| format!("strategy {name} does not exist"))
            }
        }
    }

    /// The Group's cells as planners see them, with the member and the node labels of each.
    #[expect(clippy::type_complexity, reason = "three maps of one walk")]
    fn cells(
        &self,
        group: &Group,
        key: &Key,
        planning: bool,
    ) -> (
        Vec<CellView>,
        BTreeMap<String, Arc<Member>>,
        BTreeMap<String, BTreeMap<String, String>>,
    ) {
        let (mut views, mut by_cell, mut selectors) =
            (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let clusters = self.clusters.all();
        let members = self.members();
        let adopt = group.spec.adopt.as_ref();
        let hosts = adopt.is_some_and(|a| a.kind == AdoptKind::Deployment);
        // Asked only where a plan is about to be made.
        let mut add = |name: &str, weight: Option<i32>| {
            let mut view = bare_cell(&clusters, name);
            view.weight = weight;
            let set_name = group.set_in(name);
            view.set_name = (set_name != Group::set_name(&key.1, name)).then(|| set_name.clone());
            if !view.cluster.is_empty() {
                selectors.insert(name.to_owned(), view.node_selector.clone());
            }
            if let Some(member) = members.get(&view.cluster) {
                let trouble = member.trouble();
                view.reachable = trouble.is_none();
                view.unreachable_since = trouble.map(|t| t.0);
                let set_key = (key.0.clone(), set_name);
                view.set = member.sets.get(&set_key).map(|s| s.view());
                let stem = format!("{}-", set_key.1);
                for pod in member.pods.of_group(key) {
                    let of_cell = pod
                        .metadata
                        .labels
                        .as_ref()
                        .and_then(|l| l.get(labels::CELL))
                        .is_some_and(|c| c == name);
                    let name = pod.name_any();
                    let own = name
                        .strip_prefix(&stem)
                        .and_then(|_| pod.ordinal())
                        .filter(|_| of_cell);
                    match own {
                        Some(ordinal) => {
                            view.instances.insert(ordinal, pod.view());
                        }
                        None if of_cell && hosts => view.guests.push(pod.view()),
                        None => {}
                    }
                }
                if planning {
                    let quotas = member.quotas.all();
                    let own = quotas
                        .iter()
                        .filter(|q| q.namespace().as_ref() == Some(&key.0));
                    view.quotas = own.filter_map(|q| Quota::of(q)).collect();
                    let home = clusters.iter().find(|c| c.name_any() == view.cluster);
                    view.capacity = home
                        .map(|c| release::room::capacity(c, name))
                        .unwrap_or_default();
                }
                by_cell.insert(name.to_owned(), member.clone());
            }
            views.push(view);
        };
        let mut seen = BTreeSet::new();
        for share in &group.spec.placement.cells {
            if seen.insert(share.name.clone()) {
                add(&share.name, Some(share.weight));
            }
        }
        for member in members.values() {
            for set in member.sets.of_group(key) {
                if let Some(cell) = set
                    .metadata
                    .labels
                    .as_ref()
                    .and_then(|l| l.get(labels::CELL))
                    && seen.insert(cell.clone())
                {
                    add(cell, None);
                }
            }
        }
        (views, by_cell, selectors)
    }

    /// Writes a release's status, if it is new, and tells of it by an Event.
    async fn write_release(
        &self,
        release: &Release,
        status: ReleaseStatus,
    ) -> Result<(), ActError> {
        let before = release.status.clone().unwrap_or_default();
        if release.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let namespace = release.namespace().unwrap_or_default();
        let api: Api<Release> = Api::namespaced(self.client.clone(), &namespace);
        // The whole status, at the version that was looked at: a button pressed meanwhile is a conflict.
        let op = if release.status.is_some() {
            "replace"
        } else {
            "add"
        };
        let patch = json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": release.metadata.resource_version},
            {"op": op, "path": "/status", "value": status},
        ]);
        let patch: json_patch::Patch = serde_json::from_value(patch)
            .map_err(|e| ActError::Missing(format!("build a patch: {e}")))?;
        let written = api
            .patch_status(&release.name_any(), &params(), &Patch::Json::<()>(patch))
            .await
            .map_err(|source| match &source {
                kube::Error::Api(s) if s.code == 409 => {
                    ActError::Conflict("write the release's status".to_owned())
                }
                _ => ActError::Api {
                    what: "write the release's status".to_owned(),
                    source: Box::new(source),
                },
            })?;
        self.releases.put(written);
        if release::told::event(&before, &status) {
            self.tell(release, &status).await;
        }
        Ok(())
    }

    async fn tell(&self, release: &Release, status: &ReleaseStatus) {
        use gantry_api::Phase;
        let warning = status.halt.is_some()
            || matches!(
                status.phase,
                Phase::Failed | Phase::RollingBack | Phase::RolledBack
            );
        let event = Event {
            type_: if warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: status.reason.clone(),
            note: Some(format!("{}: {}", status.phase.as_str(), status.message)),
            action: status.phase.as_str().to_owned(),
            secondary: None,
        };
        if let Err(error) = self
            .recorder
            .publish(&event, &release.object_ref(&()))
            .await
        {
            // The record is the status; an Event is a courtesy.
            warn!(%error, release = %release.name_any(), "cannot write an event");
        }
    }
}

pub(super) fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(labels::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// A cell as its Cluster declares it, with nothing in it.
pub(super) fn bare_cell(clusters: &[Arc<Cluster>], name: &str) -> CellView {
    let mut view = CellView {
        name: name.to_owned(),
        ..CellView::default()
    };
    let home = clusters.iter().find_map(|cluster| {
        let cell = cluster.spec.cells.iter().find(|cell| cell.name == name)?;
        Some((cluster, cell))
    });
    if let Some((cluster, cell)) = home {
        view.cluster = cluster.name_any();
        view.node_selector = cell.selector();
        view.stopped = cluster
            .spec
            .stop_the_line
            .as_ref()
            .filter(|s| !s.reason.is_empty())
            .map(|s| match s.by.as_str() {
                "" => s.reason.clone(),
                by => format!("{} (by {by})", s.reason),
            });
    }
    view
}

/// The member an action goes to; `None` for the hub.
fn cluster_of(action: &Action, cells: &[CellView]) -> Option<String> {
    let of = |cell: &String| {
        cells
            .iter()
            .find(|c| c.name == *cell)
            .map(|c| c.cluster.clone())
    };
    match action {
        Action::CreateRevision(_)
        | Action::PruneRevision { .. }
        | Action::SetGroupRevision { .. }
        | Action::AddFinalizer
        | Action::RemoveFinalizer => None,
        Action::EnsureSupport { cluster, .. }
        | Action::DeleteSupport { cluster }
        | Action::SetPins { cluster, .. } => Some(cluster.clone()),
        Action::CreateSet { cell, .. }
        | Action::DeleteSet { cell }
        | Action::Scale { cell, .. }
        | Action::SetTemplate { cell, .. }
        | Action::SetPartition { cell, .. }
        | Action::SetGate { cell, .. }
        | Action::UpdateInPlace { cell, .. }
        | Action::DeleteInstance { cell, .. } => of(cell),
    }
}

/// How long to wait before the `n`th try after a failure, with jitter.
pub fn patience(n: u32) -> Duration {
    let most = Duration::from_millis(250).saturating_mul(1 << n.min(7));
    most.mul_f64(rand::random_range(0.5..1.0))
}
