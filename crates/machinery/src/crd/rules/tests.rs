//! Rules in definitions and on objects, as tables.

use rstest::rstest;
use serde_json::{Value as Json, json};

use crate::crd::{structural, structural::compile, validate};

fn schema(spec: Json) -> Json {
    json!({"type": "object", "properties": {"spec": spec}})
}

/// Field and message of every fault.
fn faults(spec: Json, new: Json, old: Option<Json>) -> Vec<(String, String)> {
    let schema = structural(&schema(spec)).expect("structural");
    let object =
        |spec| json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}, "spec": spec});
    let old = old.map(object);
    let causes = validate(&schema, &object(new), old.as_ref());
    causes.into_iter().map(|c| (c.field, c.message)).collect()
}

fn fault(field: &str, message: &str) -> Vec<(String, String)> {
    vec![(field.to_owned(), message.to_owned())]
}

#[test]
fn a_failed_rule_names_its_node_and_says_its_message() {
    let spec = json!({"type": "object", "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.min <= self.max", "message": "min over max"}]});
    assert_eq!(
        faults(spec.clone(), json!({"min": 3, "max": 1}), None),
        fault("spec", "Invalid value: min over max")
    );
    assert_eq!(
        faults(spec.clone(), json!({"min": 1, "max": 1}), None),
        vec![]
    );
    // What the rule cannot read is a fault of its own.
    assert_eq!(
        faults(spec, json!({"min": 1}), None),
        fault(
            "spec",
            "Invalid value: \"object\": no such key: max evaluating rule: min over max"
        )
    );
}

#[test]
fn scalars_items_and_entries_have_rules_of_their_own() {
    let spec = json!({"type": "object", "properties": {
        "names": {"type": "array", "items": {"type": "string",
            "x-kubernetes-validations": [{"rule": "self.startsWith('a')"}]}},
        "sizes": {"type": "object", "additionalProperties": {"type": "integer",
            "x-kubernetes-validations": [{"rule": "self > 0", "reason": "FieldValueForbidden", "message": "positive"}]}}}});
    let new = json!({"names": ["a", "b"], "sizes": {"x": 0, "y": 1}});
    assert_eq!(
        faults(spec, new, None),
        vec![
            (
                "spec.names[1]".to_owned(),
                "Invalid value: \"b\": failed rule: self.startsWith('a')".to_owned()
            ),
            ("spec.sizes[x]".to_owned(), "Forbidden: positive".to_owned()),
        ]
    );
}

#[test]
fn transitions_compare_with_what_was_there() {
    let spec = json!({"type": "object", "properties": {"size": {"type": "integer"}, "list": {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "v": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "only up"}]}}},
        "x-kubernetes-validations": [
            {"rule": "self.size >= oldSelf.size", "message": "may only grow"},
            {"rule": "oldSelf.hasValue() || self.size == 1", "optionalOldSelf": true, "message": "starts at one"}]});
    assert_eq!(
        faults(spec.clone(), json!({"size": 2}), None),
        fault("spec", "Invalid value: starts at one")
    );
    assert_eq!(
        faults(spec.clone(), json!({"size": 1}), Some(json!({"size": 2}))),
        fault("spec", "Invalid value: may only grow")
    );
    // Items of the list are told apart by their keys, not by their places.
    let old = json!({"size": 1, "list": [{"name": "a", "v": 1}, {"name": "b", "v": 5}]});
    let new = json!({"size": 1, "list": [{"name": "b", "v": 6}, {"name": "a", "v": 0}]});
    assert_eq!(
        faults(spec, new, Some(old)),
        fault("spec.list[1]", "Invalid value: only up")
    );
}

#[test]
fn messages_may_be_computed_and_name_a_field_below() {
    let spec = json!({"type": "object", "properties": {"name": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "self.name.size() > 2", "messageExpression": "'name ' + self.name + ' is short'",
            "fieldPath": ".name", "reason": "FieldValueRequired"}]});
    assert_eq!(
        faults(spec, json!({"name": "ab"}), None),
        fault("spec.name", "Required value: name ab is short")
    );
}

#[test]
fn unchanged_parts_are_not_held_against_the_writer() {
    let spec = json!({"type": "object", "properties": {"a": {"type": "string",
        "x-kubernetes-validations": [{"rule": "self == 'good'"}]}, "b": {"type": "string"}}});
    let old = json!({"a": "bad", "b": "1"});
    assert_eq!(
        faults(
            spec.clone(),
            json!({"a": "bad", "b": "2"}),
            Some(old.clone())
        ),
        vec![]
    );
    assert_eq!(
        faults(spec, json!({"a": "worse", "b": "1"}), Some(old)).len(),
        1
    );
}

