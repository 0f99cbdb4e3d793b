//! The watches that feed the model: Gantry's objects in the hub, nodes and instances of each member.

use std::{collections::HashMap, fmt::Debug, sync::Arc};

use futures::{StreamExt, pin_mut};
use gantry_api::{
    App, Cluster, Group, Notification, PlacementPolicy, Release, StopLine, Strategy, Tenant, labels,
};
use gantry_hub::{access, slim};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    Model,
    limits::{ElasticQuota, Quota, QuotaKind},
    member::Member,
    rows::{Instance, Node},
    state::{Department, Topic, key_of},
};

/// What a watch says.
enum Told<K, R> {
    Listed(Vec<R>),
    Put(R),
    Gone(K),
    Failing(String),
}

/// Follows a kind until `stop`; each object is turned into what is kept of it at once.
async fn follow<K, R>(
    api: Api<K>,
    config: watcher::Config,
    keep: impl Fn(K) -> R + Send,
    tell: impl Fn(Told<K, R>) + Send,
    stop: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    R: Send,
{
    let stream = watcher(api, config).default_backoff();
    pin_mut!(stream);
    let mut listing = Vec::new();
    let mut failing = false;
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = stream.next() => event,
        };
        match event {
            None => return,
            Some(Err(error)) => {
                debug!(kind = %K::kind(&()), %error, "watch failed");
                if !failing {
                    failing = true;
                    tell(Told::Failing(crate::error::root(&error)));
                }
            }
            Some(Ok(event)) => {
                failing = false;
                match event {
                    watcher::Event::Init => listing.clear(),
                    watcher::Event::InitApply(object) => listing.push(keep(object)),
                    watcher::Event::InitDone => tell(Told::Listed(std::mem::take(&mut listing))),
                    watcher::Event::Apply(object) => tell(Told::Put(keep(object))),
                    watcher::Event::Delete(object) => tell(Told::Gone(object)),
                }
            }
        }
    }
}

/// Watches one of Gantry's kinds in the hub. `list`, `put`, `gone` change the state.
macro_rules! hub_kind {
    ($model:ident, $stop:ident, $tasks:ident, $kind:ty, $name:literal,
     list: $list:expr, put: $put:expr, gone: $gone:expr) => {{
        $model.change(|state| {
            state.awaited.insert($name);
            Vec::new()
        });
        let model = $model.clone();
        let tell = move |told: Told<$kind, $kind>| {
            model.change(|state| match told {
                Told::Listed(all) => {
                    state.awaited.remove($name);
                    ($list)(state, all);
                    vec![Topic::All]
                }
                Told::Put(object) => vec![($put)(state, object)],
                Told::Gone(object) => vec![($gone)(state, object)],
                Told::Failing(why) => {
                    warn!(kind = $name, %why, "watch fails; it is tried again until it holds");
                    Vec::new()
                }
            });
        };
        let api: Api<$kind> = Api::all($model.client.clone());
        $tasks.spawn(follow(api, watcher::Config::default(), |o| o, tell, $stop.clone()));
    }};
}

fn slimmed<K: ResourceExt>(mut object: K) -> Arc<K> {
    object.meta_mut().managed_fields = None;
    Arc::new(object)
}

