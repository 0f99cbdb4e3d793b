//! Field ownership: who set which field of an object (`metadata.managedFields`), and server-side
//! apply on top of it.
//!
//! Semantics, sets and messages are those of kube-apiserver's `managedfields` package over
//! `structured-merge-diff`. One thing is simpler here: an update works on the entries as JSON, in
//! place, so that what it costs depends on what changed, not on how much is owned. And an entry of a
//! version that a definition no longer has is dropped, as is meant there, where such an entry makes
//! applies fail and updates lose all entries (kubernetes/kubernetes#111937, #133704).
//!
//! The flow of a write: the API server decodes the new object, calls [`track_update`] (or
//! [`apply`], whose result it decodes and defaults like a request), carries out the rest of the
//! write, and last calls [`keep_times`], which turns a write that changed nothing into no write.

mod applying;
mod compare;
mod element;
#[cfg(test)]
mod laws;
mod managed;
mod merge;
mod remove;
mod reset;
mod scale;
mod set;
#[cfg(test)]
mod sharing;
mod types;
mod update;
mod versions;

pub use applying::{apply, apply_in};
pub use element::PathElement;
pub use managed::{check_entries, keep_times};
pub use merge::merge_configuration;
pub use reset::{ResetFields, reset_fields};
pub use scale::{from_scale, replicas_path, to_scale};
pub use set::FieldSet;
pub use update::{track_creation, track_update, track_update_in};
pub use versions::{Kind, Versions};

/// How a manager came by its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub struct Manager<'a> {
    /// `fieldManager` of the request, or what stands for it (the user agent up to its first `/`).
    /// Empty is recorded as `unknown`.
    pub name: &'a str,
    pub operation: Operation,
    /// The version of the request, such as `apps/v1`.
    pub api_version: &'a str,
    /// Empty on the main resource.
    pub subresource: &'a str,
    pub time: jiff::Timestamp,
}
