//! Webhooks that run in pods: AdmissionWebhook and CustomResourceConversionWebhook, with the server of the
//! conformance tests, simulated, behind a Service.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::conformance::harness::{Kube, pod, unique};

const REGISTRATION: &str = "admissionregistration.k8s.io/v1";
const EXTENSIONS: &str = "apiextensions.k8s.io/v1";
const SERVICE: &str = "e2e-test-webhook";

/// A server behind a Service, and who has signed its certificate.
struct Hook {
    kube: Kube,
    authority: String,
}

/// A certificate for a Service, its key, and its authority, PEM.
fn certificate(namespace: &str) -> (String, String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let names = vec![format!("{SERVICE}.{namespace}.svc")];
    let cert = CertificateParams::new(names).unwrap();
    let cert = cert.signed_by(&own, &issuer).unwrap().pem();
    (cert, own.serialize_pem(), authority)
}

impl Hook {
    /// Deploys the server as the tests do, and waits for its endpoint.
    async fn deploy(kube: Kube, command: &str) -> Hook {
        let (cert, key, authority) = certificate(&kube.namespace);
        let data = json!({"tls.crt": STANDARD.encode(cert), "tls.key": STANDARD.encode(key)});
        let secret = json!({"metadata": {"name": "certs"}, "data": data});
        kube.create("v1", "secrets", secret).await;
        let container = json!({
            "name": "webhook", "image": "registry.k8s.io/e2e-test-images/agnhost:2.53",
            "args": [command, "--tls-cert-file=/certs/tls.crt", "--tls-private-key-file=/certs/tls.key",
                "--alsologtostderr", "-v=4", "2>&1", "--port=8444"],
            "ports": [{"containerPort": 8444}],
            "readinessProbe": {"periodSeconds": 1,
                "httpGet": {"scheme": "HTTPS", "port": 8444, "path": "/readyz"}},
            "volumeMounts": [{"name": "certs", "mountPath": "/certs", "readOnly": true}],
        });
        let labels = json!({"app": "webhook"});
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container],
            "volumes": [{"name": "certs", "secret": {"secretName": "certs"}}]});
        let deployment = json!({"metadata": {"name": "webhook"}, "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec}}});
        kube.create("apps/v1", "deployments", deployment).await;
        let service = json!({"metadata": {"name": SERVICE}, "spec": {"selector": labels,
            "ports": [{"protocol": "TCP", "port": 8443, "targetPort": 8444}]}});
        kube.create("v1", "services", service).await;
        let ready = |slices: &Vec<Value>| {
            let mut endpoints = slices
                .iter()
                .flat_map(|it| it["endpoints"].as_array().into_iter().flatten());
            endpoints.any(|it| it["conditions"]["ready"] == true)
        };
        let label = format!("kubernetes.io/service-name={SERVICE}");
        let look = async || {
            kube.list("discovery.k8s.io/v1", "endpointslices", &label)
                .await
        };
        kube.until("an endpoint of the webhook", look, ready).await;
        // Hooks look at this namespace alone.
        let mark = json!({"metadata": {"labels": {"watched": kube.namespace}}});
        kube.merge("v1", "namespaces", &kube.namespace, mark).await;
        let authority = STANDARD.encode(authority);
        Hook { kube, authority }
    }

    fn config(&self, path: &str, trusted: bool) -> Value {
        let mut config = json!({"service": {"namespace": self.kube.namespace, "name": SERVICE,
            "path": path, "port": 8443}});
        if trusted {
            config["caBundle"] = self.authority.clone().into();
        }
        config
    }

    fn hook(&self, path: &str, resources: &[&str], operations: &[&str], more: Value) -> Value {
        let name = format!("{}.k8s.io", unique("hook"));
        let mut hook = json!({
            "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1", "v1beta1"],
            "clientConfig": self.config(path, true),
            "rules": [{"apiGroups": ["*"], "apiVersions": ["*"],
                "resources": resources, "operations": operations}],
            "namespaceSelector": {"matchLabels": {"watched": self.kube.namespace}},
        });
        crate::conformance::harness::merge_into(&mut hook, more);
        hook
    }

    /// Puts a configuration into force; it ends when its name is deleted.
    async fn register(&self, kind: &str, hooks: Value) -> String {
        let name = unique("webhooks");
        let object = json!({"metadata": {"name": name}, "webhooks": hooks});
        self.kube.create(REGISTRATION, kind, object).await;
        name
    }
}

