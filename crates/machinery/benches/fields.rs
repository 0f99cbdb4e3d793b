//! What field ownership costs a write: `cargo bench -p gantry-machinery --bench fields`. Prints
//! microseconds a call, on one core.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails ends")]
#![expect(clippy::print_stdout, reason = "its output is what it is run for")]

use std::time::Instant;

use gantry_machinery::{
    apply::{Manager, Operation, apply, reset_fields, track_update},
    patch,
    resource::{Resource, builtin_resources},
};
use serde_json::{Value, json};

const ROUNDS: u32 = 20_000;

fn pods() -> &'static Resource {
    builtin_resources()
        .iter()
        .find(|r| r.group.is_empty() && r.plural == "pods")
        .unwrap()
}

/// A pod as a StatefulSet makes it, defaulted.
fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "cart-prod-0", "namespace": "shop", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "cart", "gantry.dev/app": "cart", "gantry.dev/group": "cart-prod", "gantry.dev/cell": "sh-a", "gantry.dev/revision": "1"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "cart-prod", "uid": "s", "controller": true, "blockOwnerDeletion": true}]},
        "spec": {"containers": [{"name": "app", "image": "registry.example.com/shop/cart:1.4.2",
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "1", "memory": "2Gi"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}],
            "volumes": [{"name": "data", "emptyDir": {}}], "readinessGates": [{"conditionType": "gantry.dev/in-service"}],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "serviceAccountName": "default",
            "securityContext": {}, "schedulerName": "default-scheduler", "enableServiceLinks": true, "priority": 0, "hostname": "cart-prod-0"},
        "status": {"phase": "Pending", "qosClass": "Guaranteed"}})
}

fn manager<'a>(name: &'a str, operation: Operation, subresource: &'a str) -> Manager<'a> {
    Manager {
        name,
        operation,
        api_version: "v1",
        subresource,
        time: jiff::Timestamp::UNIX_EPOCH,
    }
}

/// Times `run` alone: `prepare` makes its argument.
fn measure<T, R>(name: &str, mut prepare: impl FnMut() -> T, mut run: impl FnMut(T) -> R) {
    let mut spent = std::time::Duration::ZERO;
    for _ in 0..ROUNDS {
        let argument = prepare();
        let start = Instant::now();
        let result = run(argument);
        spent += start.elapsed();
        drop(std::hint::black_box(result));
    }
    println!(
        "{name:<44} {:>7.2} µs",
        spent.as_secs_f64() * 1e6 / f64::from(ROUNDS)
    );
}

fn main() {
    let resource = pods();
    let schema = resource.schema();
    let new = pod();
    let track = |old: Option<&Value>, mut new: Value, name, subresource: &'static str| {
        let sub = (!subresource.is_empty()).then_some(subresource);
        let reset = reset_fields(resource, sub);
        let manager = manager(name, Operation::Update, subresource);
        track_update(schema, &reset, old, &mut new, manager).unwrap();
        new
    };
    measure(
        "create",
        || new.clone(),
        |p| track(None, p, "controller", ""),
    );

    let created = track(None, new.clone(), "controller", "");
    let mut bound = created.clone();
    bound["spec"]["nodeName"] = json!("n-001");
    measure(
        "bind",
        || bound.clone(),
        |p| track(Some(&created), p, "scheduler", ""),
    );

    let bound = track(Some(&created), bound, "scheduler", "");
    let mut running = bound.clone();
    running["status"] = json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "qosClass": "Guaranteed", "startTime": "2026-01-01T00:00:01Z",
        "conditions": (["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(|t| json!({"type": t, "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-01T00:00:01Z"}))),
        "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0, "image": "cart", "imageID": "x", "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}}}]});
    measure(
        "status, first",
        || running.clone(),
        |p| track(Some(&bound), p, "kubelet", "status"),
    );

    let running = track(Some(&bound), running, "kubelet", "status");
    let mut gated = running.clone();
    gated["status"]["conditions"][3]["status"] = json!("False");
    measure(
        "status, one condition",
        || gated.clone(),
        |p| track(Some(&running), p, "kubelet", "status"),
    );
    measure(
        "update, nothing changed",
        || running.clone(),
        |p| track(Some(&running), p, "kubelet", "status"),
    );

    let mut put = gated.clone();
    put["metadata"]
        .as_object_mut()
        .map(|m| m.remove("managedFields"));
    measure(
        "status, entries left out",
        || put.clone(),
        |p| track(Some(&running), p, "kubelet", "status"),
    );

    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    measure(
        "strategic merge patch of a condition",
        || (running.clone(), patch.clone()),
        |(target, patch)| patch::strategic(schema, target, patch).unwrap(),
    );
    let config = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart-prod-0", "labels": {"x": "1"}},
        "spec": {"containers": [{"name": "app", "image": "registry.example.com/shop/cart:1.5.0"}]}});
    let reset = reset_fields(resource, None);
    measure(
        "apply, forced",
        || config.clone(),
        |config| {
            let manager = manager("hub", Operation::Apply, "");
            apply(schema, &reset, Some(&running), config, manager, true).unwrap()
        },
    );
}