#[test]
fn rules_wait_for_the_schema() {
    let spec = json!({"type": "object", "properties": {"a": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.a > 1"}]});
    let found = faults(spec, json!({"a": "text"}), None);
    assert_eq!(found.len(), 2);
    assert!(
        found[1]
            .1
            .contains("some validation rules were not checked")
    );
}

#[test]
fn the_budget_of_an_object_ends() {
    let long: Vec<i64> = (0..2000).collect();
    let spec = json!({"type": "object", "properties": {"l": {"type": "array", "maxItems": 2000, "items": {"type": "integer"}}},
        "x-kubernetes-validations": [{"rule": "self.l.all(a, self.l.all(b, a + b >= 0))"}]});
    // Such a rule is refused in a definition; objects of one stored before must not cost more.
    let schema = compile(&schema(spec));
    let causes = validate(
        &schema,
        &json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}, "spec": {"l": long}}),
        None,
    );
    assert_eq!(causes.len(), 1);
    assert!(
        causes[0].message.contains("call cost exceeds limit"),
        "{}",
        causes[0].message
    );
}

#[rstest]
#[case(json!({"rule": "self.nope > 1"}), "rule", "undefined field 'nope'")]
#[case(json!({"rule": "self.a"}), "rule", "cel expression must evaluate to a bool")]
#[case(json!({"rule": " "}), "rule", "Required value: rule is not specified")]
#[case(json!({"rule": "true", "message": " "}), "message", "message must be non-empty if specified")]
#[case(json!({"rule": "true &&\ntrue"}), "message", "message must be specified if rule contains line breaks")]
#[case(json!({"rule": "true", "messageExpression": "1"}), "messageExpression", "messageExpression must evaluate to a string")]
#[case(json!({"rule": "true", "reason": "Because"}), "reason", "Unsupported value: \"Because\"")]
#[case(json!({"rule": "true", "fieldPath": ".nope"}), "fieldPath", "fieldPath must be a valid path")]
#[case(json!({"rule": "true", "optionalOldSelf": true}), "optionalOldSelf", "may not be set if oldSelf is not used in rule")]
#[case(json!({"rule": "self.free.all(x, self.free.all(y, x == y))"}), "rule", "estimated rule cost exceeds budget by factor of more than 100x")]
fn definitions_are_refused(#[case] rule: Json, #[case] field: &str, #[case] message: &str) {
    let spec = json!({"type": "object", "properties": {"a": {"type": "integer"}, "free": {"type": "array", "items": {"type": "string"}}},
        "x-kubernetes-validations": [rule]});
    let causes = structural(&schema(spec)).expect_err("refused");
    let at = format!("openAPIV3Schema.properties[spec].x-kubernetes-validations[0].{field}");
    assert!(
        causes
            .iter()
            .any(|c| c.field == at && c.message.contains(message)),
        "{causes:?}"
    );
}

#[test]
fn old_values_need_an_identity() {
    let spec = json!({"type": "array", "x-kubernetes-list-type": "set", "maxItems": 5, "items": {"type": "string", "maxLength": 5,
        "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}});
    let causes = structural(&schema(spec)).expect_err("refused");
    assert!(causes[0].message.ends_with(
        "oldSelf cannot be used on the uncorrelatable portion of the schema within openAPIV3Schema.properties[spec]"
    ), "{causes:?}");
}

/// Rules as widely used operators have them: all must compile and be affordable.
#[rstest]
#[case("has(self.a) == has(self.b)")]
#[case("!has(self.name) || self.name.matches('^[a-z]+$')")]
#[case(
    "self.items.exists(i, i.kind == 'x') && self.items.filter(i, has(i.size)).all(i, i.size > 0)"
)]
#[case("self.items.map(i, i.kind).all(k, self.items.exists_one(i, i.kind == k))")]
#[case("self.port == 80 || string(self.port).endsWith('%')")]
#[case("(type(self.port) == int ? self.port > 0 : self.port.size() > 0)")]
#[case(
    "self.items.all(i, !(i.kind in ['a', 'b']) || quantity(i.amount).isGreaterThan(quantity('0')))"
)]
#[case("self.name == oldSelf.name")]
#[case("duration(self.wait) > duration('0s')")]
#[case("[has(self.spec), has(self.status)].exists_one(x, x)")]
fn rules_that_people_write(#[case] rule: &str) {
    let spec = json!({"type": "object", "properties": {
        "a": {"type": "string"}, "b": {"type": "string"}, "name": {"type": "string", "maxLength": 63},
        "port": {"x-kubernetes-int-or-string": true}, "wait": {"type": "string", "maxLength": 20},
        "spec": {"type": "object", "additionalProperties": true}, "status": {"type": "object", "additionalProperties": true},
        "items": {"type": "array", "maxItems": 16, "items": {"type": "object", "properties": {
            "kind": {"type": "string", "maxLength": 32}, "size": {"type": "integer"}, "amount": {"type": "string", "maxLength": 20}}}}},
        "x-kubernetes-validations": [{"rule": rule}]});
    let result = structural(&schema(spec));
    assert!(result.is_ok(), "{rule}: {:?}", result.err());
}
