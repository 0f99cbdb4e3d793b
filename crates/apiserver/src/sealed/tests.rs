//! What a change makes of a sealed object is what it makes of an open one.

use gantry_store::{Options, Store};
use http::{Method, Request, StatusCode};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use super::*;
use crate::{Config, Server, registry::Registry};

async fn start() -> Server {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    let store = Store::in_memory(Options::default());
    Server::start(config, store).await.unwrap()
}

async fn ask(
    client: &kube::Client,
    method: Method,
    kind: &str,
    path: &str,
    body: &Value,
) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .body(body.to_string().into_bytes().into())
        .unwrap();
    let answer = client.send(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect_bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// An object without what differs between two of the same history.
fn alike(mut object: Value) -> Value {
    let meta = object["metadata"].as_object_mut().unwrap();
    for field in ["name", "uid", "resourceVersion", "creationTimestamp"] {
        meta.remove(field);
    }
    let owners = meta.get_mut("managedFields").and_then(Value::as_array_mut);
    for owner in owners.into_iter().flatten() {
        owner.as_object_mut().unwrap().remove("time");
    }
    if let Some(owners) = meta.get_mut("managedFields").and_then(Value::as_array_mut) {
        // Their order depends on times.
        owners.sort_by_key(Value::to_string);
    }
    // The server's own, in seconds.
    let conditions = object.pointer_mut("/status/conditions");
    for condition in conditions
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        condition
            .as_object_mut()
            .unwrap()
            .remove("lastTransitionTime");
    }
    object
}

fn pod(name: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "x"}, "annotations": {"a": "\u{1F600}\\\"{"}},
        "spec": {
            "restartPolicy": policy,
            "nodeSelector": {"disk": "ssd"},
            "containers": [
                {"name": "c", "image": "i", "args": ["\"}]", "\\"], "ports": [{"containerPort": 80}]},
                {"name": "own", "image": "i", "restartPolicy": "Always"},
            ],
            "initContainers": [{"name": "init", "image": "i"}],
            "tolerations": [{"key": "k", "operator": "Exists"}],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
    })
}

fn status(random: &mut StdRng) -> Value {
    let state = |random: &mut StdRng| -> Value {
        match random.random_range(0..3) {
            0 => json!({"waiting": {"reason": "ContainerCreating"}}),
            1 => json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}),
            _ => json!({"terminated": {"exitCode": random.random_range(0..2), "reason": "Error"}}),
        }
    };
    let mut status = json!({});
    let known = ["c", "own", "init"];
    if random.random_bool(0.7) {
        let containers: Vec<Value> = known[..random.random_range(1..3)]
            .iter()
            .map(|name| {
                json!({
                    "name": name, "state": state(random), "lastState": {}, "ready": random.random_bool(0.5),
                    "restartCount": random.random_range(0..3), "image": "i", "imageID": "",
                })
            })
            .collect();
        status["containerStatuses"] = containers.into();
    }
    if random.random_bool(0.6) {
        let holds = *["True", "False"].choose(random).unwrap();
        let types = ["Ready", "ContainersReady", "bad type"];
        let kind =
            types[usize::from(random.random_bool(0.5)) + usize::from(random.random_bool(0.05))];
        status["conditions"] = json!([{"type": kind, "status": holds}]);
    }
    for (field, values) in [
        (
            "phase",
            [
                json!("Pending"),
                json!("Running"),
                json!("Failed"),
                json!(7),
            ],
        ),
        (
            "podIP",
            [
                json!("10.0.0.1"),
                json!("10.0.0.2"),
                json!("x"),
                json!(null),
            ],
        ),
        (
            "hostIP",
            [
                json!("10.1.0.1"),
                json!(null),
                json!("10.1.0.1"),
                json!("10.1.0.2"),
            ],
        ),
        (
            "qosClass",
            [
                json!("BestEffort"),
                json!("Burstable"),
                json!(null),
                json!("BestEffort"),
            ],
        ),
        (
            "unknown",
            [json!({"a": 1}), json!("\u{0}0"), json!(null), json!([])],
        ),
    ] {
        if random.random_bool(0.4) {
            let at = random.random_range(0..8).min(3) % if random.random_bool(0.1) { 4 } else { 2 };
            status[field] = values[at].clone();
        }
    }
    status
}

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";

/// RFC 7386, written down plainly.
fn merged(target: &Value, patch: &Value) -> Value {
    let Some(members) = patch.as_object() else {
        return patch.clone();
    };
    let mut target = target.as_object().cloned().unwrap_or_default();
    for (name, value) in members {
        match value {
            Value::Null => {
                target.remove(name);
            }
            value => {
                let before = target.get(name).cloned().unwrap_or_default();
                target.insert(name.clone(), merged(&before, value));
            }
        }
    }
    target.into()
}

