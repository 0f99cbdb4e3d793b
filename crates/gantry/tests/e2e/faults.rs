//! What a user can get wrong: each has a line that says what to do, and an exit code of its own.

use std::net::TcpListener;

use crate::support::{Up, gantry};

/// Runs a command that must fail; its exit code and what it said on standard error.
fn fails(args: &[&str]) -> (Option<i32>, String) {
    let output = gantry().args(args).output().unwrap();
    assert!(!output.status.success(), "{args:?}: {output:#?}");
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn a_port_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, said) = fails(&[
        "up",
        "--data-dir",
        folder.path().to_str().unwrap(),
        "--port",
        &port,
    ]);
    assert_eq!(code, Some(10), "{said}");
    assert!(
        said.contains(&format!("127.0.0.1:{port}")) && said.contains("--port"),
        "{said}"
    );
}

#[test]
fn a_folder_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (code, said) = fails(&["up", "--data-dir", file.join("below").to_str().unwrap()]);
    assert_eq!(code, Some(11), "{said}");
    assert!(said.contains("--data-dir"), "{said}");
}

#[test]
fn a_folder_in_use_and_flags_that_do_not_fit_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    let up = Up::start(
        folder.path(),
        &["--clusters", "1", "--cells", "1", "--nodes", "1"],
    );
    let (code, said) = fails(&["up", "--data-dir", &path]);
    assert_eq!(code, Some(12), "{said}");
    assert_eq!(up.interrupt(), Some(0));
    let (code, said) = fails(&["up", "--data-dir", &path, "--clusters", "3"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--clusters 1, not 3"), "{said}");
}

#[test]
fn a_folder_from_a_newer_version() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("fleet.json"), r#"{"format": 99}"#).unwrap();
    let (code, said) = fails(&["up", "--data-dir", folder.path().to_str().unwrap()]);
    assert_eq!(code, Some(13), "{said}");
}

#[test]
fn nothing_that_answers() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{name: a, cluster: {server: 'https://127.0.0.1:1'}}]\n\
         contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {token: secret}}]\n",
    )
    .unwrap();
    let (code, said) = fails(&[
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
        "get",
        "groups",
    ]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("cannot reach the cluster") && !said.contains("secret"),
        "{said}"
    );
    let (code, said) = fails(&["--kubeconfig", "/nowhere/kubeconfig", "get", "groups"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("/nowhere/kubeconfig") && said.contains("gantry up"),
        "{said}"
    );
}
