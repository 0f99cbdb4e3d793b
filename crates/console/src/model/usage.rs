//! CPU and memory that instances really use: read from `metrics.k8s.io` of the members that hold a Group's
//! instances, only while somebody looks at the Group, and kept in rings that go when nobody does.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use gantry_api::labels;
use gantry_hub::thousandths;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use super::{Key, Model, Topic};

/// How often usage is read; metrics servers measure every 15 seconds or so.
pub const EVERY: Duration = Duration::from_secs(15);
/// Points that are kept of an instance: ten minutes.
const POINTS: usize = 40;
/// A Group that nobody has looked at for so long is no longer read. Pages that are open are rendered twice in
/// that time at least.
const FORGET: Duration = Duration::from_secs(75);
/// Groups that are read at once; further ones show no usage.
const GROUPS: usize = 64;
/// How long a member may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// What was measured, oldest first: thousandths of a core, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Series {
    /// CPU.
    pub cpu: Vec<i64>,
    /// Memory.
    pub memory: Vec<i64>,
}

struct Look {
    seen: Instant,
    rings: HashMap<String, VecDeque<(i64, i64)>>,
}

/// Groups that somebody looks at.
#[derive(Default)]
pub struct Usage {
    looks: Mutex<HashMap<Key, Look>>,
}

impl Usage {
    /// Notes that somebody looks; whether reading has to be started.
    fn look(&self, key: &Key, now: Instant) -> bool {
        let mut looks = self.looks.lock();
        if let Some(look) = looks.get_mut(key) {
            look.seen = now;
            return false;
        }
        if looks.len() >= GROUPS {
            return false;
        }
        let rings = HashMap::new();
        looks.insert(key.clone(), Look { seen: now, rings });
        true
    }

    /// Whether nobody has looked for long; then it is forgotten.
    fn left(&self, key: &Key, now: Instant) -> bool {
        let mut looks = self.looks.lock();
        let left = looks
            .get(key)
            .is_none_or(|look| now.duration_since(look.seen) > FORGET);
        if left {
            looks.remove(key);
        }
        left
    }

    /// Takes one reading of a Group; instances that are not in it have gone.
    fn take(&self, key: &Key, read: &HashMap<String, (i64, i64)>) {
        let mut looks = self.looks.lock();
        let Some(look) = looks.get_mut(key) else {
            return;
        };
        look.rings.retain(|name, _| read.contains_key(name));
        for (name, point) in read {
            let ring = look.rings.entry(name.clone()).or_default();
            if ring.len() >= POINTS {
                ring.pop_front();
            }
            ring.push_back(*point);
        }
    }

    /// What is known of instances of a Group.
    pub fn of<'a>(
        &self,
        key: &Key,
        names: impl Iterator<Item = &'a str>,
    ) -> HashMap<String, Series> {
        let looks = self.looks.lock();
        let Some(look) = looks.get(key) else {
            return HashMap::new();
        };
        let found = names.filter_map(|name| {
            let (cpu, memory) = look.rings.get(name)?.iter().copied().unzip();
            Some((name.to_owned(), Series { cpu, memory }))
        });
        found.collect()
    }
}

impl Model {
    /// Somebody looks at a Group: its usage is read for as long as they do.
    pub fn look(self: &Arc<Self>, key: &Key, stop: &CancellationToken, tasks: &TaskTracker) {
        if self.usage.look(key, Instant::now()) {
            tasks.spawn(sample(self.clone(), key.clone(), stop.clone()));
        }
    }
}

