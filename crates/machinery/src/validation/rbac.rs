//! Roles and their bindings.

use serde_json::Value;

use super::{
    errors::Errors,
    names, selectors,
    value::{at, list, same, text},
};
use crate::path::Path;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn rbac(kind: &str, object: &Value, e: &mut Errors) {
    match kind {
        "Role" => rules(object, true, e),
        "ClusterRole" => {
            rules(object, false, e);
            let path = Path::new("aggregationRule");
            let path = path.child("clusterRoleSelectors");
            let all = at(object, "aggregationRule");
            if !all.is_null() && list(all, "clusterRoleSelectors").is_empty() {
                e.required(
                    &path,
                    "at least one clusterRoleSelector required if aggregationRule is non-nil",
                );
            }
            for (i, selector) in list(all, "clusterRoleSelectors").iter().enumerate() {
                selectors::label_selector(selector, &path.index(i), e);
            }
        }
        "RoleBinding" => binding(object, &["Role", "ClusterRole"], true, e),
        "ClusterRoleBinding" => binding(object, &["ClusterRole"], false, e),
        _ => {}
    }
}

fn rules(object: &Value, namespaced: bool, e: &mut Errors) {
    let path = Path::new("rules");
    for (i, rule) in list(object, "rules").iter().enumerate() {
        let path = path.index(i);
        if list(rule, "verbs").is_empty() {
            e.required(
                &path.child("verbs"),
                "verbs must contain at least one value",
            );
        }
        let urls = list(rule, "nonResourceURLs");
        if !urls.is_empty() {
            if namespaced {
                e.invalid(
                    &path.child("nonResourceURLs"),
                    at(rule, "nonResourceURLs"),
                    "namespaced rules cannot apply to non-resource URLs",
                );
            }
            let others = ["apiGroups", "resources", "resourceNames"];
            if others.iter().any(|f| !list(rule, f).is_empty()) {
                e.invalid(
                    &path.child("nonResourceURLs"),
                    at(rule, "nonResourceURLs"),
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        if list(rule, "apiGroups").is_empty() {
            e.required(
                &path.child("apiGroups"),
                "resource rules must supply at least one api group",
            );
        }
        if list(rule, "resources").is_empty() {
            e.required(
                &path.child("resources"),
                "resource rules must supply at least one resource",
            );
        }
    }
}

fn binding(object: &Value, kinds: &[&str], namespaced: bool, e: &mut Errors) {
    let reference = at(object, "roleRef");
    let path = Path::new("roleRef");
    if text(reference, "apiGroup") != GROUP {
        e.not_supported(
            &path.child("apiGroup"),
            text(reference, "apiGroup"),
            &[GROUP],
        );
    }
    let kind = text(reference, "kind");
    if !kinds.contains(&kind) {
        e.not_supported(&path.child("kind"), kind, kinds);
    }
    let name = text(reference, "name");
    if name.is_empty() {
        e.required(&path.child("name"), "");
    } else {
        e.invalid_each(&path.child("name"), name, names::path_segment(name));
    }
    let path = Path::new("subjects");
    for (i, subject) in list(object, "subjects").iter().enumerate() {
        let path = path.index(i);
        if text(subject, "name").is_empty() {
            e.required(&path.child("name"), "");
        }
        let group = text(subject, "apiGroup");
        match text(subject, "kind") {
            "ServiceAccount" => {
                let name = text(subject, "name");
                if !name.is_empty() {
                    e.invalid_each(&path.child("name"), name, names::dns1123_subdomain(name));
                }
                if !group.is_empty() {
                    e.not_supported(&path.child("apiGroup"), group, &[""]);
                }
                if !namespaced && text(subject, "namespace").is_empty() {
                    e.required(&path.child("namespace"), "");
                }
            }
            "User" | "Group" => {
                if group != GROUP {
                    e.not_supported(&path.child("apiGroup"), group, &[GROUP]);
                }
            }
            kind => e.not_supported(
                &path.child("kind"),
                kind,
                &["ServiceAccount", "User", "Group"],
            ),
        }
    }
}

/// A binding is to one role for life.
pub fn binding_update(new: &Value, old: &Value, e: &mut Errors) {
    let reference = at(new, "roleRef");
    if !same(reference, at(old, "roleRef")) {
        let shown = super::security::internal(
            reference,
            &[("APIGroup", "apiGroup"), ("Kind", "kind"), ("Name", "name")],
        );
        e.invalid_shown(&Path::new("roleRef"), &shown, "cannot change roleRef");
    }
}
