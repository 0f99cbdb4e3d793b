//! The controllers against an API server, through a client, with a kubelet of the test's own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests, which clippy.toml does not count as tests"
)]

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use gantry_apiserver::{Config, Server};
use gantry_controllers::nodelifecycle::Timing;
use gantry_controllers::{Error, Options, run};
use gantry_store::Store;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);

struct Rig {
    client: Client,
    stop: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
    kubelet: JoinHandle<()>,
    server: Server,
}

fn api(
    client: &Client,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
    namespace: &str,
) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: if group.is_empty() {
            version.into()
        } else {
            format!("{group}/{version}")
        },
        kind: kind.into(),
        plural: plural.into(),
    };
    if namespace.is_empty() {
        Api::all_with(client.clone(), &resource)
    } else {
        Api::namespaced_with(client.clone(), namespace, &resource)
    }
}

/// Runs pods: each becomes ready, unless its image is `broken`, and goes when told to.
async fn kubelet(client: Client) {
    let all = api(&client, "", "v1", "Pod", "pods", "");
    let mut events = std::pin::pin!(
        watcher(all, watcher::Config::default())
            .default_backoff()
            .applied_objects()
    );
    while let Some(event) = events.next().await {
        let Ok(pod) = event else { continue };
        let (name, namespace) = (pod.metadata.name.unwrap(), pod.metadata.namespace.unwrap());
        let pods = api(&client, "", "v1", "Pod", "pods", &namespace);
        if pod.metadata.deletion_timestamp.is_some() {
            let now = DeleteParams {
                grace_period_seconds: Some(0),
                ..DeleteParams::default()
            };
            // It may have gone by itself.
            let _ = pods.delete(&name, &now).await;
            continue;
        }
        let broken = pod.data["spec"]["containers"][0]["image"] == "broken";
        let ready = if broken { "False" } else { "True" };
        let status = json!({"status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        if pod.data["status"]["conditions"][0]["status"] != ready
            || pod.data["status"]["phase"] != "Running"
        {
            let _ = pods
                .patch_status(&name, &PatchParams::default(), &Patch::Strategic(status))
                .await;
        }
    }
}

impl Rig {
    async fn new() -> Self {
        let server = Server::start(
            Config::default(),
            Store::in_memory(gantry_store::Options::default()),
        )
        .await
        .unwrap();
        let client = server.client();
        let stop = CancellationToken::new();
        let options = Options {
            root_ca: Some(server.ca_pem().to_owned()),
            node_timing: Timing {
                period: Duration::from_millis(200),
                grace: Duration::from_secs(2),
            },
            ..Options::default()
        };
        let running = tokio::spawn(run(server.client(), options, stop.clone()));
        let kubelet = tokio::spawn(kubelet(client.clone()));
        let rig = Rig {
            client,
            stop,
            running,
            kubelet,
            server,
        };
        // Pods are admitted once their service account is there.
        let accounts = rig.api("", "v1", "ServiceAccount", "serviceaccounts", "default");
        rig.until(
            "account",
            async || accounts.get_opt("default").await.unwrap(),
            Option::is_some,
        )
        .await;
        rig
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.running)
            .await
            .expect("stops")
            .unwrap()
            .unwrap();
        self.kubelet.abort();
        self.server.shutdown().await;
    }

    fn api(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        plural: &str,
        namespace: &str,
    ) -> Api<DynamicObject> {
        api(&self.client, group, version, kind, plural, namespace)
    }

    fn pods(&self) -> Api<DynamicObject> {
        self.api("", "v1", "Pod", "pods", "default")
    }

    fn apps(&self, kind: &str, plural: &str) -> Api<DynamicObject> {
        self.api("apps", "v1", kind, plural, "default")
    }

    /// Waits until what `look` sees is what `wanted` says.
    async fn until<T: Debug>(
        &self,
        what: &str,
        look: impl AsyncFn() -> T,
        wanted: impl Fn(&T) -> bool,
    ) -> T {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let seen = look().await;
            if wanted(&seen) {
                return seen;
            }
            assert!(!self.running.is_finished(), "the controllers have ended");
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what}: still {seen:#?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the objects, each told as a string, are these.
    async fn until_list(
        &self,
        api: &Api<DynamicObject>,
        selector: &str,
        tell: impl Fn(&DynamicObject) -> String,
        wanted: &[&str],
    ) {
        let params = ListParams::default().labels(selector);
        self.until(
            "list",
            async || {
                let list = api.list(&params).await.unwrap();
                let mut told: Vec<String> = list.items.iter().map(&tell).collect();
                told.sort();
                told
            },
            |told| told == wanted,
        )
        .await;
    }

    async fn until_status(&self, api: &Api<DynamicObject>, name: &str, wanted: Value) -> Value {
        self.until(
            "status",
            async || api.get(name).await.unwrap().data["status"].clone(),
            |status| {
                wanted
                    .as_object()
                    .unwrap()
                    .iter()
                    .all(|(k, v)| status[k] == *v)
            },
        )
        .await
    }
}

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

async fn create(api: &Api<DynamicObject>, value: Value) -> DynamicObject {
    api.create(&PostParams::default(), &object(value))
        .await
        .unwrap()
}

async fn merge(api: &Api<DynamicObject>, name: &str, value: Value) {
    api.patch(name, &PatchParams::default(), &Patch::Merge(value))
        .await
        .unwrap();
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]}})
}