async fn sample(model: Arc<Model>, key: Key, stop: CancellationToken) {
    let mut clients: HashMap<String, Client> = HashMap::new();
    loop {
        let members: Vec<String> = {
            let state = model.read();
            let all = state.members.iter();
            all.filter(|(_, m)| m.of_group(&key).next().is_some())
                .map(|(name, _)| name.clone())
                .collect()
        };
        clients.retain(|name, _| members.contains(name));
        for name in members {
            if !clients.contains_key(&name)
                && let Some(access) = model.access(&name)
                && let Ok(client) = Client::try_from(access)
            {
                clients.insert(name, client);
            }
        }
        let asked = clients
            .iter()
            .map(|(name, client)| read(name, client, &key));
        let readings = tokio::select! {
            () = stop.cancelled() => return,
            readings = join_all(asked) => readings,
        };
        let whole: HashMap<String, (i64, i64)> = readings.into_iter().flatten().collect();
        if !whole.is_empty() {
            model.usage.take(&key, &whole);
            model.change(|_| vec![Topic::Group(key.clone())]);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if model.usage.left(&key, Instant::now()) {
            return;
        }
    }
}

/// What a member says of a Group's instances; nothing where it measures none.
async fn read(member: &str, client: &Client, key: &Key) -> Vec<(String, (i64, i64))> {
    let (tenant, group) = key;
    let path = format!(
        "/apis/metrics.k8s.io/v1beta1/namespaces/{tenant}/pods?labelSelector={}%3D{group}",
        labels::GROUP.replace('/', "%2F")
    );
    let list = ask(member, client, path).await;
    list.map_or_else(Vec::new, |list| points(&list))
}

/// Asks a member's metrics; nothing where it measures none.
pub(super) async fn ask(member: &str, client: &Client, path: String) -> Option<Value> {
    let request = http::Request::get(path).body(Vec::new()).ok()?;
    match tokio::time::timeout(ANSWER, client.request::<Value>(request)).await {
        Ok(Ok(list)) => Some(list),
        Ok(Err(error)) => {
            debug!(cluster = %member, %error, "no usage");
            None
        }
        Err(_) => None,
    }
}

/// Thousandths of a core and bytes of a `usage`.
pub(super) fn amounts(usage: &Value) -> (i64, i64) {
    let amount = |name: &str| {
        let text = usage[name].as_str()?;
        thousandths(&Quantity(text.to_owned()))
    };
    let whole = |n: i128| i64::try_from(n).unwrap_or(i64::MAX);
    let memory = amount("memory").unwrap_or(0) / 1000;
    (whole(amount("cpu").unwrap_or(0)), whole(memory))
}

fn points(list: &Value) -> Vec<(String, (i64, i64))> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|item| {
            let (mut cpu, mut memory) = (0i64, 0i64);
            for container in item["containers"].as_array()? {
                let (c, m) = amounts(&container["usage"]);
                cpu = cpu.saturating_add(c);
                memory = memory.saturating_add(m);
            }
            let name = item["metadata"]["name"].as_str()?.to_owned();
            Some((name, (cpu, memory)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rings_are_bounded_and_go_when_nobody_looks() {
        let usage = Usage::default();
        let key = ("shop".to_owned(), "cart".to_owned());
        let start = Instant::now();
        assert!(usage.look(&key, start), "the first starts the reading");
        assert!(!usage.look(&key, start), "the second does not");
        let point = |n: i64| HashMap::from([("a".to_owned(), (n, n * 2))]);
        for n in 0..100 {
            usage.take(&key, &point(n));
        }
        let series = usage.of(&key, ["a", "b"].into_iter());
        assert_eq!((series.len(), series["a"].cpu.len()), (1, POINTS));
        assert_eq!((series["a"].cpu[0], series["a"].memory[39]), (60, 198));
        usage.take(&key, &HashMap::from([("b".to_owned(), (1, 1))]));
        assert!(!usage.of(&key, ["a"].into_iter()).contains_key("a"));
        assert!(!usage.left(&key, start + FORGET));
        assert!(usage.left(&key, start + FORGET + Duration::from_secs(1)));
        assert!(usage.of(&key, ["b"].into_iter()).is_empty());
        for n in 0..GROUPS + 5 {
            usage.look(&("t".to_owned(), n.to_string()), start);
        }
        assert_eq!(usage.looks.lock().len(), GROUPS);
    }

    #[test]
    fn containers_are_summed() {
        let list = json!({"items": [{"metadata": {"name": "a"}, "containers": [
            {"usage": {"cpu": "1500000n", "memory": "1024Ki"}}, {"usage": {"cpu": "250m", "memory": "1Mi"}}]},
            {"metadata": {}, "containers": []}]});
        assert_eq!(points(&list), [("a".to_owned(), (252, 2 << 20))]);
    }
}
