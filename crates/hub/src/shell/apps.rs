//! The status of Apps: what is where. Groups are found by their App through an index, so that a change of
//! one looks at those of its App alone.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gantry_api::{App, Group};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tracing::warn;

use super::{
    hub::Hub,
    reconcile::patience,
    table::{Changed, Key, key},
};
use crate::promotion;

/// Names of Groups by App.
#[derive(Default)]
pub struct ByApp {
    groups: Mutex<HashMap<Key, BTreeSet<String>>>,
}

impl ByApp {
    fn with<T>(&self, f: impl FnOnce(&mut HashMap<Key, BTreeSet<String>>) -> T) -> T {
        f(&mut self.groups.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, group: &Group) -> Key {
        let (namespace, name) = key(group);
        let app = (namespace, group.spec.app.clone());
        self.with(|s| s.entry(app.clone()).or_default().insert(name));
        app
    }

    /// Everything anew; those that have changed are all of them.
    fn rebuild(&self, groups: &[Arc<Group>]) -> Vec<Key> {
        let mut apps: BTreeSet<Key> = self.with(|s| s.drain().map(|(app, _)| app).collect());
        apps.extend(groups.iter().map(|g| self.add(g)));
        apps.into_iter().collect()
    }

    /// Names of the Groups that are, or have been, of `app`.
    fn of(&self, app: &Key) -> Vec<String> {
        self.with(|s| s.get(app).into_iter().flatten().cloned().collect())
    }

    /// Forgets those that are of `app` no longer.
    fn retain(&self, app: &Key, names: &BTreeSet<String>) {
        self.with(|s| {
            if let Some(known) = s.get_mut(app) {
                known.retain(|n| names.contains(n));
                if known.is_empty() {
                    s.remove(app);
                }
            }
        });
    }
}

impl Hub {
    /// An App has changed: its status is looked at, and its Groups where it is more than the status.
    pub(super) fn app_changed(&self, app: &App) {
        let key = key(app);
        let told = app.status.as_ref().and_then(|s| s.observed_generation);
        if told.is_none() || told != app.metadata.generation {
            for group in self.by_app.of(&key) {
                self.group_again((key.0.clone(), group));
            }
        }
        self.app_queue.add(key, Duration::ZERO);
    }

    /// A Group has changed, or all were listed.
    pub(super) fn group_changed(&self, change: &Changed<'_, Group>) {
        match change {
            Changed::Object(group, _) => {
                let app = self.by_app.add(group);
                self.app_queue.add(app, Duration::ZERO);
            }
            Changed::Listed(_) => {
                for app in self.by_app.rebuild(&self.groups.all()) {
                    self.app_queue.add(app, Duration::ZERO);
                }
            }
            Changed::Failing => {}
        }
    }

    /// Keeps the status of Apps current.
    pub(super) async fn tend_apps(self: Arc<Self>) {
        let mut failures = 0;
        loop {
            let app = tokio::select! {
                () = self.stop.cancelled() => return,
                app = self.app_queue.next() => app,
            };
            let told = tokio::select! {
                () = self.stop.cancelled() => return,
                told = self.tell_app(&app) => told,
            };
            self.app_queue.done(&app);
            match told {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    warn!(namespace = %app.0, app = %app.1, %error, "cannot write the app's status");
                    self.app_queue.add(app, patience(failures));
                }
            }
        }
    }

    async fn tell_app(&self, app: &Key) -> Result<(), kube::Error> {
        let groups: Vec<Arc<Group>> = self
            .by_app
            .of(app)
            .into_iter()
            .filter_map(|name| self.groups.get(&(app.0.clone(), name)))
            .filter(|g| g.spec.app == app.1)
            .collect();
        let names: BTreeSet<String> = groups.iter().map(|g| g.name_any()).collect();
        self.by_app.retain(app, &names);
        let Some(object) = self.apps.get(app) else {
            return Ok(());
        };
        let list: Vec<&Group> = groups.iter().map(AsRef::as_ref).collect();
        let status = promotion::status(&object, &list);
        if object.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let op = if object.status.is_some() {
            "replace"
        } else {
            "add"
        };
        let patch = json!([{"op": op, "path": "/status", "value": status}]);
        let patch = serde_json::from_value(patch).map_err(kube::Error::SerdeError)?;
        let api: Api<App> = Api::namespaced(self.client.clone(), &app.0);
        let written = api
            .patch_status(&app.1, &PatchParams::default(), &Patch::Json::<()>(patch))
            .await;
        match written {
            Ok(app) => {
                self.apps.put(app);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }
}
