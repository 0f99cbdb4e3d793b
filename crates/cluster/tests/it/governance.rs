//! What governs a cluster, end to end: quotas, gathered ClusterRoles, legacy tokens, autoscaling.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where its helpers do"
)]

use std::time::Duration;

use gantry_cluster::EmbeddedCluster;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, Client};
use serde_json::{Value, json};

/// How long anything may take before the test fails.
const DEADLINE: Duration = Duration::from_secs(120);

fn api(client: &Client, group: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let (group, version) = group.split_once('/').unwrap_or(("", group));
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
    match kind {
        "ClusterRole" | "APIService" | "TokenReview" => Api::all_with(client.clone(), &resource),
        _ => Api::default_namespaced_with(client.clone(), &resource),
    }
}

async fn create(api: &Api<DynamicObject>, object: Value) -> DynamicObject {
    let object = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

async fn merge(api: &Api<DynamicObject>, name: &str, patch: Value) {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

/// Waits until what `look` sees is what `wanted` says.
async fn until(
    what: &str,
    look: impl AsyncFn() -> Value,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let seen = look().await;
        if wanted(&seen) {
            return seen;
        }
        if tokio::time::Instant::now() > deadline {
            panic!("{what}: still {seen:#}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn data(api: &Api<DynamicObject>, name: &str) -> Value {
    match api.get_opt(name).await.unwrap() {
        Some(object) => object.data,
        None => Value::Null,
    }
}

/// A cluster whose namespace `default` takes pods.
async fn cluster() -> EmbeddedCluster {
    let cluster = EmbeddedCluster::start().await.unwrap();
    let accounts = api(&cluster.client(), "v1", "ServiceAccount", "serviceaccounts");
    until(
        "the default service account",
        async || accounts.get_opt("default").await.unwrap().is_some().into(),
        |there| *there == true,
    )
    .await;
    cluster
}

fn web(replicas: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "registry.example.com/web:1",
                "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}}}]}}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_counts_what_comes_and_what_goes() {
    let cluster = cluster().await;
    let client = cluster.client();
    let maps = api(&client, "v1", "ConfigMap", "configmaps");
    let map =
        |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    create(&maps, map("before")).await;
    let quotas = api(&client, "v1", "ResourceQuota", "resourcequotas");
    create(
        &quotas,
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "all"}, "spec": {"hard": {
            "pods": "3", "requests.cpu": "1", "count/configmaps": "10", "count/deployments.apps": "1",
            "services": "5", "persistentvolumeclaims": "2"}}}),
    )
    .await;
    let used = async || data(&quotas, "all").await["status"]["used"].clone();
    let first = until("the first count", &used, |u| u["count/configmaps"] == "2").await;
    assert_eq!(
        first,
        json!({"pods": "0", "requests.cpu": "0", "count/configmaps": "2", "count/deployments.apps": "0",
            "services": "1", "persistentvolumeclaims": "0"}),
        "kube-root-ca.crt and the Service kubernetes count too"
    );

    let deployments = api(&client, "apps/v1", "Deployment", "deployments");
    create(&deployments, web(5)).await;
    until("pods up to the quota", &used, |u| {
        u["pods"] == "3" && u["requests.cpu"] == "300m" && u["count/deployments.apps"] == "1"
    })
    .await;
    let conditions = async || data(&deployments, "web").await["status"]["conditions"].clone();
    let told = until("the refusal", &conditions, |c| {
        c.to_string().contains("exceeded quota")
    })
    .await
    .to_string();
    assert!(
        told.contains("exceeded quota: all, requested: pods=1, used: pods=3, limited: pods=3"),
        "{told}"
    );

    maps.delete("before", &DeleteParams::default())
        .await
        .unwrap();
    deployments
        .delete("web", &DeleteParams::background())
        .await
        .unwrap();
    until("all given back", &used, |u| {
        u["pods"] == "0"
            && u["requests.cpu"] == "0"
            && u["count/configmaps"] == "1"
            && u["count/deployments.apps"] == "0"
    })
    .await;

    // What the quota no longer limits is no longer told.
    merge(
        &quotas,
        "all",
        json!({"spec": {"hard": {"requests.cpu": null, "pods": "4"}}}),
    )
    .await;
    let status = until(
        "the new limits",
        async || data(&quotas, "all").await["status"].clone(),
        |s| s["hard"]["pods"] == "4",
    )
    .await;
    assert_eq!(status["used"].get("requests.cpu"), None);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_gathered_and_legacy_tokens_filled() {
    let cluster = cluster().await;
    let client = cluster.client();
    let roles = api(
        &client,
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        "clusterroles",
    );
    let rule = json!({"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"]});
    create(
        &roles,
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "sum"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "sum"}}]}, "rules": []}),
    )
    .await;
    create(
        &roles,
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "part", "labels": {"to": "sum"}}, "rules": [rule]}),
    )
    .await;
    let rules = async || data(&roles, "sum").await["rules"].clone();
    until("the part's rule", &rules, |r| *r == json!([rule])).await;
    roles
        .delete("part", &DeleteParams::default())
        .await
        .unwrap();
    until("no rule", &rules, |r| {
        r.as_array().is_none_or(Vec::is_empty)
    })
    .await;

    let accounts = api(&client, "v1", "ServiceAccount", "serviceaccounts");
    create(
        &accounts,
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}),
    )
    .await;
    let secrets = api(&client, "v1", "Secret", "secrets");
    create(
        &secrets,
        json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "robot-token", "annotations": {"kubernetes.io/service-account.name": "robot"}}}),
    )
    .await;
    let filled = until(
        "the token",
        async || data(&secrets, "robot-token").await["data"].clone(),
        |d| d.get("token").is_some(),
    )
    .await;
    assert_eq!(filled["namespace"], "ZGVmYXVsdA==");
    assert!(filled.get("ca.crt").is_some());
    let token = {
        let secret: k8s_openapi::api::core::v1::Secret = Api::default_namespaced(client.clone())
            .get("robot-token")
            .await
            .unwrap();
        String::from_utf8(secret.data.unwrap()["token"].0.clone()).unwrap()
    };
    let reviews = api(
        &client,
        "authentication.k8s.io/v1",
        "TokenReview",
        "tokenreviews",
    );
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "metadata": {"name": ""}, "spec": {"token": token}});
    let seen = create(&reviews, review).await.data;
    assert_eq!(
        seen["status"]["user"]["username"], "system:serviceaccount:default:robot",
        "{seen}"
    );
    accounts
        .delete("robot", &DeleteParams::default())
        .await
        .unwrap();
    until(
        "the secret gone",
        async || {
            secrets
                .get_opt("robot-token")
                .await
                .unwrap()
                .is_none()
                .into()
        },
        |gone| *gone == true,
    )
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_written_and_those_of_people_mirrored() {
    let cluster = cluster().await;
    let client = cluster.client();
    let deployments = api(&client, "apps/v1", "Deployment", "deployments");
    create(&deployments, web(2)).await;
    // Ready before the Service comes: its Endpoints are then written once, and the time that they
    // carry is the Service's. (A pod that becomes ready within the second of the Service's creation
    // is no later change, and an update without a later change drops the time.)
    let ready = async || data(&deployments, "web").await["status"]["readyReplicas"].clone();
    until("two pods ready", &ready, |n| *n == 2).await;
    let services = api(&client, "v1", "Service", "services");
    create(
        &services,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": {"team": "x"}},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
    )
    .await;
    let endpoints = api(&client, "v1", "Endpoints", "endpoints");
    let subsets = async || data(&endpoints, "web").await["subsets"].clone();
    let seen = until("two addresses", &subsets, |s| {
        s[0]["addresses"].as_array().is_some_and(|a| a.len() == 2)
    })
    .await;
    assert_eq!(
        seen[0]["ports"],
        json!([{"name": "http", "port": 8080, "protocol": "TCP"}])
    );
    assert_eq!(seen[0]["addresses"][0]["targetRef"]["kind"], "Pod");
    let meta = endpoints.get("web").await.unwrap().metadata;
    let labels = meta.labels.unwrap();
    assert_eq!(labels["team"], "x");
    assert_eq!(
        labels["endpoints.kubernetes.io/managed-by"],
        "endpoint-controller"
    );
    let annotations = meta.annotations.unwrap();
    assert!(annotations.contains_key("endpoints.kubernetes.io/last-change-trigger-time"));
    merge(&deployments, "web", json!({"spec": {"replicas": 1}})).await;
    until("one address", &subsets, |s| {
        s[0]["addresses"].as_array().is_some_and(|a| a.len() == 1)
    })
    .await;
    services
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    until(
        "the Endpoints gone with their Service",
        &subsets,
        Value::is_null,
    )
    .await;

    create(
        &services,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {"ports": [{"port": 5432}]}}),
    )
    .await;
    create(
        &endpoints,
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "db"},
            "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 5432}]}]}),
    )
    .await;
    let slices = api(
        &client,
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "endpointslices",
    );
    let of_db = ListParams::default().labels("kubernetes.io/service-name=db");
    let mirrored = async || -> Value {
        let list = slices.list(&of_db).await.unwrap();
        list.items
            .iter()
            .map(|s| s.data["endpoints"].clone())
            .collect()
    };
    let one = json!({"addresses": ["192.0.2.1"], "conditions": {"ready": true}});
    until("the mirrored slice", &mirrored, |m| *m == json!([[one]])).await;
    merge(
        &endpoints,
        "db",
        json!({"subsets": [{"notReadyAddresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 5432}]}]}),
    )
    .await;
    until("the change mirrored", &mirrored, |m| {
        m[0][0]["conditions"]["ready"] == false
    })
    .await;
    endpoints
        .delete("db", &DeleteParams::default())
        .await
        .unwrap();
    until("the slice gone", &mirrored, |m| *m == json!([])).await;
    cluster.shutdown().await;
}

fn condition(status: &Value, kind: &str) -> Value {
    let all = status["conditions"].as_array();
    all.into_iter()
        .flatten()
        .find(|c| c["type"] == kind)
        .cloned()
        .unwrap_or_default()
}

/// An autoscaler of the Deployment `web`, by its pods' CPU.
async fn autoscaler(client: &Client) -> Api<DynamicObject> {
    let autoscalers = api(
        client,
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
    );
    create(
        &autoscalers,
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1, "maxReplicas": 8, "metrics": cpu_at(80)}}),
    )
    .await;
    autoscalers
}