fn name_and_image(pod: &DynamicObject) -> String {
    let image = pod.data["spec"]["containers"][0]["image"].as_str().unwrap();
    format!("{} {image}", pod.metadata.name.as_deref().unwrap())
}

fn stateful_set(replicas: i32, policy: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "serviceName": "web", "podManagementPolicy": policy,
        "selector": {"matchLabels": {"app": "web"}}, "template": template("one"),
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateful_set_is_created_released_in_place_and_by_partition_and_scaled() {
    let rig = Rig::new().await;
    let sets = rig.apps("StatefulSet", "statefulsets");
    create(&sets, stateful_set(3, "OrderedReady")).await;
    rig.until_list(
        &rig.pods(),
        "app=web",
        name_and_image,
        &["web-0 one", "web-1 one", "web-2 one"],
    )
    .await;
    let status = rig.until_status(&sets, "web", json!({"readyReplicas": 3, "availableReplicas": 3, "updatedReplicas": 3, "currentReplicas": 3})).await;
    let first = status["updateRevision"].as_str().unwrap().to_owned();
    assert_eq!(status["currentRevision"], first);
    let pod = rig.pods().get("web-1").await.unwrap();
    let labels = pod.metadata.labels.unwrap();
    assert_eq!(labels["controller-revision-hash"], first);
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-1");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(pod.data["spec"]["hostname"], "web-1");
    let claims = rig.api(
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        "default",
    );
    assert!(claims.get_opt("data-web-1").await.unwrap().is_some());

    // A release as the hub does it: partition up, new template, pods in place, partition down.
    merge(&sets, "web", json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 3}}, "template": template("two")}})).await;
    let status = rig
        .until(
            "update revision",
            async || sets.get("web").await.unwrap().data["status"].clone(),
            |s| s["updateRevision"] != *first,
        )
        .await;
    let second = status["updateRevision"].as_str().unwrap().to_owned();
    let uid = rig.pods().get("web-2").await.unwrap().metadata.uid;
    rig.pods()
        .patch(
            "web-2",
            &PatchParams::default(),
            &Patch::Strategic(json!({
            "metadata": {"labels": {"controller-revision-hash": second}},
            "spec": {"containers": [{"name": "c", "image": "two"}]}})),
        )
        .await
        .unwrap();
    merge(
        &sets,
        "web",
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}}),
    )
    .await;
    rig.until_status(
        &sets,
        "web",
        json!({"updatedReplicas": 1, "observedGeneration": 3, "currentRevision": first}),
    )
    .await;
    assert_eq!(
        rig.pods().get("web-2").await.unwrap().metadata.uid,
        uid,
        "updated in place, not deleted"
    );

    // One that is lost below the partition comes back on the old revision.
    rig.pods()
        .delete("web-0", &DeleteParams::default())
        .await
        .unwrap();
    rig.until_list(
        &rig.pods(),
        "app=web",
        name_and_image,
        &["web-0 one", "web-1 one", "web-2 two"],
    )
    .await;
    rig.until_status(
        &sets,
        "web",
        json!({"readyReplicas": 3, "currentReplicas": 2}),
    )
    .await;

    // The rest by recreation.
    merge(
        &sets,
        "web",
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}),
    )
    .await;
    rig.until_list(
        &rig.pods(),
        "app=web",
        name_and_image,
        &["web-0 two", "web-1 two", "web-2 two"],
    )
    .await;
    rig.until_status(
        &sets,
        "web",
        json!({"currentRevision": second, "updateRevision": second, "currentReplicas": 3}),
    )
    .await;
    assert_eq!(rig.pods().get("web-2").await.unwrap().metadata.uid, uid);

    merge(&sets, "web", json!({"spec": {"replicas": 1}})).await;
    rig.until_list(&rig.pods(), "app=web", name_and_image, &["web-0 two"])
        .await;
    sets.delete("web", &DeleteParams::background())
        .await
        .unwrap();
    rig.until_list(&rig.pods(), "app=web", name_and_image, &[])
        .await;
    let revisions = rig.apps("ControllerRevision", "controllerrevisions");
    rig.until_list(&revisions, "", |r| r.metadata.name.clone().unwrap(), &[])
        .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_stops_at_a_broken_revision_and_rolls_back() {
    let rig = Rig::new().await;
    let deployments = rig.apps("Deployment", "deployments");
    create(&deployments, json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 4, "progressDeadlineSeconds": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template("one"),
        "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}}}}))
    .await;
    let image = |pod: &DynamicObject| {
        pod.data["spec"]["containers"][0]["image"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    rig.until_list(&rig.pods(), "app=web", image, &["one"; 4])
        .await;
    rig.until_status(
        &deployments,
        "web",
        json!({"availableReplicas": 4, "updatedReplicas": 4}),
    )
    .await;

    merge(
        &deployments,
        "web",
        json!({"spec": {"template": template("two")}}),
    )
    .await;
    rig.until_list(&rig.pods(), "app=web", image, &["two"; 4])
        .await;
    let progressing = |status: &Value| {
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .iter()
            .find(|c| c["type"] == "Progressing")
            .map(|c| c["reason"].as_str().unwrap().to_owned())
    };
    let status = async || deployments.get("web").await.unwrap().data["status"].clone();
    rig.until("complete", status, |s| {
        progressing(s).as_deref() == Some("NewReplicaSetAvailable")
    })
    .await;

    merge(
        &deployments,
        "web",
        json!({"spec": {"template": template("broken")}}),
    )
    .await;
    let stuck = rig
        .until("deadline", status, |s| {
            progressing(s).as_deref() == Some("ProgressDeadlineExceeded")
        })
        .await;
    assert_eq!(stuck["availableReplicas"], 3, "{stuck}");

    merge(
        &deployments,
        "web",
        json!({"spec": {"template": template("two")}}),
    )
    .await;
    rig.until_list(&rig.pods(), "app=web", image, &["two"; 4])
        .await;
    let deployment = deployments.get("web").await.unwrap();
    assert_eq!(
        deployment.metadata.annotations.unwrap()["deployment.kubernetes.io/revision"],
        "4"
    );
    deployments
        .delete("web", &DeleteParams::foreground())
        .await
        .unwrap();
    rig.until(
        "gone",
        async || deployments.get_opt("web").await.unwrap(),
        Option::is_none,
    )
    .await;
    rig.until_list(
        &rig.apps("ReplicaSet", "replicasets"),
        "app=web",
        image_of_set,
        &[],
    )
    .await;
    rig.until_list(&rig.pods(), "app=web", image, &[]).await;
    rig.end().await;
}

fn image_of_set(set: &DynamicObject) -> String {
    set.data["spec"]["template"]["spec"]["containers"][0]["image"].to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_and_budgets_follow_readiness() {
    let rig = Rig::new().await;
    let services = rig.api("", "v1", "Service", "services", "default");
    create(
        &services,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {
        "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}}),
    )
    .await;
    let budgets = rig.api(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "default",
    );
    create(&budgets, json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": {
        "maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}}))
    .await;
    let sets = rig.apps("StatefulSet", "statefulsets");
    create(&sets, stateful_set(2, "Parallel")).await;
    let slices = rig.api(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        "default",
    );
    let tell = |slice: &DynamicObject| {
        let ports = &slice.data["ports"][0]["port"];
        let mut ends: Vec<String> = slice.data["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|e| {
                format!(
                    "{}={}",
                    e["targetRef"]["name"].as_str().unwrap(),
                    e["conditions"]["ready"]
                )
            })
            .collect();
        ends.sort();
        format!("{ports} {}", ends.join(" "))
    };
    let of_web = "kubernetes.io/service-name=web";
    rig.until_list(&slices, of_web, tell, &["8080 web-0=true web-1=true"])
        .await;
    rig.until_status(&budgets, "web", json!({"disruptionsAllowed": 1, "currentHealthy": 2, "expectedPods": 2, "desiredHealthy": 1})).await;

    // A pod whose readiness gate falls leaves traffic.
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    rig.kubelet.abort();
    rig.pods()
        .patch_status("web-1", &PatchParams::default(), &Patch::Strategic(unready))
        .await
        .unwrap();
    rig.until_list(&slices, of_web, tell, &["8080 web-0=true web-1=false"])
        .await;
    rig.until_status(
        &budgets,
        "web",
        json!({"disruptionsAllowed": 0, "currentHealthy": 1}),
    )
    .await;

    services
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    rig.until_list(&slices, of_web, tell, &[]).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_whose_owners_are_unknown_allows_nothing() {
    let rig = Rig::new().await;
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"app": "x"},
        "ownerReferences": [{"apiVersion": "example.com/v1", "kind": "Crew", "name": "c", "uid": "u", "controller": true}]}});
    pod["spec"] = template("one")["spec"].clone();
    create(&rig.pods(), pod).await;
    let budgets = rig.api(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "default",
    );
    create(&budgets, json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "x"}, "spec": {
        "maxUnavailable": 1, "selector": {"matchLabels": {"app": "x"}}}}))
    .await;
    let status = rig
        .until(
            "condition",
            async || budgets.get("x").await.unwrap().data["status"].clone(),
            |s| s["conditions"][0]["reason"] == "SyncFailed",
        )
        .await;
    assert_eq!(status["disruptionsAllowed"], 0);
    assert_eq!(status["conditions"][0]["status"], "False");
    let events = rig.api("", "v1", "Event", "events", "default");
    rig.until(
        "event",
        async || events.list(&ListParams::default()).await.unwrap().items,
        |all| {
            all.iter()
                .any(|e| e.data["reason"] == "CalculateExpectedPodCountFailed")
        },
    )
    .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_collected_in_three_ways() {
    let rig = Rig::new().await;
    // Secrets stand for owners that only the collector watches.
    let things = rig.api("", "v1", "Secret", "secrets", "default");
    let thing =
        |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    let maps = rig.api("", "v1", "ConfigMap", "configmaps", "default");
    let owned = |name: &str, uid: &str, owner: &str| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": [
        {"apiVersion": "v1", "kind": "Secret", "name": owner, "uid": uid, "blockOwnerDeletion": true}]}})
    };
    let a = create(&things, thing("a")).await.metadata.uid.unwrap();
    create(&maps, owned("of-a", &a, "a")).await;
    create(
        &maps,
        owned(
            "of-nobody",
            "00000000-0000-0000-0000-000000000000",
            "nobody",
        ),
    )
    .await;
    rig.until(
        "absent owner",
        async || maps.get_opt("of-nobody").await.unwrap(),
        Option::is_none,
    )
    .await;
    assert!(maps.get_opt("of-a").await.unwrap().is_some());
    things
        .delete("a", &DeleteParams::background())
        .await
        .unwrap();
    rig.until(
        "background",
        async || maps.get_opt("of-a").await.unwrap(),
        Option::is_none,
    )
    .await;

    let b = create(&things, thing("b")).await.metadata.uid.unwrap();
    create(&maps, owned("of-b", &b, "b")).await;
    things
        .delete("b", &DeleteParams::foreground())
        .await
        .unwrap();
    rig.until(
        "foreground",
        async || things.get_opt("b").await.unwrap(),
        Option::is_none,
    )
    .await;
    assert!(
        maps.get_opt("of-b").await.unwrap().is_none(),
        "dependents go first"
    );

    let c = create(&things, thing("c")).await.metadata.uid.unwrap();
    create(&maps, owned("of-c", &c, "c")).await;
    things.delete("c", &DeleteParams::orphan()).await.unwrap();
    rig.until(
        "orphan",
        async || things.get_opt("c").await.unwrap(),
        Option::is_none,
    )
    .await;
    let left = maps.get("of-c").await.unwrap();
    assert_eq!(left.metadata.owner_references.unwrap_or_default().len(), 0);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_gets_its_account_and_certificate_and_is_emptied_when_deleted() {
    let rig = Rig::new().await;
    let namespaces = rig.api("", "v1", "Namespace", "namespaces", "");
    create(
        &namespaces,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}, "spec": {"finalizers": ["example.com/other"]}}),
    )
    .await;
    let maps = rig.api("", "v1", "ConfigMap", "configmaps", "shop");
    let map = rig
        .until(
            "certificate",
            async || maps.get_opt("kube-root-ca.crt").await.unwrap(),
            Option::is_some,
        )
        .await;
    assert_eq!(map.unwrap().data["data"]["ca.crt"], rig.server.ca_pem());
    let accounts = rig.api("", "v1", "ServiceAccount", "serviceaccounts", "shop");
    rig.until(
        "account",
        async || accounts.get_opt("default").await.unwrap(),
        Option::is_some,
    )
    .await;
    accounts
        .delete("default", &DeleteParams::default())
        .await
        .unwrap();
    rig.until(
        "account again",
        async || accounts.get_opt("default").await.unwrap(),
        Option::is_some,
    )
    .await;

    let deployments = rig.api("apps", "v1", "Deployment", "deployments", "shop");
    create(
        &deployments,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template("one")}}),
    )
    .await;
    let pods = rig.api("", "v1", "Pod", "pods", "shop");
    rig.until_list(&pods, "app=web", |_| "pod".into(), &["pod", "pod"])
        .await;
    create(&maps, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.com/hold"]}})).await;
    namespaces
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    rig.until(
        "told",
        async || namespaces.get("shop").await.unwrap().data["status"]["conditions"].to_string(),
        |c| c.contains("example.com/hold in 1 resource instances"),
    )
    .await;
    // What others say about the namespace stays.
    let foreign =
        json!({"status": {"conditions": [{"type": "example.com/Audited", "status": "True"}]}});
    namespaces
        .patch_status("shop", &PatchParams::default(), &Patch::Strategic(foreign))
        .await
        .unwrap();
    merge(&maps, "held", json!({"metadata": {"finalizers": null}})).await;
    // Another's finalizer keeps the namespace; what it last told does not.
    let emptied = rig
        .until(
            "emptied",
            async || namespaces.get("shop").await.unwrap().data,
            |data| data["spec"]["finalizers"] == json!(["example.com/other"]),
        )
        .await;
    let value = |kind: &str| {
        let conditions = emptied["status"]["conditions"].as_array().unwrap();
        let one = conditions.iter().find(|c| c["type"] == kind).unwrap();
        one["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(value("NamespaceContentRemaining"), "False");
    assert_eq!(value("NamespaceFinalizersRemaining"), "False");
    assert_eq!(value("example.com/Audited"), "True");
    let mut last = serde_json::to_value(namespaces.get("shop").await.unwrap()).unwrap();
    last["spec"]["finalizers"] = json!([]);
    namespaces
        .replace_subresource("finalize", "shop", &PostParams::default(), &last)
        .await
        .map(|_: DynamicObject| ())
        .unwrap();
    rig.until(
        "gone",
        async || namespaces.get_opt("shop").await.unwrap(),
        Option::is_none,
    )
    .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_set_comes_up_with_few_events() {
    let rig = Rig::new().await;
    let sets = rig.apps("StatefulSet", "statefulsets");
    let mut set = stateful_set(300, "Parallel");
    set["spec"]["volumeClaimTemplates"] = json!([]);
    create(&sets, set).await;
    rig.until_status(
        &sets,
        "web",
        json!({"readyReplicas": 300, "availableReplicas": 300}),
    )
    .await;
    let events = rig.api("", "v1", "Event", "events", "default");
    let told = events
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .len();
    assert!((1..=25).contains(&told), "{told} events");
    rig.end().await;
}

/// Defines `kind` of example.com, and waits until it is served.
async fn define(rig: &Rig, kind: &str, plural: &str) -> Api<DynamicObject> {
    let definitions = rig.api(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "",
    );
    let name = format!("{plural}.example.com");
    create(&definitions, json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": name}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
                "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}}}]}}))
    .await;
    rig.until(
        "definition",
        async || {
            definitions.get(&name).await.unwrap().data["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        },
        |conditions| {
            conditions
                .iter()
                .any(|c| c["type"] == "Established" && c["status"] == "True")
        },
    )
    .await;
    rig.api("example.com", "v1", kind, plural, "default")
}

fn custom(kind: &str, name: &str, owner: Option<(&str, &str, &str)>) -> Value {
    let owners = owner.map(|(kind, name, uid)| {
        json!([{"apiVersion": "example.com/v1", "kind": kind, "name": name, "uid": uid,
            "controller": true, "blockOwnerDeletion": true}])
    });
    json!({"apiVersion": "example.com/v1", "kind": kind,
        "metadata": {"name": name, "ownerReferences": owners.unwrap_or_else(|| json!([]))},
        "spec": {"replicas": 3}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_are_collected_counted_and_emptied_like_any() {
    let rig = Rig::new().await;
    let ships = define(&rig, "Ship", "ships").await;
    let crews = define(&rig, "Crew", "crews").await;

    // Owner, dependent and the dependent's dependent are all of kinds defined just now.
    let ship = create(&ships, custom("Ship", "s", None))
        .await
        .metadata
        .uid
        .unwrap();
    let crew = create(&crews, custom("Crew", "c", Some(("Ship", "s", &ship)))).await;
    let crew = crew.metadata.uid.unwrap();
    create(&crews, custom("Crew", "mates", Some(("Crew", "c", &crew)))).await;
    create(
        &crews,
        custom(
            "Crew",
            "of-nobody",
            Some(("Ship", "none", "00000000-0000-0000-0000-000000000000")),
        ),
    )
    .await;
    let name = |o: &DynamicObject| o.metadata.name.clone().unwrap();
    rig.until_list(&crews, "", name, &["c", "mates"]).await;

    // A budget over pods of a custom workload is reckoned by its scale.
    for n in 0..3 {
        let mut pod = custom("Pod", &format!("p{n}"), Some(("Crew", "c", &crew)));
        pod["apiVersion"] = "v1".into();
        pod["metadata"]["labels"] = json!({"app": "crew"});
        pod["spec"] = template("one")["spec"].clone();
        create(&rig.pods(), pod).await;
    }
    let budgets = rig.api(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "default",
    );
    create(&budgets, json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "crew"}, "spec": {
        "maxUnavailable": 1, "selector": {"matchLabels": {"app": "crew"}}}}))
    .await;
    let counted = json!({"disruptionsAllowed": 1, "expectedPods": 3, "desiredHealthy": 2});
    rig.until_status(&budgets, "crew", counted).await;

    ships
        .delete("s", &DeleteParams::background())
        .await
        .unwrap();
    rig.until_list(&crews, "", name, &[]).await;
    rig.until_list(&rig.pods(), "app=crew", name, &[]).await;

    // A namespace is emptied of them too.
    let namespaces = rig.api("", "v1", "Namespace", "namespaces", "");
    create(
        &namespaces,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fleet"}}),
    )
    .await;
    let there = rig.api("example.com", "v1", "Ship", "ships", "fleet");
    create(&there, custom("Ship", "one", None)).await;
    create(&there, custom("Ship", "two", None)).await;
    namespaces
        .delete("fleet", &DeleteParams::default())
        .await
        .unwrap();
    rig.until(
        "gone",
        async || namespaces.get_opt("fleet").await.unwrap(),
        Option::is_none,
    )
    .await;
    rig.until_list(&there, "", name, &[]).await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_told_unknown_loses_its_pods_and_comes_back() {
    let rig = Rig::new().await;
    let nodes = rig.api("", "v1", "Node", "nodes", "");
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let namespaces = rig.api("", "v1", "Namespace", "namespaces", "");
    if namespaces
        .get_opt("kube-node-lease")
        .await
        .unwrap()
        .is_none()
    {
        let own = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-node-lease"}});
        create(&namespaces, own).await;
    }
    let leases = rig.api(
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        "kube-node-lease",
    );
    for name in ["alive", "silent"] {
        create(&nodes, node(name)).await;
        create(&leases, json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": name}}))
        .await;
        nodes
            .patch_status(
                name,
                &PatchParams::default(),
                &Patch::Strategic(ready.clone()),
            )
            .await
            .unwrap();
    }
    // One node keeps on renewing, so that not all are down.
    let renewing = {
        let leases = leases.clone();
        tokio::spawn(async move {
            loop {
                let now = jiff::Timestamp::now()
                    .strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
                    .to_string();
                let renewal = Patch::Merge(json!({"spec": {"renewTime": now}}));
                let _ = leases
                    .patch("alive", &PatchParams::default(), &renewal)
                    .await;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        })
    };
    let pod = |name: &str, seconds: Value| {
        let mut spec = template("one")["spec"].clone();
        spec["nodeName"] = "silent".into();
        spec["tolerations"] = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": seconds}]);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    };
    create(&rig.pods(), pod("soon", json!(0))).await;
    create(&rig.pods(), pod("stays", Value::Null)).await;
    let name = |o: &DynamicObject| o.metadata.name.clone().unwrap();
    rig.until_list(&rig.pods(), "", name, &["stays"]).await;
    let lost = nodes.get("silent").await.unwrap();
    let condition = &lost.data["status"]["conditions"][0];
    assert_eq!(condition["status"], "Unknown");
    assert_eq!(condition["reason"], "NodeStatusUnknown");
    let taints = |node: &DynamicObject| -> Vec<String> {
        let mut taints: Vec<String> = node.data["spec"]["taints"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|t| {
                format!(
                    "{}:{}",
                    t["key"].as_str().unwrap(),
                    t["effect"].as_str().unwrap()
                )
            })
            .collect();
        taints.sort();
        taints
    };
    assert_eq!(
        taints(&lost),
        [
            "node.kubernetes.io/unreachable:NoExecute",
            "node.kubernetes.io/unreachable:NoSchedule"
        ]
    );
    assert!(taints(&nodes.get("alive").await.unwrap()).is_empty());

    // The kubelet is back: it reports, and the taints go.
    leases
        .patch(
            "silent",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}})),
        )
        .await
        .unwrap();
    nodes
        .patch_status("silent", &PatchParams::default(), &Patch::Strategic(ready))
        .await
        .unwrap();
    rig.until(
        "taints gone",
        async || taints(&nodes.get("silent").await.unwrap()),
        Vec::is_empty,
    )
    .await;
    renewing.abort();
    rig.end().await;
}
