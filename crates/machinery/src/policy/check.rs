//! Type checking: whether a policy's expressions fit the kinds that it is about.

use serde_json::{Value as Json, json};

use super::{declare, expression::Compiler, expression::Wanted, validate::param_kind};
use crate::{
    resource::Resource,
    validation::value::{at, list, text},
};

/// Most kinds that a policy is checked against.
const MOST_KINDS: usize = 10;

fn texts<'a>(value: &'a Json, name: &str) -> Vec<&'a str> {
    let mut all: Vec<&str> = list(value, name).iter().filter_map(Json::as_str).collect();
    all.sort_unstable();
    all
}

/// The resources that a policy names without wildcards, as `(group, version, plural)`.
pub fn kinds_to_check(policy: &Json) -> Vec<(String, String, String)> {
    let mut found = vec![];
    for rule in list(at(at(policy, "spec"), "matchConstraints"), "resourceRules") {
        let (groups, versions) = (texts(rule, "apiGroups"), texts(rule, "apiVersions"));
        if groups.iter().chain(&versions).any(|t| t.contains('*')) {
            continue;
        }
        for group in &groups {
            for version in &versions {
                for resource in texts(rule, "resources") {
                    if !resource.contains(['*', '/']) {
                        found.push((
                            (*group).to_owned(),
                            (*version).to_owned(),
                            resource.to_owned(),
                        ));
                    }
                }
            }
        }
    }
    found.sort();
    found.dedup();
    found.truncate(MOST_KINDS);
    found
}

/// The `expressionWarnings` of a policy: `resources` are those that it is about, and `params` finds
/// the resource of a kind by its apiVersion and name.
pub fn check_types<'r>(
    policy: &Json,
    resources: &[&Resource],
    params: impl Fn(&str, &str) -> Option<&'r Resource>,
) -> Vec<Json> {
    let spec = at(policy, "spec");
    let param = param_kind(spec).and_then(|(version, kind)| params(version, kind));
    let param = param.map(|r| declare::of_kind(&r.kind, r.schema()));
    let mut warnings = vec![];
    let mut check = |field: String, expression: &str| {
        let mut found = vec![];
        for resource in resources {
            let object = declare::of_kind(&resource.kind, resource.schema());
            let mut compiler = Compiler::typed(object, param.clone());
            for variable in list(spec, "variables") {
                // What is wrong with a variable shows where it is read.
                let _ = compiler.variable(text(variable, "name"), text(variable, "expression"));
            }
            if let Err(issues) = compiler.compile(expression, Wanted::Any, true) {
                let gvk = format!(
                    "{}/{}, Kind={}",
                    resource.group, resource.version, resource.kind
                );
                found.push(format!("{gvk}: {issues}\n"));
            }
        }
        if !found.is_empty() {
            warnings.push(json!({"fieldRef": field, "warning": found.join("\n")}));
        }
    };
    for (i, validation) in list(spec, "validations").iter().enumerate() {
        let field = |name: &str| format!("spec.validations[{i}].{name}");
        check(field("expression"), text(validation, "expression"));
        match text(validation, "messageExpression") {
            "" => {}
            message => check(field("messageExpression"), message),
        }
    }
    warnings
}
