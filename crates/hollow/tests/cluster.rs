//! Simulated nodes against an API server: through a client, as any kubelet.

#![expect(
    clippy::unwrap_used,
    reason = "what goes wrong in a helper fails the test that calls it"
)]

use futures::{StreamExt as _, TryStreamExt as _};
use gantry_apiserver::{Config, Server};
use gantry_hollow::{NodeGroup, Options, behaviour::Defaults, run};
use gantry_store::Store;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Event, Node, Pod},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt::Debug, pin::pin, time::Duration};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

struct Rig {
    server: Server,
    client: Client,
    stop: CancellationToken,
    running: Option<JoinHandle<Result<(), gantry_hollow::Error>>>,
}

fn options(nodes: u32) -> Options {
    Options {
        groups: if nodes == 0 {
            vec![]
        } else {
            vec![NodeGroup::new("east", "sh-a", nodes)]
        },
        lease_interval: Duration::from_millis(200),
        time_scale: 20.0,
        ..Options::default()
    }
}

impl Rig {
    async fn new() -> Self {
        let config = Config {
            disabled_admission: vec!["ServiceAccount".into()],
            ..Config::default()
        };
        let server = Server::start(config, Store::in_memory(gantry_store::Options::default()))
            .await
            .unwrap();
        let client = server.client();
        Self {
            server,
            client,
            stop: CancellationToken::new(),
            running: None,
        }
    }

    async fn with(options: Options) -> Self {
        let mut rig = Self::new().await;
        rig.start(options);
        rig
    }

    fn start(&mut self, options: Options) {
        assert!(self.running.is_none());
        self.stop = CancellationToken::new();
        self.running = Some(tokio::spawn(run(
            self.server.client(),
            options,
            self.stop.clone(),
        )));
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        let running = self.running.take().unwrap();
        tokio::time::timeout(PATIENCE, running)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    async fn end(mut self) {
        self.stop().await;
        self.server.shutdown().await;
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create(&self, name: &str, node: &str, image: &str, edit: impl FnOnce(&mut Value)) {
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"app": "cart"}},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 20,
                "containers": [{"name": "app", "image": image}],
            },
        });
        edit(&mut pod);
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods()
            .create(&PostParams::default(), &pod)
            .await
            .unwrap();
    }

    async fn pod(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(self.pods(), name, what, |pod| pod.is_some_and(&holds))
            .await
            .unwrap()
    }
}

/// Watches one object until something holds of it; `None` is its absence.
async fn until<K>(
    api: Api<K>,
    name: &str,
    what: &str,
    holds: impl Fn(Option<&Value>) -> bool,
) -> Option<Value>
where
    K: kube::Resource
        + Clone
        + serde::de::DeserializeOwned
        + serde::Serialize
        + Debug
        + Send
        + 'static,
{
    let mut last = None;
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = pin!(watcher(api, config).default_backoff().boxed());
    let search = async {
        while let Some(event) = events.try_next().await.unwrap() {
            let listing = matches!(event, watcher::Event::Init);
            match event {
                watcher::Event::Apply(it) | watcher::Event::InitApply(it) => {
                    last = Some(serde_json::to_value(it).unwrap());
                }
                watcher::Event::Delete(_) | watcher::Event::Init => last = None,
                watcher::Event::InitDone => {}
            }
            if !listing && holds(last.as_ref()) {
                return;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, search).await;
    assert!(
        found.is_ok(),
        "{name}: not {what} in {PATIENCE:?}; last seen: {last:#?}"
    );
    last
}

fn condition<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    let list = object["status"]["conditions"].as_array()?;
    list.iter().find(|it| it["type"] == name)?["status"].as_str()
}

fn ready(object: &Value) -> bool {
    condition(object, "Ready") == Some("True")
}

fn waits_for<'a>(reason: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |pod| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
}

