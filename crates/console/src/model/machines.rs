//! CPU and memory that nodes really use: read from `metrics.k8s.io` of every member, only while somebody looks at
//! the map of nodes by their load.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use kube::Client;
use parking_lot::Mutex;
use serde_json::Value;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Model, Topic,
    usage::{self, EVERY},
};

/// Nodes that nobody has looked at for so long are no longer read; an open page is rendered twice in that time.
const FORGET: Duration = Duration::from_secs(75);

/// Thousandths of a core and bytes, by member and node.
pub type Loads = HashMap<String, HashMap<String, (i64, i64)>>;

/// What was read last, while somebody looks.
#[derive(Default)]
pub struct Machines {
    read: Mutex<Arc<Loads>>,
    seen: Mutex<Option<Instant>>,
}

impl Machines {
    /// What was read last; empty where nothing was yet.
    pub fn loads(&self) -> Arc<Loads> {
        self.read.lock().clone()
    }

    /// Notes that somebody looks; whether reading has to be started.
    fn look(&self, now: Instant) -> bool {
        self.seen.lock().replace(now).is_none()
    }

    /// Whether nobody has looked for long; then it is forgotten.
    fn left(&self, now: Instant) -> bool {
        let mut seen = self.seen.lock();
        let left = seen.is_none_or(|at| now.duration_since(at) > FORGET);
        if left {
            *seen = None;
            *self.read.lock() = Arc::default();
        }
        left
    }
}

impl Model {
    /// Somebody looks at what nodes use: it is read for as long as they do.
    pub fn look_at_nodes(self: &Arc<Self>, stop: &CancellationToken, tasks: &TaskTracker) {
        if self.machines.look(Instant::now()) {
            tasks.spawn(sample(self.clone(), stop.clone()));
        }
    }
}

async fn sample(model: Arc<Model>, stop: CancellationToken) {
    loop {
        let names: Vec<String> = model.read().members.keys().cloned().collect();
        let asked = names.into_iter().filter_map(|name| {
            let client = Client::try_from(model.access(&name)?).ok()?;
            Some(async move {
                let path = "/apis/metrics.k8s.io/v1beta1/nodes";
                let list = usage::ask(&name, &client, path.to_owned()).await;
                (name, points(&list.unwrap_or_default()))
            })
        });
        let readings = tokio::select! {
            () = stop.cancelled() => return,
            readings = join_all(asked) => readings,
        };
        let whole: Loads = readings
            .into_iter()
            .filter(|(_, m)| !m.is_empty())
            .collect();
        if !whole.is_empty() {
            let members: Vec<String> = whole.keys().cloned().collect();
            *model.machines.read.lock() = Arc::new(whole);
            model.change(|_| members.into_iter().map(Topic::Nodes).collect());
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        if model.machines.left(Instant::now()) {
            return;
        }
    }
}

fn points(list: &Value) -> HashMap<String, (i64, i64)> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|item| {
            let name = item["metadata"]["name"].as_str()?.to_owned();
            Some((name, usage::amounts(&item["usage"])))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nodes_use_is_read_while_somebody_looks() {
        let list = json!({"items": [{"metadata": {"name": "n1"}, "usage": {"cpu": "1500m", "memory": "2Ki"}},
            {"metadata": {}, "usage": {}}]});
        assert_eq!(
            points(&list),
            HashMap::from([("n1".to_owned(), (1500, 2048))])
        );
        let machines = Machines::default();
        let start = Instant::now();
        assert!(machines.look(start) && !machines.look(start));
        *machines.read.lock() = Arc::new(Loads::from([("sh".to_owned(), points(&list))]));
        assert!(!machines.left(start + FORGET) && machines.loads().len() == 1);
        assert!(machines.left(start + FORGET + Duration::from_secs(1)));
        assert!(machines.loads().is_empty() && machines.look(start));
    }
}
