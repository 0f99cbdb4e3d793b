//! Workloads: rollouts that get stuck, scaling, adoption, history, disruption.

use serde_json::{Value, json};

use crate::conformance::harness::{
    Kube, NODES, STRATEGIC, condition, holds, name, number, on_cluster, owner, pod, uid,
};

const APPS: &str = "apps/v1";

/// A workload whose pods carry the label `app: NAME`.
fn workload(kind: &str, name: &str, image: &str, mut spec: Value) -> Value {
    spec["selector"] = json!({"matchLabels": {"app": name}});
    spec["template"] = json!({"metadata": {"labels": {"app": name}}, "spec": {
        "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": image}]}});
    json!({"apiVersion": APPS, "kind": kind, "metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn complete(deployment: &Value) -> bool {
    let wanted = deployment["spec"]["replicas"].as_i64().unwrap();
    let generation = deployment["metadata"]["generation"].as_i64().unwrap();
    number(deployment, "observedGeneration") >= generation
        && ["updatedReplicas", "replicas", "availableReplicas"]
            .iter()
            .all(|field| number(deployment, field) == wanted)
}

async fn replicas(kube: &Kube, set: &str) -> i64 {
    kube.get(APPS, "replicasets", set).await["spec"]["replicas"]
        .as_i64()
        .unwrap()
}

#[test]
fn a_rollout_takes_over_from_a_replica_set_and_its_revision() {
    on_cluster(async |kube| {
        let mut old = workload("ReplicaSet", "web", "web:1", json!({"replicas": 1}));
        let revision = "deployment.kubernetes.io/revision";
        old["metadata"]["annotations"] = json!({revision: "3546343826724305832"});
        old["metadata"]["name"] = "old".into();
        kube.create(APPS, "replicasets", old).await;
        kube.ready_pods("app=web", 1).await;
        kube.create(
            APPS,
            "deployments",
            workload("Deployment", "web", "web:2", json!({"replicas": 1})),
        )
        .await;
        let seen = kube
            .until_object(APPS, "deployments", "web", "complete", complete)
            .await;
        assert_eq!(
            seen["metadata"]["annotations"][revision],
            "3546343826724305833"
        );
        let old = kube.get(APPS, "replicasets", "old").await;
        assert_eq!(
            (owner(&old), &old["spec"]["replicas"]),
            (Some(uid(&seen)), &json!(0))
        );
        kube.merge(
            APPS,
            "deployments",
            "web",
            json!({"spec": {"revisionHistoryLimit": 0}}),
        )
        .await;
        kube.until_gone(APPS, "replicasets", "old").await;
    });
}

#[test]
fn a_stuck_rollout_is_scaled_in_proportion_and_can_be_rolled_over() {
    on_cluster(async |kube| {
        let strategy = json!({"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
        let spec = json!({"replicas": 10, "strategy": strategy});
        kube.create(
            APPS,
            "deployments",
            workload("Deployment", "web", "web:1", spec),
        )
        .await;
        kube.until_object(APPS, "deployments", "web", "complete", complete)
            .await;
        let first = name(&kube.list(APPS, "replicasets", "app=web").await[0]);
        kube.patch(APPS, "deployments", "web", STRATEGIC, image("web:404"))
            .await;
        kube.until(
            "eight of the old",
            async || replicas(&kube, &first).await,
            |it| *it == 8,
        )
        .await;
        let others = async || {
            let mut sets = kube.list(APPS, "replicasets", "app=web").await;
            sets.retain(|it| name(it) != first);
            sets
        };
        let second = kube.until("a second set", others, |it| it.len() == 1).await;
        let second = name(&second[0]);
        kube.until(
            "five of the new",
            async || replicas(&kube, &second).await,
            |it| *it == 5,
        )
        .await;
        let pulls = async || {
            let pods = kube.list("v1", "pods", "app=web").await;
            let waits = |it: &&Value| {
                let reason = &it["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
                reason == "ErrImagePull" || reason == "ImagePullBackOff"
            };
            pods.iter().filter(waits).count()
        };
        kube.until("pulls that fail", pulls, |it| *it == 5).await;
        kube.merge(
            APPS,
            "deployments",
            "web/scale",
            json!({"spec": {"replicas": 30}}),
        )
        .await;
        kube.until(
            "20 of the old",
            async || replicas(&kube, &first).await,
            |it| *it == 20,
        )
        .await;
        kube.until(
            "13 of the new",
            async || replicas(&kube, &second).await,
            |it| *it == 13,
        )
        .await;
        assert_eq!(
            number(
                &kube.get(APPS, "replicasets", &second).await,
                "availableReplicas"
            ),
            0
        );

        kube.merge(
            APPS,
            "deployments",
            "web/scale",
            json!({"spec": {"replicas": 4}}),
        )
        .await;
        kube.patch(APPS, "deployments", "web", STRATEGIC, image("web:2"))
            .await;
        kube.until_object(APPS, "deployments", "web", "complete", complete)
            .await;
        assert_eq!(
            (
                replicas(&kube, &first).await,
                replicas(&kube, &second).await
            ),
            (0, 0)
        );
    });
}

#[test]
fn statuses_may_be_written_and_are_put_right_but_for_foreign_conditions() {
    on_cluster(async |kube| {
        let stateful = json!({"replicas": 1, "serviceName": "x"});
        for (kind, plural, spec, pods) in [
            ("Deployment", "deployments", json!({"replicas": 1}), 1),
            ("ReplicaSet", "replicasets", json!({"replicas": 1}), 1),
            ("StatefulSet", "statefulsets", stateful, 1),
            ("DaemonSet", "daemonsets", json!({}), NODES),
        ] {
            kube.create(APPS, plural, workload(kind, plural, "web:1", spec))
                .await;
            kube.ready_pods(&format!("app={plural}"), pods).await;
            let field = if kind == "DaemonSet" {
                "numberReady"
            } else {
                "readyReplicas"
            };
            let wanted = i64::try_from(pods).unwrap();
            kube.until_object(APPS, plural, plural, "ready", |it| {
                number(it, field) == wanted
            })
            .await;
            let part = format!("{plural}/status");
            let added = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E"});
            kube.update(APPS, plural, &part, |it| {
                it["status"]["conditions"] = json!([added]);
                it["status"][field] = 0.into();
                if kind != "DaemonSet" {
                    it["status"]["availableReplicas"] = 0.into();
                }
            })
            .await;
            let seen = kube
                .until_object(APPS, plural, plural, "put right", |it| {
                    number(it, field) == wanted
                })
                .await;
            assert_eq!(condition(&seen, "StatusUpdate")["reason"], "E2E", "{kind}");
            kube.delete(APPS, plural, plural).await;
        }
    });
}

#[test]
fn pods_without_an_owner_are_adopted_and_others_let_go() {
    on_cluster(async |kube| {
        kube.create(
            "v1",
            "pods",
            pod("lone", json!({"app": "web"}), json!({}), json!({})),
        )
        .await;
        kube.running("lone").await;
        let set = kube
            .create(
                APPS,
                "replicasets",
                workload("ReplicaSet", "web", "web:1", json!({"replicas": 1})),
            )
            .await;
        kube.until_object("v1", "pods", "lone", "adopted", |it| {
            owner(it) == Some(uid(&set))
        })
        .await;
        kube.merge(
            "v1",
            "pods",
            "lone",
            json!({"metadata": {"labels": {"app": "other"}}}),
        )
        .await;
        kube.until_object("v1", "pods", "lone", "released", |it| owner(it).is_none())
            .await;
        kube.ready_pods("app=web", 1).await;
    });
}

#[test]
fn a_replication_controller_says_that_a_quota_holds_it_up() {
    on_cluster(async |kube| {
        let quota = json!({"metadata": {"name": "two"}, "spec": {"hard": {"pods": "2"}}});
        kube.create("v1", "resourcequotas", quota).await;
        kube.until_object("v1", "resourcequotas", "two", "counted", |it| {
            it["status"]["used"]["pods"] == "0"
        })
        .await;
        let rc = json!({"metadata": {"name": "rc"}, "spec": {"replicas": 3, "selector": {"app": "rc"},
            "template": {"metadata": {"labels": {"app": "rc"}},
                "spec": {"containers": [{"name": "c", "image": "web:1"}]}}}});
        kube.create("v1", "replicationcontrollers", rc).await;
        let held = kube
            .until_object("v1", "replicationcontrollers", "rc", "held up", |it| {
                holds(it, "ReplicaFailure")
            })
            .await;
        assert_eq!(condition(&held, "ReplicaFailure")["reason"], "FailedCreate");
        kube.merge(
            "v1",
            "replicationcontrollers",
            "rc/scale",
            json!({"spec": {"replicas": 2}}),
        )
        .await;
        kube.until_object("v1", "replicationcontrollers", "rc", "free", |it| {
            !holds(it, "ReplicaFailure")
        })
        .await;
    });
}

#[test]
fn a_daemon_set_is_rolled_back_without_restarts() {
    on_cluster(async |kube| {
        kube.create(
            APPS,
            "daemonsets",
            workload("DaemonSet", "d", "web:1", json!({})),
        )
        .await;
        let names = |pods: Vec<Value>| {
            pods.iter()
                .map(name)
                .collect::<std::collections::BTreeSet<_>>()
        };
        let before = names(kube.ready_pods("app=d", NODES).await);
        kube.patch(
            APPS,
            "daemonsets",
            "d",
            STRATEGIC,
            image("foo:non-existent"),
        )
        .await;
        let stuck = async || {
            let pods = kube.list("v1", "pods", "app=d").await;
            let new = |it: &&Value| {
                it["spec"]["containers"][0]["image"] == "foo:non-existent"
                    && it["status"]["containerStatuses"][0]["state"]["waiting"]["reason"]
                        == "ImagePullBackOff"
            };
            pods.iter().filter(new).count()
        };
        kube.until("one pod that cannot start", stuck, |it| *it == 1)
            .await;
        kube.patch(APPS, "daemonsets", "d", STRATEGIC, image("web:1"))
            .await;
        let after = async || {
            let pods = kube.list("v1", "pods", "app=d").await;
            let old = pods
                .iter()
                .all(|it| it["spec"]["containers"][0]["image"] == "web:1" && holds(it, "Ready"));
            (old && pods.len() == NODES).then(|| names(pods))
        };
        let after = kube
            .until("all on the old image", after, Option::is_some)
            .await
            .unwrap();
        assert_eq!(before.intersection(&after).count(), NODES - 1);
        // What fails is made anew.
        let victim = after.first().unwrap().clone();
        kube.merge(
            "v1",
            "pods",
            &format!("{victim}/status"),
            json!({"status": {"phase": "Failed"}}),
        )
        .await;
        kube.until_gone("v1", "pods", &victim).await;
        kube.ready_pods("app=d", NODES).await;
    });
}

#[test]
fn a_stateful_set_updates_by_partition_and_knows_its_old_revision() {
    on_cluster(async |kube| {
        let spec = json!({"replicas": 3, "serviceName": "x",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 3}}});
        kube.create(
            APPS,
            "statefulsets",
            workload("StatefulSet", "s", "web:1", spec),
        )
        .await;
        kube.ready_pods("app=s", 3).await;
        let set = kube
            .until_object(APPS, "statefulsets", "s", "ready", |it| {
                number(it, "readyReplicas") == 3
            })
            .await;
        let first = set["status"]["currentRevision"].clone();
        kube.patch(APPS, "statefulsets", "s", STRATEGIC, image("web:2"))
            .await;
        let set = kube
            .until_object(APPS, "statefulsets", "s", "a new revision", |it| {
                it["status"]["updateRevision"] != first
            })
            .await;
        let second = set["status"]["updateRevision"].clone();
        let on = async |ordinal: usize, revision: &Value| {
            let what = format!("pod {ordinal} on {revision}");
            let look = async || kube.find("v1", "pods", &format!("s-{ordinal}")).await;
            kube.until(&what, look, |it| {
                it.as_ref().is_some_and(|it| {
                    it["metadata"]["labels"]["controller-revision-hash"] == *revision
                        && holds(it, "Ready")
                })
            })
            .await;
        };
        let partition = async |number: usize| {
            let patch =
                json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": number}}}});
            kube.merge(APPS, "statefulsets", "s", patch).await;
        };
        partition(2).await;
        on(2, &second).await;
        // A pod that is lost comes back on the revision of its side of the partition.
        for ordinal in ["s-0", "s-2"] {
            kube.delete("v1", "pods", ordinal).await;
        }
        for (ordinal, revision) in [(0, &first), (1, &first), (2, &second)] {
            on(ordinal, revision).await;
        }
        partition(0).await;
        on(0, &second).await;
        kube.until_object(APPS, "statefulsets", "s", "all on the new revision", |it| {
            it["status"]["currentRevision"] == second
        })
        .await;
        kube.patch(APPS, "statefulsets", "s", STRATEGIC, image("web:1"))
            .await;
        kube.until_object(
            APPS,
            "statefulsets",
            "s",
            "back on the first revision",
            |it| it["status"]["currentRevision"] == first && number(it, "readyReplicas") == 3,
        )
        .await;
    });
}

#[test]
fn a_stateful_set_mounts_its_claims_and_gives_them_up() {
    on_cluster(async |kube| {
        let spec = json!({"replicas": 2, "serviceName": "x",
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Mi"}}}}]});
        let mut set = workload("StatefulSet", "s", "web:1", spec);
        let mounts = json!([{"name": "data", "mountPath": "/data"}]);
        set["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = mounts;
        kube.create(APPS, "statefulsets", set).await;
        kube.ready_pods("app=s", 2).await;
        const CLAIMS: &str = "persistentvolumeclaims";
        let claims = async || kube.list("v1", CLAIMS, "").await.len();
        let scale = async |replicas: i64| {
            let scale = json!({"spec": {"replicas": replicas}});
            kube.merge(APPS, "statefulsets", "s/scale", scale).await;
        };
        let held = async |by: Value| {
            let held = json!({"metadata": {"finalizers": by}});
            kube.merge("v1", CLAIMS, "data-s-1", held).await
        };
        assert_eq!(claims().await, 2);

        // Scaled down and up again: the pod waits until the claim that goes with its predecessor is gone.
        let before = held(json!(["kubernetes.io/pvc-protection", "example.com/hold"])).await;
        scale(1).await;
        kube.until_object("v1", CLAIMS, "data-s-1", "its deletion", |it| {
            it["metadata"]["deletionTimestamp"].is_string()
        })
        .await;
        scale(2).await;
        kube.until_object(APPS, "statefulsets", "s", "two wanted", |it| {
            it["metadata"]["generation"] == it["status"]["observedGeneration"]
                && it["spec"]["replicas"] == 2
        })
        .await;
        assert_eq!(kube.list("v1", "pods", "app=s").await.len(), 1);
        held(Value::Null).await;
        kube.ready_pods("app=s", 2).await;
        let after = kube.get("v1", CLAIMS, "data-s-1").await;
        assert_ne!(uid(&after), uid(&before));

        scale(1).await;
        kube.until("one claim", claims, |it| *it == 1).await;
        kube.delete(APPS, "statefulsets", "s").await;
        kube.until("no claim", claims, |it| *it == 0).await;
    });
}

#[test]
fn a_stateful_set_tries_again_where_a_node_refuses_its_pod() {
    on_cluster(async |kube| {
        let node = name(&kube.list("v1", "nodes", "gantry.dev/simulated=true").await[0]);
        let ports = json!([{"containerPort": 21017, "hostPort": 21017}]);
        let bound = json!({"nodeName": node});
        kube.create(
            "v1",
            "pods",
            pod("first", json!({}), bound, json!({"ports": ports})),
        )
        .await;
        kube.running("first").await;
        let mut set = workload(
            "StatefulSet",
            "s",
            "web:1",
            json!({"replicas": 1, "serviceName": "x"}),
        );
        let template = &mut set["spec"]["template"]["spec"];
        template["nodeName"] = node.into();
        template["containers"][0]["ports"] = ports;
        let mut watch = kube.watch("v1", "pods", "app=s").await;
        kube.create(APPS, "statefulsets", set).await;
        let refused = watch
            .until("MODIFIED", |it| it["status"]["phase"] == "Failed")
            .await;
        assert_eq!(
            refused["status"]["reason"], "NodePorts",
            "{:#}",
            refused["status"]
        );
        watch.until("DELETED", |it| uid(it) == uid(&refused)).await;
        kube.delete("v1", "pods", "first").await;
        kube.ready_pods("app=s", 1).await;
    });
}

#[test]
fn a_budget_blocks_evictions_until_it_allows_them() {
    on_cluster(async |kube| {
        for i in 0..3 {
            kube.create(
                "v1",
                "pods",
                pod(&format!("p{i}"), json!({"app": "p"}), json!({}), json!({})),
            )
            .await;
        }
        let budget = json!({"metadata": {"name": "b"},
            "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "p"}}}});
        kube.create("policy/v1", "poddisruptionbudgets", budget)
            .await;
        kube.ready_pods("app=p", 3).await;
        let counted = |it: &Value| number(it, "currentHealthy") == 3;
        kube.until_object("policy/v1", "poddisruptionbudgets", "b", "counted", counted)
            .await;
        let (code, answer) = kube.evict("p0").await;
        assert_eq!(
            (code, &answer["details"]["causes"][0]["reason"]),
            (429, &json!("DisruptionBudget"))
        );
        let patch = json!({"spec": {"minAvailable": 2}});
        kube.merge("policy/v1", "poddisruptionbudgets", "b", patch)
            .await;
        kube.until(
            "an eviction",
            async || kube.evict("p0").await.0,
            |code| *code == 201,
        )
        .await;
        assert_eq!(kube.evict("p1").await.0, 429);
        kube.delete("policy/v1", "poddisruptionbudgets", "b").await;
        kube.until(
            "an eviction",
            async || kube.evict("p1").await.0,
            |code| *code == 201,
        )
        .await;
    });
}
