//! PodTolerationRestriction: what pods of a namespace tolerate, and what they may.

use gantry_machinery::qos::qos_class;
use serde_json::{Value, json};

use crate::object;

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

/// What holds for namespaces that say nothing themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tolerations {
    pub default: Vec<Value>,
    pub allowed: Vec<Value>,
}

/// Whether whoever tolerates what the first says tolerates what the second says.
fn covers(first: &Value, second: &Value) -> bool {
    let part = |toleration: &Value, name: &str| object::text(toleration, name).to_owned();
    let operator = |toleration: &Value| match object::text(toleration, "/operator") {
        "" => "Equal".to_owned(),
        operator => operator.to_owned(),
    };
    if first == second {
        return true;
    }
    let (key, effect) = (part(first, "/key"), part(first, "/effect"));
    let exists = operator(first) == "Exists";
    if part(second, "/key") != key && !(key.is_empty() && exists) {
        return false;
    }
    if part(second, "/effect") != effect && !effect.is_empty() {
        return false;
    }
    let seconds = |t: &Value| t.get("tolerationSeconds").and_then(Value::as_i64);
    if effect == "NoExecute"
        && let Some(most) = seconds(first)
        && seconds(second).is_none_or(|s| s > most)
    {
        return false;
    }
    exists || operator(second) == "Equal" && part(first, "/value") == part(second, "/value")
}

/// Both lists without what another of them covers.
fn merged(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut out: Vec<Value> = vec![];
    for (i, one) in all.iter().enumerate() {
        let before = out.iter().any(|o| covers(o, one));
        let after = || all[i + 1..].iter().any(|o| o != one && covers(o, one));
        if !before && !after() {
            out.push((*one).clone());
        }
    }
    out
}

fn of(pod: &Value) -> Vec<Value> {
    let all = pod.pointer("/spec/tolerations").and_then(Value::as_array);
    all.cloned().unwrap_or_default()
}

/// Adds to a pod what its namespace tolerates by default, and refuses what it may not tolerate.
pub fn restrict(
    pod: &mut Value,
    old: Option<&Value>,
    annotation: impl Fn(&str) -> Option<String>,
    settings: &Tolerations,
) -> Result<(), String> {
    let read = |name: &str| match annotation(name) {
        Some(text) if !text.is_empty() => {
            let list: Result<Vec<Value>, _> = serde_json::from_str(&text);
            list.map(Some).map_err(|e| format!("{name}: {e}"))
        }
        Some(_) => Ok(Some(vec![])),
        None => Ok(None),
    };
    let given = of(pod);
    let mut all = given.clone();
    if old.is_none() {
        let default = read(DEFAULTS)?.unwrap_or_else(|| settings.default.clone());
        all = merged(&default, &all);
    }
    if qos_class(pod) != "BestEffort" {
        let pressure = json!({"key": "node.kubernetes.io/memory-pressure",
            "operator": "Exists", "effect": "NoSchedule"});
        all = merged(&all, &[pressure]);
    }
    if all != given {
        pod["spec"]["tolerations"] = all.clone().into();
    }
    let allowed = read(ALLOWED)?.unwrap_or_else(|| settings.allowed.clone());
    if !allowed.is_empty() && !all.iter().all(|t| allowed.iter().any(|a| covers(a, t))) {
        return Err("pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, value: &str, effect: &str) -> Value {
        json!({"key": key, "operator": "Equal", "value": value, "effect": effect})
    }

    #[test]
    fn what_covers_what() {
        let everything = json!({"operator": "Exists"});
        let a = toleration("a", "1", "NoSchedule");
        let any_a = json!({"key": "a", "operator": "Exists"});
        let brief = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let long = json!({"key": "a", "operator": "Exists", "effect": "NoExecute"});
        for (first, second, expected) in [
            (&everything, &a, true),
            (&a, &everything, false),
            (&any_a, &a, true),
            (&a, &toleration("a", "2", "NoSchedule"), false),
            (&a, &toleration("a", "1", "NoExecute"), false),
            (
                &a,
                &json!({"key": "a", "value": "1", "effect": "NoSchedule"}),
                true,
            ),
            (&long, &brief, true),
            (&brief, &long, false),
        ] {
            assert_eq!(covers(first, second), expected, "{first} {second}");
        }
    }

    #[test]
    fn namespaces_add_and_restrict() {
        let (a, b) = (
            toleration("a", "1", "NoSchedule"),
            toleration("b", "1", "NoSchedule"),
        );
        let none = json!(null);
        let settings = Tolerations {
            default: vec![a.clone()],
            allowed: vec![a.clone(), toleration("c", "1", "")],
        };
        // Annotations of defaults and of what is allowed; what the pod says and has after.
        for (default, allowed, given, update, expected) in [
            (None, None, none.clone(), false, Some(json!([a]))),
            (Some("[]"), None, none.clone(), false, Some(none.clone())),
            (None, None, json!([b]), false, None),
            (None, Some("[]"), json!([b]), false, Some(json!([a, b]))),
            (None, None, json!([a]), true, Some(json!([a]))),
            (
                None,
                Some(r#"[{"operator":"Exists"}]"#),
                json!([b]),
                true,
                Some(json!([b])),
            ),
            (Some("nonsense"), None, none.clone(), false, None),
        ] {
            let mut pod = json!({"spec": {"containers": [{"name": "c"}], "tolerations": given}});
            let old = update.then(|| pod.clone());
            let annotation = |name: &str| match name {
                DEFAULTS => default.map(str::to_owned),
                _ => allowed.map(str::to_owned),
            };
            let made = restrict(&mut pod, old.as_ref(), annotation, &settings);
            assert_eq!(made.is_ok(), expected.is_some(), "{given}: {made:?}");
            if let Some(expected) = expected {
                assert_eq!(pod["spec"]["tolerations"], expected, "{given}");
            }
        }
    }
}
