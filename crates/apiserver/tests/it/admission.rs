//! What the server's own admission plugins do to requests, seen from outside.

#![expect(
    clippy::expect_used,
    reason = "a test's helpers, which clippy does not see as such"
)]

use gantry_apiserver::{
    Config, EventLimit, EventLimitOn, PluginSettings, Server, TolerationSettings,
    parse_admission_config,
};
use gantry_store::{Options, Store};
use http::{Request, header};
use http_body_util::BodyExt;
use kube::Client;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

struct Answer {
    code: u16,
    warnings: Vec<String>,
    body: Value,
}

impl Answer {
    fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

async fn start() -> Server {
    set(PluginSettings::default()).await
}

async fn set(admission: PluginSettings) -> Server {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        admission,
        ..Config::default()
    };
    Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts")
}

async fn ask(client: &Client, method: &str, path: &str, body: Value) -> Answer {
    let media = match method {
        "PATCH" => "application/strategic-merge-patch+json",
        _ => "application/json",
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, media)
        .body(body.to_string().into_bytes().into())
        .expect("a request");
    let (parts, body) = client.send(request).await.expect("an answer").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    // `299 - "the text"`
    let warning = |v: &header::HeaderValue| {
        let text = v.to_str().unwrap_or_default();
        let quoted = text
            .strip_prefix("299 - \"")
            .and_then(|t| t.strip_suffix('"'));
        quoted.expect("a warning in quotes").replace("\\\"", "\"")
    };
    let warnings = parts.headers.get_all(header::WARNING);
    Answer {
        code: parts.status.as_u16(),
        warnings: warnings.iter().map(warning).collect(),
        body: serde_json::from_slice(&body).expect("JSON"),
    }
}

