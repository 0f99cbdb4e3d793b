//! How many more pods of a class would fit: placed one by one as they would be, and taken back.

use super::class::ClassId;
use super::cluster::Cluster;
use super::devices::ANNOTATION;
use super::diagnosis::Diagnosis;
use super::explain::Resource;
use k8s_openapi::api::resource::v1::{
    ResourceClaim, ResourceClaimConsumerReference, ResourceClaimStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::sync::Arc;

/// What the cluster has left for a class.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// So many more fit; at least, if `bounded`.
    pub more: usize,
    /// It was not tried further.
    pub bounded: bool,
    /// Why no further one fits.
    pub ends: Option<Diagnosis>,
    /// The resource of which the allowed nodes hold the fewest further pods, as things stand.
    pub binding: Option<Resource>,
}

impl Cluster {
    /// Whether there is a claim to a volume of that name.
    #[must_use]
    pub fn knows_claim(&self, namespace: &str, name: &str) -> bool {
        let symbols = &self.compiler.symbols;
        let key = symbols.known(&format!("{namespace}/{name}"));
        key.is_some_and(|key| self.volumes.has_claim(key))
    }

    /// What a decided pod was granted of devices holds from now on, as if it were written: others who share its claims
    /// need not wait for it.
    pub fn settle_devices(&mut self, pod: &str) {
        for grant in self.devices.send(pod) {
            let Some(allocation) = grant.allocation else {
                continue;
            };
            let user = ResourceClaimConsumerReference {
                resource: "pods".to_owned(),
                name: pod.to_owned(),
                uid: pod.to_owned(),
                ..Default::default()
            };
            let mut metadata = ObjectMeta {
                name: Some(grant.name),
                namespace: Some(grant.namespace),
                uid: Some(grant.uid),
                ..Default::default()
            };
            if grant.made.is_some() {
                metadata.name = Some(format!("{pod}-extended-resources"));
                metadata.uid.clone_from(&metadata.name);
                metadata.annotations = Some([(ANNOTATION.to_owned(), "true".to_owned())].into());
                metadata.owner_references = Some(vec![OwnerReference {
                    controller: Some(true),
                    uid: pod.to_owned(),
                    ..Default::default()
                }]);
            }
            let claim = ResourceClaim {
                metadata,
                status: Some(ResourceClaimStatus {
                    allocation: Some(allocation),
                    reserved_for: Some(vec![user]),
                    ..Default::default()
                }),
                ..Default::default()
            };
            self.change_devices(|devices, symbols| devices.set_claim(&claim, symbols));
        }
    }

    /// Tries how many more pods of a class fit, up to `most`. The cluster is as before afterwards.
    pub fn forecast(&mut self, class: ClassId, most: usize) -> Forecast {
        let before = self.events.len();
        let binding = self.binding_resource(class);
        let mut uids: Vec<Arc<str>> = Vec::new();
        while uids.len() < most {
            let Some(node) = self.choose(class) else {
                break;
            };
            let uid: Arc<str> = format!("forecast/{}", uids.len()).into();
            self.commit(&uid, class, node);
            self.events.truncate(before);
            uids.push(uid);
        }
        let bounded = uids.len() == most;
        let ends = (!bounded).then(|| self.diagnose(class));
        for uid in uids.iter().rev() {
            self.uncommit(uid);
        }
        self.events.truncate(before);
        Forecast {
            more: uids.len(),
            bounded,
            ends,
            binding,
        }
    }
}
