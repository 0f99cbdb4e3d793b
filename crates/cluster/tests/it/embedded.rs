//! A whole embedded cluster: from nothing to running pods, over a restart, and under the real kubectl.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where its helpers do"
)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gantry_cluster::{EmbeddedCluster, NodeGroup, write_private};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, ServiceAccount};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

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

/// Pods are refused until the namespace has its default service account.
async fn account(client: &Client) {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    wait("the default service account", async || {
        accounts.get_opt("default").await.unwrap()
    })
    .await;
}

fn web(replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "registry.example.com/web:1",
                    "resources": {"requests": {"cpu": "100m"}}}]}
            }
        }
    })
}

async fn running(client: &Client, n: usize) -> Vec<Pod> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    wait(&format!("{n} pods to run"), async || {
        let list = pods
            .list(&ListParams::default().labels("app=web"))
            .await
            .unwrap();
        let running =
            |p: &&Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        (list.items.len() == n && list.items.iter().filter(running).count() == n)
            .then_some(list.items)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_runs_on_simulated_nodes() {
    let nodes = vec![NodeGroup {
        count: 3,
        ..NodeGroup::default()
    }];
    let cluster = EmbeddedCluster::builder()
        .nodes(nodes)
        .start()
        .await
        .unwrap();
    let client = cluster.client();
    account(&client).await;
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments
        .create(
            &PostParams::default(),
            &serde_json::from_value(web(6)).unwrap(),
        )
        .await
        .unwrap();
    let pods = running(&client, 6).await;
    let mut nodes: Vec<_> = pods
        .iter()
        .filter_map(|p| p.spec.as_ref()?.node_name.clone())
        .collect();
    nodes.sort();
    nodes.dedup();
    assert_eq!(
        nodes.len(),
        3,
        "six pods spread over three nodes: {nodes:?}"
    );
    a_command_ends_its_connection(&client, &pods[0]).await;
    cluster.shutdown().await;
}

/// Who reads a command's WebSocket to the end of the connection, and never closes it, gets there: what kubelets
/// say and do last is to close it.
async fn a_command_ends_its_connection(client: &Client, pod: &Pod) {
    let name = pod.metadata.name.as_deref().unwrap();
    let path =
        format!("/api/v1/namespaces/default/pods/{name}/exec?command=echo&command=hi&stdout=1");
    let request = http::Request::get(path)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", "v4.channel.k8s.io")
        .body(kube::client::Body::empty());
    let answer = client.send(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), http::StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = hyper::upgrade::on(answer).await.unwrap();
    let mut said = Vec::new();
    let mut connection = hyper_util::rt::TokioIo::new(upgraded);
    let end = connection.read_to_end(&mut said);
    // Less than a client that is told to close has for it.
    let end = tokio::time::timeout(Duration::from_secs(5), end).await;
    assert!(end.is_ok(), "open still, after {said:?}");
    let said = String::from_utf8_lossy(&said);
    assert!(
        said.contains("hi\n") && said.contains("\"Success\""),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_stands_on_every_node_and_is_updated_node_by_node() {
    let nodes = vec![NodeGroup {
        count: 4,
        ..NodeGroup::default()
    }];
    let cluster = EmbeddedCluster::builder()
        .nodes(nodes)
        .start()
        .await
        .unwrap();
    let client = cluster.client();
    account(&client).await;
    let daemon = |image: &str| -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "log"},
            "spec": {"selector": {"matchLabels": {"app": "log"}},
                "template": {"metadata": {"labels": {"app": "log"}},
                    "spec": {"containers": [{"name": "log", "image": image}]}}}}))
        .unwrap()
    };
    let daemons: Api<DaemonSet> = Api::default_namespaced(client.clone());
    let nodes: Api<Node> = Api::all(client.clone());
    let tainted = json!({"spec": {"taints": [{"key": "own", "effect": "NoExecute"}]}});
    let first = wait("nodes", async || {
        let list = nodes.list(&ListParams::default()).await.unwrap();
        list.items.first().and_then(|n| n.metadata.name.clone())
    })
    .await;
    daemons
        .create(
            &PostParams::default(),
            &daemon("registry.example.com/log:1"),
        )
        .await
        .unwrap();
    let served = async |wanted: i32, generation: i64| {
        wait(&format!("{wanted} daemons at {generation}"), async || {
            let status = daemons.get("log").await.unwrap().status?;
            let all = status.desired_number_scheduled == wanted
                && status.number_available == Some(wanted)
                && status.updated_number_scheduled == Some(wanted)
                && status.observed_generation == Some(generation);
            all.then_some(())
        })
        .await;
    };
    served(4, 1).await;

    // A node that drives daemons away loses its own.
    nodes
        .patch(&first, &PatchParams::default(), &Patch::Merge(tainted))
        .await
        .unwrap();
    served(3, 1).await;

    // One after the other, and the old template is kept for a rollback.
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "log", "image": "registry.example.com/log:2"}]}}}});
    daemons
        .patch("log", &PatchParams::default(), &Patch::Strategic(image))
        .await
        .unwrap();
    served(3, 2).await;
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let all = pods
        .list(&ListParams::default().labels("app=log"))
        .await
        .unwrap();
    for pod in all
        .items
        .iter()
        .filter(|p| p.metadata.deletion_timestamp.is_none())
    {
        let image = &pod.spec.as_ref().unwrap().containers[0].image;
        assert_eq!(image.as_deref(), Some("registry.example.com/log:2"));
    }
    let revisions: Api<ControllerRevision> = Api::default_namespaced(client.clone());
    let revisions = revisions.list(&ListParams::default()).await.unwrap();
    assert_eq!(revisions.items.len(), 2);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn started_again_everything_is_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let start = async || {
        EmbeddedCluster::builder()
            .data_dir(folder.path())
            .start()
            .await
            .unwrap()
    };
    let first = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(first.client());
    let map =
        serde_json::from_value(json!({"metadata": {"name": "kept"}, "data": {"a": "b"}})).unwrap();
    let written = maps.create(&PostParams::default(), &map).await.unwrap();
    let access = first.context();
    first.shutdown().await;

    let second = start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(second.client());
    assert_eq!(maps.get("kept").await.unwrap(), written);
    let again = second.context();
    assert_eq!(
        (again.token, again.ca_pem),
        (access.token, access.ca_pem),
        "a kubeconfig stays good"
    );
    second.shutdown().await;
}

