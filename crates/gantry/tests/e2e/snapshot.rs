//! `gantry snapshot`: of running and stopped clusters, and what can be wrong with files and folders.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::apiserver::{Server, recorded};
use crate::support::gantry;

/// A server on `data`, and kubeconfigs of an administrator and of somebody.
fn start(folder: &Path, data: &Path, more: &[&str]) -> (Server, PathBuf, PathBuf) {
    let data_dir = data.display().to_string();
    let mut args = vec!["--data-dir", &data_dir];
    args.extend(more);
    let server = Server::start(recorded(folder, &args));
    let kubeconfig = |name: &str, token: &str| {
        let path = folder.join(format!("{name}.kubeconfig"));
        let ca = data.join("pki/ca.crt").display().to_string();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             clusters: [{{name: a, cluster: {{server: '{}', certificate-authority: '{ca}'}}}}]\n\
             contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
             users: [{{name: a, user: {{token: {token}}}}}]\n",
            server.url
        );
        std::fs::write(&path, text).unwrap();
        path
    };
    let (admin, other) = (kubeconfig("admin", "e2e-token"), kubeconfig("bob", "other"));
    (server, admin, other)
}

fn run(args: &[&str], paths: &[&Path]) -> Output {
    let mut command = gantry();
    command.arg("snapshot").args(args);
    for path in paths {
        command.arg(path);
    }
    command.output().unwrap()
}

fn ok(args: &[&str], paths: &[&Path]) -> String {
    let output = run(args, paths);
    assert!(output.status.success(), "{args:?}: {output:#?}");
    String::from_utf8(output.stdout).unwrap()
}

fn fails(args: &[&str], paths: &[&Path], exit: i32) -> String {
    let output = run(args, paths);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "{args:?}: {said}");
    said
}

fn inspect(file: &Path) -> Value {
    serde_json::from_str(&ok(&["inspect", "-o", "json"], &[file])).unwrap()
}

/// The objects of a report by resource, without those that a server writes by itself as it runs.
fn counts(report: &Value) -> Value {
    let mut resources = report["resources"].clone();
    let all = resources.as_object_mut().unwrap();
    all.retain(|name, _| !name.starts_with("events") && !name.starts_with("leases"));
    for count in all.values_mut() {
        *count = count["objects"].clone();
    }
    resources
}

#[test]
fn saved_running_and_stopped_and_restored() {
    let folder = tempfile::tempdir().unwrap();
    let (data, again) = (folder.path().join("data"), folder.path().join("again"));
    let file = |name: &str| folder.path().join(name);
    let (server, admin, bob) = start(folder.path(), &data, &[]);
    let saved = file("running.snapshot");
    let said = ok(
        &["--kubeconfig", admin.to_str().unwrap(), "save"],
        &[&saved],
    );
    assert!(said.contains("running.snapshot"), "{said}");
    let mode = std::fs::metadata(&saved).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let report = inspect(&saved);
    assert_eq!(report["damage"], Value::Null);
    assert_eq!(report["format"], 1);
    assert!(report["resources"]["namespaces"]["objects"].as_u64() >= Some(4));
    let resources = report["resources"].as_object().unwrap();
    assert!(resources.contains_key("clusterroles.rbac.authorization.k8s.io"));
    let total: u64 = resources
        .values()
        .map(|count| count["objects"].as_u64().unwrap())
        .sum();
    assert_eq!(report["objects"].as_u64(), Some(total));
    let table = ok(&["inspect"], &[&saved]);
    assert!(
        table.contains("Damage    none") && table.contains("RESOURCE"),
        "{table}"
    );

    // Everything that may be read by nobody but an administrator is in it.
    let secret = file("bob.snapshot");
    let said = fails(
        &["--kubeconfig", bob.to_str().unwrap(), "save"],
        &[&secret],
        1,
    );
    assert!(said.contains("User \"bob\" cannot get path"), "{said}");
    let data_arg = data.to_str().unwrap().to_owned();
    let said = fails(&["save", "--data-dir", &data_arg], &[&secret], 12);
    assert!(said.contains("--kubeconfig"), "{said}");
    assert!(!secret.exists());
    // What is there is not replaced unless that is said.
    let said = fails(&["save", "--data-dir", &data_arg], &[&saved], 2);
    assert!(
        said.contains("running.snapshot") && said.contains("--force"),
        "{said}"
    );

    assert_eq!(server.stop().0, Some(0));
    let stopped = file("stopped.snapshot");
    ok(&["save", "--data-dir", &data_arg], &[&stopped]);
    let before = inspect(&stopped);
    assert_eq!(counts(&before), counts(&report));

    let again_arg = again.to_str().unwrap().to_owned();
    let said = ok(&["restore", "--data-dir", &again_arg], &[&stopped]);
    assert!(said.contains("Restored"), "{said}");
    let said = fails(&["restore", "--data-dir", &again_arg], &[&stopped], 2);
    assert!(said.contains("not empty: it holds store"), "{said}");
    let (server, admin, _) = start(folder.path(), &again, &[]);
    ok(
        &["--kubeconfig", admin.to_str().unwrap(), "save", "--force"],
        &[&saved],
    );
    let after = inspect(&saved);
    assert_eq!(counts(&after), counts(&before));
    // It goes on where nobody has been.
    let revision = |report: &Value| report["revision"].as_u64().unwrap();
    assert!(revision(&after) >= revision(&before) + 1_000_000_000);
    assert_eq!(server.stop().0, Some(0));
    let leftover: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("part") || name.contains("restoring"))
        .collect();
    assert!(leftover.is_empty(), "{leftover:?}");
}

