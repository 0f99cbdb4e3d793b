//! A store as a backup: taken while it is written to, read, damaged, restored.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod workload;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use gantry_store::{
    Backup, BackupError, BackupReader, Expect, Key, Op, Options, ReadError, RestoreError, Store,
    Write,
};
use parking_lot::Mutex;
use workload::Writer;

fn put(bucket: &str, name: &str, value: &str) -> Write {
    Write {
        key: Key::new(bucket, name),
        expect: Expect::Any,
        op: Op::Put {
            value: Bytes::copy_from_slice(value.as_bytes()),
            stamp: Some(0),
        },
    }
}

fn delete(bucket: &str, name: &str) -> Write {
    Write {
        key: Key::new(bucket, name),
        expect: Expect::Any,
        op: Op::Delete {
            last: Bytes::new(),
            stamp: None,
        },
    }
}

fn bytes(backup: Backup) -> Vec<u8> {
    backup.flat_map(|piece| piece.to_vec()).collect()
}

type Contents = Vec<(String, u64, u64, Bytes)>;

fn contents(store: &Store) -> Contents {
    let mut all: Contents = store
        .buckets()
        .iter()
        .flat_map(|bucket| store.snapshot(bucket).iter().cloned().collect::<Vec<_>>())
        .map(|o| (o.key.to_string(), o.revision, o.created, o.value.clone()))
        .collect();
    all.sort();
    all
}

async fn sample() -> Store {
    let store = Store::in_memory(Options::default());
    for (name, value) in [("b", "1"), ("a", "2"), ("b", "3"), ("c", "4")] {
        store.commit(put("/pods", name, value)).await.unwrap();
    }
    store
        .commit(put("apps/deployments", "x", "5"))
        .await
        .unwrap();
    store.commit(delete("/pods", "c")).await.unwrap();
    store
}

/// What a backup holds, read to its end.
fn read(bytes: &[u8]) -> Result<usize, BackupError> {
    let mut reader = BackupReader::new(bytes)?;
    let mut objects = 0;
    while reader.next_object()?.is_some() {
        objects += 1;
    }
    Ok(objects)
}

fn nothing_left(parent: &Path) -> bool {
    std::fs::read_dir(parent).unwrap().next().is_none()
}

