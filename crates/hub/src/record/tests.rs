use gantry_records::{Entry, Outcome, Record, Seen, SeenChange, Verb, Via, Who};
use jiff::Timestamp;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::{Ledger, Observed, observe, observed::Stamp};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// An object of a kind in one generation, changed by someone.
fn object(kind: &str, generation: i64, by: &str, spec: Value) -> Observed {
    Observed {
        object: gantry_records::Object {
            kind: kind.into(),
            namespace: "shop".into(),
            name: "cart".into(),
            uid: format!("uid-{kind}"),
            group: if kind == "Release" {
                "cart-prod".into()
            } else {
                String::new()
            },
        },
        generation,
        version: 1,
        created: at(0),
        changed: at(generation - 1),
        via: Via::Kubectl,
        spec,
        stamp: Some(Stamp {
            by: by.into(),
            groups: vec!["staff".into()],
            from: if generation == 1 {
                String::new()
            } else {
                format!("{generation}")
            },
        }),
        note: String::new(),
        delete_note: None,
        run: (kind == "Release").then(|| json!({"phase": "Running"})),
    }
}

/// A ledger that starts with nothing.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new();
    assert!(ledger.baseline(&[], &[], at(0)).is_empty());
    ledger
}

fn records(entry: Option<Entry>) -> Vec<Record> {
    entry.map(|e| e.records).unwrap_or_default()
}

/// Verbs, with who and before and after.
fn told(records: &[Record]) -> Vec<(Verb, &str, Value, Value)> {
    let value = |v: &Option<Value>| v.clone().unwrap_or_default();
    records
        .iter()
        .map(|r| {
            (
                r.verb,
                r.who.user.as_str(),
                value(&r.before),
                value(&r.after),
            )
        })
        .collect()
}

#[rstest]
#[case::scale("Group", json!({"replicas": 3}), json!({"replicas": 5}),
    vec![(Verb::Scale, "bob", json!({"replicas": 3}), json!({"replicas": 5}))])]
#[case::scale_and_more("Group", json!({"replicas": 3, "app": "a"}), json!({"replicas": 4, "app": "b"}),
    vec![(Verb::Scale, "bob", json!({"replicas": 3}), json!({"replicas": 4})),
         (Verb::Change, "bob", json!({"app": "a"}), json!({"app": "b"}))])]
#[case::moved("Group", json!({"app": "a"}),
    json!({"app": "a", "instances": [{"name": "i", "outOfService": false, "by": "bob", "toNode": {"name": "n2", "from": "n1"}}]}),
    vec![(Verb::Change, "bob", json!({"instance": "i", "node": "n1"}), json!({"instance": "i", "node": "n2"}))])]
#[case::moved_again("Group",
    json!({"instances": [{"name": "i", "remove": true, "toNode": {"name": "n2", "from": "n1"}}, {"name": "j", "outOfService": true}]}),
    json!({"instances": [{"name": "i", "toNode": {"name": "n3"}}, {"name": "j", "outOfService": true}]}),
    vec![(Verb::Change, "bob", json!({"instance": "i", "node": "?"}), json!({"instance": "i", "node": "n3"})),
         (Verb::Change, "bob", json!({"instances": [{"name": "i", "remove": true}, {"name": "j", "outOfService": true}]}),
          json!({"instances": [{"name": "j", "outOfService": true}]}))])]
#[case::not_moved("Group", json!({"instances": [{"name": "i", "toNode": {"name": "n2", "from": "n1"}}]}), json!({}),
    vec![(Verb::Change, "bob", json!({"instance": "i", "toNode": "n2"}), json!({"instance": "i"}))])]
#[case::pause("Release", json!({"paused": false}), json!({"paused": true}),
    vec![(Verb::Pause, "bob", Value::Null, Value::Null)])]
#[case::go_on("Release", json!({"paused": true}), json!({"paused": false, "acceptedThrough": 0}),
    vec![(Verb::Continue, "bob", Value::Null, Value::Null),
         (Verb::Accept, "bob", json!({}), json!({"acceptedThrough": 0}))])]
