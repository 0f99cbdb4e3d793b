//! Admission of volumes and claims: what is in use stays until it is not, and only what can grow
//! is asked to.

use gantry_machinery::{quota::quantity, status::Failure};
use serde_json::Value;

use super::stored;
use crate::{api::Cx, errors, object};

const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// StorageObjectInUseProtection: a controller takes the finalizer off what nobody uses.
pub fn protect(cx: &Cx, object: &mut Value) {
    let name = match cx.resource().kind.as_str() {
        "PersistentVolumeClaim" => "kubernetes.io/pvc-protection",
        "PersistentVolume" => "kubernetes.io/pv-protection",
        _ => return,
    };
    let mut all = object::finalizers(object);
    if !all.iter().any(|f| f == name) {
        all.push(name.to_owned());
        object::set_meta(object, "finalizers", all);
    }
}

fn class(claim: &Value) -> &str {
    object::meta(claim)
        .and_then(|m| m.get("annotations"))
        .and_then(|a| a.get(OLD_CLASS))
        .and_then(Value::as_str)
        .unwrap_or_else(|| object::text(claim, "/spec/storageClassName"))
}

/// PersistentVolumeClaimResize: a claim grows when it is bound and its class lets claims grow.
pub fn growth(cx: &Cx, claim: &Value, old: &Value) -> Result<(), Failure> {
    let allows = |name: &str| {
        let found = stored(cx, "storage.k8s.io/storageclasses", name);
        found.is_some_and(|c| c.get("allowVolumeExpansion") == Some(&Value::Bool(true)))
    };
    match no_growth(claim, old, allows) {
        Some(why) => Err(errors::forbidden(cx.resource(), object::name(claim), why)),
        None => Ok(()),
    }
}

/// Why a claim may not become what it is asked to.
fn no_growth(claim: &Value, old: &Value, allows: impl Fn(&str) -> bool) -> Option<&'static str> {
    let size = |claim: &Value| {
        let request = claim.pointer("/spec/resources/requests/storage");
        request.and_then(quantity)
    };
    let grows = match (size(claim), size(old)) {
        (Some(new), Some(old)) => new > old,
        (new, None) => new.is_some(),
        (None, _) => false,
    };
    if !grows {
        return None;
    }
    if object::text(old, "/status/phase") != "Bound" {
        return Some("Only bound persistent volume claims can be expanded");
    }
    let name = class(claim);
    if name.is_empty() || name != class(old) || !allows(name) {
        return Some(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn claim(size: &str, class: &str, phase: &str) -> Value {
        let spec = json!({"storageClassName": class, "resources": {"requests": {"storage": size}}});
        json!({"metadata": {}, "spec": spec, "status": {"phase": phase}})
    }

    #[rstest]
    #[case(
        claim("2Gi", "growing", "Bound"),
        claim("1Gi", "growing", "Bound"),
        None
    )]
    #[case(claim("1Gi", "fixed", "Bound"), claim("1Gi", "fixed", "Bound"), None)]
    #[case(claim("1Gi", "fixed", "Bound"), claim("2Gi", "fixed", "Bound"), None)]
    #[case(
        claim("2Gi", "fixed", "Bound"),
        claim("1Gi", "fixed", "Bound"),
        Some("only dynamically")
    )]
    #[case(
        claim("2Gi", "", "Bound"),
        claim("1Gi", "", "Bound"),
        Some("only dynamically")
    )]
    #[case(
        claim("2Gi", "growing", "Pending"),
        claim("1Gi", "growing", "Pending"),
        Some("Only bound")
    )]
    fn claims_grow(#[case] new: Value, #[case] old: Value, #[case] refused: Option<&str>) {
        let why = no_growth(&new, &old, |name| name == "growing");
        assert_eq!(why.map(|w| &w[..refused.map_or(0, str::len)]), refused);
    }
}
