//! What the volumes of a pod have held that stand in other objects, and since when: what a process printed of
//! them is what they held then, whatever they hold when its log is read.
//!
//! Only pods are followed whose processes can be run ([`crate::program`]), and not more than a number of them
//! at a time: of others it is taken that their volumes always held what they hold now.

use super::{
    Network,
    place::{Place, list, text},
};
use futures::{StreamExt as _, stream::SelectAll};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{Api, Client, Resource, runtime::watcher::watch_object};
use parking_lot::Mutex;
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

/// Files with their contents and modes, by their paths in a volume.
pub type Held = BTreeMap<String, (Vec<u8>, u32)>;

/// Pods that are followed at a time.
pub const MOST: usize = 500;
/// Changes of one volume that are kept.
const MOST_CHANGES: usize = 200;
/// Kinds of volumes whose contents stand in other objects.
const KINDS: [&str; 4] = ["configMap", "secret", "downwardAPI", "projected"];

/// What the volumes of one pod have held.
#[derive(Default)]
pub struct Sights(Mutex<BTreeMap<String, Vec<(Timestamp, Held)>>>);

impl Sights {
    /// Notes what a volume holds now.
    fn see(&self, volume: &str, now: Timestamp, held: Held) {
        let mut all = self.0.lock();
        let seen = all.entry(volume.to_owned()).or_default();
        if seen.last().is_none_or(|(_, last)| *last != held) && seen.len() < MOST_CHANGES {
            seen.push((now, held));
        }
    }

    /// What a volume held at an instant, and what it has held since; nothing of one that is not followed.
    pub fn held(&self, volume: &str, from: Timestamp) -> Option<(Held, Vec<(Timestamp, Held)>)> {
        let all = self.0.lock();
        let seen = all.get(volume)?;
        // What was seen first was there before: a pod is followed as soon as its node hears of it.
        let first = seen.iter().rposition(|(at, _)| *at <= from).unwrap_or(0);
        let (_, held) = seen.get(first)?;
        Some((held.clone(), seen[first + 1..].to_vec()))
    }
}

/// The volumes of a pod whose contents stand in other objects, but that of its token.
pub fn volumes(pod: &Value) -> impl Iterator<Item = &Value> {
    let all = list(&pod["spec"]["volumes"]);
    all.filter(|it| KINDS.iter().any(|kind| it.get(*kind).is_some()))
        .filter(|it| !text(&it["name"]).starts_with("kube-api-access-"))
}

type Changes = SelectAll<futures::stream::BoxStream<'static, ()>>;

/// Tells when one of these objects comes, changes or goes.
fn watch<K>(api: Api<K>, names: &[String], changes: &mut Changes)
where
    K: Resource + Clone + Debug + Send + serde::de::DeserializeOwned + 'static,
{
    for name in names {
        let changed = watch_object(api.clone(), name).filter_map(async |it| it.ok().map(drop));
        changes.push(changed.boxed());
    }
}

/// Follows the volumes of a pod until it has ended or gone.
pub async fn follow(network: Network, client: Client, pod: (String, String, String)) {
    let (namespace, name, uid) = pod;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let read = async || {
        let pod = pods.get_opt(&name).await.ok()??;
        let pod = serde_json::to_value(pod).ok()?;
        (pod["metadata"]["uid"] == *uid).then_some(pod)
    };
    let Some(mut pod) = read().await else { return };
    if volumes(&pod).next().is_none() {
        return;
    }
    let (mut maps, mut secrets) = (vec![], vec![]);
    for volume in volumes(&pod) {
        let own = std::iter::once(volume);
        for source in own.chain(list(&volume["projected"]["sources"])) {
            maps.push(text(&source["configMap"]["name"]).to_owned());
            secrets.push(text(&source["secret"]["secretName"]).to_owned());
            secrets.push(text(&source["secret"]["name"]).to_owned());
        }
    }
    for names in [&mut maps, &mut secrets] {
        names.retain(|it| !it.is_empty());
        names.sort();
        names.dedup();
    }
    let mut changes = Changes::new();
    watch::<ConfigMap>(
        Api::namespaced(client.clone(), &namespace),
        &maps,
        &mut changes,
    );
    watch::<Secret>(
        Api::namespaced(client.clone(), &namespace),
        &secrets,
        &mut changes,
    );
    watch(pods.clone(), std::slice::from_ref(&name), &mut changes);
    let sights = Arc::new(Sights::default());
    let known = &network.0.sights;
    known.lock().insert(uid.as_str().into(), sights.clone());
    loop {
        let place = Place::of(&client, &pod);
        let any = list(&pod["spec"]["containers"]).next().cloned();
        for volume in volumes(&pod) {
            let held = place
                .volume(any.as_ref().unwrap_or(&Value::Null), volume)
                .await;
            let now = network.truth().clock.now().timestamp();
            sights.see(text(&volume["name"]), now, held);
        }
        if matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed") {
            return;
        }
        if changes.next().await.is_none() {
            return;
        }
        match read().await {
            Some(seen) => pod = seen,
            None => {
                known.lock().remove(uid.as_str());
                return;
            }
        }
    }
}

impl Network {
    /// Follows what the volumes of a pod hold that stand in other objects.
    pub(crate) fn follow_volumes(&self, namespace: &str, name: &str, uid: &str) {
        let client = self.0.state.read().client.clone();
        let Some(client) = client else { return };
        let Ok(place) = self.0.followed.clone().try_acquire_owned() else {
            return;
        };
        let pod = (namespace.to_owned(), name.to_owned(), uid.to_owned());
        let (network, ended) = (self.clone(), self.0.state.read().ended.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = follow(network, client, pod) => {}
                () = ended.cancelled() => {}
            }
        });
    }

    /// What the volumes of a pod have held, if they are followed.
    pub(super) fn seen(&self, uid: &str) -> Option<Arc<Sights>> {
        self.0.sights.lock().get(uid).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_at_a_time_is_known() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let held = |text: &str| Held::from([("f".to_owned(), (text.as_bytes().to_vec(), 0o644))]);
        let sights = Sights::default();
        assert_eq!(sights.held("v", at(0)), None);
        for (second, text) in [(10, "a"), (20, "a"), (30, "b"), (40, "c")] {
            sights.see("v", at(second), held(text));
        }
        let cases = [
            (5, "a", vec!["b", "c"]),
            (29, "a", vec!["b", "c"]),
            (30, "b", vec!["c"]),
            (50, "c", vec![]),
        ];
        for (from, first, later) in cases {
            let (was, since) = sights.held("v", at(from)).unwrap();
            let since: Vec<_> = since.into_iter().map(|(_, it)| it).collect();
            let later: Vec<_> = later.into_iter().map(held).collect();
            assert_eq!((was, since), (held(first), later), "from {from}");
        }
    }
}
