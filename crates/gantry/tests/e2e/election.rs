//! Two processes of the same part: one leads, and when it dies the other goes on.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use crate::support::{Process, gantry, wait};

const LEASE: &str = "kube-controller-manager";

#[test]
fn when_the_leader_is_killed_another_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = runtime
        .block_on(
            gantry_cluster::EmbeddedCluster::builder()
                .controllers(false)
                .nodes(vec![])
                .start(),
        )
        .unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let text = serde_saphyr::to_string(&cluster.kubeconfig()).unwrap();
    gantry_cluster::write_private(&kubeconfig, text.as_bytes()).unwrap();
    let start = |ready| {
        let mut command = gantry();
        command
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .args(["controllers", "--leader-elect-lease-duration=6s"])
            .args([
                "--leader-elect-renew-deadline=5s",
                "--leader-elect-retry-period=500ms",
            ]);
        Process::start(command, ready)
    };
    let first = start("Leading as");
    let _entered = runtime.enter();
    let client = cluster.client();
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let lease = || {
        let lease = runtime.block_on(leases.get(LEASE)).unwrap();
        let spec = lease.spec.unwrap();
        (
            spec.holder_identity.unwrap_or_default(),
            spec.lease_transitions,
        )
    };
    let (leader, _) = lease();
    let waiting = start(&leader);

    drop(first);
    wait("the other to lead", || {
        let (holder, transitions) = lease();
        (holder != leader && transitions == Some(1)).then_some(())
    });
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let labels = json!({"app": "web"});
    let web = serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "registry.example.com/web:1"}]}}}}))
    .unwrap();
    let post = PostParams::default();
    runtime.block_on(deployments.create(&post, &web)).unwrap();
    wait("the Deployment to be worked on", || {
        let web = runtime.block_on(deployments.get("web")).unwrap();
        (web.status?.observed_generation == Some(1)).then_some(())
    });

    // Whoever ends in order leaves the lease free.
    assert_eq!(waiting.interrupt(), Some(0));
    assert_eq!(lease().0, "");
    runtime.block_on(cluster.shutdown());
}

#[test]
fn times_that_cannot_work_are_refused() {
    let output = gantry()
        .args(["controllers", "--kubeconfig", "/dev/null"])
        .args([
            "--leader-elect-lease-duration=5s",
            "--leader-elect-renew-deadline=10s",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains(
            "--leader-elect-lease-duration must be longer than --leader-elect-renew-deadline"
        ),
        "{told}"
    );
}
