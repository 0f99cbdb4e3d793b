//! CustomResourceDefinitions: from a definition to resources that are served like built-in ones,
//! and the rules for the definition itself and for the objects of its kind.
//!
//! Messages and semantics are those of `k8s.io/apiextensions-apiserver`. CEL rules
//! (`x-kubernetes-validations`) are stored with the schema and not yet evaluated: neither
//! [`validate_definition`] compiles them nor does [`validate`] run them.

mod causes;
mod definition;
mod format;
mod resources;
mod status;
mod structural;
mod unique;
mod validate;
mod values;
mod versions;

pub use definition::{set_defaults, validate_definition};
pub use resources::resources;
pub use status::status_conditions;
pub use structural::structural;
pub use validate::validate;
pub use values::{default, prune};