async fn made(client: &Client, path: &str, body: Value) -> Value {
    let answer = ask(client, "POST", path, body).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    answer.body
}

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": spec});
    if pod["spec"]["containers"].is_null() {
        pod["spec"]["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    pod
}

#[tokio::test]
async fn a_namespace_that_is_held_to_more_is_warned_of_what_is_there() {
    let server = start().await;
    let client = server.client();
    made(&client, PODS, pod("x", json!({"hostNetwork": true}))).await;
    let labels =
        json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let path = "/api/v1/namespaces/default";
    let answer = ask(&client, "PATCH", path, labels).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    assert_eq!(
        answer.warnings,
        [
            "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "x: host namespaces",
        ]
    );
    let answer = ask(&client, "POST", PODS, pod("y", json!({"hostPID": true}))).await;
    assert_eq!(answer.code, 403);
    assert_eq!(
        answer.message(),
        "pods \"y\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"
    );
    // Of a template, whose pods come later, a warning is all.
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("", json!({"hostPID": true}))["spec"]});
    let set = json!({"metadata": {"name": "s"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let answer = ask(&client, "POST", sets, set).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    assert_eq!(
        answer.warnings,
        ["would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"]
    );
    let wrong = json!({"metadata": {"labels": {"pod-security.kubernetes.io/warn-version": "one"}}});
    let answer = ask(&client, "PATCH", path, wrong).await;
    assert_eq!(answer.code, 422);
    assert_eq!(
        answer.message(),
        "Namespace \"default\" is invalid: metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"one\": must be \"latest\" or \"v1.x\""
    );
    server.shutdown().await;
}

#[tokio::test]
async fn pods_are_filled_in_as_they_come_and_as_they_are_bound() {
    let server = start().await;
    let client = server.client();
    let labels = json!({"topology.kubernetes.io/zone": "z", "kubernetes.io/hostname": "n"});
    let node = json!({"metadata": {"name": "n", "labels": labels}});
    made(&client, "/api/v1/nodes", node).await;
    let spread = json!([{
        "maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "a"}}, "matchLabelKeys": ["rev"],
    }]);
    let mut spreading = pod("x", json!({ "topologySpreadConstraints": spread }));
    spreading["metadata"]["labels"] = json!({"app": "a", "rev": "1"});
    let x = made(&client, PODS, spreading).await;
    assert_eq!(
        x["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"],
        json!([{"key": "rev", "operator": "In", "values": ["1"]}])
    );
    let binding = json!({"metadata": {"name": "x"}, "target": {"kind": "Node", "name": "n"}});
    made(&client, &format!("{PODS}/x/binding"), binding).await;
    let x = ask(&client, "GET", &format!("{PODS}/x"), Value::Null).await;
    let expected = json!({"app": "a", "rev": "1", "topology.kubernetes.io/zone": "z"});
    assert_eq!(x.body["metadata"]["labels"], expected);
    server.shutdown().await;
}

#[tokio::test]
async fn pods_are_resized_within_bounds() {
    let server = start().await;
    let client = server.client();
    made(&client, "/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    let amount = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
    let one = |cpu: &str| json!([{"name": "c", "image": "i", "resources": amount(cpu)}]);
    let spec = json!({"containers": one("1"), "nodeName": "n"});
    made(&client, PODS, pod("x", spec)).await;
    let limits = json!([{"type": "Pod", "max": {"cpu": "3"}}]);
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": limits}});
    made(&client, "/api/v1/namespaces/default/limitranges", range).await;
    let resize = format!("{PODS}/x/resize");
    let to = |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": amount(cpu)}]}});
    let answer = ask(&client, "PATCH", &resize, to("2")).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    assert_eq!(answer.body["metadata"]["generation"], 2);
    let answer = ask(&client, "PATCH", &resize, to("4")).await;
    assert_eq!(answer.code, 403);
    assert_eq!(
        answer.message(),
        "pods \"x\" is forbidden: maximum cpu usage per Pod is 3, but limit is 4"
    );
    let more = json!({"spec": {"containers": [{"name": "d", "image": "i"}]}});
    let answer = ask(&client, "PATCH", &resize, more).await;
    assert_eq!(answer.code, 422);
    assert!(
        answer
            .message()
            .contains("containers may not be added or removed on resize"),
        "{}",
        answer.message()
    );
    server.shutdown().await;
}

#[tokio::test]
async fn claims_grow_where_their_class_lets_them() {
    let server = start().await;
    let client = server.client();
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let class = json!({"metadata": {"name": "fixed"}, "provisioner": "p"});
    made(&client, "/apis/storage.k8s.io/v1/storageclasses", class).await;
    let spec = json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": "fixed",
        "resources": {"requests": {"storage": "1Gi"}},
    });
    let claim = json!({"metadata": {"name": "x"}, "spec": spec});
    let claim = made(&client, claims, claim).await;
    assert_eq!(
        claim["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
    let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    ask(&client, "PATCH", &format!("{claims}/x/status"), bound).await;
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let answer = ask(&client, "PATCH", &format!("{claims}/x"), more.clone()).await;
    assert_eq!(answer.code, 403, "{}", answer.body);
    assert!(
        answer
            .message()
            .contains("the storageclass that provisions the pvc must support resize")
    );
    let class = "/apis/storage.k8s.io/v1/storageclasses/fixed";
    ask(
        &client,
        "PATCH",
        class,
        json!({"allowVolumeExpansion": true}),
    )
    .await;
    let answer = ask(&client, "PATCH", &format!("{claims}/x"), more).await;
    assert_eq!(answer.code, 200, "{}", answer.body);
    server.shutdown().await;
}

#[tokio::test]
async fn devices_of_administrators_are_for_namespaces_that_say_so() {
    let server = start().await;
    let client = server.client();
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let exactly = json!({"deviceClassName": "gpu", "adminAccess": true});
    let requests = json!([{"name": "r", "exactly": exactly}]);
    let claim = json!({"metadata": {"name": "x"}, "spec": {"devices": {"requests": requests}}});
    let answer = ask(&client, "POST", claims, claim.clone()).await;
    assert_eq!(answer.code, 422);
    assert_eq!(
        answer.message(),
        "ResourceClaim.resource.k8s.io \"x\" is invalid: spec.devices.requests[0].exactly.adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"
    );
    let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    ask(&client, "PATCH", "/api/v1/namespaces/default", label).await;
    let claim = made(&client, claims, claim).await;
    assert_eq!(
        claim["spec"]["devices"]["requests"][0]["exactly"]["count"],
        1
    );
    let taint = json!({"key": "a", "effect": "NoSchedule"});
    let slice = json!({"metadata": {"name": "s"}, "spec": {
        "driver": "gpu.example.com", "nodeName": "n",
        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "d", "taints": [taint]}],
    }});
    let slice = made(&client, "/apis/resource.k8s.io/v1/resourceslices", slice).await;
    assert!(slice["spec"]["devices"][0]["taints"][0]["timeAdded"].is_string());
    server.shutdown().await;
}

#[tokio::test]
async fn pod_security_has_defaults_and_exemptions() {
    let file = "
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline}
    exemptions: {runtimeClasses: [kata], namespaces: [infra]}
";
    let none = |_: &str| Err(std::io::ErrorKind::NotFound.into());
    let settings = parse_admission_config(file, none).expect("a configuration");
    let server = set(settings).await;
    let client = server.client();
    let labels = |level: &str| json!({"pod-security.kubernetes.io/enforce": level});
    let namespace =
        |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
    let answer = ask(
        &client,
        "POST",
        "/api/v1/namespaces",
        namespace("infra", labels("restricted")),
    )
    .await;
    assert_eq!(
        answer.warnings,
        [
            "namespace \"infra\" is exempt from Pod Security, and the policy (enforce=restricted:latest, warn=restricted:latest) will be ignored"
        ]
    );
    made(
        &client,
        "/api/v1/namespaces",
        namespace("free", labels("privileged")),
    )
    .await;
    let class = json!({"metadata": {"name": "kata"}, "handler": "kata"});
    made(&client, "/apis/node.k8s.io/v1/runtimeclasses", class).await;
    let host = json!({"hostNetwork": true});
    let answer = ask(&client, "POST", PODS, pod("a", host.clone())).await;
    assert_eq!(answer.code, 403);
    assert!(
        answer
            .message()
            .contains("violates PodSecurity \"baseline:latest\": host namespaces")
    );
    for namespace in ["infra", "free"] {
        made(
            &client,
            &PODS.replace("default", namespace),
            pod("a", host.clone()),
        )
        .await;
    }
    let mut isolated = host;
    isolated["runtimeClassName"] = "kata".into();
    made(&client, PODS, pod("b", isolated)).await;
    server.shutdown().await;
}

