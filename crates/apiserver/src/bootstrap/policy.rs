//! The roles and bindings of Kubernetes, made at the first start and completed at every other: what
//! was added to them stays, what was taken away comes back, unless an annotation says otherwise.

use std::sync::Arc;

use gantry_machinery::status::Failure;
use serde_json::{Value, json};

use super::{ensure, own};
use crate::{
    api::{Api, Cx},
    authz::{self, GROUP},
    object,
    rest::{
        delete,
        update::{self, Change, Track},
    },
};

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// The table of roles and bindings.
pub fn roles() -> Value {
    serde_json::from_str(include_str!("../../data/rbac.json")).unwrap_or_default()
}

pub async fn reconcile(api: &Arc<Api>) -> Result<(), Failure> {
    let table = roles();
    for plural in [
        "clusterroles",
        "clusterrolebindings",
        "roles",
        "rolebindings",
    ] {
        let all = table.get(plural).and_then(Value::as_array);
        for object in all.into_iter().flatten() {
            one(api, plural, marked(object.clone())).await?;
        }
    }
    Ok(())
}

async fn one(api: &Arc<Api>, plural: &str, wanted: Value) -> Result<(), Failure> {
    let namespace = object::meta_text(&wanted, "namespace").to_owned();
    let Some(mut cx) = own(api, GROUP, "v1", plural, &namespace) else {
        return Ok(());
    };
    let key = cx.key(object::name(&wanted));
    let Some(stored) = api.store.get(&key) else {
        return ensure(api, GROUP, plural, &namespace, wanted).await;
    };
    let there = object::parse(&stored.value)?;
    let notes = object::meta(&there).and_then(|m| m.get("annotations"));
    let mode = notes
        .and_then(|n| n.get(AUTO_UPDATE))
        .and_then(Value::as_str);
    if mode == Some("false") {
        return Ok(());
    }
    if there.get("roleRef") != wanted.get("roleRef") {
        // A binding is to one role for life.
        let options = delete::Options {
            uid: object::meta_text(&there, "uid").to_owned(),
            ..delete::Options::default()
        };
        delete::one(&mut cx, object::name(&wanted), &options).await?;
        return ensure(api, GROUP, plural, &namespace, wanted).await;
    }
    if completed(&there, &wanted).is_none() {
        return Ok(());
    }
    complete(&mut cx, &wanted).await
}

async fn complete(cx: &mut Cx, wanted: &Value) -> Result<(), Failure> {
    cx.target.name = object::name(wanted).to_owned();
    let change = Change {
        subresource: String::new(),
        track: Track::Update,
        given: None,
        retries: 16,
    };
    update::modify(cx, change, |_, old| {
        Ok(completed(old, wanted).unwrap_or_else(|| old.clone()))
    })
    .await?;
    Ok(())
}

fn list(object: &Value, pointer: &str) -> Vec<Value> {
    let list = object.pointer(pointer).and_then(Value::as_array);
    list.cloned().unwrap_or_default()
}

/// A role or binding with what it lacks; `None` where it lacks nothing.
fn completed(there: &Value, wanted: &Value) -> Option<Value> {
    let mut new = there.clone();
    for part in ["labels", "annotations"] {
        let marks = object::meta(wanted).and_then(|m| m.get(part));
        let meta = object::meta_mut(&mut new)?;
        let map = meta.entry(part).or_insert_with(|| json!({}));
        let map = map.as_object_mut()?;
        for (key, value) in marks.and_then(Value::as_object).into_iter().flatten() {
            map.entry(key).or_insert_with(|| value.clone());
        }
    }
    let missing = |pointer: &str| -> Vec<Value> {
        let held = list(there, pointer);
        let wanted = list(wanted, pointer).into_iter();
        wanted.filter(|w| !held.contains(w)).collect()
    };
    let (field, more) = if wanted.get("roleRef").is_some() {
        ("subjects", missing("/subjects"))
    } else if wanted.get("aggregationRule").is_some() {
        // The rules are gathered; what is wanted are the selectors.
        let pointer = "/aggregationRule/clusterRoleSelectors";
        let more = missing(pointer);
        if !more.is_empty() {
            let all: Vec<Value> = list(there, pointer).into_iter().chain(more).collect();
            new["aggregationRule"] = json!({"clusterRoleSelectors": all});
        }
        ("rules", vec![])
    } else {
        let lacking = authz::uncovered(&authz::rules_of(there), &authz::rules_of(wanted));
        let rules = lacking.iter().map(serde_json::to_value);
        ("rules", rules.filter_map(Result::ok).collect())
    };
    if !more.is_empty() {
        let all: Vec<Value> = list(there, &format!("/{field}"))
            .into_iter()
            .chain(more)
            .collect();
        new[field] = all.into();
    }
    (new != *there).then_some(new)
}

/// Marks a role or binding as one that comes with the server.
fn marked(mut object: Value) -> Value {
    if let Some(meta) = object::meta_mut(&mut object) {
        for (part, name, value) in [
            ("labels", "kubernetes.io/bootstrapping", "rbac-defaults"),
            ("annotations", AUTO_UPDATE, "true"),
        ] {
            let map = meta.entry(part).or_insert_with(|| json!({}));
            if let Some(map) = map.as_object_mut() {
                map.insert(name.to_owned(), value.into());
            }
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(plural: &str, name: &str) -> Value {
        let table = roles();
        let all = table[plural].as_array().expect("a list").clone();
        let found = all.into_iter().find(|o| object::name(o) == name);
        marked(found.expect("there"))
    }

    #[test]
    fn what_was_taken_away_comes_back_and_what_was_added_stays() {
        let wanted = named("clusterroles", "system:kube-dns");
        assert_eq!(completed(&wanted, &wanted), None);
        let mut there = wanted.clone();
        there["rules"][0]["resources"] = json!(["services"]);
        there["rules"].as_array_mut().expect("a list").push(json!({
            "apiGroups": ["x"], "resources": ["y"], "verbs": ["get"],
        }));
        let new = completed(&there, &wanted).expect("lacks something");
        assert_eq!(new["rules"][0], there["rules"][0]);
        assert_eq!(new["rules"][1], there["rules"][1]);
        assert_eq!(
            new["rules"][2],
            json!({"apiGroups": [""], "resources": ["endpoints"], "verbs": ["list", "watch"]})
        );
        let wanted = named("clusterrolebindings", "cluster-admin");
        let mut there = wanted.clone();
        there["subjects"] = json!([]);
        let new = completed(&there, &wanted).expect("lacks something");
        assert_eq!(new["subjects"], wanted["subjects"]);
    }

    #[test]
    fn every_binding_is_to_a_role_of_the_table() {
        let table = roles();
        for (bindings, roles) in [
            ("clusterrolebindings", "clusterroles"),
            ("rolebindings", "roles"),
        ] {
            for binding in table[bindings].as_array().expect("a list") {
                let role = object::text(binding, "/roleRef/name");
                let place = object::meta_text(binding, "namespace");
                let found =
                    table[roles].as_array().expect("a list").iter().any(|r| {
                        object::name(r) == role && object::meta_text(r, "namespace") == place
                    });
                assert!(found, "{role}");
            }
        }
    }
}
