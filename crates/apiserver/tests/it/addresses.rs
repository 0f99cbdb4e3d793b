//! IPAddresses: each Service has one for its address, however it changes, and what others make of them is
//! put right.

#![expect(
    clippy::expect_used,
    reason = "a test's helpers, which clippy does not see as such"
)]

use std::time::Duration;

use http::HeaderMap;
use kube::Client;
use serde_json::{Value, json};

use crate::asking::{ask, ask_as, start};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn service(name: &str, spec: &Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

async fn created(client: &Client, name: &str, spec: Value) -> String {
    let (code, said) = ask(client, "POST", SERVICES, service(name, &spec)).await;
    assert_eq!(code, 201, "{said}");
    said["spec"]["clusterIP"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

async fn get(client: &Client, address: &str) -> (u16, Value) {
    ask(
        client,
        "GET",
        &format!("{ADDRESSES}/{address}"),
        Value::Null,
    )
    .await
}

/// Waits until an address is as wanted.
async fn until(client: &Client, address: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
    let wait = async {
        loop {
            let (code, object) = get(client, address).await;
            if wanted(code, &object) {
                return object;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait)
        .await
        .expect("in time")
}

#[tokio::test]
async fn a_service_has_an_object_for_its_address_as_long_as_it_has_the_address() {
    let server = start().await;
    let client = server.client();
    let given = created(&client, "web", json!({})).await;
    let (code, object) = get(&client, &given).await;
    assert_eq!(code, 200);
    assert_eq!(
        object["metadata"]["labels"],
        json!({"ipaddress.kubernetes.io/ip-family": "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"})
    );
    assert_eq!(
        object["spec"],
        json!({"parentRef": {"resource": "services", "namespace": "default", "name": "web"}})
    );
    let path = format!("{SERVICES}/web");
    let outside = json!({"spec": {"type": "ExternalName", "externalName": "a.b"}});
    let (code, said) = ask(&client, "PATCH", &path, outside).await;
    assert_eq!(code, 200, "{said}");
    assert_eq!(get(&client, &given).await.0, 404);
    let inside = json!({"spec": {"type": "ClusterIP", "externalName": null}});
    let (_, said) = ask(&client, "PATCH", &path, inside).await;
    let again = said["spec"]["clusterIP"].as_str().unwrap_or_default();
    assert_eq!(get(&client, again).await.0, 200);
    // Nothing is left of what was not made.
    let dry = format!("{SERVICES}?dryRun=All");
    let (code, said) = ask(&client, "POST", &dry, service("dry", &json!({}))).await;
    assert_eq!(code, 201, "{said}");
    let dry = said["spec"]["clusterIP"].as_str().unwrap_or_default();
    assert_eq!(get(&client, dry).await.0, 404);
    assert_eq!(
        created(&client, "none", json!({"clusterIP": "None"})).await,
        "None"
    );
    assert_eq!(ask(&client, "DELETE", &path, Value::Null).await.0, 200);
    let (_, all) = ask(&client, "GET", ADDRESSES, Value::Null).await;
    let names: Vec<&str> = all["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|a| a["metadata"]["name"].as_str())
        .collect();
    assert_eq!(
        names,
        ["10.96.0.1"],
        "only that of the server's own Service"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn a_service_that_waits_for_its_finalizer_keeps_its_address() {
    let server = start().await;
    let client = server.client();
    let mut held = service("held", &json!({}));
    held["metadata"]["finalizers"] = json!(["a.b/c"]);
    let (_, said) = ask(&client, "POST", SERVICES, held).await;
    let given = said["spec"]["clusterIP"].as_str().unwrap_or_default();
    let path = format!("{SERVICES}/held");
    assert_eq!(ask(&client, "DELETE", &path, Value::Null).await.0, 200);
    assert_eq!(get(&client, given).await.0, 200);
    let free = json!({"metadata": {"finalizers": null}});
    assert_eq!(ask(&client, "PATCH", &path, free).await.0, 200);
    assert_eq!(get(&client, given).await.0, 404);
    server.shutdown().await;
}

#[tokio::test]
async fn an_address_that_somebody_else_has_is_given_to_no_service() {
    let server = start().await;
    let client = server.client();
    let foreign = json!({"metadata": {"name": "10.96.0.77"}, "spec": {"parentRef":
        {"group": "a.b", "resource": "gateways", "namespace": "default", "name": "g"}}});
    assert_eq!(ask(&client, "POST", ADDRESSES, foreign).await.0, 201);
    for (address, why) in [
        ("10.96.0.77", "provided IP is already allocated"),
        (
            "10.96.0.0",
            "the provided IP (10.96.0.0) is not in the valid range. The range of valid IPs is 10.96.0.0/12",
        ),
        (
            "10.9.0.1",
            "the provided network does not match the current range",
        ),
    ] {
        let asks = service("asks", &json!({"clusterIP": address}));
        let (code, said) = ask(&client, "POST", SERVICES, asks).await;
        assert_eq!(code, 422, "{said}");
        let message = said["message"].as_str().unwrap_or_default();
        assert!(message.contains(why), "{message}");
    }
    let gone = format!("{ADDRESSES}/10.96.0.77");
    assert_eq!(ask(&client, "DELETE", &gone, Value::Null).await.0, 200);
    let given = created(&client, "asks", json!({"clusterIP": "10.96.0.77"})).await;
    assert_eq!(
        get(&client, &given).await.1["spec"]["parentRef"]["name"],
        "asks"
    );
    server.shutdown().await;
}

#[tokio::test]
async fn what_others_do_to_an_object_of_an_address_is_put_right() {
    let server = start().await;
    let client = server.client();
    let given = created(&client, "web", json!({})).await;
    let path = format!("{ADDRESSES}/{given}");
    let (_, first) = get(&client, &given).await;
    let uid = first["metadata"]["uid"].clone();
    let other = move |code: u16, object: &Value| code == 200 && object["metadata"]["uid"] != uid;
    assert_eq!(ask(&client, "DELETE", &path, Value::Null).await.0, 200);
    let second = until(&client, &given, other).await;
    assert_eq!(second["spec"]["parentRef"]["name"], "web");
    // A label that is lost, too.
    let bare = json!({"metadata": {"labels": {"ipaddress.kubernetes.io/ip-family": null}}});
    assert_eq!(ask(&client, "PATCH", &path, bare).await.0, 200);
    until(&client, &given, |code, object| {
        code == 200 && object["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"] == "IPv4"
    })
    .await;
    // One that says it is kept here, and is of a Service that does not have the address.
    let wrong = json!({
        "metadata": {"name": "10.96.0.78", "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}}});
    assert_eq!(ask(&client, "POST", ADDRESSES, wrong).await.0, 201);
    until(&client, "10.96.0.78", |code, _| code == 404).await;
    let told = async {
        loop {
            let events = "/api/v1/namespaces/default/events";
            let (_, all) = ask(&client, "GET", events, Value::Null).await;
            let has = |reason: &str| {
                let mut events = all["items"].as_array().into_iter().flatten();
                events.any(|event| event["reason"] == reason)
            };
            if has("ClusterIPNotAllocated") && has("IPAddressWrongReference") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told)
        .await
        .expect("events tell of it");
    server.shutdown().await;
}

/// "[sig-network] ServiceCIDR and IPAddress API" of Kubernetes' conformance tests.
#[tokio::test]
async fn addresses_of_others_are_theirs() {
    let server = start().await;
    let client = server.client();
    let made = |name: &str, kind: &str| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": name, "labels": {"type": kind}},
            "spec": {"parentRef": {"group": "mygroup", "resource": "myresources", "namespace": "foo", "name": "bar"}}})
    };
    for object in [
        made("255.255.255.255", "broadcast"),
        made("fe80::42:1dff:fe84:f9e2", "link-local"),
    ] {
        let (code, said) = ask(&client, "POST", ADDRESSES, object).await;
        assert_eq!(code, 201, "{said}");
    }
    let path = format!("{ADDRESSES}/255.255.255.255");
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let (code, mut patched) = ask(&client, "PATCH", &path, patch).await;
    assert_eq!(code, 200);
    patched["metadata"]["annotations"]["updated"] = "true".into();
    let (code, updated) = ask(&client, "PUT", &path, patched).await;
    assert_eq!(
        (code, &updated["metadata"]["annotations"]["updated"]),
        (200, &json!("true"))
    );
    let listed = async |kind: &str| {
        let path = format!("{ADDRESSES}?labelSelector=type={kind}");
        let (_, list) = ask(&client, "GET", &path, Value::Null).await;
        list["items"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(listed("broadcast").await, 1);
    assert_eq!(ask(&client, "DELETE", &path, Value::Null).await.0, 200);
    let linked = format!("{ADDRESSES}?labelSelector=type=link-local");
    assert_eq!(ask(&client, "DELETE", &linked, Value::Null).await.0, 200);
    assert_eq!(listed("link-local").await, 0);
    let own = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";
    let (_, whole) = ask(&client, "GET", own, Value::Null).await;
    let (code, _, status): (u16, HeaderMap, Value) = ask_as(
        &client,
        "GET",
        &format!("{own}/status"),
        ("application/json", "application/json"),
        Value::Null,
    )
    .await;
    assert_eq!(code, 200);
    assert_eq!(status["metadata"]["uid"], whole["metadata"]["uid"]);
    server.shutdown().await;
}
