//! What nobody owns any more, and custom resources.

use super::*;

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
    // An owner of another namespace is none, and that is told.
    let elsewhere = rig.api("", "v1", "ConfigMap", "configmaps", "kube-public");
    create(&elsewhere, owned("astray", &a, "a")).await;
    rig.until(
        "an owner of another namespace",
        async || elsewhere.get_opt("astray").await.unwrap(),
        Option::is_none,
    )
    .await;
    let events = rig.api("", "v1", "Event", "events", "kube-public");
    rig.until(
        "the warning",
        async || events.list(&Default::default()).await.unwrap().items,
        |all| {
            let mut all = all.iter();
            all.any(|it| {
                it.data["reason"] == "OwnerRefInvalidNamespace"
                    && it.data["involvedObject"]["name"] == "astray"
            })
        },
    )
    .await;
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