fn cpu_at(utilization: i32) -> Value {
    json!([{"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": utilization}}}])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_follows_the_simulated_metrics_server() {
    let cluster = cluster().await;
    let client = cluster.client();
    let deployments = api(&client, "apps/v1", "Deployment", "deployments");
    let mut busy = web(2);
    // Each pod uses 80 of the 100 thousandths of a CPU that it asks for.
    busy["spec"]["template"]["metadata"]["annotations"] = json!({"hollow.gantry.dev/cpu": "80m"});
    create(&deployments, busy).await;
    until(
        "two pods ready",
        async || data(&deployments, "web").await["status"]["readyReplicas"].clone(),
        |n| *n == 2,
    )
    .await;
    let autoscalers = autoscaler(&client).await;
    let status = async || data(&autoscalers, "web").await["status"].clone();
    // What a pod uses counts when it has been ready for as long as usage is measured over.
    let told = until("usage", &status, |s| {
        s["currentMetrics"][0]["resource"]["current"]["averageUtilization"] == 80
    })
    .await;
    assert_eq!(
        condition(&told, "ScalingActive")["message"],
        "the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)"
    );
    assert_eq!(told["desiredReplicas"], 2, "80 of 80 %");

    // A changed spec is looked at at once: twice as much is used as wanted.
    let half = json!({"spec": {"maxReplicas": 4, "metrics": cpu_at(40)}});
    merge(&autoscalers, "web", half).await;
    let told = until("four replicas wanted", &status, |s| {
        s["desiredReplicas"] == 4
    })
    .await;
    assert_eq!(
        condition(&told, "ScalingActive")["reason"],
        "ValidMetricFound"
    );
    assert_eq!(
        told["currentMetrics"][0]["resource"],
        json!({"name": "cpu", "current": {"averageUtilization": 80, "averageValue": "80m"}})
    );
    assert!(told.get("lastScaleTime").is_some());
    until(
        "four pods ready",
        async || data(&deployments, "web").await["status"]["readyReplicas"].clone(),
        |n| *n == 4,
    )
    .await;

    merge(
        &autoscalers,
        "web",
        json!({"spec": {"minReplicas": 6, "maxReplicas": 8}}),
    )
    .await;
    until("at least six", &status, |s| s["desiredReplicas"] == 6).await;
    merge(
        &autoscalers,
        "web",
        json!({"spec": {"minReplicas": 1, "maxReplicas": 3}}),
    )
    .await;
    until("at most three", &status, |s| s["desiredReplicas"] == 3).await;
    merge(&deployments, "web", json!({"spec": {"replicas": 0}})).await;
    merge(&autoscalers, "web", json!({"spec": {"maxReplicas": 5}})).await;
    let told = until("switched off", &status, |s| {
        condition(s, "ScalingActive")["reason"] == "ScalingDisabled"
    })
    .await;
    assert_eq!(told["desiredReplicas"].as_i64().unwrap_or(0), 0);

    let events = api(&client, "v1", "Event", "events");
    let rescaled = ListParams::default().fields("reason=SuccessfulRescale");
    let messages = until(
        "events",
        async || {
            let list = events.list(&rescaled).await.unwrap();
            list.items
                .iter()
                .map(|e| e.data["message"].clone())
                .collect()
        },
        |m| m.as_array().is_some_and(|m| m.len() >= 3),
    )
    .await
    .to_string();
    for message in [
        "New size: 4; reason: cpu resource utilization (percentage of request) above target",
        "New size: 6; reason: Current number of replicas below Spec.MinReplicas",
        "New size: 3; reason: Current number of replicas above Spec.MaxReplicas",
    ] {
        assert!(messages.contains(message), "{message} in {messages}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_says_when_nobody_measures() {
    let cluster = cluster().await;
    let client = cluster.client();
    let services = api(
        &client,
        "apiregistration.k8s.io/v1",
        "APIService",
        "apiservices",
    );
    let name = "v1beta1.metrics.k8s.io";
    until(
        "the metrics API",
        async || data(&services, name).await["status"]["conditions"][0]["status"].clone(),
        |status| *status == "True",
    )
    .await;
    services
        .delete(name, &DeleteParams::default())
        .await
        .unwrap();
    let deployments = api(&client, "apps/v1", "Deployment", "deployments");
    create(&deployments, web(2)).await;
    until(
        "two pods ready",
        async || data(&deployments, "web").await["status"]["readyReplicas"].clone(),
        |n| *n == 2,
    )
    .await;
    let autoscalers = autoscaler(&client).await;
    let status = async || data(&autoscalers, "web").await["status"].clone();
    let told = until("no metrics", &status, |s| {
        condition(s, "ScalingActive")["status"] == "False"
    })
    .await;
    let active = condition(&told, "ScalingActive");
    assert_eq!(active["reason"], "FailedGetResourceMetric");
    assert_eq!(
        active["message"],
        "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)"
    );
    assert_eq!(
        condition(&told, "AbleToScale")["reason"],
        "SucceededGetScale"
    );
    assert_eq!(told["currentReplicas"], 2);
    cluster.shutdown().await;
}
