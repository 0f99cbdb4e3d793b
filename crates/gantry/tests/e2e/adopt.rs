//! Plain workloads of a running member become groups and plain workloads again, and no pod is touched; then a
//! release gives adopted instances their names.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::fleet::client;
use crate::support::{Fleet, Up, wait};

const TENANT: [&str; 2] = ["-n", "shop"];

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

pub fn spec(name: &str, replicas: i32) -> Value {
    json!({
        "replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{
            "name": "server", "image": format!("registry.example.com/{name}:1"), "ports": [{"containerPort": 80}],
            "resources": {"requests": {"cpu": "100m"}},
        }]}},
    })
}

/// Two workloads of a team in a namespace, and a Service of one.
pub async fn make(client: &Client) {
    let labels = json!({"team": "checkout"});
    let post = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&post, &object(json!({"metadata": {"name": "shop"}})))
        .await
        .unwrap();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "shop");
    deployments
        .create(
            &post,
            &object(json!({"metadata": {"name": "web", "labels": labels}, "spec": spec("web", 4)})),
        )
        .await
        .unwrap();
    let mut set = spec("db", 2);
    set["serviceName"] = json!("db");
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), "shop");
    sets.create(
        &post,
        &object(json!({"metadata": {"name": "db", "labels": labels}, "spec": set})),
    )
    .await
    .unwrap();
    let services: Api<Service> = Api::namespaced(client.clone(), "shop");
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    services.create(&post, &object(service)).await.unwrap();
}

async fn pods(client: &Client, app: &str) -> Vec<Pod> {
    let api: Api<Pod> = Api::namespaced(client.clone(), "shop");
    let list = api
        .list(&ListParams::default().labels(&format!("app={app}")))
        .await;
    list.unwrap().items
}

fn uids(pods: &[Pod]) -> BTreeSet<String> {
    pods.iter().filter_map(Pod::uid).collect()
}

/// Addresses that a Service sends to.
async fn endpoints(client: &Client, service: &str) -> BTreeSet<String> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), "shop");
    let select = format!("kubernetes.io/service-name={service}");
    let list = api
        .list(&ListParams::default().labels(&select))
        .await
        .unwrap();
    let all = list
        .items
        .into_iter()
        .flat_map(|s| s.endpoints.unwrap_or_default());
    all.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)))
        .flat_map(|e| e.addresses)
        .collect()
}

