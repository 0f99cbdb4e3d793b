//! The service tree: Groups of Apps of tenants.

use std::{collections::BTreeMap, sync::Arc};

use gantry_api::app::Level;
use jiff::Timestamp;
use serde::Serialize;

use super::{Listing, Params, matches, order, words};
use crate::{
    access::Sight,
    model::{Health, Instance, Key, State},
};

/// A Group as a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupRow {
    /// Tenant.
    pub tenant: String,
    /// App.
    pub app: String,
    /// Name.
    pub name: String,
    /// Environment.
    pub environment: String,
    /// How it is.
    pub health: Health,
    /// Instances wished for.
    pub desired: i32,
    /// Instances whose containers are ready.
    pub ready: i32,
    /// Instances that receive traffic.
    pub in_service: i32,
    /// The revision it is on.
    pub revision: Option<i64>,
    /// The revision that is being brought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<i64>,
    /// Image of the revision it is on.
    pub image: String,
    /// The release under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// When its last release began or was asked for.
    pub changed: Option<Timestamp>,
    /// Who asked for it.
    pub by: String,
    /// Cells.
    pub cells: Vec<String>,
    /// What keeps it from its wish.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The row of a Group.
pub fn row(state: &State, key: &Key, releases: bool) -> Option<GroupRow> {
    let group = state.groups.get(key)?;
    let status = group.status.clone().unwrap_or_default();
    let last = state.releases_of(key).next().filter(|_| releases);
    let running = state.running_release(key).filter(|_| releases);
    let told = last.and_then(|r| r.status.as_ref());
    Some(GroupRow {
        tenant: key.0.clone(),
        app: group.spec.app.clone(),
        name: key.1.clone(),
        environment: group.spec.environment.clone(),
        health: state.health(key),
        desired: group.spec.replicas,
        ready: status.ready,
        in_service: status.in_service,
        revision: status.current.as_ref().map(|c| c.revision),
        target: running
            .and_then(|r| r.status.as_ref()?.target.as_ref())
            .map(|t| t.revision),
        image: status
            .current
            .map_or(group.spec.revision.image.clone(), |c| c.image),
        release: running.and_then(|r| r.metadata.name.clone()),
        changed: last
            .and_then(|r| {
                told.and_then(|s| s.started.as_ref())
                    .or(r.metadata.creation_timestamp.as_ref())
            })
            .map(|t| t.0),
        by: last.map_or(String::new(), |r| match told {
            Some(s) if !s.requested_by.is_empty() => s.requested_by.clone(),
            _ => r.spec.requested_by.clone(),
        }),
        cells: group
            .spec
            .placement
            .cells
            .iter()
            .map(|c| c.name.clone())
            .collect(),
        message: status.message,
    })
}

/// Groups by `tenant`, `app`, `env`, `health` and `q`, sorted by `sort`.
pub fn groups(state: &State, sight: &Sight, params: &Params) -> Listing<GroupRow> {
    let (tenant, app, env) = (params.get("tenant"), params.get("app"), params.get("env"));
    let (health, q) = (params.get("health"), words(params.get("q")));
    let wanted = |is: &str, wish: &str| wish.is_empty() || is == wish;
    let mut found: Vec<&Key> = Vec::new();
    for (key, group) in &state.groups {
        let spec = &group.spec;
        if !wanted(&key.0, tenant)
            || !wanted(&spec.app, app)
            || !wanted(&spec.environment, env)
            || !sight.groups.see(&key.0)
        {
            continue;
        }
        if !q.is_empty()
            && !matches(
                &q,
                &[
                    &key.0,
                    &key.1,
                    &spec.app,
                    &spec.environment,
                    &spec.revision.image,
                ],
            )
        {
            continue;
        }
        let fits = match health {
            "" => true,
            "Troubled" => state.troubled.contains_key(key),
            name => state.health(key).name() == name,
        };
        if fits {
            found.push(key);
        }
    }
    let (by, down) = order(params);
    let spec = |key: &Key| state.groups.get(key).map(|g| &g.spec);
    let status = |key: &Key| state.groups.get(key).and_then(|g| g.status.as_ref());
    match by {
        "name" => found.sort_by(|a, b| a.1.cmp(&b.1)),
        "health" => found.sort_by_cached_key(|k| state.health(k)),
        "desired" => found.sort_by_key(|k| spec(k).map(|s| s.replicas)),
        "ready" => found.sort_by_key(|k| status(k).map(|s| s.in_service)),
        "revision" => found.sort_by_key(|k| {
            status(k)
                .and_then(|s| s.current.as_ref())
                .map(|c| c.revision)
        }),
        "env" => found.sort_by_key(|k| spec(k).map(|s| s.environment.as_str())),
        "changed" => found.sort_by_cached_key(|k| {
            let last = state.releases_of(k).next();
            last.and_then(|r| r.metadata.creation_timestamp.as_ref())
                .map(|t| t.0)
        }),
        _ => found.sort_by_key(|k| (&k.0, spec(k).map(|s| s.app.as_str()), &k.1)),
    }
    if down {
        found.reverse();
    }
    let rows: Vec<Key> = found.into_iter().cloned().collect();
    let listed = Listing::cut(rows, params, |key| {
        row(state, &key, sight.releases.see(&key.0))
    });
    Listing {
        items: listed.items.into_iter().flatten().collect(),
        total: listed.total,
        page: listed.page,
        per_page: listed.per_page,
    }
}

