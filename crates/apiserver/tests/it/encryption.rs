//! Encryption at rest: what lies in the store's folder and in backups, and what is read of it.
#![expect(
    clippy::expect_used,
    reason = "helpers of tests, which clippy does not see as tests"
)]

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use gantry_apiserver::{Config, Encryption, Server, parse_encryption_config};
use gantry_store::{OpenError, Options, Store};
use serde_json::{Value, json};

use super::access::{get, post, send};

pub const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// What is looked for, in secrets and in what is not encrypted.
const HIDDEN: &str = "the-hidden-words-of-a-secret";
const SHOWN: &str = "the-open-words-of-a-map";

pub fn keys(scheme: &str, name: &str) -> Value {
    let secret = STANDARD.encode(format!("{name:=>32}"));
    json!({scheme: {"keys": [{"name": name, "secret": secret}]}})
}

fn encryption(providers: &[Value]) -> Arc<Encryption> {
    let file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}],
    });
    Arc::new(parse_encryption_config(&file.to_string()).expect("understood"))
}

fn open(folder: &Path, providers: &[Value]) -> Result<Store, OpenError> {
    let options = Options {
        keeper: Some(encryption(providers)),
        ..Options::default()
    };
    // Whoever starts a process in another test holds copies of this one's locks for a moment.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match Store::open(folder, options.clone()) {
            Err(OpenError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

async fn start(store: &Store) -> Server {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    Server::start(config, store.clone())
        .await
        .expect("the server starts")
}

/// Whether any file of a folder holds these bytes.
pub fn lies_in(folder: &Path, bytes: &[u8]) -> bool {
    let entries = fs::read_dir(folder).expect("a folder");
    entries.map(|e| e.expect("an entry").path()).any(|path| {
        let held = match path.is_dir() {
            true => return lies_in(&path, bytes),
            false => fs::read(&path).expect("a file"),
        };
        memchr::memmem::find(&held, bytes).is_some()
    })
}

pub fn secret(name: &str, words: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"words": STANDARD.encode(words)}})
}

fn is_hidden(folder: &Path, head: &str) {
    let encoded = STANDARD.encode(HIDDEN);
    assert!(!lies_in(folder, HIDDEN.as_bytes()), "{head}");
    assert!(!lies_in(folder, encoded.as_bytes()), "{head}");
    assert!(lies_in(folder, SHOWN.as_bytes()), "{head}");
    assert!(lies_in(folder, head.as_bytes()), "{head}");
}

#[tokio::test]
async fn no_secret_lies_in_the_folder_or_in_a_backup() {
    for scheme in ["aescbc", "aesgcm", "secretbox"] {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let store = open(folder, &[keys(scheme, "key1")]).expect("opened");
        let server = start(&store).await;
        let client = server.client();
        let map = json!({"metadata": {"name": "m"}, "data": {"words": SHOWN}});
        post(&client, MAPS, &map).await.expect("created");
        for name in ["a", "b"] {
            post(&client, SECRETS, &secret(name, HIDDEN))
                .await
                .expect("created");
        }
        let merge = json!({"stringData": {"more": HIDDEN}});
        send(&client, "PATCH", &format!("{SECRETS}/a"), &[], &merge)
            .await
            .expect("patched");
        // Also the last state of what is deleted.
        send(
            &client,
            "DELETE",
            &format!("{SECRETS}/b"),
            &[],
            &Value::Null,
        )
        .await
        .expect("deleted");
        let head = format!("k8s:enc:{scheme}:v1:key1:");
        is_hidden(folder, &head);
        let backup: Vec<u8> = store.backup().flat_map(|piece| piece.to_vec()).collect();
        assert!(memchr::memmem::find(&backup, STANDARD.encode(HIDDEN).as_bytes()).is_none());
        assert!(memchr::memmem::find(&backup, head.as_bytes()).is_some());
        // As a crash leaves it, with writes that are in the journal alone.
        let crashed = tempfile::tempdir().expect("a folder");
        for entry in fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), crashed.path().join(entry.file_name())).expect("copied");
        }
        server.shutdown().await;
        // Closed, all of it is in the database.
        store.close().await;
        is_hidden(folder, &head);
        // A backup is restored without keys, and read with them.
        let restored = tempfile::tempdir().expect("a folder");
        let reader = gantry_store::BackupReader::new(backup.as_slice()).expect("a backup");
        Store::restore(restored.path(), reader, 1000).expect("restored");
        for folder in [folder, crashed.path(), restored.path()] {
            let store = open(folder, &[keys(scheme, "key1")]).expect("opened");
            let server = start(&store).await;
            let read = get(&server.client(), &format!("{SECRETS}/a")).await;
            let read = read.expect("read");
            assert_eq!(read["data"]["words"], STANDARD.encode(HIDDEN));
            assert_eq!(read["data"]["more"], STANDARD.encode(HIDDEN));
            server.shutdown().await;
            store.close().await;
            is_hidden(folder, &head);
        }
    }
}

