//! StatefulSets and Deployments, from creation to release and back.

use super::*;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_goes_back_by_annotation_and_steps_aside_for_a_taken_name() {
    let rig = Rig::new().await;
    let deployments = rig.apps("Deployment", "deployments");
    let sets = rig.apps("ReplicaSet", "replicasets");
    let deployment = |image: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "annotations": {"note": image}},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template(image)}})
    };
    create(&deployments, deployment("one")).await;
    let revision = |d: &DynamicObject| {
        d.metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get("deployment.kubernetes.io/revision").cloned())
    };
    let read = async || deployments.get("web").await.unwrap();
    rig.until("revision 1", read, |d| revision(d).as_deref() == Some("1"))
        .await;
    let mut second = json!({"spec": deployment("two")["spec"]});
    second["metadata"]["annotations"]["note"] = "two".into();
    second["spec"]["template"]["spec"]["hostname"] = "extra".into();
    merge(&deployments, "web", second).await;
    rig.until("revision 2", read, |d| revision(d).as_deref() == Some("2"))
        .await;

    let back = json!({"metadata": {"annotations": {"deprecated.deployment.rollback.to": "0"}}});
    merge(&deployments, "web", back).await;
    let done = rig
        .until("revision 3", read, |d| revision(d).as_deref() == Some("3"))
        .await;
    let annotations = done.metadata.annotations.unwrap();
    assert_eq!(annotations["note"], "one");
    assert!(!annotations.contains_key("deprecated.deployment.rollback.to"));
    let spec = &done.data["spec"]["template"]["spec"];
    assert_eq!(spec["containers"][0]["image"], "one");
    assert_eq!(
        spec.get("hostname"),
        None,
        "the template was replaced, not merged"
    );
    let events = rig.api("", "v1", "Event", "events", "default");
    let reasons = async || {
        let all = events.list(&ListParams::default()).await.unwrap();
        let text = |e: &DynamicObject| format!("{}: {}", e.data["reason"], e.data["message"]);
        all.items.iter().map(text).collect::<Vec<_>>()
    };
    rig.until("event", reasons, |told| {
        told.iter()
            .any(|t| t == r#""DeploymentRollback": "Rolled back deployment \"web\" to revision 1""#)
    })
    .await;

    // Somebody changes the template of its ReplicaSet: the name of the Deployment's own is taken.
    let image = |set: &DynamicObject| image_of_set(set).trim_matches('"').to_owned();
    let all = sets.list(&ListParams::default()).await.unwrap();
    let newest = all.items.iter().find(|set| image(set) == "one").unwrap();
    let name = newest.metadata.name.clone().unwrap();
    let change = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 5}}}});
    merge(&sets, &name, change).await;
    let status = async || deployments.get("web").await.unwrap().data["status"].clone();
    rig.until("a collision", status, |s| s["collisionCount"] == 1)
        .await;
    rig.until_list(&sets, "app=web", image, &["one", "one", "two"])
        .await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revisions_that_have_lost_their_owner_are_taken_in_again() {
    let rig = Rig::new().await;
    let revisions = rig.apps("ControllerRevision", "controllerrevisions");
    let sets = rig.apps("StatefulSet", "statefulsets");
    let daemons = rig.apps("DaemonSet", "daemonsets");
    create(&sets, stateful_set(1, "Parallel")).await;
    let mut daemon = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "log"},
        "spec": {"selector": {"matchLabels": {"app": "log"}}, "template": template("one")}});
    daemon["spec"]["template"]["metadata"]["labels"]["app"] = "log".into();
    create(&daemons, daemon).await;
    for (kind, name, set) in [
        ("StatefulSet", "web", &sets),
        ("DaemonSet", "log", &daemons),
    ] {
        let owned = async || {
            let all = revisions.list(&ListParams::default()).await.unwrap();
            let mut of = all.items.into_iter().filter(|r| {
                r.metadata
                    .name
                    .as_ref()
                    .is_some_and(|n| n.starts_with(name))
            });
            let (first, more) = (of.next(), of.next());
            assert!(more.is_none(), "another was made beside it: {more:?}");
            let owner = first
                .as_ref()?
                .metadata
                .owner_references
                .as_ref()?
                .first()?;
            Some((first.as_ref()?.metadata.name.clone()?, owner.kind.clone()))
        };
        let seen = rig.until("a revision", owned, Option::is_some).await;
        let (revision, _) = seen.unwrap();
        let lost = json!({"metadata": {"ownerReferences": null}});
        merge(&revisions, &revision, lost).await;
        // A StatefulSet takes it in when it is looked at next.
        let touched = json!({"metadata": {"annotations": {"touched": "1"}}});
        merge(set, name, touched).await;
        let back = |seen: &Option<(String, String)>| seen.as_ref().is_some_and(|it| it.1 == kind);
        rig.until("its owner", owned, back).await;
        let status = set.get(name).await.unwrap().data["status"].clone();
        assert_eq!(status["collisionCount"].as_i64().unwrap_or(0), 0, "{kind}");
    }
    rig.end().await;
}
