//! The scheduler as a process of its own in the default scheduler's place: two of them, volumes that are bound late,
//! and what the scheduler has to say.

use std::process::Command;

use gantry_cluster::{EmbeddedCluster, NodeGroup};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Process, gantry, wait};

fn pod(name: &str, spec: Value) -> Pod {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [
        {"name": "c", "image": "registry.example.com/web:1", "resources": {"requests": {"cpu": "100m"}}}]}});
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn says(mut command: Command) -> String {
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    told
}

#[test]
fn two_schedulers_in_the_default_ones_place() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = EmbeddedCluster::builder()
        .scheduler(false)
        .nodes(vec![NodeGroup::new("r", "zone-a", 3)]);
    let cluster = runtime.block_on(cluster.start()).unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let text = serde_saphyr::to_string(&cluster.kubeconfig()).unwrap();
    gantry_cluster::write_private(&kubeconfig, text.as_bytes()).unwrap();
    let config = folder.path().join("scheduler.yaml");
    std::fs::write(
        &config,
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n\
         leaderElection: {leaseDuration: 6s, renewDeadline: 5s, retryPeriod: 500ms}\n\
         profiles: [{schedulerName: default-scheduler}]\n",
    )
    .unwrap();
    let command = |args: &[&str]| {
        let mut command = gantry();
        command.arg("--kubeconfig").arg(&kubeconfig).args(args);
        command
    };
    let start = |ready| {
        let mut scheduler = command(&["scheduler", "--config"]);
        scheduler.arg(&config);
        Process::start(scheduler, ready)
    };
    let first = start("Leading as");
    let _entered = runtime.enter();
    let leases: Api<Lease> = Api::namespaced(cluster.client(), "kube-system");
    let lease = runtime.block_on(leases.get("kube-scheduler")).unwrap();
    // The other one says whose lease it waits for.
    let second = start(&lease.spec.unwrap().holder_identity.unwrap());

    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let post = PostParams::default();
    // The account of the namespace may not be there yet.
    let create = |pod: Pod| {
        wait("the pod to be admitted", || {
            runtime.block_on(pods.create(&post, &pod)).ok()
        })
    };
    let bound = |name: &str| {
        wait("the pod to be bound", || {
            runtime.block_on(pods.get(name)).unwrap().spec?.node_name
        })
    };
    create(pod("p1", json!({})));
    bound("p1");
    // Killed in the midst of a burst; the other one takes over, and no pod is lost.
    let burst: Vec<String> = (0..60).map(|i| format!("burst-{i}")).collect();
    let (before, after) = burst.split_at(40);
    before.iter().for_each(|name| {
        create(pod(name, json!({})));
    });
    drop(first);
    after.iter().for_each(|name| {
        create(pod(name, json!({})));
    });
    wait("the burst to be bound", || {
        let all = runtime.block_on(pods.list(&ListParams::default())).unwrap();
        let bound = all
            .iter()
            .filter(|p| p.spec.as_ref().is_some_and(|s| s.node_name.is_some()));
        (bound.count() == burst.len() + 1).then_some(())
    });

    // It goes on: here with a volume that is made once the node is chosen.
    let classes: Api<StorageClass> = Api::all(cluster.client());
    let class = json!({"metadata": {"name": "late"}, "provisioner": "simulated.gantry.dev",
        "volumeBindingMode": "WaitForFirstConsumer"});
    runtime
        .block_on(classes.create(&post, &serde_json::from_value(class).unwrap()))
        .unwrap();
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(cluster.client());
    let claim = json!({"metadata": {"name": "data"}, "spec": {"storageClassName": "late",
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    runtime
        .block_on(claims.create(&post, &serde_json::from_value(claim).unwrap()))
        .unwrap();
    create(pod(
        "p2",
        json!({"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}),
    ));
    let node = bound("p2");
    let claim = runtime.block_on(claims.get("data")).unwrap();
    let selected = &claim.metadata.annotations.unwrap()["volume.kubernetes.io/selected-node"];
    assert_eq!(
        (selected, claim.status.unwrap().phase.as_deref()),
        (&node, Some("Bound"))
    );

    let told = says(command(&["explain", "pod", "default/p2"]));
    assert!(
        told.contains(&format!(
            "Pod default/p2 is on {node}; 3 of 3 nodes would take it now."
        )),
        "{told}"
    );
    assert!(told.contains("Successfully assigned default/p2"), "{told}");
    create(pod("big", json!({"nodeSelector": {"disk": "ssd"}})));
    wait("the pod to be refused", || {
        let conditions = runtime
            .block_on(pods.get("big"))
            .unwrap()
            .status?
            .conditions?;
        conditions
            .into_iter()
            .find(|c| c.reason.as_deref() == Some("Unschedulable"))
    });
    let told = says(command(&["explain", "pod", "big"]));
    assert!(
        told.contains("3 node(s) didn't match Pod's node affinity/selector"),
        "{told}"
    );
    assert!(
        told.contains("drop nodeSelector disk=ssd: 3 nodes"),
        "{told}"
    );

    let manifest = folder.path().join("web.yaml");
    std::fs::write(
        &manifest,
        "kind: Deployment\nmetadata: {name: web}\nspec: {replicas: 6, template: {metadata: {labels: {app: web}}, \
         spec: {containers: [{name: c, resources: {requests: {cpu: 500m, memory: 64Mi}}}]}}}\n",
    )
    .unwrap();
    let mut dry_run = command(&["schedule", "--dry-run", "-o", "json", "-f"]);
    dry_run.arg(&manifest);
    let told: Value = serde_json::from_str(&says(dry_run)).unwrap();
    assert_eq!(
        (&told[0]["placed"], &told[0]["runsOutFirst"]),
        (&json!(6), &json!("cpu")),
        "{told}"
    );
    assert!(told[0]["more"].as_u64() > Some(0), "{told}");
    // `gantry scheduler` has installed the definitions.
    let policy = folder.path().join("policy.yaml");
    std::fs::write(
        &policy,
        "apiVersion: gantry.dev/v1alpha1\nkind: PlacementPolicy\nmetadata: {name: apart}\n\
         spec: {pods: {namespaces: [default]}, hardware: {required: {disk: [ssd]}}}\n",
    )
    .unwrap();
    let mut dry_run = command(&["policy", "dry-run", "-o", "json", "-f"]);
    dry_run.arg(&policy);
    let told: Value = serde_json::from_str(&says(dry_run)).unwrap();
    // No node has such a disk: all pods that run could not be placed any more.
    assert_eq!(told["mustMove"], told["pods"], "{told}");
    assert_eq!(told["nowhere"], told["pods"], "{told}");
    assert_eq!(
        told["list"][0]["why"],
        "node(s) didn't match placement policy apart"
    );
    let told = says(command(&["rebalance", "--dry-run"]));
    assert!(
        told.contains("Now:   0 hot nodes, 0 broken spreads"),
        "{told}"
    );

    assert_eq!(second.interrupt(), Some(0));
    runtime.block_on(cluster.shutdown());
}

#[test]
fn a_configuration_that_cannot_be_followed_is_refused_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("scheduler.yaml");
    std::fs::write(
        &config,
        "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nextenders: [{urlPrefix: http://x}]\n",
    )
    .unwrap();
    let output = gantry()
        .args(["scheduler", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("scheduler.yaml: extenders[0]: extenders are not called"),
        "{told}"
    );
}
