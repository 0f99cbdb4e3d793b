//! FlowSchemas and priority levels.

use serde_json::Value;

use super::{
    errors::{Errors, show},
    names,
    value::{at, flag, has, int, list, text},
};
use crate::{flowcontrol, path::Path};

const LAST: i64 = 10_000;
const MOST_QUEUES: i64 = 10_000_000;
/// Bits of the hash that picks a flow's queues.
const HASH_BITS: u32 = 60;

pub fn flow_control(kind: &str, object: &Value, e: &mut Errors) {
    let name = text(at(object, "metadata"), "name");
    let spec = at(object, "spec");
    let path = Path::new("spec");
    let plural = match kind {
        "FlowSchema" => {
            schema(name, spec, &path, e);
            "flowschemas"
        }
        _ => {
            level(name, spec, &path, e);
            "prioritylevelconfigurations"
        }
    };
    if !flowcontrol::MANDATORY.contains(&name) {
        return;
    }
    let fixed = flowcontrol::built_in(plural).get(name);
    let (mut given, mut fixed) = (spec.clone(), fixed.cloned().unwrap_or_default());
    let mut except = "";
    if name == "exempt" {
        for spec in [&mut given, &mut fixed] {
            if let Some(spec) = spec.as_object_mut()
                && spec.remove("exempt").is_some()
            {
                except = " except the 'spec.exempt' field";
            }
        }
    }
    if given != fixed {
        let detail = format!("spec of '{name}'{except} must equal the fixed value");
        e.invalid(&path, spec, &detail);
    }
}

/// Conditions have types, each its own.
pub fn status(status: &Value, path: &Path<'_>, e: &mut Errors) {
    let path = path.child("conditions");
    let all = list(status, "conditions");
    for (i, condition) in all.iter().enumerate() {
        let here = path.index(i);
        let here = here.child("type");
        let kind = text(condition, "type");
        if all[..i].iter().any(|c| text(c, "type") == kind) {
            e.duplicate_text(&here, kind);
        }
        if kind.is_empty() {
            e.required(&here, "must not be empty");
        }
    }
}

fn schema(name: &str, spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let precedence = path.child("matchingPrecedence");
    let given = int(spec, "matchingPrecedence").unwrap_or(0);
    if given <= 0 {
        e.invalid_int(&precedence, given, "must be a positive value");
    }
    if given > LAST {
        let detail = format!("must not be greater than {LAST}");
        e.invalid_int(&precedence, given, &detail);
    }
    if given == 1 && name != "exempt" {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        e.invalid_int(&precedence, given, detail);
    }
    let method = at(spec, "distinguisherMethod");
    let by = text(method, "type");
    if !method.is_null() && !matches!(by, "ByUser" | "ByNamespace") {
        let path = path.child("distinguisherMethod");
        e.not_supported_shown(
            &path.child("type"),
            &show(method),
            &["ByNamespace", "ByUser"],
        );
    }
    let reference = path.child("priorityLevelConfiguration");
    let reference = reference.child("name");
    match text(at(spec, "priorityLevelConfiguration"), "name") {
        "" => e.required(&reference, "must reference a priority level"),
        level => e.invalid_each(&reference, level, names::dns1123_subdomain(level)),
    }
    let rules = path.child("rules");
    for (i, rule) in list(spec, "rules").iter().enumerate() {
        policy(rule, &rules.index(i), e);
    }
}

fn policy(rule: &Value, path: &Path<'_>, e: &mut Errors) {
    let subjects = path.child("subjects");
    if list(rule, "subjects").is_empty() {
        e.required(&subjects, "subjects must contain at least one value");
    }
    for (i, one) in list(rule, "subjects").iter().enumerate() {
        subject(one, &subjects.index(i), e);
    }
    let (resources, paths) = (list(rule, "resourceRules"), list(rule, "nonResourceRules"));
    if resources.is_empty() && paths.is_empty() {
        e.required(
            path,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        );
    }
    let under = path.child("resourceRules");
    for (i, rule) in resources.iter().enumerate() {
        resource_rule(rule, &under.index(i), e);
    }
    let under = path.child("nonResourceRules");
    for (i, rule) in paths.iter().enumerate() {
        path_rule(rule, &under.index(i), e);
    }
}

