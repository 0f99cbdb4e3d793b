//! Room that is made by sending pods of lower priority away.

use super::world::{World, create};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rstest::rstest;
use serde_json::{Value, json};
use std::time::Duration;

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

/// What preemption may do to pods in any order: pods of five priorities on little room, victims that take their time,
/// pods that go while they wait. Nothing is ever booked twice, and in the end nobody is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_forgotten_among_preemptions() {
    let world = World::new().await;
    for priority in 0..5 {
        let class = json!({"metadata": {"name": format!("p{priority}")}, "value": 100 * priority});
        create(&Api::<PriorityClass>::all(world.client.clone()), class).await;
    }
    let two = json!({"status": {"allocatable": {"cpu": "2"}}});
    for name in ["n1", "n2", "n3"] {
        world.node(name, &two).await;
    }
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let now = DeleteParams::default().grace_period(0);
    let millis = |pod: &Pod| -> i64 {
        let spec = pod.spec.as_ref().expect("a spec");
        let requests = spec.containers[0].resources.as_ref();
        let cpu = &requests
            .and_then(|r| r.requests.as_ref())
            .expect("requests")["cpu"]
            .0;
        cpu.trim_end_matches('m').parse().expect("millicores")
    };
    let node_of = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.node_name.clone());
    // Looks at all pods, and ends some of those that are to go.
    let look = async |ends: &mut dyn FnMut() -> bool| -> Vec<Pod> {
        let all = world.pods().list(&ListParams::default()).await;
        let all = all.expect("pods").items;
        for node in ["n1", "n2", "n3"] {
            let there = all
                .iter()
                .filter(|pod| node_of(pod).as_deref() == Some(node));
            let sum: i64 = there.map(millis).sum();
            assert!(sum <= 2000, "{sum} of 2000 on {node}");
        }
        for pod in &all {
            if pod.metadata.deletion_timestamp.is_some() && ends() {
                let name = pod.metadata.name.as_deref().expect("a name");
                world.pods().delete(name, &now).await.ok();
            }
        }
        all
    };
    for i in 0..60 {
        let cpu = ["300m", "700m", "1100m", "1900m"][random.random_range(0..4)];
        let spec = json!({"spec": {"priorityClassName": format!("p{}", random.random_range(0..5)),
            "terminationGracePeriodSeconds": 600,
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}}]}});
        world.pod(&format!("r{i}"), &spec).await;
        let all = look(&mut || random.random_range(0..3) == 0).await;
        if random.random_range(0..4) == 0 {
            let goes = &all[random.random_range(0..all.len())];
            let name = goes.metadata.name.as_deref().expect("a name");
            world
                .pods()
                .delete(name, &DeleteParams::default())
                .await
                .ok();
        }
    }
    for i in 0..4 {
        let large = json!({"status": {"allocatable": {"cpu": "32"}}});
        world.node(&format!("large{i}"), &large).await;
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let all = look(&mut || true).await;
        let left: Vec<_> = all.iter().filter(|pod| node_of(pod).is_none()).collect();
        if left.is_empty() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{left:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.end().await;
}

/// Nodes that somebody has nominated: one that cannot take its pod counts for nothing and is taken back, one of a less
/// important pod gives way, and a pod that is bound has none any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nominations_are_heeded_where_they_hold_and_taken_back() {
    let mut world = World::new().await;
    world.stop().await;
    for (name, value) in [("high", 100), ("low", 1)] {
        let class = json!({"metadata": {"name": name}, "value": value});
        create(&Api::<PriorityClass>::all(world.client.clone()), class).await;
    }
    for name in ["n1", "n2", "n3"] {
        world.node(name, &json!({})).await;
    }
    let pod = async |name: &str, class: &str, cpu: &str, node: &str, nominated: bool| {
        let spec = json!({"spec": {"priorityClassName": class, "nodeSelector": {"kubernetes.io/hostname": node},
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}});
        world.pod(name, &spec).await;
        if nominated {
            let status = Patch::Merge(json!({"status": {"nominatedNodeName": node}}));
            let pods = world.pods();
            pods.patch_status(name, &PatchParams::default(), &status)
                .await
                .expect("nominated");
        }
    };
    pod("exceeds", "low", "5", "n1", true).await;
    pod("fits", "low", "3", "n1", false).await;
    pod("less", "low", "4", "n2", true).await;
    pod("more", "high", "4", "n2", false).await;
    pod("alone", "low", "4", "n3", true).await;
    world.start();
    for (name, node) in [("fits", "n1"), ("more", "n2"), ("alone", "n3")] {
        assert_eq!(world.bound(name).await, node);
    }
    for name in ["exceeds", "less", "alone"] {
        world
            .until(name, "without a nomination", |pod| {
                let nominated = &pod.status.as_ref()?.nominated_node_name;
                nominated.is_none().then_some(())
            })
            .await;
    }
    for name in ["exceeds", "less"] {
        world.refused(name).await;
    }
    world.end().await;
}

