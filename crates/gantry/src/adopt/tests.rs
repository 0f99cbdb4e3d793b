//! Proposals from live objects as a server gives them.

use serde_json::json;

use super::*;

fn live(kind: &str, name: &str, spec: Value, status: Value) -> Value {
    let uid = format!("uid-{name}");
    json!({
        "apiVersion": "apps/v1", "kind": kind,
        "metadata": {
            "name": name, "namespace": "shop", "uid": uid, "resourceVersion": "7", "generation": 1, "managedFields": [],
            "labels": {"app": "web", "app.kubernetes.io/managed-by": "Helm"},
            "annotations": {"meta.helm.sh/release-name": "web", "deployment.kubernetes.io/revision": "1"},
        },
        "spec": spec, "status": status,
    })
}

fn pod(name: &str, labels: Value, node: &str) -> Value {
    json!({"metadata": {"name": name, "uid": format!("uid-{name}"), "labels": labels, "ownerReferences": [{"controller": true, "uid": "uid-set"}]}, "spec": {"nodeName": node}})
}

fn template() -> Value {
    json!({
        "metadata": {"creationTimestamp": null, "labels": {"app": "web"}},
        "spec": {
            "containers": [{"name": "server", "image": "web:1", "ports": [{"containerPort": 80, "protocol": "TCP"}], "imagePullPolicy": "IfNotPresent"}],
            "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        },
    })
}

fn deployment() -> (Found, Beside) {
    let spec = json!({
        "replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template(),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
    });
    let status = json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3});
    let set = json!({"metadata": {"name": "web-1", "uid": "uid-set"}, "spec": {"replicas": 3}});
    let pods: Vec<Value> = (0..3)
        .map(|n| {
            pod(
                &format!("web-1-{n}"),
                json!({"app": "web"}),
                &format!("node-{}", n % 2),
            )
        })
        .collect();
    let service = |name: &str, selector: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "selector": selector, "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]},
        })
    };
    let mut all = pods.clone();
    all.push(pod(
        "other-0",
        json!({"app": "other", "tier": "front"}),
        "node-0",
    ));
    all[0]["metadata"]["labels"]["tier"] = json!("front");
    let found = Found {
        workload: Some(live("Deployment", "web", spec, status)),
        sets: vec![set],
        pods: all[..3].to_vec(),
        cells: [("node-0", "sh-a"), ("node-1", "sh-b")]
            .map(|(n, c)| (n.to_owned(), c.to_owned()))
            .into(),
        guests: 0,
    };
    let beside = Beside {
        services: vec![
            service("web", json!({"app": "web"})),
            service("front", json!({"tier": "front"})),
            service("stray", json!({"app": "nobody"})),
        ],
        pods: all,
        ..Beside::default()
    };
    (found, beside)
}

fn wish() -> Wish {
    Wish {
        tenant: "shop".into(),
        cells: vec!["sh-a".into(), "sh-b".into()],
        cell: None,
    }
}

fn home(found: &Found) -> Home {
    let workload = found.workload.as_ref();
    Home::of(workload, workload.map(name).unwrap_or_default(), "prod")
}

#[test]
fn what_a_group_has_left_goes_back_to_it() {
    let of = |selector: Value, marks: Value| {
        let spec = json!({"selector": {"matchLabels": selector}, "template": {"metadata": {"labels": marks}}});
        Home::of(Some(&json!({"spec": spec})), "web-prod-sh-a", "prod")
    };
    let left = json!({"gantry.dev/group": "web-eu", "gantry.dev/cell": "sh-a"});
    let (group, app, environment) = (labels::GROUP, labels::APP, labels::ENVIRONMENT);
    assert_eq!(group, "gantry.dev/group");
    for (what, selector, marks, want) in [
        (
            "anybody's",
            json!({"app": "web"}),
            json!({"app": "web"}),
            ("web-prod-sh-a-prod", "prod", None),
        ),
        (
            "a group's",
            left.clone(),
            json!({app: "web", group: "web-eu", environment: "staging"}),
            ("web-eu", "staging", Some("web")),
        ),
        (
            "without its app's name",
            json!({group: "web-prod"}),
            json!({group: "web-prod"}),
            ("web-prod", "prod", Some("web")),
        ),
        (
            "nor an environment in its name",
            left,
            json!({}),
            ("web-eu", "prod", Some("web-eu")),
        ),
    ] {
        let home = of(selector, marks);
        let got = (
            home.group.as_str(),
            home.environment.as_str(),
            home.left.as_deref(),
        );
        assert_eq!(got, want, "{what}");
    }
    assert_eq!(Home::of(None, "web", "test").group, "web-test");
}

