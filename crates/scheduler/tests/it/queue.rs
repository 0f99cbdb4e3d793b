//! The queue: order, parking, waking and back-off, with time as data.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::allow_attributes,
    reason = "helpers of tests are not seen as tests"
)]

use crate::support::{add_node, decode_pod, node, pod};
use gantry_scheduler::core::cluster::Event;
use gantry_scheduler::core::queue::{LONGEST_PARKED, Queue};
use gantry_scheduler::core::turns::Tenant;
use gantry_scheduler::core::{ClassId, Cluster, Diagnosis};
use rstest::rstest;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn uid(name: &str) -> Arc<str> {
    format!("uid-{name}").into()
}

struct World {
    cluster: Cluster,
    queue: Queue,
}

impl World {
    fn new() -> Self {
        let mut cluster = Cluster::new();
        add_node(
            &mut cluster,
            &node("n1", "a", &json!({"status": {"allocatable": {"cpu": "1"}}})),
        );
        cluster.events.clear();
        Self {
            cluster,
            queue: Queue::default(),
        }
    }

    fn push(&mut self, name: &str, over: &Value) -> (ClassId, Option<Arc<Diagnosis>>) {
        let pod = decode_pod(&pod(name, over));
        let class = self.cluster.classify(&pod);
        let priority = pod.spec.priority.unwrap_or_default();
        let tenant = Tenant(self.cluster.group_key(class).namespace.0);
        (class, self.queue.push(&uid(name), class, priority, tenant))
    }

    fn park(&mut self, class: ClassId, now: Duration) -> Vec<Arc<str>> {
        let diagnosis = Arc::new(self.cluster.diagnose(class));
        self.queue.park(class, diagnosis, now)
    }

    fn wake(&mut self, event: Event, now: Duration) {
        self.queue.wake(event, &self.cluster, now);
    }

    /// Takes the next pod as placed.
    fn next(&mut self) -> Option<String> {
        let (uid, _) = self.queue.peek()?;
        self.queue.placed(&uid);
        Some(uid.trim_start_matches("uid-").to_owned())
    }
}

/// A pod too big for the only node.
fn big() -> Value {
    json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "2"}}}]}})
}

#[test]
fn higher_priority_first_then_older() {
    let mut world = World::new();
    let other = json!({"metadata": {"labels": {"app": "other"}}});
    world.push("a", &json!({}));
    world.push("b", &other);
    world.push("c", &json!({}));
    world.push("d", &json!({"spec": {"priority": 10}}));
    world.push("e", &json!({"spec": {"priority": -1}}));
    world.push("f", &json!({"spec": {"priority": 10}}));
    let order: Vec<_> = std::iter::from_fn(|| world.next()).collect();
    assert_eq!(order, ["d", "f", "a", "b", "c", "e"]);
    assert!(world.queue.is_empty());
}

#[test]
fn a_line_is_parked_as_one_and_newcomers_share_its_fate() {
    let mut world = World::new();
    let (class, _) = world.push("a", &big());
    world.push("b", &big());
    assert_eq!(world.park(class, seconds(0)), [uid("a"), uid("b")]);
    assert_eq!(world.queue.peek(), None);
    let (_, fate) = world.push("c", &big());
    assert!(
        fate.expect("the line is parked")
            .message
            .contains("Insufficient cpu")
    );
    // A pod of another kind is not held up.
    world.push("d", &json!({}));
    assert_eq!(world.next().as_deref(), Some("d"));
    world.wake(Event::NodeAdded, seconds(2));
    let order: Vec<_> = std::iter::from_fn(|| world.next()).collect();
    assert_eq!(order, ["a", "b", "c"]);
}

#[test]
fn back_off_doubles_to_ten_seconds_and_ends_with_success() {
    let mut world = World::new();
    let (class, _) = world.push("a", &big());
    world.push("b", &big());
    let mut now = seconds(0);
    for wait in [1, 2, 4, 8, 10, 10] {
        world.park(class, now);
        // The event comes during back-off and counts when it is over, not before.
        world.wake(Event::NodeAllocatable, now);
        let early = now + seconds(wait) - Duration::from_millis(1);
        world.queue.tick(early);
        assert_eq!(world.queue.peek(), None, "after {early:?}");
        now += seconds(wait);
        assert_eq!(world.queue.next_deadline(), Some(now));
        world.queue.tick(now);
        assert!(world.queue.peek().is_some(), "after {now:?}");
    }
    assert_eq!(world.next().as_deref(), Some("a"));
    world.park(class, now);
    world.wake(Event::NodeAllocatable, now);
    world.queue.tick(now + seconds(1));
    assert_eq!(world.next().as_deref(), Some("b"));
}

#[test]
fn an_event_after_back_off_wakes_at_once_and_no_event_only_at_last() {
    let mut world = World::new();
    let (class, _) = world.push("a", &big());
    world.park(class, seconds(0));
    world.queue.tick(seconds(1));
    assert_eq!(world.queue.peek(), None);
    world.wake(Event::NodeAdded, seconds(5));
    assert!(world.queue.peek().is_some());
    world.park(class, seconds(5));
    world
        .queue
        .tick(seconds(5) + LONGEST_PARKED - Duration::from_millis(1));
    assert_eq!(world.queue.peek(), None);
    world.queue.tick(seconds(5) + LONGEST_PARKED);
    assert!(world.queue.peek().is_some());
    assert_eq!(world.queue.next_deadline(), None);
}

