//! What a node's attachments are to be.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::model::node::AttachedVolume;
use crate::model::volume::{Attachment, Csi, Volume};

use super::super::plan::SIMULATED;

/// A volume that a pod on the node uses and that its driver must bring there.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub volume: Arc<Volume>,
    /// The pod that uses it, for the event.
    pub pod: usize,
    /// Other nodes where it is attached, or about to be.
    pub elsewhere: Vec<Arc<str>>,
}

#[derive(Debug, PartialEq)]
pub enum Action {
    Create {
        name: String,
        attacher: String,
        volume: Arc<str>,
    },
    Delete {
        name: Arc<str>,
        uid: Arc<str>,
    },
    /// The simulated driver has brought it.
    Attached {
        name: Arc<str>,
        uid: Arc<str>,
    },
    /// What the node's status is to say.
    Report(Vec<AttachedVolume>),
    /// It cannot come yet: it is bound to one node and still at another.
    Refuse {
        pod: usize,
        volume: Arc<str>,
    },
}

/// The name of the attachment of a volume to a node, as Kubernetes makes it.
pub fn name(handle: &str, driver: &str, node: &str) -> String {
    let mut digest = Sha256::new();
    for part in [handle, driver, node] {
        digest.update(part);
    }
    let hex: String = digest
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("csi-{hex}")
}

/// The volumes that a report is the first to tell of, and the pods that waited for them.
pub fn come(
    wanted: &[Wanted],
    actions: &[Action],
    before: &[AttachedVolume],
) -> Vec<(usize, Arc<str>)> {
    let reported = actions.iter().find_map(|action| match action {
        Action::Report(volumes) => Some(volumes),
        _ => None,
    });
    let new = |want: &&Wanted| {
        let Some(csi) = &want.volume.spec.csi else {
            return false;
        };
        let name = on_node(csi);
        let tells = |volumes: &[AttachedVolume]| volumes.iter().any(|v| v.name == name);
        reported.is_some_and(|all| tells(all)) && !tells(before)
    };
    let come = wanted.iter().filter(new);
    come.map(|want| (want.pod, want.volume.metadata.name.clone()))
        .collect()
}

/// The name of a volume in a node's status.
fn on_node(csi: &Csi) -> String {
    format!("kubernetes.io/csi/{}^{}", csi.driver, csi.volume_handle)
}

