//! Releases as rows.

use gantry_api::{Phase, Release};
use jiff::Timestamp;
use serde::Serialize;

use super::{Listing, Params, matches, order, words};
use crate::{
    access::Sight,
    model::{Key, State},
};

/// A Release as a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseRow {
    /// Tenant.
    pub tenant: String,
    /// Name.
    pub name: String,
    /// Its Group.
    pub group: String,
    /// Where it stands.
    pub phase: String,
    /// Whether it stands still because too much failed.
    pub halted: bool,
    /// Whether it waits for a person.
    pub waits: bool,
    /// Batches done of all.
    pub batch: String,
    /// Instances updated, and all.
    pub updated: (i32, i32),
    /// Instances out of service.
    pub out: i32,
    /// Instances given up on.
    pub failed: i32,
    /// The revision it began with.
    pub from: Option<i64>,
    /// The revision it brings.
    pub to: Option<i64>,
    /// Image of that revision.
    pub image: String,
    /// Who asked for it.
    pub by: String,
    /// When it was asked for.
    pub created: Option<Timestamp>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Its own words.
    pub message: String,
}

/// Instances updated, and all.
pub fn progress(release: &Release) -> (i32, i32) {
    let status = release.status.as_ref();
    let text = status.map_or("", |s| s.progress.updated.as_str());
    let read = text
        .split_once('/')
        .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    read.unwrap_or((
        0,
        status
            .and_then(|s| s.plan.as_ref())
            .map_or(0, |p| p.replicas),
    ))
}

/// The row of a Release.
pub fn row(release: &Release) -> ReleaseRow {
    let status = release.status.clone().unwrap_or_default();
    let meta = &release.metadata;
    let asked = release.spec.revision.image.clone().unwrap_or_default();
    ReleaseRow {
        tenant: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        group: release.spec.group.clone(),
        halted: status.halt.is_some() && !status.phase.is_final(),
        waits: status.waiting_since.is_some() && !status.phase.is_final(),
        phase: status.phase.as_str().to_owned(),
        updated: progress(release),
        batch: status.progress.batch,
        out: status.instances.out,
        failed: status.instances.failed,
        from: status.from.map(|r| r.revision),
        to: status
            .target
            .as_ref()
            .map(|r| r.revision)
            .or(release.spec.revision.to),
        image: status.target.map_or(asked, |r| r.image),
        by: if status.requested_by.is_empty() {
            release.spec.requested_by.clone()
        } else {
            status.requested_by
        },
        created: meta.creation_timestamp.as_ref().map(|t| t.0),
        started: status.started.map(|t| t.0),
        finished: status.finished.map(|t| t.0),
        message: status.message,
    }
}

fn urgency(release: &Release) -> u8 {
    let status = release.status.as_ref();
    match status {
        Some(s) if s.phase.is_final() => 4,
        Some(s) if s.halt.is_some() => 0,
        Some(s) if s.waiting_since.is_some() => 1,
        Some(s) if s.phase == Phase::Queued => 3,
        _ => 2,
    }
}

/// Releases that have not ended, what needs a person first.
pub fn running(state: &State, sight: &Sight, most: usize) -> (Vec<ReleaseRow>, usize) {
    let mut found: Vec<_> = state
        .running
        .iter()
        .filter(|key| sight.releases.see(&key.0))
        .filter_map(|key| state.releases.get(key))
        .collect();
    let total = found.len();
    found.sort_by_cached_key(|r| {
        (
            urgency(r),
            std::cmp::Reverse(r.metadata.creation_timestamp.as_ref().map(|t| t.0)),
        )
    });
    (
        found.into_iter().take(most).map(|r| row(r)).collect(),
        total,
    )
}

/// Releases by `tenant`, `group`, `phase` (or `open`) and `q`; the newest first unless sorted.
pub fn releases(state: &State, sight: &Sight, params: &Params) -> Listing<ReleaseRow> {
    let (tenant, group) = (params.get("tenant"), params.get("group"));
    let (phase, q) = (params.get("phase"), words(params.get("q")));
    let fits = |key: &Key, release: &Release| {
        let is = release.status.as_ref().map(|s| s.phase).unwrap_or_default();
        sight.releases.see(&key.0)
            && (tenant.is_empty() || key.0 == tenant)
            && (group.is_empty() || release.spec.group == group)
            && match phase {
                "" => true,
                "open" => !is.is_final(),
                name => is.as_str() == name,
            }
            && (q.is_empty()
                || matches(
                    &q,
                    &[
                        &key.0,
                        &key.1,
                        &release.spec.requested_by,
                        release.spec.revision.image.as_deref().unwrap_or(""),
                    ],
                ))
    };
    let mut found: Vec<_> = if phase == "open" {
        let open = state
            .running
            .iter()
            .filter_map(|k| state.releases.get_key_value(k));
        open.filter(|(k, r)| fits(k, r)).map(|(_, r)| r).collect()
    } else {
        state
            .releases
            .iter()
            .filter(|(k, r)| fits(k, r))
            .map(|(_, r)| r)
            .collect()
    };
    let made = |r: &Release| r.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let (by, down) = order(params);
    match by {
        "name" => found.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name)),
        "phase" => found.sort_by_key(|r| urgency(r)),
        "by" => found.sort_by(|a, b| a.spec.requested_by.cmp(&b.spec.requested_by)),
        _ => found.sort_by_key(|r| std::cmp::Reverse(made(r))),
    }
    if down {
        found.reverse();
    }
    Listing::cut(found, params, |r| row(r))
}