#[tokio::test]
async fn nodes_register_and_keep_their_leases() {
    let rig = Rig::with(options(3)).await;
    let nodes: Api<Node> = Api::all(rig.client.clone());
    let mut ranges = BTreeSet::new();
    for name in ["sh-a-001", "sh-a-002", "sh-a-003"] {
        let node = until(nodes.clone(), name, "ready", |it| it.is_some_and(ready))
            .await
            .unwrap();
        assert_eq!(
            node["metadata"]["labels"]["topology.kubernetes.io/zone"],
            "sh-a"
        );
        assert_eq!(node["metadata"]["labels"]["gantry.dev/simulated"], "true");
        assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.36.0");
        ranges.insert(node["spec"]["podCIDR"].as_str().unwrap().to_owned());
        until(nodes.clone(), name, "without taints", |it| {
            it.is_some_and(|it| it["spec"]["taints"].is_null())
        })
        .await;
        let leases: Api<Lease> = Api::namespaced(rig.client.clone(), "kube-node-lease");
        let lease = until(leases.clone(), name, "there", |it| it.is_some())
            .await
            .unwrap();
        assert_eq!(
            lease["metadata"]["ownerReferences"][0]["uid"],
            node["metadata"]["uid"]
        );
        let first = lease["spec"]["renewTime"].clone();
        until(leases, name, "renewed", |it| {
            it.is_some_and(|it| it["spec"]["renewTime"] != first)
        })
        .await;
    }
    assert_eq!(ranges.len(), 3, "each node has addresses of its own");
    rig.end().await;
}

#[tokio::test]
async fn a_pod_from_bound_to_deleted() {
    let rig = Rig::with(options(1)).await;
    rig.create("cart-0", "sh-a-001", "shop/cart:1", |pod| {
        pod["spec"]["readinessGates"] = json!([{"conditionType": "gantry.dev/in-service"}]);
    })
    .await;
    let pod = rig
        .pod("cart-0", "ready but for its gate", |it| {
            condition(it, "ContainersReady") == Some("True")
        })
        .await;
    assert_eq!(condition(&pod, "Ready"), Some("False"));
    assert_eq!(pod["status"]["phase"], "Running");
    let status = &pod["status"]["containerStatuses"][0];
    assert!(
        status["containerID"]
            .as_str()
            .unwrap()
            .starts_with("containerd://simulated-")
    );
    assert!(
        pod["status"]["qosClass"].is_string(),
        "what others wrote stays"
    );

    let gate =
        json!({"status": {"conditions": [{"type": "gantry.dev/in-service", "status": "True"}]}});
    rig.pods()
        .patch_status("cart-0", &PatchParams::default(), &Patch::Strategic(&gate))
        .await
        .unwrap();
    rig.pod("cart-0", "ready", ready).await;

    let image = json!({
        "metadata": {"labels": {"gantry.dev/revision": "2"}},
        "spec": {"containers": [{"name": "app", "image": "shop/cart:2"}]},
    });
    rig.pods()
        .patch("cart-0", &PatchParams::default(), &Patch::Strategic(&image))
        .await
        .unwrap();
    rig.pod("cart-0", "out of service", |it| !ready(it)).await;
    let after = rig
        .pod("cart-0", "restarted", |it| {
            ready(it) && it["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    let new = &after["status"]["containerStatuses"][0];
    assert_eq!(new["image"], "shop/cart:2");
    assert_ne!(new["imageID"], status["imageID"]);
    assert_ne!(new["containerID"], status["containerID"]);
    assert_eq!(
        new["lastState"]["terminated"]["containerID"],
        status["containerID"]
    );
    for kept in ["podIP", "startTime", "hostIP"] {
        assert_eq!(after["status"][kept], pod["status"][kept]);
    }
    assert_eq!(after["metadata"]["uid"], pod["metadata"]["uid"]);
    assert_eq!(
        condition(&after, "gantry.dev/in-service"),
        Some("True"),
        "the hub's condition is the hub's"
    );

    rig.pods()
        .delete("cart-0", &DeleteParams::default())
        .await
        .unwrap();
    until(rig.pods(), "cart-0", "gone", |it| it.is_none()).await;
    let events: Api<Event> = Api::namespaced(rig.client.clone(), "default");
    let events = events.list(&ListParams::default()).await.unwrap();
    let reasons: BTreeSet<_> = events
        .items
        .iter()
        .filter(|it| it.source.as_ref().and_then(|it| it.component.as_deref()) == Some("hollow"))
        .filter_map(|it| it.reason.as_deref())
        .collect();
    for reason in ["Pulling", "Pulled", "Created", "Started", "Killing"] {
        assert!(
            reasons.contains(reason),
            "{reason} is not among {reasons:?}"
        );
    }
    rig.end().await;
}

#[tokio::test]
async fn rules_of_the_config_map_hold_while_they_are_there() {
    let rig = Rig::with(options(1)).await;
    let maps: Api<ConfigMap> = Api::namespaced(rig.client.clone(), "kube-system");
    let text = "
- {image: '*:broken', ready: never, message: cannot reach the database}
- {image: '*:gone', pullError: manifest unknown}
- {image: '*:crash', crash: {after: 1s, exitCode: 7}}
- {imago: '*'}
";
    let map = json!({"metadata": {"name": "hollow-behaviours"}, "data": {"rules.yaml": text}});
    let map: ConfigMap = serde_json::from_value(map).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let events: Api<Event> = Api::namespaced(rig.client.clone(), "kube-system");
    let refused = |it: &Event| it.reason.as_deref() == Some("RuleRefused");
    let mut stream = pin!(
        watcher(events, watcher::Config::default())
            .default_backoff()
            .applied_objects()
    );
    let told = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(Ok(event)) = stream.next().await
                && refused(&event)
            {
                return event;
            }
        }
    });
    let told = told.await.unwrap();
    assert!(
        told.message
            .as_deref()
            .unwrap()
            .contains("rules.yaml: rule 4"),
        "{told:?}"
    );

    for tag in ["broken", "gone", "crash", "fine"] {
        rig.create(tag, "sh-a-001", &format!("shop/cart:{tag}"), |_| {})
            .await;
    }
    rig.pod("fine", "ready", ready).await;
    rig.pod("gone", "backing off", waits_for("ImagePullBackOff"))
        .await;
    rig.pod("crash", "backing off", waits_for("CrashLoopBackOff"))
        .await;
    let broken = rig
        .pod("broken", "running", |it| it["status"]["phase"] == "Running")
        .await;
    assert!(!ready(&broken));

    maps.delete("hollow-behaviours", &DeleteParams::default())
        .await
        .unwrap();
    rig.pod("broken", "ready", ready).await;
    rig.end().await;
}