/// Starts every watch.
pub fn start(model: &Arc<Model>, hub: Config, stop: &CancellationToken, tasks: &TaskTracker) {
    hub_kind!(model, stop, tasks, App, "App",
        list: |s: &mut super::State, all: Vec<App>| s.apps = all.into_iter().map(|o| (key_of(&o), slimmed(o))).collect(),
        put: |s: &mut super::State, o: App| { let key = key_of(&o); s.apps.insert(key.clone(), slimmed(o)); Topic::Tenant(key.0) },
        gone: |s: &mut super::State, o: App| { let key = key_of(&o); s.apps.remove(&key); Topic::Tenant(key.0) });
    hub_kind!(model, stop, tasks, Strategy, "Strategy",
        list: |s: &mut super::State, all: Vec<Strategy>| s.strategies = all.into_iter().map(|o| (key_of(&o), slimmed(o))).collect(),
        put: |s: &mut super::State, o: Strategy| { let key = key_of(&o); s.strategies.insert(key.clone(), slimmed(o)); Topic::Tenant(key.0) },
        gone: |s: &mut super::State, o: Strategy| { let key = key_of(&o); s.strategies.remove(&key); Topic::Tenant(key.0) });
    hub_kind!(model, stop, tasks, StopLine, "StopLine",
        list: |s: &mut super::State, all: Vec<StopLine>| s.lines = all.into_iter().map(|o| (o.name_any(), slimmed(o))).collect(),
        put: |s: &mut super::State, o: StopLine| { s.lines.insert(o.name_any(), slimmed(o)); Topic::Lines },
        gone: |s: &mut super::State, o: StopLine| { s.lines.remove(&o.name_any()); Topic::Lines });
    hub_kind!(model, stop, tasks, Notification, "Notification",
        list: |s: &mut super::State, all: Vec<Notification>| s.hooks = all.into_iter().map(|o| (key_of(&o), slimmed(o))).collect(),
        put: |s: &mut super::State, o: Notification| { s.hooks.insert(key_of(&o), slimmed(o)); Topic::Hooks },
        gone: |s: &mut super::State, o: Notification| { s.hooks.remove(&key_of(&o)); Topic::Hooks });
    hub_kind!(model, stop, tasks, Tenant, "Tenant",
        list: |s: &mut super::State, all: Vec<Tenant>| s.departments = all.into_iter().map(|o| (o.name_any(), Department::of(o))).collect(),
        put: |s: &mut super::State, o: Tenant| { s.departments.insert(o.name_any(), Department::of(o)); Topic::Quotas },
        gone: |s: &mut super::State, o: Tenant| { s.departments.remove(&o.name_any()); Topic::Quotas });
    hub_kind!(model, stop, tasks, Group, "Group",
        list: |s: &mut super::State, all: Vec<Group>| {
            let now: std::collections::BTreeSet<_> = all.iter().map(key_of).collect();
            let gone: Vec<_> = s.groups.keys().filter(|k| !now.contains(*k)).cloned().collect();
            for key in gone { s.remove_group(&key); }
            for group in all { s.put_group(group); }
        },
        put: |s: &mut super::State, o: Group| s.put_group(o),
        gone: |s: &mut super::State, o: Group| s.remove_group(&key_of(&o)));
    hub_kind!(model, stop, tasks, Release, "Release",
        list: |s: &mut super::State, all: Vec<Release>| {
            let now: std::collections::BTreeSet<_> = all.iter().map(key_of).collect();
            let gone: Vec<_> = s.releases.keys().filter(|k| !now.contains(*k)).cloned().collect();
            for key in gone { s.remove_release(&key); }
            for release in all { s.put_release(release); }
        },
        put: |s: &mut super::State, o: Release| s.put_release(o),
        gone: |s: &mut super::State, o: Release| s.remove_release(&key_of(&o)));
    clusters(model, hub, stop, tasks);
}

/// Watches Clusters, and keeps a connection to each member.
fn clusters(model: &Arc<Model>, hub: Config, stop: &CancellationToken, tasks: &TaskTracker) {
    // Names of Clusters that were seen or have gone; a queue of names that holds each once.
    let (seen, mut names) = mpsc::unbounded_channel::<String>();
    let (m, again) = (model.clone(), seen.clone());
    hub_kind!(model, stop, tasks, Cluster, "Cluster",
    list: |s: &mut super::State, all: Vec<Cluster>| {
        let before: Vec<String> = s.clusters.keys().cloned().collect();
        s.clusters = all.into_iter().map(|o| (o.name_any(), slimmed(o))).collect();
        for name in before.into_iter().chain(s.clusters.keys().cloned()) { let _ = seen.send(name); }
    },
    put: |s: &mut super::State, o: Cluster| {
        let name = o.name_any();
        let spec_changed = s.clusters.get(&name).is_none_or(|old| old.spec != o.spec);
        s.clusters.insert(name.clone(), slimmed(o));
        if spec_changed { let _ = seen.send(name.clone()); }
        Topic::Cluster(name)
    },
    gone: |s: &mut super::State, o: Cluster| {
        let name = o.name_any();
        s.clusters.remove(&name);
        let _ = seen.send(name.clone());
        Topic::Cluster(name)
    });
    let (stop, work) = (stop.clone(), tasks.clone());
    tasks.spawn(async move {
        let mut connected: HashMap<String, (String, CancellationToken)> = HashMap::new();
        loop {
            let name = tokio::select! {
                () = stop.cancelled() => return,
                name = names.recv() => name,
            };
            let Some(name) = name else { return };
            let Err(why) = connect(&m, &hub, &name, &mut connected, &stop, &work).await else {
                continue;
            };
            warn!(cluster = %name, %why, "member cannot be reached; it is tried again");
            m.change(|state| {
                state.members.entry(name.clone()).or_default().trouble = Some(why);
                vec![Topic::Cluster(name.clone())]
            });
            let (again, stop) = (again.clone(), stop.clone());
            work.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(std::time::Duration::from_secs(5)) => { let _ = again.send(name); }
                }
            });
        }
    });
}