const VALIDATING: &str = "validatingwebhookconfigurations";
const MUTATING: &str = "mutatingwebhookconfigurations";

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

/// Creates what is refused; the message.
async fn refused(kube: &Kube, version: &str, plural: &str, object: &Value) -> String {
    let (code, answer) = kube.try_create(version, plural, object).await;
    assert!(code >= 400, "{plural}: {code} {answer:#}");
    answer["message"].as_str().unwrap().to_owned()
}

fn simple(name: &str, labels: Value) -> Value {
    pod(name, labels, json!({}), json!({}))
}

#[test]
fn pods_and_configmaps_are_denied_and_a_hanging_webhook_is_not_waited_for() {
    on(async |hook| {
        let kube = &hook.kube;
        let hooks = json!([
            hook.hook(
                "/pods",
                &["pods"],
                &["CREATE"],
                json!({"timeoutSeconds": 3})
            ),
            hook.hook(
                "/configmaps",
                &["configmaps"],
                &["CREATE", "UPDATE", "DELETE"],
                json!({})
            ),
        ]);
        let name = hook.register(VALIDATING, hooks).await;
        let labelled = |value: &str| json!({"webhook-e2e-test": value});
        let disallowed = simple("disallowed", labelled("webhook-disallow"));
        let said = refused(kube, "v1", "pods", &disallowed).await;
        assert!(
            said.contains("denied the request: the pod contains unwanted label;"),
            "{said}"
        );
        let hanging = simple("hanging", labelled("wait-forever"));
        let said = refused(kube, "v1", "pods", &hanging).await;
        assert!(said.contains("context deadline exceeded"), "{said}");
        let unwanted = map("unwanted", labelled("webhook-disallow"));
        let said = refused(kube, "v1", "configmaps", &unwanted).await;
        let denied = "denied the request: the configmap contains unwanted key and value";
        assert!(said.contains(denied), "{said}");
        kube.create("v1", "configmaps", map("allowed", json!({"admit": "this"})))
            .await;
        let path = format!("{}/allowed", kube.path("v1", "configmaps"));
        let merge = [("content-type", crate::conformance::harness::MERGE)];
        let body = json!({"data": labelled("webhook-disallow")}).to_string();
        let (code, answer) = kube.ask("PATCH", &path, &merge, &body).await;
        assert!(
            code >= 400 && answer.to_string().contains(denied),
            "{answer:#}"
        );
        // What may not be deleted stays until that is no longer so.
        let stays = map("stays", labelled("webhook-nondeletable"));
        kube.create("v1", "configmaps", stays).await;
        let path = format!("{}/stays", kube.path("v1", "configmaps"));
        let (code, answer) = kube.ask("DELETE", &path, &[], "").await;
        let kept = "the configmap cannot be deleted because it contains unwanted key and value";
        assert!(
            code >= 400 && answer.to_string().contains(kept),
            "{answer:#}"
        );
        let data = json!({"data": {"webhook-e2e-test": "webhook-deletable"}});
        kube.merge("v1", "configmaps", "stays", data).await;
        kube.delete("v1", "configmaps", "stays").await;
        kube.delete(REGISTRATION, VALIDATING, &name).await;
        kube.create("v1", "pods", disallowed).await;
    });
}

#[test]
fn who_cannot_be_trusted_fails_closed_or_open() {
    on(async |hook| {
        let kube = &hook.kube;
        let untrusted = |policy: &str| {
            let more = json!({"failurePolicy": policy, "timeoutSeconds": 2,
                "clientConfig": hook.config("/configmaps", false)});
            json!([hook.hook("/configmaps", &["configmaps"], &["CREATE"], more)])
        };
        let name = hook.register(VALIDATING, untrusted("Fail")).await;
        let said = refused(kube, "v1", "configmaps", &map("foo", json!({}))).await;
        assert!(
            said.contains("failed calling webhook") && said.contains("x509"),
            "{said}"
        );
        kube.delete(REGISTRATION, VALIDATING, &name).await;
        let name = hook.register(VALIDATING, untrusted("Ignore")).await;
        kube.create("v1", "configmaps", map("foo", json!({}))).await;
        kube.delete(REGISTRATION, VALIDATING, &name).await;
        // A timeout of a second is shorter than the webhook takes, one of ten is longer.
        let slow = |policy: &str, seconds: u32| {
            let more = json!({"failurePolicy": policy, "timeoutSeconds": seconds});
            let path = "/always-allow-delay-5s";
            json!([hook.hook(path, &["configmaps"], &["CREATE"], more)])
        };
        let name = hook.register(VALIDATING, slow("Fail", 1)).await;
        let said = refused(kube, "v1", "configmaps", &map("slow", json!({}))).await;
        assert!(
            said.contains("deadline") || said.contains("timeout"),
            "{said}"
        );
        kube.delete(REGISTRATION, VALIDATING, &name).await;
        for (policy, seconds) in [("Ignore", 1), ("Fail", 10)] {
            let name = hook.register(VALIDATING, slow(policy, seconds)).await;
            let map = map(&format!("slow-{seconds}"), json!({}));
            kube.create("v1", "configmaps", map).await;
            kube.delete(REGISTRATION, VALIDATING, &name).await;
        }
    });
}

