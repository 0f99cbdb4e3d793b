//! MutatingAdmissionPolicies: how the expressions of one change an object.

use serde_json::Value as Json;

use super::{
    conditions::Conditions,
    expression::{Compiler, Wanted},
    scope::{BROKE, BUDGET, Broke, Expression, Input, Scope},
    validate::variables,
};
use crate::{
    apply,
    cel::{Program, Value},
    patch::{self, Unpatched},
    schema::Schema,
    validation::value::{at, has, list, text},
};

#[derive(Debug)]
enum Mutation {
    Apply(Expression),
    Patch(Expression),
}

/// A policy, compiled.
#[derive(Debug)]
pub struct Mutator {
    conditions: Conditions,
    variables: Vec<(String, Result<Program, String>)>,
    mutations: Vec<Mutation>,
}

/// What a mutation makes of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// To be merged into it, as server-side apply does.
    Configuration(Json),
    /// Operations of a JSON patch.
    Patch(Vec<Json>),
}

impl Mutator {
    /// Compiles the `spec` of a policy. What is wrong with an expression shows when it is
    /// evaluated.
    pub fn compile(spec: &Json) -> Mutator {
        let params = has(spec, "paramKind");
        let mut compiler = Compiler::new(params);
        let variables = variables(&mut compiler, spec);
        let mutations = list(spec, "mutations").iter().map(|mutation| {
            let expression = |field: &str, wanted| {
                let text = text(at(mutation, field), "expression").trim().to_owned();
                Expression {
                    program: compiler.compile(&text, wanted, true),
                    text,
                }
            };
            if text(mutation, "patchType") == "JSONPatch" {
                Mutation::Patch(expression("jsonPatch", Wanted::Patch))
            } else {
                Mutation::Apply(expression("applyConfiguration", Wanted::Object))
            }
        });
        Mutator {
            mutations: mutations.collect(),
            variables,
            conditions: Conditions::compile(spec.get("matchConditions"), params),
        }
    }

    /// Whether the policy is about a request at all.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn concerns(&self, input: &Input<'_>) -> Result<bool, String> {
        self.conditions.met(input)
    }

    /// How many mutations there are.
    pub fn len(&self) -> usize {
        self.mutations.len()
    }

    pub fn is_empty(&self) -> bool {
        self.mutations.is_empty()
    }

    /// What one mutation makes of the object of a request.
    ///
    /// # Errors
    /// Why it makes nothing of it.
    pub fn change(&self, index: usize, input: &Input<'_>) -> Result<Change, String> {
        let Some(mutation) = self.mutations.get(index) else {
            return Ok(Change::Patch(vec![]));
        };
        let scope = Scope::new(input, &self.variables);
        let mut budget = BUDGET;
        let (Mutation::Apply(expression) | Mutation::Patch(expression)) = mutation;
        if let Err(why) = &expression.program {
            return Err(why.clone());
        }
        let value = scope
            .eval(expression, &mut budget)
            .map_err(|Broke| BROKE.to_owned())??;
        match mutation {
            Mutation::Apply(_) => {
                names_fit(&value, "Object").map_err(|why| format!("type mismatch: {why}"))?;
                let json = value.to_json();
                json.map(Change::Configuration)
                    .ok_or_else(|| format!("invalid return type: {}", value.type_name()))
            }
            Mutation::Patch(_) => {
                let items = value.items().map_err(|fault| fault.to_string())?;
                let operations = items.iter().map(operation).collect::<Result<_, _>>()?;
                Ok(Change::Patch(operations))
            }
        }
    }
}

impl Change {
    /// The object with the change.
    ///
    /// # Errors
    /// Why it cannot be changed so.
    pub fn apply(&self, schema: &Schema, object: &Json) -> Result<Json, String> {
        match self {
            Change::Configuration(configuration) => {
                let mut configuration = configuration.clone();
                for header in ["apiVersion", "kind"] {
                    configuration[header] = at(object, header).clone();
                }
                apply::merge_configuration(schema, object, &configuration)
                    .map_err(|why| format!("error applying patch: {why}"))
            }
            Change::Patch(operations) => match patch::operations(object, operations) {
                Ok(new) => Ok(new),
                // The patch is not meant for this object.
                Err(Unpatched::TestFailed) => Ok(object.clone()),
                Err(Unpatched::Wrong(why)) => Err(format!("JSON Patch: {why}")),
            },
        }
    }
}

/// One operation of a patch, from a structure `JSONPatch`.
fn operation(value: &Value<'_>) -> Result<Json, String> {
    let Value::Struct(_, fields) = value else {
        return Err(format!(
            "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of {}",
            value.type_name()
        ));
    };
    let mut operation = serde_json::Map::new();
    for (name, value) in fields.iter() {
        if let Value::Struct(type_name, _) = value {
            let of = type_name.to_string();
            names_fit(value, &of).map_err(|why| format!("type mismatch: {why}"))?;
        }
        let json = value.to_json().ok_or_else(|| {
            format!(
                "JSONPath valueExpression evaluated to a type that could not marshal to JSON: {}",
                value.type_name()
            )
        })?;
        operation.insert(name.clone(), json);
    }
    Ok(operation.into())
}

/// Checks that structures are named after the places where they stand.
fn names_fit(value: &Value<'_>, path: &str) -> Result<(), String> {
    match value {
        Value::Struct(name, fields) => {
            if &**name != path {
                return Err(format!(
                    "unexpected type name {name:?}, expected {path:?}, which matches field name path from root Object type"
                ));
            }
            fields
                .iter()
                .try_for_each(|(field, value)| names_fit(value, &format!("{path}.{field}")))
        }
        Value::List(items) => items.iter().try_for_each(|item| names_fit(item, path)),
        Value::Map(entries) => entries
            .iter()
            .try_for_each(|(key, value)| names_fit(value, &format!("{path}.{key}"))),
        _ => Ok(()),
    }
}
