use std::collections::{BTreeMap, BTreeSet};

use gantry_api::Tenant;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{quota::shares, *};
use crate::amount::thousandths;

fn tenant(name: &str, created: &str, spec: Value) -> Tenant {
    serde_json::from_value(json!({
        "apiVersion": "gantry.dev/v1alpha1", "kind": "Tenant",
        "metadata": {"name": name, "creationTimestamp": created}, "spec": spec,
    }))
    .unwrap()
}

fn cells() -> BTreeMap<String, String> {
    [("bj-a", "bj"), ("sh-a", "sh"), ("sh-b", "sh")]
        .map(|(c, m)| (c.to_owned(), m.to_owned()))
        .into()
}

fn named<'a>(objects: &'a [Value], kind: &str) -> Vec<(&'a str, &'a str)> {
    let of = |o: &'a Value, field: &str| o["metadata"][field].as_str().unwrap_or_default();
    let of_kind = objects.iter().filter(|o| o["kind"] == kind);
    of_kind
        .map(|o| (of(o, "namespace"), of(o, "name")))
        .collect()
}

#[test]
fn a_namespace_is_the_oldest_tenants() {
    let tenants = [
        tenant(
            "late",
            "2026-02-01T00:00:00Z",
            json!({"namespaces": ["shop", "late"]}),
        ),
        tenant("shop", "2026-01-01T00:00:00Z", json!({})),
        tenant("b", "2026-03-01T00:00:00Z", json!({"namespaces": ["x"]})),
        tenant("a", "2026-03-01T00:00:00Z", json!({"namespaces": ["x"]})),
    ];
    let claims = claims(&tenants);
    let want = [("late", "late"), ("shop", "shop"), ("x", "a")];
    assert_eq!(
        claims,
        want.map(|(n, t)| (n.to_owned(), t.to_owned())).into()
    );
    let wish = wish(&World {
        tenant: &tenants[0],
        claims: &claims,
        cells: &cells(),
        used: &BTreeSet::new(),
    });
    assert_eq!(wish.namespaces, ["late"]);
    assert_eq!(wish.problems, ["namespace shop belongs to tenant shop"]);
    assert_eq!(named(&wish.hub, "Namespace"), [("", "late")]);
}

#[test]
fn roles_are_bound_in_hub_and_members() {
    let shop = tenant(
        "shop",
        "2026-01-01T00:00:00Z",
        json!({
            "namespaces": ["shop", "shop-test"],
            "roles": [
                {"role": "Releaser", "users": ["alice"], "groups": ["sre"]},
                {"role": "Viewer", "users": ["bob"]},
                {"role": "Developer"},
            ],
        }),
    );
    let used = BTreeSet::from(["sh".to_owned()]);
    let wish = wish(&World {
        tenant: &shop,
        claims: &claims([&shop]),
        cells: &cells(),
        used: &used,
    });
    let bindings = [
        ("shop", "gantry:viewer"),
        ("shop", "gantry:releaser"),
        ("shop-test", "gantry:viewer"),
        ("shop-test", "gantry:releaser"),
    ];
    assert_eq!(named(&wish.hub, "RoleBinding"), bindings);
    assert_eq!(wish.members.keys().collect::<Vec<_>>(), ["sh"]);
    assert_eq!(named(&wish.members["sh"], "RoleBinding"), bindings);
    let releasers = wish
        .hub
        .iter()
        .find(|o| o["metadata"]["name"] == "gantry:releaser");
    let api = "rbac.authorization.k8s.io";
    assert_eq!(
        releasers.unwrap()["subjects"],
        json!([
            {"apiGroup": api, "kind": "User", "name": "alice"},
            {"apiGroup": api, "kind": "Group", "name": "sre"},
        ])
    );
    // Everyone sees the tenant; there is nobody who may change it.
    assert_eq!(
        named(&wish.hub, "ClusterRoleBinding"),
        [("", "gantry:tenant:shop")]
    );
    assert_eq!(named(&wish.members["sh"], "ClusterRoleBinding"), []);
}