async fn connect(
    model: &Arc<Model>,
    hub: &Config,
    name: &str,
    connected: &mut HashMap<String, (String, CancellationToken)>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) -> Result<(), String> {
    let Some(cluster) = model.read().clusters.get(name).cloned() else {
        if let Some((_, stop)) = connected.remove(name) {
            stop.cancel();
        }
        model.access.lock().remove(name);
        model.change(|state| {
            state.members.remove(name);
            vec![Topic::Cluster(name.to_owned()), Topic::All]
        });
        return Ok(());
    };
    let kubeconfig = access::kubeconfig(&model.client, &cluster).await?;
    let text = kubeconfig.clone().unwrap_or_default();
    model.change(|state| {
        state
            .members
            .entry(name.to_owned())
            .or_default()
            .divide(&cluster.spec.cells);
        vec![Topic::Nodes(name.to_owned())]
    });
    if connected.get(name).is_some_and(|(old, _)| *old == text) {
        return Ok(());
    }
    let (config, client) = match kubeconfig {
        None => (hub.clone(), model.client.clone()),
        Some(text) => {
            let config = access::config(&text).await?;
            let client =
                Client::try_from(config.clone()).map_err(|e| format!("make a client: {e}"))?;
            (config, client)
        }
    };
    model.access.lock().insert(name.to_owned(), config);
    let stop = stop.child_token();
    if let Some((_, old)) = connected.insert(name.to_owned(), (text, stop.clone())) {
        old.cancel();
    }
    info!(cluster = %name, "watching the member");
    watch_member(model, name, client, &stop, tasks);
    Ok(())
}

fn watch_member(
    model: &Arc<Model>,
    name: &str,
    client: Client,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) {
    let at = |f: fn(&mut Member, Option<String>)| {
        let (model, name) = (model.clone(), name.to_owned());
        move |why: Option<String>| {
            model.change(|state| {
                let Some(member) = state.members.get_mut(&name) else {
                    return Vec::new();
                };
                f(member, why);
                vec![Topic::Cluster(name.clone())]
            });
        }
    };
    let trouble = at(|member, why| member.trouble = why);
    let (m, member) = (model.clone(), name.to_owned());
    let told = trouble.clone();
    let pods = move |t: Told<slim::Pod, Instance>| {
        let change = |f: &mut dyn FnMut(&mut Member) -> Vec<Topic>| {
            m.change(|state| state.members.get_mut(&member).map(f).unwrap_or_default());
        };
        match t {
            Told::Listed(all) => {
                let mut all = Some(all);
                change(&mut |member| {
                    member.trouble = None;
                    member.replace(all.take().unwrap_or_default())
                });
            }
            Told::Put(instance) => {
                let mut instance = Some(instance);
                change(&mut |member| instance.take().map(|i| member.put(i)).unwrap_or_default());
            }
            Told::Gone(pod) => {
                let key = key_of(&pod);
                change(&mut |member| member.remove(&key));
            }
            Told::Failing(why) => told(Some(why)),
        }
    };
    let selector = watcher::Config::default().labels(labels::GROUP);
    let api: Api<slim::Pod> = Api::all(client.clone());
    tasks.spawn(follow(
        api,
        selector,
        |pod| Instance::of(&pod),
        pods,
        stop.clone(),
    ));

    let (m, member) = (model.clone(), name.to_owned());
    let nodes = move |t: Told<slim::Node, Node>| match t {
        Told::Failing(why) => trouble(Some(why)),
        t => m.change(|state| {
            let Some(found) = state.members.get_mut(&member) else {
                return Vec::new();
            };
            let changed = match t {
                Told::Listed(all) => {
                    found.replace_nodes(all);
                    true
                }
                Told::Put(node) => found.put_node(node),
                Told::Gone(node) => {
                    found.remove_node(&node.name_any());
                    true
                }
                Told::Failing(_) => false,
            };
            if changed {
                vec![Topic::Nodes(member.clone())]
            } else {
                Vec::new()
            }
        }),
    };
    let api: Api<slim::Node> = Api::all(client.clone());
    let all = watcher::Config::default();
    tasks.spawn(follow(
        api,
        all,
        |node| Node::of(&node),
        nodes,
        stop.clone(),
    ));
    watch_limits(model, name, &client, stop, tasks);
}

