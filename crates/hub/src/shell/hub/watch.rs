//! Watches of the hub's objects: which change has whom looked at again.

use super::super::table::Changed;
use super::{Hub, own_api};
use crate::release::line;
use gantry_api::{App, Cluster, Group, Release, StopLine, Strategy, Tenant, labels};
use kube::{Api, ResourceExt, runtime::watcher};
use std::{sync::Arc, time::Duration};

impl Hub {
    pub(super) fn watch(self: &Arc<Self>, tasks: &mut tokio::task::JoinSet<()>) {
        let all = watcher::Config::default();
        let own = || Api::all(self.client.clone());
        let hub = self.clone();
        let clusters = move |change: Changed<'_, Cluster>| {
            if let Changed::Object(cluster, _) = &change {
                hub.cluster_queue.add(cluster.name_any(), Duration::ZERO);
            }
            if let Changed::Listed(_) = change {
                for cluster in hub.clusters.all() {
                    hub.cluster_queue.add(cluster.name_any(), Duration::ZERO);
                }
            }
            if let Changed::Object(cluster, _) = &change
                && !hub.spec_seen(cluster)
            {
                hub.every_group();
            }
        };
        tasks.spawn(self.clusters.clone().watch(
            own_api(self),
            all.clone(),
            clusters,
            self.stop.clone(),
        ));
        let hub = self.clone();
        let apps = move |change: Changed<'_, App>| {
            if let Changed::Object(app, _) = change {
                hub.app_changed(app);
            }
        };
        tasks.spawn(
            self.apps
                .clone()
                .watch(own(), all.clone(), apps, self.stop.clone()),
        );
        let hub = self.clone();
        let strategies = move |change: Changed<'_, Strategy>| {
            if let Changed::Object(strategy, _) = change {
                hub.groups_of(strategy.namespace(), |_| true);
            }
        };
        tasks.spawn(self.strategies.clone().watch(
            own_api(self),
            all.clone(),
            strategies,
            self.stop.clone(),
        ));
        let hub = self.clone();
        let lines = move |change: Changed<'_, StopLine>| match change {
            Changed::Object(switch, _) => {
                hub.groups_that_move(|tenant| line::concerns(switch, tenant));
                hub.orders_that_move();
            }
            Changed::Listed(_) => {
                hub.groups_that_move(|_| true);
                hub.orders_that_move();
            }
            Changed::Failing => {}
        };
        tasks.spawn(self.stop_lines.clone().watch(
            own_api(self),
            all.clone(),
            lines,
            self.stop.clone(),
        ));
        let hub = self.clone();
        let tenants = move |change: Changed<'_, Tenant>| match change {
            Changed::Object(tenant, _) => {
                let name = tenant.name_any();
                let namespaces = tenant.spec.namespaces_of(&name);
                // Its own status changes nothing for releases.
                if tenant.status.as_ref().and_then(|s| s.observed_generation)
                    != tenant.metadata.generation
                {
                    hub.groups_that_move(|n| namespaces.iter().any(|own| own == n));
                }
                hub.tenant_queue.add(name, Duration::ZERO);
            }
            Changed::Listed(_) => {
                for tenant in hub.tenants.all() {
                    hub.tenant_queue.add(tenant.name_any(), Duration::ZERO);
                }
            }
            Changed::Failing => {}
        };
        tasks.spawn(self.tenants.clone().watch(
            own_api(self),
            all.clone(),
            tenants,
            self.stop.clone(),
        ));
        tasks.spawn(self.notifications.clone().watch(
            own_api(self),
            all.clone(),
            |_| {},
            self.stop.clone(),
        ));
        let (hub, touch) = (self.clone(), self.touch());
        let groups = move |change: Changed<'_, Group>| {
            if let Changed::Object(group, _) = &change {
                let made = group.status.is_none();
                if made || hub.groups.get(&crate::shell::table::key(*group)).is_none() {
                    hub.tenants_of(&group.namespace().unwrap_or_default());
                }
            }
            hub.group_changed(&change);
            touch(change);
        };
        tasks.spawn(self.groups.clone().watch(
            own_api(self),
            all.clone(),
            groups,
            self.stop.clone(),
        ));
        let hub = self.clone();
        let touch = self.touch();
        let releases = move |change: Changed<'_, Release>| {
            hub.release_changed(&change);
            touch(change);
        };
        tasks.spawn(self.releases.clone().watch(
            own_api(self),
            all.clone(),
            releases,
            self.stop.clone(),
        ));
        let hub = self.clone();
        tasks.spawn(self.orders.clone().watch(
            own_api(self),
            all.clone(),
            move |change| hub.order_changed(&change),
            self.stop.clone(),
        ));
        tasks.spawn(self.revisions.clone().watch(
            own_api(self),
            all.labels(labels::GROUP),
            self.touch(),
            self.stop.clone(),
        ));
    }

    pub(super) fn touch<K>(self: &Arc<Self>) -> impl Fn(Changed<'_, K>) + Send + Sync + use<K> {
        let hub = self.clone();
        move |change| match change {
            Changed::Object(_, Some(group)) => hub.queue.add(group, Duration::ZERO),
            Changed::Listed(groups) => groups
                .iter()
                .for_each(|g| hub.queue.add(g.clone(), Duration::ZERO)),
            Changed::Object(_, None) | Changed::Failing => {}
        }
    }

    /// Whether this generation of a Cluster has been reported on, so that only its status has changed.
    pub(super) fn spec_seen(&self, cluster: &Cluster) -> bool {
        cluster.status.as_ref().is_some_and(|s| {
            s.observed_generation.is_some() && s.observed_generation == cluster.metadata.generation
        })
    }

    pub(super) fn every_group(&self) {
        for group in self.groups.groups() {
            self.queue.add(group, Duration::ZERO);
        }
    }

    /// Groups of some tenants that have a release which has not ended.
    pub(super) fn groups_that_move(&self, of: impl Fn(&str) -> bool) {
        for release in self.releases.all() {
            let tenant = release.namespace().unwrap_or_default();
            let ended = release.status.as_ref().is_some_and(|s| s.phase.is_final());
            if !ended && of(&tenant) {
                self.queue
                    .add((tenant, release.spec.group.clone()), Duration::ZERO);
            }
        }
    }
}