fn subject(subject: &Value, path: &Path<'_>, e: &mut Errors) {
    let kinds = [
        ("ServiceAccount", "serviceAccount"),
        ("User", "user"),
        ("Group", "group"),
    ];
    let kind = text(subject, "kind");
    let Some((_, own)) = kinds.iter().find(|(k, _)| *k == kind) else {
        e.not_supported(
            &path.child("kind"),
            kind,
            &["Group", "ServiceAccount", "User"],
        );
        return;
    };
    let at_own = path.child(own);
    if has(subject, own) {
        let value = at(subject, own);
        let named = at_own.child("name");
        let name = text(value, "name");
        if name.is_empty() {
            e.required(&named, "");
        }
        if kind == "ServiceAccount" {
            if !matches!(name, "" | "*") {
                e.invalid_each(&named, name, names::dns1123_subdomain(name));
            }
            let place = at_own.child("namespace");
            match text(value, "namespace") {
                "" => e.required(&place, "must specify namespace for service account"),
                namespace => e.invalid_each(&place, namespace, names::dns1123_label(namespace)),
            }
        }
    } else {
        let detail = format!("{own} is required when subject kind is '{kind}'");
        e.required(&at_own, &detail);
    }
    for (other, field) in kinds.iter().filter(|(k, _)| *k != kind) {
        if has(subject, field) {
            let detail = format!("{field} is forbidden when subject kind is not '{other}'");
            e.forbidden(&path.child(field), &detail);
        }
    }
}

const VERBS: [&str; 9] = [
    "*",
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

fn verbs(rule: &Value, path: &Path<'_>, e: &mut Errors) {
    let path = path.child("verbs");
    let given = list(rule, "verbs");
    if given.is_empty() {
        e.required(&path, "verbs must contain at least one value");
    } else if !alone(given, "verbs", &path, e)
        && !given.iter().all(|v| VERBS.iter().any(|known| v == known))
    {
        e.not_supported_shown(&path, &show(at(rule, "verbs")), &VERBS);
    }
}

/// Whether a list holds the wildcard, beside which nothing else may stand.
fn alone(given: &[Value], what: &str, path: &Path<'_>, e: &mut Errors) -> bool {
    let wildcard = given.iter().any(|v| v == "*");
    if wildcard && given.len() > 1 {
        let detail = format!("if '*' is present, must not specify other {what}");
        e.invalid(path, &Value::from(given.to_vec()), &detail);
    }
    wildcard
}

fn resource_rule(rule: &Value, path: &Path<'_>, e: &mut Errors) {
    verbs(rule, path, e);
    for (field, many, one) in [
        ("apiGroups", "api groups", "api group"),
        ("resources", "resources", "resource"),
    ] {
        let path = path.child(field);
        let given = list(rule, field);
        if given.is_empty() {
            let detail = format!("resource rules must supply at least one {one}");
            e.required(&path, &detail);
        }
        alone(given, many, &path, e);
    }
    let path = path.child("namespaces");
    let given = list(rule, "namespaces");
    if given.is_empty() && !flag(rule, "clusterScope") {
        e.required(
            &path,
            "resource rules that are not cluster scoped must supply at least one namespace",
        );
    } else if !alone(given, "namespaces", &path, e) {
        for (i, namespace) in given.iter().enumerate() {
            let namespace = namespace.as_str().unwrap_or_default();
            for fault in names::dns1123_label(namespace) {
                let detail =
                    format!("each member of this list must be '*' or a DNS-1123 label; {fault}");
                e.invalid_text(&path.index(i), namespace, &detail);
            }
        }
    }
}

fn path_rule(rule: &Value, path: &Path<'_>, e: &mut Errors) {
    verbs(rule, path, e);
    let path = path.child("nonResourceURLs");
    let given = list(rule, "nonResourceURLs");
    if given.is_empty() {
        e.required(&path, "nonResourceURLs must contain at least one value");
    } else if !alone(given, "non-resource URLs", &path, e) {
        for (i, url) in given.iter().enumerate() {
            let url = url.as_str().unwrap_or_default();
            if let Some(fault) = url_fault(url) {
                e.invalid_text(&path.index(i), url, fault);
            }
        }
    }
}

fn url_fault(url: &str) -> Option<&'static str> {
    let wildcards = url.matches('*').count();
    Some(match url {
        "" => "must not be empty",
        "/" => return None,
        _ if !url.starts_with('/') => "must start with slash",
        _ if url.contains(' ') => "must not contain white-space",
        _ if url.contains("//") => "must not contain double slash",
        _ if wildcards > 1 || (wildcards == 1 && !url.ends_with("/*")) => {
            "wildcard can only do suffix matching"
        }
        _ => return None,
    })
}