/// A server with plugins that are off by default.
async fn with(enabled: &[&str], admission: PluginSettings) -> Server {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        enabled_admission: enabled.iter().map(|e| (*e).to_owned()).collect(),
        admission,
        ..Config::default()
    };
    Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts")
}

#[tokio::test]
async fn plugins_that_are_asked_for_work() {
    let settings = PluginSettings {
        node_selectors: [("clusterDefaultNodeSelector".to_owned(), "a=b".to_owned())].into(),
        event_limits: vec![EventLimit {
            on: EventLimitOn::Namespace,
            qps: 1,
            burst: 2,
            keys: 10,
        }],
        tolerations: TolerationSettings {
            default: vec![json!({"key": "k", "operator": "Exists"})],
            allowed: vec![],
        },
        ..PluginSettings::default()
    };
    let all = [
        "AlwaysAdmit",
        "AlwaysPullImages",
        "DenyServiceExternalIPs",
        "EventRateLimit",
        "ExtendedResourceToleration",
        "LimitPodHardAntiAffinityTopology",
        "NamespaceAutoProvision",
        "PodNodeSelector",
        "PodTolerationRestriction",
    ];
    let server = with(&all, settings).await;
    let client = server.client();

    // The namespace comes with the pod, except of one that is only tried.
    let fresh = "/api/v1/namespaces/fresh/pods";
    let requests = json!({"limits": {"x.io/gpu": "1"}});
    let spec = json!({"containers": [
        {"name": "c", "image": "i", "imagePullPolicy": "IfNotPresent", "resources": requests}]});
    let tried = ask(
        &client,
        "POST",
        &format!("{fresh}?dryRun=All"),
        pod("x", spec.clone()),
    )
    .await;
    assert_eq!(tried.code, 404, "{}", tried.body);
    let made = made(&client, fresh, pod("x", spec)).await;
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(made["spec"]["nodeSelector"], json!({"a": "b"}));
    let tolerated: Vec<&str> = made["spec"]["tolerations"]
        .as_array()
        .expect("tolerations")
        .iter()
        .map(|t| t["key"].as_str().expect("a key"))
        .collect();
    for key in ["k", "x.io/gpu", "node.kubernetes.io/not-ready"] {
        assert!(tolerated.contains(&key), "{key}: {tolerated:?}");
    }

    let services = "/api/v1/namespaces/default/services";
    let apart = json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}]}}});
    for (path, object, said) in [
        (
            services,
            json!({"metadata": {"name": "s"},
                "spec": {"ports": [{"port": 80}], "externalIPs": ["9.9.9.9"]}}),
            "services \"s\" is forbidden: Use of external IPs is denied by admission control.",
        ),
        (
            PODS,
            pod("p", json!({"nodeSelector": {"a": "c"}})),
            "pods \"p\" is forbidden: pod node label selector conflicts with its namespace node label selector",
        ),
        (
            PODS,
            pod("p", apart),
            "pods \"p\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed",
        ),
    ] {
        let answer = ask(&client, "POST", path, object).await;
        assert_eq!((answer.code, answer.message()), (403, said));
    }

    let event = |i: u32| json!({"metadata": {"name": format!("e{i}")}, "involvedObject": {"namespace": "default"}});
    let events = "/api/v1/namespaces/default/events";
    let mut codes = vec![];
    for i in 0..4 {
        codes.push(ask(&client, "POST", events, event(i)).await.code);
    }
    // A slow machine may let a second pass.
    assert_eq!(codes[..2], [201, 201]);
    assert!(codes.contains(&429), "{codes:?}");
    server.shutdown().await;
}