/// It may be at one node only.
fn exclusive(volume: &Volume) -> bool {
    volume
        .spec
        .access_modes
        .iter()
        .all(|m| matches!(m.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"))
}

/// The actions that bring the attachments of `node` to where its pods want them.
///
/// `volume_of` finds the volume that an attachment names; `reported` is what the node's status
/// says, `None` where there is no such node (any more).
pub fn plan(
    node: &str,
    wanted: &[Wanted],
    attachments: &[Arc<Attachment>],
    volume_of: impl Fn(&str) -> Option<Arc<Volume>>,
    reported: Option<&[AttachedVolume]>,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut wanted_names = BTreeMap::new();
    for want in wanted {
        let Some(csi) = &want.volume.spec.csi else {
            continue;
        };
        wanted_names
            .entry(name(&csi.volume_handle, &csi.driver, node))
            .or_insert((want, csi));
    }
    let mut attached = Vec::new();
    for attachment in attachments {
        let meta = &attachment.metadata;
        let needed = wanted_names.remove(&*meta.name).is_some();
        if attachment.status.attached
            && let Some(volume) = volume_of(&attachment.spec.source.persistent_volume_name)
            && let Some(csi) = &volume.spec.csi
            && (needed || attachment.spec.attacher != SIMULATED)
        {
            attached.push(AttachedVolume {
                name: on_node(csi),
                device_path: String::new(),
            });
        }
        if meta.deleted.is_some() {
            continue;
        }
        // Attachments that others have made stay theirs.
        let ours = meta.name.starts_with("csi-") && meta.name.len() == 4 + 64;
        if !needed && ours && !attachment.spec.source.persistent_volume_name.is_empty() {
            actions.push(Action::Delete {
                name: meta.name.clone(),
                uid: meta.uid.clone(),
            });
        } else if needed && attachment.spec.attacher == SIMULATED && !attachment.status.attached {
            actions.push(Action::Attached {
                name: meta.name.clone(),
                uid: meta.uid.clone(),
            });
        }
    }
    for (name, (want, csi)) in wanted_names {
        let volume = want.volume.metadata.name.clone();
        if exclusive(&want.volume) && !want.elsewhere.is_empty() {
            actions.push(Action::Refuse {
                pod: want.pod,
                volume,
            });
        } else if reported.is_some() {
            actions.push(Action::Create {
                name,
                attacher: csi.driver.clone(),
                volume,
            });
        }
    }
    attached.sort_by(|a, b| a.name.cmp(&b.name));
    if reported.is_some_and(|reported| reported != attached) {
        actions.push(Action::Report(attached));
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn volume(mode: &str) -> Arc<Volume> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": {
                "accessModes": [mode], "csi": {"driver": SIMULATED, "volumeHandle": "h"}}}))
            .unwrap(),
        )
    }

    fn attachment(attached: bool, deleted: bool) -> Arc<Attachment> {
        let deleted = deleted.then_some("2026-01-01T00:00:00Z");
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name("h", SIMULATED, "n1"), "uid": "a", "deletionTimestamp": deleted},
                "spec": {"attacher": SIMULATED, "nodeName": "n1", "source": {"persistentVolumeName": "pv"}},
                "status": {"attached": attached}}))
            .unwrap(),
        )
    }

    fn on_node() -> Vec<AttachedVolume> {
        vec![AttachedVolume {
            name: format!("kubernetes.io/csi/{SIMULATED}^h"),
            device_path: String::new(),
        }]
    }

    /// `existing`: attached, being deleted. `expected`: the names of the actions.
    #[rstest]
    #[case::comes("ReadWriteOnce", true, &[], None, &[], &["create"])]
    #[case::arrives("ReadWriteOnce", true, &[], Some((false, false)), &[], &["attached"])]
    #[case::is_told("ReadWriteOnce", true, &[], Some((true, false)), &[], &["report 1"])]
    #[case::stays("ReadWriteOnce", true, &[], Some((true, false)), &on_node(), &[])]
    #[case::leaves("ReadWriteOnce", false, &[], Some((true, false)), &on_node(), &["delete", "report 0"])]
    #[case::is_leaving("ReadWriteOnce", false, &[], Some((true, true)), &[], &[])]
    #[case::is_at_another("ReadWriteOnce", true, &["n2"], None, &[], &["refuse"])]
    #[case::is_for_one_pod("ReadWriteOncePod", true, &["n2"], None, &[], &["refuse"])]
    #[case::is_shared("ReadWriteMany", true, &["n2"], None, &[], &["create"])]
    fn a_volume(
        #[case] mode: &str,
        #[case] used: bool,
        #[case] elsewhere: &[&str],
        #[case] existing: Option<(bool, bool)>,
        #[case] reported: &[AttachedVolume],
        #[case] expected: &[&str],
    ) {
        let wanted = used.then(|| Wanted {
            volume: volume(mode),
            pod: 0,
            elsewhere: elsewhere.iter().map(|n| Arc::from(*n)).collect(),
        });
        let wanted = Vec::from_iter(wanted);
        let existing = Vec::from_iter(existing.map(|(a, d)| attachment(a, d)));
        let find = |_: &str| Some(volume(mode));
        let told: Vec<String> = plan("n1", &wanted, &existing, find, Some(reported))
            .iter()
            .map(|action| match action {
                Action::Create { name: n, .. } => {
                    assert_eq!(*n, name("h", SIMULATED, "n1"));
                    "create".to_owned()
                }
                Action::Delete { .. } => "delete".to_owned(),
                Action::Attached { .. } => "attached".to_owned(),
                Action::Report(volumes) => format!("report {}", volumes.len()),
                Action::Refuse { .. } => "refuse".to_owned(),
            })
            .collect();
        assert_eq!(told, expected);
        let actions = plan("n1", &wanted, &existing, find, Some(reported));
        let come: Vec<_> = come(&wanted, &actions, reported);
        let expected_to_come = expected == ["report 1"];
        assert_eq!(
            come,
            Vec::from_iter(expected_to_come.then(|| (0, "pv".into())))
        );
    }

    #[test]
    fn nothing_comes_to_a_node_that_is_gone_and_what_was_there_leaves() {
        let wanted = [Wanted {
            volume: volume("ReadWriteOnce"),
            pod: 0,
            elsewhere: vec![],
        }];
        let find = |_: &str| Some(volume("ReadWriteOnce"));
        assert_eq!(plan("n1", &wanted, &[], find, None), []);
        let left = plan("n1", &[], &[attachment(true, false)], find, None);
        assert!(matches!(left[..], [Action::Delete { .. }]));
    }

    #[test]
    fn the_name_is_the_hash_of_handle_driver_and_node() {
        // sha256("abc")
        assert_eq!(
            name("a", "b", "c"),
            "csi-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