#[test]
fn objects_are_changed_on_their_way_and_attaching_is_denied() {
    on(async |hook| {
        let kube = &hook.kube;
        let stage = || {
            hook.hook(
                "/mutating-configmaps",
                &["configmaps"],
                &["CREATE"],
                json!({}),
            )
        };
        let pods = hook.hook("/mutating-pods", &["pods"], &["CREATE"], json!({}));
        let name = hook
            .register(MUTATING, json!([stage(), stage(), pods]))
            .await;
        let made = map("changed", json!({"mutation-start": "yes"}));
        let made = kube.create("v1", "configmaps", made).await;
        let whole =
            json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"});
        assert_eq!(made["data"], whole);
        let made = kube
            .create("v1", "pods", simple("webhook-to-be-mutated", json!({})))
            .await;
        let added = &made["spec"]["initContainers"][0];
        assert_eq!(added["name"], "webhook-added-init-container");
        // Defaults are set on what a webhook adds.
        assert_eq!(added["terminationMessagePolicy"], "File");
        kube.delete(REGISTRATION, MUTATING, &name).await;
        let attach = hook.hook("/pods/attach", &["pods/attach"], &["CONNECT"], json!({}));
        let name = hook.register(VALIDATING, json!([attach])).await;
        let mut target = simple("to-be-attached-pod", json!({}));
        target["spec"]["containers"][0]["name"] = "container1".into();
        kube.create("v1", "pods", target).await;
        kube.running("to-be-attached-pod").await;
        let path = kube.path("v1", "pods");
        let path = format!("{path}/to-be-attached-pod/attach?stdin=true&container=container1");
        let (code, answer) = kube.ask("POST", &path, &[], "").await;
        let denied = "attaching to pod 'to-be-attached-pod' is not allowed";
        assert!(
            code >= 400 && answer.to_string().contains(denied),
            "{code} {answer:#}"
        );
        kube.delete(REGISTRATION, VALIDATING, &name).await;
    });
}

fn definition(group: &str, versions: Value) -> Value {
    json!({"metadata": {"name": format!("things.{group}")}, "spec": {
        "group": group, "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"}, "versions": versions}})
}

