//! Claims and volumes as the API has them, cut to what scheduling asks.

use super::disks::{Disk, EBS, GCE};
use super::{BIND_COMPLETED, CLASS_ANNOTATION, Claim, EXCLUSIVE, SELECTED_NODE, Volume, ZONES};
use crate::core::nodes::Node;
use crate::core::object;
use crate::core::request::amount;
use crate::core::selector::{NodeTerm, Selector};
use crate::core::symbols::{Symbol, Symbols};
use k8s_openapi::api::core::v1 as k8s;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

pub(super) fn bytes(quantity: Option<&Quantity>) -> i64 {
    quantity.map_or(0, |q| amount("storage", q))
}

pub(super) fn is_block(mode: Option<&String>) -> bool {
    mode.is_some_and(|m| m == "Block")
}

pub(super) fn nonempty(text: Option<&String>) -> Option<&String> {
    text.filter(|t| !t.is_empty())
}

impl Claim {
    pub(super) fn compile(claim: &object::Claim, symbols: &mut Symbols) -> Self {
        let (meta, spec) = (&claim.metadata, &claim.spec);
        let annotation = |key: &str| meta.annotations.as_ref().and_then(|a| a.get(key));
        let volume = nonempty(spec.volume_name.as_ref()).map(|v| symbols.intern(v));
        let phase = claim.status.phase.as_deref();
        let complete = annotation(BIND_COMPLETED).is_some() || phase == Some("Bound");
        let class = annotation(CLASS_ANNOTATION).or(spec.storage_class_name.as_ref());
        let owner = meta
            .owner_references
            .iter()
            .flatten()
            .find(|o| o.controller == Some(true));
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            bound: volume.is_some() && complete,
            volume,
            lost: phase == Some("Lost"),
            leaving: meta.deletion_timestamp.is_some(),
            class: nonempty(class).map(|c| symbols.intern(c)),
            selected: nonempty(annotation(SELECTED_NODE)).map(|n| symbols.intern(n)),
            exclusive: spec.access_modes.iter().any(|m| m == EXCLUSIVE),
            modes: spec.access_modes.clone(),
            block: is_block(spec.volume_mode.as_ref()),
            size: bytes(spec.resources.requests.get("storage")),
            attributes: nonempty(spec.volume_attributes_class_name.as_ref())
                .map(|c| symbols.intern(c)),
            selector: spec
                .selector
                .as_ref()
                .map(|s| Selector::compile(Some(s), symbols)),
            owner: owner.map(|o| o.uid.as_str().into()),
        }
    }
}

/// The driver that attaches a volume, and under which handle. In-tree volumes are attached by the drivers that have taken
/// over; the handle only has to tell volumes apart.
fn attaches(
    spec: &object::PersistentVolumeSpec,
    symbols: &mut Symbols,
) -> Option<(Symbol, Symbol)> {
    if let Some(csi) = &spec.csi {
        return Some((
            symbols.intern(&csi.driver),
            symbols.intern(&csi.volume_handle),
        ));
    }
    let cinder = spec.cinder.as_ref().map(|d| k8s::CinderVolumeSource {
        volume_id: d.volume_id.clone(),
        ..k8s::CinderVolumeSource::default()
    });
    let disk = object::Volume {
        gce_persistent_disk: spec.gce_persistent_disk.clone(),
        aws_elastic_block_store: spec.aws_elastic_block_store.clone(),
        azure_disk: spec.azure_disk.clone(),
        cinder,
        ..object::Volume::default()
    };
    for driver in [EBS, GCE] {
        symbols.intern(driver);
    }
    Disk::compile(&disk, symbols)?.attaches(symbols)
}

impl Volume {
    pub(super) fn compile(volume: &object::PersistentVolume, symbols: &mut Symbols) -> Self {
        let spec = &volume.spec;
        let labels = volume.metadata.labels.as_ref();
        let required = spec
            .node_affinity
            .as_ref()
            .and_then(|a| a.required.as_ref());
        let zones = ZONES.iter().filter_map(|(key, modern)| {
            let value = labels?.get(*key)?;
            // Several zones are written with two underscores between.
            let values: Option<Vec<_>> = value
                .split("__")
                .map(|zone| (!zone.trim().is_empty()).then(|| symbols.intern(zone.trim())))
                .collect();
            Some((symbols.intern(key), symbols.intern(modern), values?))
        });
        let zones = zones.collect();
        Self {
            claim: spec.claim_ref.as_ref().map(|r| {
                let (namespace, name) = (&r.namespace, &r.name);
                let key = format!(
                    "{}/{}",
                    namespace.as_deref().unwrap_or_default(),
                    name.as_deref().unwrap_or_default()
                );
                let uid = nonempty(r.uid.as_ref()).map(|u| u.as_str().into());
                (symbols.intern(&key), uid)
            }),
            class: nonempty(spec.storage_class_name.as_ref()).map(|c| symbols.intern(c)),
            modes: spec.access_modes.clone(),
            block: is_block(spec.volume_mode.as_ref()),
            capacity: bytes(spec.capacity.get("storage")),
            attributes: nonempty(spec.volume_attributes_class_name.as_ref())
                .map(|c| symbols.intern(c)),
            labels: symbols.labels(labels.into_iter().flatten()),
            affinity: required.map(|r| {
                r.node_selector_terms
                    .iter()
                    .map(|t| NodeTerm::compile(t, symbols))
                    .collect()
            }),
            zones,
            attaches: attaches(spec, symbols),
            available: volume.status.phase.as_deref() == Some("Available"),
            leaving: volume.metadata.deletion_timestamp.is_some(),
        }
    }

    pub(super) fn reaches(&self, node: &Node, symbols: &Symbols) -> bool {
        self.affinity.as_ref().is_none_or(|terms| {
            terms
                .iter()
                .any(|t| t.matches(node.name, &node.labels, symbols))
        })
    }

    pub(super) fn is_for(&self, claim: Symbol, uid: &str) -> bool {
        self.claim
            .as_ref()
            .is_some_and(|(key, bound)| *key == claim && bound.as_ref().is_none_or(|b| **b == *uid))
    }

    /// The labels that a node must have, where every term names a value: the narrowest way to its nodes.
    pub(super) fn pins(&self) -> Option<Vec<(Symbol, Symbol)>> {
        let terms = self.affinity.as_ref()?;
        let mut pins = Vec::new();
        for term in terms {
            pins.extend(term.labels.certain_values()?);
        }
        Some(pins)
    }
}
