//! CEL in admission: the conditions of webhooks, and admission policies.
//!
//! What is written in an object is compiled once ([`Conditions`], [`Validator`], [`Mutator`]) and
//! evaluated on each request that it is about ([`Input`]). Variables, result types, budgets and
//! messages are those of Kubernetes (`k8s.io/apiserver/pkg/admission/plugin`).

mod check;
mod conditions;
mod declare;
mod expression;
mod mutate;
mod scope;
#[cfg(test)]
mod tests;
mod validate;

pub use check::{check_types, kinds_to_check};
pub use conditions::Conditions;
pub use expression::{Compiler, Wanted};
pub use mutate::{Change, Mutator};
pub use scope::Input;
pub use validate::{Annotation, Decision, Outcome, Validator};
