//! Pods that do what their commands say, and what the kubelet says about them.

use serde_json::{Value, json};

use crate::conformance::harness::{Kube, condition, holds, on_cluster, pod};

/// A pod that is left as it ends, running a script.
fn script(name: &str, script: &str, spec: Value, container: Value) -> Value {
    let mut it = pod(
        name,
        json!({}),
        json!({"restartPolicy": "Never"}),
        json!({"image": "busybox",
        "command": ["/bin/sh", "-c", script]}),
    );
    crate::conformance::harness::merge_into(&mut it["spec"], spec);
    crate::conformance::harness::merge_into(&mut it["spec"]["containers"][0], container);
    it
}

async fn over(kube: &Kube, name: &str) -> Value {
    let ended = |it: &Value| matches!(it["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    kube.until_object("v1", "pods", name, "over", ended).await
}

fn init(name: &str, command: &str) -> Value {
    json!({"name": name, "image": "busybox", "command": [command]})
}

#[test]
fn init_containers_come_first_and_their_failure_is_the_pods() {
    on_cluster(async |kube| {
        let well = json!({"initContainers": [init("one", "/bin/true"), init("two", "/bin/true")]});
        let badly =
            json!({"initContainers": [init("one", "/bin/true"), init("two", "/bin/false")]});
        let again = json!({"restartPolicy": "Always",
            "initContainers": [init("one", "/bin/false"), init("two", "/bin/true")]});
        kube.create("v1", "pods", script("well", "true", well, json!({})))
            .await;
        kube.create("v1", "pods", script("badly", "true", badly, json!({})))
            .await;
        kube.create("v1", "pods", script("again", "true", again, json!({})))
            .await;
        let seen = over(&kube, "well").await;
        assert_eq!(
            (&seen["status"]["phase"], holds(&seen, "Initialized")),
            (&json!("Succeeded"), true)
        );
        let seen = over(&kube, "badly").await;
        let initialized = condition(&seen, "Initialized");
        assert_eq!(seen["status"]["phase"], "Failed");
        assert_eq!(
            initialized["message"],
            "containers with incomplete status: [two]"
        );
        assert!(
            seen["status"]["containerStatuses"][0]["state"]
                .get("waiting")
                .is_some(),
            "{seen:#}"
        );
        let restarts =
            |it: &Value| it["status"]["initContainerStatuses"][0]["restartCount"].as_i64();
        let seen = kube
            .until_object("v1", "pods", "again", "restarted", |it| {
                restarts(it).is_some_and(|it| it >= 2)
            })
            .await;
        assert_eq!(seen["status"]["phase"], "Pending");
        assert_eq!(
            condition(&seen, "Initialized")["message"],
            "containers with incomplete status: [one two]"
        );
    });
}

#[test]
fn a_container_leaves_a_message_in_its_file_or_its_log() {
    on_cluster(async |kube| {
        let own = "/dev/termination-custom-log";
        let cases = [
            (
                "file",
                "echo -n DONE > /dev/termination-custom-log",
                json!({"terminationMessagePath": own}),
                "DONE",
            ),
            (
                "log",
                "echo -n DONE; false",
                json!({"terminationMessagePolicy": "FallbackToLogsOnError"}),
                "DONE",
            ),
            (
                "none",
                "echo -n DONE",
                json!({"terminationMessagePolicy": "FallbackToLogsOnError"}),
                "",
            ),
        ];
        for (name, text, container, _) in &cases {
            kube.create(
                "v1",
                "pods",
                script(name, text, json!({}), container.clone()),
            )
            .await;
        }
        for (name, _, _, message) in cases {
            let seen = over(&kube, name).await;
            let end = &seen["status"]["containerStatuses"][0]["state"]["terminated"];
            assert_eq!(
                end["message"].as_str().unwrap_or_default(),
                message,
                "{name}: {end:#}"
            );
        }
    });
}

#[test]
fn containers_that_exit_are_restarted_as_the_policy_says() {
    on_cluster(async |kube| {
        let text = "f=/restart-count/count\ncount=$(echo hello >> $f ; wc -l $f | awk {'print $1'})\n\
            if [ $count -eq 1 ]; then\n\texit 1\nfi\nif [ $count -eq 2 ]; then\n\texit 0\nfi\n\
            while true; do sleep 1; done\n";
        let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/restart-count"}]});
        let cases = [
            ("Always", "Running", 2),
            ("OnFailure", "Succeeded", 1),
            ("Never", "Failed", 0),
        ];
        for (policy, ..) in cases {
            let spec = json!({"restartPolicy": policy, "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]});
            kube.create(
                "v1",
                "pods",
                script(&policy.to_lowercase(), text, spec, mount.clone()),
            )
            .await;
        }
        for (policy, phase, restarts) in cases {
            kube.until_object("v1", "pods", &policy.to_lowercase(), phase, |it| {
                let container = &it["status"]["containerStatuses"][0];
                it["status"]["phase"] == phase
                    && container["restartCount"] == restarts
                    && container["ready"] == (policy == "Always")
            })
            .await;
        }
    });
}

#[test]
fn probes_look_at_the_files_of_a_container() {
    on_cluster(async |kube| {
        let probe = |command: &[&str]| json!({"exec": {"command": command}, "periodSeconds": 1, "failureThreshold": 1});
        let file = probe(&["cat", "/tmp/health"]);
        let gone = "echo ok > /tmp/health; sleep 3; rm /tmp/health; sleep 600";
        let stays = "echo ok > /tmp/health; sleep 600";
        let live = json!({"livenessProbe": file});
        kube.create(
            "v1",
            "pods",
            script(
                "gone",
                gone,
                json!({"restartPolicy": "Always"}),
                live.clone(),
            ),
        )
        .await;
        kube.create(
            "v1",
            "pods",
            script("stays", stays, json!({"restartPolicy": "Always"}), live),
        )
        .await;
        let never = json!({"readinessProbe": probe(&["/bin/false"])});
        kube.create("v1", "pods", script("never", stays, json!({}), never))
            .await;
        let restarts = |it: &Value| it["status"]["containerStatuses"][0]["restartCount"].as_i64();
        kube.until_object("v1", "pods", "gone", "restarted", |it| {
            restarts(it).is_some_and(|it| it >= 1)
        })
        .await;
        let seen = kube.get("v1", "pods", "never").await;
        assert_eq!(
            (holds(&seen, "Ready"), restarts(&seen)),
            (false, Some(0)),
            "{:#}",
            seen["status"]
        );
        let seen = kube.get("v1", "pods", "stays").await;
        assert_eq!(
            (holds(&seen, "Ready"), restarts(&seen)),
            (true, Some(0)),
            "{:#}",
            seen["status"]
        );
    });
}

#[test]
fn a_pod_is_changed_resized_and_ended_by_its_deadline() {
    on_cluster(async |kube| {
        let some = json!({"resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}});
        kube.create(
            "v1",
            "pods",
            pod("p", json!({"static": "true"}), json!({}), some),
        )
        .await;
        kube.running("p").await;
        let patch = json!({"spec": {"containers": [{"name": "c", "image": "other:2"}]}});
        kube.patch(
            "v1",
            "pods",
            "p",
            crate::conformance::harness::STRATEGIC,
            patch,
        )
        .await;
        kube.until_object("v1", "pods", "p", "the other image", |it| {
            it["status"]["containerStatuses"][0]["image"] == "other:2" && holds(it, "Ready")
        })
        .await;
        let patch = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "150m"}}}]}});
        kube.patch(
            "v1",
            "pods",
            "p/resize",
            crate::conformance::harness::STRATEGIC,
            patch,
        )
        .await;
        kube.until_object("v1", "pods", "p", "resized", |it| {
            it["status"]["containerStatuses"][0]["allocatedResources"]["cpu"] == "150m"
        })
        .await;
        let debugger =
            json!({"spec": {"ephemeralContainers": [{"name": "debugger", "image": "busybox"}]}});
        kube.patch(
            "v1",
            "pods",
            "p/ephemeralcontainers",
            crate::conformance::harness::STRATEGIC,
            debugger,
        )
        .await;
        kube.until_object("v1", "pods", "p", "a debugger", |it| {
            it["status"]["ephemeralContainerStatuses"][0]["state"]
                .get("running")
                .is_some()
        })
        .await;
        kube.merge(
            "v1",
            "pods",
            "p",
            json!({"spec": {"activeDeadlineSeconds": 1}}),
        )
        .await;
        let seen = over(&kube, "p").await;
        assert_eq!(
            (&seen["status"]["phase"], &seen["status"]["reason"]),
            (&json!("Failed"), &json!("DeadlineExceeded"))
        );
        let mut watch = kube.watch("v1", "pods", "static=true").await;
        kube.delete_all("v1", "pods", "static=true").await;
        watch
            .until("DELETED", |it| {
                it["metadata"].get("deletionTimestamp").is_some()
            })
            .await;
    });
}