#[case::abort("Release", json!({"abort": false}), json!({"abort": true}),
    vec![(Verb::Abort, "bob", Value::Null, Value::Null)])]
#[case::rollback("Release", json!({}), json!({"rollback": true}),
    vec![(Verb::Rollback, "bob", Value::Null, Value::Null)])]
#[case::skip_and_retry("Release", json!({"retry": 0}), json!({"retry": 1, "skip": [2]}),
    vec![(Verb::Skip, "bob", json!({}), json!({"skip": [2]})),
         (Verb::Retry, "bob", json!({"retry": 0}), json!({"retry": 1}))])]
#[case::approve("Release", json!({"approvals": [{"gate": "a", "by": "eve"}]}),
    json!({"approvals": [{"gate": "a", "by": "eve"}, {"gate": "qa", "by": "bob", "note": "fine"}, {"gate": "qa", "by": "bob", "reject": true}]}),
    vec![(Verb::Approve, "bob", Value::Null, json!({"gate": "qa", "batch": null})),
         (Verb::Reject, "bob", Value::Null, json!({"gate": "qa", "batch": null}))])]
#[case::emergency("Release", json!({}), json!({"emergency": {"reason": "CVE", "by": "bob", "gates": ["*"]}}),
    vec![(Verb::Emergency, "bob", Value::Null, json!({"gates": ["*"]}))])]
#[case::grant("Tenant", json!({"roles": [{"role": "Viewer", "users": ["a"], "groups": ["g"]}]}),
    json!({"roles": [{"role": "Viewer", "users": ["a"]}, {"role": "Admin", "users": ["b", "c"]}]}),
    vec![(Verb::Grant, "bob", Value::Null, json!({"Admin": ["user b", "user c"]})),
         (Verb::Revoke, "bob", json!({"Viewer": ["group g"]}), Value::Null)])]
#[case::quota("Tenant", json!({"quotas": [{"hard": {"pods": "1"}}]}), json!({"quotas": [{"hard": {"pods": "2"}}]}),
    vec![(Verb::Change, "bob", json!({"quotas": [{"hard": {"pods": "1"}}]}), json!({"quotas": [{"hard": {"pods": "2"}}]}))])]
#[case::cell("Cluster", json!({"stopTheLine": {"reason": ""}}), json!({"stopTheLine": {"reason": "fire", "by": "bob"}}),
    vec![(Verb::Stop, "bob", json!({"stopTheLine": {"reason": ""}}), json!({"stopTheLine": {"reason": "fire", "by": "bob"}}))])]
#[case::policy("Strategy", json!({"pause": "Never"}), json!({"pause": "EachBatch"}),
    vec![(Verb::Change, "bob", json!({"pause": "Never"}), json!({"pause": "EachBatch"}))])]
#[case::nothing("Strategy", json!({"pause": "Never"}), json!({"pause": "Never"}), vec![])]
fn changes_have_verbs(
    #[case] kind: &str,
    #[case] before: Value,
    #[case] after: Value,
    #[case] want: Vec<(Verb, &str, Value, Value)>,
) {
    let mut ledger = ledger();
    ledger.see(object(kind, 1, "alice", before));
    let records = records(ledger.see(object(kind, 2, "bob", after)));
    assert_eq!(told(&records), want);
    assert!(
        records
            .iter()
            .all(|r| r.at == at(1) && r.outcome == Outcome::Done)
    );
}