fn version(name: &str, storage: bool, properties: Value) -> Value {
    json!({"name": name, "served": true, "storage": storage,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
}

async fn define(kube: &Kube, definition: Value) -> String {
    let made = kube
        .create(EXTENSIONS, "customresourcedefinitions", definition)
        .await;
    let name = crate::conformance::harness::name(&made);
    let plural = "customresourcedefinitions";
    let known = |it: &Value| crate::conformance::harness::holds(it, "Established");
    kube.until_object(EXTENSIONS, plural, &name, "established", known)
        .await;
    name
}

#[test]
fn custom_resources_and_their_definitions_pass_webhooks_too() {
    on(async |hook| {
        let kube = &hook.kube;
        let group = format!("{}.example.com", unique("webhook"));
        let text = json!({"data": {"type": "object", "additionalProperties": {"type": "string"}}});
        let definition_name =
            define(kube, definition(&group, json!([version("v1", true, text)]))).await;
        let api = format!("{group}/v1");
        let all = ["CREATE", "UPDATE", "DELETE"];
        let validating = json!([hook.hook("/custom-resource", &["things"], &all, json!({}))]);
        let stage = || {
            hook.hook(
                "/mutating-custom-resource",
                &["things"],
                &["CREATE"],
                json!({}),
            )
        };
        let names = [
            (VALIDATING, hook.register(VALIDATING, validating).await),
            (
                MUTATING,
                hook.register(MUTATING, json!([stage(), stage()])).await,
            ),
        ];
        let thing = |name: &str, data: Value| json!({"kind": "Thing", "apiVersion": api, "metadata": {"name": name}, "data": data});
        let unwanted = thing("unwanted", json!({"webhook-e2e-test": "webhook-disallow"}));
        let said = refused(kube, &api, "things", &unwanted).await;
        assert!(
            said.contains("the custom resource contains unwanted data"),
            "{said}"
        );
        let made = kube
            .create(&api, "things", thing("a", json!({"mutation-start": "yes"})))
            .await;
        assert_eq!(made["data"]["mutation-stage-2"], "yes");
        // Of definitions, those with this label are looked at.
        let only = json!({"objectSelector": {"matchLabels": {"webhook-e2e-test": "webhook-disallow"}},
            "namespaceSelector": {}});
        let hooks = json!([hook.hook("/crd", &["customresourcedefinitions"], &["CREATE"], only)]);
        let definitions = hook.register(VALIDATING, hooks).await;
        let other = format!("{}.example.com", unique("denied"));
        let mut denied = definition(&other, json!([version("v1", true, json!({}))]));
        denied["metadata"]["labels"] = json!({"webhook-e2e-test": "webhook-disallow"});
        let said = refused(kube, EXTENSIONS, "customresourcedefinitions", &denied).await;
        assert!(said.contains("the crd contains unwanted label"), "{said}");
        kube.delete(REGISTRATION, VALIDATING, &definitions).await;
        for (kind, name) in names {
            kube.delete(REGISTRATION, kind, &name).await;
        }
        kube.delete(EXTENSIONS, "customresourcedefinitions", &definition_name)
            .await;
    });
}

#[test]
fn custom_resources_are_converted_by_a_pod() {
    crate::conformance::harness::on_cluster(async |kube| {
        let hook = Hook::deploy(kube, "crd-conversion-webhook").await;
        let kube = &hook.kube;
        // The server knows this group alone.
        let text = json!({"type": "string"});
        let mut definition = definition(
            "stable.example.com",
            json!([
                version("v1", true, json!({"hostPort": text})),
                version("v2", false, json!({"host": text, "port": text})),
            ]),
        );
        definition["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
            "clientConfig": hook.config("/crdconvert", true),
            "conversionReviewVersions": ["v1", "v1beta1"]}});
        let name = define(kube, definition).await;
        let object = |version: &str, name: &str, fields: Value| {
            let mut it = json!({"kind": "Thing", "metadata": {"name": name},
                "apiVersion": format!("stable.example.com/{version}")});
            crate::conformance::harness::merge_into(&mut it, fields);
            it
        };
        let (v1, v2) = ("stable.example.com/v1", "stable.example.com/v2");
        let first = object("v1", "first", json!({"hostPort": "localhost:8080"}));
        kube.create(v1, "things", first).await;
        let seen = kube.get(v2, "things", "first").await;
        assert_eq!(
            (&seen["host"], &seen["port"]),
            (&json!("localhost"), &json!("8080"))
        );
        let second = object("v2", "second", json!({"host": "remote", "port": "1"}));
        kube.create(v2, "things", second).await;
        let mut all: Vec<String> = kube
            .list(v1, "things", "")
            .await
            .iter()
            .map(|it| it["hostPort"].as_str().unwrap().to_owned())
            .collect();
        all.sort();
        assert_eq!(all, ["localhost:8080", "remote:1"]);
        kube.delete(EXTENSIONS, "customresourcedefinitions", &name)
            .await;
    });
}

fn on(test: impl AsyncFnOnce(Hook)) {
    crate::conformance::harness::on_cluster(async |kube| {
        let hook = Hook::deploy(kube, "webhook").await;
        test(hook).await;
    });
}

#[test]
fn a_pod_in_which_nothing_answers_is_told_from_a_failing_webhook() {
    crate::conformance::harness::on_cluster(async |kube| {
        let hook = Hook::deploy(kube, "some-operator").await;
        let kube = &hook.kube;
        let hooks = json!([hook.hook("/validate", &["configmaps"], &["CREATE"], json!({}))]);
        let name = hook.register(VALIDATING, hooks).await;
        let said = refused(kube, "v1", "configmaps", &map("foo", json!({}))).await;
        let simulated = "(the webhook's pod is simulated: of most images nothing runs in it)";
        assert!(said.contains(simulated), "{said}");
        kube.delete(REGISTRATION, VALIDATING, &name).await;
    });
}
