//! Tables of cases: disks that pods name themselves, and how many volumes of a driver a node takes whoever attached them.

use crate::support::{add_node, add_pod, merge, node, place, pod, try_place};
use gantry_scheduler::core::Cluster;
use rstest::rstest;
use serde_json::{Value, json};

fn with(name: &str, volume: Value) -> Value {
    let mut volume = volume;
    merge(&mut volume, &json!({"name": "d"}));
    pod(name, &json!({"spec": {"volumes": [volume]}}))
}

fn gce(reads: bool) -> Value {
    json!({"gcePersistentDisk": {"pdName": "d", "readOnly": reads}})
}

fn one_node() -> Cluster {
    let mut cluster = Cluster::new();
    add_node(&mut cluster, &node("n", "a", &json!({})));
    cluster
}

const IN_USE: &str = "0/1 nodes are available: 1 node(s) had no available disk. \
    preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";

/// A pod with a disk is there; another wants one.
#[rstest]
#[case::written(gce(false), gce(true), Err(IN_USE))]
#[case::read_by_both(gce(true), gce(true), Ok("n"))]
#[case::ebs(json!({"awsElasticBlockStore": {"volumeID": "v"}}), json!({"awsElasticBlockStore": {"volumeID": "v"}}), Err(IN_USE))]
#[case::another(gce(false), json!({"awsElasticBlockStore": {"volumeID": "d"}}), Ok("n"))]
fn a_disk_in_use_is_not_available(
    #[case] there: Value,
    #[case] wanted: Value,
    #[case] want: Result<&str, &str>,
) {
    let mut cluster = one_node();
    place(&mut cluster, &with("p", there)).expect("room");
    let got = try_place(&mut cluster, &with("q", wanted.clone()));
    assert_eq!(got, want.map(ToOwned::to_owned).map_err(ToOwned::to_owned));
    // Who is gone uses nothing.
    cluster.remove("uid-p");
    assert_eq!(
        try_place(&mut cluster, &with("q", wanted)),
        Ok("n".to_owned())
    );
}

#[test]
fn who_uses_a_disk_makes_way_for_the_more_important() {
    let mut cluster = one_node();
    add_pod(&mut cluster, &with("p", gce(false)), "n");
    let mut wanting = with("q", gce(false));
    wanting["spec"]["priority"] = json!(10);
    let class = cluster.classify(&crate::support::decode_pod(&wanting));
    let room = cluster.preempt(class, |_| false).expect("room can be made");
    assert_eq!(room.victims, ["uid-p".into()]);
}

/// The node attaches one volume of a driver, and has one.
#[rstest]
#[case::disk_of_a_pod(json!({"awsElasticBlockStore": {"volumeID": "x"}}), "ebs.csi.aws.com", false)]
#[case::azure(json!({"azureDisk": {"diskName": "x", "diskURI": "x"}}), "disk.csi.azure.com", false)]
#[case::cinder(json!({"cinder": {"volumeID": "x"}}), "cinder.csi.openstack.org", false)]
#[case::of_another_driver(json!({"azureDisk": {"diskName": "x", "diskURI": "x"}}), "ebs.csi.aws.com", true)]
#[case::nothing_to_attach(json!({"iscsi": {"iqn": "i", "lun": 0, "targetPortal": "10.0.0.1"}}), "ebs.csi.aws.com", true)]
#[case::attached_without_a_pod(json!({"attached": "csi"}), "csi", false)]
#[case::attached_by_another_driver(json!({"attached": "other"}), "csi", true)]
fn what_is_attached_takes_a_place(#[case] there: Value, #[case] driver: &str, #[case] free: bool) {
    let mut cluster = one_node();
    let limit = json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": driver, "allocatable": {"count": 1}}]}});
    let limit = serde_json::from_value(limit).expect("a CSINode");
    cluster.change_volumes(|v, symbols| v.set_limits(&limit, symbols));
    // The wanted volume is of the driver, in the form of old where there is one.
    let source = match driver {
        "ebs.csi.aws.com" => json!({"awsElasticBlockStore": {"volumeID": "w"}}),
        "disk.csi.azure.com" => json!({"azureDisk": {"diskName": "w", "diskURI": "w"}}),
        "cinder.csi.openstack.org" => json!({"cinder": {"volumeID": "w"}}),
        _ => json!({"csi": {"driver": driver, "volumeHandle": "w"}}),
    };
    let mut volumes = vec![("w".to_owned(), source)];
    if let Some(attacher) = there["attached"].as_str() {
        volumes.push((
            "x".to_owned(),
            json!({"csi": {"driver": attacher, "volumeHandle": "x"}}),
        ));
        let attachment = json!({"metadata": {"name": "a"}, "spec": {"attacher": attacher, "nodeName": "n",
            "source": {"persistentVolumeName": "x"}}});
        let attachment = serde_json::from_value(attachment).expect("an attachment");
        cluster.change_volumes(|v, symbols| v.set_attachment(&attachment, symbols));
    } else {
        add_pod(&mut cluster, &with("p", there), "n");
    }
    for (name, source) in volumes {
        let mut volume = json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Bound"}});
        merge(&mut volume["spec"], &source);
        cluster.upsert_volume(&serde_json::from_value(volume).expect("a volume"));
    }
    let claim = json!({"metadata": {"namespace": "default", "name": "w", "uid": "w",
        "annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"volumeName": "w", "accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Bound"}});
    cluster.upsert_claim(&serde_json::from_value(claim).expect("a claim"));
    let wanting = with("q", json!({"persistentVolumeClaim": {"claimName": "w"}}));
    assert_eq!(try_place(&mut cluster, &wanting).is_ok(), free);
    // What is wanted is there already: it takes no other place.
    let attachment = json!({"metadata": {"name": "b"}, "spec": {"attacher": driver, "nodeName": "n",
        "source": {"persistentVolumeName": "w"}}});
    let attachment = serde_json::from_value(attachment).expect("an attachment");
    cluster.change_volumes(|v, symbols| v.set_attachment(&attachment, symbols));
    assert!(try_place(&mut cluster, &wanting).is_ok());
    cluster.change_volumes(|v, _| v.remove_attachment("b"));
    assert_eq!(try_place(&mut cluster, &wanting).is_ok(), free);
    cluster.change_volumes(|v, _| v.remove_attachment("a"));
    cluster.remove("uid-p");
    assert!(try_place(&mut cluster, &wanting).is_ok());
}
