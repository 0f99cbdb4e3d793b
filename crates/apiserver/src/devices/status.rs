//! Who may write what of a claim's status (`DRAResourceClaimGranularStatusAuthorization`): to give devices to somebody is
//! `resourceclaims/binding`; to tell of devices is `resourceclaims/driver` of each driver that is told of, with verbs of
//! their own for a driver's pod on the node that has the devices.

use std::collections::BTreeSet;

use gantry_machinery::path::At as _;
use gantry_machinery::status::Cause;
use gantry_machinery::validation::names::dns1123_subdomain;
use serde_json::Value;

use super::{GROUP, LABEL, admin_cause, identity, list};
use crate::{
    admission,
    api::Cx,
    authn::{ACCOUNT_PREFIX, UserInfo},
    authz::Attributes,
};

const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// What a write needs beside the right to write the status.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    binding: bool,
    /// Drivers whose devices are told of differently.
    drivers: BTreeSet<String>,
    /// Administrators' access that was not there before: the result's place.
    admin: Option<usize>,
}

/// A field as good as absent is absent.
fn field<'a>(claim: &'a Value, pointer: &str) -> Option<&'a Value> {
    claim.at(pointer).filter(|value| match value {
        Value::Null => false,
        Value::Array(all) => !all.is_empty(),
        _ => true,
    })
}

fn needs(new: &Value, old: &Value) -> Needs {
    let changed = |pointer: &str| field(new, pointer) != field(old, pointer);
    let told = |claim: &Value| -> Vec<Value> {
        let all = list(claim, "/status/devices");
        all.cloned().collect()
    };
    let (before, after) = (told(old), told(new));
    let driver = |device: &Value| device["driver"].as_str().unwrap_or_default().to_owned();
    let news = after.iter().filter(|device| !before.contains(device));
    // What is told of no more because it was given back is no driver's matter.
    let allocated = |device: &Value| {
        list(new, "/status/allocation/devices/results").any(|r| identity(r) == identity(device))
    };
    let gone = before.iter().filter(|device| {
        allocated(device)
            && !after
                .iter()
                .any(|other| identity(other) == identity(device))
    });
    let admin = |claim: &Value| {
        list(claim, "/status/allocation/devices/results")
            .position(|result| result.get("adminAccess") == Some(&Value::Bool(true)))
    };
    Needs {
        binding: changed("/status/allocation") || changed("/status/reservedFor"),
        drivers: news.chain(gone).map(driver).collect(),
        admin: admin(new).filter(|_| admin(old).is_none()),
    }
}

/// The one node that a claim's devices are for.
fn node(claim: &Value) -> Option<&str> {
    let terms = claim
        .at("/status/allocation/nodeSelector/nodeSelectorTerms")
        .and_then(Value::as_array)?;
    let [term] = terms.as_slice() else {
        return None;
    };
    let fields = list(term, "/matchFields").collect::<Vec<_>>();
    let ([only], None) = (fields.as_slice(), list(term, "/matchExpressions").next()) else {
        return None;
    };
    let named = only["key"] == "metadata.name" && only["operator"] == "In";
    let values = only["values"].as_array().filter(|_| named)?;
    match values.as_slice() {
        [value] => value.as_str(),
        _ => None,
    }
}

/// Whether a user is a ServiceAccount whose pod is on the node.
fn is_there(user: &UserInfo, node: &str) -> bool {
    let account = user
        .name
        .strip_prefix(ACCOUNT_PREFIX)
        .is_some_and(|rest| rest.contains(':'));
    let of = user.extra.get(NODE_NAME).map(Vec::as_slice);
    account && of.is_some_and(|of| of == [node]) && dns1123_subdomain(node).is_empty()
}

/// The verbs of which one must be allowed to tell of a driver's devices.
fn verbs(user: &UserInfo, new: &Value, verb: &str) -> Vec<String> {
    let there = node(new).is_some_and(|node| is_there(user, node));
    let near = there.then(|| format!("associated-node:{verb}"));
    let far = format!("arbitrary-node:{verb}");
    near.into_iter().chain([far]).collect()
}

