//! The recorder: listens to the hub's own watches, asks the ledger what follows, hands it to the writer, and
//! tells those who want to be told.
//!
//! What is heard is looked at once for whether it matters (generation and phase), so that the many writes of a
//! status cost one look into a map. Behind that stands a bounded queue. When it is full, what is heard is let go,
//! and all objects are looked at again when there is room: the ledger finds what was missed.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gantry_api::{
    App, Cluster, Group, Notification, Release, ReleaseOrder, StopLine, Strategy, Tenant,
};
use gantry_records::{Entry, Writer};
use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    hub::Hub,
    notify::Notifier,
    table::{Heard, Table},
    trail::Follower,
};
use crate::record::{Ledger, Observed, observe};

/// What is heard and not yet looked at.
const QUEUE: usize = 4096;
/// What is older than this when it is found out is recorded, and nobody is told.
const NEWS: Duration = Duration::from_secs(3600);

enum Event {
    Is(Box<Observed>),
    Gone(String),
    All(&'static str, Vec<Observed>),
}

/// One kind's tap: looks at objects, and knows which it has looked at.
trait Feed: Send + Sync {
    fn kind(&self) -> &'static str;
    /// All objects there are.
    fn all(&self) -> Option<Vec<Observed>>;
}

struct Tapped<K> {
    kind: &'static str,
    table: Arc<Table<K>>,
    look: fn(&K) -> Observed,
}

impl<K> Feed for Tapped<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn all(&self) -> Option<Vec<Observed>> {
        let all = self.table.all();
        self.table
            .synced()
            .then(|| all.iter().map(|o| (self.look)(o)).collect())
    }
}

/// The recorder, before it runs.
pub struct Recorder {
    feeds: Vec<Box<dyn Feed>>,
    sender: mpsc::Sender<Event>,
    receiver: mpsc::Receiver<Event>,
    missed: Arc<AtomicBool>,
}

/// What has been looked at of an object: its generation, and what else matters, shortened.
type Mark = (Option<i64>, u64);

