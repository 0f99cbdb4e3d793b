//! Lifecycle hooks that ask another pod over HTTP and HTTPS (`common/node/lifecycle_hook.go`).

use serde_json::{Value, json};

use crate::conformance::harness::{on_cluster, pod};

const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.53";

#[test]
fn hooks_ask_another_pod_which_prints_it() {
    on_cluster(async |kube| {
        let server =
            |name: &str, args: Value| json!({"name": name, "image": AGNHOST, "args": args});
        let containers = json!([
            server("http", json!(["netexec"])),
            server(
                "https",
                json!(["netexec", "--http-port=9090", "--udp-port=-1"])
            ),
        ]);
        let handler = json!({"metadata": {"name": "handler"},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": containers}});
        kube.create("v1", "pods", handler).await;
        let handler = kube.running("handler").await;
        let host = handler["status"]["podIP"].as_str().expect("an address");
        let grace = json!({"terminationGracePeriodSeconds": 30});
        for (scheme, port, container) in [("HTTP", 8080, "http"), ("HTTPS", 9090, "https")] {
            for hook in ["postStart", "preStop"] {
                let name = format!("{hook}-{container}").to_lowercase();
                let path = format!("/echo?msg={name}");
                let ask = json!({hook: {"httpGet": {
                    "scheme": scheme, "host": host, "port": port, "path": path}}});
                let with = pod(&name, json!({}), grace.clone(), json!({"lifecycle": ask}));
                let line = format!("GET {path}");
                kube.create("v1", "pods", with).await;
                kube.running(&name).await;
                let heard = kube.log("handler", container).await.contains(&line);
                assert_eq!(heard, hook == "postStart", "{name}");
                kube.delete("v1", "pods", &name).await;
                kube.until_gone("v1", "pods", &name).await;
                let log = kube.log("handler", container).await;
                assert!(log.contains(&line), "{name}: {log}");
            }
        }
        // A hook that nobody answers kills its container.
        let nobody = json!({"postStart": {"httpGet": {"host": host, "port": 1}}});
        let alone = pod("alone", json!({}), json!({}), json!({"lifecycle": nobody}));
        kube.create("v1", "pods", alone).await;
        kube.until(
            "an event",
            async || kube.list("v1", "events", "").await,
            |all| all.iter().any(|it| it["reason"] == "FailedPostStartHook"),
        )
        .await;
    });
}
