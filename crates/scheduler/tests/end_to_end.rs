//! The whole scheduler against the embedded API server, through the Kubernetes API alone.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::allow_attributes,
    reason = "helpers of tests are not seen as tests"
)]

mod support;

use gantry_apiserver::{Config, Server};
use gantry_scheduler::core::Profile;
use gantry_scheduler::core::profile::Strategy;
use gantry_scheduler::{DECISION, Options};
use gantry_store::Store;
use k8s_openapi::api::core::v1::{
    Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Starts a scheduler.
fn scheduler(client: Client, options: Options) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let token = stop.clone();
    let run = tokio::spawn(async move {
        gantry_scheduler::run(client, options, token)
            .await
            .expect("ends without an error");
    });
    (stop, run)
}

/// A cluster of one API server, and a scheduler that can be stopped and started.
struct World {
    server: Server,
    client: Client,
    scheduler: Option<(CancellationToken, JoinHandle<()>)>,
}

impl World {
    async fn new() -> Self {
        let config = Config {
            disabled_admission: vec!["ServiceAccount".to_owned()],
            ..Config::default()
        };
        let server = Server::start(config, Store::in_memory(gantry_store::Options::default()))
            .await
            .expect("starts");
        let client = server.client();
        let namespace =
            serde_json::from_value(json!({"metadata": {"name": "shop"}})).expect("a namespace");
        Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .expect("created");
        let mut world = Self {
            server,
            client,
            scheduler: None,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        self.start_with(self.client.clone());
    }

    fn start_with(&mut self, client: Client) {
        self.scheduler = Some(scheduler(client, Options::default()));
    }

    async fn stop(&mut self) {
        let (stop, run) = self.scheduler.take().expect("runs");
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), run)
            .await
            .expect("stops quickly")
            .expect("without panic");
    }

    async fn end(mut self) {
        self.stop().await;
        self.server.shutdown().await;
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "shop")
    }

    async fn node(&self, name: &str, over: &Value) {
        let nodes = Api::<Node>::all(self.client.clone());
        let node = support::node(name, "a", over);
        let status = json!({"status": node["status"]});
        // Admission taints every new node as not ready; the node lifecycle controller would take it back.
        let ready = json!({"spec": {"taints": node["spec"].get("taints")}});
        let node = serde_json::from_value(node).expect("a node");
        nodes
            .create(&PostParams::default(), &node)
            .await
            .expect("node created");
        let patch = Patch::Merge(&status);
        nodes
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .expect("node status written");
        let ready = Patch::Merge(&ready);
        nodes
            .patch(name, &PatchParams::default(), &ready)
            .await
            .expect("node made ready");
    }

    async fn pod(&self, name: &str, over: &Value) {
        let mut pod = support::pod(
            name,
            &json!({"spec": {"containers": [{"name": "c", "image": "i", "resources":
            {"requests": {"cpu": "1", "memory": "512Mi"}}}]}}),
        );
        support::merge(&mut pod, over);
        pod["metadata"]["namespace"] = json!("shop");
        pod["metadata"]
            .as_object_mut()
            .expect("an object")
            .remove("uid");
        let pod = serde_json::from_value(pod).expect("a pod");
        self.pods()
            .create(&PostParams::default(), &pod)
            .await
            .expect("pod created");
    }

    /// Waits until a pod is as wanted.
    async fn until<T>(&self, name: &str, what: &str, wanted: impl Fn(&Pod) -> Option<T>) -> T {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let pod = self.pods().get(name).await.expect("the pod");
            if let Some(found) = wanted(&pod) {
                return found;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{name} is not {what}: {pod:#?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn bound(&self, name: &str) -> String {
        self.until(name, "bound", |pod| pod.spec.as_ref()?.node_name.clone())
            .await
    }

    async fn refused(&self, name: &str) -> String {
        self.until(name, "refused", |pod| {
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let condition = conditions
                .iter()
                .find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
            (condition.reason.as_deref() == Some("Unschedulable"))
                .then(|| condition.message.clone())?
        })
        .await
    }

    /// Waits for an event about a pod and returns its message.
    async fn event(&self, pod: &str, reason: &str) -> String {
        let events = Api::<Event>::namespaced(self.client.clone(), "shop");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let list = events.list(&ListParams::default()).await.expect("events");
            let found = list.items.into_iter().find(|e| {
                e.involved_object.name.as_deref() == Some(pod)
                    && e.reason.as_deref() == Some(reason)
            });
            if let Some(event) = found {
                return event.message.unwrap_or_default();
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "no event {reason} for {pod}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_bound_and_told_so() {
    let world = World::new().await;
    world.node("n1", &json!({})).await;
    world.pod("p1", &json!({})).await;
    assert_eq!(world.bound("p1").await, "n1");
    assert_eq!(
        world.event("p1", "Scheduled").await,
        "Successfully assigned shop/p1 to n1"
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_waits_for_a_node_and_for_room() {
    let world = World::new().await;
    world.pod("p1", &json!({})).await;
    assert_eq!(
        world.refused("p1").await,
        "no nodes available to schedule pods"
    );
    world
        .node("n1", &json!({"status": {"allocatable": {"cpu": "1"}}}))
        .await;
    assert_eq!(world.bound("p1").await, "n1");
    // Full now: the next one waits until the first is gone.
    world.pod("p2", &json!({})).await;
    let message = world.refused("p2").await;
    let want = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption \
                victims found for incoming pod.";
    assert_eq!(message, want);
    assert_eq!(world.event("p2", "FailedScheduling").await, want);
    world
        .pods()
        .delete("p1", &DeleteParams::default().grace_period(0))
        .await
        .expect("deleted");
    assert_eq!(world.bound("p2").await, "n1");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gated_pods_and_those_of_other_schedulers_are_left_alone() {
    let world = World::new().await;
    world.node("n1", &json!({})).await;
    world
        .pod("other", &json!({"spec": {"schedulerName": "another"}}))
        .await;
    world
        .pod(
            "gated",
            &json!({"spec": {"schedulingGates": [{"name": "example.com/wait"}]}}),
        )
        .await;
    // Made last and bound first: the scheduler has passed over both.
    world.pod("plain", &json!({})).await;
    world.bound("plain").await;
    for name in ["other", "gated"] {
        let pod = world.pods().get(name).await.expect("the pod");
        assert_eq!(pod.spec.and_then(|s| s.node_name), None, "{name}");
    }
    let open = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    world
        .pods()
        .patch("gated", &PatchParams::default(), &open)
        .await
        .expect("gate removed");
    assert_eq!(world.bound("gated").await, "n1");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_scheduler_knows_what_is_placed() {
    let mut world = World::new().await;
    world
        .node("n1", &json!({"status": {"allocatable": {"cpu": "3"}}}))
        .await;
    for name in ["p1", "p2"] {
        world.pod(name, &json!({})).await;
        world.bound(name).await;
    }
    world.stop().await;
    world.pod("p3", &json!({})).await;
    world.pod("p4", &json!({})).await;
    world.start();
    // One more fits, and no more than one.
    assert_eq!(world.bound("p3").await, "n1");
    assert!(world.refused("p4").await.contains("1 Insufficient cpu"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_pods_never_overfills_a_node() {
    let world = World::new().await;
    for i in 0..10 {
        world
            .node(
                &format!("n{i}"),
                &json!({"status": {"allocatable": {"cpu": "5"}}}),
            )
            .await;
    }
    for i in 0..50 {
        world.pod(&format!("p{i}"), &json!({})).await;
    }
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for i in 0..50 {
        *counts
            .entry(world.bound(&format!("p{i}")).await)
            .or_default() += 1;
    }
    assert!(
        counts.len() == 10 && counts.values().all(|pods| *pods == 5),
        "{counts:?}"
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_higher_priority_takes_the_room_of_a_lower_one() {
    let world = World::new().await;
    for (name, value) in [("high", 1000), ("low", 10)] {
        let class = serde_json::from_value(json!({"metadata": {"name": name}, "value": value}))
            .expect("a class");
        let classes = Api::<PriorityClass>::all(world.client.clone());
        classes
            .create(&PostParams::default(), &class)
            .await
            .expect("class created");
    }
    world
        .node("n1", &json!({"status": {"allocatable": {"cpu": "2"}}}))
        .await;
    let class = |name: &str| json!({"spec": {"priorityClassName": name, "terminationGracePeriodSeconds": 0}});
    world.pod("lower", &class("low")).await;
    world
        .pod(
            "middle",
            &json!({"spec": {"terminationGracePeriodSeconds": 0}}),
        )
        .await;
    world.bound("lower").await;
    world.bound("middle").await;
    world.pod("higher", &class("high")).await;
    assert_eq!(
        world.event("middle", "Preempted").await.split(' ').next(),
        Some("Preempted")
    );
    // Nobody runs here who would end the victim; a grace period of zero with force is what a kubelet does at the end.
    world
        .pods()
        .delete("middle", &DeleteParams::default().grace_period(0))
        .await
        .ok();
    assert_eq!(world.bound("higher").await, "n1");
    let left: Vec<_> = world
        .pods()
        .list(&ListParams::default())
        .await
        .expect("pods")
        .items;
    let left: Vec<_> = left.into_iter().filter_map(|p| p.metadata.name).collect();
    assert_eq!(left, ["higher", "lower"]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selectors_on_labels_unique_to_each_pod_count() {
    let world = World::new().await;
    for name in ["n1", "n2"] {
        world.node(name, &json!({})).await;
    }
    let unique =
        |name: &str| json!({"metadata": {"labels": {"statefulset.kubernetes.io/pod-name": name}}});
    world.pod("s-0", &unique("s-0")).await;
    world.pod("s-1", &unique("s-1")).await;
    let (first, second) = (world.bound("s-0").await, world.bound("s-1").await);
    assert_ne!(first, second);
    for (name, beside, node) in [("beside-0", "s-0", first), ("beside-1", "s-1", second)] {
        let term = json!({"topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"statefulset.kubernetes.io/pod-name": beside}}});
        let affinity =
            json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        world
            .pod(name, &json!({"spec": {"affinity": affinity}}))
            .await;
        assert_eq!(world.bound(name).await, node);
    }
    world.end().await;
}

/// A client whose requests fail with 503 while `fails` says so.
fn unreliable(
    inner: Client,
    fails: impl Fn(&str) -> bool + Clone + Send + Sync + 'static,
) -> Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (inner, fail) = (inner.clone(), fails(request.uri().path()));
        async move {
            if !fail {
                return inner.send(request).await;
            }
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503,
                "reason": "ServiceUnavailable", "message": "not now"});
            let body = kube::client::Body::from(status.to_string().into_bytes());
            Ok(http::Response::builder()
                .status(503)
                .body(body)
                .expect("a response"))
        }
    });
    Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_that_fails_is_tried_again_and_its_room_given_back() {
    let mut world = World::new().await;
    world.stop().await;
    world
        .node("n1", &json!({"status": {"allocatable": {"cpu": "1"}}}))
        .await;
    let tried = Arc::new(AtomicUsize::new(0));
    let counter = tried.clone();
    let client = unreliable(world.client.clone(), move |path| {
        path.ends_with("/p1/binding") && counter.fetch_add(1, Ordering::SeqCst) < 1
    });
    world.start_with(client);
    world.pod("p1", &json!({})).await;
    assert_eq!(world.bound("p1").await, "n1");
    assert_eq!(tried.load(Ordering::SeqCst), 2);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheduler_goes_on_when_the_api_server_is_back() {
    let mut world = World::new().await;
    world.stop().await;
    world.node("n1", &json!({})).await;
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = refused.clone();
    // Every first request of every watch, and some more.
    let client = unreliable(world.client.clone(), move |_| {
        counter.fetch_add(1, Ordering::SeqCst) < 12
    });
    world.start_with(client);
    world.pod("p1", &json!({})).await;
    assert_eq!(world.bound("p1").await, "n1");
    assert!(refused.load(Ordering::SeqCst) > 12);
    world.end().await;
}

async fn create<K>(api: &Api<K>, object: Value)
where
    K: kube::Resource + Clone + serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let object = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object)
        .await
        .expect("created");
}

/// Waits until an object is as wanted.
async fn until_is<K>(api: &Api<K>, name: &str, wanted: impl Fn(&Value) -> bool) -> Value
where
    K: Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let found = api.get_opt(name).await.expect("an answer");
        let found = serde_json::to_value(found).expect("JSON");
        if wanted(&found) {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{name} is not as wanted: {found:#}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The test plays the volume controller and the provisioner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_that_are_bound_late_are_reserved_or_asked_for_and_awaited() {
    let world = World::new().await;
    let hostname = |name: &str| json!({"metadata": {"labels": {"kubernetes.io/hostname": name}}});
    for name in ["n1", "n2"] {
        world.node(name, &hostname(name)).await;
    }
    let classes = Api::<StorageClass>::all(world.client.clone());
    for (name, provisioner) in [
        ("local", "kubernetes.io/no-provisioner"),
        ("made", "csi.example.com"),
    ] {
        create(
            &classes,
            json!({"metadata": {"name": name}, "provisioner": provisioner,
            "volumeBindingMode": "WaitForFirstConsumer"}),
        )
        .await;
    }
    let volumes = Api::<PersistentVolume>::all(world.client.clone());
    create(
        &volumes,
        json!({"metadata": {"name": "disk"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "local": {"path": "/d"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}]}}}}),
    )
    .await;
    let available = Patch::Merge(json!({"status": {"phase": "Available"}}));
    volumes
        .patch_status("disk", &PatchParams::default(), &available)
        .await
        .expect("available");
    let claims = Api::<PersistentVolumeClaim>::namespaced(world.client.clone(), "shop");
    for (name, class) in [("static", "local"), ("dynamic", "made")] {
        create(
            &claims,
            json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}}}),
        )
        .await;
    }
    let mounts = json!({"spec": {"volumes": [
        {"name": "a", "persistentVolumeClaim": {"claimName": "static"}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "dynamic"}}]}});
    world.pod("p1", &mounts).await;
    until_is(&volumes, "disk", |v| {
        v["spec"]["claimRef"]["name"] == "static"
    })
    .await;
    let selected =
        |c: &Value| c["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] == "n2";
    until_is(&claims, "dynamic", selected).await;
    // Not before both are bound.
    let pod = world.pods().get("p1").await.expect("the pod");
    assert_eq!(pod.spec.and_then(|s| s.node_name), None);
    create(&volumes, json!({"metadata": {"name": "fresh"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "storageClassName": "made", "csi": {"driver": "csi.example.com", "volumeHandle": "h"},
        "claimRef": {"namespace": "shop", "name": "dynamic"}}}))
    .await;
    for (claim, volume) in [("static", "disk"), ("dynamic", "fresh")] {
        let bound = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"volumeName": volume}});
        claims
            .patch(claim, &PatchParams::default(), &Patch::Merge(bound))
            .await
            .expect("bound");
    }
    assert_eq!(world.bound("p1").await, "n2");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_profile_places_the_pods_that_name_it() {
    let mut world = World::new().await;
    world.stop().await;
    for name in ["n1", "n2"] {
        world.node(name, &json!({})).await;
    }
    let packer = Profile {
        strategy: Strategy::MostAllocated,
        ..Profile::named("packer")
    };
    let options = Options {
        profiles: vec![Profile::default(), packer],
        ..Options::default()
    };
    world.scheduler = Some(scheduler(world.client.clone(), options));
    world.pod("p1", &json!({})).await;
    let first = world.bound("p1").await;
    for name in ["q1", "q2"] {
        world
            .pod(name, &json!({"spec": {"schedulerName": "packer"}}))
            .await;
        assert_eq!(world.bound(name).await, first);
    }
    world.pod("p2", &json!({})).await;
    assert_ne!(world.bound("p2").await, first);
    let scheduled = world.event("q1", "Scheduled").await;
    assert_eq!(
        scheduled,
        format!("Successfully assigned shop/q1 to {first}")
    );
    // What was decided, and by whom, stays with the event.
    let events = Api::<Event>::namespaced(world.client.clone(), "shop");
    let events = events
        .list(&ListParams::default())
        .await
        .expect("events")
        .items;
    let event = events
        .iter()
        .find(|e| e.involved_object.name.as_deref() == Some("q1"));
    let event = event.expect("the event");
    assert_eq!(event.reporting_component.as_deref(), Some("packer"));
    let decision = &event.metadata.annotations.as_ref().expect("annotations")[DECISION];
    let decision: Value = serde_json::from_str(decision).expect("JSON");
    assert_eq!(decision["chosen"]["node"], json!(first));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_started_anew_keeps_the_room_that_was_made() {
    let mut world = World::new().await;
    let class = json!({"metadata": {"name": "high"}, "value": 1000});
    create(&Api::<PriorityClass>::all(world.client.clone()), class).await;
    for name in ["n1", "n2"] {
        world
            .node(name, &json!({"status": {"allocatable": {"cpu": "1"}}}))
            .await;
    }
    for name in ["low-1", "low-2"] {
        world
            .pod(
                name,
                &json!({"metadata": {"finalizers": ["example.com/stay"]}}),
            )
            .await;
        world.bound(name).await;
    }
    world
        .pod("higher", &json!({"spec": {"priorityClassName": "high"}}))
        .await;
    let nominated = world
        .until("higher", "nominated", |pod| {
            pod.status.as_ref()?.nominated_node_name.clone()
        })
        .await;
    let victim = world
        .pods()
        .list(&ListParams::default().fields(&format!("spec.nodeName={nominated}")))
        .await
        .expect("pods")
        .items;
    let victim = victim[0].metadata.name.clone().expect("a name");
    world
        .until(&victim, "leaving", |pod| {
            pod.metadata.deletion_timestamp.clone()
        })
        .await;
    world.stop().await;
    world.start();
    // The node is held for it again: one that would fit nowhere else does not slip in, nor is another victim sought.
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world
        .pods()
        .patch(&victim, &PatchParams::default(), &free)
        .await
        .expect("let go");
    world
        .pods()
        .delete(&victim, &DeleteParams::default().grace_period(0))
        .await
        .ok();
    assert_eq!(world.bound("higher").await, nominated);
    let left = world
        .pods()
        .list(&ListParams::default())
        .await
        .expect("pods")
        .items;
    assert!(left.iter().all(|p| p.metadata.deletion_timestamp.is_none()) && left.len() == 2);
    world.end().await;
}

#[tokio::test]
async fn a_placement_policy_holds_from_the_next_placement_on_and_says_what_it_selects() {
    use gantry_api::PlacementPolicy;
    let mut world = World::new().await;
    world.stop().await;
    gantry_scheduler::install(&world.client)
        .await
        .expect("installed");
    world.start();
    for (name, disk) in [("n1", "hdd"), ("n2", "ssd")] {
        world
            .node(name, &json!({"metadata": {"labels": {"disk": disk}}}))
            .await;
    }
    let policies = Api::<PlacementPolicy>::all(world.client.clone());
    let policy = |disk: &str| -> PlacementPolicy {
        serde_json::from_value(json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy",
            "metadata": {"name": "disks"}, "spec": {"pods": {"namespaces": ["shop"]}, "hardware": {"required": {"disk": [disk]}}}}))
        .expect("a policy")
    };
    let post = PostParams::default();
    // The definition may be established a moment after it was taken.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while policies.create(&post, &policy("ssd")).await.is_err() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "no policies can be made"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = async |generation: i64, pods: i64| loop {
        let status = policies.get("disks").await.expect("the policy").status;
        if let Some(status) = status
            && status.observed_generation == Some(generation)
            && status.pods == pods
        {
            return status;
        }
        assert!(
            tokio::time::Instant::now() < deadline + Duration::from_secs(20),
            "not told"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let status = told(1, 0).await;
    assert_eq!(status.conditions[0].status, "True");
    world.pod("a", &json!({})).await;
    assert_eq!(world.bound("a").await, "n2");
    // Changed: it holds for the next pod, and lets one in that waited.
    let change =
        |disk: &str| Patch::Merge(json!({"spec": {"hardware": {"required": {"disk": [disk]}}}}));
    let patch = PatchParams::default();
    policies
        .patch("disks", &patch, &change("tape"))
        .await
        .expect("changed");
    told(2, 1).await;
    world.pod("b", &json!({})).await;
    assert!(
        world
            .refused("b")
            .await
            .contains("2 node(s) didn't match placement policy disks")
    );
    policies
        .patch("disks", &patch, &change("hdd"))
        .await
        .expect("changed");
    assert_eq!(world.bound("b").await, "n1");
    told(3, 2).await;
    // What cannot be followed is refused when it is written, by its field.
    let twice = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy", "metadata": {"name": "bad"}, "spec":
        {"pools": [{"name": "p", "nodeSelector": {"a": "b"}}, {"name": "p", "nodeSelector": {"a": "c"}}]}});
    let twice = serde_json::from_value(twice).expect("a policy");
    let refused = policies
        .create(&post, &twice)
        .await
        .expect_err("it is refused");
    assert!(refused.to_string().contains("spec.pools"), "{refused}");
    world.end().await;
}

/// Kinds of others that the scheduler reads, as plain values.
async fn make(client: &Client, path: &str, body: Value) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .expect("a request");
        match client.request::<Value>(request).await {
            Ok(_) => return,
            // A definition may be established a moment after it was taken.
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{path}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn gangs_quotas_and_reservations_hold() {
    let mut world = World::new().await;
    world.stop().await;
    gantry_scheduler::install(&world.client)
        .await
        .expect("installed");
    world.start();
    for name in ["n1", "n2"] {
        world.node(name, &json!({})).await;
    }
    let two = json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}}}]}});
    // A gang of three waits for its third, and is bound as a whole.
    let group = json!({"apiVersion": "scheduling.x-k8s.io/v1alpha1", "kind": "PodGroup", "metadata": {"name": "ring"},
        "spec": {"minMember": 3, "scheduleTimeoutSeconds": 30}});
    make(
        &world.client,
        "/apis/scheduling.x-k8s.io/v1alpha1/namespaces/shop/podgroups",
        group,
    )
    .await;
    let mut member = two.clone();
    member["metadata"] = json!({"labels": {"scheduling.x-k8s.io/pod-group": "ring"}});
    world.pod("r0", &member).await;
    world.pod("r1", &member).await;
    world
        .until("r1", "told to wait", |pod| {
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let message = conditions
                .iter()
                .find(|c| c.type_ == "PodScheduled")?
                .message
                .as_ref()?;
            message.contains("pod group ring").then_some(())
        })
        .await;
    world.pod("r2", &member).await;
    for name in ["r0", "r1", "r2"] {
        world.bound(name).await;
    }
    for name in ["r0", "r1", "r2"] {
        world
            .pods()
            .delete(name, &DeleteParams::default().grace_period(0))
            .await
            .expect("deleted");
    }
    // Room that is held is for its owners.
    let reservation = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Reservation", "metadata": {"name": "surge"},
        "spec": {"replicas": 2, "requests": {"cpu": "3"}, "owners": {"matchLabels": {"app": "own"}}, "ttl": "10m"}});
    let path = "/apis/gantry.dev/v1alpha1/namespaces/shop/reservations";
    make(&world.client, path, reservation).await;
    let reservations = Api::<gantry_api::Reservation>::namespaced(world.client.clone(), "shop");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let held = async |held: i32, used: i32| loop {
        let status = reservations
            .get("surge")
            .await
            .expect("the reservation")
            .status
            .unwrap_or_default();
        if (status.held, status.used) == (held, used) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    held(2, 0).await;
    world.pod("stranger", &two).await;
    assert!(
        world
            .refused("stranger")
            .await
            .contains("2 Insufficient cpu")
    );
    let mut own = two.clone();
    own["metadata"] = json!({"labels": {"app": "own"}});
    world.pod("own", &own).await;
    world.bound("own").await;
    held(1, 1).await;
    // What the slot held beyond the pod is free: the stranger fits.
    world.bound("stranger").await;
    // A tenant over its quota is told so.
    let quota = json!({"apiVersion": "scheduling.sigs.k8s.io/v1alpha1", "kind": "ElasticQuota", "metadata": {"name": "shop"},
        "spec": {"min": {"cpu": "1"}, "max": {"cpu": "7500m"}}});
    make(
        &world.client,
        "/apis/scheduling.sigs.k8s.io/v1alpha1/namespaces/shop/elasticquotas",
        quota,
    )
    .await;
    let quotas = "/apis/scheduling.sigs.k8s.io/v1alpha1/namespaces/shop/elasticquotas/shop";
    // 2 + 2 by pods, 3 held for the tenant.
    loop {
        let request = http::Request::get(quotas)
            .body(Vec::new())
            .expect("a request");
        let seen: Value = world.client.request(request).await.expect("the quota");
        if seen["status"]["used"]["cpu"] == "7" {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline + Duration::from_secs(10),
            "{seen}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world
        .pod(
            "more",
            &json!({"spec": {"nodeSelector": {"kubernetes.io/os": "linux"}}}),
        )
        .await;
    let told = world.refused("more").await;
    assert!(
        told.contains("pod would exceed quota shop: 7 of at most 7500m cpu are used"),
        "{told}"
    );
    world.end().await;
}

#[tokio::test]
async fn hot_nodes_take_no_pods_until_their_measurement_is_too_old() {
    use gantry_scheduler::core::load::{LoadArgs, Source};
    let mut world = World::new().await;
    world.stop().await;
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "nodemetrics.slo.koordinator.sh"}, "spec": {"group": "slo.koordinator.sh", "scope": "Cluster",
        "names": {"kind": "NodeMetric", "listKind": "NodeMetricList", "plural": "nodemetrics", "singular": "nodemetric"},
        "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": anything}}]}});
    make(
        &world.client,
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        definition,
    )
    .await;
    world.node("n1", &json!({})).await;
    // Young enough for the scheduler to start and refuse the pod, and then too old.
    let ahead = jiff::SignedDuration::from_secs(8);
    let now = (jiff::Timestamp::now() + ahead).to_string();
    let metric = json!({"apiVersion": "slo.koordinator.sh/v1alpha1", "kind": "NodeMetric", "metadata": {"name": "n1"},
        "spec": {}, "status": {"updateTime": now, "nodeMetric": {"nodeUsage": {"resources": {"cpu": "3900m", "memory": "1Gi"}}}}});
    make(
        &world.client,
        "/apis/slo.koordinator.sh/v1alpha1/nodemetrics",
        metric,
    )
    .await;
    let profile = Profile {
        load: Some(LoadArgs {
            expiry: 4,
            source: Source::NodeMetric,
            ..LoadArgs::default()
        }),
        ..Profile::default()
    };
    let options = Options {
        profiles: vec![profile],
        ..Options::default()
    };
    let metrics = options.metrics.clone();
    world.scheduler = Some(scheduler(world.client.clone(), options));
    world.pod("a", &json!({})).await;
    let told = world.refused("a").await;
    assert!(
        told.contains("1 node(s) cpu usage exceed threshold"),
        "{told}"
    );
    // Nobody measures it any more: it counts by requests, and that is said once.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while world
        .pods()
        .get("a")
        .await
        .expect("the pod")
        .spec
        .and_then(|s| s.node_name)
        .is_none()
    {
        assert!(tokio::time::Instant::now() < deadline, "still refused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(metrics.stale_nodes.load(Ordering::Relaxed), 1);
    let events = Api::<Event>::namespaced(world.client.clone(), "default");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let list = events.list(&ListParams::default()).await.expect("events");
        let stale = list
            .items
            .iter()
            .filter(|e| e.reason.as_deref() == Some("StaleUsage"));
        if stale.count() == 1 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "no event");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.end().await;
}
