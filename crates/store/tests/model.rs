//! Random writes, reads of random revisions, watches from random revisions and restarts, compared
//! with a model that remembers every state.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use gantry_store::{
    CommitError, EventKind, Expect, Key, Op, Options, ReadError, Revision, Store, Watch, Write,
};
use proptest::prelude::*;

const BUCKETS: [&str; 3] = ["/pods", "/nodes", "apps/deployments"];
const NAMES: [&str; 5] = ["a/x", "a/y", "b/x", "b-c/x", "c"];

#[derive(Clone, Debug)]
enum Action {
    /// Writes of one request.
    Write(Vec<(usize, usize, Kind, Hope)>),
    /// Read a bucket at a revision, so far back.
    Read(usize, u64),
    /// Watch a bucket from a revision, so far back.
    Watch(usize, u64),
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Put,
    Delete,
}

#[derive(Clone, Copy, Debug)]
enum Hope {
    Any,
    Absent,
    /// The object's own revision, or one that far off.
    At(u64),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let kind = prop_oneof![3 => Just(Kind::Put), 1 => Just(Kind::Delete)];
    let hope = prop_oneof![4 => Just(Hope::Any), 1 => Just(Hope::Absent), 2 => Just(Hope::At(0)), 1 => (1..3u64).prop_map(Hope::At)];
    let write = (0..BUCKETS.len(), 0..NAMES.len(), kind, hope);
    let action = prop_oneof![
        12 => write.clone().prop_map(|write| Action::Write(vec![write])),
        4 => proptest::collection::vec(write, 2..5).prop_map(Action::Write),
        3 => (0..BUCKETS.len(), 0..25u64).prop_map(|(bucket, back)| Action::Read(bucket, back)),
        3 => (0..BUCKETS.len(), 0..25u64).prop_map(|(bucket, back)| Action::Watch(bucket, back)),
        1 => Just(Action::Reopen),
    ];
    proptest::collection::vec(action, 1..60)
}

/// An object: when it was written, when it was created, what it holds.
type Object = (Revision, Revision, String);
type State = BTreeMap<(usize, usize), Object>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    revision: Revision,
    deleted: bool,
    name: &'static str,
    object: Object,
    previous: Option<Object>,
}

struct Model {
    /// By revision; the first is the empty store's, 1.
    states: Vec<State>,
    /// By bucket.
    events: [Vec<Seen>; 3],
}

impl Model {
    fn revision(&self) -> Revision {
        self.states.len() as Revision
    }

    fn state(&self, revision: Revision) -> &State {
        &self.states[revision as usize - 1]
    }

    /// What the request makes of the model; `None`: it conflicts.
    fn write(
        &mut self,
        writes: &[Write],
        requests: &[(usize, usize, Kind, Hope)],
    ) -> Option<Vec<Object>> {
        let before = self.revision();
        let mut states = vec![self.state(before).clone()];
        let mut events = Vec::new();
        let mut written = Vec::new();
        for (write, (bucket, name, kind, _)) in writes.iter().zip(requests) {
            let mut state = states[states.len() - 1].clone();
            let revision = before + states.len() as Revision;
            let previous = state.get(&(*bucket, *name)).cloned();
            let expected = match write.expect {
                Expect::Any => true,
                Expect::Absent => previous.is_none(),
                // Nobody can know a revision of this very request.
                Expect::At(at) => {
                    at <= before && previous.as_ref().is_some_and(|previous| previous.0 == at)
                }
            };
            let deleted = matches!(kind, Kind::Delete);
            if !expected || (deleted && previous.is_none()) {
                return None;
            }
            let object = (
                revision,
                previous.as_ref().map_or(revision, |p| p.1),
                format!("v{revision}."),
            );
            match kind {
                Kind::Put => state.insert((*bucket, *name), object.clone()),
                Kind::Delete => state.remove(&(*bucket, *name)),
            };
            events.push((
                *bucket,
                Seen {
                    revision,
                    deleted,
                    name: NAMES[*name],
                    object: object.clone(),
                    previous,
                },
            ));
            written.push(object);
            states.push(state);
        }
        self.states.extend(states.into_iter().skip(1));
        for (bucket, event) in events {
            self.events[bucket].push(event);
        }
        Some(written)
    }
}

fn object(stored: &gantry_store::Stored) -> Object {
    (
        stored.revision,
        stored.created,
        String::from_utf8_lossy(&stored.value).into_owned(),
    )
}

/// What a watch has to deliver, up to now.
fn drain(watch: &mut Watch) -> Result<Vec<Seen>, gantry_store::Lagged> {
    let mut seen = Vec::new();
    loop {
        let batch = watch.try_next()?;
        if batch.events.is_empty() {
            return Ok(seen);
        }
        for event in batch.events {
            assert!(event.revision <= batch.revision);
            seen.push(Seen {
                revision: event.revision,
                deleted: event.kind == EventKind::Delete,
                name: NAMES
                    .iter()
                    .find(|name| **name == &*event.object.key.name)
                    .unwrap(),
                object: object(&event.object),
                previous: event.previous.as_deref().map(object),
            });
        }
    }
}

