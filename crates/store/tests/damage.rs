//! Damage to a store's files, anywhere and of any kind, of a store that was closed or whose process
//! was killed: it is refused, by name, or what is served is right.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
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

type Files = BTreeMap<String, Vec<u8>>;

const DATABASE: &str = "store.redb";
const NOTE: &str = "acknowledged";
const FOLDER: &str = "GANTRY_STORE_DAMAGE_TEST";

fn files(dir: &Path) -> Files {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// A store's folder at one moment, and what the store held then.
struct Left {
    files: Files,
    contents: Contents,
}

struct Sample {
    /// The files some commits before.
    older: Files,
    /// As a kill leaves them: the first part is in the database, the rest in the journal.
    killed: Left,
    closed: Left,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "write_and_be_killed", "--ignored", "--nocapture"])
        .env(FOLDER, dir.path())
        .output()
        .unwrap();
    let told = fs::read_to_string(dir.path().join("contents"));
    assert!(told.is_ok(), "{ended:?}");
    let told = told.unwrap();
    let expected = told
        .lines()
        .map(|line| {
            let mut parts = line.splitn(4, '\t');
            let mut part = || parts.next().unwrap().to_owned();
            let (key, revision, created) = (part(), part(), part());
            (
                key,
                revision.parse().unwrap(),
                created.parse().unwrap(),
                part().into(),
            )
        })
        .collect();
    let folder = dir.path().join("store");
    let killed = Left {
        files: files(&folder),
        contents: expected,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let closed = runtime.block_on(async {
        let store = Store::open(&folder, Options::default()).unwrap();
        let contents = contents(&store);
        store.close().await;
        Left {
            files: files(&folder),
            contents,
        }
    });
    Sample {
        older: files(&dir.path().join("older")),
        killed,
        closed,
    }
});

/// Ten writes.
async fn round(store: &Store, round: usize) {
    let writes = (0..10).map(|number| Write {
        key: Key::new("/pods", format!("pod-{number}")),
        expect: Expect::Any,
        op: match (round + number) % 7 {
            0 if round > 0 && !(round - 1 + number).is_multiple_of(7) => Op::Delete {
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

#[tokio::test]
#[ignore = "the process that makes the sample; does nothing useful alone"]
async fn write_and_be_killed() {
    let Ok(dir) = std::env::var(FOLDER) else {
        return;
    };
    let (folder, older) = (Path::new(&dir).join("store"), Path::new(&dir).join("older"));
    // A short history, so that there are removed records too.
    let options = Options {
        history_events: 60,
        ..Options::default()
    };
    let store = Store::open(&folder, options.clone()).unwrap();
    for number in 0..15 {
        round(&store, number).await;
    }
    store.close().await;
    let store = Store::open(&folder, options).unwrap();
    for number in 15..25 {
        round(&store, number).await;
    }
    fs::create_dir(&older).unwrap();
    for (name, bytes) in files(&folder) {
        fs::write(older.join(name), bytes).unwrap();
    }
    for number in 25..30 {
        round(&store, number).await;
    }
    let told: String = contents(&store)
        .iter()
        .map(|(key, revision, created, value)| {
            let value = String::from_utf8_lossy(value);
            format!("{key}\t{revision}\t{created}\t{value}\n")
        })
        .collect();
    fs::write(Path::new(&dir).join("contents"), told).unwrap();
    std::process::abort();
}

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
    /// The file is not there.
    Gone,
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
        1 => Just(Damage::Gone),
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
            Damage::Gone => {}
        }
    }
}

/// Opens a store of which a file was damaged, the database or one of the journal's: whether it is
/// refused. Where it is not, what it serves must be right, now and after it went on.
fn refused(left: &Left, which: usize, damage: &Damage) -> bool {
    let mut files = left.files.clone();
    let names: Vec<&String> = left
        .files
        .keys()
        .filter(|name| *name == DATABASE || name.contains('-'))
        .collect();
    let name = names[which % names.len()];
    let nothing = Vec::new();
    let older = SAMPLE.older.get(name).unwrap_or(&nothing);
    damage.apply(files.get_mut(name).unwrap(), older);
    if matches!(damage, Damage::Gone) {
        files.remove(name);
    }
    let refused = refused_to_open(&files, &left.contents, &format!("{name} {damage:?}"));
    if let Some((named, reason)) = &refused {
        // Where what is there is whole and does not fit together, any part may be the wrong one.
        assert!(
            named == name || reason.contains("acknowledged") || reason.contains("ends at"),
            "{name} {damage:?}: {named}: {reason}"
        );
    }
    refused.is_some()
}

/// Opens a store of these files: which file it names, and why, if it is refused.
fn refused_to_open(files: &Files, expected: &Contents, what: &str) -> Option<(String, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(dir.path().join(name), bytes).unwrap();
        }
        let store = match Store::open(dir.path(), Options::default()) {
            Err(OpenError::Corrupt {
                path: named,
                reason,
            }) => {
                assert_eq!(named.parent(), Some(dir.path()));
                assert!(!reason.is_empty());
                let named = named.file_name().unwrap().to_str().unwrap();
                return Some((named.to_owned(), reason));
            }
            opened => opened.unwrap(),
        };
        assert!(contents(&store) == *expected, "{what} is served");
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
        assert!(contents(&store) == before, "{what} shows later");
        store.close().await;
        None
    })
}