#[tokio::test]
async fn patches_of_a_status_make_the_same_of_sealed_and_open_objects() {
    let server = start().await;
    let client = server.client();
    let (mut taken, mut refused) = (0, 0);
    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let policy = *["Always", "OnFailure", "Never"]
            .choose(&mut random)
            .unwrap();
        let names = [format!("s{seed}"), format!("o{seed}")];
        let pods = "/api/v1/namespaces/default/pods";
        for name in &names {
            let path = format!("{pods}?fieldManager=creator");
            let made = ask(
                &client,
                Method::POST,
                "application/json",
                &path,
                &pod(name, policy),
            )
            .await;
            assert_eq!(made.0, StatusCode::CREATED, "{}", made.1);
        }
        if random.random_bool(0.7) {
            for (name, open) in names.iter().zip([false, true]) {
                let mut binding = json!({"target": {"kind": "Node", "name": "n"}});
                if open {
                    binding["metadata"]["annotations"] = json!({});
                }
                let path = format!("{pods}/{name}/binding");
                let bound = ask(&client, Method::POST, "application/json", &path, &binding).await;
                assert_eq!(bound.0, StatusCode::CREATED, "{}", bound.1);
            }
        }
        for step in 0..8 {
            let manager = *["kubelet", "other", "creator"].choose(&mut random).unwrap();
            let status = status(&mut random);
            let path = |name: &str| {
                let validation = if step % 2 == 0 { "Warn" } else { "Strict" };
                format!("{pods}/{name}/status?fieldManager={manager}&fieldValidation={validation}")
            };
            // A merge patch, or a strategic one that replaces: what comes of both is plain.
            let (_, before) = ask(
                &client,
                Method::GET,
                MERGE,
                &format!("{pods}/{}", names[1]),
                &json!(null),
            )
            .await;
            let wanted = merged(&before["status"], &status);
            let (kind, sealed) = match random.random_bool(0.5) {
                true => (MERGE, json!({"status": status})),
                false => {
                    let mut whole = wanted.clone();
                    whole["$patch"] = "replace".into();
                    (
                        STRATEGIC,
                        json!({"metadata": {"name": names[0]}, "status": whole}),
                    )
                }
            };
            let open = json!([{"op": "add", "path": "/status", "value": wanted}]);
            let a = ask(&client, Method::PATCH, kind, &path(&names[0]), &sealed).await;
            let b = ask(&client, Method::PATCH, JSON, &path(&names[1]), &open).await;
            assert_eq!(a.0, b.0, "seed {seed} step {step}: {}\n{}", a.1, b.1);
            match a.0 {
                StatusCode::OK => taken += 1,
                _ => refused += 1,
            }
            if a.0 == StatusCode::OK {
                assert_eq!(alike(a.1), alike(b.1), "seed {seed} step {step}: {sealed}");
            } else if kind == MERGE && a.0 == StatusCode::UNPROCESSABLE_ENTITY {
                assert_eq!(
                    a.1["details"]["causes"].as_array().map(Vec::len),
                    b.1["details"]["causes"].as_array().map(Vec::len)
                );
            }
        }
        let mut stored = vec![];
        for name in &names {
            stored.push(alike(
                ask(
                    &client,
                    Method::GET,
                    MERGE,
                    &format!("{pods}/{name}"),
                    &json!(null),
                )
                .await
                .1,
            ));
        }
        assert_eq!(stored[0], stored[1], "seed {seed}");
        for grace in [5, 0] {
            let path = format!("{pods}/{}", names[0]);
            let body = json!({"gracePeriodSeconds": grace});
            let (code, object) =
                ask(&client, Method::DELETE, "application/json", &path, &body).await;
            if code == StatusCode::NOT_FOUND {
                continue;
            }
            assert_eq!(code, StatusCode::OK, "seed {seed}: {object}");
            let unmarked = |mut object: Value| {
                let meta = object["metadata"].as_object_mut().unwrap();
                for field in [
                    "deletionTimestamp",
                    "deletionGracePeriodSeconds",
                    "generation",
                ] {
                    meta.remove(field);
                }
                object
            };
            assert_eq!(
                unmarked(alike(object)),
                unmarked(stored[0].clone()),
                "seed {seed}"
            );
        }
    }
    assert!(
        taken > 50 && refused > 50,
        "{taken} taken, {refused} refused"
    );
    server.shutdown().await;
}

