//! The admission plugins of Kubernetes by name, and which of them are offered here.

/// Whether a plugin is offered, and whether it works without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Works unless it is disabled.
    On,
    /// Works where it is enabled.
    Off,
    /// Known in Kubernetes, not offered here.
    Absent,
}

use Offer::{Absent, Off, On};

/// All plugins of Kubernetes 1.36, by name. (AlwaysAdmit does nothing, and what NamespaceExists does
/// NamespaceLifecycle does too, which always works here.)
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
    ("ImagePolicyWebhook", Absent),
    ("LimitPodHardAntiAffinityTopology", Off),
    ("LimitRanger", On),
    ("MutatingAdmissionPolicy", On),
    ("MutatingAdmissionWebhook", On),
    ("NamespaceAutoProvision", Off),
    ("NamespaceExists", Off),
    ("NamespaceLifecycle", On),
    ("NodeDeclaredFeatureValidator", Absent),
    ("NodeRestriction", On),
    ("OwnerReferencesPermissionEnforcement", Off),
    ("PersistentVolumeClaimResize", On),
    ("PodNodeSelector", Off),
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
