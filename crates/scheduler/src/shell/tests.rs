//! The driver alone: inputs go in as watches bring them, an API that answers at once takes what comes out, and the clock
//! stands still unless everybody waits for it.

use super::driver::Driver;
use super::objects::{Change, Input};
use super::{Metrics, Options};
use crate::core::object::{Node, Pod};
use gantry_api::PlacementPolicy;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A driver at work.
struct World {
    inputs: mpsc::Sender<Input>,
    /// Pods bound, with their nodes.
    bound: mpsc::UnboundedReceiver<(String, String)>,
    /// What else was written: path and body.
    written: mpsc::UnboundedReceiver<(String, Value)>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    run: JoinHandle<()>,
}

type Told<T> = mpsc::UnboundedReceiver<(String, T)>;

/// An API that takes everything and tells of it: of bindings, and of the rest.
fn api() -> (Client, Told<String>, Told<Value>) {
    let (tell, bound) = mpsc::unbounded_channel();
    let (tell_rest, written) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (tell, tell_rest) = (tell.clone(), tell_rest.clone());
        async move {
            let path = request.uri().path().to_owned();
            let body = request
                .into_body()
                .collect_bytes()
                .await
                .unwrap_or_default();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            if let Some(pod) = path.strip_suffix("/binding") {
                let pod = pod.rsplit('/').next().unwrap_or_default().to_owned();
                let node = body["target"]["name"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                tell.send((pod, node)).ok();
            } else {
                tell_rest.send((path, body)).ok();
            }
            let response = http::Response::new(Body::from(b"{}".to_vec()));
            Ok::<_, Infallible>(response)
        }
    });
    (Client::new(service, "default"), bound, written)
}

impl World {
    async fn new(options: Options) -> Self {
        let (client, bound, written) = api();
        let (inputs, receive) = mpsc::channel(4096);
        let (metrics, stop) = (options.metrics.clone(), CancellationToken::new());
        let driver = Driver::new(client, options, Arc::new(Notify::new()));
        let run = tokio::spawn(driver.drive(receive, stop.clone()));
        let world = Self {
            inputs,
            bound,
            written,
            metrics,
            stop,
            run,
        };
        macro_rules! list {
            ($($kind:ident),*) => {
                $(world.say(Input::$kind(Change::Listing)).await; world.say(Input::$kind(Change::Listed)).await;)*
            };
        }
        list!(
            Pod,
            Node,
            Namespace,
            Service,
            Claim,
            Volume,
            Class,
            CsiNode,
            CsiDriver,
            Capacity,
            Attachment,
            ReplicaSet,
            StatefulSet,
            Budget,
            Policy,
            Quota,
            PodGroup,
            Reservation,
            Topology,
            DeviceClaim,
            DeviceClass,
            DeviceSlice
        );
        world
    }

    async fn say(&self, input: Input) {
        self.inputs.send(input).await.expect("it listens");
    }

    async fn node(&self, name: &str, disk: &str, cpu: &str) {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"disk": disk}},
            "status": {"allocatable": {"cpu": cpu, "memory": "64Gi", "pods": "110"}}}))
            .expect("a node");
        self.say(Input::Node(Change::Applied(node))).await;
    }

    async fn pod(&self, name: &str, namespace: &str, cpu: &str) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": namespace, "uid": name},
            "spec": {"schedulerName": "default-scheduler",
                "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
        .expect("a pod");
        self.say(Input::Pod(Change::Applied(pod))).await;
    }

    async fn next(&mut self) -> (String, String) {
        let next = tokio::time::timeout(Duration::from_secs(60), self.bound.recv());
        next.await.expect("something is bound").expect("it runs")
    }

    async fn end(self) {
        self.stop.cancel();
        self.run.await.expect("without panic");
    }
}

fn policy(disk: &str, generation: i64) -> PlacementPolicy {
    serde_json::from_value(
        json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy",
        "metadata": {"name": "disks", "generation": generation},
        "spec": {"pods": {"namespaces": ["shop"]}, "hardware": {"required": {"disk": [disk]}}}}),
    )
    .expect("a policy")
}

#[tokio::test(start_paused = true)]
async fn a_policy_holds_for_the_placement_that_follows_its_event() {
    let mut world = World::new(Options::default()).await;
    // By itself, a pod goes to the emptier node.
    world.node("small", "ssd", "8").await;
    world.node("large", "hdd", "64").await;
    let mut pods = 0;
    let mut place = async |world: &mut World, want: &str, why: &str| {
        pods += 1;
        let name = format!("p{pods}");
        let began = Instant::now();
        world.pod(&name, "shop", "1").await;
        assert_eq!(world.next().await, (name, want.to_owned()), "{why}");
        // Nothing on the way waits for a timer: on this clock it takes no time.
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{why}: {:?}",
            began.elapsed()
        );
    };
    place(&mut world, "large", "no policy").await;
    for generation in 1..4 {
        let (disk, node) = [("ssd", "small"), ("hdd", "large")][usize::from(generation % 2 == 0)];
        let written = policy(disk, generation);
        world.say(Input::Policy(Change::Applied(written))).await;
        place(&mut world, node, "written").await;
    }
    world
        .say(Input::Policy(Change::Deleted(policy("ssd", 3))))
        .await;
    place(&mut world, "large", "deleted").await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_wait_are_let_in_by_a_policys_event() {
    let mut world = World::new(Options::default()).await;
    world.node("small", "ssd", "8").await;
    world
        .say(Input::Policy(Change::Applied(policy("tape", 1))))
        .await;
    world.pod("p", "shop", "1").await;
    // It is parked, and its first back-off is over.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.metrics.unschedulable.load(Relaxed), 1);
    let began = Instant::now();
    world
        .say(Input::Policy(Change::Deleted(policy("tape", 1))))
        .await;
    assert_eq!(world.next().await, ("p".to_owned(), "small".to_owned()));
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    world.end().await;
}

