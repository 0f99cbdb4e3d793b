//! Volumes whose files stand in other objects or in the pod, as `agnhost mounttest` prints them:
//! `test/e2e/common/storage` and `test/e2e/storage/subpath.go`.

use serde_json::{Value, json};

use crate::conformance::harness::{Kube, merge_into, on_cluster};

pub const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.59";
pub const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1";

/// A pod of one container that looks at a volume `v`, and ends.
pub fn looks(name: &str, volume: Value, mount: Value, args: &[&str]) -> Value {
    let mut whole = json!({"name": "v"});
    merge_into(&mut whole, volume);
    let mut at = json!({"name": "v"});
    merge_into(&mut at, mount);
    let args: Vec<&str> = std::iter::once("mounttest")
        .chain(args.iter().copied())
        .collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "volumes": [whole],
            "containers": [{"name": "c", "image": AGNHOST, "args": args, "volumeMounts": [at]}]}})
}

/// What a pod must print, every one of these.
type Cases = Vec<(Value, Vec<String>)>;

pub async fn succeed(kube: &Kube, cases: Cases) {
    for (pod, _) in &cases {
        kube.create("v1", "pods", pod.clone()).await;
    }
    for (pod, wanted) in cases {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let ended =
            |it: &Value| matches!(it["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let seen = kube.until_object("v1", "pods", name, "over", ended).await;
        let log = kube.log(name, "c").await;
        assert_eq!(seen["status"]["phase"], "Succeeded", "{name}: {log}");
        for text in wanted {
            assert!(log.contains(&text), "{name}: no {text:?} in {log:?}");
        }
    }
}

pub fn with(mut pod: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    pod.pointer_mut(parent).unwrap()[field] = value;
    pod
}

/// EmptyDir: modes and contents by user and medium; with a group for the files.
#[test]
fn empty_directories_have_modes_and_owners() {
    on_cluster(async |kube| {
        let mut cases = Cases::new();
        let mount = json!({"mountPath": "/test-volume"});
        for (medium, kind) in [("Memory", "tmpfs"), ("", "")] {
            let named =
                |what: &str| format!("{what}-{}", if kind.is_empty() { "disk" } else { kind });
            let volume = json!({"emptyDir": {"medium": medium}});
            let told = |mut wanted: Vec<String>| {
                if !kind.is_empty() {
                    wanted.push(format!("mount type of \"/test-volume\": {kind}"));
                }
                wanted
            };
            let of = |name: &str, args: &[&str]| {
                let args: Vec<&str> = std::iter::once("--fs_type=/test-volume")
                    .chain(args.iter().copied())
                    .collect();
                looks(name, volume.clone(), mount.clone(), &args)
            };
            for group in [None, Some(1001)] {
                let mut pod = of(
                    &named(&format!("mode-{}", group.unwrap_or(0))),
                    &["--file_perm=/test-volume"],
                );
                pod["spec"]["securityContext"]["fsGroup"] = json!(group);
                cases.push((
                    pod,
                    told(vec!["perms of file \"/test-volume\": -rwxrwxrwx".into()]),
                ));
            }
            for (bits, shown) in [
                ("0644", "-rw-r--r--"),
                ("0666", "-rw-rw-rw-"),
                ("0777", "-rwxrwxrwx"),
            ] {
                for (who, user) in [("root", None), ("user", Some(1001))] {
                    let file = format!("--new_file_{bits}=/test-volume/test-file");
                    let name = named(&format!("{who}-{bits}"));
                    let mut pod = of(&name, &[&file, "--file_perm=/test-volume/test-file"]);
                    pod["spec"]["securityContext"]["runAsUser"] = json!(user);
                    cases.push((
                        pod,
                        told(vec![
                            format!("perms of file \"/test-volume/test-file\": {shown}"),
                            "content of file \"/test-volume/test-file\": mount-tester new file"
                                .into(),
                        ]),
                    ));
                }
            }
            for (who, user) in [("root", 0), ("user", 1001)] {
                let args = [
                    "--new_file_0660=/test-volume/test-file",
                    "--file_perm=/test-volume/test-file",
                    "--file_owner=/test-volume/test-file",
                ];
                let mut pod = of(&named(&format!("setgid-{who}")), &args);
                pod["spec"]["securityContext"] = json!({"runAsUser": user, "fsGroup": 123});
                cases.push((
                    pod,
                    told(vec![
                        "perms of file \"/test-volume/test-file\": -rw-rw----".into(),
                        format!("owner UID of \"/test-volume/test-file\": {user}"),
                        "owner GID of \"/test-volume/test-file\": 123".into(),
                    ]),
                ));
            }
        }
        let inside = json!({"mountPath": "/test-volume", "subPath": "test-sub"});
        let args = [
            "--fs_type=/test-volume",
            "--file_perm=/test-volume",
            "--file_owner=/test-volume",
            "--file_mode=/test-volume",
        ];
        let pod = looks(
            "sub",
            json!({"emptyDir": {"medium": "Memory"}}),
            inside,
            &args,
        );
        let pod = with(
            pod,
            "/spec/securityContext",
            json!({"runAsUser": 1001, "fsGroup": 123}),
        );
        let wanted = [
            "perms of file \"/test-volume\": -rwxrwxrwx",
            "owner UID of \"/test-volume\": 0",
            "owner GID of \"/test-volume\": 123",
            "mode of file \"/test-volume\": dgtrwxrwxrwx",
            "mount type of \"/test-volume\": tmpfs",
        ];
        cases.push((pod, wanted.map(str::to_owned).to_vec()));
        succeed(&kube, cases).await;
    });
}

/// A volume of one source, alone or projected.
pub fn volume(kind: &str, projected: bool, name: &str, items: Value, mode: Option<u32>) -> Value {
    let named = match (kind, projected) {
        ("secret", false) => "secretName",
        _ => "name",
    };
    let mut source = json!({"items": items});
    if kind != "downwardAPI" {
        source[named] = name.into();
    }
    if projected {
        return json!({"projected": {"sources": [{kind: source}], "defaultMode": mode.unwrap_or(0o644)}});
    }
    source["defaultMode"] = mode.unwrap_or(0o644).into();
    json!({kind: source})
}

async fn data(kube: &Kube) {
    let values = json!({"data-1": "value-1", "data-2": "value-2", "data-3": "value-3"});
    let map = json!({"metadata": {"name": "m"}, "data": values});
    kube.create("v1", "configmaps", map).await;
    let secret = json!({"metadata": {"name": "m"}, "stringData": values});
    kube.create("v1", "secrets", secret).await;
}

/// ConfigMap, Secret, and both projected: contents and modes, mapped or not, as root or not.
#[test]
fn maps_and_secrets_are_files() {
    on_cluster(async |kube| {
        data(&kube).await;
        // Another namespace has a Secret of that name, too.
        let other = Kube {
            client: kube.client.clone(),
            namespace: format!("{}-other", kube.namespace),
        };
        kube.create(
            "v1",
            "namespaces",
            json!({"metadata": {"name": other.namespace}}),
        )
        .await;
        let secret = json!({"metadata": {"name": "m"}, "stringData": {"data-1": "not this"}});
        other.create("v1", "secrets", secret).await;

        let mut cases = Cases::new();
        for (kind, projected) in [
            ("configMap", false),
            ("configMap", true),
            ("secret", false),
            ("secret", true),
        ] {
            let of = |name: &str,
                      items: Value,
                      mode: Option<u32>,
                      file: &str,
                      context: Value,
                      wanted: &[&str]| {
                let name = format!("{}-{name}-{projected}", kind.to_lowercase());
                let args = [
                    format!("--file_content=/etc/v/{file}"),
                    format!("--file_mode=/etc/v/{file}"),
                ];
                let args = [args[0].as_str(), args[1].as_str()];
                let mount = json!({"mountPath": "/etc/v", "readOnly": true});
                let pod = looks(
                    &name,
                    volume(kind, projected, "m", items, mode),
                    mount,
                    &args,
                );
                let pod = with(pod, "/spec/securityContext", context);
                let content = format!(
                    "content of file \"/etc/v/{file}\": value-{}",
                    &file[file.len() - 1..]
                );
                let shown = wanted
                    .iter()
                    .map(|it| format!("mode of file \"/etc/v/{file}\": {it}"));
                (
                    pod,
                    std::iter::once(content).chain(shown).collect::<Vec<_>>(),
                )
            };
            let item = |mode: Option<u32>| json!([{"key": "data-2", "path": "path/to/data-2", "mode": mode}]);
            let user = json!({"runAsUser": 1000});
            let group = json!({"runAsUser": 1000, "fsGroup": 1001});
            let all = [
                of(
                    "plain",
                    Value::Null,
                    None,
                    "data-1",
                    json!({}),
                    &["-rw-r--r--"],
                ),
                of(
                    "mode",
                    Value::Null,
                    Some(0o400),
                    "data-1",
                    json!({}),
                    &["-r--------"],
                ),
                of(
                    "user",
                    Value::Null,
                    None,
                    "data-1",
                    user.clone(),
                    &["-rw-r--r--"],
                ),
                of(
                    "group",
                    Value::Null,
                    Some(0o440),
                    "data-1",
                    group.clone(),
                    &["-r--r-----"],
                ),
                of(
                    "group-reads",
                    Value::Null,
                    Some(0o400),
                    "data-1",
                    group,
                    &["-r--r-----"],
                ),
                of(
                    "mapped",
                    item(None),
                    None,
                    "path/to/data-2",
                    json!({}),
                    &["-rw-r--r--"],
                ),
                of(
                    "item",
                    item(Some(0o400)),
                    None,
                    "path/to/data-2",
                    json!({}),
                    &["-r--------"],
                ),
                of(
                    "mapped-user",
                    item(None),
                    None,
                    "path/to/data-2",
                    user,
                    &["-rw-r--r--"],
                ),
            ];
            cases.extend(all);
            // The same in two volumes of one pod.
            let (mut twice, wanted) = of("twice", Value::Null, None, "data-1", json!({}), &[]);
            let mut second = volume(kind, projected, "m", Value::Null, None);
            second["name"] = "w".into();
            twice["spec"]["volumes"]
                .as_array_mut()
                .unwrap()
                .push(second);
            let mounts = &mut twice["spec"]["containers"][0]["volumeMounts"];
            mounts
                .as_array_mut()
                .unwrap()
                .push(json!({"name": "w", "mountPath": "/etc/w"}));
            cases.push((twice, wanted));
        }
        // All that can be projected, in one.
        let sources = json!([
            {"downwardAPI": {"items": [{"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"secret": {"name": "m", "items": [{"key": "data-1", "path": "secret-data"}]}},
            {"configMap": {"name": "m", "items": [{"key": "data-2", "path": "configmap-data"}]}}]);
        let mut all = looks(
            "all",
            json!({"projected": {"sources": sources}}),
            json!({"mountPath": "/all"}),
            &[],
        );
        let script = "cat /all/podname && cat /all/secret-data && cat /all/configmap-data";
        all["spec"]["containers"][0] = json!({"name": "c", "image": BUSYBOX, "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "v", "mountPath": "/all"}]});
        cases.push((all, vec!["allvalue-1value-2".to_owned()]));
        succeed(&kube, cases).await;
        kube.delete("v1", "namespaces", &other.namespace).await;
    });
}

/// DownwardAPI, alone and projected: names, modes, resources.
#[test]
fn what_a_pod_is_told_of_itself() {
    on_cluster(async |kube| {
        let mut cases = Cases::new();
        for projected in [false, true] {
            let field = |mode: Option<u32>| json!([{"path": "podname", "mode": mode, "fieldRef": {"fieldPath": "metadata.name"}}]);
            let of =
                |name: &str, items: Value, mode: Option<u32>, args: &[&str], wanted: &[&str]| {
                    let name = format!("{name}-{projected}");
                    let pod = looks(
                        &name,
                        volume("downwardAPI", projected, "", items, mode),
                        json!({"mountPath": "/etc/podinfo"}),
                        args,
                    );
                    (
                        pod,
                        wanted
                            .iter()
                            .map(|it| it.replace("NAME", &name))
                            .collect::<Vec<_>>(),
                    )
                };
            let (content, mode) = (
                &["--file_content=/etc/podinfo/podname"][..],
                &["--file_mode=/etc/podinfo/podname"][..],
            );
            let read = "mode of file \"/etc/podinfo/podname\": -r--------";
            cases.push(of(
                "podname",
                field(None),
                None,
                content,
                &["podname\": NAME\n"],
            ));
            cases.push(of("default-mode", field(None), Some(0o400), mode, &[read]));
            cases.push(of("item-mode", field(Some(0o400)), None, mode, &[read]));
            let resources = [
                ("limits.cpu", true, "2\n"),
                ("limits.memory", true, "67108864\n"),
                ("requests.cpu", true, "1\n"),
                ("requests.memory", true, "33554432\n"),
                ("limits.cpu", false, ""),
                ("limits.memory", false, ""),
            ];
            for (resource, set, wanted) in resources {
                let items = json!([{"path": "amount", "resourceFieldRef": {"containerName": "c", "resource": resource}}]);
                let name = format!("{}-{set}", resource.replace('.', "-"));
                let told = format!("\"/etc/podinfo/amount\": {wanted}");
                let (mut pod, _) = of(
                    &name,
                    items,
                    None,
                    &["--file_content=/etc/podinfo/amount"],
                    &[],
                );
                if set {
                    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "250m", "memory": "32Mi"},
                        "limits": {"cpu": "1250m", "memory": "64Mi"}});
                }
                cases.push((pod, vec![told]));
            }
        }
        let nodes = cases
            .iter()
            .filter(|(_, wanted)| wanted[0].ends_with(": "))
            .map(|(pod, _)| pod["metadata"]["name"].clone());
        let nodes: Vec<Value> = nodes.collect();
        succeed(&kube, cases).await;
        for name in nodes {
            let log = kube.log(name.as_str().unwrap(), "c").await;
            let amount = log.trim().rsplit(' ').next().unwrap();
            assert!(
                amount.parse::<u64>().unwrap() > 0,
                "what the node has: {log}"
            );
        }
    });
}

/// Subpath: one file of a volume that is written as a whole.
#[test]
fn a_file_of_a_volume_is_mounted_alone() {
    on_cluster(async |kube| {
        data(&kube).await;
        let told =
            json!([{"path": "downward/podname", "fieldRef": {"fieldPath": "metadata.name"}}]);
        let mapped = json!([{"key": "data-2", "path": "projected/data-2"}]);
        let cases = [
            (
                "secret",
                volume("secret", false, "m", Value::Null, None),
                "data-1",
                "/test-volume",
                "value-1",
            ),
            (
                "map",
                volume("configMap", false, "m", Value::Null, None),
                "data-1",
                "/test-volume",
                "value-1",
            ),
            (
                "existing",
                volume("configMap", false, "m", Value::Null, None),
                "data-1",
                "/etc/resolv.conf",
                "value-1",
            ),
            (
                "downward",
                volume("downwardAPI", false, "", told, None),
                "downward/podname",
                "/test-volume",
                "downward",
            ),
            (
                "projected",
                volume("configMap", true, "m", mapped, None),
                "projected/data-2",
                "/test-volume",
                "value-2",
            ),
        ];
        let cases = cases.map(|(name, volume, inside, path, wanted)| {
            let args = [
                format!("--file_content_in_loop={path}"),
                "--retry_time=3".to_owned(),
            ];
            let mount = json!({"mountPath": path, "subPath": inside});
            let pod = looks(name, volume, mount, &[&args[0], &args[1]]);
            (pod, vec![format!("content of file \"{path}\": {wanted}\n")])
        });
        succeed(&kube, cases.into()).await;
    });
}

/// Binary data, printed by `hexdump`; and a volume that two containers share.
#[test]
fn bytes_are_kept_and_containers_share_a_volume() {
    on_cluster(async |kube| {
        let map = json!({"metadata": {"name": "m"}, "data": {"data-1": "value-1"}, "binaryData": {"dump.bin": "3sr+utD+/w=="}});
        kube.create("v1", "configmaps", map).await;
        let mut pod = looks(
            "dumps",
            volume("configMap", false, "m", Value::Null, None),
            json!({"mountPath": "/etc/v"}),
            &[],
        );
        pod["spec"]["containers"][0] = json!({"name": "c", "image": BUSYBOX, "command": ["hexdump", "-C", "/etc/v/dump.bin"],
            "volumeMounts": [{"name": "v", "mountPath": "/etc/v"}]});
        succeed(&kube, vec![(pod, vec!["de ca fe ba d0 fe ff".to_owned()])]).await;

        let mut pod = looks("shares", json!({"emptyDir": {}}), json!({}), &[]);
        let container = |name: &str, script: &str, path: &str| {
            json!({"name": name, "image": BUSYBOX,
            "command": ["/bin/sh"], "args": ["-c", script], "volumeMounts": [{"name": "v", "mountPath": path}]})
        };
        let endless = "trap exit TERM; while true; do sleep 1; done";
        pod["spec"]["containers"] = json!([
            container("main", endless, "/usr/share/volumeshare"),
            container(
                "sub",
                "echo Hello from the busy-box sub-container > /pod-data/shareddata.txt",
                "/pod-data"
            )
        ]);
        kube.create("v1", "pods", pod).await;
        kube.until_object("v1", "pods", "shares", "running", |it| {
            it["status"]["phase"] == "Running"
        })
        .await;
        let cat = async || {
            let script = "cat /usr/share/volumeshare/shareddata.txt";
            kube.exec("shares", "main", &["/bin/sh", "-c", script])
                .await
        };
        kube.until("the other's file", cat, |it| {
            it == "Hello from the busy-box sub-container\n"
        })
        .await;
    });
}

/// A directory in memory is as large as it is told to be.
#[test]
fn a_directory_in_memory_has_its_size() {
    on_cluster(async |kube| {
        let volume = json!({"emptyDir": {"medium": "Memory", "sizeLimit": "10Mi"}});
        let mut pod = looks("sized", volume, json!({}), &[]);
        pod["spec"]["containers"] = json!([{"name": "c", "image": BUSYBOX, "command": ["sleep", "1000"],
            "volumeMounts": [{"name": "v", "mountPath": "/usr/share/volumeshare"}]}]);
        kube.create("v1", "pods", pod).await;
        kube.running("sized").await;
        let script = "df | grep /usr/share/volumeshare | awk '{print $2}'";
        let said = kube.exec("sized", "c", &["/bin/sh", "-c", script]).await;
        assert_eq!(said, "10240\n");
    });
}

/// Immutability of maps and Secrets.
#[test]
fn what_is_immutable_keeps_its_data() {
    on_cluster(async |kube| {
        for (plural, field) in [("configmaps", "data"), ("secrets", "stringData")] {
            let refused = async |patch: Value| {
                let path = format!("{}/m", kube.path("v1", plural));
                let headers = [("content-type", "application/merge-patch+json")];
                let (code, answer) = kube.ask("PATCH", &path, &headers, &patch.to_string()).await;
                assert_eq!(
                    (code, &answer["reason"]),
                    (422, &json!("Invalid")),
                    "{answer:#}"
                );
            };
            let object = json!({"metadata": {"name": "m"}, field: {"data-1": "value-1"}});
            kube.create("v1", plural, object).await;
            kube.merge("v1", plural, "m", json!({field: {"data-4": "value-4"}}))
                .await;
            kube.merge("v1", plural, "m", json!({"immutable": true}))
                .await;
            refused(json!({field: {"data-5": "value-5"}})).await;
            refused(json!({"immutable": false})).await;
            let seen = kube.get("v1", plural, "m").await;
            assert_eq!(
                (&seen["immutable"], seen["data"].as_object().unwrap().len()),
                (&json!(true), 2)
            );
            kube.merge(
                "v1",
                plural,
                "m",
                json!({"metadata": {"labels": {"a": "1"}}}),
            )
            .await;
            kube.delete("v1", plural, "m").await;
        }
    });
}

/// EmptyDir wrapper volumes: a map and a Secret in one pod; fifty maps in each of five.
#[test]
fn many_volumes_of_objects_are_mounted() {
    on_cluster(async |kube| {
        data(&kube).await;
        let volumes: Vec<Value> = (0..50)
            .map(|n| json!({"name": format!("v{n}"), "configMap": {"name": format!("m{n}")}}))
            .collect();
        let mounts: Vec<Value> = (0..50)
            .map(|n| json!({"name": format!("v{n}"), "mountPath": format!("/etc/v{n}")}))
            .collect();
        for n in 0..50 {
            let map = json!({"metadata": {"name": format!("m{n}")}, "data": {"data-1": "value-1"}});
            kube.create("v1", "configmaps", map).await;
        }
        let pod = json!({"metadata": {"labels": {"name": "race"}}, "spec": {"volumes": volumes,
            "containers": [{"name": "c", "image": BUSYBOX, "command": ["sleep", "10000"], "volumeMounts": mounts}]}});
        let controller = json!({"metadata": {"name": "race"}, "spec": {"replicas": 5,
            "selector": {"name": "race"}, "template": pod}});
        kube.create("v1", "replicationcontrollers", controller)
            .await;
        let both = json!({"metadata": {"name": "both"}, "spec": {
            "volumes": [{"name": "s", "secret": {"secretName": "m"}}, {"name": "m", "configMap": {"name": "m"}}],
            "containers": [{"name": "c", "image": AGNHOST, "args": ["pause"], "volumeMounts": [
                {"name": "s", "mountPath": "/etc/s"}, {"name": "m", "mountPath": "/etc/m"}]}]}});
        kube.create("v1", "pods", both).await;
        kube.running("both").await;
        kube.ready_pods("name=race", 5).await;
        let cat = ["cat", "/etc/s/data-1", "/etc/m/data-2"];
        assert_eq!(kube.exec("both", "c", &cat).await, "value-1value-2");
    });
}
