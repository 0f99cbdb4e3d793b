//! People of two tenants, as Kubernetes' users with tokens of their own: what they may, what they see, what is
//! recorded of them, and who is told.

use std::{collections::BTreeMap, sync::Arc};

use gantry_api::{App, Cluster, Group, Notification, Phase, Release, Tenant};
use gantry_apiserver::{
    AuditConfig, AuditLogFile, AuditPolicy, Authentication, Authorization, Config, Server,
    StaticToken,
};
use gantry_records::{Filter, Outcome, Page, Record, Records, Verb, Writer};
use gantry_store::Store;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    core::v1::{Namespace, ResourceQuota, Secret},
    rbac::v1::RoleBinding,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams},
};
use serde_json::{Value, json};

use crate::{PATIENCE, Running, object, start, start_hub_with, until};

/// A hub in which RBAC decides, with a token for each user, which is the user's name.
async fn home(users: &[&str], audit_log: &std::path::Path) -> Running {
    let token = |user: &str, groups: &[&str]| StaticToken {
        token: user.into(),
        user: user.into(),
        uid: String::new(),
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
    };
    let mut tokens: Vec<StaticToken> = users.iter().map(|u| token(u, &["staff"])).collect();
    tokens.push(token("root", &["system:masters"]));
    let config = Config {
        authentication: Authentication {
            tokens,
            ..Authentication::default()
        },
        authorization: vec![Authorization::Rbac],
        disabled_admission: vec!["ServiceAccount".into()],
        audit: Some(AuditConfig {
            policy: AuditPolicy::parse(gantry_hub::record::AUDIT_POLICY).unwrap(),
            file: AuditLogFile {
                path: audit_log.to_owned(),
                max_bytes: 1 << 20,
                max_backups: 1,
                max_age: None,
            },
        }),
        ..Config::default()
    };
    let store = Store::in_memory(gantry_store::Options::default());
    let server = Server::start(config, store).await.unwrap();
    Running::of(server)
}

/// The code that a refused call has, and what the server says.
fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        other => panic!("not refused: {other:?}"),
    }
}

fn made<K: serde::de::DeserializeOwned>(kind: &str, name: &str, spec: Value) -> K {
    object(
        json!({"apiVersion": "gantry.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}),
    )
}

type Told = Arc<std::sync::Mutex<Vec<(BTreeMap<String, String>, String)>>>;

/// A webhook that fails at first, and keeps what it has taken.
async fn webhook(failures: usize) -> (String, Told) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let told = Told::default();
    let kept = told.clone();
    let left = Arc::new(std::sync::atomic::AtomicUsize::new(failures));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (kept, left) = (kept.clone(), left.clone());
            let service =
                hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (kept, left) = (kept.clone(), left.clone());
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let text = String::from_utf8(body.to_vec()).unwrap();
                        let headers = parts.headers.iter();
                        let headers = headers
                            .map(|(k, v)| (k.to_string(), v.to_str().unwrap().to_owned()))
                            .collect();
                        let less = |n: usize| n.checked_sub(1);
                        let order = std::sync::atomic::Ordering::SeqCst;
                        let code = if left.fetch_update(order, order, less).is_ok() {
                            503
                        } else {
                            kept.lock().unwrap().push((headers, text));
                            200
                        };
                        let body = http_body_util::Full::new(bytes::Bytes::from("x"));
                        let answer = http::Response::builder().status(code).body(body);
                        Ok::<_, std::convert::Infallible>(answer.unwrap())
                    }
                });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (url, told)
}