/// What becomes of the node while a pod waits there for its victims.
#[rstest]
#[case::cordoned(json!({"spec": {"unschedulable": true}}), json!({}), json!({"spec": {"unschedulable": null}}), "unschedulable")]
#[case::shrunk(json!({}), json!({"status": {"allocatable": {"cpu": "500m"}}}), json!({}), "Insufficient cpu")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_that_was_made_must_still_be_of_use(
    #[case] spec: Value,
    #[case] status: Value,
    #[case] mends: Value,
    #[case] why: &str,
) {
    let world = World::new().await;
    let class = json!({"metadata": {"name": "high"}, "value": 1000});
    create(&Api::<PriorityClass>::all(world.client.clone()), class).await;
    world
        .node("n1", &json!({"status": {"allocatable": {"cpu": "1"}}}))
        .await;
    world
        .pod(
            "low",
            &json!({"metadata": {"finalizers": ["example.com/stay"]}}),
        )
        .await;
    world.bound("low").await;
    world
        .pod("high", &json!({"spec": {"priorityClassName": "high"}}))
        .await;
    let nominated = world.until("high", "nominated", |pod| {
        pod.status.as_ref()?.nominated_node_name.clone()
    });
    assert_eq!(nominated.await, "n1");
    let nodes = Api::<Node>::all(world.client.clone());
    let change = async |spec: &Value, status: &Value| {
        let params = PatchParams::default();
        let patched = nodes.patch("n1", &params, &Patch::Merge(spec)).await;
        patched.expect("changed");
        let patched = nodes
            .patch_status("n1", &params, &Patch::Merge(status))
            .await;
        patched.expect("changed");
    };
    change(&spec, &status).await;
    // What the scheduler sees of nodes and of pods comes by different ways: this comes by that of nodes.
    world
        .node("n2", &json!({"metadata": {"labels": {"seen": "yes"}}, "status": {"allocatable": {"cpu": "100m"}}}))
        .await;
    let seen = json!({"spec": {"nodeSelector": {"seen": "yes"}, "containers": [{"name": "c", "image": "i"}]}});
    world.pod("looks", &seen).await;
    world.bound("looks").await;
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let pods = world.pods();
    let patched = pods.patch("low", &PatchParams::default(), &free).await;
    patched.expect("let go");
    pods.delete("low", &DeleteParams::default().grace_period(0))
        .await
        .ok();
    world
        .until("high", "refused, without a nomination", |pod| {
            let status = pod.status.as_ref()?;
            let told = status.conditions.iter().flatten();
            let mut told = told.filter_map(|c| c.message.as_deref());
            (status.nominated_node_name.is_none() && told.any(|m| m.contains(why))).then_some(())
        })
        .await;
    change(&mends, &json!({"status": {"allocatable": {"cpu": "1"}}})).await;
    assert_eq!(world.bound("high").await, "n1");
    world.end().await;
}
