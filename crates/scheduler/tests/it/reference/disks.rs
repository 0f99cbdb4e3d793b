//! Disks that pods name without a claim, and features that nodes declare, plainly.

use super::World;
use super::random::{chance, pick};
use k8s_openapi::api::core::v1::{Pod, Volume};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// A disk of one of three kinds.
pub fn random_disk(random: &mut ChaCha8Rng) -> Value {
    let (name, reads) = (pick(random, &["a", "b"]), chance(random, 50));
    match pick(random, &["gce", "ebs", "rbd"]) {
        "gce" => {
            json!({"name": "disk", "gcePersistentDisk": {"pdName": name, "readOnly": reads}})
        }
        "ebs" => json!({"name": "disk", "awsElasticBlockStore": {"volumeID": name}}),
        _ => {
            let all = [json!(["m"]), json!(["n"]), json!(["m", "n"])];
            let monitors = &all[usize::from(reads) + usize::from(chance(random, 50))];
            json!({"name": "disk", "rbd": {"monitors": monitors, "image": name, "readOnly": reads}})
        }
    }
}

/// The pod needs users apart from the host's in the host's network.
pub fn set_apart(spec: &mut Value) {
    spec["hostNetwork"] = json!(true);
    spec["hostUsers"] = json!(false);
}

/// What of it a node may declare, beside what nobody asks for.
pub fn random_features(random: &mut ChaCha8Rng) -> Value {
    if chance(random, 50) {
        json!([
            "GuaranteedQoSPodCPUResize",
            "UserNamespacesHostNetworkSupport"
        ])
    } else {
        json!(["RestartAllContainersOnContainerExits"])
    }
}

fn volumes(pod: &Pod) -> Vec<Volume> {
    let spec = pod.spec.as_ref().expect("a spec");
    spec.volumes.clone().unwrap_or_default()
}

fn at_odds(a: &Volume, b: &Volume) -> bool {
    if let (Some(a), Some(b)) = (&a.gce_persistent_disk, &b.gce_persistent_disk) {
        let both_read = a.read_only == Some(true) && b.read_only == Some(true);
        return a.pd_name == b.pd_name && !both_read;
    }
    if let (Some(a), Some(b)) = (&a.aws_elastic_block_store, &b.aws_elastic_block_store) {
        return a.volume_id == b.volume_id;
    }
    if let (Some(a), Some(b)) = (&a.rbd, &b.rbd) {
        let both_read = a.read_only == Some(true) && b.read_only == Some(true);
        let shared = a.monitors.iter().any(|m| b.monitors.contains(m));
        return shared && a.image == b.image && !both_read;
    }
    false
}

impl World {
    pub fn disks_free(&self, pod: &Pod, node: &str) -> bool {
        let own = volumes(pod);
        !self.on(node).any(|other| {
            let theirs = volumes(other);
            own.iter().any(|a| theirs.iter().any(|b| at_odds(a, b)))
        })
    }

    pub fn declares(&self, pod: &Pod, node: &str) -> bool {
        let spec = pod.spec.as_ref().expect("a spec");
        let needs = spec.host_network == Some(true) && spec.host_users == Some(false);
        let status = self.nodes[node].status.as_ref();
        let declared = status.and_then(|s| s.declared_features.as_ref());
        !needs
            || declared.is_some_and(|d| d.iter().any(|f| f == "UserNamespacesHostNetworkSupport"))
    }
}
