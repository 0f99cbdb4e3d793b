//! `gantry apiserver` as a process: kube-apiserver's flags, recorded conversations, kubectl, and the
//! way controller-runtime's test environment starts a server.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::support::{gantry, wait};

pub const TOKEN: &str = "e2e-token";

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    said: std::thread::JoinHandle<String>,
}

impl Server {
    pub fn start(mut command: Command) -> Server {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = child.stderr.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let Some(url) = line.trim().strip_prefix("Serving on ") else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the server did not start: {line}{}", said.join().unwrap());
        };
        Server {
            url: url.to_owned(),
            child,
            said,
        }
    }

    /// Asks it to end; its exit code and what it said on standard error.
    pub fn stop(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        let code = wait("the server to stop", || self.child.try_wait().unwrap()).code();
        let said = std::mem::replace(&mut self.said, std::thread::spawn(String::new));
        (code, said.join().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn token_file(folder: &Path) -> PathBuf {
    let path = folder.join("tokens.csv");
    std::fs::write(
        &path,
        format!("{TOKEN},admin,uid-1,\"system:masters\"\nother,bob,uid-2\n"),
    )
    .unwrap();
    path
}

/// The server as the recorded one was set up, on a free port.
pub fn recorded(folder: &Path, more: &[&str]) -> Command {
    let mut command = gantry();
    command
        .args(["apiserver", "--bind-address=127.0.0.1", "--secure-port=0"])
        .arg(format!(
            "--token-auth-file={}",
            token_file(folder).display()
        ))
        .args([
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=false",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--etcd-servers=http://127.0.0.1:1",
            "--feature-gates=AllBeta=true",
        ])
        .args(more);
    command
}

/// Runs kubectl against a server, trusting only `ca`; `None` where there is no kubectl.
pub fn kubectl(url: &str, ca: &Path, credentials: &[String], args: &[&str]) -> Option<Output> {
    let mut command = Command::new("kubectl");
    command
        .env_remove("KUBECONFIG")
        .env("HOME", ca.parent().unwrap())
        .arg(format!("--server={url}"))
        .arg(format!("--certificate-authority={}", ca.display()))
        .args(credentials)
        .args(args);
    match command.output() {
        Ok(output) => Some(output),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: no kubectl");
            None
        }
        Err(e) => panic!("kubectl: {e}"),
    }
}

fn golden() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let given = std::env::var_os("GANTRY_SHARED").map(PathBuf::from);
    let near = ["../../../shared", "../../../../shared"].map(|p| here.join(p));
    given
        .into_iter()
        .chain(near)
        .map(|p| p.join("golden"))
        .find(|p| p.join("replay.py").exists())
}

#[test]
fn recorded_conversations_over_the_process() {
    let Some(golden) = golden() else {
        println!("skipped: no recorded conversations beside the project");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(recorded(folder.path(), &[]));
    let output = Command::new("python3")
        .arg(golden.join("replay.py"))
        .args(["--server", &server.url, "--token", TOKEN, "--insecure"])
        .args(["--lenient-messages", "--only", "auth/"])
        .arg(golden.join("cases"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(" passed, 0 failed"), "{text}");
    let (code, said) = server.stop();
    assert_eq!(code, Some(0), "{said}");
    for note in ["--etcd-servers is not used", "--feature-gates AllBeta=true"] {
        assert!(said.contains(note), "{said}");
    }
    assert!(!said.contains(TOKEN), "{said}");
}

#[test]
fn kubectl_and_a_restart_on_the_same_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let ca = folder.path().join("data/pki/ca.crt");
    let with = |name: &str| vec![format!("--token={name}")];
    let start = || Server::start(recorded(folder.path(), &["--data-dir", &data]));
    let server = start();
    let create = ["create", "configmap", "kept", "--from-literal=a=1"];
    let Some(output) = kubectl(&server.url, &ca, &with(TOKEN), &create) else {
        return;
    };
    assert!(output.status.success(), "{output:#?}");
    let output = kubectl(&server.url, &ca, &with("other"), &create).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("User \"bob\" cannot create resource \"configmaps\""),
        "{said}"
    );
    assert_eq!(server.stop().0, Some(0));
    let server = start();
    let get = ["get", "configmap", "kept", "-o", "jsonpath={.data.a}"];
    let output = kubectl(&server.url, &ca, &with(TOKEN), &get).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1", "{output:#?}");
}

#[test]
fn history_goes_back_as_far_as_the_flags_say() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let ca = folder.path().join("data/pki/ca.crt");
    let with = [format!("--token={TOKEN}")];
    for (events, gone) in [("3", true), ("1000", false)] {
        let bound = format!("--history-events={events}");
        let server = Server::start(recorded(folder.path(), &["--data-dir", &data, &bound]));
        let name = format!("bound-{events}");
        let run = |args: &[&str]| kubectl(&server.url, &ca, &with, args);
        let Some(output) = run(&["create", "configmap", &name]) else {
            return;
        };
        assert!(output.status.success(), "{output:#?}");
        let version = [
            "get",
            "configmap",
            &name,
            "-o",
            "jsonpath={.metadata.resourceVersion}",
        ];
        let version = String::from_utf8(run(&version).unwrap().stdout).unwrap();
        for step in 0..5 {
            let output = run(&[
                "annotate",
                "--overwrite",
                "configmap",
                &name,
                &format!("step={step}"),
            ]);
            assert!(output.unwrap().status.success());
        }
        let watch = format!(
            "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1&resourceVersion={version}"
        );
        let output = run(&["get", "--raw", &watch]).unwrap();
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(seen.contains("\"code\":410"), gone, "{seen}");
        assert_eq!(
            seen.matches("MODIFIED").count(),
            if gone { 0 } else { 5 },
            "{seen}"
        );
        assert_eq!(server.stop().0, Some(0));
    }
}

#[test]
fn flags_that_cannot_be_met_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (args, exit, named) in [
        (vec!["--no-such-flag=1"], 2, "--no-such-flag"),
        (vec!["--authorization-mode=ABAC"], 2, "ABAC"),
        (
            vec!["--enable-admission-plugins=ImagePolicyWebhook"],
            2,
            "ImagePolicyWebhook",
        ),
        (vec!["--disable-admission-plugins=Nothing"], 2, "Nothing"),
        (vec!["--tls-cert-file=x"], 2, "--tls-private-key-file"),
        (
            vec!["--service-cluster-ip-range=fd00::/108"],
            2,
            "--service-cluster-ip-range",
        ),
        (
            vec!["--token-auth-file=/nowhere/tokens"],
            1,
            "/nowhere/tokens",
        ),
    ] {
        let output = gantry()
            .current_dir(folder.path())
            .args(["apiserver", "--secure-port=0", "--bind-address=127.0.0.1"])
            .args(&args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {said}");
        assert!(said.contains(named), "{args:?}: {said}");
    }
}