#[test]
fn a_release_is_one_record_from_its_start_to_its_end() {
    let mut ledger = ledger();
    let spec =
        json!({"revision": {"image": "cart:2"}, "note": "prices", "retry": 0, "paused": false});
    let made = records(ledger.see(object("Release", 1, "alice", spec.clone())));
    let want = Who {
        user: "alice".into(),
        groups: vec!["staff".into()],
        via: Via::Kubectl,
    };
    assert_eq!(
        (made.len(), &made[0].who, made[0].verb),
        (1, &want, Verb::Release)
    );
    assert_eq!(
        (made[0].outcome, made[0].why.as_str()),
        (Outcome::Running, "prices")
    );
    assert_eq!(made[0].after, Some(json!({"image": "cart:2"})));

    // Someone else pauses it; it runs on; it ends, with an override on the way.
    let mut paused = spec.clone();
    paused["paused"] = json!(true);
    let pressed = records(ledger.see(object("Release", 2, "bob", paused.clone())));
    assert_eq!(
        told(&pressed),
        [(Verb::Pause, "bob", Value::Null, Value::Null)]
    );
    let run = |run: Value| Observed {
        run: Some(run),
        ..object("Release", 2, "bob", paused.clone())
    };
    let started = ledger
        .see(run(json!({"phase": "Running", "started": at(5)})))
        .unwrap();
    assert!(started.records.is_empty() && started.seen.is_some());
    let over = json!({
        "phase": "RolledBack", "started": at(5), "finished": at(65), "message": "back on revision 1",
        "overrides": [{"what": "freeze xmas", "by": "eve", "reason": "CVE", "at": at(30)}],
    });
    let ended = records(ledger.see(run(over.clone())));
    assert_eq!(ended.len(), 2);
    let end = &ended[0];
    assert_eq!(
        (&end.id, &end.who, end.at),
        (&made[0].id, &made[0].who, made[0].at)
    );
    assert_eq!(
        (end.outcome, end.duration_ms()),
        (Outcome::RolledBack, Some(60_000))
    );
    assert_eq!(end.message, "back on revision 1");
    let over_ridden = &ended[1];
    assert_eq!(
        (
            over_ridden.verb,
            over_ridden.who.user.as_str(),
            over_ridden.why.as_str(),
            over_ridden.at
        ),
        (Verb::Override, "eve", "CVE", at(30))
    );
    assert!(ledger.see(run(over)).is_none(), "told once");

    // Gone: nobody knows by whom.
    let gone = records(ledger.gone("uid-Release", at(100)));
    assert_eq!(
        (gone.len(), gone[0].verb, gone[0].who.user.as_str()),
        (1, Verb::Delete, "")
    );
}

#[test]
fn a_release_that_is_deleted_while_it_runs_has_no_known_end() {
    let mut ledger = ledger();
    let made = records(ledger.see(object("Release", 1, "alice", json!({}))));
    let gone = records(ledger.gone("uid-Release", at(9)));
    assert_eq!(
        gone.iter().map(|r| (r.verb, r.outcome)).collect::<Vec<_>>(),
        [
            (Verb::Release, Outcome::Unknown),
            (Verb::Delete, Outcome::Done)
        ]
    );
    assert_eq!(gone[0].id, made[0].id);
}

#[test]
fn a_deletion_that_was_announced_has_a_name() {
    let mut ledger = ledger();
    let stop = json!({"kind": "Stop", "reason": "fire", "by": "alice"});
    let made = records(ledger.see(object("StopLine", 1, "alice", stop.clone())));
    assert_eq!((made[0].verb, made[0].why.as_str()), (Verb::Stop, "fire"));
    let announced = Observed {
        delete_note: Some("it is out".into()),
        stamp: Some(Stamp {
            by: "bob".into(),
            groups: vec![],
            from: "9".into(),
        }),
        ..object("StopLine", 1, "alice", stop)
    };
    assert!(records(ledger.see(announced)).is_empty());
    let gone = records(ledger.gone("uid-StopLine", at(9)));
    assert_eq!(
        (
            gone[0].verb,
            gone[0].who.user.as_str(),
            gone[0].why.as_str()
        ),
        (Verb::Go, "bob", "it is out")
    );
}

