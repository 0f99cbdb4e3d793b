//! Who names the parameters of a policy must be allowed to read them: what policies say about a
//! request would tell him what is in them.

use gantry_machinery::status::{Cause, Failure};
use serde_json::Value;

use crate::{
    api::Cx,
    authn::{MASTERS, UserInfo},
    authz::Attributes,
    object, rules,
};

/// Refuses policies and bindings whose parameters the user may not read.
pub fn check(cx: &Cx, object: &Value, old: Option<&Value>) -> Result<(), Failure> {
    if cx.user.in_group(MASTERS) {
        return Ok(());
    }
    let field = match cx.resource().kind.as_str() {
        kind if kind.ends_with("AdmissionPolicy") => "paramKind",
        kind if kind.ends_with("AdmissionPolicyBinding") => "paramRef",
        _ => return Ok(()),
    };
    let part = |object: &Value| {
        let part = object.pointer(&format!("/spec/{field}"));
        part.filter(|p| !p.is_null()).cloned()
    };
    let Some(wanted) = part(object) else {
        return Ok(());
    };
    let unchanged = old.is_some_and(|old| {
        part(old).as_ref() == Some(&wanted)
            && object::text(old, "/spec/policyName") == object::text(object, "/spec/policyName")
    });
    if unchanged {
        return Ok(());
    }
    let refused = if field == "paramKind" {
        kind(cx, &wanted)
    } else {
        reference(cx, object, &wanted)
    };
    let Some(why) = refused else { return Ok(()) };
    let cause = Cause {
        reason: "FieldValueForbidden".to_owned(),
        message: format!("Forbidden: {why}"),
        field: format!("spec.{field}"),
    };
    let resource = cx.resource().clone();
    Err(rules::invalid(&resource, object::name(object), vec![cause]))
}

/// Group and plural of the resource of a kind; all of them where it is not known.
fn resource_of(cx: &Cx, kind: &Value) -> (String, String) {
    let version = object::text(kind, "/apiVersion");
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let registry = cx.api.registry.read().clone();
    let entry = registry.of_kind(version, object::text(kind, "/kind"));
    let plural = entry.map_or("*", |e| e.resource.plural.as_str());
    (group.to_owned(), plural.to_owned())
}

fn kind(cx: &Cx, kind: &Value) -> Option<String> {
    let (group, resource) = resource_of(cx, kind);
    let may = cx.may(&Attributes {
        verb: "get",
        group: &group,
        resource: &resource,
        namespace: "*",
        name: "*",
        ..Attributes::default()
    });
    (!may).then(|| {
        format!(
            "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
            shown(&cx.user),
            object::text(kind, "/kind"),
            object::text(kind, "/apiVersion")
        )
    })
}

fn reference(cx: &Cx, binding: &Value, reference: &Value) -> Option<String> {
    let plural = if cx.resource().kind.starts_with("Mutating") {
        "mutatingadmissionpolicies"
    } else {
        "validatingadmissionpolicies"
    };
    let bucket = format!("{}/{plural}", super::super::hooks::GROUP);
    let policy = super::stored(cx, &bucket, object::text(binding, "/spec/policyName"));
    let kind = policy.as_ref().and_then(|p| p.pointer("/spec/paramKind"));
    let (group, resource) = match kind.filter(|k| !k.is_null()) {
        Some(kind) => resource_of(cx, kind),
        None => ("*".to_owned(), "*".to_owned()),
    };
    let name = object::text(reference, "/name");
    let verb = if name.is_empty() { "list" } else { "get" };
    let may = cx.may(&Attributes {
        verb,
        group: &group,
        resource: &resource,
        namespace: object::text(reference, "/namespace"),
        name,
        ..Attributes::default()
    });
    (!may).then(|| {
        format!(
            "user {} does not have {verb:?} permission on the object referenced by paramRef",
            shown(&cx.user)
        )
    })
}

/// A user as Go prints one.
fn shown(user: &UserInfo) -> String {
    let extra: Vec<String> = user
        .extra
        .iter()
        .map(|(key, values)| format!("{key}:[{}]", values.join(" ")))
        .collect();
    format!(
        "&{{{} {} [{}] map[{}]}}",
        user.name,
        user.uid,
        user.groups.join(" "),
        extra.join(" ")
    )
}
