//! Room that is made by sending pods of lower priority away.

use super::world::{World, create};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_room_gives_way_and_goes_where_there_is_room() {
    let world = World::new().await;
    for (name, value) in [("top", 2000), ("high", 1000), ("middle", 500)] {
        let class = json!({"metadata": {"name": name}, "value": value});
        create(&Api::<PriorityClass>::all(world.client.clone()), class).await;
    }
    let small = json!({"status": {"allocatable": {"cpu": "1"}}});
    world.node("n1", &small).await;
    let staying = json!({"metadata": {"finalizers": ["example.com/stay"]}});
    let of = |class: &str| {
        let mut pod = staying.clone();
        pod["spec"] = json!({"priorityClassName": class});
        pod
    };
    let nominated = async |name: &str| {
        world
            .until(name, "nominated", |pod| {
                pod.status.as_ref()?.nominated_node_name.clone()
            })
            .await
    };
    let let_go = async |name: &str| {
        let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        let pods = world.pods();
        let patched = pods.patch(name, &PatchParams::default(), &free).await;
        patched.expect("let go");
        let now = DeleteParams::default().grace_period(0);
        pods.delete(name, &now).await.ok();
    };
    world.pod("low", &staying).await;
    world.bound("low").await;
    world.pod("middle", &of("middle")).await;
    assert_eq!(nominated("middle").await, "n1");
    // The node is for the more important one, and the other is told so.
    world.pod("high", &of("high")).await;
    assert_eq!(nominated("high").await, "n1");
    world
        .until("middle", "without a node", |pod| {
            pod.status
                .as_ref()?
                .nominated_node_name
                .is_none()
                .then_some(())
        })
        .await;
    let_go("low").await;
    assert_eq!(world.bound("high").await, "n1");
    let_go("middle").await;
    // Its victim takes its time; meanwhile there is room elsewhere.
    world.pod("top", &of("top")).await;
    assert_eq!(nominated("top").await, "n1");
    world.node("n2", &small).await;
    assert_eq!(world.bound("top").await, "n2");
    let high = world.pods().get("high").await.expect("it still stops");
    assert!(high.metadata.deletion_timestamp.is_some());
    world.end().await;
}