#[test]
fn a_write_that_bears_nobodys_stamp_is_nobodys() {
    let mut ledger = ledger();
    ledger.see(object("Group", 1, "alice", json!({"replicas": 1})));
    // By way of `scale`: the stamp is the one from before.
    let scaled = Observed {
        generation: 2,
        ..object("Group", 1, "alice", json!({"replicas": 2}))
    };
    assert_eq!(told(&records(ledger.see(scaled)))[0].1, "");
    // What a release has brought is recorded with the release.
    let brought = Observed {
        via: Via::Hub,
        ..object(
            "Group",
            3,
            "hub",
            json!({"replicas": 2, "revision": {"image": "x"}}),
        )
    };
    assert!(records(ledger.see(brought)).is_empty());
    // Heard late.
    assert!(
        ledger
            .see(object("Group", 2, "alice", json!({"replicas": 9})))
            .is_none()
    );
}

/// What a store would hold after these entries.
fn apply(store: &mut Vec<Seen>, entries: &[Entry]) {
    for change in entries.iter().filter_map(|e| e.seen.as_ref()) {
        match change {
            SeenChange::Is(seen) => {
                store.retain(|s| s.object.uid != seen.object.uid);
                store.push(seen.clone());
            }
            SeenChange::Gone(uid) => store.retain(|s| s.object.uid != *uid),
        }
    }
}

#[test]
fn a_restart_finds_what_was_missed_and_repeats_nothing() {
    let mut store = Vec::new();
    let mut first = ledger();
    let (group, stop) = (json!({"replicas": 1}), json!({"kind": "Stop"}));
    let entries = [
        first.see(object("Group", 1, "alice", group.clone())),
        first.see(object("StopLine", 1, "alice", stop)),
        first.see(object("Release", 1, "alice", json!({}))),
    ];
    let entries: Vec<Entry> = entries.into_iter().flatten().collect();
    apply(&mut store, &entries);

    // While nobody looked: scaled twice, the switch was taken back, the release came to its end.
    let mut second = Ledger::new();
    let scaled = object("Group", 3, "bob", json!({"replicas": 7}));
    assert!(
        second
            .listed("Group", vec![scaled.clone()], at(50))
            .is_empty()
    );
    assert!(second.listed("StopLine", vec![], at(50)).is_empty());
    // Someone else made the last change to it: the one who started it is known from before.
    let over = Observed {
        run: Some(json!({"phase": "Succeeded", "finished": at(40)})),
        ..object("Release", 2, "eve", json!({"paused": false}))
    };
    assert!(
        second
            .listed("Release", vec![over.clone()], at(50))
            .is_empty()
    );
    // And once more before it is known what was seen.
    let again = second
        .see(object("Group", 4, "eve", json!({"replicas": 8})))
        .unwrap();
    assert_eq!(
        told(&again.records),
        [(
            Verb::Scale,
            "eve",
            json!({"replicas": 7}),
            json!({"replicas": 8})
        )]
    );
    let kinds = ["Group", "StopLine", "Release"];
    let caught_up = second.baseline(&store, &kinds, at(60));
    let all: Vec<Record> = caught_up.iter().flat_map(|e| e.records.clone()).collect();
    assert_eq!(
        told(&all),
        [
            (Verb::Go, "", json!({"kind": "Stop"}), Value::Null),
            (Verb::Release, "alice", Value::Null, Value::Null),
            (
                Verb::Scale,
                "bob",
                json!({"replicas": 1}),
                json!({"replicas": 7})
            ),
        ]
    );
    assert_eq!(all[1].outcome, Outcome::Succeeded);
    apply(&mut store, &[again]);
    apply(&mut store, &caught_up);
    let group = store.iter().find(|s| s.object.kind == "Group").unwrap();
    assert_eq!(group.generation, 4, "what is newer is not overwritten");

    // A third finds nothing new.
    let mut third = Ledger::new();
    third.listed(
        "Group",
        vec![object("Group", 4, "eve", json!({"replicas": 8}))],
        at(70),
    );
    third.listed("StopLine", vec![], at(70));
    third.listed("Release", vec![over], at(70));
    let entries = third.baseline(&store, &kinds, at(80));
    let left: Vec<&Record> = entries.iter().flat_map(|e| &e.records).collect();
    assert!(left.is_empty(), "{left:#?}");
}

