//! Damage to a store's file, anywhere and of any kind, of a store that was closed or whose process
//! was killed: it is refused, by name, or what is served is right.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::fs;
use std::path::Path;
use std::sync::{LazyLock, atomic::AtomicUsize, atomic::Ordering};

use bytes::Bytes;
use gantry_store::{Expect, Key, Op, OpenError, Options, Store, Write};
use proptest::prelude::*;

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

/// A store's folder at one moment.
struct Left {
    file: Vec<u8>,
    note: Vec<u8>,
    contents: Contents,
}

impl Left {
    fn of(dir: &Path, store: &Store) -> Left {
        Left {
            file: fs::read(dir.join("store.redb")).unwrap(),
            note: fs::read(dir.join("acknowledged")).unwrap(),
            contents: contents(store),
        }
    }
}

struct Sample {
    /// The file some commits before.
    older: Vec<u8>,
    /// As a kill leaves it.
    killed: Left,
    closed: Left,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        // A short history, so that there are removed records too.
        let options = Options {
            history_events: 60,
            ..Options::default()
        };
        let store = Store::open(dir.path(), options).unwrap();
        let mut older = Vec::new();
        for round in 0..30 {
            if round == 25 {
                older = fs::read(dir.path().join("store.redb")).unwrap();
            }
            let writes = (0..10).map(|number| Write {
                key: Key::new("/pods", format!("pod-{number}")),
                expect: Expect::Any,
                op: match (round + number) % 7 {
                    0 if round > 0 && (round - 1 + number) % 7 != 0 => Op::Delete {
                        last: Bytes::from_static(b"last"),
                        stamp: None,
                    },
                    _ => Op::Put {
                        value: format!("{round} {}", "x".repeat(500)).into(),
                        stamp: Some(0),
                    },
                },
            });
            store.commit_all(writes.collect()).await.unwrap();
        }
        let killed = Left::of(dir.path(), &store);
        store.clone().close().await;
        let closed = Left::of(dir.path(), &store);
        Sample {
            older,
            killed,
            closed,
        }
    })
});

#[derive(Clone, Debug)]
enum Damage {
    /// A bit is another one.
    Flip { at: usize, bit: u8 },
    /// So many bytes are others.
    Noise { at: usize, bytes: Vec<u8> },
    /// Blocks of 512 bytes were never written: they are as they were some commits before.
    Stale { block: usize, blocks: usize },
    /// Blocks read as zeros.
    Zeros { block: usize, blocks: usize },
    /// A block lies where another belongs.
    Misplaced { from: usize, to: usize },
    /// The file ends early.
    Truncated { at: usize },
}

const BLOCK: usize = 512;

fn damage() -> impl Strategy<Value = Damage> {
    // Places are taken modulo the file's length; half of them where most of the contents lie.
    let place = || prop_oneof![any::<u32>(), 0..200_000u32].prop_map(|at| at as usize);
    prop_oneof![
        3 => (place(), 0..8u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        1 => (place(), prop::collection::vec(any::<u8>(), 1..100))
            .prop_map(|(at, bytes)| Damage::Noise { at, bytes }),
        2 => (place(), 1..64usize).prop_map(|(block, blocks)| Damage::Stale { block, blocks }),
        1 => (place(), 1..64usize).prop_map(|(block, blocks)| Damage::Zeros { block, blocks }),
        1 => (place(), place()).prop_map(|(from, to)| Damage::Misplaced { from, to }),
        1 => place().prop_map(|at| Damage::Truncated { at }),
    ]
}

impl Damage {
    fn apply(&self, file: &mut Vec<u8>, older: &[u8]) {
        let length = file.len();
        let blocks_at = |block: usize, blocks: usize| {
            let start = block % length / BLOCK * BLOCK;
            start..(start + blocks * BLOCK).min(length)
        };
        match self {
            Damage::Flip { at, bit } => file[at % length] ^= 1 << bit,
            Damage::Noise { at, bytes } => {
                for (i, byte) in bytes.iter().enumerate() {
                    file[(at + i) % length] = *byte;
                }
            }
            Damage::Stale { block, blocks } => {
                for at in blocks_at(*block, *blocks) {
                    file[at] = older.get(at).copied().unwrap_or_default();
                }
            }
            Damage::Zeros { block, blocks } => file[blocks_at(*block, *blocks)].fill(0),
            Damage::Misplaced { from, to } => {
                let from = file[blocks_at(*from, 1)].to_vec();
                let to = blocks_at(*to, 1);
                let length = from.len().min(to.len());
                file[to.start..to.start + length].copy_from_slice(&from[..length]);
            }
            Damage::Truncated { at } => file.truncate(at % length),
        }
    }
}

/// Opens the store: whether it is refused. Where it is not, what it serves must be right, now and
/// after it went on.
fn refused(left: &Left, damage: &Damage) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let mut file = left.file.clone();
        damage.apply(&mut file, &SAMPLE.older);
        fs::write(&path, file).unwrap();
        fs::write(dir.path().join("acknowledged"), &left.note).unwrap();
        let store = match Store::open(dir.path(), Options::default()) {
            Err(OpenError::Corrupt {
                path: named,
                reason,
            }) => {
                assert_eq!(named, path);
                assert!(!reason.is_empty());
                return true;
            }
            opened => opened.unwrap(),
        };
        assert!(contents(&store) == left.contents, "{damage:?} is served");
        let write = Write {
            key: Key::new("/pods", "another"),
            expect: Expect::Absent,
            op: Op::Put {
                value: Bytes::from_static(b"x"),
                stamp: None,
            },
        };
        store.commit(write).await.unwrap();
        let before = contents(&store);
        store.close().await;
        let store = Store::open(dir.path(), Options::default()).unwrap();
        assert!(contents(&store) == before, "{damage:?} shows later");
        store.close().await;
        false
    })
}

#[test]
fn damage_is_found_and_never_served() {
    let counts = [const { AtomicUsize::new(0) }; 2];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&(damage(), any::<bool>()), |(damage, killed)| {
            let left = match killed {
                true => &SAMPLE.killed,
                false => &SAMPLE.closed,
            };
            let refused = refused(left, &damage);
            counts[usize::from(refused)].fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .unwrap();
    // The rest of the file is free pages.
    let [served, found] = counts.map(AtomicUsize::into_inner);
    assert!(
        found > 80 && served > 20,
        "{found} found, {served} harmless"
    );
}

/// What a kill left is opened by repairing it; of that, no acknowledged write may be lost unnoticed.
#[test]
fn what_a_kill_left_is_whole() {
    let nothing = Damage::Zeros {
        block: 0,
        blocks: 0,
    };
    for left in [&SAMPLE.killed, &SAMPLE.closed] {
        assert!(!refused(left, &nothing));
    }
    // The newest commits never reached the disk, the older file is whole: the note tells.
    let lost = Left {
        file: SAMPLE.older.clone(),
        note: SAMPLE.killed.note.clone(),
        contents: Vec::new(),
    };
    assert!(refused(&lost, &nothing));
}