#[test]
fn what_was_sealed_is_written_as_it_was() {
    let registry = Registry::new(vec![], 0);
    let entry = registry.lookup("", "v1", "pods").unwrap();
    let owner = |manager: &str, subresource: &str, fields: Value| {
        json!({
            "manager": manager, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": fields, "subresource": subresource,
        })
    };
    let mut object = pod("p", "Never");
    object["metadata"]["managedFields"] = json!([
        owner("a", "", json!({"f:spec": {"f:x": {}}})),
        owner("b", "status", json!({"f:status": {"f:y": {}}})),
        owner("c", "", json!({})),
    ]);
    object["status"] = json!({"phase": "Running"});
    let whole = object::encode(&entry.head, &object, "7").unwrap();
    for (reach, members, owners) in [
        (Reach::Status, 4, 2),
        (Reach::Lifecycle, 4, 3),
        (Reach::Whole, 0, 0),
    ] {
        let (mut opened, pieces) = open(entry, reach, &whole).unwrap();
        assert_eq!(pieces.bytes.len(), members + owners, "{reach:?}");
        assert_eq!(
            object::encode_with(&entry.head, &opened, "7", &pieces).unwrap(),
            whole
        );
        opened["status"]["phase"] = "Failed".into();
        let changed = object::encode_with(&entry.head, &opened, "7", &pieces).unwrap();
        let mut wanted = object::parse(&whole).unwrap();
        wanted["status"]["phase"] = "Failed".into();
        assert_eq!(object::parse(&changed).unwrap(), wanted);
    }
    // A container that ended may start again by its own rules: they are to be seen.
    object["status"] = json!({"containerStatuses": [{"name": "c", "state": {"terminated": {}}}]});
    let whole = object::encode(&entry.head, &object, "7").unwrap();
    let (opened, _) = open(entry, Reach::Status, &whole).unwrap();
    assert!(opened["spec"]["containers"].is_array() && opened["spec"]["volumes"].is_string());
    // Whoever binds or deletes it looks at neither.
    let (opened, pieces) = open(entry, Reach::Lifecycle, &whole).unwrap();
    assert!(opened["spec"]["containers"].is_string());
    assert!(opened["status"]["containerStatuses"].is_string());
    let written = object::encode_with(&entry.head, &opened, "7", &pieces).unwrap();
    assert_eq!(written, whole);
    // What holds a NUL could be taken for a mark.
    object["metadata"]["annotations"]["a"] = "\u{0}0".into();
    let whole = object::encode(&entry.head, &object, "7").unwrap();
    assert!(open(entry, Reach::Status, &whole).unwrap().1.is_empty());
}

/// What is stored of a new object's owner as text is what the rules say of it as a tree.
#[tokio::test]
async fn a_new_object_is_owned_the_same_sealed_and_open() {
    let server = start().await;
    let client = server.client();
    let registry = Registry::new(vec![], 0);
    let config_map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made"},
        "data": {"a": "\u{0}0"},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "made"},
        "spec": {"selector": {"a": "b"}, "ports": [
            {"name": "a", "port": 80}, {"name": "b", "port": 8080, "protocol": "UDP"},
        ]},
    });
    for (plural, body) in [
        ("pods", pod("made", "Never")),
        ("services", service),
        ("configmaps", config_map),
    ] {
        let url = format!("/api/v1/namespaces/default/{plural}");
        let (code, made) = ask(&client, Method::POST, "application/json", &url, &body).await;
        assert_eq!(code, StatusCode::CREATED, "{made}");
        let entry = registry.lookup("", "v1", plural).unwrap();
        let mut asked = body.clone();
        crate::rules::normalize(&entry.resource, &mut asked).unwrap();
        crate::rules::default(&entry.resource, &mut asked, None);
        let manager = gantry_machinery::apply::Manager {
            name: "x",
            operation: gantry_machinery::apply::Operation::Update,
            api_version: "v1",
            subresource: "",
            time: jiff::Timestamp::now(),
        };
        let none = gantry_machinery::apply::reset_fields(&entry.resource, None);
        let schema = entry.resource.schema();
        gantry_machinery::apply::track_update(schema, &none, None, &mut asked, manager).unwrap();
        let fields = |object: &Value| object["metadata"]["managedFields"][0]["fieldsV1"].clone();
        assert!(fields(&asked).is_object());
        assert_eq!(fields(&made), fields(&asked), "{plural}");
    }
    server.shutdown().await;
}

#[test]
fn nothing_is_sealed_beside_what_looks_like_a_mark() {
    let owned =
        |spec: Value| json!({"metadata": {"managedFields": [{"manager": "m"}]}, "spec": spec});
    for (spec, sealed) in [
        (json!({"nodeName": "n", "x": {"y": "\u{0}0"}}), true),
        (json!({"nodeName": "\u{0}0"}), false),
        (json!([{"fieldsV1": {"\u{0}0": null}}]), false),
    ] {
        let (mut object, mut pieces) = (owned(spec), Pieces::default());
        let given = object.clone();
        let fields = r#"{"f:spec":{}}"#.to_owned();
        assert_eq!(pieces.seal_owner(&mut object, fields), sealed, "{given}");
        assert_eq!(object == given, !sealed);
        assert_eq!(pieces.is_empty(), !sealed);
    }
}
