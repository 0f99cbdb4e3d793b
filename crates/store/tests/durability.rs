//! What a store keeps over a restart, and what it says when it cannot be opened.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gantry_store::{EventKind, Expect, Key, Op, OpenError, Options, ReadError, Store, Write};
use redb::ReadableDatabase;

fn put(bucket: &str, name: &str, value: &str) -> Write {
    let op = Op::Put {
        value: Bytes::copy_from_slice(value.as_bytes()),
        stamp: Some(value.len()),
    };
    Write {
        key: Key::new(bucket, name),
        expect: Expect::Any,
        op,
    }
}

fn delete(bucket: &str, name: &str) -> Write {
    let op = Op::Delete {
        last: Bytes::from_static(b"last"),
        stamp: None,
    };
    Write {
        key: Key::new(bucket, name),
        expect: Expect::Any,
        op,
    }
}

type Contents = Vec<(String, u64, u64, Bytes)>;

/// All objects, by key, with their revisions and values.
fn contents(store: &Store) -> Contents {
    let mut all: Vec<_> = store
        .buckets()
        .iter()
        .flat_map(|bucket| store.snapshot(bucket).iter().cloned().collect::<Vec<_>>())
        .map(|object| {
            (
                object.key.to_string(),
                object.revision,
                object.created,
                object.value.clone(),
            )
        })
        .collect();
    all.sort();
    all
}

async fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "the condition was not met in time"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_store_goes_on_where_it_was_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!(store.revision(), 1);
    for write in [
        put("/pods", "a", "1-"),
        put("/pods", "b", "2-"),
        put("/nodes", "n", "3-"),
        put("/pods", "a", "4-"),
        delete("/pods", "b"),
    ] {
        store.commit(write).await.unwrap();
    }
    let (before, revision) = (contents(&store), store.revision());
    store.close().await;

    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!(contents(&store), before);
    assert_eq!(store.revision(), revision);
    // History is there too.
    let batch = store.watch("/pods", 2).unwrap().next().await.unwrap();
    let seen: Vec<_> = batch
        .events
        .iter()
        .map(|e| (e.revision, e.kind, e.previous.as_ref().map(|p| p.revision)))
        .collect();
    assert_eq!(
        seen,
        [
            (3, EventKind::Put, None),
            (5, EventKind::Put, Some(2)),
            (6, EventKind::Delete, Some(3))
        ]
    );
    assert_eq!(
        store
            .snapshot_at("/pods", 4)
            .unwrap()
            .get("a")
            .unwrap()
            .value,
        "1-2"
    );
    let next = store.commit(put("/pods", "b", "5-")).await.unwrap();
    assert_eq!((next.revision, next.created), (7, 7));
}

#[tokio::test]
async fn what_fell_out_of_history_leaves_the_disk_and_stays_away() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        history_events: 3,
        ..Options::default()
    };
    let store = Store::open(dir.path(), options.clone()).unwrap();
    for round in 0..50 {
        for name in ["a", "b", "c"] {
            store
                .commit(put("/pods", name, &format!("{round}-")))
                .await
                .unwrap();
        }
        store.commit(delete("/pods", "b")).await.unwrap();
    }
    store.commit(put("/nodes", "n", "x")).await.unwrap();
    until(|| store.stats().garbage == 0).await;
    let (before, revision, oldest) = (contents(&store), store.revision(), store.oldest());
    store.close().await;

    let store = Store::open(dir.path(), options.clone()).unwrap();
    assert_eq!(
        (contents(&store), store.revision(), store.oldest()),
        (before.clone(), revision, oldest)
    );
    assert!(matches!(
        store.watch("/pods", oldest - 1),
        Err(ReadError::Compacted { .. })
    ));
    assert!(store.watch("/pods", oldest).is_ok());
    assert!(store.watch("/nodes", 1).is_ok());
    assert_eq!(store.stats().garbage, 0);
    // A bucket that is empty, and whose last tombstone is gone, still counts its revisions.
    let all: Vec<_> = before
        .iter()
        .map(|(key, ..)| key.split_once(' ').unwrap())
        .map(|(bucket, name)| delete(bucket, name))
        .collect();
    store.commit_all(all).await.unwrap();
    let revision = store.revision();
    store.close().await;
    let options = Options {
        history_events: 0,
        ..options
    };
    let store = Store::open(dir.path(), options.clone()).unwrap();
    until(|| store.stats().garbage == 0).await;
    store.close().await;
    let store = Store::open(dir.path(), options).unwrap();
    assert_eq!(store.revision(), revision);
    assert_eq!(store.stats().objects, 0);
    let watch = store.watch("/pods", 1);
    assert!(matches!(watch, Err(ReadError::Compacted { oldest }) if oldest > 1));
}

#[tokio::test]
async fn history_ages_out_where_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        history_age: Duration::from_millis(1),
        ..Options::default()
    };
    let store = Store::open(dir.path(), options).unwrap();
    store.commit(put("/pods", "a", "1-")).await.unwrap();
    store.commit(put("/pods", "a", "2-")).await.unwrap();
    until(|| store.stats().history_events == 0 && store.stats().garbage == 0).await;
    assert_eq!(store.oldest(), 3);
    assert_eq!(store.count("/pods"), 1);
}

