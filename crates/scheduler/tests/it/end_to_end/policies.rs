//! Placement policies.

use super::world::World;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;
use std::time::{Duration, Instant};

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
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
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
            tokio::time::Instant::now() < deadline + Duration::from_secs(60),
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

/// What is written of a policy holds within a second: the fastest of four writes is asked, as a machine that does other
/// things at the same time may stand still for longer than that. That the next placement after the watch's event obeys
/// is asserted beside the code (`shell/tests.rs`), on a clock that stands still.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_of_policies_holds_for_placements_that_follow() {
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
    let apply = PatchParams::apply("test").force();
    let small = json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "10m"}}}]}});
    let (mut fastest, mut slowest) = (Duration::MAX, Duration::ZERO);
    for (i, (disk, node)) in [("ssd", "n2"), ("hdd", "n1"), ("ssd", "n2"), ("hdd", "n1")]
        .into_iter()
        .enumerate()
    {
        let policy = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "PlacementPolicy", "metadata": {"name": "disks"},
            "spec": {"pods": {"namespaces": ["shop"]}, "hardware": {"required": {"disk": [disk]}}}});
        let policy = Patch::Apply(policy);
        let deadline = Instant::now() + Duration::from_secs(60);
        while policies.patch("disks", &apply, &policy).await.is_err() {
            assert!(Instant::now() < deadline, "no policies can be made");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let written = Instant::now();
        for k in 0.. {
            let name = format!("p{i}-{k}");
            world.pod(&name, &small).await;
            let first = written.elapsed();
            if world.bound(&name).await == node {
                slowest = slowest.max(first);
                fastest = fastest.min(first);
                break;
            }
            assert!(Instant::now() < deadline, "pods still go elsewhere");
        }
    }
    // Nowhere; and anywhere once it is gone.
    let nowhere = Patch::Merge(json!({"spec": {"hardware": {"required": {"disk": ["tape"]}}}}));
    policies
        .patch("disks", &PatchParams::default(), &nowhere)
        .await
        .expect("changed");
    let deadline = Instant::now() + Duration::from_secs(60);
    while policies
        .get("disks")
        .await
        .expect("the policy")
        .status
        .and_then(|s| s.observed_generation)
        != Some(5)
    {
        assert!(Instant::now() < deadline, "not taken in");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.pod("last", &small).await;
    world.refused("last").await;
    policies
        .delete("disks", &DeleteParams::default())
        .await
        .expect("deleted");
    let written = Instant::now();
    world.bound("last").await;
    let gone = written.elapsed();
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    eprintln!(
        "the first placement to obey a write began {fastest:?} to {slowest:?} after it; a pod that waited was bound {gone:?} after the policy went"
    );
    world.end().await;
}
