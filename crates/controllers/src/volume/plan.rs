//! What becomes of a claim and of a volume, given the others.

use std::sync::Arc;

use gantry_machinery::quantity::Quantity;

use crate::model::volume::{Amounts, Claim, StorageClass, Volume};

/// The provisioner whose volumes are simulated.
pub const SIMULATED: &str = "simulated.gantry.dev";
/// Annotation of a claim that has been bound: from then on its volume must be there.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Annotation of a claim or a volume whose other side a controller chose, not a person.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// Annotation of a claim that is bound late: the scheduler has chosen this node for the pod that mounts it, and wants a
/// volume made near it.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Annotation of a volume with the provisioner that made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// What a claim's sync looks at.
pub struct Claimed<'a> {
    pub claim: &'a Claim,
    /// The volume that the claim names, if it names one that is there.
    pub named: Option<Arc<Volume>>,
    /// All volumes, where the claim names none.
    pub volumes: &'a [Arc<Volume>],
    /// The claim's class, if it names one that is there.
    pub class: Option<Arc<StorageClass>>,
}

#[derive(Debug, PartialEq)]
pub enum Step {
    /// Both sides are made to say that they belong to each other.
    Bind(Arc<Volume>),
    /// A volume is made.
    Provision(Arc<StorageClass>),
    /// Another's provisioner is asked for a volume.
    Ask(String),
    /// It stays pending, for this reason (event reason and message; a warning or not).
    Wait(Why),
    /// The volume that it was bound to is gone, or is another's.
    Lost(&'static str, &'static str),
    Nothing,
}

#[derive(Debug, PartialEq)]
pub struct Why {
    pub reason: &'static str,
    pub message: String,
    pub warning: bool,
}

fn wait(reason: &'static str, message: impl Into<String>, warning: bool) -> Step {
    Step::Wait(Why {
        reason,
        message: message.into(),
        warning,
    })
}

/// Whether a volume is reserved for a claim, or bound to it.
pub fn is_for(volume: &Volume, claim: &Claim) -> bool {
    volume.spec.claim_ref.as_ref().is_some_and(|r| {
        *r.namespace == *claim.metadata.namespace
            && *r.name == *claim.metadata.name
            && (r.uid.is_empty() || *r.uid == *claim.metadata.uid)
    })
}

pub fn storage(amounts: &Amounts) -> Quantity {
    let text = amounts.get("storage").map_or("0", String::as_str);
    Quantity::parse(text).unwrap_or(Quantity::ZERO)
}

fn mode(mode: &str) -> &str {
    if mode.is_empty() { "Filesystem" } else { mode }
}

/// Whether a volume is what a claim asks for.
fn satisfies(volume: &Volume, claim: &Claim) -> bool {
    let (have, want) = (&volume.spec, &claim.spec);
    have.storage_class_name == want.storage_class_name
        && mode(&have.volume_mode) == mode(&want.volume_mode)
        && want
            .access_modes
            .iter()
            .all(|m| have.access_modes.contains(m))
        && storage(&have.capacity) >= storage(&want.resources.requests)
        && want
            .selector
            .as_ref()
            .is_none_or(|s| s.matches(&volume.metadata.labels))
}

pub fn claim(world: &Claimed<'_>) -> Step {
    let claim = world.claim;
    if claim.metadata.deleted.is_some() {
        return Step::Nothing;
    }
    if !claim.spec.volume_name.is_empty() {
        let was_bound = claim.metadata.annotations.get(BIND_COMPLETED).is_some();
        return match &world.named {
            Some(volume) if is_for(volume, claim) => Step::Bind(volume.clone()),
            Some(volume) if volume.spec.claim_ref.is_none() && !was_bound => {
                if satisfies(volume, claim) {
                    Step::Bind(volume.clone())
                } else {
                    let name = &volume.metadata.name;
                    wait(
                        "VolumeMismatch",
                        format!(
                            "Cannot bind to requested volume \"{name}\": it is not what the claim asks for"
                        ),
                        true,
                    )
                }
            }
            Some(_) if was_bound => Step::Lost(
                "ClaimMisbound",
                "Two claims are bound to the same volume, this one is bound incorrectly",
            ),
            Some(volume) => {
                let name = &volume.metadata.name;
                wait(
                    "FailedBinding",
                    format!("volume \"{name}\" already bound to a different claim."),
                    true,
                )
            }
            None if was_bound => Step::Lost(
                "ClaimLost",
                "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
            ),
            None => Step::Nothing,
        };
    }
    let there = |v: &&Arc<Volume>| v.metadata.deleted.is_none();
    let mut volumes = world.volumes.iter().filter(there);
    if let Some(reserved) = volumes.find(|v| is_for(v, claim)) {
        return Step::Bind(reserved.clone());
    }
    let delayed = world
        .class
        .as_ref()
        .is_some_and(|c| c.volume_binding_mode == "WaitForFirstConsumer");
    if delayed && claim.metadata.annotations.get(SELECTED_NODE).is_none() {
        return wait(
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
            false,
        );
    }
    let free = world
        .volumes
        .iter()
        .filter(there)
        .filter(|v| v.spec.claim_ref.is_none() && satisfies(v, claim));
    // The least that is enough; by name where several are alike.
    let best = free.min_by_key(|v| (storage(&v.spec.capacity), v.metadata.name.clone()));
    // Late, it is the scheduler that finds volumes, and reserves them; it asks for one only where none will do.
    if let Some(volume) = best.filter(|_| !delayed) {
        return Step::Bind(volume.clone());
    }
    let name = &claim.spec.storage_class_name;
    match &world.class {
        _ if name.is_empty() => wait(
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set",
            false,
        ),
        None => wait(
            "ProvisioningFailed",
            format!("storageclass.storage.k8s.io \"{name}\" not found"),
            true,
        ),
        Some(class) if class.provisioner == SIMULATED => Step::Provision(class.clone()),
        Some(class) if class.provisioner == "kubernetes.io/no-provisioner" => wait(
            "ProvisioningFailed",
            "no volume plugin matched name: kubernetes.io/no-provisioner",
            true,
        ),
        Some(class) => Step::Ask(class.provisioner.clone()),
    }
}

/// What becomes of a volume.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    Phase(&'static str),
    /// Its claim is gone, and nobody wants it any more.
    Delete,
    /// Its claim is gone, and it is to be claimed again.
    Recycle,
    Nothing,
}

/// The fate of a volume, given the claim that it refers to.
pub fn volume(volume: &Volume, claim: Option<&Claim>) -> Fate {
    if volume.metadata.deleted.is_some() {
        return Fate::Nothing;
    }
    let phase = |wanted: &'static str| {
        if volume.status.phase == wanted {
            Fate::Nothing
        } else {
            Fate::Phase(wanted)
        }
    };
    let Some(reference) = &volume.spec.claim_ref else {
        return phase("Available");
    };
    if reference.uid.is_empty() {
        // Reserved; the claim does the binding.
        return phase("Available");
    }
    match claim.filter(|c| *c.metadata.uid == *reference.uid) {
        Some(claim) if *claim.spec.volume_name == *volume.metadata.name => phase("Bound"),
        // The claim will be bound to it, or is bound to another already.
        Some(_) => Fate::Nothing,
        None if volume.status.phase != "Released" => Fate::Phase("Released"),
        None => {
            let ours = volume.metadata.annotations.get(PROVISIONED_BY) == Some(SIMULATED);
            match volume.spec.persistent_volume_reclaim_policy.as_str() {
                "Delete" if ours => Fate::Delete,
                "Recycle" => Fate::Recycle,
                _ => Fate::Nothing,
            }
        }
    }
}
