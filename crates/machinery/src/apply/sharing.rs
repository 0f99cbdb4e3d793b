//! Laws of fields with several owners: who conflicts with whom, who takes over, who keeps what.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    laws::{applied, at, bare, is_bare, object, owners, schema, spec, updated},
    types::{Type, fields_of},
    *,
};
use crate::status::Failure;

fn fields(object: &Value) -> FieldSet {
    fields_of(Type::of(schema()), object)
}

/// What a manager owns by an operation and in a subresource.
fn owned(object: &Value, manager: &str, operation: &str, subresource: &str) -> FieldSet {
    let entries = object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array);
    let mine = |e: &&Value| {
        e["manager"] == manager
            && e["operation"] == operation
            && e.get("subresource").and_then(Value::as_str).unwrap_or("") == subresource
    };
    let entry = entries.into_iter().flatten().find(mine);
    entry.map_or_else(FieldSet::new, |e| {
        FieldSet::from_fields_v1(&e["fieldsV1"]).unwrap()
    })
}

fn applies(object: &Value, manager: &str) -> FieldSet {
    owned(object, manager, "Apply", "")
}

/// The places at which two configurations say different things: single values, members of maps,
/// fields of list items, atomics as a whole. Members of sets cannot differ.
fn differing(one: &Value, two: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for name in ["a", "b", "c", "whole", "plain"] {
        if let (Some(one), Some(two)) = (one.get(name), two.get(name))
            && one != two
        {
            found.insert(format!(".spec.{name}"));
        }
    }
    let members = |v: &Value, name: &str| v.get(name).and_then(Value::as_object).cloned();
    if let (Some(one), Some(two)) = (members(one, "map"), members(two, "map")) {
        for (key, value) in one {
            if two.get(&key).is_some_and(|other| *other != value) {
                found.insert(format!(".spec.map.{key}"));
            }
        }
    }
    let items = |v: &Value| v["keyed"].as_array().cloned().unwrap_or_default();
    for item in items(one) {
        let others = items(two);
        let Some(other) = others.iter().find(|o| o["k"] == item["k"]) else {
            continue;
        };
        for name in ["v", "w"] {
            if let (Some(one), Some(two)) = (item.get(name), other.get(name))
                && one != two
            {
                found.insert(format!(".spec.keyed[k={}].{name}", item["k"]));
            }
        }
    }
    found
}

fn shown(set: &FieldSet) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    set.each(&mut |path| {
        all.insert(path.iter().map(ToString::to_string).collect::<String>());
    });
    all
}

