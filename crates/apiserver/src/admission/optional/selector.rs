//! PodNodeSelector: pods of a namespace go to its nodes.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The node selector of a namespace.
pub const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// The selector of namespaces that have none.
const DEFAULT: &str = "clusterDefaultNodeSelector";

/// `a=b,c=d` as labels; `None` where it is something else.
fn labels(text: &str) -> Option<Map<String, Value>> {
    let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=')?;
            Some((name.trim().to_owned(), value.trim().into()))
        })
        .collect()
}

/// Gives a new pod the selector of its namespace, and refuses what contradicts that or is not among
/// what the settings allow the namespace.
pub fn merge(
    pod: &mut Value,
    own: Option<&str>,
    settings: &BTreeMap<String, String>,
    namespace: &str,
) -> Result<(), &'static str> {
    const MALFORMED: &str = "the node selector of its namespace is not a list of labels";
    let text = own.or_else(|| settings.get(DEFAULT).map(String::as_str));
    let wanted = labels(text.unwrap_or_default()).ok_or(MALFORMED)?;
    let mut all = wanted.clone();
    let given = pod.pointer("/spec/nodeSelector").and_then(Value::as_object);
    for (name, value) in given.into_iter().flatten() {
        if wanted.get(name).is_some_and(|w| w != value) {
            return Err("pod node label selector conflicts with its namespace node label selector");
        }
        all.insert(name.clone(), value.clone());
    }
    let allowed = settings.get(namespace).map_or("", String::as_str);
    let allowed = labels(allowed).ok_or(MALFORMED)?;
    if !allowed.is_empty() && all.iter().any(|(n, v)| allowed.get(n) != Some(v)) {
        return Err("pod node label selector labels conflict with its namespace whitelist");
    }
    if let Some(spec) = pod.get_mut("spec")
        && !all.is_empty()
    {
        spec["nodeSelector"] = json!(all);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_selector_of_the_namespace_is_merged_in() {
        let settings = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(a, b)| ((*a).into(), (*b).into()))
                .collect()
        };
        let cluster = settings(&[(DEFAULT, "region=west"), ("ns", "env=test,region=west")]);
        let conflict = "conflicts with its namespace node";
        for (own, given, settings, expected) in [
            (None, json!({}), &settings(&[]), Ok(json!(null))),
            (
                Some("env=test"),
                json!({}),
                &settings(&[]),
                Ok(json!({"env": "test"})),
            ),
            (
                Some(" env = test, a=b"),
                json!({"c": "d"}),
                &settings(&[]),
                Ok(json!({"env": "test", "a": "b", "c": "d"})),
            ),
            (
                Some("env=test"),
                json!({"env": "prod"}),
                &settings(&[]),
                Err(conflict),
            ),
            (
                None,
                json!({"env": "test"}),
                &cluster,
                Ok(json!({"env": "test", "region": "west"})),
            ),
            // A namespace's own selector stands in place of the cluster's.
            (
                Some(""),
                json!({"env": "test"}),
                &cluster,
                Ok(json!({"env": "test"})),
            ),
            (
                None,
                json!({"env": "prod"}),
                &cluster,
                Err("namespace whitelist"),
            ),
            (
                Some("env in (a)"),
                json!({}),
                &settings(&[]),
                Err("not a list of labels"),
            ),
        ] {
            let mut pod = json!({"spec": {}});
            if given != json!({}) {
                pod["spec"]["nodeSelector"] = given.clone();
            }
            match (merge(&mut pod, own, settings, "ns"), expected) {
                (Ok(()), Ok(expected)) => assert_eq!(pod["spec"]["nodeSelector"], expected),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{why}"),
                (made, expected) => panic!("{own:?} {given}: {made:?}, not {expected:?}"),
            }
        }
    }
}
