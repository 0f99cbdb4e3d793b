//! OwnerReferencesPermissionEnforcement: who gives an object an owner decides when it is deleted, and
//! with `blockOwnerDeletion` when the owner is.

use serde_json::Value;

use crate::{api::Cx, authz::Attributes, object};

fn owners(object: &Value) -> &[Value] {
    let owners = object::meta(object).and_then(|m| m.get("ownerReferences"));
    owners.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn blocks(owner: &Value) -> bool {
    owner.get("blockOwnerDeletion") == Some(&Value::Bool(true))
}

/// The owners of an object whose deletion it blocks now, and did not before.
fn newly_blocked<'a>(object: &'a Value, old: Option<&Value>) -> Vec<&'a Value> {
    let before = old.map_or(&[][..], owners);
    let blocked = |owner: &Value| {
        let known = before.iter().find(|o| o.get("uid") == owner.get("uid"));
        known.is_some_and(blocks)
    };
    let now = owners(object).iter();
    now.filter(|owner| blocks(owner) && !blocked(owner))
        .collect()
}

pub fn check(cx: &Cx, object: &Value, old: Option<&Value>) -> Result<(), String> {
    if owners(object) == old.map_or(&[][..], owners) {
        return Ok(());
    }
    let resource = cx.resource();
    let namespace = &cx.target.namespace;
    let deletion = Attributes {
        verb: "delete",
        group: &resource.group,
        resource: &resource.plural,
        subresource: &cx.target.subresource,
        namespace,
        name: object::name(object),
        ..Attributes::default()
    };
    // Who creates an object may do with it what he likes.
    if old.is_some() && !cx.may(&deletion) {
        return Err("cannot set an ownerRef on a resource you can't delete: , <nil>".to_owned());
    }
    let registry = cx.api.registry.read().clone();
    for owner in newly_blocked(object, old) {
        let (version, kind) = (
            object::text(owner, "/apiVersion"),
            object::text(owner, "/kind"),
        );
        let Some(entry) = registry.of_kind(version, kind) else {
            return Err(format!(
                "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {version} Kind {kind}: no matches for kind \"{kind}\" in version \"{version}\""
            ));
        };
        let of = &entry.resource;
        let finalizing = Attributes {
            verb: "update",
            group: &of.group,
            resource: &of.plural,
            subresource: "finalizers",
            namespace: if of.namespaced() {
                namespace.as_str()
            } else {
                ""
            },
            name: object::text(owner, "/name"),
            ..Attributes::default()
        };
        if !cx.may(&finalizing) {
            return Err("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn owners_that_are_newly_blocked() {
        let owner = |uid: &str, blocks: bool| json!({"uid": uid, "blockOwnerDeletion": blocks});
        let object = |owners: &[Value]| json!({"metadata": {"ownerReferences": owners}});
        for (now, before, expected) in [
            (vec![], None, vec![]),
            (vec![owner("a", true), owner("b", false)], None, vec!["a"]),
            (vec![owner("a", true)], Some(vec![owner("a", true)]), vec![]),
            (
                vec![owner("a", true)],
                Some(vec![owner("a", false)]),
                vec!["a"],
            ),
            (
                vec![owner("b", true)],
                Some(vec![owner("a", true)]),
                vec!["b"],
            ),
        ] {
            let (now, before) = (object(&now), before.map(|b| object(&b)));
            let found: Vec<&str> = newly_blocked(&now, before.as_ref())
                .iter()
                .map(|owner| object::text(owner, "/uid"))
                .collect();
            assert_eq!(found, expected, "{now}");
        }
    }
}
