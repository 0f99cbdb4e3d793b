//! What a change of a spec means: verbs, by kind.

use std::collections::BTreeSet;

use gantry_records::{Verb, diff};
use serde_json::{Value, json};

/// One thing that a write has done.
#[derive(Clone, Debug, PartialEq)]
pub struct Deed {
    pub verb: Verb,
    /// Tells deeds of one verb in one write apart.
    pub part: String,
    pub why: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
    /// Who did it, where the object says so and the API server has checked it.
    pub by: Option<(String, Vec<String>)>,
}

impl Deed {
    fn new(verb: Verb) -> Self {
        Self {
            verb,
            part: String::new(),
            why: String::new(),
            before: None,
            after: None,
            by: None,
        }
    }

    fn between(verb: Verb, before: &Value, after: &Value) -> Option<Self> {
        let (was, is) = diff::between(before, after)?;
        Some(Self {
            before: Some(was),
            after: Some(is),
            ..Self::new(verb)
        })
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn truth(value: &Value, key: &str) -> bool {
    value[key].as_bool().unwrap_or_default()
}

/// What making an object of this kind means.
pub fn made(kind: &str, spec: &Value) -> Deed {
    let (verb, after) = match kind {
        "Release" => (Verb::Release, spec["revision"].clone()),
        "StopLine" if spec["kind"] == "Freeze" => (Verb::Freeze, spec.clone()),
        "StopLine" => (Verb::Stop, spec.clone()),
        _ => (Verb::Create, spec.clone()),
    };
    let why = match kind {
        "Release" => text(spec, "note"),
        "StopLine" => text(spec, "reason"),
        _ => String::new(),
    };
    Deed {
        why,
        after: Some(diff::small(after)),
        ..Deed::new(verb)
    }
}

/// What deleting one means.
pub fn unmade(kind: &str, spec: &Value) -> Deed {
    let verb = match kind {
        "StopLine" => Verb::Go,
        _ => Verb::Delete,
    };
    Deed {
        before: Some(diff::small(spec.clone())),
        ..Deed::new(verb)
    }
}

/// What changing one means. `by_hub`: the hub wrote it.
pub fn changed(kind: &str, before: &Value, after: &Value, by_hub: bool) -> Vec<Deed> {
    match kind {
        "Release" => release(before, after),
        "Group" => {
            // What a release brought is the release's doing, and recorded with it.
            let carried: &[&str] = if by_hub { &["revision"] } else { &[] };
            let mut deeds = pick(Verb::Scale, before, after, "replicas");
            deeds.extend(moves(before, after));
            let (before, after) = (&without_moves(before), &without_moves(after));
            deeds.extend(rest(before, after, &[&["replicas"], carried].concat()));
            deeds
        }
        "Cluster" => {
            let mut deeds = Vec::new();
            let stop = &after["stopTheLine"];
            if before["stopTheLine"] != *stop {
                let verb = if text(stop, "reason").is_empty() {
                    Verb::Go
                } else {
                    Verb::Stop
                };
                deeds.extend(
                    pick(verb, before, after, "stopTheLine")
                        .into_iter()
                        .map(|d| Deed {
                            why: text(stop, "reason"),
                            ..d
                        }),
                );
            }
            deeds.extend(rest(before, after, &["stopTheLine"]));
            deeds
        }
        "Tenant" => tenant(before, after),
        _ => rest(before, after, &[]),
    }
}

/// The deed that changing one field is.
fn pick(verb: Verb, before: &Value, after: &Value, field: &str) -> Vec<Deed> {
    let one = |v: &Value| match &v[field] {
        Value::Null => json!({}),
        value => json!({field: value}),
    };
    Deed::between(verb, &one(before), &one(after))
        .into_iter()
        .collect()
}

/// A change of whatever is not one of `fields`.
fn rest(before: &Value, after: &Value, fields: &[&str]) -> Vec<Deed> {
    let without = |value: &Value| {
        let mut value = value.clone();
        if let Some(members) = value.as_object_mut() {
            members.retain(|key, _| !fields.contains(&key.as_str()));
        }
        value
    };
    Deed::between(Verb::Change, &without(before), &without(after))
        .into_iter()
        .collect()
}

/// Moves of instances to nodes that are asked for, and those that are no longer: from where, to where.
fn moves(before: &Value, after: &Value) -> Vec<Deed> {
    let wishes = |spec| list(spec, "instances").iter();
    let to = |spec, name: &Value| {
        let found = wishes(spec).find(|w| w["name"] == *name);
        found.map_or(Value::Null, |w| w["toNode"].clone())
    };
    let at = |name: &Value, node: &Value| {
        let node = node.as_str().filter(|n| !n.is_empty());
        json!({"instance": name, "node": node.unwrap_or("?")})
    };
    let deed = |wish: &Value, why, before, after| Deed {
        part: format!("node/{}", text(wish, "name")),
        why,
        before: Some(before),
        after: Some(after),
        ..Deed::new(Verb::Change)
    };
    let asked = wishes(after).filter_map(|w| {
        let (name, now) = (&w["name"], &w["toNode"]);
        let new = !now.is_null() && to(before, name) != *now;
        let (was, is) = (at(name, &now["from"]), at(name, &now["name"]));
        new.then(|| deed(w, text(w, "reason"), was, is))
    });
    let taken_back = wishes(before).filter_map(|w| {
        let (name, was) = (&w["name"], &w["toNode"]);
        let gone = !was.is_null() && to(after, name).is_null();
        let wished = json!({"instance": name, "toNode": was["name"]});
        gone.then(|| deed(w, String::new(), wished, json!({"instance": name})))
    });
    asked.chain(taken_back).collect()
}

/// A Group's spec without what [`moves`] tells of.
fn without_moves(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let Some(wishes) = spec.get_mut("instances").and_then(Value::as_array_mut) else {
        return spec;
    };
    for wish in wishes.iter_mut().filter_map(Value::as_object_mut) {
        let moved = wish.remove("toNode").is_some();
        let other = wish.iter().any(|(key, value)| {
            let words = ["name", "by", "reason"].contains(&key.as_str());
            !words && *value != json!(false)
        });
        if moved && !other {
            wish.clear();
        }
    }
    wishes.retain(|w| w.as_object().is_none_or(|w| !w.is_empty()));
    if wishes.is_empty() {
        // As it is written where there are none.
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("instances");
        }
    }
    spec
}

fn release(before: &Value, after: &Value) -> Vec<Deed> {
    let mut deeds = Vec::new();
    for (field, on, off) in [
        ("paused", Verb::Pause, Some(Verb::Continue)),
        ("abort", Verb::Abort, None),
        ("rollback", Verb::Rollback, None),
    ] {
        match (truth(before, field), truth(after, field)) {
            (false, true) => deeds.push(Deed::new(on)),
            (true, false) => deeds.extend(off.map(Deed::new)),
            _ => {}
        }
    }
    for (field, verb) in [
        ("acceptedThrough", Verb::Accept),
        ("pace", Verb::Pace),
        ("skip", Verb::Skip),
        ("retry", Verb::Retry),
    ] {
        deeds.extend(pick(verb, before, after, field));
    }
    let said = list(before, "approvals");
    for verdict in list(after, "approvals")
        .iter()
        .filter(|v| !said.contains(v))
    {
        let reject = truth(verdict, "reject");
        let groups = list(verdict, "groups").iter();
        let groups = groups.filter_map(|g| g.as_str().map(str::to_owned));
        deeds.push(Deed {
            part: format!("{}/{}", verdict["gate"], verdict["batch"]),
            why: text(verdict, "note"),
            after: Some(json!({"gate": verdict["gate"], "batch": verdict["batch"]})),
            by: Some((text(verdict, "by"), groups.collect())),
            ..Deed::new(if reject { Verb::Reject } else { Verb::Approve })
        });
    }
    let emergency = &after["emergency"];
    if before["emergency"] != *emergency && !emergency.is_null() {
        deeds.push(Deed {
            why: text(emergency, "reason"),
            after: Some(json!({"gates": emergency["gates"]})),
            by: Some((text(emergency, "by"), vec![])),
            ..Deed::new(Verb::Emergency)
        });
    }
    let buttons = [
        "paused",
        "abort",
        "rollback",
        "acceptedThrough",
        "pace",
        "skip",
        "retry",
        "approvals",
        "emergency",
    ];
    deeds.extend(rest(before, after, &buttons));
    deeds
}

fn tenant(before: &Value, after: &Value) -> Vec<Deed> {
    let people = |spec: &Value| -> BTreeSet<(String, String)> {
        let roles = list(spec, "roles").iter().flat_map(|r| {
            let role = text(r, "role");
            let of = |field: &'static str, kind: &'static str| {
                let names = list(r, field).iter().filter_map(Value::as_str);
                let names: Vec<String> = names.map(|n| format!("{kind} {n}")).collect();
                names
            };
            let all = [of("users", "user"), of("groups", "group")].concat();
            all.into_iter().map(move |who| (role.clone(), who))
        });
        roles.collect()
    };
    let (had, have) = (people(before), people(after));
    let named = |of: Vec<&(String, String)>| {
        let mut roles = serde_json::Map::new();
        for (role, who) in of {
            let entry = roles.entry(role.clone()).or_insert_with(|| json!([]));
            if let Some(names) = entry.as_array_mut() {
                names.push(json!(who));
            }
        }
        Some(diff::small(roles.into()))
    };
    let mut deeds = Vec::new();
    let granted: Vec<_> = have.difference(&had).collect();
    if !granted.is_empty() {
        deeds.push(Deed {
            after: named(granted),
            ..Deed::new(Verb::Grant)
        });
    }
    let revoked: Vec<_> = had.difference(&have).collect();
    if !revoked.is_empty() {
        deeds.push(Deed {
            before: named(revoked),
            ..Deed::new(Verb::Revoke)
        });
    }
    let (old, new) = (list(before, "freezes"), list(after, "freezes"));
    for freeze in new.iter().filter(|f| !old.contains(f)) {
        deeds.push(Deed {
            part: text(freeze, "name"),
            why: text(freeze, "reason"),
            after: Some(diff::small(freeze.clone())),
            by: Some((text(freeze, "by"), vec![])),
            ..Deed::new(Verb::Freeze)
        });
    }
    let stays = |f: &Value| new.iter().any(|n| n["name"] == f["name"]);
    for freeze in old.iter().filter(|f| !stays(f)) {
        deeds.push(Deed {
            part: text(freeze, "name"),
            before: Some(diff::small(freeze.clone())),
            ..Deed::new(Verb::Go)
        });
    }
    deeds.extend(rest(before, after, &["roles", "freezes"]));
    deeds
}