#[test]
fn every_role_may_what_those_before_it_may() {
    for roles in [roles::of_hub(), roles::of_member()] {
        for pair in roles.windows(2) {
            let (less, more) = (&pair[0]["rules"], &pair[1]["rules"]);
            let more = more.as_array().unwrap();
            assert!(less.as_array().unwrap().iter().all(|r| more.contains(r)));
        }
        // Nobody reads Secrets but operators and admins; nobody does everything.
        let text = json!(roles[..3]).to_string();
        assert!(!text.contains("secrets"), "{text}");
        assert!(!json!(roles).to_string().contains(r#""verbs":["*"]"#));
    }
}

#[test]
fn quotas_are_shared_out_by_cells() {
    let quotas = |value: Value| -> Vec<gantry_api::tenant::PoolQuota> {
        serde_json::from_value(value).unwrap()
    };
    let none = BTreeSet::new();
    let share = |value: Value, used: &BTreeSet<String>| {
        let shares = shares(&quotas(value), &cells(), used);
        let hard = |(member, shares): (String, Vec<quota::Share>)| {
            let hard: Vec<Value> = shares.iter().map(|s| json!(s.hard)).collect();
            (member, json!(hard))
        };
        let members: BTreeMap<String, Value> = shares.members.into_iter().map(hard).collect();
        (json!(members), shares.problems)
    };
    // All cells: sh has two of three.
    let (members, problems) = share(
        json!([{"hard": {"requests.cpu": "10", "requests.memory": "100Gi", "pods": "100"}}]),
        &none,
    );
    assert_eq!(
        members,
        json!({
            "bj": [{"requests.cpu": "3333m", "requests.memory": "35791394133", "pods": "33"}],
            "sh": [{"requests.cpu": "6667m", "requests.memory": "71582788267", "pods": "67"}],
        })
    );
    assert!(problems.is_empty());
    // Some, by weight; where the tenant is and the pool is not there is nothing of it.
    let used = BTreeSet::from(["bj".to_owned()]);
    let gpus = json!([{"pool": "gpu", "priorityClasses": ["gpu"], "cells": [{"name": "sh-a", "weight": 3}, {"name": "nowhere"}],
        "hard": {"requests.nvidia.com/gpu": "8", "pods": "many"}}]);
    let (members, problems) = share(gpus, &used);
    assert_eq!(
        members,
        json!({"bj": [{"requests.nvidia.com/gpu": "0"}], "sh": [{"requests.nvidia.com/gpu": "8"}]})
    );
    assert_eq!(
        problems,
        [
            "pool gpu: no member has the cell nowhere",
            "pool gpu: pods: \"many\" is no quantity"
        ]
    );
}

proptest! {
    #[test]
    fn shares_come_to_the_quota(
        weights in proptest::collection::vec(0..50i32, 1..8),
        cpu in 0..1_000_000u32,
        pods in 0..10_000u32,
    ) {
        let cells: BTreeMap<String, String> =
            (0..weights.len()).map(|i| (format!("c{i}"), format!("m{}", i / 2))).collect();
        let list: Vec<Value> =
            weights.iter().enumerate().map(|(i, w)| json!({"name": format!("c{i}"), "weight": w})).collect();
        let quota = json!([{"cells": list, "hard": {"requests.cpu": format!("{cpu}m"), "pods": pods.to_string()}}]);
        let shares = shares(&serde_json::from_value::<Vec<_>>(quota).unwrap(), &cells, &BTreeSet::new());
        for (resource, whole) in [("requests.cpu", i128::from(cpu)), ("pods", i128::from(pods) * 1000)] {
            let parts = shares.members.values().flatten().map(|s| thousandths(&s.hard[resource]).unwrap());
            let parts: Vec<i128> = parts.collect();
            prop_assert!(parts.iter().all(|p| *p >= 0));
            let sum: i128 = parts.iter().sum();
            prop_assert_eq!(sum, if weights.iter().all(|w| *w == 0) { 0 } else { whole });
        }
    }
}

#[test]
fn freezes_are_switches_of_the_tenants_namespaces() {
    let shop = tenant(
        "shop",
        "2026-01-01T00:00:00Z",
        json!({
            "namespaces": ["shop", "shop-test"],
            "freezes": [{"name": "sale", "until": "2026-11-12T00:00:00Z", "reason": "11.11", "by": "alice"}],
        }),
    );
    let lines: Vec<StopLine> = freezes(&shop).collect();
    assert_eq!(lines.len(), 1);
    let spec = &lines[0].spec;
    assert_eq!(
        (spec.kind, &spec.tenants[..], spec.by.as_str()),
        (
            StopKind::Freeze,
            &["shop".to_owned(), "shop-test".to_owned()][..],
            "alice"
        )
    );
    assert_eq!(lines[0].name_any(), "sale of tenant shop");
}
