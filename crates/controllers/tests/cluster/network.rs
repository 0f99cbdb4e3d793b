//! Endpoints and disruption budgets.

use super::*;

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
async fn endpoints_that_people_wrote_go_with_their_service() {
    let rig = Rig::new().await;
    let services = rig.api("", "v1", "Service", "services", "default");
    let endpoints = rig.api("", "v1", "Endpoints", "endpoints", "default");
    for name in ["db", "alone"] {
        create(
            &endpoints,
            json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name},
            "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 5432}]}]}),
        )
        .await;
    }
    create(
        &services,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"},
        "spec": {"ports": [{"port": 5432}]}}),
    )
    .await;
    let slices = rig.api(
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        "default",
    );
    let of_db = "kubernetes.io/service-name=db";
    rig.until_list(&slices, of_db, |_| String::new(), &[""])
        .await;
    services
        .delete("db", &DeleteParams::default())
        .await
        .unwrap();
    let gone = async || endpoints.get_opt("db").await.unwrap();
    rig.until("gone", gone, Option::is_none).await;
    assert!(endpoints.get_opt("alone").await.unwrap().is_some());
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_without_an_owner_and_disruptions_that_did_not_happen_are_told() {
    let rig = Rig::new().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"app": "x"}},
        "spec": template("one")["spec"]});
    create(&rig.pods(), pod).await;
    let budgets = rig.api(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        "default",
    );
    create(
        &budgets,
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "x"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "x"}}}}),
    )
    .await;
    let events = rig.api("", "v1", "Event", "events", "default");
    let told = "Pods selected by this PodDisruptionBudget (selector: &LabelSelector{MatchLabels:map[string]string{app: x,},MatchExpressions:[]LabelSelectorRequirement{},}) were found to be unmanaged.";
    rig.until(
        "event",
        async || events.list(&ListParams::default()).await.unwrap().items,
        |all| {
            let is = |e: &DynamicObject| {
                e.data["reason"] == "UnmanagedPods"
                    && e.data["message"]
                        .as_str()
                        .is_some_and(|m| m.starts_with(told))
            };
            all.iter().any(is)
        },
    )
    .await;

    let condition = |reason: &str| {
        json!({"status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason,
            "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
    };
    let read = async || {
        let pod = rig.pods().get("p").await.unwrap();
        let all = pod.data["status"]["conditions"].as_array().cloned();
        let mut all = all.unwrap_or_default().into_iter();
        all.find(|c| c["type"] == "DisruptionTarget")
            .unwrap_or_default()
    };
    let patch = Patch::Strategic(condition("EvictionByEvictionAPI"));
    let params = PatchParams::default();
    rig.pods().patch_status("p", &params, &patch).await.unwrap();
    let cleared = rig.until("cleared", read, |c| c["status"] == "False").await;
    assert!(
        cleared.get("reason").is_none() && cleared.get("message").is_none(),
        "{cleared}"
    );
    assert_ne!(cleared["lastTransitionTime"], "2026-01-01T00:00:00Z");
    assert_eq!(cleared["observedGeneration"], 1);
    rig.end().await;
}
