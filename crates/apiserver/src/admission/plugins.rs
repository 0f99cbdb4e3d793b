//! The admission plugins of Kubernetes by name, and which of them are offered here.

/// Whether a plugin is offered, and whether it works without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Works unless it is disabled.
    On,
    /// Known in Kubernetes, not offered here.
    Absent,
}

use Offer::{Absent, On};

/// All plugins of Kubernetes 1.36, by name.
const PLUGINS: &[(&str, Offer)] = &[
    ("AlwaysAdmit", Absent),
    ("AlwaysDeny", Absent),
    ("AlwaysPullImages", Absent),
    ("CertificateApproval", On),
    ("CertificateSigning", On),
    ("CertificateSubjectRestriction", On),
    ("ClusterTrustBundleAttest", On),
    ("DefaultIngressClass", On),
    ("DefaultStorageClass", On),
    ("DefaultTolerationSeconds", On),
    ("DenyServiceExternalIPs", Absent),
    ("EventRateLimit", Absent),
    ("ExtendedResourceToleration", Absent),
    ("ImagePolicyWebhook", Absent),
    ("LimitPodHardAntiAffinityTopology", Absent),
    ("LimitRanger", On),
    ("MutatingAdmissionPolicy", On),
    ("MutatingAdmissionWebhook", On),
    ("NamespaceAutoProvision", Absent),
    ("NamespaceExists", Absent),
    ("NamespaceLifecycle", On),
    ("NodeDeclaredFeatureValidator", Absent),
    ("NodeRestriction", On),
    ("OwnerReferencesPermissionEnforcement", Absent),
    ("PersistentVolumeClaimResize", On),
    ("PodNodeSelector", Absent),
    ("PodSecurity", On),
    ("PodTolerationRestriction", Absent),
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
