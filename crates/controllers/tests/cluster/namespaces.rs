//! What a namespace gets, and what goes with it.

use super::*;

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