#[tokio::test]
async fn an_api_server_that_was_away_is_caught_up_with() {
    let mut rig = Rig::new().await;
    // While it is away, counts the requests that it does not get.
    let away: watch::Sender<Option<u32>> = watch::Sender::new(None);
    let (inner, state) = (rig.server.client(), away.clone());
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let inner = inner.clone();
        let refused =
            state.send_if_modified(|count| count.as_mut().map(|count| *count += 1).is_some());
        async move {
            if refused {
                return Err("connection refused".into());
            }
            inner.send(request).await.map_err(tower::BoxError::from)
        }
    });
    rig.running = Some(tokio::spawn(run(
        Client::new(service, "default"),
        options(1),
        rig.stop.clone(),
    )));
    rig.create("before", "sh-a-001", "shop/cart:1", |_| {})
        .await;
    rig.pod("before", "ready", ready).await;
    away.send_replace(Some(0));
    rig.create("during", "sh-a-001", "shop/cart:1", |_| {})
        .await;
    rig.pods()
        .delete("before", &DeleteParams::default())
        .await
        .unwrap();
    let mut refused = away.subscribe();
    let many = refused.wait_for(|count| count.is_some_and(|count| count > 20));
    tokio::time::timeout(PATIENCE, many).await.unwrap().unwrap();
    away.send_replace(None);
    rig.pod("during", "ready", ready).await;
    until(rig.pods(), "before", "gone", |it| it.is_none()).await;
    rig.end().await;
}