#[tokio::test]
async fn what_is_restored_is_what_was_there_and_goes_on_later() {
    let store = sample().await;
    let (before, revision) = (contents(&store), store.revision());
    let backup = bytes(store.backup());
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("store");
    let reader = BackupReader::new(&backup[..]).unwrap();
    assert_eq!(
        (reader.info().objects, reader.info().revision),
        (3, revision)
    );
    Store::restore(&folder, reader, 1000).unwrap();
    for _ in 0..2 {
        let store = Store::open(&folder, Options::default()).unwrap();
        assert_eq!(contents(&store), before);
        assert_eq!(store.revision(), revision + 1000);
        // Whoever saw more of the old store than the backup holds is told so.
        for seen in [2, revision, revision + 999] {
            assert_eq!(
                store.watch("/pods", seen).unwrap_err(),
                ReadError::Compacted {
                    oldest: revision + 1000
                }
            );
        }
        store.close().await;
    }
    let store = Store::open(&folder, Options::default()).unwrap();
    let written = store.commit(put("/pods", "a", "new")).await.unwrap();
    assert_eq!((written.revision, written.created), (revision + 1001, 3));
    let mut watch = store.watch("/pods", revision + 1000).unwrap();
    assert_eq!(watch.next().await.unwrap().events.len(), 1);
    let before = contents(&store);
    store.close().await;
    let store = Store::open(&folder, Options::default()).unwrap();
    assert_eq!(contents(&store), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_of_one_moment_while_writes_go_on() {
    const WRITERS: usize = 4;
    let store = Store::in_memory(Options::default());
    let stop = Arc::new(AtomicBool::new(false));
    let steps = Arc::new(Mutex::new(vec![0; WRITERS]));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let (store, stop, steps) = (store.clone(), stop.clone(), steps.clone());
            tokio::spawn(async move {
                let mut writer = Writer::new(number);
                while !stop.load(Ordering::Relaxed) {
                    store.commit_all(writer.advance()).await.unwrap();
                    steps.lock()[number] = writer.step;
                }
            })
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    for round in 1..6 {
        while steps.lock().iter().any(|step| *step < 20 * round) {
            tokio::task::yield_now().await;
        }
        // Writers go on while this task waits for its turn.
        let before = steps.lock().clone();
        let backup = bytes(store.backup());
        let after = steps.lock().clone();
        let folder = dir.path().join(round.to_string());
        Store::restore(&folder, BackupReader::new(&backup[..]).unwrap(), 0).unwrap();
        let restored = Store::open(&folder, Options::default()).unwrap();
        workload::check_between(&restored, &before, &after);
        restored.close().await;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    // The last backup, written when nobody writes, has exactly what was acknowledged.
    let steps = steps.lock().clone();
    let folder = dir.path().join("last");
    let backup = bytes(store.backup());
    Store::restore(&folder, BackupReader::new(&backup[..]).unwrap(), 0).unwrap();
    let restored = Store::open(&folder, Options::default()).unwrap();
    assert_eq!(workload::check(&restored, &steps), steps);
    restored.close().await;
}

#[tokio::test]
async fn any_damage_shows() {
    let backup = bytes(sample().await.backup());
    assert_eq!(read(&backup).unwrap(), 3);
    let dir = tempfile::tempdir().unwrap();
    for at in 0..backup.len() {
        let mut damaged = backup.clone();
        damaged[at] ^= 1 << (at % 8);
        match read(&damaged).unwrap_err() {
            BackupError::Foreign => assert!(at < 8, "{at}"),
            BackupError::Newer { .. } => assert!((8..12).contains(&at), "{at}"),
            BackupError::Damaged { .. } => {}
            BackupError::Io(error) => panic!("{at}: {error}"),
        }
        assert!(read(&backup[..at]).is_err(), "cut at {at}");
        // Nor is any of it restored.
        if at % 9 == 0
            && let Ok(reader) = BackupReader::new(&damaged[..])
        {
            let refused = Store::restore(&dir.path().join("store"), reader, 0).unwrap_err();
            assert!(
                matches!(refused, RestoreError::Backup(_)),
                "{at}: {refused:?}"
            );
            assert!(nothing_left(dir.path()), "{at}");
        }
    }
    let longer = [&backup[..], b"x"].concat();
    assert!(
        matches!(read(&longer), Err(BackupError::Damaged { at, .. }) if at + 12 == backup.len() as u64)
    );
}

#[tokio::test]
async fn a_newer_format_and_other_files_are_told_apart() {
    let mut backup = bytes(sample().await.backup());
    backup[8] = 2;
    assert!(matches!(
        read(&backup),
        Err(BackupError::Newer { found: 2 })
    ));
    for other in [&b""[..], b"PK\x03\x04", b"gantrysx and more"] {
        assert!(
            matches!(read(other), Err(BackupError::Foreign)),
            "{other:?}"
        );
    }
}

#[tokio::test]
async fn a_folder_that_is_not_empty_is_left_alone() {
    let backup = bytes(sample().await.backup());
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    store.commit(put("/pods", "mine", "1")).await.unwrap();
    let before = contents(&store);
    store.close().await;
    let reader = BackupReader::new(&backup[..]).unwrap();
    let refused = Store::restore(dir.path(), reader, 0).unwrap_err();
    assert!(
        matches!(&refused, RestoreError::NotEmpty { path } if path == dir.path()),
        "{refused:?}"
    );
    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!(contents(&store), before);
}

#[tokio::test]
async fn an_empty_store_is_restored_too() {
    let backup = bytes(Store::in_memory(Options::default()).backup());
    let dir = tempfile::tempdir().unwrap();
    Store::restore(dir.path(), BackupReader::new(&backup[..]).unwrap(), 0).unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    assert_eq!((store.stats().objects, store.revision()), (0, 1));
    assert_eq!(
        store.commit(put("/pods", "a", "1")).await.unwrap().revision,
        2
    );
}
