//! Evaluating: the variables of one request, and what expressions may cost.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
};

use serde_json::Value as Json;

use super::declare;
use crate::cel::{Authorizer, Check, Decl, Fault, Lazy, Program, Question, Value};

/// What one evaluation may cost.
const MOST_FOR_CALL: u64 = 1_000_000;
/// What a policy's expressions may cost together, for one binding and parameter.
pub(super) const BUDGET: u64 = 10_000_000;
/// The same for the conditions that decide whether it is asked at all.
pub(super) const CONDITIONS_BUDGET: u64 = 2_500_000;

/// A request as expressions see it. What there is not is `null`.
#[derive(Clone)]
pub struct Input<'i> {
    pub object: &'i Json,
    pub old: &'i Json,
    pub params: &'i Json,
    /// The `request` of an AdmissionReview without its objects.
    pub request: &'i Json,
    pub namespace: &'i Json,
    pub authorizer: &'i dyn Authorizer,
    /// `authorizer.requestResource`.
    pub resource: Question,
}

/// An expression as it was written, and its program or what is wrong with it.
#[derive(Debug)]
pub(super) struct Expression {
    pub text: String,
    pub program: Result<Program, String>,
}

/// Variables that a policy defines, in their order.
pub(super) type Variables = [(String, Result<Program, String>)];

/// All variables of one evaluation.
pub(super) struct Scope<'a> {
    defined: &'a Variables,
    base: Vec<(&'static str, Value<'a>)>,
    /// The scope itself, for definitions that read others.
    whole: Cell<Option<&'a Scope<'a>>>,
    made: RefCell<BTreeMap<&'a str, Result<Value<'a>, Fault>>>,
    /// What the evaluation of definitions has cost and nobody has paid for yet.
    owed: Cell<u64>,
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").finish_non_exhaustive()
    }
}

/// The budget is used up.
#[derive(Debug)]
pub(super) struct Broke;

pub(super) const BROKE: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

impl<'a> Scope<'a> {
    pub fn new(input: &'a Input<'a>, defined: &'a Variables) -> Scope<'a> {
        // Of nothing declared, nothing can be wrong.
        let any = |json: &'a Json| Value::of(json, Decl::any()).unwrap_or(Value::Null);
        let declared = |json: &'a Json, decl| Value::of(json, decl).unwrap_or(Value::Null);
        Scope {
            defined,
            base: vec![
                ("object", any(input.object)),
                ("oldObject", any(input.old)),
                ("params", any(input.params)),
                ("request", declared(input.request, declare::request())),
                (
                    "namespaceObject",
                    declared(input.namespace, declare::namespace()),
                ),
                ("authorizer", Check::start(input.authorizer)),
                (
                    "authorizer.requestResource",
                    Check::of_resource(input.authorizer, input.resource.clone()),
                ),
            ],
            whole: Cell::new(None),
            made: RefCell::default(),
            owed: Cell::new(0),
        }
    }

    fn variables(&self) -> Vec<(&'static str, Value<'a>)> {
        let mut all = self.base.clone();
        if let Some(whole) = self.whole.get() {
            all.push(("variables", Value::Lazy(whole)));
        }
        all
    }

    /// Evaluates an expression; what it costs is taken off the budget.
    pub fn eval(
        &'a self,
        expression: &'a Expression,
        budget: &mut u64,
    ) -> Result<Result<Value<'a>, String>, Broke> {
        self.whole.set(Some(self));
        let program = match &expression.program {
            Ok(program) => program,
            Err(why) => return Ok(Err(format!("compilation error: {why}"))),
        };
        let (result, cost) = program.eval(&self.variables(), MOST_FOR_CALL);
        let cost = cost.saturating_add(self.owed.take());
        *budget = budget.checked_sub(cost).ok_or(Broke)?;
        Ok(result.map_err(|fault| {
            format!(
                "expression '{}' resulted in error: {fault}",
                expression.text
            )
        }))
    }
}

impl<'a> Lazy<'a> for Scope<'a> {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Fault>> {
        if let Some(made) = self.made.borrow().get(name) {
            return Some(made.clone());
        }
        let (name, program) = self.defined.iter().find(|(n, _)| n == name)?;
        let made = match program {
            Err(why) => Err(Fault::Error(format!(
                "composited variable {name:?} fails to compile: {why}"
            ))),
            Ok(program) => {
                let (result, cost) = program.eval(&self.variables(), MOST_FOR_CALL);
                self.owed.set(self.owed.get().saturating_add(cost));
                result.map_err(|fault| {
                    Fault::Error(format!(
                        "composited variable {name:?} fails to evaluate: {fault}"
                    ))
                })
            }
        };
        self.made.borrow_mut().insert(name, made.clone());
        Some(made)
    }
}