#[tokio::test]
async fn another_process_takes_over() {
    let mut rig = Rig::with(options(2)).await;
    for (name, node) in [("a", "sh-a-001"), ("b", "sh-a-002")] {
        rig.create(name, node, "shop/cart:1", |_| {}).await;
        rig.pod(name, "ready", ready).await;
    }
    rig.create("crash", "sh-a-001", "shop/cart:1", |pod| {
        pod["metadata"]["annotations"] = json!({"hollow.gantry.dev/fail": "crash"});
    })
    .await;
    rig.pod("crash", "backing off", waits_for("CrashLoopBackOff"))
        .await;
    rig.stop().await;
    let before: Vec<_> = [
        rig.pods().get("a").await.unwrap(),
        rig.pods().get("b").await.unwrap(),
    ]
    .into();
    // While nobody is there: one pod is deleted, one comes, one's image changes.
    rig.pods()
        .delete("b", &DeleteParams::default())
        .await
        .unwrap();
    rig.create("c", "sh-a-002", "shop/cart:1", |_| {}).await;
    let crash = rig
        .pods()
        .get("crash")
        .await
        .unwrap()
        .status
        .unwrap()
        .container_statuses
        .unwrap()[0]
        .restart_count;

    // Without any groups: the nodes are taken over for their label alone.
    rig.start(options(0));
    until(rig.pods(), "b", "gone", |it| it.is_none()).await;
    let c = rig.pod("c", "ready", ready).await;
    let restarts = |it: &Value| it["status"]["containerStatuses"][0]["restartCount"].as_i64();
    rig.pod("crash", "restarted once more", |it| {
        restarts(it) > Some(crash.into())
    })
    .await;
    let after = rig.pods().get("a").await.unwrap();
    assert_eq!(
        after.metadata.resource_version, before[0].metadata.resource_version,
        "what is well is left alone"
    );
    let ip = |pod: &Pod| pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    assert_ne!(c["status"]["podIP"], ip(&before[0]));
    rig.end().await;
}

#[tokio::test]
async fn a_node_of_others_is_taken_over_and_one_without_the_label_is_not() {
    let rig = Rig::with(options(0)).await;
    let nodes: Api<Node> = Api::all(rig.client.clone());
    for (name, labels) in [
        ("mine", json!({"gantry.dev/simulated": "true"})),
        ("real", json!({})),
    ] {
        // Its pod is there before the node.
        rig.create(&format!("on-{name}"), name, "shop/cart:1", |_| {})
            .await;
        let node = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
                                {"key": "example.com/keep", "effect": "NoSchedule"}]},
        });
        nodes
            .create(
                &PostParams::default(),
                &serde_json::from_value(node).unwrap(),
            )
            .await
            .unwrap();
    }
    let taint = |it: &Value| {
        it["spec"]["taints"]
            .as_array()
            .map(|list| list.iter().map(|it| it["key"].clone()).collect::<Vec<_>>())
    };
    let node = until(nodes.clone(), "mine", "registered", |it| {
        it.is_some_and(|it| {
            ready(it)
                && it["spec"]["podCIDR"].is_string()
                && taint(it) == Some(vec!["example.com/keep".into()])
        })
    })
    .await
    .unwrap();
    assert_eq!(node["status"]["allocatable"]["pods"], "110");
    rig.pod("on-mine", "ready", ready).await;
    let real = nodes.get("real").await.unwrap();
    assert_eq!(real.spec.and_then(|it| it.pod_cidr), None);
    let pod = rig.pods().get("on-real").await.unwrap();
    assert_eq!(pod.status.and_then(|it| it.start_time), None);
    rig.end().await;
}