/// A tenant, counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantRow {
    /// Its namespace.
    pub name: String,
    /// Apps.
    pub apps: usize,
    /// Groups.
    pub groups: usize,
    /// Groups that are not as they should be.
    pub troubled: usize,
    /// Instances wished for.
    pub instances: i64,
}

/// Tenants that someone sees.
pub fn tenants(state: &State, sight: &Sight) -> Vec<TenantRow> {
    let mut all: BTreeMap<&str, TenantRow> = BTreeMap::new();
    for tenant in state.tenants() {
        if sight.groups.see(tenant) {
            let name = tenant.to_owned();
            all.insert(
                tenant,
                TenantRow {
                    name,
                    ..TenantRow::default()
                },
            );
        }
    }
    for key in state.apps.keys() {
        if let Some(row) = all.get_mut(key.0.as_str()) {
            row.apps += 1;
        }
    }
    for (key, group) in &state.groups {
        if let Some(row) = all.get_mut(key.0.as_str()) {
            row.groups += 1;
            row.instances += i64::from(group.spec.replicas);
        }
    }
    for key in state.troubled.keys() {
        if let Some(row) = all.get_mut(key.0.as_str()) {
            row.troubled += 1;
        }
    }
    all.into_values().collect()
}

/// An App's level, as text.
pub fn level(state: &State, key: &Key) -> Option<&'static str> {
    state.apps.get(key).map(|app| match app.spec.level {
        Level::L0 => "L0",
        Level::L1 => "L1",
        Level::L2 => "L2",
        Level::L3 => "L3",
    })
}

/// An instance, and the member that it runs on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceRow {
    /// The member.
    pub cluster: String,
    /// The instance.
    #[serde(flatten)]
    pub instance: Instance,
}

/// The number at the end of an instance's name.
fn ordinal(name: &str) -> Option<u32> {
    name.rsplit('-').next().and_then(|n| n.parse().ok())
}

/// Instances of a Group by cell, each with its member: what is wrong first, then by number.
pub fn by_cell(state: &State, group: &Key) -> BTreeMap<String, Vec<(String, Arc<Instance>)>> {
    let mut cells: BTreeMap<String, Vec<(String, Arc<Instance>)>> = BTreeMap::new();
    for (cluster, instance) in state.instances(group) {
        let cell = cells.entry(instance.cell.clone()).or_default();
        cell.push((cluster.to_owned(), instance.clone()));
    }
    for all in cells.values_mut() {
        all.sort_by_key(|(_, i)| (i.ready, i.in_service, ordinal(&i.name)));
    }
    cells
}

/// Instances of a Group by `cell`, `q` and `state` (`trouble`, `out`), sorted by `sort`.
pub fn instances(state: &State, group: &Key, params: &Params) -> Listing<InstanceRow> {
    let (cell, q, only) = (
        params.get("cell"),
        words(params.get("q")),
        params.get("state"),
    );
    let mut found: Vec<_> = state
        .instances(group)
        .filter(|(_, i)| cell.is_empty() || i.cell == cell)
        .filter(|(_, i)| match only {
            "trouble" => !i.ready,
            "out" => !i.in_service,
            _ => true,
        })
        .filter(|(_, i)| q.is_empty() || matches(&q, &[&i.name, &i.node, &i.address]))
        .collect();
    let (by, down) = order(params);
    match by {
        "node" => found.sort_by(|a, b| a.1.node.cmp(&b.1.node)),
        "restarts" => found.sort_by_key(|(_, i)| i.restarts),
        "revision" => found.sort_by_key(|(_, i)| i.revision),
        "age" => found.sort_by_key(|(_, i)| std::cmp::Reverse(i.created)),
        "state" => found.sort_by_key(|(_, i)| (i.ready, i.in_service)),
        _ => found
            .sort_by(|a, b| (&a.1.cell, ordinal(&a.1.name)).cmp(&(&b.1.cell, ordinal(&b.1.name)))),
    }
    if down {
        found.reverse();
    }
    Listing::cut(found, params, |(cluster, instance)| InstanceRow {
        cluster: cluster.to_owned(),
        instance: (**instance).clone(),
    })
}