proptest! {
    #[test]
    fn one_conflicts_with_another_who_owns_a_different_value(one in spec("xy"), two in spec("xy")) {
        let live = applied(None, one.clone(), "one", false).unwrap();
        let expected = differing(&one, &two);
        match applied(Some(&live), two, "two", false) {
            Ok(_) => prop_assert!(expected.is_empty(), "no conflict about {expected:?}"),
            Err(failure) => {
                prop_assert_eq!((failure.code, &*failure.reason), (409, "Conflict"));
                let causes = failure.details.unwrap().causes;
                prop_assert!(causes.iter().all(|c| c.reason == "FieldManagerConflict"));
                let found: BTreeSet<String> = causes.into_iter().map(|c| c.field).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn force_takes_over_what_differs_and_nothing_else(one in spec("xy"), two in spec("xy")) {
        let live = applied(None, one.clone(), "one", false).unwrap();
        let new = applied(Some(&live), two.clone(), "two", true).unwrap();
        let lost = shown(&applies(&live, "one").difference(&applies(&new, "one")).leaves());
        prop_assert_eq!(lost, differing(&one, &two));
        // What was wanted is what is there, and who wanted it owns it.
        prop_assert!(differing(&new["spec"], &two).is_empty());
        let wanted = fields(&object(two.clone())).leaves();
        prop_assert!(is_bare(&two) || wanted.difference(&applies(&new, "two")).difference(&header()).is_empty());
        // And applying it again needs no force.
        prop_assert_eq!(applied(Some(&new), two, "two", false).unwrap(), new);
    }

    #[test]
    fn what_two_own_stays_when_one_lets_go(both in spec("xy")) {
        let live = applied(None, both.clone(), "one", false).unwrap();
        let live = applied(Some(&live), both.clone(), "two", false).unwrap();
        prop_assert_eq!(applies(&live, "one"), applies(&live, "two"));
        let left = applied(Some(&live), json!({}), "one", false).unwrap();
        prop_assert_eq!(&left["spec"], &live["spec"]);
        prop_assert!(applies(&left, "one").is_empty());
        prop_assert_eq!(applies(&left, "two"), applies(&live, "two"));
        // With the second goes the rest.
        let gone = applied(Some(&left), json!({}), "two", false).unwrap();
        prop_assert!(bare(&gone)["spec"].is_null() || is_bare(&both), "{}", gone);
    }

    #[test]
    fn an_owner_takes_along_what_only_it_owned(one in spec("xy"), two in spec("xy"), less in spec("xy")) {
        let live = applied(None, one, "one", true).unwrap();
        let live = applied(Some(&live), two, "two", true).unwrap();
        let new = applied(Some(&live), less, "two", true).unwrap();
        // Leaves that the second no longer names and nobody else owns are gone.
        let dropped = applies(&live, "two").difference(&applies(&new, "two"));
        let alone = dropped.difference(&applies(&live, "one")).leaves();
        let there = fields(&new).leaves();
        let left = shown(&alone.intersection(&there));
        // The key of an item stays as long as somebody owns anything of the item.
        prop_assert!(left.iter().all(|path| path.ends_with(".k")), "{:?}", left);
        // What the first owns is untouched.
        let kept = applies(&live, "one").intersection(&applies(&new, "one")).leaves();
        prop_assert!(kept.difference(&fields(&new)).is_empty());
    }

    #[test]
    fn entries_are_well_formed(one in spec("xy"), two in spec("xy"), edit in spec("xy"), three in spec("xy")) {
        let live = applied(None, one, "one", true).unwrap();
        let live = applied(Some(&live), two, "two", true).unwrap();
        let mut edited = object(edit);
        edited["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
        let live = updated(Some(&live), edited, "editor", 2);
        let live = applied(Some(&live), three, "two", true).unwrap();
        let entries = live["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        prop_assert!(check_entries(Some(&Value::from(entries.clone()))).is_ok());
        let mut ids = BTreeSet::new();
        for entry in &entries {
            let set = FieldSet::from_fields_v1(&entry["fieldsV1"]).unwrap();
            prop_assert!(!set.is_empty(), "an entry owns nothing: {}", entry);
            prop_assert_eq!(&set.to_fields_v1(), &entry["fieldsV1"]);
            let id = ["manager", "operation", "apiVersion", "subresource"].map(|f| entry[f].to_string());
            prop_assert!(ids.insert(id), "two entries of one manager: {}", entry);
            prop_assert_eq!(&entry["fieldsType"], "FieldsV1");
            // Nobody owns what the system writes.
            prop_assert!(set.intersection(&header()).is_empty());
        }
    }

    #[test]
    fn an_edit_takes_what_it_changed_from_who_applied_it(one in spec("xy"), edit in spec("xy")) {
        let live = applied(None, one.clone(), "one", false).unwrap();
        let mut edited = live.clone();
        edited["spec"] = edit.clone();
        let new = updated(Some(&live), edited, "editor", 2);
        let taken = differing(&one, &edit);
        let editor = shown(&owned(&new, "editor", "Update", ""));
        prop_assert!(taken.is_subset(&editor), "{:?} of {:?}", taken, editor);
        let applier = shown(&applies(&new, "one"));
        prop_assert!(applier.is_disjoint(&taken));
        // What neither changed stays the applier's alone.
        let same = shown(&applies(&live, "one").intersection(&fields(&new)).leaves());
        for path in same.difference(&taken) {
            prop_assert!(applier.contains(path), "{} is no longer owned", path);
        }
        // Applying again is in conflict about just that.
        match applied(Some(&new), one.clone(), "one", false) {
            Ok(again) => {
                prop_assert!(taken.is_empty());
                prop_assert!(differing(&again["spec"], &one).is_empty());
            }
            Err(failure) => {
                let causes = failure.details.unwrap().causes;
                let found: BTreeSet<String> = causes.into_iter().map(|c| c.field).collect();
                prop_assert_eq!(found, taken);
            }
        }
        let forced = applied(Some(&new), one.clone(), "one", true).unwrap();
        prop_assert!(differing(&forced["spec"], &one).is_empty());
    }

    #[test]
    fn applying_again_later_is_no_write(one in spec("xy"), two in spec("xy")) {
        let live = applied(None, one, "one", false).unwrap();
        let live = applied(Some(&live), two.clone(), "two", true).unwrap();
        let later = at("two", Operation::Apply, 9);
        let config = match is_bare(&two) {
            true => json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}}),
            false => object(two),
        };
        let mut again = apply(schema(), &ResetFields::none(), Some(&live), config, later, false).unwrap();
        keep_times(&live, &mut again);
        prop_assert_eq!(again, live);
    }

    #[test]
    fn duplicates_are_refused(mut one in spec("xy"), key in "[xy]", list in any::<bool>()) {
        let (field, items) = match list {
            true => ("keyed", json!([{"k": key, "v": 1}, {"k": key, "v": 2}])),
            false => ("set", json!([key, key])),
        };
        one[field] = items;
        let failure = applied(None, one, "one", true).unwrap_err();
        prop_assert_eq!(failure.code, 500);
        let what = format!(".spec.{field}: duplicate entries for key ");
        prop_assert!(failure.message.contains(&what), "{}", failure.message);
    }

    #[test]
    fn versions_keep_their_entries(one in spec("xy"), two in spec("xy")) {
        let live = applied(None, one.clone(), "one", false).unwrap();
        let expected = differing(&one, &two);
        let result = other_version(&live, two.clone(), false);
        if !expected.is_empty() {
            prop_assert_eq!(result.unwrap_err().code, 409);
            return Ok(());
        }
        let new = result.unwrap();
        let version = |name: &str| {
            let entries = new["metadata"]["managedFields"].as_array();
            let entry = entries.into_iter().flatten().find(|e| e["manager"] == name);
            entry.map(|e| e["apiVersion"].clone())
        };
        prop_assert!(version("one").is_none_or(|v| v == "g/v1"));
        prop_assert!(version("two").is_none_or(|v| v == "g/v2"));
        prop_assert_eq!(applies(&new, "one"), applies(&live, "one"));
    }
}

/// The same kind of object in another version, whose conversion changes nothing but its name.
fn other_version(live: &Value, spec: Value, force: bool) -> Result<Value, Failure> {
    let mut live = live.clone();
    live["apiVersion"] = "g/v2".into();
    let mut config = object(spec);
    config["apiVersion"] = "g/v2".into();
    if is_bare(&config["spec"])
        && let Some(map) = config.as_object_mut()
    {
        map.remove("spec");
    }
    let manager = Manager {
        api_version: "g/v2",
        ..at("two", Operation::Apply, 1)
    };
    apply(
        schema(),
        &ResetFields::none(),
        Some(&live),
        config,
        manager,
        force,
    )
}

/// What every object has and nobody owns.
fn header() -> FieldSet {
    let mut header = FieldSet::new();
    for path in [
        &["apiVersion"][..],
        &["kind"],
        &["metadata", "name"],
        &["metadata", "managedFields"],
    ] {
        let path: Vec<PathElement> = path.iter().map(|p| PathElement::field(p)).collect();
        header.insert(&path);
    }
    header
}

#[test]
fn a_manager_owns_apart_in_each_subresource() {
    let status = |live: &Value, spec: Value| {
        let manager = Manager {
            subresource: "status",
            ..at("one", Operation::Apply, 1)
        };
        let none = ResetFields::none();
        apply(schema(), &none, Some(live), object(spec), manager, false).unwrap()
    };
    let live = applied(None, json!({"a": 1}), "one", false).unwrap();
    let live = status(&live, json!({"b": 2}));
    assert_eq!(owners(&live), ["Apply one: .spec.a", "Apply one: .spec.b"]);
    assert_eq!(
        shown(&owned(&live, "one", "Apply", "status")),
        BTreeSet::from([".spec.b".to_owned()])
    );
    // To apply to the one takes nothing of the other.
    let live = applied(Some(&live), json!({"c": 3}), "one", false).unwrap();
    assert_eq!(live["spec"], json!({"b": 2, "c": 3}));
    let live = status(&live, json!({"a": 4}));
    assert_eq!(live["spec"], json!({"a": 4, "c": 3}));
}

#[test]
fn members_of_sets_have_owners_of_their_own() {
    let live = applied(None, json!({"set": ["a", "b"]}), "one", false).unwrap();
    let live = applied(Some(&live), json!({"set": ["b", "c"]}), "two", false).unwrap();
    assert_eq!(live["spec"]["set"], json!(["a", "b", "c"]));
    let live = applied(Some(&live), json!({"set": ["a"]}), "one", false).unwrap();
    assert_eq!(live["spec"]["set"], json!(["a", "b", "c"]));
    let live = applied(Some(&live), json!({"set": ["c"]}), "two", false).unwrap();
    assert_eq!(live["spec"]["set"], json!(["a", "c"]));
    let live = applied(Some(&live), json!({}), "one", false).unwrap();
    assert_eq!(live["spec"]["set"], json!(["c"]));
}

#[test]
fn items_of_lists_are_found_by_their_keys() {
    let item = |k: &str, field: &str, n: i64| json!({"k": k, field: n});
    let live = applied(
        None,
        json!({"keyed": [item("x", "v", 1), item("y", "v", 1)]}),
        "one",
        false,
    )
    .unwrap();
    // Another order, another field of one item, an item of its own.
    let live = applied(
        Some(&live),
        json!({"keyed": [item("z", "v", 3), item("x", "w", 2)]}),
        "two",
        false,
    )
    .unwrap();
    let keyed = live["spec"]["keyed"].as_array().cloned().unwrap();
    let x = json!({"k": "x", "v": 1, "w": 2});
    assert!(keyed.contains(&x), "{keyed:?}");
    assert_eq!(keyed.len(), 3);
    // The first lets go of both its items: one stays for what the second owns of it.
    let live = applied(Some(&live), json!({}), "one", false).unwrap();
    let keyed = live["spec"]["keyed"].as_array().cloned().unwrap();
    assert_eq!(keyed.len(), 2, "{keyed:?}");
    assert!(keyed.contains(&json!({"k": "x", "w": 2})), "{keyed:?}");
}