/// A Service that one member exports is known in the other, with its endpoints; and gone when it is not.
async fn exported(up: &Up, member: &Client) {
    let other = client(up.kubeconfig(), Some("bj".to_owned())).await;
    let namespaces: Api<Namespace> = Api::all(other.clone());
    // The tenant's namespace may be there already.
    let _ = namespaces
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "shop"}})),
        )
        .await;
    let kind = |kind: &str| {
        ApiResource::from_gvk(&GroupVersionKind::gvk(
            "multicluster.x-k8s.io",
            "v1alpha1",
            kind,
        ))
    };
    let exports: Api<DynamicObject> =
        Api::namespaced_with(member.clone(), "shop", &kind("ServiceExport"));
    let export = json!({"apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ServiceExport", "metadata": {"name": "web"}});
    exports
        .create(&PostParams::default(), &object(export))
        .await
        .unwrap();
    let imports: Api<DynamicObject> =
        Api::namespaced_with(other.clone(), "shop", &kind("ServiceImport"));
    let slices: Api<EndpointSlice> = Api::namespaced(other.clone(), "shop");
    let select =
        "multicluster.kubernetes.io/service-name=web,multicluster.kubernetes.io/source-cluster=sh";
    let served = endpoints(member, "web").await;
    let deadline = tokio::time::Instant::now() + crate::support::DEADLINE;
    let mut seen = BTreeSet::new();
    while seen != served {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{seen:?} and not {served:?}"
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let list = slices
            .list(&ListParams::default().labels(select))
            .await
            .unwrap();
        let all = list
            .items
            .into_iter()
            .flat_map(|s| s.endpoints.unwrap_or_default());
        seen = all.flat_map(|e| e.addresses).collect();
    }
    let import = imports.get("web").await.unwrap();
    assert_eq!(import.data["spec"]["type"], "ClusterSetIP");
    assert!(import.data["spec"]["ips"][0].is_string(), "{import:?}");
    assert_eq!(
        import.data["status"]["clusters"],
        json!([{"cluster": "sh"}])
    );
    exports
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    while imports.get_opt("web").await.unwrap().is_some() {
        assert!(tokio::time::Instant::now() < deadline, "the import stays");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(
        slices
            .list(&ListParams::default().labels(select))
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[test]
fn what_runs_is_adopted_released_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &["--nodes", "8"]);
    let runtime = Runtime::new().unwrap();
    let member = runtime.block_on(client(up.kubeconfig(), Some("sh".to_owned())));
    runtime.block_on(make(&member));
    let there = |app: &str| runtime.block_on(pods(&member, app));
    let ready = |app: &str| {
        let all = there(app);
        let ok = |p: &Pod| {
            let conditions = p.status.iter().flat_map(|s| s.conditions.iter().flatten());
            conditions
                .into_iter()
                .any(|c| c.type_ == "Ready" && c.status == "True")
        };
        all.iter().filter(|p| ok(p)).count()
    };
    wait("the workloads to run", || {
        (ready("web") == 4 && ready("db") == 2).then_some(())
    });
    let (web, db) = (uids(&there("web")), uids(&there("db")));
    let served = runtime.block_on(endpoints(&member, "web"));
    assert_eq!(served.len(), 4);

    // What would change, in numbers; a namespace that is not there yet in the hub is no matter.
    let args = [
        "adopt",
        "deployment/web",
        "statefulset/db",
        "--cluster",
        "sh",
    ];
    let said = wait("the dry run to find its rollout done", || {
        let said = up.ok(&[&args[..], &TENANT, &["--dry-run"]].concat());
        said.contains("2 of 2 workloads can be adopted: 6 instances")
            .then_some(said)
    });
    assert!(
        said.contains("Service/web: kept by the group from now on; 4 endpoints before and after"),
        "{said}"
    );
    up.ok(&[&args[..], &TENANT, &["--watch", "--timeout", "2m"]].concat());
    assert_eq!(
        (uids(&there("web")), uids(&there("db"))),
        (web.clone(), db.clone())
    );
    let deployments: Api<Deployment> = Api::namespaced(member.clone(), "shop");
    assert!(
        runtime
            .block_on(deployments.get_opt("web"))
            .unwrap()
            .is_none()
    );
    let group = |name: &str| up.json(&["get", "groups", name, "-n", "shop", "-o", "json"]);
    let serving = |name: &str, n: i64, guests: i64| {
        wait(&format!("{n} instances of {name} in service"), || {
            let status = group(name)["status"].clone();
            let cells = status["cells"].as_array().cloned().unwrap_or_default();
            let of: i64 = cells.iter().filter_map(|c| c["guests"].as_i64()).sum();
            (status["inService"] == n && status["replicas"] == n && of == guests).then_some(())
        });
    };
    serving("web-prod", 4, 4);
    serving("db-prod", 2, 0);
    wait("the Service to send where it did", || {
        (runtime.block_on(endpoints(&member, "web")) == served).then_some(())
    });

    // The first release: named instances first, then as any other. The StatefulSet's keep their names.
    let release = |name: &str, image: &str| {
        let args = [
            "release",
            "start",
            name,
            "--image",
            image,
            "--accept",
            "auto",
            "--batches",
            "50%",
        ];
        let output = up.run(&[&args[..], &TENANT, &["--watch", "--timeout", "3m"]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:#?}");
    };
    release("web-prod", "registry.example.com/web:2");
    serving("web-prod", 4, 0);
    let named = there("web");
    assert!(
        named
            .iter()
            .all(|p| p.name_any().starts_with("web-prod-sh-"))
    );
    release("db-prod", "registry.example.com/db:2");
    let names: BTreeSet<String> = there("db").iter().map(Pod::name_any).collect();
    assert_eq!(names, ["db-0", "db-1"].map(str::to_owned).into());
    assert!(uids(&there("db")).is_disjoint(&db));

    runtime.block_on(exported(&up, &member));

    // One is moved, one is done without: the last of its cell.
    serving("db-prod", 2, 0);
    up.ok(&[
        &["scale", "db-prod", "--remove", "db-1", "--watch"][..],
        &TENANT,
    ]
    .concat());
    serving("db-prod", 1, 0);

    // And back: the same pods, owned by plain objects.
    let (web, db) = (uids(&named), uids(&there("db")));
    up.ok(&[
        &["unmanage", "web-prod", "--kind", "deployment"][..],
        &TENANT,
    ]
    .concat());
    up.ok(&[&["unmanage", "db-prod"][..], &TENANT].concat());
    assert_eq!((uids(&there("web")), uids(&there("db"))), (web.clone(), db));
    let owned = wait("the Deployments to own what they took", || {
        let all = runtime
            .block_on(deployments.list(&ListParams::default()))
            .unwrap()
            .items;
        let of = |d: &Deployment| {
            d.status
                .as_ref()
                .and_then(|s| s.updated_replicas)
                .unwrap_or(0)
        };
        (all.iter().map(of).sum::<i32>() == 4).then_some(all.len())
    });
    let sets: Api<ReplicaSet> = Api::namespaced(member.clone(), "shop");
    let sets = runtime
        .block_on(sets.list(&ListParams::default()))
        .unwrap()
        .items;
    assert_eq!(
        sets.len(),
        owned,
        "no ReplicaSet but those that took the pods"
    );
    assert_eq!(uids(&there("web")), web);
    let plain: Api<StatefulSet> = Api::namespaced(member.clone(), "shop");
    let plain = runtime.block_on(plain.get("db")).unwrap();
    assert!(!plain.labels().contains_key("gantry.dev/group"));

    // And to the Group again, once the Deployment has given its instances names of its own.
    let all = runtime.block_on(deployments.list(&ListParams::default()));
    let left = all.unwrap().items.remove(0).name_any();
    let workload = format!("deployment/{left}");
    let adopt = [&["adopt", &*workload, "--cluster", "sh"][..], &TENANT].concat();
    let refused = up.ok(&[&adopt[..], &["--dry-run"]].concat());
    assert!(refused.contains("kubectl rollout restart"), "{refused}");
    let restart = json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}}}});
    let (params, patch) = (PatchParams::default(), Patch::Merge(restart));
    runtime
        .block_on(deployments.patch(&left, &params, &patch))
        .unwrap();
    let said = wait("the Deployment to have been restarted", || {
        let said = up.ok(&[&adopt[..], &["--dry-run"]].concat());
        said.contains("1 of 1 workload can be adopted")
            .then_some(said)
    });
    assert!(
        said.contains("goes back to app web and group web-prod"),
        "{said}"
    );
    let before = uids(&there("web"));
    up.ok(&[&adopt[..], &["--watch", "--timeout", "2m"]].concat());
    assert_eq!(uids(&there("web")), before);
    assert_eq!(group("web-prod")["spec"]["app"], "web");
    assert_eq!(group("web-prod")["spec"]["adopt"]["name"], *left);
}
