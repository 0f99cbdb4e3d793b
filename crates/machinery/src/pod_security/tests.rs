//! What pods of each level are told, a row a check.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;

/// A pod of one container and more of its spec.
fn pod(spec: Value, container: Value) -> Value {
    let mut pod = json!({"spec": spec});
    let mut one = container;
    one["name"] = "a".into();
    pod["spec"]["containers"] = json!([one]);
    pod
}

fn context(context: Value) -> Value {
    pod(json!({}), json!({ "securityContext": context }))
}

fn whole(context: Value) -> Value {
    pod(json!({ "securityContext": context }), json!({}))
}

fn told(pod: &Value, level: Level, version: Version) -> String {
    details(&violations(pod, LevelVersion { level, version }))
}

#[rstest]
#[case(context(json!({})), "")]
#[case(pod(json!({"hostNetwork": true, "hostIPC": true}), json!({})), "host namespaces (hostNetwork=true, hostIPC=true)")]
#[case(pod(json!({"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "hostPath": {}}]}), json!({})), "hostPath volumes (volumes \"v\", \"w\")")]
#[case(pod(json!({}), json!({"ports": [{"hostPort": 80}, {"hostPort": 443}, {"hostPort": 0}]})), "hostPort (container \"a\" uses hostPorts 443, 80)")]
#[case(context(json!({"privileged": true})), "privileged (container \"a\" must not set securityContext.privileged=true)")]
#[case(context(json!({"capabilities": {"add": ["CHOWN", "SYS_ADMIN", "NET_ADMIN"]}})), "non-default capabilities (container \"a\" must not include \"NET_ADMIN\", \"SYS_ADMIN\" in securityContext.capabilities.add)")]
#[case(context(json!({"appArmorProfile": {"type": "Unconfined"}})), "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")")]
#[case(whole(json!({"appArmorProfile": {"type": "Unconfined"}})), "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")")]
#[case(json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}}, "spec": {"containers": []}}),
    "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")")]
#[case(context(json!({"procMount": "Unmasked"})), "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")")]
#[case(pod(json!({"hostUsers": false}), json!({"securityContext": {"procMount": "Unmasked"}})), "")]
#[case(whole(json!({"seLinuxOptions": {"type": "x", "role": "r"}})), "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; role may not be set)")]
#[case(context(json!({"seLinuxOptions": {"type": "container_engine_t"}})), "")]
#[case(context(json!({"seccompProfile": {"type": "Unconfined"}})), "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")")]
#[case(whole(json!({"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "kernel.sem"}]})), "forbidden sysctls (kernel.sem)")]
#[case(whole(json!({"windowsOptions": {"hostProcess": true}})), "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)")]
#[case(pod(json!({}), json!({"livenessProbe": {"httpGet": {"host": "b"}}, "lifecycle": {"preStop": {"tcpSocket": {"host": "a"}}}})), "probe or lifecycle host (container \"a\" uses probe or lifecycle hosts \"a\", \"b\")")]
fn baseline(#[case] pod: Value, #[case] expected: &str) {
    assert_eq!(told(&pod, Level::Baseline, Version::Latest), expected);
    assert_eq!(told(&pod, Level::Privileged, Version::Latest), "");
}

/// A pod that the level `restricted` takes, with changes to its container's context.
fn hardened(spec: Value, changes: Value) -> Value {
    let mut context = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        context[name] = value.clone();
    }
    pod(spec, json!({ "securityContext": context }))
}

#[rstest]
#[case(hardened(json!({}), json!({})), "")]
#[case(context(json!({})), "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")")]
#[case(hardened(json!({}), json!({"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}})), "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add)")]
#[case(hardened(json!({"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "nfs": {}}, {"name": "c", "configMap": {}}]}), json!({})), "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")")]
#[case(hardened(json!({"securityContext": {"runAsNonRoot": false}}), json!({"runAsNonRoot": false})), "runAsNonRoot != true (pod and container \"a\" must not set securityContext.runAsNonRoot=false)")]
#[case(hardened(json!({}), json!({"runAsUser": 0})), "runAsUser=0 (container \"a\" must not set runAsUser=0)")]
#[case(hardened(json!({"hostUsers": false}), json!({"runAsUser": 0, "runAsNonRoot": false})), "")]
#[case(hardened(json!({"hostUsers": false}), json!({"procMount": "Unmasked"})), "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")")]
#[case(hardened(json!({}), json!({"seccompProfile": {"type": "Unconfined"}})), "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")")]
#[case(pod(json!({"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}}), json!({})), "")]
fn restricted(#[case] pod: Value, #[case] expected: &str) {
    assert_eq!(told(&pod, Level::Restricted, Version::Latest), expected);
}

#[rstest]
#[case(Version::Minor(31), "forbidden sysctls (net.ipv4.tcp_rmem)")]
#[case(Version::Minor(32), "")]
#[case(Version::Minor(99), "")]
fn versions_have_their_own_rules(#[case] version: Version, #[case] expected: &str) {
    let pod = whole(json!({"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}));
    assert_eq!(told(&pod, Level::Baseline, version), expected);
}

fn namespace(labels: &[(&str, &str)]) -> Value {
    let labels = labels.iter().map(|(name, value)| {
        let name = format!("pod-security.kubernetes.io/{name}");
        (name, Value::from(*value))
    });
    json!({"metadata": {"labels": labels.collect::<serde_json::Map<_, _>>()}})
}

#[rstest]
#[case(&[], "privileged:latest privileged:latest privileged:latest")]
#[case(&[("enforce", "baseline"), ("enforce-version", "v1.20")], "baseline:v1.20 privileged:latest baseline:v1.20")]
#[case(&[("enforce", "baseline"), ("warn", "privileged")], "baseline:latest privileged:latest privileged:latest")]
#[case(&[("enforce", "privileged"), ("warn", "restricted"), ("audit", "baseline"), ("audit-version", "latest")], "privileged:latest baseline:latest restricted:latest")]
#[case(&[("enforce", "odd"), ("audit", "odd"), ("warn", "odd"), ("warn-version", "v2")], "restricted:latest privileged:latest privileged:latest")]
fn labels_ask(#[case] labels: &[(&str, &str)], #[case] expected: &str) {
    let policy = Policy::of(&namespace(labels), &Policy::default());
    let all = [policy.enforce, policy.audit, policy.warn].map(|of| of.to_string());
    assert_eq!(all.join(" "), expected);
    assert_eq!(
        policy.open(),
        expected == "privileged:latest privileged:latest privileged:latest"
    );
}

#[test]
fn wrong_labels_are_named() {
    let faults = label_faults(&namespace(&[
        ("enforce", "odd"),
        ("warn", "baseline"),
        ("audit-version", "v1.01"),
    ]));
    let shown: Vec<String> = faults
        .iter()
        .map(|f| format!("{}: {}", f.field, f.message))
        .collect();
    assert_eq!(
        shown,
        [
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"odd\": must be one of privileged, baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"v1.01\": must be \"latest\" or \"v1.x\"",
        ]
    );
}
