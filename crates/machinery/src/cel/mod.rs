//! The Common Expression Language (CEL) as Kubernetes speaks it: in the rules of
//! CustomResourceDefinitions, in admission policies and in the conditions of webhooks.
//!
//! An expression is compiled once against the types of its variables, which finds most of what
//! can be wrong with it and bounds what it can cost, and evaluated many times, directly on JSON.
//! Functions, messages and costs are those of cel-go with Kubernetes' libraries (1.36).

mod ast;
mod authorizer;
mod check;
mod cost;
pub mod device;
mod error;
mod eval;
mod format;
mod functions;
mod lexer;
mod net;
mod number;
mod parser;
mod semver;
mod signatures;
mod strings;
#[cfg(test)]
mod tests;
mod time;
mod types;
mod value;

use std::sync::Arc;

pub use authorizer::{Answer, Authorizer, Check, Question};
pub use cost::Span;
pub use error::{Fault, Issue, Issues};
pub use types::{Decl, Field, ListKind, Object, RESERVED, Text, Type, escape};
pub use value::{Key, Lazy, Value};

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Program {
    root: ast::Expr,
}

/// What an expression is compiled against.
#[derive(Default)]
pub struct Environment<'v> {
    /// Variables and their types.
    pub variables: &'v [(&'v str, Type)],
    /// Structures that an expression may make, by name.
    pub structures: Option<&'v Structures>,
}

/// Finds the type of a structure by its name.
pub type Structures = dyn Fn(&str) -> Option<Type>;

/// Whether a text is a version by semver 2.0.
pub fn is_semver(text: &str) -> bool {
    semver::parse(text, false).is_ok()
}

/// The type of the variable `authorizer`.
pub const AUTHORIZER: Type = Type::Named("kubernetes.authorization.Authorizer");
/// The type of the variable `authorizer.requestResource`.
pub const RESOURCE_CHECK: Type = Type::Named("kubernetes.authorization.ResourceCheck");

impl Program {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile(environment: &Environment<'_>, text: &str) -> Result<Program, Issues> {
        let issues = |list| Issues {
            source: Arc::from(text),
            list,
        };
        let mut root = parser::parse(text).map_err(|issue| issues(vec![issue]))?;
        let mut checker = check::Checker {
            variables: environment.variables,
            structures: environment.structures.unwrap_or(&|_| None),
            scopes: vec![],
            issues: vec![],
            mixed: false,
        };
        checker.check(&mut root);
        let mut found = checker.issues;
        if found.is_empty() {
            return Ok(Program { root });
        }
        found.sort_by_key(|issue| issue.at);
        Err(issues(found))
    }

    /// The type of what it evaluates to.
    pub fn result(&self) -> &Type {
        &self.root.ty
    }

    /// Whether it reads a variable.
    pub fn reads(&self, name: &str) -> bool {
        self.root.reads(name)
    }

    /// Whether it reads this field of a variable.
    pub fn selects(&self, name: &str, field: &str) -> bool {
        self.root.selects(name, field)
    }

    /// What one evaluation can cost, given what is declared of its variables.
    pub fn estimate(&self, variables: &[(&str, &Decl)]) -> Span {
        cost::Estimator::new(variables).cost(&self.root)
    }

    /// Evaluates it. Gives the value, or why there is none, and what the evaluation cost; it ends
    /// with [`Fault::TooCostly`] when that would be more than `most`.
    pub fn eval<'a>(
        &'a self,
        variables: &[(&str, Value<'a>)],
        most: u64,
    ) -> (Result<Value<'a>, Fault>, u64) {
        let mut evaluation = eval::Evaluation {
            variables,
            locals: vec![],
            cost: 0,
            most,
        };
        let value = evaluation.eval(&self.root);
        (value, evaluation.cost)
    }
}

/// Walks one level down an expression: on more stack where there is little left, since an expression
/// may be as deep as Kubernetes allows, and a thread's stack as small as it likes.
fn level<R>(walk: impl FnOnce() -> R) -> R {
    const LEAST: usize = 128 * 1024;
    const MORE: usize = 2 * 1024 * 1024;
    stacker::maybe_grow(LEAST, MORE, walk)
}