proptest! {
    /// Wherever the process is killed, and whatever of its entries had reached the store: each change of the
    /// number of instances that is recorded is recorded once, in order, and the last state is the last.
    #[test]
    fn crashes_lose_no_state_and_repeat_no_record(
        replicas in proptest::collection::vec(0..5i32, 1..20),
        crashes in proptest::collection::vec((0..20usize, 0..3usize), 0..5),
    ) {
        let (mut store, mut written) = (Vec::new(), std::collections::BTreeMap::new());
        let mut ledger = ledger();
        let mut pending: Vec<Entry> = Vec::new();
        let mut commit = |entries: &mut Vec<Entry>, store: &mut Vec<Seen>| {
            apply(store, entries);
            for record in entries.drain(..).flat_map(|e| e.records) {
                written.entry(record.id.clone()).or_insert(record);
            }
        };
        for (n, count) in replicas.iter().enumerate() {
            let now = object("Group", n as i64 + 1, &format!("user-{n}"), json!({"replicas": count}));
            pending.extend(ledger.see(now.clone()));
            if let Some((_, lost)) = crashes.iter().find(|(at, _)| *at == n) {
                // The last entries had not been written.
                pending.truncate(pending.len().saturating_sub(*lost));
                commit(&mut pending, &mut store);
                ledger = Ledger::new();
                ledger.listed("Group", vec![now], at(1000));
                pending = ledger.baseline(&store, &["Group"], at(1000));
            }
        }
        commit(&mut pending, &mut store);
        prop_assert_eq!(&store[0].state["spec"]["replicas"], &json!(replicas.last().unwrap()));
        // The records lead from the first number to the last without a gap.
        let mut at = None;
        for record in written.values() {
            let before = record.before.as_ref().map(|b| b["replicas"].clone());
            prop_assert_eq!(before, at.take());
            at = record.after.as_ref().map(|a| a["replicas"].clone());
        }
        prop_assert_eq!(at.unwrap(), json!(replicas.last().unwrap()));
    }
}

#[test]
fn what_is_looked_at_of_an_object() {
    let group: gantry_api::Group = serde_json::from_value(json!({
        "apiVersion": "gantry.dev/v1alpha1", "kind": "Group",
        "metadata": {
            "name": "cart", "namespace": "shop", "uid": "u1", "generation": 3, "creationTimestamp": "2026-11-01T00:00:00Z",
            "annotations": {"gantry.dev/changed-by": "alice", "gantry.dev/changed-by-groups": "a,b", "gantry.dev/changed-from": "17"},
            "managedFields": [
                {"manager": "kubectl-edit", "operation": "Update", "time": "2026-11-02T00:00:00Z"},
                {"manager": "gantry-hub", "operation": "Update", "subresource": "status", "time": "2026-11-04T00:00:00Z"},
                {"manager": "gantry", "operation": "Update", "time": "2026-11-03T00:00:00Z"},
            ],
        },
        "spec": {"app": "cart", "replicas": 2, "placement": {"cells": []}, "revision": {"image": "x"}},
    }))
    .unwrap();
    let seen = observe(&group, &group.spec, "cart", None);
    assert_eq!(
        (seen.via, seen.changed),
        (Via::Cli, "2026-11-03T00:00:00Z".parse().unwrap())
    );
    let stamp = seen.stamp.unwrap();
    assert_eq!(
        (stamp.by.as_str(), &stamp.groups[..], stamp.from.as_str()),
        ("alice", &["a".to_owned(), "b".to_owned()][..], "17")
    );
    assert_eq!(
        (seen.object.group.as_str(), seen.spec["replicas"].as_i64()),
        ("", Some(2))
    );
}