/// Bursts of several tenants, decided by several workers: every pod is bound once, no node is overfilled, and no tenant
/// waits for the burst of another.
#[tokio::test(start_paused = true)]
async fn bursts_of_tenants_are_decided_together() {
    let options = Options {
        workers: 3,
        together_from: Duration::ZERO,
        ..Options::default()
    };
    let mut world = World::new(options).await;
    for i in 0..50 {
        world.node(&format!("n{i}"), "ssd", "8").await;
    }
    // 400 fit.
    let sizes = ["1", "1000m", "999m"];
    for i in 0..420 {
        let tenant = if i < 300 { 0 } else { 1 + i % 3 };
        world
            .pod(&format!("p{i}"), &format!("t{tenant}"), sizes[i % 3])
            .await;
    }
    let mut on: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    let mut order = Vec::new();
    for _ in 0..400 {
        let (pod, node) = world.next().await;
        assert!(!order.contains(&pod), "{pod} is bound twice");
        order.push(pod);
        *on.entry(node).or_default() += 1;
    }
    assert!(on.values().all(|pods| *pods == 8), "{on:?}");
    let late = |pod: &&String| pod[1..].parse::<usize>().expect("a number") >= 300;
    assert_eq!(
        order.iter().filter(late).count(),
        120,
        "small tenants have all of theirs"
    );
    assert!(world.metrics.decided_together.load(Relaxed) > 200);
    world.end().await;
}

/// What is learned of services is kept, at most once an hour each, and known to the scheduler that comes after.
#[tokio::test(start_paused = true)]
async fn what_is_learned_of_services_is_kept() {
    let mut profile = crate::core::Profile::default();
    profile.weights.set(crate::core::profile::Rule::Services, 1);
    let options = || Options {
        profiles: vec![profile.clone()],
        ..Options::default()
    };
    let usage = |hour: usize, app: &str| {
        Input::PodUsage(vec![(
            "shop".to_owned(),
            app.to_owned(),
            hour,
            crate::core::services::Usage {
                base: [500, 1 << 20],
                network: Some(2_000_000),
            },
        )])
    };
    let mut world = World::new(options()).await;
    // Twelve hours of two services, every five minutes.
    for tick in 0..12 * 12 {
        for app in ["cart", "Not-a-name"] {
            world.say(usage(tick / 12, app)).await;
        }
        tokio::time::sleep(Duration::from_secs(300)).await;
    }
    let mut statuses = Vec::new();
    while let Ok((path, body)) = world.written.try_recv() {
        if path.ends_with("/status") {
            assert_eq!(
                path,
                "/apis/gantry.dev/v1alpha1/namespaces/shop/serviceprofiles/cart/status"
            );
            statuses.push(body["status"].clone());
        }
    }
    assert!(
        (10..=12).contains(&statuses.len()),
        "{} writes in 12 hours",
        statuses.len()
    );
    world.end().await;
    // The next one reads it, and has nothing of its own to write before it learns more.
    let last = statuses.pop().expect("some");
    // Of the last hour it may have been written just before it was measured.
    let known = last["hoursKnown"].as_i64().expect("a number");
    assert!((11..=12).contains(&known), "{known}");
    assert_eq!(last["cpuMilli"][3], 500);
    assert_eq!(
        (&last["networkBytes"][3], &last["networkClass"]),
        (&json!(2_000_000), &json!("Medium"))
    );
    let mut world = World::new(options()).await;
    let kept = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "ServiceProfile",
        "metadata": {"name": "cart", "namespace": "shop"}, "spec": {}, "status": last});
    let kept = serde_json::from_value(kept).expect("a profile");
    world
        .say(Input::ServiceProfile(Change::Applied(kept)))
        .await;
    world.say(Input::ServiceProfile(Change::Listed)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(world.written.try_recv().is_err());
    // One more measurement makes it one hour more: what was known before is in what is written.
    world.say(usage(20, "cart")).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut hours = None;
    while let Ok((path, body)) = world.written.try_recv() {
        if path.ends_with("/status") {
            hours = Some(body["status"]["hoursKnown"].clone());
        }
    }
    assert_eq!(hours, Some(json!(known + 1)));
    world.end().await;
}