#[tokio::test]
async fn a_full_node_refuses_and_a_job_ends() {
    let rig = Rig::with(Options {
        groups: vec![NodeGroup {
            cpu: "2".into(),
            ..NodeGroup::new("east", "sh-a", 1)
        }],
        ..options(0)
    })
    .await;
    let ask = |cpu: &'static str| {
        move |pod: &mut Value| {
            pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}})
        }
    };
    rig.create("fits", "sh-a-001", "shop/cart:1", ask("1500m"))
        .await;
    rig.pod("fits", "ready", ready).await;
    rig.create("more", "sh-a-001", "shop/cart:1", ask("1"))
        .await;
    let more = rig
        .pod("more", "refused", |it| it["status"]["phase"] == "Failed")
        .await;
    assert_eq!(more["status"]["reason"], "OutOfcpu");
    assert_eq!(
        more["status"]["message"],
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
    );
    rig.create("job", "sh-a-001", "shop/job:1", |pod| {
        pod["spec"]["restartPolicy"] = "Never".into();
        pod["metadata"]["annotations"] =
            json!({"hollow.gantry.dev/run": "1s", "hollow.gantry.dev/exit-code": "3"});
    })
    .await;
    let job = rig
        .pod("job", "over", |it| it["status"]["phase"] == "Failed")
        .await;
    assert_eq!(
        job["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        3
    );

    // Other resources, through the subresource: there is room for some, for others later, for some never.
    rig.create("small", "sh-a-001", "shop/cart:1", ask("250m"))
        .await;
    rig.pod("small", "ready", ready).await;
    let resize = async |cpu: &str| {
        let patch = json!({"spec": {"containers": [{"name": "app", "resources": {"requests": {"cpu": cpu}}}]}});
        rig.pods()
            .patch_subresource(
                "resize",
                "small",
                &PatchParams::default(),
                &Patch::Strategic(patch),
            )
            .await
            .unwrap();
    };
    let given = |cpu: &'static str| {
        move |it: &Value| {
            it["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"] == cpu
                && condition(it, "PodResizeInProgress").is_none()
        }
    };
    let pending = |reason: &'static str| {
        move |it: &Value| {
            let all = it["status"]["conditions"].as_array();
            let mut all = all.into_iter().flatten();
            all.any(|it| it["type"] == "PodResizePending" && it["reason"] == reason)
        }
    };
    resize("500m").await;
    rig.pod("small", "larger", given("500m")).await;
    resize("3").await;
    let pod = rig.pod("small", "refused", pending("Infeasible")).await;
    assert!(given("500m")(&pod), "{pod:#}");
    resize("1").await;
    let pod = rig.pod("small", "put off", pending("Deferred")).await;
    let mut told = pod["status"]["conditions"].as_array().unwrap().iter();
    let told = told.find(|it| it["type"] == "PodResizePending").unwrap();
    assert_eq!(
        told["message"],
        "Node didn't have enough resource: cpu, requested: 1000, used: 1500, capacity: 2000"
    );
    assert_eq!(told["observedGeneration"], pod["metadata"]["generation"]);

    rig.pods()
        .delete("fits", &DeleteParams::default())
        .await
        .unwrap();
    until(rig.pods(), "fits", "gone", |it| it.is_none()).await;
    let pod = rig.pod("small", "given room", given("1")).await;
    assert_eq!(condition(&pod, "PodResizePending"), None);
    rig.create("again", "sh-a-001", "shop/cart:1", ask("1"))
        .await;
    rig.pod("again", "ready", ready).await;
    rig.end().await;
}

#[tokio::test]
async fn the_mirror_of_a_static_pod_comes_again() {
    let scenario = gantry_hollow::Scenario::parse(
        "nodes: [{class: plain, zone: a, staticPods: [{name: proxy, namespace: default, image: 'proxy:1', cpu: 100m}]}]",
        &|name| Err(name.to_owned()),
    );
    let scenario = std::sync::Arc::new(scenario.unwrap());
    let mut options = options(0);
    options.groups = scenario.groups(&[("east".into(), "a".into())]);
    options.scenario = Some(scenario);
    let rig = Rig::with(options).await;
    let (node, name) = ("a-plain-001", "proxy-a-plain-001");
    let pod = rig.pod(name, "ready", ready).await;
    let nodes: Api<Node> = Api::all(rig.client.clone());
    let owner = &pod["metadata"]["ownerReferences"][0];
    assert_eq!(owner["kind"], "Node");
    assert_eq!(
        owner["uid"],
        nodes.get(node).await.unwrap().metadata.uid.unwrap()
    );
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    assert_eq!(
        annotations["kubernetes.io/config.mirror"],
        annotations["kubernetes.io/config.hash"]
    );

    rig.pods()
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
    let uid = pod["metadata"]["uid"].clone();
    let again = rig
        .pod(name, "there again", |it| {
            it["metadata"]["uid"] != uid && ready(it)
        })
        .await;
    for key in ["containerStatuses", "podIP", "startTime"] {
        assert_eq!(
            again["status"][key], pod["status"][key],
            "{key}: it has gone on all the time"
        );
    }
    rig.end().await;
}

#[tokio::test]
async fn many_pods_get_addresses_of_their_own() {
    let rig = Rig::with(Options {
        defaults: Defaults::INSTANT,
        ..options(4)
    })
    .await;
    for index in 0..120 {
        rig.create(
            &format!("p-{index}"),
            &format!("sh-a-{:03}", index % 4 + 1),
            "shop/cart:1",
            |_| {},
        )
        .await;
    }
    let mut addresses = BTreeSet::new();
    for index in 0..120 {
        let pod = rig.pod(&format!("p-{index}"), "ready", ready).await;
        addresses.insert(pod["status"]["podIP"].as_str().unwrap().to_owned());
    }
    assert_eq!(addresses.len(), 120);
    rig.end().await;
}
