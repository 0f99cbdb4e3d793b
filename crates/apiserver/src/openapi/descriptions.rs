//! What Kubernetes says of its types and fields, for `kubectl explain` and whoever else reads OpenAPI
//! documents: the texts that k8s-openapi carries with its types.

use std::{collections::HashMap, sync::LazyLock};

use k8s_openapi::{
    api::{
        admissionregistration::{
            v1 as admission, v1alpha1 as admission_alpha, v1beta1 as admission_beta,
        },
        apiserverinternal::v1alpha1 as internal,
        apps::v1 as apps,
        authentication::v1 as authentication,
        authorization::v1 as authorization,
        autoscaling::{v1 as autoscaling, v2 as autoscaling_2},
        batch::v1 as batch,
        certificates::{
            v1 as certificates, v1alpha1 as certificates_alpha, v1beta1 as certificates_beta,
        },
        coordination::{
            v1 as coordination, v1alpha2 as coordination_alpha, v1beta1 as coordination_beta,
        },
        core::v1 as core,
        discovery::v1 as discovery,
        events::v1 as events,
        flowcontrol::v1 as flow,
        networking::{v1 as networking, v1beta1 as networking_beta},
        node::v1 as node,
        policy::v1 as policy,
        rbac::v1 as rbac,
        resource::{
            v1 as resource, v1alpha3 as resource_alpha, v1beta1 as resource_beta,
            v1beta2 as resource_beta_2,
        },
        scheduling::{v1 as scheduling, v1alpha2 as scheduling_alpha},
        storage::{v1 as storage, v1beta1 as storage_beta},
        storagemigration::v1beta1 as migration,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions,
    apimachinery::pkg::apis::meta::v1 as meta,
    kube_aggregator::pkg::apis::apiregistration::v1 as registration,
    schemars::SchemaGenerator,
};
use serde_json::{Map, Value};

/// What is said of a type, and of its fields by name.
#[derive(Default)]
struct Said {
    whole: Option<Box<str>>,
    fields: HashMap<Box<str>, Box<str>>,
}

/// By the full names of types, as `io.k8s.api.core.v1.Pod`. Some megabytes: made when first wanted.
static SAID: LazyLock<HashMap<String, Said>> = LazyLock::new(|| {
    let mut all = SchemaGenerator::default();
    roots(&mut all);
    let definitions = all.definitions().iter();
    definitions
        .map(|(name, schema)| (name.clone(), Said::of(schema)))
        .collect()
});

impl Said {
    fn of(schema: &Value) -> Self {
        let text = |it: &Value| it.get("description")?.as_str().map(Box::from);
        let fields = schema.get("properties").and_then(Value::as_object);
        Self {
            whole: text(schema),
            fields: fields
                .into_iter()
                .flatten()
                .filter_map(|(name, field)| Some((name.as_str().into(), text(field)?)))
                .collect(),
        }
    }
}

/// Adds what is said of built-in types to the types of a document, by their full names. What an
/// author of a custom resource says stays.
pub fn add(types: &mut Map<String, Value>) {
    for (name, schema) in types {
        let (Some(said), Value::Object(schema)) = (SAID.get(name.as_str()), schema) else {
            continue;
        };
        if let Some(text) = &said.whole {
            put(schema, text);
        }
        let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
        for (field, schema) in fields.into_iter().flatten() {
            if let (Some(text), Value::Object(schema)) = (said.fields.get(field.as_str()), schema) {
                put(schema, text);
            }
        }
    }
}

fn put(schema: &mut Map<String, Value>, text: &str) {
    schema
        .entry("description")
        .or_insert_with(|| Value::from(text));
}

/// Enters all that is served, and with it every type that is reached from there.
fn roots(all: &mut SchemaGenerator) {
    macro_rules! enter {
        ($($kind:ty)+) => { $( all.subschema_for::<$kind>(); )+ };
    }
    enter! {
        admission::MutatingAdmissionPolicy admission::MutatingAdmissionPolicyBinding
        admission::MutatingWebhookConfiguration admission::ValidatingAdmissionPolicy
        admission::ValidatingAdmissionPolicyBinding admission::ValidatingWebhookConfiguration
        admission_alpha::MutatingAdmissionPolicy admission_alpha::MutatingAdmissionPolicyBinding
        admission_beta::MutatingAdmissionPolicy admission_beta::MutatingAdmissionPolicyBinding
        internal::StorageVersion
        apps::ControllerRevision apps::DaemonSet apps::Deployment apps::ReplicaSet apps::StatefulSet
        authentication::SelfSubjectReview authentication::TokenRequest authentication::TokenReview
        authorization::LocalSubjectAccessReview authorization::SelfSubjectAccessReview
        authorization::SelfSubjectRulesReview authorization::SubjectAccessReview
        autoscaling::HorizontalPodAutoscaler autoscaling::Scale autoscaling_2::HorizontalPodAutoscaler
        batch::CronJob batch::Job
        certificates::CertificateSigningRequest certificates_alpha::ClusterTrustBundle
        certificates_beta::ClusterTrustBundle certificates_beta::PodCertificateRequest
        coordination::Lease coordination_alpha::LeaseCandidate coordination_beta::LeaseCandidate
        core::Binding core::ComponentStatus core::ConfigMap core::Endpoints core::Event
        core::LimitRange core::Namespace core::Node core::PersistentVolume
        core::PersistentVolumeClaim core::Pod core::PodTemplate core::ReplicationController
        core::ResourceQuota core::Secret core::Service core::ServiceAccount
        discovery::EndpointSlice events::Event
        flow::FlowSchema flow::PriorityLevelConfiguration
        networking::Ingress networking::IngressClass networking::IPAddress
        networking::NetworkPolicy networking::ServiceCIDR
        networking_beta::IPAddress networking_beta::ServiceCIDR
        node::RuntimeClass policy::Eviction policy::PodDisruptionBudget
        rbac::ClusterRole rbac::ClusterRoleBinding rbac::Role rbac::RoleBinding
        resource::DeviceClass resource::ResourceClaim resource::ResourceClaimTemplate
        resource::ResourceSlice resource_alpha::DeviceTaintRule
        resource_alpha::ResourcePoolStatusRequest
        resource_beta::DeviceClass resource_beta::ResourceClaim
        resource_beta::ResourceClaimTemplate resource_beta::ResourceSlice
        resource_beta_2::DeviceClass resource_beta_2::DeviceTaintRule
        resource_beta_2::ResourceClaim resource_beta_2::ResourceClaimTemplate
        resource_beta_2::ResourceSlice
        scheduling::PriorityClass scheduling_alpha::PodGroup scheduling_alpha::Workload
        storage::CSIDriver storage::CSINode storage::CSIStorageCapacity storage::StorageClass
        storage::VolumeAttachment storage::VolumeAttributesClass storage_beta::VolumeAttributesClass
        migration::StorageVersionMigration
        extensions::CustomResourceDefinition registration::APIService
        meta::DeleteOptions meta::ListMeta meta::Status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_machinery::{openapi, resource::builtin_resources};

    #[test]
    fn every_type_that_is_served_says_what_it_is() {
        let mut document = openapi::v2(builtin_resources());
        let types = document["definitions"].as_object_mut().expect("types");
        add(types);
        let silent = |schema: &Value| schema.get("description").is_none();
        let mut fields = (0, 0);
        for (_, schema) in types.iter().filter(|(name, _)| !name.ends_with("List")) {
            for (_, field) in schema["properties"].as_object().into_iter().flatten() {
                fields.0 += 1;
                fields.1 += usize::from(silent(field));
            }
        }
        let mute: Vec<&String> = types
            .iter()
            .filter(|(name, schema)| !name.ends_with("List") && silent(schema))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(mute, Vec::<&String>::new());
        // Where Kubernetes itself is silent.
        assert!(fields.1 * 50 < fields.0, "{fields:?}");
    }
}