async fn run(actions: Vec<Action>, dir: Option<&Path>, history_events: usize) {
    let options = Options {
        history_events,
        journal_bytes: 64 << 10,
        ..Options::default()
    };
    let open = || match dir {
        Some(dir) => Store::open(dir, options.clone()).unwrap(),
        None => Store::in_memory(options.clone()),
    };
    let mut store = open();
    let mut model = Model {
        states: vec![State::new()],
        events: Default::default(),
    };
    // One watch a bucket that is read after every action.
    let mut steady: Vec<(Watch, usize)> = BUCKETS
        .iter()
        .map(|bucket| (store.watch(bucket, 1).unwrap(), 0))
        .collect();
    for action in actions {
        match action {
            Action::Write(requests) => {
                let newest = model.state(model.revision());
                let writes: Vec<Write> = requests
                    .iter()
                    .map(|(bucket, name, kind, hope)| {
                        let value = Bytes::from_static(b"v.");
                        Write {
                            key: Key::new(BUCKETS[*bucket], NAMES[*name]),
                            expect: match hope {
                                Hope::Any => Expect::Any,
                                Hope::Absent => Expect::Absent,
                                Hope::At(off) => Expect::At(
                                    newest.get(&(*bucket, *name)).map_or(1, |object| object.0)
                                        + off,
                                ),
                            },
                            op: match kind {
                                Kind::Put => Op::Put {
                                    value,
                                    stamp: Some(1),
                                },
                                Kind::Delete => Op::Delete {
                                    last: value,
                                    stamp: Some(1),
                                },
                            },
                        }
                    })
                    .collect();
                let expected = model.write(&writes, &requests);
                match store.commit_all(writes).await {
                    Ok(written) => {
                        assert_eq!(Some(written.iter().map(|w| object(w)).collect()), expected)
                    }
                    Err(CommitError::Conflict { .. }) => assert_eq!(expected, None),
                    Err(error) => assert_eq!(error.to_string(), "", "not an error of the model"),
                }
            }
            Action::Read(bucket, back) => {
                let revision = model.revision().saturating_sub(back).max(1);
                match store.snapshot_at(BUCKETS[bucket], revision) {
                    Ok(snapshot) => {
                        assert_eq!(snapshot.revision(), revision);
                        let found: Vec<_> = snapshot
                            .iter()
                            .map(|o| (o.key.name.to_string(), object(o)))
                            .collect();
                        assert_eq!(found, sorted(model.state(revision), bucket));
                    }
                    Err(error) => refused(&store, error, revision),
                }
            }
            Action::Watch(bucket, back) => {
                let revision = model.revision().saturating_sub(back).max(1);
                match store.watch(BUCKETS[bucket], revision) {
                    Ok(mut watch) => {
                        let expected: Vec<_> = model.events[bucket]
                            .iter()
                            .filter(|event| event.revision > revision)
                            .cloned()
                            .collect();
                        assert_eq!(drain(&mut watch).unwrap(), expected);
                        assert_eq!(watch.revision(), model.revision());
                    }
                    Err(error) => refused(&store, error, revision),
                }
            }
            Action::Reopen if dir.is_some() => {
                store.close().await;
                store = open();
                steady.clear();
                for (bucket, events) in BUCKETS.iter().zip(&model.events) {
                    steady.push((store.watch(bucket, model.revision()).unwrap(), events.len()));
                }
            }
            Action::Reopen => {}
        }
        assert_eq!(store.revision(), model.revision());
        for (number, bucket) in BUCKETS.iter().enumerate() {
            let found: Vec<_> = store
                .snapshot(bucket)
                .iter()
                .map(|o| (o.key.name.to_string(), object(o)))
                .collect();
            assert_eq!(found, sorted(model.state(model.revision()), number));
            let (watch, seen) = &mut steady[number];
            match drain(watch) {
                Ok(events) => {
                    assert_eq!(events, model.events[number][*seen..]);
                    *seen += events.len();
                }
                Err(lagged) => {
                    // Only where one request wrote more than is retained.
                    assert!(
                        model.events[number].len() - *seen > history_events,
                        "{lagged}"
                    );
                    *watch = store.watch(bucket, model.revision()).unwrap();
                    *seen = model.events[number].len();
                }
            }
        }
    }
    store.close().await;
}

fn sorted(state: &State, bucket: usize) -> Vec<(String, Object)> {
    let of_bucket = state.iter().filter(|((b, _), _)| *b == bucket);
    let mut objects: Vec<_> = of_bucket
        .map(|((_, name), object)| (NAMES[*name].to_string(), object.clone()))
        .collect();
    objects.sort();
    objects
}

/// Only what the store says is not retained may be refused.
fn refused(store: &Store, error: ReadError, revision: Revision) {
    assert!(
        matches!(error, ReadError::Compacted { oldest } if oldest > revision && oldest <= store.oldest()),
        "{error}"
    );
}

fn check(actions: Vec<Action>, disk: bool, history_events: usize) {
    let dir = disk.then(|| tempfile::tempdir().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(
        actions,
        dir.as_ref().map(tempfile::TempDir::path),
        history_events,
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_store_in_memory_is_as_the_model(actions in actions(), history in 2..40usize) {
        check(actions, false, history);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_store_on_disk_is_as_the_model(actions in actions(), history in 2..40usize) {
        check(actions, true, history);
    }
}
