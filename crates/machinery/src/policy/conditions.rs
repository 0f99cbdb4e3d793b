//! `matchConditions`: expressions that a request must all meet for a webhook or a policy to be
//! about it.

use serde_json::Value as Json;

use super::{
    expression::{Compiler, Wanted},
    scope::{BROKE, Broke, CONDITIONS_BUDGET, Expression, Input, Scope},
};
use crate::{cel::Value, validation::value::text};

/// The conditions of one webhook or policy.
#[derive(Debug, Default)]
pub struct Conditions(Vec<Expression>);

impl Conditions {
    /// Of a list of `{name, expression}`; `params` where the policy has parameters.
    pub fn compile(list: Option<&Json>, params: bool) -> Conditions {
        let compiler = Compiler::new(params);
        let all = list.and_then(Json::as_array).into_iter().flatten();
        let compiled = all.map(|condition| {
            let text = text(condition, "expression").trim().to_owned();
            Expression {
                program: compiler.compile(&text, Wanted::Bool, true),
                text,
            }
        });
        Conditions(compiled.collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request meets them all. One that is not met decides, whatever is wrong with
    /// others.
    ///
    /// # Errors
    /// Why that cannot be told; what it means is up to the failure policy.
    pub fn met(&self, input: &Input<'_>) -> Result<bool, String> {
        let scope = Scope::new(input, &[]);
        let mut budget = CONDITIONS_BUDGET;
        let mut wrong = vec![];
        for condition in &self.0 {
            match scope.eval(condition, &mut budget) {
                Ok(Ok(Value::Bool(false))) => return Ok(false),
                Ok(Ok(_)) => {}
                Ok(Err(why)) => wrong.push(why),
                Err(Broke) => return Err(BROKE.to_owned()),
            }
        }
        match wrong.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}