#[tokio::test]
async fn owners_are_given_by_those_who_may() {
    let server = with(
        &["OwnerReferencesPermissionEnforcement"],
        PluginSettings::default(),
    )
    .await;
    let admin = server.client();
    let rules = json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "update", "patch"]}]);
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    made(
        &admin,
        roles,
        json!({"metadata": {"name": "some"}, "rules": rules}),
    )
    .await;
    let binding = json!({"metadata": {"name": "some"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "some"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    made(
        &admin,
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        binding,
    )
    .await;
    let owner = made(&admin, PODS, pod("owner", json!({}))).await["metadata"]["uid"].clone();
    let ann = server.client_as("ann", &[]);
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = |name: &str, blocks: bool| {
        json!({"metadata": {"name": name, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "owner", "uid": owner, "blockOwnerDeletion": blocks}]}})
    };
    let blocked = ask(&ann, "POST", maps, map("a", true)).await;
    assert_eq!(blocked.code, 403);
    assert_eq!(
        blocked.message(),
        "configmaps \"a\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>"
    );
    made(&ann, maps, map("a", false)).await;
    made(&ann, maps, json!({"metadata": {"name": "b"}})).await;
    let given = ask(&ann, "PATCH", &format!("{maps}/b"), map("b", false)).await;
    assert_eq!(given.code, 403);
    assert!(
        given.message().contains("a resource you can't delete"),
        "{}",
        given.message()
    );
    let given = ask(&admin, "PATCH", &format!("{maps}/b"), map("b", true)).await;
    assert_eq!(given.code, 200, "{}", given.body);
    server.shutdown().await;
}

#[tokio::test]
async fn a_server_that_always_denies_starts_and_denies() {
    let server = with(&["AlwaysDeny"], PluginSettings::default()).await;
    let client = server.client();
    let denied = "is forbidden: admission control is denying all modifications";
    let created = ask(&client, "POST", PODS, pod("x", json!({}))).await;
    assert_eq!(created.code, 403);
    assert!(created.message().contains(denied), "{}", created.message());
    let deleted = ask(
        &client,
        "DELETE",
        "/api/v1/namespaces/default/services/kubernetes",
        json!({}),
    );
    assert_eq!(deleted.await.code, 403);
    server.shutdown().await;
}
