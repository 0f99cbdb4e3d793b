//! Volumes whose objects change while somebody reads them.

use serde_json::{Value, json};

use crate::conformance::{
    harness::{Kube, on_cluster},
    storage::{looks, volume},
};

/// A pod that reads a file over and over.
fn follows(name: &str, volume: Value, file: &str) -> Value {
    let file = format!("--file_content_in_loop=/etc/v/{file}");
    let args = [
        "--break_on_expected_content=false",
        "--retry_time=1200",
        &file,
    ];
    looks(name, volume, json!({"mountPath": "/etc/v"}), &args)
}

async fn says(kube: &Kube, pod: &str, text: &str) -> String {
    let what = format!("{pod} to say {text:?}");
    kube.until(
        &what,
        async || kube.log(pod, "c").await,
        |log| log.contains(text),
    )
    .await
}

/// Updates: of maps and Secrets that were there, come late, go, and lose and get keys.
#[test]
fn changes_of_maps_and_secrets_reach_who_reads_them() {
    on_cluster(async |kube| {
        let kinds = [
            ("configMap", "configmaps", false),
            ("configMap", "configmaps", true),
            ("secret", "secrets", false),
            ("secret", "secrets", true),
        ];
        let field = |kind: &str| {
            if kind == "secret" {
                "stringData"
            } else {
                "data"
            }
        };
        let named = |kind: &str, projected: bool, what: &str| {
            format!("{}-{what}-{projected}", kind.to_lowercase())
        };
        for (kind, plural, projected) in kinds {
            let optional = |name: &str| {
                let mut volume = volume(kind, projected, name, Value::Null, None);
                let source = match projected {
                    true => &mut volume["projected"]["sources"][0][kind],
                    false => &mut volume[kind],
                };
                source["optional"] = true.into();
                volume
            };
            let object = |name: &str| json!({"metadata": {"name": name}, field(kind): {"data-1": "value-1"}});
            for (what, file) in [
                ("del", "data-1"),
                ("upd", "data-3"),
                ("new", "data-1"),
                ("chg", "data-1"),
            ] {
                let name = named(kind, projected, what);
                if what != "new" {
                    kube.create("v1", plural, object(&name)).await;
                }
                kube.create("v1", "pods", follows(&name, optional(&name), file))
                    .await;
            }
        }
        for (kind, plural, projected) in kinds {
            let name = |what: &str| named(kind, projected, what);
            for what in ["del", "upd", "new", "chg"] {
                kube.running(&name(what)).await;
            }
            says(&kube, &name("del"), "\": value-1\n").await;
            says(&kube, &name("chg"), "\": value-1\n").await;
            says(&kube, &name("upd"), "Error reading file /etc/v/data-3").await;
            says(&kube, &name("new"), "Error reading file /etc/v/data-1").await;
            kube.delete("v1", plural, &name("del")).await;
            let third = json!({"data": {"data-1": null}, field(kind): {"data-3": "value-3"}});
            let third = match kind {
                "secret" => third,
                _ => json!({"data": {"data-1": null, "data-3": "value-3"}}),
            };
            kube.merge("v1", plural, &name("upd"), third).await;
            kube.merge(
                "v1",
                plural,
                &name("chg"),
                json!({field(kind): {"data-1": "value-2"}}),
            )
            .await;
            let object =
                json!({"metadata": {"name": name("new")}, field(kind): {"data-1": "value-1"}});
            kube.create("v1", plural, object).await;
        }
        for (kind, _, projected) in kinds {
            let name = |what: &str| named(kind, projected, what);
            says(&kube, &name("new"), "\": value-1\n").await;
            says(&kube, &name("upd"), "\": value-3\n").await;
            says(&kube, &name("del"), "Error reading file /etc/v/data-1").await;
            let log = says(&kube, &name("chg"), "\": value-2\n").await;
            assert!(
                log.contains("\": value-1\n"),
                "what was printed stays printed: {log}"
            );
        }
    });
}

/// Updates of labels and annotations.
#[test]
fn changes_of_a_pod_reach_its_files() {
    on_cluster(async |kube| {
        for projected in [false, true] {
            for what in ["labels", "annotations"] {
                let items =
                    json!([{"path": what, "fieldRef": {"fieldPath": format!("metadata.{what}")}}]);
                let name = format!("{what}-{projected}");
                let mut pod = follows(
                    &name,
                    volume("downwardAPI", projected, "", items, None),
                    what,
                );
                pod["metadata"][what] = json!({"key1": "value1", "key2": "value2"});
                kube.create("v1", "pods", pod).await;
            }
        }
        for projected in [false, true] {
            for what in ["labels", "annotations"] {
                let name = format!("{what}-{projected}");
                says(&kube, &name, "key1=\"value1\"\n").await;
                let change = json!({"metadata": {what: {"key2": "value3"}}});
                kube.merge("v1", "pods", &name, change).await;
                let log = says(&kube, &name, "key2=\"value3\"\n").await;
                assert!(log.contains("key2=\"value2\"\n"), "{log}");
            }
        }
    });
}
