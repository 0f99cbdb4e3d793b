//! ValidatingAdmissionPolicies: what the expressions of one say to a request.

use serde_json::Value as Json;

use super::{
    conditions::Conditions,
    expression::{Compiler, Wanted},
    scope::{BROKE, BUDGET, Broke, Expression, Input, Scope},
};
use crate::{
    cel::{Program, Value},
    validation::value::{at, has, list, text},
};

/// Bytes that a message from an expression may have.
const LONGEST_MESSAGE: usize = 5 * 1024;

#[derive(Debug)]
struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: String,
}

/// A policy, compiled.
#[derive(Debug)]
pub struct Validator {
    conditions: Conditions,
    variables: Vec<(String, Result<Program, String>)>,
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
    /// Errors deny.
    fails: bool,
}

/// What one validation says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Of the validation in the policy.
    pub index: usize,
    /// `None` admits.
    pub denial: Option<String>,
    /// `metav1.StatusReason`; empty stands for `Invalid`.
    pub reason: String,
    /// What went wrong with the expression, in the words of Kubernetes' metrics.
    pub error: &'static str,
}

/// Of an expression with which nothing went wrong.
const NO_ERROR: &str = "no_error";

/// An audit annotation of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    pub key: String,
    /// Its value, or why there is none (which denies).
    pub value: Result<String, String>,
}

/// What a policy says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub decisions: Vec<Decision>,
    pub annotations: Vec<Annotation>,
}

pub(super) fn variables(
    compiler: &mut Compiler,
    spec: &Json,
) -> Vec<(String, Result<Program, String>)> {
    let all = list(spec, "variables").iter();
    all.map(|variable| {
        let name = text(variable, "name").to_owned();
        let program = compiler.variable(&name, text(variable, "expression"));
        (name, program)
    })
    .collect()
}

impl Validator {
    /// Compiles the `spec` of a policy. What is wrong with an expression shows when it is
    /// evaluated.
    pub fn compile(spec: &Json) -> Validator {
        let params = has(spec, "paramKind");
        let mut compiler = Compiler::new(params);
        let variables = variables(&mut compiler, spec);
        let expression = |text: &str, wanted, authorizer| Expression {
            program: compiler.compile(text, wanted, authorizer),
            text: text.to_owned(),
        };
        let validations = list(spec, "validations").iter().map(|v| Validation {
            expression: expression(text(v, "expression"), Wanted::Bool, true),
            message: text(v, "message").trim().to_owned(),
            message_expression: match text(v, "messageExpression") {
                "" => None,
                text => Some(expression(text, Wanted::Text, false)),
            },
            reason: text(v, "reason").to_owned(),
        });
        let validations = validations.collect();
        let annotations = list(spec, "auditAnnotations").iter().map(|a| {
            let value = text(a, "valueExpression").trim();
            let key = text(a, "key").to_owned();
            (key, expression(value, Wanted::TextOrNull, true))
        });
        Validator {
            annotations: annotations.collect(),
            validations,
            variables,
            conditions: Conditions::compile(spec.get("matchConditions"), params),
            fails: text(spec, "failurePolicy") != "Ignore",
        }
    }

    /// What an error means.
    fn error(&self, index: usize, why: String) -> Decision {
        Decision {
            index,
            error: match why.as_str() {
                w if w.contains(BROKE) => "out_of_budget",
                w if w.starts_with("compilation") => "compile_error",
                _ => "invalid_error",
            },
            denial: self.fails.then_some(why),
            reason: String::new(),
        }
    }

    fn only(&self, why: String) -> Outcome {
        Outcome {
            decisions: vec![self.error(0, why)],
            annotations: vec![],
        }
    }

    /// What the policy says to a request.
    pub fn validate(&self, input: &Input<'_>) -> Outcome {
        match self.conditions.met(input) {
            Ok(true) => {}
            Ok(false) => return Outcome::default(),
            Err(why) => return self.only(why),
        }
        let scope = Scope::new(input, &self.variables);
        let mut budget = BUDGET;
        let mut results = vec![];
        for validation in &self.validations {
            match scope.eval(&validation.expression, &mut budget) {
                Ok(result) => results.push(result),
                Err(Broke) => return self.only(BROKE.to_owned()),
            }
        }
        let mut decisions = vec![];
        for (i, (validation, result)) in self.validations.iter().zip(results).enumerate() {
            decisions.push(match result {
                Err(why) => self.error(i, why),
                Ok(Value::Bool(true)) => Decision {
                    index: i,
                    denial: None,
                    reason: String::new(),
                    error: NO_ERROR,
                },
                Ok(_) => match message(validation, &scope, &mut budget) {
                    Ok(message) => Decision {
                        index: i,
                        denial: Some(message),
                        reason: validation.reason.clone(),
                        error: NO_ERROR,
                    },
                    Err(Broke) => self.error(i, format!("failed messageExpression: {BROKE}")),
                },
            });
        }
        let mut budget = BUDGET;
        let mut annotations = vec![];
        for (key, expression) in &self.annotations {
            let value = match scope.eval(expression, &mut budget) {
                Err(Broke) => return self.only(BROKE.to_owned()),
                Ok(Err(_)) if !self.fails => continue,
                Ok(Err(why)) => Err(why),
                Ok(Ok(Value::String(text))) if !text.trim().is_empty() => {
                    Ok(text.trim().to_owned())
                }
                Ok(Ok(Value::String(_) | Value::Null)) => continue,
                Ok(Ok(other)) => Err(format!(
                    "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                    expression.text,
                    other.type_name()
                )),
            };
            annotations.push(Annotation {
                key: key.clone(),
                value,
            });
        }
        Outcome {
            decisions,
            annotations,
        }
    }
}

/// What a validation that fails says.
fn message<'a>(
    validation: &'a Validation,
    scope: &'a Scope<'a>,
    budget: &mut u64,
) -> Result<String, Broke> {
    if let Some(expression) = &validation.message_expression
        && let Ok(Value::String(text)) = scope.eval(expression, budget)?
    {
        let text = text.trim();
        if !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n') {
            return Ok(text.to_owned());
        }
    }
    Ok(if validation.message.is_empty() {
        format!("failed expression: {}", validation.expression.text.trim())
    } else {
        validation.message.clone()
    })
}

/// The kind of a policy's parameters as `(apiVersion, kind)`.
pub(super) fn param_kind(spec: &Json) -> Option<(&str, &str)> {
    let kind = at(spec, "paramKind");
    has(spec, "paramKind").then(|| (text(kind, "apiVersion"), text(kind, "kind")))
}
