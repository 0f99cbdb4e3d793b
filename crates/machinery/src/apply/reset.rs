//! Fields that an endpoint does not let its callers change, and which they therefore never own:
//! the status on the main resource, the spec on the status subresource.
//!
//! From the `GetResetFields` of kube-apiserver's registries.

use super::{FieldSet, PathElement, set::Node};
use crate::resource::Resource;

/// What of a request an endpoint throws away.
#[derive(Debug, Clone, Default)]
pub struct ResetFields {
    excluded: FieldSet,
    /// When not empty, only fields under one of these paths are kept; `None` stands for any step.
    included: Vec<Vec<Option<PathElement>>>,
}

impl ResetFields {
    /// An endpoint that keeps everything.
    pub fn none() -> Self {
        ResetFields::default()
    }

    fn of(paths: &[&[&str]]) -> Self {
        let mut excluded = FieldSet::new();
        for path in paths {
            let path: Vec<PathElement> = path.iter().map(|p| PathElement::field(p)).collect();
            excluded.insert(&path);
        }
        ResetFields {
            excluded,
            included: Vec::new(),
        }
    }

    fn only(paths: &[&[&str]]) -> Self {
        ResetFields {
            excluded: FieldSet::new(),
            included: paths
                .iter()
                .map(|path| {
                    path.iter()
                        .map(|p| (*p != "*").then(|| PathElement::field(p)))
                        .collect()
                })
                .collect(),
        }
    }

    /// The fields of a set that the endpoint keeps.
    pub(super) fn keep(&self, set: FieldSet) -> FieldSet {
        let set = set.recursive_difference(&self.excluded);
        if self.included.is_empty() {
            return set;
        }
        let patterns: Vec<&[Option<PathElement>]> =
            self.included.iter().map(Vec::as_slice).collect();
        included(&set, &patterns)
    }
}

fn included(set: &FieldSet, patterns: &[&[Option<PathElement>]]) -> FieldSet {
    if patterns.iter().any(|p| p.is_empty()) {
        return set.clone();
    }
    let mut out = FieldSet::new();
    for node in set.nodes() {
        let Node {
            element,
            member,
            children,
        } = node;
        let rest: Vec<&[Option<PathElement>]> = patterns
            .iter()
            .filter_map(|p| match p.split_first() {
                Some((first, rest)) if first.as_ref().is_none_or(|f| f == element) => Some(rest),
                _ => None,
            })
            .collect();
        if !rest.is_empty() {
            out.push(element.clone(), *member, included(children, &rest));
        }
    }
    out
}

/// The reset fields of a resource or one of its subresources.
pub fn reset_fields(resource: &Resource, subresource: Option<&str>) -> ResetFields {
    let kind = (resource.group.as_str(), resource.kind.as_str());
    if let Some(custom) = &resource.custom {
        return match subresource {
            None if custom.has_status => ResetFields::of(&[&["status"]]),
            Some("status") => ResetFields::of(&[&["metadata"], &["spec"]]),
            _ => ResetFields::none(),
        };
    }
    match (subresource, kind) {
        (None, _) if resource.subresource("status").is_some() => ResetFields::of(&[&["status"]]),
        (Some("status"), ("", "Pod")) => ResetFields::of(&[
            &["spec"],
            &["metadata", "deletionTimestamp"],
            &["metadata", "ownerReferences"],
        ]),
        (Some("status"), ("apps", "Deployment")) => {
            ResetFields::of(&[&["spec"], &["metadata", "labels"]])
        }
        (
            Some("status"),
            ("storage.k8s.io", "VolumeAttachment")
            | (
                "flowcontrol.apiserver.k8s.io"
                | "resource.k8s.io"
                | "admissionregistration.k8s.io"
                | "storagemigration.k8s.io"
                | "internal.apiserver.k8s.io",
                _,
            ),
        ) => ResetFields::of(&[&["metadata"], &["spec"]]),
        (Some("status"), _) => ResetFields::of(&[&["spec"]]),
        (Some("approval"), ("certificates.k8s.io", _)) => {
            ResetFields::of(&[&["spec"], &["status", "certificate"]])
        }
        (Some("finalize"), ("", "Namespace")) => ResetFields::of(&[&["status"]]),
        (Some("ephemeralcontainers"), ("", "Pod")) => {
            ResetFields::only(&[&["spec", "ephemeralContainers"]])
        }
        (Some("resize"), ("", "Pod")) => ResetFields::of(&[&["status"]]),
        _ => ResetFields::none(),
    }
}