/// A folder that `gantry apiserver --encryption-provider-config` wrote, or a snapshot of its restored.
#[tokio::test]
async fn what_is_encrypted_is_said_to_be() {
    use gantry_store::{Expect, Key, Op, Options, Store, Write};

    let folder = tempfile::tempdir().unwrap();
    let keys = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [
            {"aescbc": {"keys": [{"name": "key1", "secret": "c2VjcmV0IGlzIHNlY3VyZSBvciBpcyBpdD8hMTIzNDU="}]}},
        ]}],
    });
    let keeper = gantry_apiserver::parse_encryption_config(&keys.to_string()).unwrap();
    let options = Options {
        keeper: Some(std::sync::Arc::new(keeper)),
        ..Options::default()
    };
    let store = Store::open(&folder.path().join("store"), options).unwrap();
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "n"}});
    let write = Write {
        key: Key::new("/secrets", "n/s"),
        op: Op::Put {
            value: secret.to_string().into(),
            stamp: None,
        },
        expect: Expect::Absent,
    };
    store.commit(write).await.unwrap();
    store.close().await;
    let start = EmbeddedCluster::builder().data_dir(folder.path()).start();
    let error = start.await.err().expect("it cannot be served");
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    let said = cause.unwrap_or_default();
    for part in [
        "/secrets n/s",
        "k8s:enc:aescbc:v1:key1:",
        "--encryption-provider-config",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

/// Runs kubectl; its exit code and what it printed on both streams.
fn kubectl(kubeconfig: &Path, args: &[&str], input: Option<&Value>) -> (bool, String) {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(args)
        .env("HOME", kubeconfig.parent().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    if let Some(input) = input {
        stdin.write_all(input.to_string().as_bytes()).unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// What people type all day, by the real kubectl where it is installed.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_cannot_tell() {
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_err()
    {
        eprintln!("skipped: kubectl is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cluster = EmbeddedCluster::start().await.unwrap();
    account(&cluster.client()).await;
    let kubeconfig = folder.path().join("kubeconfig");
    write_private(
        &kubeconfig,
        serde_saphyr::to_string(&cluster.kubeconfig())
            .unwrap()
            .as_bytes(),
    )
    .unwrap();

    let path = kubeconfig.clone();
    let steps = tokio::task::spawn_blocking(move || {
        let web3 = web(3);
        let web4 = web(4);
        // What is typed, what is fed to it, and what must be in the answer.
        let steps: Vec<(Vec<&str>, Option<&Value>, &str)> = vec![
            (vec!["version"], None, "Server Version: v1.36"),
            (vec!["api-resources"], None, "statefulsets"),
            (vec!["get", "nodes"], None, "Ready"),
            (
                vec!["apply", "-f", "-"],
                Some(&web3),
                "deployment.apps/web created",
            ),
            (
                vec!["apply", "-f", "-"],
                Some(&web3),
                "deployment.apps/web unchanged",
            ),
            (
                vec!["rollout", "status", "deployment/web", "--timeout=90s"],
                None,
                "successfully rolled out",
            ),
            (vec!["get", "deployments"], None, "3/3"),
            (
                vec!["get", "pods", "-l", "app=web", "-o", "wide"],
                None,
                "Running",
            ),
            (
                vec!["apply", "--server-side", "--force-conflicts", "-f", "-"],
                Some(&web4),
                "serverside-applied",
            ),
            (
                vec!["scale", "deployment/web", "--replicas=2"],
                None,
                "scaled",
            ),
            (
                vec![
                    "set",
                    "image",
                    "deployment/web",
                    "web=registry.example.com/web:2",
                ],
                None,
                "image updated",
            ),
            (
                vec!["rollout", "status", "deployment/web", "--timeout=90s"],
                None,
                "successfully rolled out",
            ),
            (
                vec!["rollout", "undo", "deployment/web"],
                None,
                "rolled back",
            ),
            (
                vec!["rollout", "status", "deployment/web", "--timeout=90s"],
                None,
                "successfully rolled out",
            ),
            (
                vec!["label", "deployment/web", "tier=front"],
                None,
                "labeled",
            ),
            (
                vec!["annotate", "deployment/web", "note=x"],
                None,
                "annotated",
            ),
            (
                vec![
                    "patch",
                    "deployment/web",
                    "-p",
                    r#"{"spec":{"minReadySeconds":1}}"#,
                ],
                None,
                "patched",
            ),
            (
                vec!["describe", "deployment/web"],
                None,
                "RollingUpdateStrategy",
            ),
            (vec!["explain", "pod.spec.containers"], None, "FIELDS"),
            (
                vec!["expose", "deployment/web", "--port=80"],
                None,
                "exposed",
            ),
            (vec!["get", "endpointslices"], None, "web"),
            (
                vec!["create", "configmap", "c", "--from-literal=a=b"],
                None,
                "created",
            ),
            (
                vec!["get", "configmap", "c", "-o", "jsonpath={.data.a}"],
                None,
                "b",
            ),
            (vec!["auth", "can-i", "create", "pods"], None, "yes"),
            (vec!["auth", "whoami"], None, "admin"),
            (vec!["create", "namespace", "gone"], None, "created"),
            (
                vec!["delete", "namespace", "gone", "--timeout=60s"],
                None,
                "deleted",
            ),
            (vec!["get", "events"], None, "Scheduled"),
            (
                vec![
                    "delete",
                    "deployment/web",
                    "--cascade=foreground",
                    "--timeout=90s",
                ],
                None,
                "deleted",
            ),
        ];
        let mut failed = vec![];
        for (args, input, expected) in steps {
            let (ok, text) = kubectl(&path, &args, input);
            if !ok || !text.contains(expected) {
                failed.push(format!(
                    "kubectl {}: wanted {expected:?}, got:\n{text}",
                    args.join(" ")
                ));
            }
        }
        let (ok, text) = kubectl(&path, &["get", "pods", "nobody"], None);
        if ok || !text.contains(r#"Error from server (NotFound): pods "nobody" not found"#) {
            failed.push(format!("kubectl get of a missing pod: {text}"));
        }
        failed
    });
    let failed = steps.await.unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    cluster.shutdown().await;
}
