//! A disk without room, a real one: a file system of some MiB. Writes fail in clear words, reads go
//! on, and when there is room again so do writes, without a restart.
//!
//! Where file systems may not be mounted, the store's own test (`power_tests`) stands for this.

#![expect(clippy::expect_used, reason = "a helper of tests fails as a test does")]

use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_apiserver::{Config, Server};
use gantry_store::{Options, Store};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

struct Mounted(PathBuf);

impl Mounted {
    fn new(path: &Path, size: &str) -> Option<Mounted> {
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "gantry-test"])
            .arg(path)
            .status();
        status
            .is_ok_and(|status| status.success())
            .then(|| Mounted(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn config_map(name: &str, size: usize) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"x": "x".repeat(size)}}))
        .expect("a ConfigMap")
}

#[tokio::test]
async fn a_full_disk_refuses_writes_in_clear_words_and_recovers() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(mounted) = Mounted::new(dir.path(), "12m") else {
        eprintln!("not tested: file systems cannot be mounted here");
        return;
    };
    let filler = dir.path().join("filler");
    let store = dir.path().join("store");
    let store = Store::open(&store, Options::default()).expect("opened");
    let server = Server::start(Config::default(), store)
        .await
        .expect("started");
    let api: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    api.create(&PostParams::default(), &config_map("first", 10))
        .await
        .expect("there is room");

    // All the room there is.
    let mut zeros = std::io::repeat(0);
    let mut file = std::fs::File::create(&filler).expect("made");
    let full = std::io::copy(&mut zeros, &mut file).expect_err("it is full");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);

    // There may be some left in the store's file.
    let mut taken = 1;
    let error = loop {
        let map = config_map(&format!("more-{taken}"), 500_000);
        match api.create(&PostParams::default(), &map).await {
            Ok(_) => taken += 1,
            Err(kube::Error::Api(error)) => break error,
            Err(other) => panic!("{other:?}"),
        }
        assert!(taken < 100, "the disk is not full");
    };
    assert_eq!(error.code, 500, "{error:?}");
    assert!(
        error.message.contains("database space exceeded"),
        "{error:?}"
    );
    let refused = format!("more-{taken}");

    // Reads go on: one, all, and a watch.
    assert!(api.get_opt(&refused).await.expect("read").is_none());
    assert!(api.get_opt("first").await.expect("read").is_some());
    let listed = api.list(&ListParams::default()).await.expect("listed");
    assert_eq!(listed.items.len(), taken);
    let mut seen =
        std::pin::pin!(watcher(api.clone(), watcher::Config::default()).applied_objects());
    for _ in 0..taken {
        futures::StreamExt::next(&mut seen)
            .await
            .expect("an object")
            .expect("watched");
    }

    drop(file);
    std::fs::remove_file(&filler).expect("removed");
    api.create(&PostParams::default(), &config_map(&refused, 500_000))
        .await
        .expect("there is room again");
    let event = futures::StreamExt::next(&mut seen).await;
    let name = event.expect("an event").expect("watched").metadata.name;
    assert_eq!(name.as_deref(), Some(refused.as_str()));
    server.shutdown().await;
    drop(mounted);
}
