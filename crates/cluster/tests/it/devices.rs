//! Devices in a whole embedded cluster: offered by simulated nodes, allocated by the scheduler, prepared by kubelets, and
//! given back.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where its helpers do"
)]

use std::sync::Arc;
use std::time::Duration;

use gantry_cluster::EmbeddedCluster;
use gantry_hollow::Scenario;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, ServiceAccount};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

/// How long anything may take before the test fails. Generous: CI has two slow cores.
const DEADLINE: Duration = Duration::from_secs(120);

/// Asks until there is an answer, or fails.
async fn wait<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, asking)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn create(client: &Client, path: &str, object: Value) {
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    let made: Result<Value, _> = client.request(request).await;
    made.unwrap();
}

const DEVICES: &str = "/apis/resource.k8s.io/v1";
const SCENARIO: &str = "
nodes:
  - class: gpu
    devices:
      - {driver: gpu.example.com, name: gpu, count: 2, attributes: {model: x}, capacity: {memory: 80Gi}}
      - {driver: nic.example.com, name: nic, capacity: {bandwidth: '10'}, shared: true}
";

fn user(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "registry.example.com/c:1", "resources": {"claims": [{"name": "d"}]}}],
        "resourceClaims": [{"name": "d", "resourceClaimTemplateName": "both"}]}})
}

async fn running(client: &Client, name: &str) -> Pod {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    wait(&format!("{name} to run"), async || {
        let pod = pods.get(name).await.unwrap();
        let phase = pod.status.as_ref()?.phase.clone()?;
        (phase == "Running").then_some(pod)
    })
    .await
}

