//! Connections to members: made, let go and reported on.

use super::super::{access, cluster, member::Member, table::Key};
use super::{Hub, lock};
use gantry_api::Cluster;
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tracing::{info, warn};

impl Hub {
    pub(super) async fn tend_clusters(self: Arc<Self>) {
        loop {
            let name = tokio::select! {
                () = self.stop.cancelled() => return,
                name = self.cluster_queue.next() => name,
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.tend(&name) => {}
            }
            self.cluster_queue.done(&name);
        }
    }

    /// Connects a member, or lets it go, and reports on it.
    pub(super) async fn tend(self: &Arc<Self>, name: &str) {
        let Some(cluster) = self.clusters.get(&(String::new(), name.to_owned())) else {
            if let Some(member) = lock(&self.members).remove(name) {
                member.stop.cancel();
            }
            self.every_group();
            return;
        };
        match self.connect(&cluster).await {
            Ok(()) => {
                lock(&self.refused).remove(name);
            }
            Err(why) => {
                let fresh = lock(&self.refused)
                    .insert(name.to_owned(), why.clone())
                    .as_ref()
                    != Some(&why);
                if fresh {
                    warn!(cluster = %name, %why, "cannot connect");
                }
            }
        }
        let member = lock(&self.members).get(name).cloned();
        let refused = lock(&self.refused).get(name).cloned();
        let status = cluster::status(
            &cluster,
            member.as_deref(),
            refused.as_deref(),
            Timestamp::now(),
        );
        if cluster.status.as_ref() != Some(&status) {
            let api: Api<Cluster> = Api::all(self.client.clone());
            let op = if cluster.status.is_some() {
                "replace"
            } else {
                "add"
            };
            let patch = serde_json::from_value::<json_patch::Patch>(
                json!([{"op": op, "path": "/status", "value": status}]),
            );
            if let Ok(patch) = patch {
                match api
                    .patch_status(name, &PatchParams::default(), &Patch::Json::<()>(patch))
                    .await
                {
                    Ok(cluster) => {
                        self.clusters.put(cluster);
                    }
                    Err(error) => {
                        warn!(cluster = %name, %error, "cannot write the cluster's status")
                    }
                }
            }
        }
        // Secrets are not watched, and last-seen moves by the minute.
        self.cluster_queue.add(
            name.to_owned(),
            Duration::from_secs(if refused.is_some() { 3 } else { 30 }),
        );
    }

    pub(super) async fn connect(self: &Arc<Self>, cluster: &Cluster) -> Result<(), String> {
        let name = cluster.name_any();
        let kubeconfig = access::kubeconfig(&self.client, cluster).await?;
        let access = kubeconfig.clone().unwrap_or_default();
        if lock(&self.members)
            .get(&name)
            .is_some_and(|m| m.access == access)
        {
            return Ok(());
        }
        let client = match kubeconfig {
            None => self.client.clone(),
            Some(text) => Client::try_from(access::config(&text).await?)
                .map_err(|e| format!("make a client: {e}"))?,
        };
        let hub = self.clone();
        let cluster_name = name.clone();
        let changed = move |group: Option<Key>| match group {
            Some(group) => {
                hub.queue.add(group, Duration::ZERO);
                hub.cluster_queue
                    .add(cluster_name.clone(), Duration::from_secs(2));
            }
            // A node, or the member as a whole.
            None => hub
                .cluster_queue
                .add(cluster_name.clone(), Duration::from_secs(1)),
        };
        let whole = self.clone();
        let orders = self.clone();
        let member = Member::start(
            &name,
            client,
            access,
            &self.stop,
            move |group| {
                if group.is_none() {
                    whole.reachability_changed();
                }
                changed(group);
            },
            move |order| orders.order_queue.add(order, Duration::ZERO),
        );
        self.exports_of(member.clone());
        info!(cluster = %name, "connecting");
        if let Some(old) = lock(&self.members).insert(name, member) {
            old.stop.cancel();
        }
        Ok(())
    }

    /// A member may have come or gone: Groups whose cells are there but have nothing yet are told too.
    pub(super) fn reachability_changed(&self) {
        let reachable: BTreeSet<String> = self
            .members()
            .values()
            .filter(|m| m.trouble().is_none())
            .map(|m| m.name.clone())
            .collect();
        let before = std::mem::replace(&mut *lock(&self.reachable), reachable.clone());
        if before != reachable {
            self.every_group();
            self.orders_that_move();
        }
    }
}
