//! CEL rules of custom resources (`x-kubernetes-validations`): compiled with the schema, checked
//! when a definition is written, run on every object.

mod check;
mod declare;
mod run;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::Value as Json;

use super::structural::text;
use crate::cel::{Decl, Environment, Program, Type};

pub(super) use check::check;
pub(super) use run::run;

/// The rules of one node of a schema.
#[derive(Debug)]
pub struct Rules {
    decl: Arc<Decl>,
    list: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    text: String,
    message: String,
    reason: String,
    /// The field below the node that a fault names, without the leading dot.
    field_path: String,
    optional_old: bool,
    uses_old: bool,
    program: Result<Program, String>,
    message_program: Option<Result<Program, String>>,
}

/// The rules that a node of a schema has; `resource` is the whole object or an embedded one.
pub(super) fn compile(schema: &Json, resource: bool) -> Option<Arc<Rules>> {
    let rules = schema.get("x-kubernetes-validations")?.as_array()?;
    let decl = Arc::new(declare::declare(schema, resource)?);
    let list = rules.iter().map(|rule| one(rule, &decl)).collect();
    Some(Arc::new(Rules { decl, list }))
}

fn one(rule: &Json, decl: &Arc<Decl>) -> Rule {
    let expression = text(rule, "rule").trim();
    let optional_old = rule.get("optionalOldSelf") == Some(&Json::Bool(true));
    let old = if optional_old {
        Type::optional(decl.ty.clone())
    } else {
        decl.ty.clone()
    };
    let variables = [("self", decl.ty.clone()), ("oldSelf", old)];
    let environment = Environment {
        variables: &variables,
        structures: None,
    };
    let program = Program::compile(&environment, expression)
        .map_err(|issues| format!("compilation failed: {issues}"))
        .and_then(|program| match program.result() {
            Type::Bool | Type::Dyn => Ok(program),
            _ => Err("cel expression must evaluate to a bool".to_owned()),
        });
    let message = text(rule, "messageExpression").trim();
    let message_program = (!message.is_empty()).then(|| {
        Program::compile(&environment, message)
            .map_err(|issues| format!("messageExpression compilation failed: {issues}"))
            .and_then(|program| match program.result() {
                Type::String | Type::Dyn => Ok(program),
                _ => Err("messageExpression must evaluate to a string".to_owned()),
            })
    });
    Rule {
        uses_old: program.as_ref().is_ok_and(|p| p.reads("oldSelf")),
        text: expression.to_owned(),
        message: text(rule, "message").trim().to_owned(),
        reason: text(rule, "reason").to_owned(),
        field_path: text(rule, "fieldPath")
            .trim()
            .trim_start_matches('.')
            .to_owned(),
        optional_old,
        program,
        message_program,
    }
}

impl Rule {
    /// What stands for the rule in messages.
    fn shown(&self) -> &str {
        if self.message.is_empty() {
            &self.text
        } else {
            &self.message
        }
    }
}