#[test]
fn damage_is_found_and_never_served() {
    let counts = [const { AtomicUsize::new(0) }; 2];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(
            &(damage(), any::<bool>(), 0..12usize),
            |(damage, killed, which)| {
                let left = match killed {
                    true => &SAMPLE.killed,
                    false => &SAMPLE.closed,
                };
                let refused = refused(left, which, &damage);
                counts[usize::from(refused)].fetch_add(1, Ordering::Relaxed);
                Ok(())
            },
        )
        .unwrap();
    // The rest of the file is free pages.
    let [served, found] = counts.map(AtomicUsize::into_inner);
    assert!(
        found > 60 && served > 20,
        "{found} found, {served} harmless"
    );
}

/// What a kill left is opened by repairing it; of that, no acknowledged write may be lost unnoticed.
#[test]
fn what_a_kill_left_is_whole() {
    for left in [&SAMPLE.killed, &SAMPLE.closed] {
        assert_eq!(
            refused_to_open(&left.files, &left.contents, "nothing"),
            None
        );
    }
    let killed = &SAMPLE.killed;
    assert!(killed.files.keys().any(|name| name.starts_with("journal-")));
    assert!(
        !SAMPLE
            .closed
            .files
            .keys()
            .any(|name| name.starts_with("journal-"))
    );
    let refused = |files: &Files| {
        let refused = refused_to_open(files, &killed.contents, "loss");
        refused.expect("what is lost is missed").1
    };
    // The newest commits never reached the disk, the older files are whole: the note tells.
    let mut lost = SAMPLE.older.clone();
    lost.insert(NOTE.into(), killed.files[NOTE].clone());
    assert!(refused(&lost).contains("acknowledged"));
    // Nor did the journal.
    let mut lost = killed.files.clone();
    lost.retain(|name, _| !name.starts_with("journal-"));
    assert!(refused(&lost).contains("acknowledged"));
    // Without the note, what was acknowledged before the last commit is missed all the same.
    let mut lost = killed.files.clone();
    lost.remove(NOTE);
    let name = lost.keys().find(|name| name.starts_with("journal-"));
    let name = name.unwrap().clone();
    let journal = lost.get_mut(&name).unwrap();
    // The second frame.
    let at = u32::from_le_bytes(*journal[4096 + 4..].first_chunk().unwrap()) as usize + 4096;
    journal[at + 100] ^= 1;
    assert!(refused(&lost).contains("is damaged"));
}