#[test]
fn files_and_folders_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (server, ..) = start(folder.path(), &data, &[]);
    assert_eq!(server.stop().0, Some(0));
    let data_arg = data.to_str().unwrap().to_owned();
    let good = folder.path().join("good");
    ok(&["save", "--data-dir", &data_arg], &[&good]);
    let bytes = std::fs::read(&good).unwrap();
    let bad = folder.path().join("bad");
    let target = folder.path().join("target");
    let target_arg = target.to_str().unwrap().to_owned();

    for (change, exit, named) in [
        ("flip", 14, "is damaged at byte"),
        ("cut", 14, "it ends after"),
        ("newer", 13, "newer version"),
        ("other", 1, "is not a snapshot"),
    ] {
        let mut bytes = bytes.clone();
        match change {
            "flip" => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }
            "cut" => bytes.truncate(bytes.len() / 2),
            "newer" => bytes[8] = 9,
            _ => bytes = b"something else".to_vec(),
        }
        std::fs::write(&bad, bytes).unwrap();
        for args in [&["inspect"][..], &["restore", "--data-dir", &target_arg]] {
            let said = fails(args, &[&bad], exit);
            assert!(said.contains("/bad ") && said.contains(named), "{said}");
        }
        assert!(!target.join("store").exists(), "{change}");
    }
    let said = fails(&["inspect"], &[&folder.path().join("missing")], 1);
    assert!(said.contains("missing"), "{said}");
    let said = fails(&["save", "--data-dir", &target_arg], &[&bad], 2);
    assert!(said.contains("--force"), "{said}");
    let said = fails(&["save", "--force", "--data-dir", &target_arg], &[&bad], 2);
    assert!(said.contains("there is no cluster in"), "{said}");
    std::fs::create_dir_all(&target).unwrap();
    std::fs::write(target.join("fleet.json"), "{}").unwrap();
    let said = fails(&["restore", "--data-dir", &target_arg], &[&good], 2);
    assert!(said.contains("holds a fleet"), "{said}");
    // A store that is damaged is no source either.
    let store = data.join("store/store.redb");
    let length = std::fs::metadata(&store).unwrap().len();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&store)
        .unwrap()
        .set_len(length / 2)
        .unwrap();
    let said = fails(&["save", "--force", "--data-dir", &data_arg], &[&bad], 14);
    assert!(said.contains("store.redb"), "{said}");
}
