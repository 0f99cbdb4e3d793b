//! kubectl on a cluster of its own.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gantry_cluster::{EmbeddedCluster, NodeGroup, write_private};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use serde_json::{Value, json};

/// How long anything may take before the test fails. Generous: CI has two slow cores.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// kubectl on a cluster of its own.
pub struct Kubectl {
    pub folder: PathBuf,
    config: PathBuf,
}

/// What a command printed on both streams, and whether it succeeded.
pub struct Said {
    pub code: i32,
    pub text: String,
}

impl Kubectl {
    pub fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(&self.config)
            .args(line)
            .env("HOME", &self.folder)
            .current_dir(&self.folder);
        command
    }

    pub fn fed(&self, line: &[&str], input: &str) -> Said {
        let mut child = self
            .command(line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that does not read its input has ended before.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        Said {
            code: output.status.code().unwrap_or(-1),
            text,
        }
    }

    /// Runs a command line, split at blanks, that must succeed and say this.
    pub fn says(&self, line: &str, expected: &str) -> String {
        self.takes(line, "", expected)
    }

    /// The same with an input.
    pub fn takes(&self, line: &str, input: &str, expected: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let said = self.fed(&words, input);
        assert!(
            said.code == 0 && said.text.contains(expected),
            "kubectl {line}: wanted {expected:?}, got {}:\n{}",
            said.code,
            said.text
        );
        said.text
    }

    /// Runs a command line until it succeeds and says this.
    pub fn comes_to(&self, line: &str, expected: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let begun = Instant::now();
        loop {
            let said = self.fed(&words, "");
            if said.code == 0 && said.text.contains(expected) {
                return said.text;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "kubectl {line}: waited in vain for {expected:?}, got {}:\n{}",
                said.code,
                said.text
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs a command line that must fail with this code and say this.
    pub fn fails(&self, line: &str, code: i32, expected: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let said = self.fed(&words, "");
        assert!(
            said.code == code && said.text.contains(expected),
            "kubectl {line}: wanted {code} and {expected:?}, got {}:\n{}",
            said.code,
            said.text
        );
    }

    pub fn applied(&self, object: &Value) {
        self.takes("apply -f -", &object.to_string(), "");
    }
}

/// A child that does not outlive its test.
pub struct Reaped(pub Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn installed() -> bool {
    let version = Command::new("kubectl")
        .args(["version", "--client"])
        .output();
    if version.is_err() {
        eprintln!("skipped: kubectl is not installed");
    }
    version.is_ok()
}

/// Runs a session of kubectl on a cluster with two nodes.
pub async fn session(act: impl FnOnce(&Kubectl) + Send + 'static) {
    if !installed() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let nodes = vec![NodeGroup {
        count: 2,
        ..NodeGroup::default()
    }];
    let cluster = EmbeddedCluster::builder()
        .nodes(nodes)
        .start()
        .await
        .unwrap();
    let accounts: Api<ServiceAccount> = Api::default_namespaced(cluster.client());
    tokio::time::timeout(DEADLINE, async {
        while accounts.get_opt("default").await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    let config = folder.path().join("config");
    let text = serde_saphyr::to_string(&cluster.kubeconfig()).unwrap();
    write_private(&config, text.as_bytes()).unwrap();
    let kubectl = Kubectl {
        folder: folder.path().to_owned(),
        config,
    };
    let acting = tokio::task::spawn_blocking(move || act(&kubectl));
    if let Err(panic) = acting.await {
        std::panic::resume_unwind(panic.into_panic());
    }
    cluster.shutdown().await;
}

pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{
            "name": "app", "image": "registry.example.com/app:1", "ports": [{"containerPort": 80}],
            "env": [{"name": "GREETING", "value": "hello"}],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        }]},
    })
}
