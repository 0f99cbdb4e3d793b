//! What is kept while it is used, and what is removed when it is not.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_class_of_attributes_stays_while_somebody_names_it() {
    let rig = Rig::new().await;
    let classes = rig.api(
        "storage.k8s.io",
        "v1",
        "VolumeAttributesClass",
        "volumeattributesclasses",
        "",
    );
    let claims = rig.api(
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        "default",
    );
    let volumes = rig.api("", "v1", "PersistentVolume", "persistentvolumes", "");
    let held = async |name: &str| {
        rig.until(
            name,
            async || classes.get(name).await.unwrap().metadata.finalizers,
            |held| *held == Some(vec!["kubernetes.io/vac-protection".to_owned()]),
        )
        .await;
    };
    for name in ["of-a-claim", "of-a-volume", "unused"] {
        create(
            &classes,
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass",
            "metadata": {"name": name}, "driverName": "d", "parameters": {"a": "b"}}),
        )
        .await;
        held(name).await;
    }
    create(
        &claims,
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "", "volumeAttributesClassName": "of-a-claim"}}),
    )
    .await;
    create(&volumes, json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "5Gi"}, "storageClassName": "other",
            "csi": {"driver": "d", "volumeHandle": "h"}, "volumeAttributesClassName": "of-a-volume"}})).await;
    let params = DeleteParams::default();
    let gone = async |name: &str| {
        let look = async || classes.get_opt(name).await.unwrap();
        rig.until(name, look, Option::is_none).await;
    };
    for name in ["of-a-claim", "of-a-volume", "unused"] {
        classes.delete(name, &params).await.unwrap();
    }
    gone("unused").await;
    for name in ["of-a-claim", "of-a-volume"] {
        assert!(
            classes
                .get(name)
                .await
                .unwrap()
                .metadata
                .deletion_timestamp
                .is_some()
        );
    }
    claims.delete("c", &params).await.unwrap();
    gone("of-a-claim").await;
    volumes.delete("v", &params).await.unwrap();
    gone("of-a-volume").await;
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_tokens_sign_the_clusters_description_until_they_are_over() {
    let mut rig = Rig::new().await;
    rig.options.controllers = gantry_controllers::Name::ALL.iter().copied().collect();
    rig.restart().await;
    let secrets = rig.api("", "v1", "Secret", "secrets", "kube-system");
    let maps = rig.api("", "v1", "ConfigMap", "configmaps", "kube-public");
    create(
        &maps,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cluster-info"},
        "data": {"kubeconfig": "where it is", "jws-kubeconfig-ffffff": "of one that is gone"}}),
    )
    .await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(4);
    let token = |id: &str, expiration: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": format!("bootstrap-token-{id}")}, "stringData": {"token-id": id,
                "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true", "expiration": expiration}})
    };
    create(&secrets, token("aaaaaa", "")).await;
    create(&secrets, token("bbbbbb", &soon.to_string())).await;
    create(&secrets, token("cccccc", "2020-01-01T00:00:00Z")).await;
    let keys = async || {
        let data = maps.get("cluster-info").await.unwrap().data["data"].clone();
        let keys = data.as_object().unwrap().keys().cloned();
        keys.filter(|key| key.starts_with("jws-"))
            .collect::<Vec<_>>()
    };
    let both = ["jws-kubeconfig-aaaaaa", "jws-kubeconfig-bbbbbb"];
    rig.until("both", &keys, |keys| *keys == both).await;
    rig.until("one", &keys, |keys| *keys == both[..1]).await;
    let left = async || {
        let all = secrets.list(&ListParams::default()).await.unwrap().items;
        all.into_iter()
            .filter_map(|s| s.metadata.name)
            .collect::<Vec<_>>()
    };
    rig.until("secrets", left, |names| {
        *names == ["bootstrap-token-aaaaaa"]
    })
    .await;
    rig.end().await;
}