/// A cluster of one node with the devices of the scenario, and with a class for each kind.
async fn with_devices(named: &[(&str, Value)]) -> EmbeddedCluster {
    let scenario = Scenario::parse(SCENARIO, &|name| Err(name.to_owned())).unwrap();
    let scenario = Arc::new(scenario);
    let zones = [("east".to_owned(), "east-a".to_owned())];
    let cluster = EmbeddedCluster::builder()
        .nodes(scenario.groups(&zones))
        .scenario(Some(scenario))
        .start()
        .await
        .unwrap();
    let client = cluster.client();
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    wait("the default service account", async || {
        accounts.get_opt("default").await.unwrap()
    })
    .await;
    for (kind, resource) in named {
        let expression = format!("device.driver == '{kind}.example.com'");
        let spec = json!({"selectors": [{"cel": {"expression": expression}}], "extendedResourceName": resource});
        create(
            &client,
            &format!("{DEVICES}/deviceclasses"),
            json!({"metadata": {"name": kind}, "spec": spec}),
        )
        .await;
    }
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_offered_given_prepared_and_given_back() {
    let cluster = with_devices(&[("gpu", Value::Null), ("nic", Value::Null)]).await;
    let client = cluster.client();
    let slices: Api<ResourceSlice> = Api::all(client.clone());
    let offered = wait("slices", async || {
        let list = slices.list(&ListParams::default()).await.unwrap().items;
        (list.len() == 2).then_some(list)
    })
    .await;
    assert!(
        offered
            .iter()
            .all(|it| it.labels().get("gantry.dev/simulated").is_some())
    );

    let templates = format!("{DEVICES}/namespaces/default/resourceclaimtemplates");
    let asked = json!({"devices": {"requests": [
        {"name": "gpu", "exactly": {"deviceClassName": "gpu"}},
        {"name": "nic", "exactly": {"deviceClassName": "nic", "capacity": {"requests": {"bandwidth": "3"}}}}]}});
    create(
        &client,
        &templates,
        json!({"metadata": {"name": "both"}, "spec": {"spec": asked}}),
    )
    .await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    for name in ["one", "two", "three"] {
        create(&client, "/api/v1/namespaces/default/pods", user(name)).await;
    }

    // There are two devices of the one kind, and enough of the other.
    let state = async || {
        let list = pods.list(&ListParams::default()).await.unwrap().items;
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.clone());
        let run = list
            .iter()
            .filter(|p| phase(p).as_deref() == Some("Running"));
        let waits = list.iter().find(|p| phase(p).as_deref() == Some("Pending"));
        let told = waits.and_then(|p| {
            let conditions = p.status.as_ref()?.conditions.as_ref()?;
            let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled")?;
            Some((p.name_any(), scheduled.message.clone()?))
        });
        (run.count(), told)
    };
    let (waiting, message) = wait("two to run and one to wait", async || match state().await {
        (2, Some(told)) => Some(told),
        _ => None,
    })
    .await;
    assert!(message.contains("cannot allocate all claims"), "{message}");
    let first = ["one", "two", "three"]
        .into_iter()
        .find(|name| *name != waiting)
        .unwrap();
    let claims: Api<ResourceClaim> = Api::default_namespaced(client.clone());
    let made = running(&client, first)
        .await
        .status
        .unwrap()
        .resource_claim_statuses
        .unwrap();
    let made = made[0].resource_claim_name.clone().unwrap();
    // Its drivers say that they have prepared it.
    let told = wait("what drivers say", async || {
        let devices = claims.get(&made).await.unwrap().status?.devices?;
        (devices.len() == 2).then_some(devices)
    })
    .await;
    let ready = |kind: &str| {
        let mut conditions = told.iter().flat_map(|d| d.conditions.iter().flatten());
        conditions.any(|c| c.type_ == kind && c.status == "True")
    };
    assert!(ready("Ready"), "{told:?}");
    let results = claims
        .get(&made)
        .await
        .unwrap()
        .status
        .unwrap()
        .allocation
        .unwrap();
    let results = results.devices.unwrap().results.unwrap();
    let nic = results.iter().find(|r| r.request == "nic").unwrap();
    assert_eq!(nic.consumed_capacity.as_ref().unwrap()["bandwidth"].0, "3");
    assert!(nic.share_id.is_some());

    // When it is gone, so is its claim, and the one that waited has its device.
    pods.delete(first, &DeleteParams::default()).await.unwrap();
    running(&client, &waiting).await;
    wait("the claim to go", async || {
        claims.get_opt(&made).await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn extended_resources_are_served_prepared_and_given_back() {
    let cluster = with_devices(&[("gpu", json!("example.com/gpu"))]).await;
    let client = cluster.client();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let claims: Api<ResourceClaim> = Api::default_namespaced(client.clone());
    let ask = |name: &str, resource: &str, count: &str| {
        json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never",
            "containers": [{"name": "c", "image": "registry.example.com/c:1", "resources": {"limits": {resource: count}}}]}})
    };
    let path = "/api/v1/namespaces/default/pods";
    create(&client, path, ask("one", "example.com/gpu", "1")).await;
    create(
        &client,
        path,
        ask("two", "deviceclass.resource.kubernetes.io/gpu", "1"),
    )
    .await;
    let mut made = Vec::new();
    for name in ["one", "two"] {
        let status = running(&client, name).await.status.unwrap();
        made.push(
            status
                .extended_resource_claim_status
                .unwrap()
                .resource_claim_name,
        );
    }
    // Its drivers say that they have prepared it.
    wait("what drivers say", async || {
        let devices = claims.get(&made[0]).await.unwrap().status?.devices?;
        (devices.len() == 1).then_some(())
    })
    .await;
    create(&client, path, ask("three", "example.com/gpu", "2")).await;
    let message = wait("three to wait", async || {
        let status = pods.get("three").await.unwrap().status?;
        let scheduled = status
            .conditions?
            .into_iter()
            .find(|c| c.type_ == "PodScheduled")?;
        scheduled.message
    })
    .await;
    assert!(message.contains("cannot allocate all claims"), "{message}");
    // When pods are gone, so are their claims, and the one that waited has their devices.
    for name in ["one", "two"] {
        pods.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let status = running(&client, "three").await.status.unwrap();
    let last = status
        .extended_resource_claim_status
        .unwrap()
        .resource_claim_name;
    for name in &made {
        wait("the claim to go", async || {
            claims.get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }
    let given = claims.get(&last).await.unwrap().status.unwrap();
    let results = given.allocation.unwrap().devices.unwrap().results.unwrap();
    assert_eq!(results.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_counts_devices_by_all_their_names() {
    let cluster = with_devices(&[("gpu", json!("example.com/gpu"))]).await;
    let client = cluster.client();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let quotas: Api<ResourceQuota> = Api::default_namespaced(client.clone());
    let names = [
        "gpu.deviceclass.resource.k8s.io/devices",
        "requests.deviceclass.resource.kubernetes.io/gpu",
        "requests.example.com/gpu",
    ];
    let hard = names.map(|name| (name.to_owned(), json!("2")));
    let hard: serde_json::Map<String, Value> = hard.into_iter().collect();
    let path = "/api/v1/namespaces/default/resourcequotas";
    create(
        &client,
        path,
        json!({"metadata": {"name": "q"}, "spec": {"hard": hard}}),
    )
    .await;
    let used = async |want: [&str; 3]| {
        wait(&format!("{want:?} to be used"), async || {
            let used = quotas.get("q").await.unwrap().status?.used?;
            (names.map(|n| used.get(n).map_or("", |q| q.0.as_str())) == want).then_some(())
        })
        .await;
    };
    used(["0", "0", "0"]).await;
    let pod = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "registry.example.com/c:1", "resources": {"limits": {"example.com/gpu": "1"}}}]}})
    };
    let pod_path = "/api/v1/namespaces/default/pods";
    create(&client, pod_path, pod("one")).await;
    // The claim that is made for it counts by the names that the pod does not count by.
    running(&client, "one").await;
    used(["1", "1", "1"]).await;
    let claims: Api<ResourceClaim> = Api::default_namespaced(client.clone());
    let claim = |count: i64| {
        serde_json::from_value::<ResourceClaim>(json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c"},
            "spec": {"devices": {"requests": [
                {"name": "r", "exactly": {"deviceClassName": "gpu", "count": count}}]}},
        }))
        .unwrap()
    };
    let refused = claims
        .create(&PostParams::default(), &claim(2))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("exceeded quota: q, requested: gpu.deviceclass.resource.k8s.io/devices=2,requests.deviceclass.resource.kubernetes.io/gpu=2,requests.example.com/gpu=2"),
        "{refused}"
    );
    claims
        .create(&PostParams::default(), &claim(1))
        .await
        .unwrap();
    used(["2", "2", "2"]).await;
    let another = serde_json::from_value::<Pod>(pod("two")).unwrap();
    let refused = pods.create(&PostParams::default(), &another).await;
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("exceeded quota: q, requested: requests.example.com/gpu=1"),
        "{refused}"
    );
    pods.delete("one", &DeleteParams::default()).await.unwrap();
    used(["1", "1", "1"]).await;
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    used(["0", "0", "0"]).await;
}
