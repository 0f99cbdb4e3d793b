//! The status of Apps: what is where.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gantry_api::{App, Group};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tracing::warn;

use super::{
    hub::Hub,
    reconcile::patience,
    table::{Changed, Key, key},
};
use crate::promotion::{self, Place};

/// How the Groups of each App stand: kept as they change, so that a change of one costs as much with ten
/// Groups as with thousands.
#[derive(Default)]
pub struct ByApp {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    apps: HashMap<Key, BTreeMap<String, Place>>,
    /// The App of each Group.
    of: HashMap<Key, String>,
}

impl State {
    fn take(&mut self, group: &Key) -> Option<(Key, Place)> {
        let app = (group.0.clone(), self.of.remove(group)?);
        let places = self.apps.get_mut(&app)?;
        let old = places.remove(&group.1)?;
        if places.is_empty() {
            self.apps.remove(&app);
        }
        Some((app, old))
    }

    /// Takes in how a Group stands, or that it is gone; the Apps of which that changes what is told.
    fn put(&mut self, group: &Key, now: Option<&Group>) -> Vec<Key> {
        let now = now.map(|g| ((group.0.clone(), g.spec.app.clone()), promotion::place(g)));
        let old = self.take(group);
        let mut changed = Vec::new();
        if old != now {
            changed.extend(old.map(|(app, _)| app));
            changed.extend(now.as_ref().map(|(app, _)| app.clone()));
            changed.dedup();
        }
        if let Some((app, place)) = now {
            self.of.insert(group.clone(), app.1.clone());
            let places = self.apps.entry(app).or_default();
            places.insert(group.1.clone(), place);
        }
        changed
    }
}

impl ByApp {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Everything anew; all Apps that have or had Groups.
    fn rebuild(&self, groups: &[Arc<Group>]) -> Vec<Key> {
        self.with(|s| {
            let mut apps: BTreeSet<Key> = std::mem::take(s).apps.into_keys().collect();
            for group in groups {
                s.put(&key(group.as_ref()), Some(group));
            }
            apps.extend(s.apps.keys().cloned());
            apps.into_iter().collect()
        })
    }

    /// Names of the Groups of `app`.
    fn names(&self, app: &Key) -> Vec<String> {
        let names = |s: &mut State| s.apps.get(app).map(|p| p.keys().cloned().collect());
        self.with(names).unwrap_or_default()
    }

    /// How the Groups of `app` stand.
    fn places(&self, app: &Key) -> Vec<Place> {
        let places = |s: &mut State| s.apps.get(app).map(|p| p.values().cloned().collect());
        self.with(places).unwrap_or_default()
    }

    /// How long changes of `app` are gathered: its status, which is written whole, tells of all its Groups.
    fn gather(&self, app: &Key) -> Duration {
        let groups = self.with(|s| s.apps.get(app).map_or(0, BTreeMap::len));
        Duration::from_millis((groups as u64 / 5).min(2_000))
    }
}

impl Hub {
    /// An App has changed: its status is looked at, and its Groups where it is more than the status.
    pub(super) fn app_changed(&self, app: &App) {
        let key = key(app);
        let told = app.status.as_ref().and_then(|s| s.observed_generation);
        if told.is_none() || told != app.metadata.generation {
            for group in self.by_app.names(&key) {
                self.group_again((key.0.clone(), group));
            }
        }
        self.app_queue.add(key.clone(), self.by_app.gather(&key));
    }

    /// A Group has changed, or all were listed.
    pub(super) fn group_changed(&self, change: &Changed<'_, Group>) {
        let apps = match change {
            Changed::Object(group, _) => {
                let key = key(*group);
                let now = self.groups.get(&key);
                self.by_app.with(|s| s.put(&key, now.as_deref()))
            }
            Changed::Listed(_) => self.by_app.rebuild(&self.groups.all()),
            Changed::Failing => return,
        };
        for app in apps {
            let delay = self.by_app.gather(&app);
            self.app_queue.add(app, delay);
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
        let Some(object) = self.apps.get(app) else {
            return Ok(());
        };
        let status = promotion::status(&object, self.by_app.places(app));
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

#[cfg(test)]
mod tests {
    use gantry_api::{GroupSpec, GroupStatus, revision::RevisionRef};

    use super::*;

    fn group(app: &str, image: &str, in_service: i32) -> Group {
        let spec = GroupSpec {
            app: app.into(),
            ..GroupSpec::default()
        };
        let mut group = Group::new("g", spec);
        group.status = Some(GroupStatus {
            in_service,
            current: Some(RevisionRef {
                image: image.into(),
                ..RevisionRef::default()
            }),
            ..GroupStatus::default()
        });
        group
    }

    #[test]
    fn only_what_an_app_tells_makes_it_tell_again() {
        let of = |name: &str| ("shop".to_owned(), name.to_owned());
        let (cart, pay) = (of("cart"), of("pay"));
        let mut state = State::default();
        let (one, two) = (group("cart", "r/c:1", 1), group("cart", "r/c:1", 2));
        let (new, moved) = (group("cart", "r/c:2", 2), group("pay", "r/c:2", 2));
        for (what, now, apps) in [
            ("it comes", Some(&one), vec![cart.clone()]),
            ("one more is in service", Some(&two), vec![]),
            ("another image", Some(&new), vec![cart.clone()]),
            ("another app", Some(&moved), vec![cart, pay.clone()]),
            ("it goes", None, vec![pay]),
            ("it is gone", None, vec![]),
        ] {
            assert_eq!(state.put(&of("g"), now), apps, "{what}");
        }
        assert!(state.apps.is_empty() && state.of.is_empty());
    }
}
