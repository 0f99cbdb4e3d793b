//! `gantry apiserver`, `controllers`, `scheduler` and `hollow`, each a process of its own: the API server
//! reaches the nodes' kubelets over TLS, at addresses of this machine.

use std::process::Command;

use serde_json::{Value, json};

use crate::apiserver::{Server, TOKEN, recorded};
use crate::support::{Process, gantry, wait};

#[test]
fn kubelets_answer_an_api_server_of_another_process() {
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_err()
    {
        println!("skipped: no kubectl");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let config = kubeconfig.to_str().unwrap();
    let certificates = format!("--cert-dir={}", folder.path().join("certs").display());
    let server = Server::start(recorded(folder.path(), &[&certificates]));
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server.url, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    let start = |args: &[&str], says: &str| {
        let mut command = gantry();
        command.args(["--kubeconfig", config]).args(args);
        Process::start(command, says)
    };
    let _controllers = start(&["controllers"], "Leading as");
    let scheduler = ["scheduler", "--scheduler-name", "default-scheduler"];
    let _scheduler = start(&scheduler, "Leading as");
    // One node, at an address of this machine that nobody else is likely to have: the port is given.
    let id = std::process::id();
    let range = format!("127.{}.{}.0/30", 64 + id % 128, id / 128 % 256);
    let address = range.replace(".0/30", ".1");
    let place = ["--kubelet-address", &address, "--node-addresses", &range];
    let _hollow = start(
        &[&["hollow", "--nodes", "1"][..], &place].concat(),
        "Running simulated nodes",
    );
    let ok = |args: &[&str]| {
        let mut command = Command::new("kubectl");
        let output = command
            .args(["--kubeconfig", config])
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(said)
    };
    wait("a Deployment to be made", || {
        ok(&["create", "deployment", "web", "--image=web:1"])
    });
    wait("its pod to run", || {
        let told = ok(&["rollout", "status", "deployment/web", "--timeout=5s"])?;
        told.contains("successfully rolled out").then_some(())
    });
    wait("its log", || {
        ok(&["logs", "deployment/web"]).filter(|it| it.contains("simulated"))
    });
    let said = ok(&["exec", "deployment/web", "--", "echo", "hello"]);
    assert_eq!(said.as_deref(), Some("hello\n"));
    let usage = |path: &str| {
        let path = format!("/api/v1/nodes/sim-a-001/proxy/{path}");
        ok(&["get", "--raw", &path]).unwrap()
    };
    assert!(
        usage("metrics/resource").contains("container_memory_working_set_bytes{container=\"web\"")
    );
    let summary: Value = serde_json::from_str(&usage("stats/summary")).unwrap();
    assert_eq!(summary["node"]["nodeName"], "sim-a-001");
}
