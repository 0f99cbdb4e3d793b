//! Rollouts, scaling, sets in order.

use serde_json::json;

use crate::kubectl::harness::session;

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_scaling_and_services() {
    session(|k| {
        k.says(
            "create deployment web --image=registry.example.com/web:1 --replicas=2 --port=80",
            "deployment.apps/web created",
        );
        k.says(
            "rollout status deployment/web --timeout=90s",
            "successfully rolled out",
        );
        k.says(
            "set image deployment/web web=registry.example.com/web:2",
            "image updated",
        );
        k.says(
            "rollout status deployment/web --timeout=90s",
            "successfully rolled out",
        );
        k.says("rollout history deployment/web", "REVISION");
        k.says(
            "rollout history deployment/web --revision=2",
            "registry.example.com/web:2",
        );
        k.says("rollout undo deployment/web", "rolled back");
        k.says(
            "rollout status deployment/web --timeout=90s",
            "successfully rolled out",
        );
        k.says("get deployment web -o jsonpath={..image}", "web:1");
        k.says("rollout restart deployment/web", "restarted");
        k.says(
            "rollout status deployment/web --timeout=90s",
            "successfully rolled out",
        );
        k.says("rollout pause deployment/web", "paused");
        k.says("set env deployment/web STAGE=test", "env updated");
        k.says("rollout resume deployment/web", "resumed");
        k.says(
            "set resources deployment/web --requests=cpu=50m",
            "resource requirements updated",
        );
        k.says(
            "rollout status deployment/web --timeout=90s",
            "successfully rolled out",
        );
        k.says(
            "autoscale deployment web --min=1 --max=3 --cpu-percent=80",
            "autoscaled",
        );
        k.says("get hpa web", "Deployment/web");
        k.says(
            "scale deployment/web --replicas=3 --current-replicas=2",
            "scaled",
        );
        k.says(
            "expose deployment web --port=8080 --target-port=80 --type=NodePort",
            "exposed",
        );
        k.says("get service web -o jsonpath={.spec.ports[0].nodePort}", "3");
        k.comes_to("describe service web", "Endpoints:");
        k.says("describe deployment web", "RollingUpdateStrategy");
        k.says("get all -l app=web", "deployment.apps/web");
        k.comes_to("logs deployment/web", "simulated by Gantry");
        k.comes_to("exec deployment/web -- printenv STAGE", "test");
        k.says("delete deployment,service,hpa web --timeout=90s", "deleted");
        k.says("wait pod -l app=web --for=delete --timeout=90s", "");
    })
    .await;
}

/// What two conformance tests of StatefulSets walk: a page is moved away from under a server, whose probe
/// sees it; sets in order stand still then, others do not.
#[tokio::test(flavor = "multi_thread")]
async fn stateful_sets_halt_at_a_pod_whose_page_is_gone() {
    session(|k| {
        let set = |name: &str, policy: &str| {
            json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name},
                "spec": {
                    "serviceName": name, "replicas": 1, "podManagementPolicy": policy,
                    "selector": {"matchLabels": {"set": name}},
                    "template": {
                        "metadata": {"labels": {"set": name}},
                        "spec": {"containers": [{
                            "name": "webserver", "image": "registry.k8s.io/e2e-test-images/httpd:2.4.38-4",
                            "readinessProbe": {
                                "httpGet": {"path": "/index.html", "port": 80},
                                "periodSeconds": 1, "failureThreshold": 1,
                            },
                        }]},
                    },
                },
            })
        };
        for (name, policy) in [("orderly", "OrderedReady"), ("burst", "Parallel")] {
            k.applied(&set(name, policy));
        }
        for name in ["orderly", "burst"] {
            k.comes_to(&format!("get sts {name} -o jsonpath={{.status.readyReplicas}}"), "1");
            k.says(
                &format!("exec {name}-0 -- mv -v /usr/local/apache2/htdocs/index.html /tmp/"),
                "renamed",
            );
        }
        for name in ["orderly", "burst"] {
            k.comes_to(
                &format!("get pod {name}-0 -o jsonpath={{.status.conditions[?(@.type=='Ready')].status}}"),
                "False",
            );
            k.says(&format!("scale sts {name} --replicas=3"), "scaled");
        }
        k.comes_to("get sts burst -o jsonpath={.status.readyReplicas}", "2");
        // The other set has had as much time.
        k.comes_to("get sts orderly -o jsonpath={.status.observedGeneration}", "2");
        k.says("get sts orderly -o jsonpath=of{.status.replicas}", "of1");
        k.says(
            "exec orderly-0 -- mv -v /tmp/index.html /usr/local/apache2/htdocs/",
            "renamed",
        );
        k.comes_to("get sts orderly -o jsonpath={.status.readyReplicas}", "3");
    })
    .await;
}
