//! What the API refuses, and what it says.

use gantry_api::{Group, Release};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::fmt::Debug;

use crate::{PATIENCE, object, release, start};

/// What the API says to something that it refuses.
async fn refused<K>(api: &Api<K>, name: &str, spec: Value) -> String
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let value = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": K::kind(&()), "metadata": {"name": name}, "spec": spec});
    match api
        .create(&PostParams::default(), &Raw(value).into_object())
        .await
    {
        Err(kube::Error::Api(status)) => status.message.clone(),
        other => panic!("{name} was not refused: {other:?}"),
    }
}

/// Something that may break the rules of its type.
struct Raw(Value);

impl Raw {
    fn into_object<K: DeserializeOwned>(self) -> K {
        serde_json::from_value(self.0).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_refuses_what_is_impossible_and_says_where_and_why() {
    let home = start(&[]).await;
    let client = home.server.client();
    gantry_hub::install(&client).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "shop"}})),
        )
        .await
        .unwrap();
    let strategies: Api<gantry_api::Strategy> = Api::namespaced(client.clone(), "shop");
    let metric = |more: Value| {
        let mut metric = json!({"address": "http://prom", "query": "up"});
        for (key, value) in more.as_object().unwrap() {
            metric[key] = value.clone();
        }
        json!({"gates": [{"name": "g", "metric": metric}]})
    };
    let refusals = [
        (
            json!({"maxUnavailable": 0}),
            "spec.maxUnavailable",
            "allow at least 1",
        ),
        (
            json!({"maxUnavailable": "0%"}),
            "spec.maxUnavailable",
            "allow at least 1",
        ),
        (
            json!({"bastion": {"instances": 3}, "maxUnavailable": 2}),
            "spec.bastion",
            "cannot have more instances than maxUnavailable",
        ),
        (
            json!({"batches": {"sizes": [1, "0%"]}}),
            "spec.batches",
            "a batch of no instances never ends",
        ),
        (
            json!({"batches": {"sizes": ["120%"]}}),
            "spec.batches.sizes[0]",
            "should match",
        ),
        (
            json!({"deadlines": {"instance": "10m", "batch": "5m"}}),
            "spec.deadlines",
            "deadlines.batch is shorter than deadlines.instance",
        ),
        (
            json!({"deadlines": {"batch": "1h", "total": "30m"}}),
            "spec.deadlines",
            "deadlines.total is shorter",
        ),
        (
            json!({"gates": [{"name": "g"}]}),
            "spec.gates",
            "exactly one of wait, metric, webhook and approval",
        ),
        (metric(json!({})), "spec.gates", "no bound to keep"),
        (
            metric(json!({"min": 2, "max": 1})),
            "spec.gates",
            "min is above its max",
        ),
        (
            metric(json!({"compare": {"maxRatio": 2}})),
            "spec.gates",
            "compare needs {{pods}}",
        ),
        (
            json!({"gates": [{"name": "g", "approval": {"count": 2, "users": ["bob"]}}]}),
            "spec.gates",
            "asks for more people than it names",
        ),
        (
            json!({"windows": [{"from": "09:00", "until": "09:00"}]}),
            "spec.windows",
            "would never be open",
        ),
        (
            json!({"windows": [{"from": "9", "until": "17:00"}]}),
            "spec.windows[0].from",
            "should match",
        ),
    ];
    for (index, (spec, field, why)) in refusals.into_iter().enumerate() {
        let said = refused(&strategies, &format!("s{index}"), spec).await;
        assert!(said.contains(field) && said.contains(why), "{said}");
    }
    // The same strategy written into a Group.
    let groups: Api<Group> = Api::namespaced(client.clone(), "shop");
    let said = refused(
        &groups,
        "g",
        json!({"app": "a", "placement": {"cells": [{"name": "c"}]}, "revision": {"image": "i"}, "strategy": {"inline": {"maxUnavailable": 0}}}),
    )
    .await;
    assert!(
        said.contains("spec.strategy.inline.maxUnavailable"),
        "{said}"
    );

    // A release stays what it is; its buttons do not come back up.
    let releases: Api<Release> = Api::namespaced(client.clone(), "shop");
    let said = refused(
        &releases,
        "r",
        json!({"group": "g", "revision": {"to": 2, "image": "cart:2"}}),
    )
    .await;
    assert!(
        said.contains("spec.revision.to") && said.contains("nothing else"),
        "{said}"
    );
    releases
        .create(&PostParams::default(), &release("r", "cart:2", json!({})))
        .await
        .unwrap();
    let press = async |spec: Value| {
        releases
            .patch(
                "r",
                &PatchParams::default(),
                &Patch::Merge(json!({"spec": spec})),
            )
            .await
    };
    press(json!({"rollback": true, "retry": 2})).await.unwrap();
    for (spec, field) in [
        (json!({"rollback": false}), "spec.rollback"),
        (json!({"retry": 1}), "spec.retry"),
        (json!({"group": "other"}), "spec.group"),
        (json!({"revision": {"image": "cart:3"}}), "spec.revision"),
        (json!({"pace": {"maxUnavailable": 0}}), "spec.pace"),
    ] {
        let said = press(spec).await.unwrap_err().to_string();
        assert!(said.contains(field), "{said}");
    }

    // Nobody speaks in another's name.
    let approval = |by: &str, groups: &[&str]| json!({"approvals": [{"gate": "people", "by": by, "groups": groups}]});
    let bob: Api<Release> = Api::namespaced(home.client_of("bobs").await, "shop");
    let say = async |spec: Value| {
        bob.patch(
            "r",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": spec})),
        )
        .await
    };
    // A policy holds a moment after it has been written.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let said = loop {
        match say(approval("alice", &[])).await {
            Err(error) => break error.to_string(),
            Ok(_) => {
                assert!(
                    tokio::time::Instant::now() < deadline,
                    "anyone speaks as alice"
                );
                releases
                    .delete("r", &DeleteParams::default())
                    .await
                    .unwrap();
                releases
                    .create(&PostParams::default(), &release("r", "cart:2", json!({})))
                    .await
                    .unwrap();
            }
        }
    };
    assert!(
        said.contains("an approval is given in one's own name"),
        "{said}"
    );
    let said = say(approval("bob", &["sre"]))
        .await
        .unwrap_err()
        .to_string();
    assert!(said.contains("groups among the user's groups"), "{said}");
    say(approval("bob", &["system:masters"])).await.unwrap();
    let emergency = json!({"emergency": {"reason": "fire", "by": "alice"}});
    let said = say(emergency).await.unwrap_err().to_string();
    assert!(
        said.contains("an emergency is declared in one's own name"),
        "{said}"
    );
    // What has been said stays said, and others may still press buttons.
    let said = say(json!({"approvals": []})).await.unwrap_err().to_string();
    assert!(said.contains("approvals are only added"), "{said}");
    press(json!({"paused": true})).await.unwrap();
    home.end().await;
}
