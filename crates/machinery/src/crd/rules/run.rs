//! Rules on an object: what each finds wrong.

use std::rc::Rc;

use serde_json::Value as Json;

use super::{Rule, Rules};
use crate::{
    cel::{Fault, Program, Value},
    crd::validate,
    schema::{ListType, Schema},
    status::Cause,
};

/// What one evaluation may cost.
const MOST_FOR_CALL: u64 = 1_000_000;
/// What all rules may cost on one object.
const MOST_FOR_OBJECT: u64 = 10_000_000;
/// Bytes that a message from an expression may have.
const LONGEST_MESSAGE: usize = 5 * 1024;

/// The faults that the rules of a schema find in an object, `old` being what it was before an
/// update. What did not change is not held against the writer.
pub(in crate::crd) fn run(schema: &Schema, object: &Json, old: Option<&Json>) -> Vec<Cause> {
    let mut run = Run {
        budget: Some(MOST_FOR_OBJECT),
        faults: vec![],
    };
    run.node(schema, object, old, "");
    run.faults
}

struct Run {
    /// What may still be spent; nothing more is run once it is gone.
    budget: Option<u64>,
    faults: Vec<Cause>,
}

fn child(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

fn cause(reason: &str, path: &str, message: String) -> Cause {
    Cause {
        reason: reason.to_owned(),
        message,
        field: if path.is_empty() { "<nil>" } else { path }.to_owned(),
    }
}

impl Run {
    fn node(&mut self, schema: &Schema, value: &Json, old: Option<&Json>, path: &str) {
        if !schema.has_rules || value.is_null() || self.budget.is_none() {
            return;
        }
        if let Some(rules) = &schema.rules {
            self.rules(schema, rules, value, old.filter(|o| !o.is_null()), path);
        }
        match value {
            Json::Object(members) => {
                for (name, member) in members {
                    let declared = schema.properties.contains_key(name);
                    let Some(field) = schema.field(name) else {
                        continue;
                    };
                    let at = if declared {
                        child(path, name)
                    } else {
                        format!("{path}[{name}]")
                    };
                    let identity = declared || !schema.atomic_map;
                    let old = old.filter(|_| identity).and_then(|o| o.get(name));
                    self.node(field, member, old, &at);
                }
            }
            Json::Array(items) => {
                let Some(item) = schema.item() else { return };
                for (i, value) in items.iter().enumerate() {
                    let old = match &schema.list_type {
                        ListType::Map(keys) => old.and_then(Json::as_array).and_then(|olds| {
                            let same = |o: &&Json| keys.iter().all(|k| o.get(k) == value.get(k));
                            olds.iter().find(same)
                        }),
                        _ => None,
                    };
                    self.node(item, value, old, &format!("{path}[{i}]"));
                }
            }
            _ => {}
        }
    }

    fn rules(
        &mut self,
        schema: &Schema,
        rules: &Rules,
        json: &Json,
        old: Option<&Json>,
        path: &str,
    ) {
        let kind = match json {
            Json::Object(_) => "object",
            Json::Array(_) => "array",
            Json::String(_) => "string",
            Json::Bool(_) => "boolean",
            Json::Number(n) if n.is_f64() => "number",
            Json::Number(_) => "integer",
            Json::Null => "null",
        };
        let invalid = |detail: String| {
            cause(
                "FieldValueInvalid",
                path,
                format!("Invalid value: {kind:?}: {detail}"),
            )
        };
        let both = Value::of(json, &rules.decl).and_then(|value| {
            let old = old.map(|o| Value::of(o, &rules.decl)).transpose()?;
            Ok((value, old))
        });
        let (value, old_value) = match both {
            Ok(both) => both,
            Err(fault) => {
                self.faults.push(invalid(fault.to_string()));
                return;
            }
        };
        for rule in &rules.list {
            let Some(budget) = self.budget else { return };
            let program = match &rule.program {
                Ok(program) => program,
                Err(why) => {
                    self.faults
                        .push(invalid(format!("rule compile error: {why}")));
                    continue;
                }
            };
            if rule.uses_old && old.is_none() && !rule.optional_old {
                continue;
            }
            let old_self = if rule.optional_old {
                Some(Value::Optional(old_value.clone().map(Rc::new)))
            } else {
                old_value.clone()
            };
            let mut variables = vec![("self", value.clone())];
            variables.extend(old_self.map(|v| ("oldSelf", v)));
            let (result, cost) = program.eval(&variables, MOST_FOR_CALL.min(budget));
            match result {
                Ok(Value::Bool(true)) => self.pay(cost),
                Ok(_) => {
                    self.pay(cost);
                    // Kubernetes warns where nothing changed; the writer is not refused either way.
                    let kept = |old| validate::unchanged(Some(schema), old, json);
                    if !rule.uses_old && old.is_some_and(kept) {
                        continue;
                    }
                    let detail = self.message(rule, &variables);
                    self.faults.push(failed(rule, json, path, &detail));
                }
                Err(Fault::TooCostly) if budget > MOST_FOR_CALL => {
                    self.faults.push(invalid(format!(
                        "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                        rule.shown()
                    )));
                    self.budget = None;
                }
                Err(Fault::TooCostly) => {
                    self.faults.push(invalid(
                        "validation failed due to running out of cost budget, no further validation rules will be run".to_owned(),
                    ));
                    self.budget = None;
                }
                Err(Fault::Error(why)) => {
                    self.pay(cost);
                    self.faults.push(invalid(if why.starts_with("no such overload") {
                        format!(
                            "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                            rule.shown()
                        )
                    } else {
                        format!("{why} evaluating rule: {}", rule.shown())
                    }));
                }
            }
        }
    }

    fn pay(&mut self, cost: u64) {
        self.budget = self.budget.and_then(|b| b.checked_sub(cost));
    }

    /// What a failed rule says: its expression for messages, if that gives a fit one, else its
    /// message.
    fn message<'a>(&mut self, rule: &'a Rule, variables: &[(&str, Value<'a>)]) -> String {
        if let Some(Ok(program)) = &rule.message_program
            && let Some(text) = self.message_of(program, variables)
        {
            return text;
        }
        if rule.message.is_empty() {
            format!("failed rule: {}", rule.text)
        } else {
            rule.message.clone()
        }
    }

    fn message_of<'a>(
        &mut self,
        program: &'a Program,
        variables: &[(&str, Value<'a>)],
    ) -> Option<String> {
        let (result, cost) = program.eval(variables, MOST_FOR_CALL);
        self.pay(cost);
        let Ok(Value::String(text)) = result else {
            return None;
        };
        let text = text.trim();
        let fit = !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n');
        fit.then(|| text.to_owned())
    }
}

/// The fault that a rule states when it fails.
fn failed(rule: &Rule, json: &Json, path: &str, detail: &str) -> Cause {
    let path = if rule.field_path.is_empty() {
        path.to_owned()
    } else {
        child(path, &rule.field_path)
    };
    // Objects and lists are not shown, they may be large.
    let shown = match json {
        Json::Object(_) | Json::Array(_) => None,
        scalar => Some(scalar.to_string()),
    };
    let message = match (rule.reason.as_str(), shown) {
        ("FieldValueForbidden", _) => format!("Forbidden: {detail}"),
        ("FieldValueRequired", _) => format!("Required value: {detail}"),
        ("FieldValueDuplicate", Some(shown)) => format!("Duplicate value: {shown}"),
        ("FieldValueDuplicate", None) => "Duplicate value".to_owned(),
        (_, Some(shown)) => format!("Invalid value: {shown}: {detail}"),
        (_, None) => format!("Invalid value: {detail}"),
    };
    let reason = match rule.reason.as_str() {
        "" => "FieldValueInvalid",
        reason => reason,
    };
    cause(reason, &path, message)
}