#[test]
fn a_log_is_what_the_command_prints_of_what_it_is_given() {
    on_cluster(async |kube| {
        let map = json!({"metadata": {"name": "m"}, "data": {"data-1": "value-1"}});
        kube.create("v1", "configmaps", map).await;
        let volume =
            json!({"volumes": [{"name": "v", "configMap": {"name": "m", "defaultMode": 0o400}}]});
        let mounts = json!([{"name": "v", "mountPath": "/etc/c"}]);
        let env = json!([
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "FROM", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "data-1"}}},
            {"name": "BOTH", "value": "$(NAME);$(FROM)"}]);
        let text = "echo \"$BOTH\"; cat /etc/c/data-1";
        kube.create(
            "v1",
            "pods",
            script(
                "p",
                text,
                volume.clone(),
                json!({"env": env, "volumeMounts": mounts}),
            ),
        )
        .await;
        let mut looks = pod(
            "looks",
            json!({}),
            volume,
            json!({"image": "registry.k8s.io/e2e-test-images/agnhost:2.59",
            "args": ["mounttest", "--file_content=/etc/c/data-1", "--file_mode=/etc/c/data-1"],
            "volumeMounts": mounts}),
        );
        looks["spec"]["restartPolicy"] = "Never".into();
        kube.create("v1", "pods", looks).await;
        let log = async |name: &str| {
            assert_eq!(over(&kube, name).await["status"]["phase"], "Succeeded");
            let path = format!("{}/{name}/log", kube.path("v1", "pods"));
            let (code, log) = kube.ask("GET", &path, &[], "").await;
            assert_eq!(code, 200, "{log}");
            log.as_str().unwrap().to_owned()
        };
        assert_eq!(log("p").await, "p;value-1\nvalue-1\n");
        assert_eq!(
            log("looks").await,
            "mode of file \"/etc/c/data-1\": -r--------\ncontent of file \"/etc/c/data-1\": value-1\n"
        );
    });
}