#[test]
fn of_what_a_group_has_left_one_workload_goes_back() {
    let (mut found, beside) = deployment();
    let workload = found.workload.as_mut().unwrap();
    workload["metadata"]["name"] = json!("web-prod-sh-a");
    workload["spec"]["selector"]["matchLabels"] =
        json!({labels::GROUP: "web-prod", labels::CELL: "sh-a"});
    workload["spec"]["template"]["metadata"]["labels"] =
        json!({"app": "web", labels::APP: "web", labels::GROUP: "web-prod", labels::CELL: "sh-a"});
    let home = home(&found);
    let proposal = propose(AdoptKind::Deployment, &found, &beside, &wish(), &home).unwrap();
    let text = said(&proposal, false);
    assert!(
        text.contains(
            "✓ Deployment/web-prod-sh-a goes back to app web and group web-prod: 3 instances"
        ),
        "{text}"
    );
    let overlay = proposal.app.spec.template.as_ref().unwrap();
    assert_eq!(overlay.metadata.labels.keys().collect::<Vec<_>>(), ["app"]);
    let adopt = proposal.group.spec.adopt.as_ref().unwrap();
    assert_eq!(adopt.name, "web-prod-sh-a");
    // Another cell's, in the same command or later.
    assert_eq!(taken(&home, None, &[]), None);
    let there = taken(&home, Some(&proposal.group), &[]).unwrap();
    assert!(
        there.fatal && there.why == "group web-prod is there already",
        "{there:?}"
    );
    let beside = taken(&home, None, &[proposal]).unwrap();
    assert_eq!(
        beside.why,
        "Deployment/web-prod-sh-a goes to group web-prod"
    );
}

#[test]
fn a_deployment_in_numbers() {
    let (found, beside) = deployment();
    let proposal = propose(
        AdoptKind::Deployment,
        &found,
        &beside,
        &wish(),
        &home(&found),
    )
    .unwrap();
    let all = std::slice::from_ref(&proposal);
    insta::assert_snapshot!(said(&proposal, false) + &summary(all, true));
    let spec = &proposal.group.spec;
    let shares: Vec<(&str, i32)> = spec
        .placement
        .cells
        .iter()
        .map(|c| (c.name.as_str(), c.weight))
        .collect();
    // As many in each cell as there are: nothing moves.
    assert_eq!((shares, spec.replicas), (vec![("sh-a", 2), ("sh-b", 1)], 3));
    assert_eq!(spec.services.len(), 1);
    assert!(
        proposal.app.metadata.annotations.is_none(),
        "tools' marks stay behind"
    );
    let overlay = proposal.app.spec.template.as_ref().unwrap();
    assert_eq!(overlay.metadata.labels["app"], "web");
}

#[test]
fn a_stateful_set_stays_in_the_cell_that_has_most_of_it() {
    let spec = json!({
        "replicas": 3, "serviceName": "db", "podManagementPolicy": "OrderedReady", "selector": {"matchLabels": {"app": "web"}}, "template": template(),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}, "volumeClaimTemplates": [],
    });
    let status = json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "currentRevision": "r", "updateRevision": "r"});
    let (mut found, beside) = deployment();
    found.workload = Some(live("StatefulSet", "db", spec, status));
    found.sets = vec![];
    let proposal = propose(
        AdoptKind::StatefulSet,
        &found,
        &beside,
        &wish(),
        &home(&found),
    )
    .unwrap();
    assert!(
        proposal.possible() && proposal.left.is_empty(),
        "{proposal:#?}"
    );
    let adopt = proposal.group.spec.adopt.as_ref().unwrap();
    assert_eq!(
        (adopt.name.as_str(), adopt.cell.as_str(), proposal.writes),
        ("db", "sh-a", 5)
    );
    assert_eq!(proposal.group.spec.placement.cells.len(), 1);
    let said = said(&proposal, false);
    assert!(
        said.contains("several cells") && said.contains("one instance at a time"),
        "{said}"
    );
}

#[test]
fn what_scales_it_from_outside_is_in_the_way() {
    let (found, mut beside) = deployment();
    beside.autoscalers = vec![
        json!({"metadata": {"name": "hpa"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}}}),
    ];
    beside.budgets = vec![
        json!({"metadata": {"name": "pdb"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}}),
    ];
    let proposal = propose(
        AdoptKind::Deployment,
        &found,
        &beside,
        &wish(),
        &home(&found),
    )
    .unwrap();
    assert!(!proposal.possible());
    let text = said(&proposal, false);
    assert!(
        text.contains("✗ Deployment/web is not adopted")
            && text.contains("HorizontalPodAutoscaler/hpa scales it"),
        "{text}"
    );
    assert_eq!(
        summary(&[proposal], false),
        "0 of 1 workload can be adopted: 0 instances, 0 writes, 0 restarts"
    );
}