/// A kind that a member may lack, or close to the console: what cannot be read is not shown.
struct Beside<'a> {
    model: &'a Arc<Model>,
    member: &'a str,
    client: &'a Client,
    stop: &'a CancellationToken,
    tasks: &'a TaskTracker,
}

impl Beside<'_> {
    fn watch<K, R>(&self, topic: Topic, keep: fn(K) -> R, change: fn(&mut Member, Told<K, R>))
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
        R: Send + 'static,
    {
        let (model, member) = (self.model.clone(), self.member.to_owned());
        let tell = move |told: Told<K, R>| {
            if let Told::Failing(why) = &told {
                debug!(cluster = %member, kind = %K::kind(&()), %why, "not read");
                return;
            }
            model.change(|state| {
                let Some(found) = state.members.get_mut(&member) else {
                    return Vec::new();
                };
                change(found, told);
                vec![topic.clone()]
            });
        };
        let api: Api<K> = Api::all(self.client.clone());
        let all = watcher::Config::default();
        self.tasks
            .spawn(follow(api, all, keep, tell, self.stop.clone()));
    }
}

/// Watches what says where instances may go and how much there may be of them.
fn watch_limits(
    model: &Arc<Model>,
    member: &str,
    client: &Client,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) {
    let beside = Beside {
        model,
        member,
        client,
        stop,
        tasks,
    };
    beside.watch::<PlacementPolicy, _>(Topic::Policies, slimmed, |member, told| match told {
        Told::Listed(all) => {
            member.policies = all.into_iter().map(|p| (p.name_any(), p)).collect();
        }
        Told::Put(policy) => {
            member.policies.insert(policy.name_any(), policy);
        }
        Told::Gone(policy) => {
            member.policies.remove(&policy.name_any());
        }
        Told::Failing(_) => {}
    });
    fn change<K: ResourceExt>(member: &mut Member, kind: QuotaKind, told: Told<K, Quota>) {
        let key = |q: &Quota| (kind, q.namespace.clone(), q.name.clone());
        match told {
            Told::Listed(all) => {
                member.quotas.retain(|(k, ..), _| *k != kind);
                let all = all.into_iter().map(|q| (key(&q), Arc::new(q)));
                member.quotas.extend(all);
            }
            Told::Put(quota) => {
                member.quotas.insert(key(&quota), Arc::new(quota));
            }
            Told::Gone(object) => {
                let (namespace, name) = key_of(&object);
                member.quotas.remove(&(kind, namespace, name));
            }
            Told::Failing(_) => {}
        }
    }
    beside.watch::<ResourceQuota, _>(
        Topic::Quotas,
        |q| Quota::of_resource_quota(&q),
        |member, told| change(member, QuotaKind::ResourceQuota, told),
    );
    beside.watch::<ElasticQuota, _>(
        Topic::Quotas,
        |q| Quota::of_elastic_quota(&q),
        |member, told| change(member, QuotaKind::ElasticQuota, told),
    );
}
