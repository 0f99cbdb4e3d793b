//! CustomResourceDefinitions: from a definition to resources that are served like built-in ones,
//! and the rules for the definition itself and for the objects of its kind.
//!
//! Messages and semantics are those of `k8s.io/apiextensions-apiserver`.

mod causes;
mod definition;
mod format;
mod resources;
mod rules;
mod scale;
mod status;
mod structural;
mod unique;
mod validate;
mod values;
mod versions;

pub use definition::{set_defaults, validate_definition};
pub use resources::resources;
pub use rules::Rules;
pub use scale::scale_faults;
pub use status::status_conditions;
pub use structural::structural;
pub use validate::validate;
pub use values::{default, has_defaults, prune};