/// Keys are turned as Kubernetes' documentation says: a new one in front, all objects replaced by
/// themselves, the old one taken away.
#[tokio::test]
async fn keys_are_turned_by_replacing_objects_with_themselves() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (one, two) = (keys("aescbc", "key1"), keys("secretbox", "key2"));
    let identity = json!({"identity": {}});
    let path = format!("{SECRETS}/a");

    let store = Store::open(folder, Options::default()).expect("opened");
    let server = start(&store).await;
    post(&server.client(), SECRETS, &secret("a", HIDDEN))
        .await
        .expect("created");
    server.shutdown().await;
    store.close().await;

    // Each of these is added before what was there, then is alone.
    let steps = [
        (vec![one.clone(), identity.clone()], vec![one.clone()]),
        (vec![two.clone(), one.clone()], vec![two.clone()]),
        (vec![identity.clone(), two.clone()], vec![identity.clone()]),
    ];
    for (with, alone) in steps {
        let said = match open(folder, &alone) {
            Err(OpenError::Sealed { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        assert!(said.contains("such as /secrets default/a: it is"), "{said}");
        let store = open(folder, &with).expect("opened");
        let server = start(&store).await;
        let client = server.client();
        let before = get(&client, &path).await.expect("read");
        assert_eq!(before["data"]["words"], STANDARD.encode(HIDDEN));
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let after = send(&client, "PUT", &path, &[], &before)
            .await
            .expect("replaced");
        assert_ne!(version(&after), version(&before), "it is written again");
        let again = send(&client, "PUT", &path, &[], &after)
            .await
            .expect("replaced");
        assert_eq!(version(&again), version(&after), "and only once");
        server.shutdown().await;
        store.close().await;
        // Versions that only the old key opens are history, which is then gone.
        let store = open(folder, &alone).expect("opened");
        let server = start(&store).await;
        let read = get(&server.client(), &path).await.expect("read");
        assert_eq!(read["data"]["words"], STANDARD.encode(HIDDEN));
        let version = before["metadata"]["resourceVersion"].as_str();
        let then = format!(
            "{SECRETS}?resourceVersionMatch=Exact&resourceVersion={}",
            version.unwrap_or_default()
        );
        let (code, _) = get(&server.client(), &then).await.expect_err("too old");
        assert_eq!(code, 410);
        server.shutdown().await;
        store.close().await;
    }
    // What is not configured at all is said, not served.
    let store = open(folder, &[two, identity]).expect("opened");
    let server = start(&store).await;
    let read = get(&server.client(), &path).await.expect("read");
    send(&server.client(), "PUT", &path, &[], &read)
        .await
        .expect("replaced");
    server.shutdown().await;
    store.close().await;
    let options = Options {
        keeper: Some(Arc::new(Encryption::default())),
        ..Options::default()
    };
    let Err(error) = Store::open(folder, options) else {
        panic!("nobody has the key");
    };
    assert!(
        error.to_string().contains("k8s:enc:secretbox:v1:key2:"),
        "{error}"
    );
}
