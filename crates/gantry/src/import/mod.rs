//! Plain manifests to Apps and Groups: a pure translation.
//!
//! What is understood is *taken* out of the manifest; what is left in it at the end is reported. So
//! nothing can be dropped silently: a field that nobody takes shows up by itself.

mod leftover;
mod read;
mod translate;

use gantry_api::{App, Group};

pub use leftover::Manifest;
pub use read::{read, values};
pub use translate::translate;

/// How manifests are brought in.
#[derive(Debug, Clone)]
pub struct Options {
    /// Namespace of the Apps and Groups.
    pub tenant: String,
    /// Environment of the Groups, and the last part of their names.
    pub environment: String,
    /// Cells over which every Group spreads evenly.
    pub cells: Vec<String>,
    /// Instances of each Group; `None`: as the manifest says.
    pub replicas: Option<i32>,
    /// Whether StatefulSets are taken like Deployments.
    pub stateful_sets: bool,
}

/// What became of the manifests.
#[derive(Debug, Default)]
pub struct Imported {
    pub apps: Vec<App>,
    pub groups: Vec<Group>,
    /// What was not carried over, in the order of the manifests.
    pub left: Vec<Left>,
}

/// Something that was not carried over.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Left {
    /// `Deployment/cart`
    pub object: String,
    /// The field, or nothing where it is the whole object.
    pub field: Option<String>,
    pub reason: String,
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{} {field}: {}", self.object, self.reason),
            None => write!(f, "{}: {}", self.object, self.reason),
        }
    }
}
