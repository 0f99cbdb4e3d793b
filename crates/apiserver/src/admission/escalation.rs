//! RBAC's own guard: nobody can grant rights that he does not have, unless he may `escalate` a
//! role or `bind` one.

use gantry_machinery::status::Failure;
use serde_json::Value;

use crate::{
    api::Cx,
    authn::MASTERS,
    authz::{self, Attributes, Rule},
    errors, object,
};

pub fn check(cx: &Cx, object: &Value, old: Option<&Value>) -> Result<(), Failure> {
    if cx.user.in_group(MASTERS) {
        return Ok(());
    }
    let resource = cx.resource().clone();
    let binding = resource.plural.ends_with("bindings");
    let parts: &[&str] = if binding {
        &["roleRef", "subjects"]
    } else {
        &["rules", "aggregationRule"]
    };
    if old.is_some_and(|old| parts.iter().all(|p| old.get(*p) == object.get(*p))) {
        return Ok(());
    }
    let namespace = cx.target.namespace.clone();
    let name = object::name(object).to_owned();
    let wanted: Vec<Rule> = if binding {
        let kind = object::text(object, "/roleRef/kind");
        let role = object::text(object, "/roleRef/name");
        let a = Attributes {
            verb: "bind",
            group: authz::GROUP,
            resource: if kind == "ClusterRole" {
                "clusterroles"
            } else {
                "roles"
            },
            namespace: &namespace,
            name: role,
            ..Attributes::default()
        };
        if cx.may(&a) {
            return Ok(());
        }
        match cx.api.authorizer.role(cx.store(), &namespace, kind, role) {
            Some(rules) => rules.to_vec(),
            None => return Err(errors::not_found(&resource, role)),
        }
    } else {
        let a = Attributes {
            verb: "escalate",
            group: authz::GROUP,
            resource: &resource.plural,
            namespace: &namespace,
            name: &name,
            ..Attributes::default()
        };
        if cx.may(&a) {
            return Ok(());
        }
        authz::rules_of(object)
    };
    let aggregates = |role: &Value| {
        let selectors = role.pointer("/aggregationRule/clusterRoleSelectors");
        selectors
            .and_then(Value::as_array)
            .is_some_and(|s| !s.is_empty())
    };
    let aggregating = !binding && (aggregates(object) || old.is_some_and(aggregates));
    let held = cx.api.authorizer.held(cx.store(), &cx.user, &namespace);
    let missing = authz::uncovered(&held, &wanted);
    if missing.is_empty() {
        // What is gathered may be anything.
        if aggregating && !authz::uncovered(&held, &everything()).is_empty() {
            return Err(errors::forbidden(
                &resource,
                &name,
                "must have cluster-admin privileges to use an aggregationRule",
            ));
        }
        return Ok(());
    }
    let groups: Vec<String> = cx.user.groups.iter().map(|g| format!("{g:?}")).collect();
    let lines: Vec<String> = missing.iter().map(Rule::describe).collect();
    Err(errors::forbidden(
        &resource,
        &name,
        &format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            cx.user.name,
            groups.join(" "),
            lines.join("\n")
        ),
    ))
}

fn everything() -> [Rule; 2] {
    let any = || vec!["*".to_owned()];
    let resources = Rule {
        verbs: any(),
        groups: any(),
        resources: any(),
        ..Rule::default()
    };
    let paths = Rule {
        verbs: any(),
        urls: any(),
        ..Rule::default()
    };
    [resources, paths]
}
