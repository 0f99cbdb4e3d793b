//! Several profiles in one scheduler.

use super::world::{World, scheduler};
use gantry_scheduler::core::Profile;
use gantry_scheduler::core::profile::Strategy;
use gantry_scheduler::{DECISION, Options};
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

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
