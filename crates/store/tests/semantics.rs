//! What reads, writes and watches do, case by case, in memory.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::time::Duration;

use bytes::Bytes;
use gantry_store::{
    CommitError, EventKind, Expect, Key, Lagged, Op, Options, ReadError, Revision, Store, Write,
};

fn put(name: &str, value: &str, expect: Expect) -> Write {
    let op = Op::Put {
        value: Bytes::copy_from_slice(value.as_bytes()),
        stamp: None,
    };
    Write {
        key: Key::new("/pods", name),
        expect,
        op,
    }
}

fn delete(name: &str, expect: Expect) -> Write {
    let op = Op::Delete {
        last: Bytes::from_static(b"last"),
        stamp: Some(4),
    };
    Write {
        key: Key::new("/pods", name),
        expect,
        op,
    }
}

fn names(store: &Store, revision: Revision) -> Vec<String> {
    let snapshot = store.snapshot_at("/pods", revision).unwrap();
    snapshot
        .iter()
        .map(|object| {
            format!(
                "{}={}",
                object.key.name,
                String::from_utf8_lossy(&object.value)
            )
        })
        .collect()
}

#[tokio::test]
async fn a_write_is_carried_out_if_its_expectation_holds() {
    let store = Store::in_memory(Options::default());
    let first = store.commit(put("a", "1", Expect::Any)).await.unwrap();
    let at = first.revision;
    for (write, holds) in [
        (put("a", "2", Expect::Absent), false),
        (put("a", "2", Expect::At(at - 1)), false),
        (put("a", "2", Expect::At(at + 1)), false),
        (put("b", "2", Expect::At(at)), false),
        (delete("b", Expect::Any), false),
        (delete("b", Expect::Absent), false),
        (delete("a", Expect::Absent), false),
        (delete("a", Expect::At(at + 1)), false),
        (put("a", "2", Expect::At(at)), true),
        (put("a", "3", Expect::Any), true),
        (put("b", "3", Expect::Absent), true),
        (delete("a", Expect::Any), true),
    ] {
        let before = store.revision();
        let current = store.get(&write.key);
        match store.commit(write.clone()).await {
            Ok(written) => {
                assert!(holds, "{write:?}");
                assert_eq!(written.revision, before + 1);
                assert_eq!(store.revision(), before + 1);
            }
            Err(CommitError::Conflict { current: found }) => {
                assert!(!holds, "{write:?}");
                assert_eq!(
                    found.map(|f| f.revision),
                    current.map(|c| c.revision),
                    "{write:?}"
                );
                assert_eq!(store.revision(), before);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(store.count("/pods"), 1);
    assert_eq!(store.buckets().len(), 1);
}

#[tokio::test]
async fn several_writes_are_carried_out_together_or_not_at_all() {
    let store = Store::in_memory(Options::default());
    let written = store
        .commit_all(vec![
            put("a", "1", Expect::Absent),
            put("b", "1", Expect::Absent),
            delete("a", Expect::Any),
            put("a", "2", Expect::Absent),
        ])
        .await
        .unwrap();
    let revisions: Vec<_> = written.iter().map(|object| object.revision).collect();
    assert_eq!(revisions, [2, 3, 4, 5]);
    assert_eq!(written[3].created, 5);
    assert_eq!(&written[2].value[..], b"last4");

    let refused = store
        .commit_all(vec![
            put("c", "1", Expect::Absent),
            put("b", "2", Expect::Absent),
        ])
        .await;
    assert!(
        matches!(refused, Err(CommitError::Conflict { current: Some(current) }) if &*current.key.name == "b")
    );
    assert_eq!(names(&store, store.revision()), ["a=2", "b=1"]);
    assert_eq!(store.revision(), 5);
}

#[tokio::test]
async fn malformed_writes_are_refused() {
    let store = Store::in_memory(Options::default());
    let mut beyond = put("a", "12", Expect::Any);
    beyond.op = Op::Put {
        value: Bytes::from_static(b"12"),
        stamp: Some(3),
    };
    for write in [
        beyond,
        put("", "1", Expect::Any),
        put(&"x".repeat(5000), "1", Expect::Any),
    ] {
        assert!(matches!(
            store.commit(write).await,
            Err(CommitError::Invalid { .. })
        ));
    }
    assert_eq!(store.stats().writes, 0);
}

#[tokio::test]
async fn old_states_and_events_can_be_read_as_far_as_history_goes() {
    let store = Store::in_memory(Options {
        history_events: 4,
        ..Options::default()
    });
    for value in ["1", "2", "3"] {
        store.commit(put("a", value, Expect::Any)).await.unwrap();
    }
    store.commit(put("b", "1", Expect::Any)).await.unwrap();
    let mut watch = store.watch("/pods", 1).unwrap();
    store.commit(delete("a", Expect::Any)).await.unwrap();
    store.commit(put("c", "1", Expect::Any)).await.unwrap();
    // Revisions 2 to 7; the events 2 and 3 are gone. Trimming follows the answer.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while store.oldest() < 3 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert_eq!(names(&store, 3), ["a=2"]);
    assert_eq!(names(&store, 5), ["a=3", "b=1"]);
    assert_eq!(names(&store, 6), ["b=1"]);
    assert_eq!(names(&store, 7), ["b=1", "c=1"]);
    assert_eq!(
        store.snapshot_at("/pods", 2).unwrap_err(),
        ReadError::Compacted { oldest: 3 }
    );
    assert_eq!(
        store.snapshot_at("/pods", 8).unwrap_err(),
        ReadError::Future { newest: 7 }
    );
    assert_eq!(
        store.watch("/pods", 2).unwrap_err(),
        ReadError::Compacted { oldest: 3 }
    );
    assert_eq!(
        store.watch("/pods", 8).unwrap_err(),
        ReadError::Future { newest: 7 }
    );
    // A bucket whose own history is whole goes back to the beginning.
    assert!(store.watch("/nodes", 1).is_ok());

    let batch = store.watch("/pods", 4).unwrap().next().await.unwrap();
    let seen: Vec<_> = batch
        .events
        .iter()
        .map(|e| (e.revision, e.kind, e.previous.is_some()))
        .collect();
    assert_eq!(
        seen,
        [
            (5, EventKind::Put, false),
            (6, EventKind::Delete, true),
            (7, EventKind::Put, false)
        ]
    );
    assert_eq!(batch.revision, 7);
    assert_eq!(
        watch.next().await.unwrap_err(),
        Lagged::Compacted { oldest: 3 }
    );
}

#[tokio::test]
async fn snapshots_are_iterated_by_prefix_and_continued() {
    let store = Store::in_memory(Options::default());
    for name in ["a/x", "b/1", "b/2", "b/3", "b-c/1", "c/1"] {
        store.commit(put(name, "", Expect::Absent)).await.unwrap();
    }
    let snapshot = store.snapshot("/pods");
    store.commit(delete("b/2", Expect::Any)).await.unwrap();
    for (prefix, after, expected) in [
        ("", None, vec!["a/x", "b-c/1", "b/1", "b/2", "b/3", "c/1"]),
        ("b/", None, vec!["b/1", "b/2", "b/3"]),
        ("b/", Some("b/1"), vec!["b/2", "b/3"]),
        ("b/", Some("b/11"), vec!["b/2", "b/3"]),
        ("b/", Some("a/x"), vec!["b/1", "b/2", "b/3"]),
        ("b/", Some("b/3"), vec![]),
        ("", Some("b/2"), vec!["b/3", "c/1"]),
        ("d/", None, vec![]),
    ] {
        let found: Vec<_> = snapshot
            .range(prefix, after)
            .map(|object| &*object.key.name)
            .collect();
        assert_eq!(found, expected, "{prefix} {after:?}");
    }
    assert_eq!(store.snapshot("/pods").len(), snapshot.len() - 1);
}

#[tokio::test]
async fn watches_wait_for_their_bucket_and_end_with_the_store() {
    let store = Store::in_memory(Options::default());
    let mut watch = store.watch("/pods", store.revision()).unwrap();
    let mut other = store.watch("/nodes", store.revision()).unwrap();
    let waiting = tokio::spawn(async move {
        let batch = watch.next().await.unwrap();
        (batch.events.len(), watch.next().await)
    });
    store.commit(put("a", "1", Expect::Any)).await.unwrap();
    // Nothing happened to the nodes, and the watch knows up to when.
    let nothing = other.try_next().unwrap();
    assert!(nothing.events.is_empty());
    assert_eq!(nothing.revision, 2);
    let reader = store.clone();
    store.close().await;
    let (events, end) = waiting.await.unwrap();
    assert_eq!(events, 1);
    assert_eq!(end.unwrap_err(), Lagged::Closed);
    assert_eq!(other.next().await.unwrap_err(), Lagged::Closed);
    assert!(matches!(
        reader.commit(put("a", "2", Expect::Any)).await,
        Err(CommitError::Closed)
    ));
    assert_eq!(reader.count("/pods"), 1);
}

#[tokio::test]
async fn what_was_compacted_is_not_given_of_any_bucket() {
    let store = Store::in_memory(Options::default());
    for value in ["1", "2", "3"] {
        store.commit(put("a", value, Expect::Any)).await.unwrap();
    }
    store.compact(3);
    // Of a bucket that has never held anything too: another revision's state is not known of it.
    for bucket in ["/pods", "/nodes"] {
        for old in [1, 2] {
            let expected = ReadError::Compacted { oldest: 3 };
            assert_eq!(store.watch(bucket, old).unwrap_err(), expected);
            assert_eq!(store.snapshot_at(bucket, old).unwrap_err(), expected);
        }
        assert!(store.watch(bucket, 3).is_ok());
        assert!(store.snapshot_at(bucket, 3).is_ok());
    }
    assert_eq!(store.oldest(), 3);
    // What is to come is not let go of.
    store.compact(1000);
    assert_eq!(store.oldest(), 4);
    let mut watch = store.watch("/pods", 4).unwrap();
    store.commit(put("a", "4", Expect::Any)).await.unwrap();
    assert_eq!(watch.next().await.unwrap().events.len(), 1);
}

#[tokio::test]
async fn history_is_bounded_by_bytes_and_the_largest_bucket_gives() {
    let store = Store::in_memory(Options {
        history_bytes: 200_000,
        ..Options::default()
    });
    let quiet = Write {
        key: Key::new("/nodes", "n"),
        expect: Expect::Any,
        op: Op::Put {
            value: Bytes::new(),
            stamp: None,
        },
    };
    store.commit(quiet).await.unwrap();
    let large = "x".repeat(10_000);
    for _ in 0..100 {
        store.commit(put("a", &large, Expect::Any)).await.unwrap();
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while store.stats().history_bytes > 200_000 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert!(store.watch("/nodes", 1).is_ok());
    assert!(matches!(
        store.watch("/pods", 1),
        Err(ReadError::Compacted { .. })
    ));
    assert!(store.stats().history_events > 10);
}

#[tokio::test]
async fn a_full_queue_makes_writers_wait_and_loses_nothing() {
    let store = Store::in_memory(Options {
        queue_bytes: 4096,
        batch_writes: 3,
        ..Options::default()
    });
    let large = "x".repeat(10_000);
    let writers: Vec<_> = (0..200)
        .map(|number| {
            let store = store.clone();
            // Some are larger than the whole queue.
            let value = if number % 5 == 0 {
                large.clone()
            } else {
                "small".to_string()
            };
            tokio::spawn(async move {
                store
                    .commit(put(&number.to_string(), &value, Expect::Absent))
                    .await
                    .unwrap()
                    .revision
            })
        })
        .collect();
    let mut revisions = Vec::new();
    for writer in writers {
        revisions.push(writer.await.unwrap());
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (2..202).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_queued_write_is_carried_out_though_nobody_waits() {
    let store = Store::in_memory(Options::default());
    let mut watch = store.watch("/pods", 1).unwrap();
    {
        let commit = std::pin::pin!(store.commit(put("a", "1", Expect::Any)));
        // Polled once, it is queued; then it is dropped, unless the answer was as quick.
        let _ = poll_once(commit).await;
    }
    assert_eq!(watch.next().await.unwrap().events.len(), 1);
    assert_eq!(store.count("/pods"), 1);
}

/// Polls a future once; what it gives if it is ready.
async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match future.as_mut().poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn an_old_state_stays_the_same_while_it_is_paged_through() {
    let store = Store::in_memory(Options {
        history_events: 50,
        ..Options::default()
    });
    for name in ["a", "b", "c", "d"] {
        store.commit(put(name, "old", Expect::Any)).await.unwrap();
    }
    let revision = store.revision();
    let first = names(&store, revision);
    for round in 0..40 {
        let write = if round % 3 == 0 {
            put("b", "new", Expect::Any)
        } else {
            put(&format!("e{round}"), "new", Expect::Any)
        };
        store.commit(write).await.unwrap();
        assert_eq!(names(&store, revision), first);
        assert_eq!(names(&store, revision - 1), ["a=old", "b=old", "c=old"]);
    }
    for round in 0..50 {
        store
            .commit(put("b", &round.to_string(), Expect::Any))
            .await
            .unwrap();
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while store.oldest() <= revision {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert!(matches!(
        store.snapshot_at("/pods", revision),
        Err(ReadError::Compacted { .. })
    ));
}
