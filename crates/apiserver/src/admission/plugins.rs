//! The admission plugins of Kubernetes by name, and which of them are offered here.

/// Whether a plugin is offered, and whether it works without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Works unless it is disabled.
    On,
    /// Works where it is enabled.
    Off,
    /// Known in Kubernetes, not offered here, and why.
    Absent(&'static str),
}

use Offer::{Absent, Off, On};

/// All plugins of Kubernetes 1.36, by name. (AlwaysAdmit does nothing, and what NamespaceExists does
/// NamespaceLifecycle does too, which always works here. PodGroupProtection, PodGroupWorkloadExists and
/// JobValidation are on by default and do nothing before the features GenericWorkload and WorkloadWithJob
/// are, which are off by default: PodGroups and Workloads are not served here. Of PodResizeValidator there is what
/// the recorded server did: the node has to be there.)
const PLUGINS: &[(&str, Offer)] = &[
    ("AlwaysAdmit", Off),
    ("AlwaysDeny", Off),
    ("AlwaysPullImages", Off),
    ("CertificateApproval", On),
    ("CertificateSigning", On),
    ("CertificateSubjectRestriction", On),
    ("ClusterTrustBundleAttest", On),
    ("DefaultIngressClass", On),
    ("DefaultStorageClass", On),
    ("DefaultTolerationSeconds", On),
    ("DenyServiceExternalIPs", Off),
    ("EventRateLimit", Off),
    ("ExtendedResourceToleration", Off),
    (
        "ImagePolicyWebhook",
        Absent("no image policy webhook is asked; a validating webhook on pods can refuse images"),
    ),
    ("JobValidation", On),
    ("LimitPodHardAntiAffinityTopology", Off),
    ("LimitRanger", On),
    ("MutatingAdmissionPolicy", On),
    ("MutatingAdmissionWebhook", On),
    ("NamespaceAutoProvision", Off),
    ("NamespaceExists", Off),
    ("NamespaceLifecycle", On),
    (
        "NodeDeclaredFeatureValidator",
        Absent(
            "pods are updated whatever features their nodes declare; the scheduler alone heeds them",
        ),
    ),
    ("NodeRestriction", On),
    ("OwnerReferencesPermissionEnforcement", Off),
    ("PersistentVolumeClaimResize", On),
    ("PodGroupProtection", On),
    ("PodGroupWorkloadExists", On),
    ("PodNodeSelector", Off),
    ("PodResizeValidator", On),
    ("PodSecurity", On),
    ("PodTolerationRestriction", Off),
    ("PodTopologyLabels", On),
    ("Priority", On),
    ("ResourceQuota", On),
    ("RuntimeClass", On),
    ("ServiceAccount", On),
    ("StorageObjectInUseProtection", On),
    ("TaintNodesByCondition", On),
    ("ValidatingAdmissionPolicy", On),
    ("ValidatingAdmissionWebhook", On),
];

/// What is offered of an admission plugin; `None` where Kubernetes has none of this name.
pub fn plugin(name: &str) -> Option<Offer> {
    PLUGINS
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, offer)| *offer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_is_known_once() {
        let names: Vec<&str> = PLUGINS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), 41);
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        assert_eq!(plugin("PodResizeValidator"), Some(On));
        assert!(matches!(plugin("ImagePolicyWebhook"), Some(Absent(_))));
        assert_eq!(plugin("Initializers"), None);
    }
}