fn anti() -> Value {
    json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}}})
}

/// What wakes whom: a pod that lacks CPU, one that tolerates no taint, one kept away by its neighbours.
#[rstest]
#[case::cpu_node(big(), json!({}), Event::NodeAdded, true)]
#[case::cpu_labels(big(), json!({}), Event::NodeLabels, false)]
#[case::cpu_taints(big(), json!({}), Event::NodeTaints, false)]
#[case::cpu_claim(big(), json!({}), Event::Claim, false)]
#[case::taint(json!({}), json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}), Event::NodeTaints, true)]
#[case::taint_room(json!({}), json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}), Event::NodeAllocatable, false)]
#[case::selector(json!({"spec": {"nodeSelector": {"disk": "ssd"}}}), json!({}), Event::NodeLabels, true)]
#[case::selector_taints(json!({"spec": {"nodeSelector": {"disk": "ssd"}}}), json!({}), Event::NodeTaints, false)]
fn events_wake_only_whom_they_may_help(
    #[case] over: Value,
    #[case] node_over: Value,
    #[case] event: Event,
    #[case] wakes: bool,
) {
    let mut world = World::new();
    let small = json!({"status": {"allocatable": {"cpu": "1"}}});
    let mut node = node("n1", "a", &small);
    crate::support::merge(&mut node, &node_over);
    add_node(&mut world.cluster, &node);
    let (class, _) = world.push("a", &over);
    world.park(class, seconds(0));
    world.wake(event, seconds(2));
    assert_eq!(world.queue.peek().is_some(), wakes);
}

#[test]
fn a_node_that_tells_the_same_again_wakes_nobody() {
    let mut world = World::new();
    let told = node(
        "n2",
        "a",
        &json!({"status": {"allocatable": {"hugepages-2Mi": "0", "example.com/gpu": "1"}}}),
    );
    add_node(&mut world.cluster, &told);
    world.cluster.events.clear();
    add_node(&mut world.cluster, &told);
    assert_eq!(world.cluster.events, []);
}

#[test]
fn only_pods_that_matter_wake_the_one_they_keep_away() {
    let mut world = World::new();
    // Room is not what it lacks.
    add_node(&mut world.cluster, &node("n1", "a", &json!({})));
    crate::support::add_pod(&mut world.cluster, &pod("old", &json!({})), "n1");
    let stranger = pod("stranger", &json!({"metadata": {"labels": {"app": "x"}}}));
    crate::support::add_pod(&mut world.cluster, &stranger, "n1");
    let (class, _) = world.push("a", &anti());
    world.park(class, seconds(0));
    for (gone, wakes) in [("uid-stranger", false), ("uid-old", true)] {
        world.cluster.events.clear();
        world.cluster.remove(gone);
        let event = world.cluster.events[0];
        world.wake(event, seconds(2));
        assert_eq!(world.queue.peek().is_some(), wakes, "{gone}");
    }
}

#[test]
fn a_pod_whose_binding_failed_waits_alone() {
    let mut world = World::new();
    let (class, _) = world.push("a", &json!({}));
    world.push("b", &json!({}));
    assert_eq!(world.next().as_deref(), Some("a"));
    world
        .queue
        .retry(&uid("a"), class, (0, Tenant::default()), seconds(0));
    assert_eq!(world.next().as_deref(), Some("b"));
    assert_eq!(world.queue.next_deadline(), Some(seconds(1)));
    world.queue.tick(seconds(1));
    assert_eq!(world.next().as_deref(), Some("a"));
    world
        .queue
        .retry(&uid("a"), class, (0, Tenant::default()), seconds(1));
    assert_eq!(world.queue.next_deadline(), Some(seconds(3)));
    world.queue.forget("uid-a");
    assert!(world.queue.is_empty() && world.queue.next_deadline().is_none());
}

#[test]
fn a_pod_that_changes_moves_to_the_line_of_its_new_kind() {
    let mut world = World::new();
    let (class, _) = world.push("a", &big());
    world.park(class, seconds(0));
    let (small, fate) = world.push("a", &json!({}));
    assert!(fate.is_none() && small != class);
    assert_eq!(world.queue.peek(), Some((uid("a"), small)));
    assert_eq!(world.queue.len(), 1);
}

#[test]
fn tenants_take_turns_and_keep_their_own_order() {
    let mut world = World::new();
    let of = |tenant: &str| json!({"metadata": {"namespace": tenant}});
    // One tenant brings many pods of many kinds, another two.
    for i in 0..4 {
        let mut over = of("noisy");
        over["metadata"]["labels"] = json!({"kind": i.to_string()});
        world.push(&format!("n{i}"), &over);
    }
    world.push("q0", &of("quiet"));
    world.push("q1", &of("quiet"));
    let mut order = Vec::new();
    while let Some((uid, _)) = world.queue.peek() {
        order.push(uid.trim_start_matches("uid-").to_owned());
        world.queue.placed(&uid);
    }
    assert_eq!(order, ["n0", "q0", "n1", "q1", "n2", "n3"]);
}