/// What a write of a status may not do.
pub fn faults(cx: &Cx, verb: &str, new: &Value, old: &Value) -> Vec<Cause> {
    if !cx.entry.is(GROUP, "resourceclaims") {
        return vec![];
    }
    let needs = needs(new, old);
    let mut causes = vec![];
    if let Some(i) = needs.admin
        && !admission::labelled(cx, LABEL, "true")
    {
        causes.push(admin_cause(format!(
            "status.allocation.devices.results[{i}].adminAccess"
        )));
    }
    let ask = |verb: &str, subresource: &str, namespace: &str, name: &str| {
        let attributes = Attributes {
            verb,
            group: GROUP,
            resource: "resourceclaims",
            subresource,
            namespace,
            name,
            ..Attributes::default()
        };
        cx.demand(&attributes).map_err(|no| no.message)
    };
    let forbidden = |field: &str, message: String| Cause {
        reason: "FieldValueForbidden".to_owned(),
        message: format!("Forbidden: {message}"),
        field: field.to_owned(),
    };
    if needs.binding
        && let Err(no) = ask(verb, "binding", "", "")
    {
        let what = "changing status.allocation or status.reservedFor requires";
        let message =
            format!("{what} resource=\"resourceclaims/binding\", verb=\"{verb}\" permission: {no}");
        causes.push(forbidden("status", message));
    }
    let verbs = verbs(&cx.user, new, verb);
    for driver in &needs.drivers {
        let mut answers = verbs
            .iter()
            .map(|verb| ask(verb, "driver", &cx.target.namespace, driver));
        let first = answers.next();
        if let Some(Err(no)) = first
            && !answers.any(|answer| answer.is_ok())
        {
            let message = format!(
                "changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[{}]\" permission: {no}",
                verbs.join(" ")
            );
            causes.push(forbidden("status.devices", message));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn told(devices: &[(&str, &str, &str)]) -> Value {
        let device = |(driver, device, network): &(&str, &str, &str)| {
            json!({"driver": driver, "pool": "p", "device": device,
                "networkData": {"interfaceName": network}})
        };
        let devices: Vec<Value> = devices.iter().map(device).collect();
        let results: Vec<Value> = [("a", "1"), ("a", "2"), ("b", "2"), ("c", "3"), ("d", "4")]
            .iter()
            .map(|(driver, device)| json!({"driver": driver, "pool": "p", "device": device}))
            .collect();
        json!({"status": {"devices": devices, "allocation": {"devices": {"results": results}}}})
    }

    #[test]
    fn what_is_given_back_is_no_drivers_matter() {
        let old = told(&[("a", "1", "")]);
        let needs = needs(&json!({"status": {}}), &old);
        assert!(needs.binding && needs.drivers.is_empty());
    }

    #[rstest]
    #[case::none(&[], &[], &[])]
    #[case::same(&[("a", "1", ""), ("b", "2", "")], &[("b", "2", ""), ("a", "1", "")], &[])]
    #[case::one_more(&[("a", "1", "")], &[("a", "1", ""), ("b", "2", "")], &["b"])]
    #[case::one_more_of_the_same(&[("a", "1", "")], &[("a", "1", ""), ("a", "2", "")], &["a"])]
    #[case::one_less(&[("a", "1", ""), ("b", "2", "")], &[("a", "1", "")], &["b"])]
    #[case::another_network(&[("a", "1", "")], &[("a", "1", "eth0")], &["a"])]
    #[case::all(&[("a", "1", ""), ("b", "2", ""), ("d", "4", "")],
        &[("a", "1", "eth0"), ("b", "2", ""), ("c", "3", "")], &["a", "c", "d"])]
    fn drivers_are_asked_for_where_their_devices_are_told_of_differently(
        #[case] old: &[(&str, &str, &str)],
        #[case] new: &[(&str, &str, &str)],
        #[case] want: &[&str],
    ) {
        let needs = needs(&told(new), &told(old));
        let drivers: Vec<&str> = needs.drivers.iter().map(String::as_str).collect();
        assert_eq!(drivers, want);
        assert!(!needs.binding);
    }

    #[rstest]
    #[case::nothing(json!({"reservedFor": []}), json!({}), false)]
    #[case::allocated(json!({"allocation": {}}), json!({}), true)]
    #[case::given_back(json!({}), json!({"allocation": {}}), true)]
    #[case::reserved(json!({"reservedFor": [{"name": "a"}]}), json!({}), true)]
    fn to_give_devices_away_is_binding(#[case] new: Value, #[case] old: Value, #[case] want: bool) {
        let claim = |status: Value| json!({"status": status});
        assert_eq!(needs(&claim(new), &claim(old)).binding, want);
    }

    fn on(terms: Value) -> Value {
        json!({"status": {"allocation": {"nodeSelector": {"nodeSelectorTerms": terms}}}})
    }

    fn named(values: Value) -> Value {
        json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": values}]})
    }

    #[rstest]
    #[case::unallocated(json!({}), None)]
    #[case::anywhere(json!({"status": {"allocation": {}}}), None)]
    #[case::one(on(json!([named(json!(["n"]))])), Some("n"))]
    #[case::two(on(json!([named(json!(["n", "m"]))])), None)]
    #[case::two_terms(on(json!([named(json!(["n"])), named(json!(["m"]))])), None)]
    #[case::by_label(on(json!([{"matchExpressions":
        [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n"]}]}])), None)]
    #[case::another_field(on(json!([{"matchFields":
        [{"key": "metadata.namespace", "operator": "In", "values": ["n"]}]}])), None)]
    #[case::not(on(json!([{"matchFields":
        [{"key": "metadata.name", "operator": "NotIn", "values": ["n"]}]}])), None)]
    fn devices_are_for_one_node(#[case] claim: Value, #[case] want: Option<&str>) {
        assert_eq!(node(&claim), want);
    }

    #[rstest]
    #[case::there("system:serviceaccount:a:b", &["n"], &["associated-node:patch", "arbitrary-node:patch"])]
    #[case::elsewhere("system:serviceaccount:a:b", &["m"], &["arbitrary-node:patch"])]
    #[case::nowhere("system:serviceaccount:a:b", &[], &["arbitrary-node:patch"])]
    #[case::twice("system:serviceaccount:a:b", &["n", "m"], &["arbitrary-node:patch"])]
    #[case::kubelet("system:node:n", &["n"], &["arbitrary-node:patch"])]
    #[case::jane("jane", &["n"], &["arbitrary-node:patch"])]
    fn drivers_on_the_node_have_verbs_of_their_own(
        #[case] user: &str,
        #[case] nodes: &[&str],
        #[case] want: &[&str],
    ) {
        let mut user = UserInfo::new(user, &[]);
        let nodes: Vec<String> = nodes.iter().map(|n| (*n).to_owned()).collect();
        user.extra.insert(NODE_NAME.to_owned(), nodes);
        let claim = on(json!([named(json!(["n"]))]));
        assert_eq!(verbs(&user, &claim, "patch"), want);
    }
}