fn level(name: &str, spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let kind = text(spec, "type");
    if (name == "exempt") != (kind == "Exempt") {
        let detail = "type must be 'Exempt' if and only if name is 'exempt'";
        e.invalid_text(&path.child("type"), kind, detail);
    }
    let (exempt, limited) = (path.child("exempt"), path.child("limited"));
    match kind {
        "Exempt" => {
            if has(spec, "limited") {
                e.forbidden(&limited, "must be nil if the type is not Limited");
            }
            if has(spec, "exempt") {
                shares(at(spec, "exempt"), &exempt, e);
                lendable(at(spec, "exempt"), &exempt, e);
            }
        }
        "Limited" => {
            if has(spec, "exempt") {
                e.forbidden(&exempt, "must be nil if the type is Limited");
            }
            if has(spec, "limited") {
                limits(at(spec, "limited"), &limited, e);
            } else {
                e.required(&limited, "must not be empty when type is Limited");
            }
        }
        _ => e.not_supported(&path.child("type"), kind, &["Exempt", "Limited"]),
    }
}

fn shares(of: &Value, path: &Path<'_>, e: &mut Errors) {
    if let Some(n) = int(of, "nominalConcurrencyShares").filter(|n| *n < 0) {
        let path = path.child("nominalConcurrencyShares");
        e.invalid_int(&path, n, "must be a non-negative integer");
    }
}

fn lendable(of: &Value, path: &Path<'_>, e: &mut Errors) {
    if let Some(n) = int(of, "lendablePercent").filter(|n| !(0..=100).contains(n)) {
        let path = path.child("lendablePercent");
        e.invalid_int(&path, n, "must be between 0 and 100, inclusive");
    }
}

fn limits(limited: &Value, path: &Path<'_>, e: &mut Errors) {
    shares(limited, path, e);
    let response = at(limited, "limitResponse");
    let under = path.child("limitResponse");
    let queuing = under.child("queuing");
    match text(response, "type") {
        "Reject" => {
            if has(response, "queuing") {
                e.forbidden(
                    &queuing,
                    "must be nil if limited.limitResponse.type is not Limited",
                );
            }
        }
        "Queue" if has(response, "queuing") => queues(at(response, "queuing"), &queuing, e),
        "Queue" => e.required(
            &queuing,
            "must not be empty if limited.limitResponse.type is Limited",
        ),
        other => e.not_supported(&under.child("type"), other, &["Queue", "Reject"]),
    }
    lendable(limited, path, e);
    if let Some(n) = int(limited, "borrowingLimitPercent").filter(|n| *n < 0) {
        let path = path.child("borrowingLimitPercent");
        e.invalid_int(&path, n, "if specified, must be a non-negative integer");
    }
}

fn queues(queuing: &Value, path: &Path<'_>, e: &mut Errors) {
    let number = |field| int(queuing, field).unwrap_or(0);
    let (queues, hand) = (number("queues"), number("handSize"));
    let length = number("queueLengthLimit");
    if length <= 0 {
        e.invalid_int(&path.child("queueLengthLimit"), length, "must be positive");
    }
    if queues <= 0 {
        e.invalid_int(&path.child("queues"), queues, "must be positive");
    } else if queues > MOST_QUEUES {
        let detail = format!("must not be greater than {MOST_QUEUES}");
        e.invalid_int(&path.child("queues"), queues, &detail);
    }
    let path = path.child("handSize");
    if hand <= 0 {
        e.invalid_int(&path, hand, "must be positive");
    } else if hand > queues {
        let detail = format!("should not be greater than queues ({queues})");
        e.invalid_int(&path, hand, &detail);
    } else if !dealt(queues, hand) {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        e.invalid_int(&path, hand, &detail);
    }
}