/// Waits for a record.
async fn recorded(store: &dyn Records, what: &str, holds: impl Fn(&Record) -> bool) -> Record {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let page = Page::first(1000);
        let found = store.query(&Filter::default(), &page).await.unwrap();
        if let Some(record) = found.records.iter().find(|r| holds(r)) {
            return record.clone();
        }
        let late = tokio::time::Instant::now() >= deadline;
        let line = |r: &Record| {
            let (object, user, outcome) = (&r.object, &r.who.user, r.outcome);
            format!(
                "{} {} {} by {user:?}: {outcome} {:?}",
                r.verb, object.kind, object.name, r.after
            )
        };
        let all: Vec<String> = found.records.iter().map(line).collect();
        assert!(!late, "never recorded: {what}\n{}", all.join("\n"));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn ready(tenant: &Tenant) -> bool {
    let status = tenant.status.as_ref();
    let conditions = status.iter().flat_map(|s| &s.conditions);
    status.is_some_and(|s| s.observed_generation == tenant.metadata.generation)
        && conditions
            .into_iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_do_what_their_roles_allow_and_it_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let audit_log = folder.path().join("audit.log");
    let home = home(&["vera", "dan", "rita", "ada", "ben"], &audit_log).await;
    let east = start(&["sh-a"]).await;
    let root = home.server.client();
    gantry_hub::install(&root).await.unwrap();
    let database = folder.path().join("records.db");
    let store = gantry_records::open(database.to_str().unwrap()).unwrap();
    let options = gantry_records::writer::Options {
        spool: Some(folder.path().join("records.spool")),
        ..Default::default()
    };
    let (writer, writing) = Writer::start(store.clone(), &options).unwrap();
    let options = |writer: &Writer| gantry_hub::Options {
        records: Some(writer.clone()),
        audit_log: Some(audit_log.clone()),
        notify_allowed: vec!["127.0.0.1".parse().unwrap()],
        ..Default::default()
    };
    let hub = start_hub_with(root.clone(), options(&writer));

    // Who runs the fleet connects a member and makes two tenants.
    let create = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(root.clone());
    let ops = object(json!({"metadata": {"name": "gantry-system"}}));
    namespaces.create(&create, &ops).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(root.clone(), "gantry-system");
    let secret =
        json!({"metadata": {"name": "sh"}, "stringData": {"kubeconfig": east.kubeconfig()}});
    secrets.create(&create, &object(secret)).await.unwrap();
    let clusters: Api<Cluster> = Api::all(root.clone());
    let access = json!({"kubeconfigSecret": {"namespace": "gantry-system", "name": "sh"}});
    let spec = json!({"region": "sh", "access": access, "cells": [{"name": "sh-a"}]});
    clusters
        .create(&create, &made("Cluster", "sh", spec))
        .await
        .unwrap();
    let tenants: Api<Tenant> = Api::all(root.clone());
    let shop = json!({
        "roles": [
            {"role": "Viewer", "users": ["vera"]}, {"role": "Developer", "users": ["dan"]},
            {"role": "Releaser", "users": ["rita"]}, {"role": "Admin", "users": ["ada"]},
        ],
        "quotas": [{"hard": {"requests.cpu": "8", "pods": "20"}}],
    });
    tenants
        .create(&create, &made("Tenant", "shop", shop))
        .await
        .unwrap();
    let bank = json!({"roles": [{"role": "Operator", "users": ["ben"]}]});
    tenants
        .create(&create, &made("Tenant", "bank", bank))
        .await
        .unwrap();
    for name in ["shop", "bank"] {
        until(&tenants, name, "it is ready", ready).await;
    }
    let quotas: Api<ResourceQuota> = Api::namespaced(east.server.client(), "shop");
    let quota = quotas.get("gantry-default").await.unwrap().spec.unwrap();
    assert_eq!(quota.hard.unwrap()["requests.cpu"].0, "8");
    let bindings: Api<RoleBinding> = Api::namespaced(east.server.client(), "shop");
    assert_eq!(
        bindings
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        4
    );
    let system = made("Tenant", "x", json!({"namespaces": ["kube-system"]}));
    let refused = tenants.create(&create, &system).await;
    assert!(refusal(refused).1.contains("belong to no tenant"));

    // A webhook that is down at first, and one that is out of a tenant's reach.
    let mut of = BTreeMap::new();
    for user in ["vera", "dan", "rita", "ada", "ben"] {
        of.insert(user, home.client_of(user).await);
    }
    let shop = |user: &str| -> Client { of[user].clone() };
    let (url, told) = webhook(2).await;
    let root_secrets: Api<Secret> = Api::namespaced(root.clone(), "shop");
    let key = json!({"metadata": {"name": "hook"}, "stringData": {"key": "top secret"}});
    root_secrets.create(&create, &object(key)).await.unwrap();
    let notifications: Api<Notification> = Api::namespaced(shop("ada"), "shop");
    let events = json!([{"kinds": ["Release"], "outcomes": ["running", "succeeded"]}]);
    let spec = json!({"url": url, "signingKey": {"name": "hook", "key": "key"}, "events": events});
    notifications
        .create(&create, &made("Notification", "chat", spec))
        .await
        .unwrap();
    let spec = json!({"url": "http://169.254.169.254/latest/meta-data", "retryFor": "0s", "events": events});
    notifications
        .create(&create, &made("Notification", "sly", spec))
        .await
        .unwrap();
    let none: Api<Notification> = Api::namespaced(shop("rita"), "shop");
    let spec = json!({"url": url});
    assert_eq!(
        refusal(
            none.create(&create, &made("Notification", "no", spec))
                .await
        )
        .0,
        403
    );

    // A developer sets up the group, and cannot release; neither can a viewer; a releaser can.
    let apps: Api<App> = Api::namespaced(shop("dan"), "shop");
    apps.create(&create, &made("App", "cart", json!({})))
        .await
        .unwrap();
    let groups: Api<Group> = Api::namespaced(shop("dan"), "shop");
    let spec = json!({
        "app": "cart", "replicas": 2, "placement": {"cells": [{"name": "sh-a"}]},
        "revision": {"image": "cart:1", "resources": {"requests": {"cpu": "1"}}},
        "availability": {"maxUnavailable": 1},
    });
    groups
        .create(&create, &made("Group", "cart", spec))
        .await
        .unwrap();
    until(&groups, "cart", "two in service", |g| {
        g.status.as_ref().is_some_and(|s| s.in_service == 2)
    })
    .await;
    let releases = |user: &str| -> Api<Release> { Api::namespaced(shop(user), "shop") };
    let two = |name: &str, image: &str| -> Release {
        let strategy = json!({"inline": {"bastion": {"accept": "Auto"}}});
        let spec = json!({"group": "cart", "revision": {"image": image}, "note": "new prices", "strategy": strategy});
        made("Release", name, spec)
    };
    for user in ["vera", "dan", "ben"] {
        let (code, why) = refusal(releases(user).create(&create, &two("two", "cart:2")).await);
        assert_eq!(code, 403, "{user}: {why}");
    }
    releases("rita")
        .create(&create, &two("two", "cart:2"))
        .await
        .unwrap();
    assert_eq!(
        releases("vera").get("two").await.unwrap().spec.group,
        "cart"
    );
    assert_eq!(
        releases("vera")
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let seen = releases("vera");
    let over = until(&seen, "two", "it ends", |r| {
        r.status.as_ref().is_some_and(|s| s.phase.is_final())
    });
    assert_eq!(over.await.status.unwrap().phase, Phase::Succeeded);

    // Who is of another tenant sees nothing: no get, list, watch, here or over all namespaces, nor the tenant.
    let foreign = releases("ben");
    assert_eq!(refusal(foreign.get("two").await).0, 403);
    assert_eq!(refusal(foreign.list(&ListParams::default()).await).0, 403);
    assert_eq!(
        refusal(
            foreign
                .watch(&WatchParams::default(), "0")
                .await
                .map(|_| ())
        )
        .0,
        403
    );
    let everywhere: Api<Group> = Api::all(shop("ben"));
    assert_eq!(
        refusal(everywhere.list(&ListParams::default()).await).0,
        403
    );
    let foreign: Api<Tenant> = Api::all(shop("ben"));
    assert_eq!(refusal(foreign.get("shop").await).0, 403);
    assert_eq!(refusal(foreign.list(&ListParams::default()).await).0, 403);
    assert_eq!(foreign.get("bank").await.unwrap().name_any(), "bank");
    let own: Api<Group> = Api::namespaced(shop("ben"), "bank");
    assert!(
        own.list(&ListParams::default())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let foreign: Api<Secret> = Api::namespaced(shop("ben"), "gantry-system");
    assert_eq!(refusal(foreign.get("sh").await).0, 403);

    // An admin gives roles and freezes, in the own name, and raises no quota.
    let own: Api<Tenant> = Api::all(shop("ada"));
    let patch = PatchParams::default();
    let merge = |value: Value| Patch::Merge(value);
    let more = json!({"spec": {"quotas": [{"pool": "default", "hard": {"requests.cpu": "800"}}]}});
    let (code, why) = refusal(own.patch("shop", &patch, &merge(more)).await);
    assert!(
        code == 403 && why.contains("by those who may limit tenants"),
        "{why}"
    );
    let freeze =
        |by: &str| json!({"spec": {"freezes": [{"name": "sale", "reason": "11.11", "by": by}]}});
    let (_, why) = refusal(own.patch("shop", &patch, &merge(freeze("root"))).await);
    assert!(why.contains("in one's own name"), "{why}");
    own.patch("shop", &patch, &merge(freeze("ada")))
        .await
        .unwrap();
    releases("rita")
        .create(&create, &two("three", "cart:3"))
        .await
        .unwrap();
    let seen = releases("rita");
    let frozen = until(&seen, "three", "it is frozen", |r| {
        r.status.as_ref().is_some_and(|s| s.reason == "Frozen")
    });
    let message = frozen.await.status.unwrap().message;
    assert!(
        message.contains("ada has frozen releases of tenant shop: 11.11"),
        "{message}"
    );
    let emergency = json!({"spec": {"emergency": {"reason": "CVE-2026-1", "by": "rita"}}});
    releases("rita")
        .patch("three", &patch, &merge(emergency))
        .await
        .unwrap();
    until(&releases("rita"), "three", "it ends", |r| {
        r.status.as_ref().is_some_and(|s| s.phase.is_final())
    })
    .await;

    // Stamps: nobody writes one in another's name, and a write that changes nothing changes nothing.
    let before = apps.get("cart").await.unwrap();
    let forged = json!({"metadata": {"annotations": {"gantry.dev/changed-by": "root"}}});
    let after = apps.patch("cart", &patch, &merge(forged)).await.unwrap();
    assert_eq!(before.annotations()["gantry.dev/changed-by"], "dan");
    assert_eq!(after.annotations(), before.annotations());
    let nothing = json!({"spec": {"level": "L2"}});
    let again = apps.patch("cart", &patch, &merge(nothing)).await.unwrap();
    // (Its status, which the hub writes, may have changed meanwhile.)
    assert_eq!(again.metadata.generation, after.metadata.generation);
    assert_eq!(again.annotations(), after.annotations());
    let scaled = json!({"spec": {"replicas": 3}, "metadata": {"annotations": {"gantry.dev/changed-by": "root", "gantry.dev/change-note": "sale"}}});
    let after = groups.patch("cart", &patch, &merge(scaled)).await.unwrap();
    assert_eq!(after.annotations()["gantry.dev/changed-by"], "dan");

    // What has been recorded: who, why, what came of it.
    let verb =
        |verb: Verb, name: &'static str| move |r: &Record| r.verb == verb && r.object.name == name;
    let release = recorded(&*store, "release two", |r| {
        verb(Verb::Release, "two")(r) && r.outcome == Outcome::Succeeded
    })
    .await;
    assert_eq!(
        (release.who.user.as_str(), release.why.as_str()),
        ("rita", "new prices")
    );
    assert!(release.who.groups.contains(&"staff".to_owned()) && release.duration_ms().is_some());
    assert_eq!(release.object.group, "cart");
    let scale = recorded(&*store, "scale", verb(Verb::Scale, "cart")).await;
    assert_eq!(
        (scale.who.user.as_str(), scale.why.as_str()),
        ("dan", "sale")
    );
    assert_eq!(
        (scale.before, scale.after),
        (Some(json!({"replicas": 2})), Some(json!({"replicas": 3})))
    );
    // What no object says, the audit log of the API server does: who wrote to `scale`, who deleted.
    let scale = json!({"spec": {"replicas": 2}});
    Api::<Group>::namespaced(shop("rita"), "shop")
        .patch_scale("cart", &patch, &merge(scale))
        .await
        .unwrap();
    let scaled = recorded(&*store, "scale by subresource", |r| {
        verb(Verb::Scale, "cart")(r) && r.after == Some(json!({"replicas": 2}))
    });
    let scaled = scaled.await;
    assert_eq!(
        (scaled.who.user.as_str(), scaled.before),
        ("rita", Some(json!({"replicas": 3})))
    );
    let all = Api::<Release>::namespaced(root.clone(), "shop");
    all.delete("two", &DeleteParams::default()).await.unwrap();
    let deleted = recorded(&*store, "deletion", verb(Verb::Delete, "two")).await;
    assert_eq!(deleted.who.user, "system:admin");
    assert!(deleted.before.is_some());
    let frozen = recorded(&*store, "freeze", verb(Verb::Freeze, "shop")).await;
    assert_eq!(
        (frozen.who.user.as_str(), frozen.why.as_str()),
        ("ada", "11.11")
    );
    for (what, word) in [("emergency", Verb::Emergency), ("override", Verb::Override)] {
        let record = recorded(&*store, what, verb(word, "three")).await;
        assert_eq!(
            (record.who.user.as_str(), record.why.as_str()),
            ("rita", "CVE-2026-1")
        );
    }
    let group = recorded(&*store, "group", verb(Verb::Create, "cart")).await;
    assert_eq!(group.who.user, "dan");

    // Who was told: both ends of each release, once each, though the first tries failed.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while told.lock().unwrap().len() < 4 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "{:?}",
            told.lock().unwrap()
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let told = told.lock().unwrap().clone();
    let kinds: Vec<String> = told
        .iter()
        .map(|(_, body)| {
            serde_json::from_str::<Value>(body).unwrap()["type"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let pair = ["dev.gantry.release.started", "dev.gantry.release.succeeded"];
    assert_eq!(kinds, [pair, pair].concat());
    let headers = &told[0].0;
    assert_eq!(
        headers["content-type"],
        "application/cloudevents+json; charset=utf-8"
    );
    assert!(
        headers["webhook-signature"].starts_with("v1,")
            && headers.contains_key("webhook-timestamp")
    );
    let sly = until(&notifications, "sly", "it has dead letters", |n| {
        n.status.as_ref().is_some_and(|s| s.dead > 0)
    });
    let status = sly.await.status.unwrap();
    assert!(
        status.dead_letters[0]
            .message
            .contains("has no public address"),
        "{status:?}"
    );
    until(&notifications, "chat", "its status is written", |n| {
        n.status
            .as_ref()
            .is_some_and(|s| s.delivered == 4 && s.waiting == 0)
    })
    .await;

    // The hub ends; things happen; another one finds them. What it wrote before is not written again.
    let count = store
        .query(&Filter::default(), &Page::first(1000))
        .await
        .unwrap()
        .records
        .len();
    hub.end().await;
    groups
        .patch("cart", &patch, &merge(json!({"spec": {"replicas": 4}})))
        .await
        .unwrap();
    let hub = start_hub_with(root.clone(), options(&writer));
    let four = recorded(&*store, "what happened meanwhile", |r| {
        verb(Verb::Scale, "cart")(r) && r.after == Some(json!({"replicas": 4}))
    });
    assert_eq!(four.await.who.user, "dan");
    writer.flush().await;
    let found = store
        .query(&Filter::default(), &Page::first(1000))
        .await
        .unwrap();
    assert_eq!(found.records.len(), count + 1);

    // A tenant with groups stays; without, it goes, and its roles with it.
    let (_, why) = refusal(
        tenants
            .delete("shop", &DeleteParams::default())
            .await
            .map(|_| ()),
    );
    assert!(why.contains("the tenant has Groups"), "{why}");
    tenants
        .delete("bank", &DeleteParams::default())
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tenants.get_opt("bank").await.unwrap().is_some() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the tenant never goes"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let own: Api<Group> = Api::namespaced(shop("ben"), "bank");
    assert_eq!(refusal(own.list(&ListParams::default()).await).0, 403);

    hub.end().await;
    drop(writer);
    writing.await.unwrap();
    home.end().await;
    east.end().await;
}
