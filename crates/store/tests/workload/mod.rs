//! A workload whose every state is known: what a store must hold after a crash follows from how
//! many steps of it were acknowledged. Shared by the kill test and the power-loss test.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_store::{Expect, Key, Op, Store, Write};

const BUCKET: &str = "/work";

/// One writer's objects after its first `step` steps. A step is carried out as one `commit_all`
/// (or a `commit`, where it is one write) and always writes the writer's counter.
pub struct Writer {
    pub number: usize,
    pub step: u64,
    objects: BTreeMap<String, String>,
}

impl Writer {
    pub fn new(number: usize) -> Writer {
        Writer {
            number,
            step: 0,
            objects: BTreeMap::new(),
        }
    }

    /// The writer after so many steps.
    pub fn after(number: usize, steps: u64) -> Writer {
        let mut writer = Writer::new(number);
        for _ in 0..steps {
            writer.advance();
        }
        writer
    }

    /// Takes the next step and gives its writes.
    pub fn advance(&mut self) -> Vec<Write> {
        self.step += 1;
        let step = self.step;
        let mut writes = vec![self.put("counter".into(), step.to_string())];
        for turn in 0..step % 4 {
            let name = format!("{}", (step * 7 + turn * 3 + self.number as u64) % 6);
            let full = format!("{}/{name}", self.number);
            if step.is_multiple_of(3) && self.objects.contains_key(&full) {
                self.objects.remove(&full);
                let op = Op::Delete {
                    last: Bytes::from_static(b"last"),
                    stamp: None,
                };
                writes.push(Write {
                    key: Key::new(BUCKET, full),
                    expect: Expect::Any,
                    op,
                });
            } else {
                let padding = "x".repeat((step * 37 + turn * 501) as usize % 3000);
                writes.push(self.put(name, format!("{step}:{padding}")));
            }
        }
        writes
    }

    fn put(&mut self, name: String, value: String) -> Write {
        let name = format!("{}/{name}", self.number);
        let op = Op::Put {
            value: Bytes::from(value.clone()),
            stamp: None,
        };
        self.objects.insert(name.clone(), value);
        Write {
            key: Key::new(BUCKET, name),
            expect: Expect::Any,
            op,
        }
    }
}

/// The step a writer's objects in the store are of.
pub fn step_in(store: &Store, writer: usize) -> u64 {
    let counter = store.get(&Key::new(BUCKET, format!("{writer}/counter")));
    counter.map_or(0, |counter| {
        String::from_utf8_lossy(&counter.value).parse().unwrap()
    })
}

/// Checks that every writer's objects are exactly those after one step: the last one acknowledged, or
/// the one after, which may have been carried out and not acknowledged. Returns the steps found.
pub fn check(store: &Store, acknowledged: &[u64]) -> Vec<u64> {
    check_between(store, acknowledged, acknowledged)
}

/// As [`check`], of a state taken while writers went on: after `first` steps were acknowledged and
/// before more than `last` were.
pub fn check_between(store: &Store, first: &[u64], last: &[u64]) -> Vec<u64> {
    let snapshot = store.snapshot(BUCKET);
    let mut steps = Vec::new();
    for (number, (first, last)) in first.iter().zip(last).enumerate() {
        let step = step_in(store, number);
        assert!(
            (*first..=last + 1).contains(&step),
            "writer {number}: {first} to {last} steps were acknowledged, {step} are there"
        );
        let found: BTreeMap<String, String> = snapshot
            .range(&format!("{number}/"), None)
            .map(|object| {
                (
                    object.key.name.to_string(),
                    String::from_utf8_lossy(&object.value).into_owned(),
                )
            })
            .collect();
        assert!(
            found == Writer::after(number, step).objects,
            "writer {number}: step {step} is there in part"
        );
        steps.push(step);
    }
    steps
}