impl Recorder {
    /// Taps the hub's tables. To be called before they are watched.
    pub fn new(hub: &Hub) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut recorder = Self {
            feeds: Vec::new(),
            sender,
            receiver,
            missed: Arc::default(),
        };
        recorder.tap(
            "App",
            &hub.apps,
            |_| 0,
            |a: &App| observe(a, &a.spec, "", None),
        );
        recorder.tap(
            "Strategy",
            &hub.strategies,
            |_| 0,
            |s: &Strategy| observe(s, &s.spec, "", None),
        );
        recorder.tap(
            "Cluster",
            &hub.clusters,
            |_| 0,
            |c: &Cluster| observe(c, &c.spec, "", None),
        );
        recorder.tap(
            "StopLine",
            &hub.stop_lines,
            |_| 0,
            |l: &StopLine| observe(l, &l.spec, "", None),
        );
        recorder.tap(
            "Tenant",
            &hub.tenants,
            |_| 0,
            |t: &Tenant| observe(t, &t.spec, "", None),
        );
        recorder.tap(
            "Notification",
            &hub.notifications,
            |_| 0,
            |n: &Notification| observe(n, &n.spec, "", None),
        );
        recorder.tap(
            "Group",
            &hub.groups,
            |_| 0,
            |g: &Group| observe(g, &g.spec, &g.name_any(), None),
        );
        recorder.tap("Release", &hub.releases, stage, |r: &Release| {
            observe(r, &r.spec, &r.spec.group, Some(run(r)))
        });
        recorder.tap(
            "ReleaseOrder",
            &hub.orders,
            |_| 0,
            |o: &ReleaseOrder| observe(o, &o.spec, "", None),
        );
        recorder
    }

    /// `mark` shortens what matters beside the spec; `look` takes what is needed.
    fn tap<K>(
        &mut self,
        kind: &'static str,
        table: &Arc<Table<K>>,
        mark: fn(&K) -> u64,
        look: fn(&K) -> Observed,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let known: Mutex<HashMap<String, Mark>> = Mutex::default();
        let (sender, missed) = (self.sender.clone(), self.missed.clone());
        let send = move |event| {
            if sender.try_send(event).is_err() {
                missed.store(true, Ordering::SeqCst);
            }
        };
        let announced = |meta: &kube::core::ObjectMeta| {
            let annotations = meta.annotations.as_ref();
            annotations.is_some_and(|a| a.contains_key(gantry_api::labels::DELETE_NOTE))
        };
        let marked = move |object: &K| {
            let meta = object.meta();
            // An announced deletion changes no generation.
            let mark = mark(object).wrapping_mul(2) + u64::from(announced(meta));
            (
                meta.uid.clone().unwrap_or_default(),
                (meta.generation, mark),
            )
        };
        table.tap(move |heard| {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            match heard {
                Heard::Is(object) => {
                    let (uid, mark) = marked(object);
                    if known.insert(uid, mark) != Some(mark) {
                        send(Event::Is(Box::new(look(object))));
                    }
                }
                Heard::Gone(object) => {
                    let uid = object.meta().uid.clone().unwrap_or_default();
                    known.remove(&uid);
                    send(Event::Gone(uid));
                }
                Heard::All(objects) => {
                    *known = objects.iter().map(&marked).collect();
                    send(Event::All(kind, objects.iter().map(look).collect()));
                }
            }
        });
        self.feeds.push(Box::new(Tapped {
            kind,
            table: table.clone(),
            look,
        }));
    }

    /// Records until `stop`.
    pub async fn run(
        mut self,
        writer: Writer,
        notifier: Arc<Notifier>,
        follower: Option<Follower>,
        stop: CancellationToken,
    ) {
        let mut send = Sender {
            writer,
            notifier,
            follower,
        };
        let kinds: Vec<&str> = self.feeds.iter().map(|f| f.kind()).collect();
        let mut ledger = Ledger::new();
        let (mut listed, mut based) = (Vec::new(), false);
        // Asked for before anything is sent.
        let mut baseline = send.writer.baseline().await;
        let mut base = None;
        loop {
            // Of a list, what is there now.
            let mut version = u64::MAX;
            let entries = tokio::select! {
                () = stop.cancelled() => break,
                seen = &mut baseline, if base.is_none() => {
                    let Ok(seen) = seen else { break };
                    base = Some(seen);
                    vec![]
                }
                event = self.receiver.recv() => match event {
                    None => break,
                    Some(Event::Is(observed)) => {
                        version = observed.version;
                        ledger.see(*observed).into_iter().collect()
                    }
                    Some(Event::Gone(uid)) => ledger.gone(&uid, Timestamp::now()).into_iter().collect(),
                    Some(Event::All(kind, objects)) => {
                        if !listed.contains(&kind) {
                            listed.push(kind);
                        }
                        ledger.listed(kind, objects, Timestamp::now())
                    }
                },
            };
            if !send.entries(entries, version).await {
                break;
            }
            if !based
                && listed.len() == kinds.len()
                && let Some(seen) = &base
            {
                based = true;
                let entries = ledger.baseline(seen, &kinds, Timestamp::now());
                if !send.entries(entries, u64::MAX).await {
                    break;
                }
            }
            // There is room again: what was missed is found in the tables.
            if self.receiver.is_empty() && self.missed.swap(false, Ordering::SeqCst) {
                warn!("more happened than could be heard: all objects are looked at again");
                for feed in &self.feeds {
                    let Some(objects) = feed.all() else {
                        self.missed.store(true, Ordering::SeqCst);
                        continue;
                    };
                    if !listed.contains(&feed.kind()) {
                        listed.push(feed.kind());
                    }
                    let entries = ledger.listed(feed.kind(), objects, Timestamp::now());
                    if !send.entries(entries, u64::MAX).await {
                        return;
                    }
                }
            }
        }
    }
}

/// Where entries go.
struct Sender {
    writer: Writer,
    notifier: Arc<Notifier>,
    follower: Option<Follower>,
}

impl Sender {
    /// Whether somebody still writes.
    async fn entries(&mut self, mut entries: Vec<Entry>, seen: u64) -> bool {
        if let Some(follower) = &mut self.follower {
            follower.name(&mut entries, seen).await;
        }
        for entry in entries {
            let records = entry.records.clone();
            if !self.writer.send(entry).await {
                return false;
            }
            let now = Timestamp::now();
            for record in records {
                let news = record.finished.unwrap_or(record.at);
                if now.duration_since(news).unsigned_abs() < NEWS {
                    self.notifier.offer(&record);
                }
            }
        }
        true
    }
}

/// Where a release stands, as far as it is recorded.
fn run(release: &Release) -> Value {
    let Some(status) = &release.status else {
        return json!({"phase": "Pending"});
    };
    let over = status.phase.is_final();
    let mut run = json!({"phase": if over { status.phase.as_str() } else { "Running" }});
    if let Some(started) = &status.started {
        run["started"] = json!(started);
    }
    if over {
        run["message"] = json!(status.message);
        run["finished"] = json!(status.finished);
    }
    if !status.overrides.is_empty() {
        run["overrides"] = json!(status.overrides);
    }
    run
}

/// The same, shortened.
fn stage(release: &Release) -> u64 {
    let Some(status) = &release.status else {
        return 0;
    };
    let started = u64::from(status.started.is_some());
    let over = if status.phase.is_final() {
        1 + status.phase as u64
    } else {
        0
    };
    1 + started + 2 * over + 64 * status.overrides.len() as u64
}
