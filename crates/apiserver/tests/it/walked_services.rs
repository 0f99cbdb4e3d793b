//! What Kubernetes' integration tests of Services (`test/integration/{service,network}`) ask of an API
//! server. Each test names those that it takes up.

use serde_json::{Value, json};

use crate::asking::{ask, start};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, kind: &str, spec: &Value) -> Value {
    let mut object = json!({"metadata": {"name": name},
        "spec": {"type": kind, "selector": {"foo": "bar"}, "ports": [{"port": 80}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    object
}

fn node_ports(object: &Value) -> Vec<bool> {
    let ports = object["spec"]["ports"].as_array().into_iter().flatten();
    ports
        .map(|p| p["nodePort"].as_u64().is_some_and(|n| n > 0))
        .collect()
}

/// `service_test.go`: Test_ExternalNameServiceStopsDefaultingInternalTrafficPolicy,
/// Test_ExternalNameServiceDropsInternalTrafficPolicy, Test_ConvertingToExternalNameServiceDropsInternalTrafficPolicy,
/// Test_RemovingExternalIPsFromClusterIPServiceDropsExternalTrafficPolicy.
#[tokio::test]
async fn traffic_policies_go_with_what_they_are_about() {
    let server = start().await;
    let client = server.client();
    for (name, policy) in [("outside", Value::Null), ("outside-too", json!("Cluster"))] {
        let spec = json!({"externalName": "foo.bar.com", "internalTrafficPolicy": policy, "ports": null, "selector": null});
        let (code, said) = ask(
            &client,
            "POST",
            SERVICES,
            service(name, "ExternalName", &spec),
        )
        .await;
        assert_eq!(
            (code, &said["spec"]["internalTrafficPolicy"]),
            (201, &Value::Null),
            "{said}"
        );
    }
    let (_, mut inside) = ask(
        &client,
        "POST",
        SERVICES,
        service("inside", "ClusterIP", &json!({})),
    )
    .await;
    assert_eq!(inside["spec"]["internalTrafficPolicy"], "Cluster");
    inside["spec"]["type"] = "ExternalName".into();
    inside["spec"]["externalName"] = "foo.bar.com".into();
    let path = format!("{SERVICES}/inside");
    let (code, said) = ask(&client, "PUT", &path, inside).await;
    assert_eq!(
        (code, &said["spec"]["internalTrafficPolicy"]),
        (200, &Value::Null),
        "{said}"
    );

    let addresses = json!({"externalIPs": ["1.1.1.1"]});
    let (_, mut known) = ask(
        &client,
        "POST",
        SERVICES,
        service("known", "ClusterIP", &addresses),
    )
    .await;
    assert_eq!(known["spec"]["externalTrafficPolicy"], "Cluster", "{known}");
    let path = format!("{SERVICES}/known");
    for (addresses, policy) in [
        (json!([]), Value::Null),
        (json!(["1.1.1.1"]), json!("Cluster")),
    ] {
        known["spec"]["externalIPs"] = addresses;
        let (code, said) = ask(&client, "PUT", &path, known).await;
        assert_eq!(
            (code, &said["spec"]["externalTrafficPolicy"]),
            (200, &policy),
            "{said}"
        );
        known = said;
    }
    server.shutdown().await;
}

/// `loadbalancer_test.go`: Test_ServiceLoadBalancerDisableAllocateNodePorts and the six after it.
#[tokio::test]
async fn load_balancers_have_node_ports_where_they_want_them() {
    let server = start().await;
    let client = server.client();
    let two = json!([{"name": "np-1", "port": 80}, {"name": "np-2", "port": 81}]);
    // The type before, whether ports are wanted, the ports; then what changes, and which have one.
    let wants = |wants: bool| json!({"spec": {"allocateLoadBalancerNodePorts": wants}});
    for (name, kind, wanted, ports, change, before, after) in [
        (
            "none",
            "LoadBalancer",
            Some(false),
            1,
            json!({}),
            [false, false],
            [false, false],
        ),
        (
            "updated",
            "ClusterIP",
            None,
            1,
            json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false}}),
            [false, false],
            [false, false],
        ),
        (
            "kept",
            "LoadBalancer",
            Some(true),
            1,
            wants(false),
            [true, false],
            [true, false],
        ),
        (
            "given-up",
            "LoadBalancer",
            Some(true),
            1,
            json!({"spec": {"allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]}}),
            [true, false],
            [false, false],
        ),
        (
            "one-given-up",
            "LoadBalancer",
            Some(true),
            2,
            json!("one"),
            [true, true],
            [false, true],
        ),
        (
            "again",
            "LoadBalancer",
            Some(false),
            1,
            wants(true),
            [false, false],
            [true, false],
        ),
    ] {
        let mut spec = json!({});
        if let Some(wanted) = wanted {
            spec["allocateLoadBalancerNodePorts"] = wanted.into();
        }
        if ports == 2 {
            spec["ports"] = two.clone();
        }
        let (code, said) = ask(&client, "POST", SERVICES, service(name, kind, &spec)).await;
        assert_eq!(code, 201, "{said}");
        assert_eq!(node_ports(&said), before[..ports], "{name}: {said}");
        let path = format!("{SERVICES}/{name}");
        let (code, said) = match change == "one" {
            false => ask(&client, "PATCH", &path, change).await,
            true => {
                let mut object = said;
                object["spec"]["allocateLoadBalancerNodePorts"] = false.into();
                object["spec"]["ports"][0]["nodePort"] = 0.into();
                ask(&client, "PUT", &path, object).await
            }
        };
        assert_eq!(code, 200, "{said}");
        assert_eq!(node_ports(&said), after[..ports], "{name}: {said}");
    }
    // What was given up is free.
    let (_, said) = ask(&client, "GET", &format!("{SERVICES}/kept"), Value::Null).await;
    let port = said["spec"]["ports"][0]["nodePort"].clone();
    let given_up = json!({"spec": {"ports": [{"port": 80}]}});
    ask(&client, "PATCH", &format!("{SERVICES}/kept"), given_up).await;
    let takes = json!({"ports": [{"port": 80, "nodePort": port}]});
    let (code, said) = ask(
        &client,
        "POST",
        SERVICES,
        service("takes", "NodePort", &takes),
    )
    .await;
    assert_eq!(code, 201, "{said}");
    server.shutdown().await;
}

/// `loadbalancer_test.go`: Test_SetLoadBalancerClassThenUpdateLoadBalancerClass,
/// Test_UpdateLoadBalancerWithLoadBalancerClass.
#[tokio::test]
async fn the_class_of_a_load_balancer_stays() {
    let server = start().await;
    let client = server.client();
    let class = |class: &str| json!({"loadBalancerClass": class});
    let (code, said) = ask(
        &client,
        "POST",
        SERVICES,
        service("has", "LoadBalancer", &class("test.com/test")),
    )
    .await;
    assert_eq!(code, 201, "{said}");
    let (code, _) = ask(
        &client,
        "POST",
        SERVICES,
        service("gets", "LoadBalancer", &json!({})),
    )
    .await;
    assert_eq!(code, 201);
    for name in ["has", "gets"] {
        let path = format!("{SERVICES}/{name}");
        let (code, said) = ask(
            &client,
            "PATCH",
            &path,
            json!({"spec": class("test.com/update")}),
        )
        .await;
        let message = said["message"].as_str().unwrap_or_default();
        assert!(
            code == 422 && message.contains("may not change once set"),
            "{name}: {said}"
        );
    }
    server.shutdown().await;
}

/// `network/services_test.go`: TestServicesFinalizersRepairLoop.
#[tokio::test]
async fn a_service_that_waits_keeps_what_it_has_and_then_gives_it_back() {
    let server = start().await;
    let client = server.client();
    let spec = json!({"clusterIP": "10.96.0.20", "ports": [{"port": 8443, "nodePort": 30443}]});
    let mut object = service("svc", "NodePort", &spec);
    object["metadata"]["finalizers"] = json!(["foo.bar/some-finalizer"]);
    let path = format!("{SERVICES}/svc");
    assert_eq!(ask(&client, "POST", SERVICES, object.clone()).await.0, 201);
    assert_eq!(ask(&client, "DELETE", &path, Value::Null).await.0, 200);
    let (code, said) = ask(&client, "GET", &path, Value::Null).await;
    assert_eq!(
        (code, &said["spec"]["clusterIP"]),
        (200, &json!("10.96.0.20"))
    );
    let (code, _) = ask(
        &client,
        "POST",
        SERVICES,
        service("other", "NodePort", &spec),
    )
    .await;
    assert_eq!(code, 422);
    let gone = json!([{"op": "remove", "path": "/metadata/finalizers"}]);
    assert_eq!(ask(&client, "PATCH", &path, gone).await.0, 200);
    assert_eq!(ask(&client, "GET", &path, Value::Null).await.0, 404);
    assert_eq!(ask(&client, "POST", SERVICES, object).await.0, 201);
    server.shutdown().await;
}
