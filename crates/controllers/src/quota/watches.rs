//! Watches of the resources that quotas count and that no shared informer holds: their deletions
//! give back what they used.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::plan::{self, Counted};
use super::shell::Pace;
use crate::model::meta::MetaOnly;
use crate::model::quota::Quota;
use crate::runtime::discovery::Served;
use crate::runtime::reflector::{self, Sink, Source};
use crate::runtime::{Api, Informer};

/// Resources of which a shared informer tells the deletions.
pub const SHARED: [&str; 3] = ["pods", "services", "persistentvolumeclaims"];

pub struct Watches {
    api: Api,
    quotas: Arc<Informer<Quota>>,
    pace: Arc<Pace>,
    stop: CancellationToken,
    running: Mutex<FxHashMap<Counted, DropGuard>>,
}

impl Watches {
    pub fn new(
        api: Api,
        quotas: Arc<Informer<Quota>>,
        pace: Arc<Pace>,
        stop: CancellationToken,
    ) -> Self {
        Watches {
            api,
            quotas,
            pace,
            stop,
            running: Mutex::default(),
        }
    }

    /// Has the deletions of a resource watched, once.
    pub fn watch(&self, served: &Served) {
        if served.group.is_empty() && SHARED.contains(&&*served.plural) || !served.allows("watch") {
            return;
        }
        let counted: Counted = (served.group.clone(), served.plural.clone());
        let mut running = self.running.lock();
        if running.contains_key(&counted) {
            return;
        }
        let stop = self.stop.child_token();
        running.insert(counted.clone(), stop.clone().drop_guard());
        let source = Source {
            path: served.path(""),
            field_selector: None,
            metadata_only: true,
        };
        let deletions = Deletions {
            counted,
            quotas: self.quotas.clone(),
            pace: self.pace.clone(),
        };
        let api = self.api.clone();
        tokio::spawn(async move { reflector::run(&api, &source, &deletions, &stop).await });
    }

    /// Ends the watches that no quota needs any more.
    pub fn retain_needed(&self) {
        if self.running.lock().is_empty() {
            return;
        }
        let needed: BTreeSet<Counted> = self
            .quotas
            .all()
            .iter()
            .flat_map(|q| plan::counted(&q.spec))
            .collect();
        self.running.lock().retain(|c, _| needed.contains(c));
    }
}

struct Deletions {
    counted: Counted,
    quotas: Arc<Informer<Quota>>,
    pace: Arc<Pace>,
}

impl Sink<MetaOnly> for Deletions {
    /// What was deleted while nobody watched is not known: all quotas of the resource count.
    fn replace(&self, _objects: Vec<MetaOnly>, _version: u64) {
        for quota in self.quotas.all() {
            if plan::counted(&quota.spec).contains(&self.counted) {
                self.pace.look(quota.metadata.key());
            }
        }
    }

    fn changed(&self, object: MetaOnly) -> u64 {
        object.metadata.version
    }

    fn removed(&self, object: MetaOnly) -> u64 {
        for quota in self.quotas.in_namespace(&object.metadata.namespace) {
            if plan::counted(&quota.spec).contains(&self.counted) {
                self.pace.look(quota.metadata.key());
            }
        }
        object.metadata.version
    }
}