/// Whether the hash has bits enough to deal a hand from a deck.
fn dealt(deck: i64, hand: i64) -> bool {
    let mut bits = 0.0;
    for left in (deck - hand + 1..=deck).rev() {
        bits += (left as f64).log2();
        if bits > f64::from(HASH_BITS) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(kind: &str, object: &Value) -> Vec<String> {
        let mut e = Errors::default();
        flow_control(kind, object, &mut e);
        let causes = e.into_causes().into_iter();
        causes
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect()
    }

    #[test]
    fn what_comes_with_the_server_is_valid() {
        for (kind, plural) in [
            ("FlowSchema", "flowschemas"),
            ("PriorityLevelConfiguration", "prioritylevelconfigurations"),
        ] {
            for (name, spec) in flowcontrol::built_in(plural) {
                let object = json!({"metadata": {"name": name}, "spec": spec});
                assert_eq!(faults(kind, &object), Vec::<String>::new(), "{name}");
            }
        }
    }

    #[test]
    fn schemas_are_checked() {
        let object = json!({"metadata": {"name": "x"}, "spec": {
            "matchingPrecedence": 1, "priorityLevelConfiguration": {},
            "distinguisherMethod": {"type": "By"},
            "rules": [
                {},
                {
                    "subjects": [
                        {"kind": "User", "group": {"name": "g"}},
                        {"kind": "ServiceAccount", "serviceAccount": {"name": "*"}},
                        {"kind": "X"},
                    ],
                    "resourceRules": [{"verbs": ["*", "get"], "apiGroups": [], "resources": ["*"], "namespaces": ["A"]}],
                    "nonResourceRules": [{"verbs": ["go"], "nonResourceURLs": ["x", "/a*", "/a/*"]}],
                },
            ],
        }});
        let got = faults("FlowSchema", &object);
        let rule = "spec.rules[1]";
        for expected in [
            "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1".to_owned(),
            "spec.priorityLevelConfiguration.name: Required value: must reference a priority level".to_owned(),
            "spec.rules[0].subjects: Required value: subjects must contain at least one value".to_owned(),
            "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty".to_owned(),
            format!("{rule}.subjects[0].user: Required value: user is required when subject kind is 'User'"),
            format!("{rule}.subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'"),
            format!("{rule}.subjects[1].serviceAccount.namespace: Required value: must specify namespace for service account"),
            format!("{rule}.subjects[2].kind: Unsupported value: \"X\": supported values: \"Group\", \"ServiceAccount\", \"User\""),
            format!("{rule}.resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group"),
            format!("{rule}.nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"x\": must start with slash"),
            format!("{rule}.nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/a*\": wildcard can only do suffix matching"),
        ] {
            assert!(got.contains(&expected), "{expected}\n{got:#?}");
        }
        assert_eq!(got.len(), 15, "{got:#?}");
    }

    #[test]
    fn levels_are_checked() {
        let limited = |limited: Value| {
            let object =
                json!({"metadata": {"name": "x"}, "spec": {"type": "Limited", "limited": limited}});
            faults("PriorityLevelConfiguration", &object)
        };
        let queue = |queuing: Value| {
            limited(json!({"limitResponse": {"type": "Queue", "queuing": queuing}}))
        };
        assert_eq!(
            queue(json!({"queues": 64, "handSize": 65, "queueLengthLimit": 0})),
            [
                "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: 0: must be positive",
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 65: should not be greater than queues (64)",
            ]
        );
        // 8 of 128 need 56 bits, 9 need 63.
        assert!(queue(json!({"queues": 128, "handSize": 8, "queueLengthLimit": 1})).is_empty());
        let got = queue(json!({"queues": 128, "handSize": 9, "queueLengthLimit": 1}));
        assert!(
            got[0].contains("required entropy bits of deckSize 128 and handSize 9"),
            "{got:?}"
        );
        let got = limited(
            json!({"limitResponse": {"type": "Reject", "queuing": {}}, "lendablePercent": 101}),
        );
        assert_eq!(got.len(), 2, "{got:?}");
        let exempt = json!({"metadata": {"name": "x"}, "spec": {"type": "Exempt"}});
        let got = faults("PriorityLevelConfiguration", &exempt);
        assert_eq!(
            got,
            [
                "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'"
            ]
        );
        let changed = json!({"metadata": {"name": "exempt"}, "spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 5}}});
        assert!(faults("PriorityLevelConfiguration", &changed).is_empty());
        let changed = json!({"metadata": {"name": "catch-all"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 6, "lendablePercent": 0, "limitResponse": {"type": "Reject"}}}});
        let got = faults("PriorityLevelConfiguration", &changed);
        assert!(
            got[0].ends_with("spec of 'catch-all' must equal the fixed value"),
            "{got:?}"
        );
    }
}