#[tokio::test]
async fn what_was_compacted_stays_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    for value in ["1-", "2-", "3-"] {
        store.commit(put("/pods", "a", value)).await.unwrap();
    }
    store.compact(3);
    until(|| {
        let stats = store.stats();
        stats.history_events == 1 && stats.garbage == 0
    })
    .await;
    let before = contents(&store);
    store.close().await;
    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!((contents(&store), store.oldest()), (before, 3));
    for bucket in ["/pods", "/nodes"] {
        assert!(matches!(
            store.watch(bucket, 2),
            Err(ReadError::Compacted { oldest: 3 })
        ));
    }
    assert_eq!(
        store
            .watch("/pods", 3)
            .unwrap()
            .try_next()
            .unwrap()
            .events
            .len(),
        1
    );
}

#[tokio::test]
async fn a_folder_has_one_user_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    let second = Store::open(dir.path(), Options::default());
    assert!(matches!(second, Err(OpenError::InUse { path }) if path == dir.path()));
    store.close().await;
    Store::open(dir.path(), Options::default())
        .unwrap()
        .close()
        .await;
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data/store");
    Store::open(&dir, Options::default()).unwrap().close().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Store::open(&path, Options::default()).unwrap_err();
        assert!(
            matches!(&error, OpenError::Unwritable { path: named, .. } if *named == path),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    Store::open(dir.path(), Options::default())
        .unwrap()
        .close()
        .await;
    let path = dir.path().join("store.redb");
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    transaction
        .open_table(meta)
        .unwrap()
        .insert("format", 3)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    for _ in 0..2 {
        let error = Store::open(dir.path(), Options::default()).unwrap_err();
        assert!(
            matches!(
                &error,
                OpenError::Newer {
                    found: 3,
                    supported: 2,
                    ..
                }
            ),
            "{error:?}"
        );
    }
}

/// A store of format 1 has no journal, and its file does not say how new it is.
#[tokio::test]
async fn a_store_of_format_1_goes_on_in_this_format() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    for value in ["1-", "2-"] {
        store.commit(put("/pods", "a", value)).await.unwrap();
    }
    let before = contents(&store);
    store.close().await;
    let path = dir.path().join("store.redb");
    let meta: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut meta = transaction.open_table(meta).unwrap();
        meta.insert("format", 1).unwrap();
        meta.remove("folded").unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    for (revision, name) in [(3, "b"), (4, "c")] {
        let store = Store::open(dir.path(), Options::default()).unwrap();
        assert_eq!(store.revision(), revision);
        let kept = contents(&store);
        assert!(before.iter().all(|object| kept.contains(object)));
        store.commit(put("/pods", name, "3-")).await.unwrap();
        store.close().await;
    }
    let database = redb::Database::open(&path).unwrap();
    let meta = database.begin_read().unwrap().open_table(meta).unwrap();
    let said = |key| meta.get(key).unwrap().map(|value| value.value());
    assert_eq!((said("format"), said("folded")), (Some(2), Some(5)));
}

/// However much is written: the journal stays within its bound, and what leaves it is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_journal_makes_writes_wait() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        journal_bytes: 256 << 10,
        ..Options::default()
    };
    let store = Store::open(dir.path(), options.clone()).unwrap();
    let value = "x".repeat(8 << 10);
    for round in 0..40 {
        let writes = (0..8).map(|number| put("/pods", &format!("{round}-{number}"), &value));
        store.commit_all(writes.collect()).await.unwrap();
        let stats = store.stats();
        assert!(stats.journal_bytes <= 256 << 10, "{stats:?}");
    }
    // One write that is more than the whole journal has it for itself.
    let large = "x".repeat(1 << 20);
    store.commit(put("/pods", "large", &large)).await.unwrap();
    until(|| store.stats().unfolded == 0).await;
    let before = contents(&store);
    assert_eq!(before.len(), 321);
    store.close().await;
    let left: u64 = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name() != "store.redb")
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(left < 3 << 20, "{left}");
    let store = Store::open(dir.path(), options).unwrap();
    assert_eq!(contents(&store), before);
}

#[tokio::test]
async fn a_file_that_was_not_finished_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("store.new"), "half").unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    store.commit(put("/pods", "a", "1-")).await.unwrap();
    store.close().await;
    assert!(!dir.path().join("store.new").exists());
}

#[tokio::test]
async fn a_store_that_is_gone_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    store.commit(put("/pods", "a", "1-")).await.unwrap();
    store.close().await;
    fs::remove_file(dir.path().join("store.redb")).unwrap();
    let error = Store::open(dir.path(), Options::default()).unwrap_err();
    assert!(
        matches!(&error, OpenError::Corrupt { path, .. } if path.ends_with("store.redb")),
        "{error:?}"
    );
    // As it says.
    fs::remove_file(dir.path().join("acknowledged")).unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!(store.stats().objects, 0);
}
